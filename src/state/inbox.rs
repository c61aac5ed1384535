//! Messages to the control task, the one writer of snapshots.
//!
//! Bounded: a sender that finds the inbox full either waits (checks, operators) or drops (workers'
//! hints, which the next connection repeats).

use super::snapshot::BackendId;
use crate::live::CheckReport;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Messages that may wait for the control task.
pub const INBOX_MAX: usize = 1024;

/// A message to the control task.
#[derive(Debug)]
pub enum ToControl {
    /// A worker suspects this server: check it at once.
    CheckNow {
        /// Its backend.
        backend: BackendId,
        /// Its [`crate::live::ServerLive::uid`].
        server: u64,
    },
    /// A health check has ended.
    Checked {
        /// Its backend.
        backend: BackendId,
        /// Its [`crate::live::ServerLive::uid`].
        server: u64,
        /// The verdict.
        report: CheckReport,
    },
    /// An operator sets a server's administrative state.
    SetAdmin {
        /// Its [`crate::live::ServerLive::uid`].
        server: u64,
        /// What it is to be.
        to: AdminRequest,
        /// Told when it is published; `false`: there is no such server any more.
        done: oneshot::Sender<bool>,
    },
    /// An operator sets a server's weight.
    SetWeight {
        /// Its [`crate::live::ServerLive::uid`].
        server: u64,
        /// 0 to 256.
        weight: u32,
        /// Told when it is published; `false`: there is no such server any more.
        done: oneshot::Sender<bool>,
    },
    /// An operator ends a server's sessions.
    KillSessions {
        /// Its [`crate::live::ServerLive::uid`].
        server: u64,
        /// Told when the workers have been told.
        done: oneshot::Sender<bool>,
    },
    /// A host name has been looked up: a server of that name whose address is not among these gets the
    /// first.
    Resolved {
        /// The name, as configured.
        name: Arc<str>,
        /// At least one.
        addresses: Vec<IpAddr>,
    },
}

/// What an operator wants a server to be (`set server … state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminRequest {
    /// In service.
    Ready,
    /// Checked, and nothing new.
    Drain,
    /// Out of service.
    Maint,
}

/// The sending end of the inbox; cheap to clone.
#[derive(Debug, Clone)]
pub struct ControlHandle(mpsc::Sender<ToControl>);

impl ControlHandle {
    /// An inbox.
    pub fn new() -> (Self, mpsc::Receiver<ToControl>) {
        let (sender, receiver) = mpsc::channel(INBOX_MAX);
        (Self(sender), receiver)
    }

    /// Gives a hint: dropped when the inbox is full.
    pub fn hint(&self, message: ToControl) {
        // A full inbox means that control is busy with changes; the next connection hints again.
        let _ = self.0.try_send(message);
    }

    /// Whether every message has been taken out.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.0.capacity() == INBOX_MAX
    }

    /// Whether the control task takes messages out: the inbox has room, and somebody reads it.
    pub fn takes_messages(&self) -> bool {
        self.0.capacity() > 0 && !self.0.is_closed()
    }

    /// Reports, waiting for room. `false` when the control task has ended.
    pub async fn report(&self, message: ToControl) -> bool {
        self.0.send(message).await.is_ok()
    }
}
