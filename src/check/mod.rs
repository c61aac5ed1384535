//! Health checks: one task per server on the control thread.
//!
//! [`schedule`] decides when, [`probe`] connects once, and [`task`] does both for one server and reports to
//! control. Only control decides what a verdict changes ([`crate::state::ServerStatus`]).

mod permits;
pub mod probe;
pub mod schedule;
pub mod task;
