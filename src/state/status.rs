//! A server's health and administrative state: HAProxy's state machine as plain data.
//!
//! Pure: events and the clock come in as arguments (sections 2.2 and 2.6 of HAProxy's semantics:
//! health counter 0 to rise + fall - 1, healthy from `rise` on). Runs on the control thread.

use std::time::{Duration, Instant};

/// HAProxy's administrative flags (`srv_admin_state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AdminState(pub u8);

/// HAProxy's operational state (`srv_state`), with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OperState {
    /// Down.
    Stopped = 0,
    /// Coming up slowly.
    Starting = 1,
    /// Up.
    Running = 2,
    /// Up, but takes nothing new.
    Stopping = 3,
}

/// Health and administrative state of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// Administrative flags.
    pub admin: AdminState,
    /// Operational state.
    pub oper: OperState,
    /// Health counter, 0 to rise + fall - 1.
    pub health: u32,
    /// When it last changed between up and down.
    pub since: Instant,
    /// Time spent down before `since`.
    pub down_before: Duration,
}
