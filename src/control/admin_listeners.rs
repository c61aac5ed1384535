//! What the admin thread listens on: the runtime sockets, and orders about the sockets of the
//! statistics, which the table of listening sockets ([`super::listeners`]) opens and keeps.
//!
//! Control thread. Invariant: a listener is opened, its descriptor for the admin thread included,
//! before a reload commits, so that nothing can fail when the admin thread gets it.

use super::inherited::Inherited;
use super::loss;
use crate::config::model::{Bind, BindAddress, RuntimeSocket as RuntimeApiSocket};
use crate::sys::socket::{self, Address, Adjust, FileId, Options, TcpOptions, UnusedFile};
use crate::worker::ListenerId;
use socket2::{SockAddr, Socket};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Connections to a runtime socket that may wait.
const RUNTIME_BACKLOG: u32 = 128;

/// Keepalive of clients over TCP: the idle time before the first probe, the time between two, and how many stay
/// without an answer. A client that has closed its end, or vanished, while a command waits shows itself so.
const RUNTIME_KEEPALIVE: (Duration, Duration, u32) =
    (Duration::from_secs(30), Duration::from_secs(10), 3);

/// Changes that may wait for the admin thread. Whoever reloads waits when it is behind.
pub const CHANGES_MAX: usize = 4;

/// A socket that the statistics are served on.
#[derive(Debug)]
pub struct AdminListener {
    /// Names it when it is to be closed.
    pub id: ListenerId,
    /// What it was opened for, which says which page is served there.
    pub bind: Bind,
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

/// A runtime socket to accept from, until it is closing.
#[derive(Debug)]
pub struct RuntimeSocket {
    /// Listening, non-blocking; a descriptor of the admin thread's own.
    pub listener: Socket,
    /// Cancelled: accept no more there.
    pub closing: CancellationToken,
}

/// Where the admin thread hears of a runtime socket.
#[derive(Debug)]
pub struct RuntimePlace {
    /// As HAProxy writes it: `unix@/run/rlb/admin.sock`, `abnsz@name`, `ipv4@127.0.0.1:9999`.
    pub name: String,
    /// As configured.
    pub address: BindAddress,
    /// The socket to accept from, and each that takes its place.
    pub sockets: mpsc::Receiver<RuntimeSocket>,
    /// Cancelled: a reload has removed it. Its connections end with the answer that is on its way.
    pub removed: CancellationToken,
}

/// A runtime socket, as it is kept for the next process and watched for the loss of its file.
#[derive(Debug)]
pub struct RuntimeListener {
    /// Listening, non-blocking.
    pub(super) socket: Arc<Socket>,
    /// Cancelled: the admin thread accepts no more there.
    pub(super) closing: CancellationToken,
    /// What its path led to when it was opened; `None` for an abstract name and over TCP.
    file: Option<FileId>,
    /// Sends the admin thread the socket that takes its place.
    admin: mpsc::Sender<RuntimeSocket>,
    /// As HAProxy writes it.
    name: String,
    /// As configured.
    address: BindAddress,
    /// Cancelled: a reload has removed it.
    removed: CancellationToken,
}

/// The runtime sockets, for the reload task.
#[derive(Debug)]
pub struct RuntimeListeners {
    /// In the order of the configuration.
    pub(super) open: Vec<RuntimeListener>,
    /// Sends the admin thread those that a reload adds.
    pub(super) added: mpsc::Sender<RuntimePlace>,
}

/// The runtime sockets, for the admin thread.
#[derive(Debug)]
pub struct RuntimePlaces {
    /// Those that are open at the start.
    pub open: Vec<RuntimePlace>,
    /// Those that reloads add.
    pub added: mpsc::Receiver<RuntimePlace>,
}

impl RuntimeListeners {
    /// Those that were opened at the start, for the two of them.
    pub fn new(open: Vec<(RuntimeListener, RuntimePlace)>) -> (Self, RuntimePlaces) {
        let (sender, added) = mpsc::channel(CHANGES_MAX);
        let (listeners, places) = open.into_iter().unzip();
        let open = places;
        let mine = Self {
            open: listeners,
            added: sender,
        };
        (mine, RuntimePlaces { open, added })
    }

