//! Health checks: one task per server on the control thread.
//!
//! [`schedule`] decides when, [`probe`] connects once, [`script`] asks more than a connection, and [`task`] does all that for
//! one server and reports to control. Only control decides what a verdict changes ([`crate::state::ServerStatus`]).

mod permits;
pub mod probe;
pub mod schedule;
pub mod script;
pub mod task;
mod words;
