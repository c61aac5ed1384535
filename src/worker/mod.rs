//! The data path: one thread per core, each with a runtime, listeners and sessions of its own.
//!
//! A session is accepted, connected and relayed on one worker and never leaves it.

pub mod order;
pub mod plan;
