//! The configuration file: text → [`file::File`] → [`model::Config`].
//!
//! Plain data and code, usable from any thread. `load` never stops at the first problem.

pub mod model;
