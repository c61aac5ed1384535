//! `rlb schema`
