//! `rlb check`
