//! Health checks: one task per server on the control thread.
//!
//! [`schedule`] says when, [`probe`] asks once, [`task`] does both for one server and reports to
//! control, which alone decides what a verdict means ([`crate::state::ServerStatus`]).

pub mod probe;
pub mod schedule;
pub mod task;