    /// Has the admin thread accept from those of `next`, and from no others.
    pub(super) async fn take(&mut self, next: Vec<NextRuntime>) {
        let known = std::mem::take(&mut self.open);
        let mut known: Vec<Option<RuntimeListener>> = known.into_iter().map(Some).collect();
        for one in next {
            match one {
                NextRuntime::Kept(index) => {
                    let kept = known.get_mut(index).and_then(Option::take);
                    self.open.extend(kept);
                }
                NextRuntime::Opened(opened, file) => {
                    if let Some(file) = file {
                        file.keep();
                    }
                    let OpenedRuntime {
                        listener,
                        socket,
                        place,
                    } = *opened;
                    tracing::info!(socket = place.name, "runtime socket opened");
                    listener.accept_from(socket).await;
                    // An admin thread that has ended serves nobody any more.
                    let _ = self.added.send(place).await;
                    self.open.push(listener);
                }
            }
        }
        for gone in known.into_iter().flatten() {
            tracing::info!(socket = gone.name, "runtime socket closed");
            gone.remove();
        }
    }
}

/// A runtime socket that was opened at the start.
#[derive(Debug)]
pub struct OpenedRuntime {
    /// For the reload task.
    pub listener: RuntimeListener,
    /// What the admin thread is to accept from once this process is in charge.
    pub socket: RuntimeSocket,
    /// For the admin thread.
    pub place: RuntimePlace,
}

/// A runtime socket, the one that was passed to us or a new one.
///
/// # Errors
/// Why it cannot be had.
pub fn open_runtime(
    api: &RuntimeApiSocket,
    inherited: &mut Inherited,
) -> Result<OpenedRuntime, String> {
    let options = runtime_options(api);
    opened(api, || match inherited.at(&api.address) {
        Some(socket) => inherited.adjust(&socket, &options).map(|()| socket),
        None => Ok(inherited.open(&options, 1)?.swap_remove(0)),
    })
}

fn opened(
    api: &RuntimeApiSocket,
    open: impl FnOnce() -> io::Result<Socket>,
) -> Result<OpenedRuntime, String> {
    let open = || {
        let socket = open()?;
        let name = name(&socket, api);
        Ok((name, runtime_socket(socket, api)?))
    };
    let (name, (socket, file, to_accept)) = open().map_err(|error| cannot_listen(api, &error))?;
    let (admin, sockets) = mpsc::channel(CHANGES_MAX);
    let removed = CancellationToken::new();
    let listener = RuntimeListener {
        socket,
        closing: to_accept.closing.clone(),
        file,
        admin,
        name: name.clone(),
        address: api.address.clone(),
        removed: removed.clone(),
    };
    let place = RuntimePlace {
        name,
        address: api.address.clone(),
        sockets,
        removed,
    };
    Ok(OpenedRuntime {
        listener,
        socket: to_accept,
        place,
    })
}

/// A runtime socket of the configuration that a reload puts in force.
#[derive(Debug)]
pub(super) enum NextRuntime {
    /// The one at this position stays.
    Kept(usize),
    /// It is new.
    Opened(Box<OpenedRuntime>, Option<UnusedFile>),
}

/// The runtime sockets of `wanted`, those that are new opened.
///
/// # Errors
/// A sentence for each that cannot be had.
pub(super) fn prepare_runtime(
    known: &[RuntimeListener],
    wanted: &[RuntimeApiSocket],
) -> Result<Vec<NextRuntime>, Vec<String>> {
    let mut next = Vec::new();
    let mut problems = Vec::new();
    for api in wanted {
        let mut all = known.iter();
        if let Some(index) = all.position(|one| one.address == api.address) {
            next.push(NextRuntime::Kept(index));
            continue;
        }
        let listen = || Ok(socket::listen(&runtime_options(api), 1)?.swap_remove(0));
        match opened(api, listen) {
            Ok(opened) => {
                let file = path_of(api).and_then(UnusedFile::of);
                next.push(NextRuntime::Opened(Box::new(opened), file));
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(next)
    } else {
        Err(problems)
    }
}

/// Its name as HAProxy writes it, with the port that the kernel has chosen.
fn name(socket: &Socket, api: &RuntimeApiSocket) -> String {
    match &api.address {
        BindAddress::Unix(path) => {
            let path = path.display().to_string();
            match path.strip_prefix('@') {
                Some(name) => format!("abnsz@{name}"),
                None if socket::is_abstract(Path::new(&path)) => path,
                None => format!("unix@{path}"),
            }
        }
        BindAddress::Descriptor(number) => {
            let address = socket.local_addr().ok();
            let name = address.as_ref().and_then(name_of_address);
            name.unwrap_or_else(|| format!("fd@{number}"))
        }
        BindAddress::Tcp(configured) => {
            let address = socket.local_addr().ok().and_then(|it| it.as_socket());
            name_of_tcp(address.unwrap_or(*configured))
        }
    }
}

fn name_of_tcp(address: SocketAddr) -> String {
    let family = if address.is_ipv6() { "ipv6" } else { "ipv4" };
    format!("{family}@{address}")
}

/// The name of a socket that was passed.
fn name_of_address(address: &SockAddr) -> Option<String> {
    let path = || Some(format!("unix@{}", address.as_pathname()?.display()));
    let name = || address.as_abstract_namespace().map(String::from_utf8_lossy);
    let tcp = address.as_socket().map(name_of_tcp);
    tcp.or_else(path)
        .or_else(|| Some(format!("abnsz@{}", name()?)))
}

type Opened = (Arc<Socket>, Option<FileId>, RuntimeSocket);

fn runtime_socket(socket: Socket, api: &RuntimeApiSocket) -> io::Result<Opened> {
    let to_accept = RuntimeSocket {
        listener: socket.try_clone()?,
        closing: CancellationToken::new(),
    };
    let file = match path_of(api) {
        Some(path) => socket::file_id(path)?,
        None => None,
    };
    Ok((Arc::new(socket), file, to_accept))
}

/// The path of its file, if it has one.
fn path_of(api: &RuntimeApiSocket) -> Option<&Path> {
    match &api.address {
        BindAddress::Unix(path) if !socket::is_abstract(path) => Some(path),
        _ => None,
    }
}

fn cannot_listen(api: &RuntimeApiSocket, error: &io::Error) -> String {
    format!("runtime-api: cannot listen on {}: {error}", api.place())
}

impl RuntimeListener {
    /// Sets the options of a socket that another process has accepted from so far, by `adjust`. What the system
    /// refuses is logged, and leaves the socket as it was.
    pub(super) fn adjust(&self, api: &RuntimeApiSocket, adjust: Adjust) {
        if let Err(error) = adjust(&self.socket, &runtime_options(api)) {
            tracing::warn!(path = api.place(), %error, "runtime socket stays as it was");
        }
    }

    /// The number under which it was passed.
    pub(super) fn number(&self) -> Option<i32> {
        match self.address {
            BindAddress::Descriptor(number) => Some(number),
            BindAddress::Tcp(_) | BindAddress::Unix(_) => None,
        }
    }

    /// Accept what is queued, and no more; its connections end with the answer that is on its way.
    fn remove(self) {
        self.removed.cancel();
        self.closing.cancel();
    }

    /// Accept from this socket.
    pub async fn accept_from(&self, socket: RuntimeSocket) {
        // An admin thread that has ended serves nobody any more.
        let _ = self.admin.send(socket).await;
    }

    /// Whether its path leads to something else by now, or to nothing.
    pub(super) fn is_lost(&self, api: &RuntimeApiSocket) -> bool {
        path_of(api).is_some_and(|path| loss::is_file_lost(path, self.file))
    }

    /// Whether it can be opened again at its path now.
    pub(super) fn can_reopen(api: &RuntimeApiSocket) -> bool {
        path_of(api).is_some_and(loss::is_path_free)
    }

    /// Opens it again at its path. The connections that it has go on.
    ///
    /// # Errors
    /// Why it cannot be had; the one before is then left as it was.
    pub(super) async fn reopen(&mut self, api: &RuntimeApiSocket) -> Result<(), String> {
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

/// Gives the file of a runtime socket the owner and mode of `api`.
///
/// # Errors
/// Those of `chown` and `chmod`; when there is no such user or group.
pub(super) fn set_runtime_mode(api: &RuntimeApiSocket) -> io::Result<()> {
    match path_of(api) {
        Some(path) => socket::set_mode(path, &runtime_options(api)),
        None => Ok(()),
    }
}

fn runtime_options(api: &RuntimeApiSocket) -> Options {
    Options {
        address: match &api.address {
            BindAddress::Unix(path) => Address::Unix(path.clone()),
            BindAddress::Tcp(address) => Address::Tcp(*address),
            BindAddress::Descriptor(number) => Address::Descriptor(*number),
        },
        backlog: RUNTIME_BACKLOG,
        v6only: None,
        interface: None,
        freebind: false,
        tcp: TcpOptions::default(),
        namespace: None,
        mptcp: false,
        mode: Some(api.mode),
        owner: (api.owner.clone(), api.group.clone()),
        // A passed unix socket takes none.
        keepalive: (!matches!(api.address, BindAddress::Unix(_))).then_some(RUNTIME_KEEPALIVE),
        listens: true,
        join: false,
    }
}
