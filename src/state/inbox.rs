//! Messages to the control task, the one writer of snapshots.
//!
//! Bounded: when the inbox is full a sender either waits (checks, operators) or drops the message (hints of
//! workers, which the next connection repeats).

use super::ids::{BackendId, FrontendId};
use super::runtime_state::RuntimeState;
use super::server::Endpoint;
use super::snapshot::FrontendState;
use super::status::Forced;
use crate::config::model::{Check, Server, ServerAddress};
use crate::live::CheckReport;
use crate::live::counters::Clear;
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
    /// As many connects to a server have failed in a row as its `error-limit` says.
    Observed {
        /// Its [`crate::live::ServerLive::uid`].
        server: u64,
        /// How many.
        errors: u32,
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
        /// The state to set.
        to: AdminRequest,
        /// Told when the change is published; `false`: there is no such server any more.
        done: oneshot::Sender<bool>,
    },
    /// An operator sets a server's weight.
    SetWeight {
        /// Its [`crate::live::ServerLive::uid`].
        server: u64,
        /// 0 to 256.
        weight: u32,
        /// Told when the change is published; `false`: there is no such server any more.
        done: oneshot::Sender<bool>,
    },
    /// An operator ends a server's sessions.
    KillSessions {
        /// Its [`crate::live::ServerLive::uid`].
        server: u64,
        /// Told when the workers have the order.
        done: oneshot::Sender<bool>,
    },
    /// An operator changes something else.
    Change {
        /// What.
        change: RuntimeChange,
        /// Told when the change is published; `false`: the object is not there any more.
        done: oneshot::Sender<bool>,
    },
    /// A socket of a frontend that was to accept connections again cannot listen.
    CannotListen {
        /// The frontend.
        frontend: FrontendId,
        /// The socket's port; `None`: it has none, or a worker has told it before.
        port: Option<u16>,
        /// Told `false` when the frontend is disabled.
        done: Option<oneshot::Sender<bool>>,
    },
    /// What operators change waits from now on, because what is in force is being handed over.
    HoldChanges {
        /// Told when everything before it is published.
        done: oneshot::Sender<bool>,
    },
    /// The handover has failed: what operators change is made again, first what has waited.
    ResumeChanges,
    /// Another process serves: no check is made and no change of an operator any more; those that wait are told so.
    /// What is asked for the sessions here is still done.
    HandedOver,
    /// The process stops: a client whose session ends could not come back.
    Stopping,
    /// This process takes over what the one before has decided.
    ApplyState {
        /// What it has taken over already.
        before: RuntimeState,
        /// What is in force by now.
        state: RuntimeState,
        /// Told when it is published.
        done: oneshot::Sender<bool>,
    },
    /// A process before this one tells what it has counted.
    AddCounters {
        /// As `control::handover::counters` writes it.
        text: String,
        /// Told when it is counted here.
        done: oneshot::Sender<bool>,
    },
    /// A host name was looked up. A server of that name whose address is not among these gets the first.
    Resolved {
        /// The name, as configured.
        name: Arc<str>,
        /// At least one.
        addresses: Vec<IpAddr>,
    },
}

/// A change that an operator makes to something other than a server's state or weight.
#[derive(Debug, Clone, PartialEq)]
pub enum RuntimeChange {
    /// Most sessions of a frontend; 0: none is accepted.
    FrontendMaxconn(FrontendId, u32),
    /// Whether a frontend accepts connections. The answer comes when the workers have followed; `false`: its sockets
    /// cannot listen.
    FrontendState(FrontendId, FrontendState),
    /// Whether frontends may use a backend.
    Publish(BackendId, bool),
    /// Most connections that are accepted in a second; 0: no limit.
    ConnectionRate(u32),
    /// Most sessions that begin in a second; 0: no limit.
    SessionRate(u32),
    /// Most sessions of the process.
    Maxconn(u32),
    /// Most connections to the statistics; 0: none is accepted.
    StatsMaxconn(u32),
    /// The health of the server with this uid; later checks may change it again.
    Health(u64, Forced, Interface),
    /// The address of the server with this uid, and where its connections go.
    Address(u64, ServerAddress, Endpoint),
    /// Most sessions of the server with this uid; 0: no limit.
    ServerMaxconn(u64, u32),
    /// The check of the server with this uid; `None`: it is not checked.
    Check(u64, Option<Check>),
    /// One server more in a backend, in maintenance.
    AddServer(BackendId, Arc<Server>),
    /// The name of the server with this uid, which is in maintenance.
    RenameServer(u64, Arc<str>),
    /// Remove the server with this uid, which is in maintenance and has no sessions.
    RemoveServer(u64),
    /// Everything that operators have set is as the file says.
    DropOverrides,
    /// Clear counters, those of the control thread.
    ClearCounters(Clear),
}

/// Where an operator makes a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// On a runtime socket.
    Cli,
    /// On the page of the statistics.
    Web,
    /// In an earlier process: a server-state file has it.
    StateFile,
}

impl Interface {
    /// As the log says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cli => "CLI",
            Self::Web => "Web interface",
            Self::StateFile => "server-state after a reload",
        }
    }
}

/// The administrative state that an operator sets (`set server … state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminRequest {
    /// In service.
    Ready,
    /// Checked, but receives no new sessions.
    Drain,
    /// Out of service, and not drained any more.
    Maint,
    /// Out of service; a drain stays (`disable` of the page).
    AddMaint,
    /// Not out of service any more; a drain stays (HAProxy's old action `enable` of the page).
    EndMaint,
    /// In addition no new sessions; maintenance stays (`stop` of the page).
    AddDrain,
    /// Not drained any more; maintenance stays (`start` of the page).
    EndDrain,
}

/// The sender of the inbox; cheap to clone.
#[derive(Debug, Clone)]
pub struct ControlHandle(mpsc::Sender<ToControl>);

impl ControlHandle {
    /// An inbox and its sender.
    pub fn new() -> (Self, mpsc::Receiver<ToControl>) {
        let (sender, receiver) = mpsc::channel(INBOX_MAX);
        (Self(sender), receiver)
    }

    /// Sends a message; `false` when the inbox is full.
    pub fn offer(&self, message: ToControl) -> bool {
        self.0.try_send(message).is_ok()
    }

    /// Sends a hint; drops it when the inbox is full.
    pub fn hint(&self, message: ToControl) {
        // A full inbox means that control is busy with changes. The next connection sends the hint again.
        let _ = self.offer(message);
    }

    /// Whether the control task has taken out every message.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.0.capacity() == INBOX_MAX
    }

    /// Whether the control task takes messages: the inbox has room and is not closed.
    pub fn takes_messages(&self) -> bool {
        self.0.capacity() > 0 && !self.0.is_closed()
    }

    /// Sends a message, waiting for room. `false` when the control task has ended.
    pub async fn report(&self, message: ToControl) -> bool {
        self.0.send(message).await.is_ok()
    }
}
