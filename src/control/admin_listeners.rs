//! What the admin thread listens on: the runtime socket, and orders about the sockets of the
//! statistics, which the table of listening sockets ([`super::listeners`]) opens and keeps.
//!
//! Control thread. Invariant: a listener is opened, its descriptor for the admin thread included,
//! before a reload commits, so that nothing is left that could fail when the admin thread is told.

use super::inherited::Inherited;
use crate::config::model::RuntimeApi;
use crate::sys::socket::{self, Address, Options};
use crate::worker::ListenerId;
use socket2::Socket;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Connections to the runtime socket that may wait.
const RUNTIME_BACKLOG: u32 = 128;

/// Changes that may wait for the admin thread. Whoever reloads waits when it is behind.
pub const CHANGES_MAX: usize = 4;

/// A socket that the statistics are served on.
#[derive(Debug)]
pub struct AdminListener {
    /// Names it when it is to be closed.
    pub id: ListenerId,
    /// Listening, non-blocking; a descriptor of the admin thread's own.
    pub listener: TcpListener,
}

/// What a reload changes of them.
#[derive(Debug, Default)]
pub struct ListenerChange {
    /// Accept from these too.
    pub open: Vec<AdminListener>,
    /// Accept what is queued on these, then close them. Their connections end with the answer that
    /// is on its way.
    pub close: Vec<ListenerId>,
}

/// Where the admin thread is told.
#[derive(Debug, Clone)]
pub struct AdminListeners(mpsc::Sender<ListenerChange>);

impl AdminListeners {
    /// The two ends.
    pub fn new() -> (Self, mpsc::Receiver<ListenerChange>) {
        let (sender, receiver) = mpsc::channel(CHANGES_MAX);
        (Self(sender), receiver)
    }

    /// Tells of a change.
    pub(super) async fn change(&self, change: ListenerChange) {
        if !change.open.is_empty() || !change.close.is_empty() {
            // An admin thread that has ended serves nobody any more.
            let _ = self.0.send(change).await;
        }
    }
}

/// The runtime socket, as it is kept for the next process.
#[derive(Debug, Clone)]
pub struct RuntimeListener {
    /// Listening, non-blocking.
    pub(super) socket: Arc<Socket>,
    /// Cancelled: the admin thread accepts no more there.
    pub closing: CancellationToken,
}

/// The runtime socket, the one that was passed to us or a new one; and a descriptor of it for the
/// admin thread.
///
/// # Errors
/// Why it cannot be had.
pub fn open_runtime(
    api: &RuntimeApi,
    inherited: &mut Inherited,
) -> Result<(RuntimeListener, UnixListener), String> {
    let options = runtime_options(api);
    let mut open = || {
        let socket = match inherited.at_path(&api.socket) {
            Some(socket) => socket::adjust(&socket, &options).map(|()| socket)?,
            None => socket::listen(&options, 1)?.swap_remove(0),
        };
        let listener = UnixListener::from(OwnedFd::from(socket.try_clone()?));
        Ok((socket, listener))
    };
    let (socket, listener) = open().map_err(|error: io::Error| {
        let path = api.socket.display();
        format!("runtime-api: cannot listen on {path}: {error}")
    })?;
    let runtime = RuntimeListener {
        socket: Arc::new(socket),
        closing: CancellationToken::new(),
    };
    Ok((runtime, listener))
}

/// Gives the runtime socket's file the mode of `api`.
///
/// # Errors
/// Those of `chmod`.
pub(super) fn set_runtime_mode(api: &RuntimeApi) -> io::Result<()> {
    socket::set_mode(&api.socket, &runtime_options(api))
}

fn runtime_options(api: &RuntimeApi) -> Options {
    Options {
        address: Address::Unix(api.socket.clone()),
        backlog: RUNTIME_BACKLOG,
        v6only: None,
        interface: None,
        freebind: false,
        mode: Some(api.mode),
        keepalive: None,
        join: false,
    }
}
