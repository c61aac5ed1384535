//! What the admin thread listens on: the runtime socket, and orders about the sockets of the
//! statistics, which the table of listening sockets ([`super::listeners`]) opens and keeps.
//!
//! Control thread. Invariant: a listener is opened, its descriptor for the admin thread included,
//! before a reload commits, so that nothing can fail when the admin thread gets it.

use super::inherited::Inherited;
use super::loss;
use crate::config::model::RuntimeApi;
use crate::sys::socket::{self, Address, FileId, Options};
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

/// Sends the admin thread what changes.
#[derive(Debug, Clone)]
pub struct AdminListeners(mpsc::Sender<ListenerChange>);

impl AdminListeners {
    /// The two ends.
    pub fn new() -> (Self, mpsc::Receiver<ListenerChange>) {
        let (sender, receiver) = mpsc::channel(CHANGES_MAX);
        (Self(sender), receiver)
    }

    /// Sends a change.
    pub async fn change(&self, change: ListenerChange) {
        if !change.open.is_empty() || !change.close.is_empty() {
            // An admin thread that has ended serves nobody any more.
            let _ = self.0.send(change).await;
        }
    }
}

/// The runtime socket to accept from, until it is closing.
#[derive(Debug)]
pub struct RuntimeSocket {
    /// Listening, non-blocking; a descriptor of the admin thread's own.
    pub listener: UnixListener,
    /// Cancelled: accept no more there.
    pub closing: CancellationToken,
}

/// The runtime socket, as it is kept for the next process and watched for the loss of its file.
#[derive(Debug)]
pub struct RuntimeListener {
    /// Listening, non-blocking.
    pub(super) socket: Arc<Socket>,
    /// Cancelled: the admin thread accepts no more there.
    pub(super) closing: CancellationToken,
    /// What its path led to when it was opened; `None` for an abstract name.
    file: Option<FileId>,
    /// Sends the admin thread the socket that takes its place.
    admin: mpsc::Sender<RuntimeSocket>,
}

/// The runtime socket, the one that was passed to us or a new one; what the admin thread is to accept from
/// once this process is in charge; and the channel through which it gets further sockets.
///
/// # Errors
/// Why it cannot be had.
pub fn open_runtime(
    api: &RuntimeApi,
    inherited: &mut Inherited,
) -> Result<
    (
        RuntimeListener,
        RuntimeSocket,
        mpsc::Receiver<RuntimeSocket>,
    ),
    String,
> {
    let options = runtime_options(api);
    let mut open = || {
        let socket = match inherited.at_path(&api.socket) {
            Some(socket) => socket::adjust(&socket, &options).map(|()| socket)?,
            None => socket::listen(&options, 1)?.swap_remove(0),
        };
        runtime_socket(socket, api)
    };
    let (socket, file, to_accept) = open().map_err(|error| cannot_listen(api, &error))?;
    let (admin, receiver) = mpsc::channel(CHANGES_MAX);
    let runtime = RuntimeListener {
        socket,
        closing: to_accept.closing.clone(),
        file,
        admin,
    };
    Ok((runtime, to_accept, receiver))
}

type Opened = (Arc<Socket>, Option<FileId>, RuntimeSocket);

fn runtime_socket(socket: Socket, api: &RuntimeApi) -> io::Result<Opened> {
    let to_accept = RuntimeSocket {
        listener: UnixListener::from(OwnedFd::from(socket.try_clone()?)),
        closing: CancellationToken::new(),
    };
    Ok((Arc::new(socket), file_of(api)?, to_accept))
}

fn file_of(api: &RuntimeApi) -> io::Result<Option<FileId>> {
    if socket::is_abstract(&api.socket) {
        Ok(None)
    } else {
        socket::file_id(&api.socket)
    }
}

fn cannot_listen(api: &RuntimeApi, error: &io::Error) -> String {
    let path = api.socket.display();
    format!("runtime-api: cannot listen on {path}: {error}")
}

impl RuntimeListener {
    /// Accept from this socket.
    pub async fn accept_from(&self, socket: RuntimeSocket) {
        // An admin thread that has ended serves nobody any more.
        let _ = self.admin.send(socket).await;
    }

    /// Whether its path leads to something else by now, or to nothing.
    pub(super) fn is_lost(&self, api: &RuntimeApi) -> bool {
        !socket::is_abstract(&api.socket) && loss::is_file_lost(&api.socket, self.file)
    }

    /// Whether it can be opened again at its path now.
    pub(super) fn can_reopen(api: &RuntimeApi) -> bool {
        loss::is_path_free(&api.socket)
    }

    /// Opens it again at its path. The connections that it has go on.
    ///
    /// # Errors
    /// Why it cannot be had; the one before is then left as it was.
    pub(super) async fn reopen(&mut self, api: &RuntimeApi) -> Result<(), String> {
        let opened = socket::listen(&runtime_options(api), 1)
            .and_then(|mut sockets| runtime_socket(sockets.swap_remove(0), api));
        let (socket, file, to_accept) = opened.map_err(|error| cannot_listen(api, &error))?;
        self.closing.cancel();
        self.closing = to_accept.closing.clone();
        self.socket = socket;
        self.file = file;
        self.accept_from(to_accept).await;
        Ok(())
    }
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
