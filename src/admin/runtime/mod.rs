//! The runtime sockets: commands over unix sockets and TCP, with HAProxy's commands and framing. Admin thread, one
//! task per socket and connection.
//!
//! Invariants: at most `maxconn` connections of all sockets together are served; the others wait in the kernel's
//! queues. A line is at most [`LINE_BYTES_MAX`] long, and a reply is written in chunks. A client that neither sends
//! nor reads for `timeout` is disconnected. A command that waits ends when its client has gone. This file changes
//! nothing itself: changes are messages to the control task, and are answered when they are published. Every command
//! that needs the level admin is logged with its peer before it runs.

pub(super) mod access;
mod commands;
mod config;
mod counters;
mod duration;
mod dynamic;
mod events;
mod framing;
mod grammar;
mod inspect;
mod maxconn;
pub(super) mod names;
mod process;
mod proxies;
mod reply;
#[cfg(test)]
mod robust;
mod server;
mod sessions;
pub(super) mod set;
mod show;
mod waiting;

use super::Shared;
use crate::config::model::{ApiLevel, BindAddress};
use crate::control::admin_listeners::{RuntimePlace, RuntimePlaces, RuntimeSocket};
use crate::control::handover::{OldProcesses, PassedConnection};
use crate::control::reload::ReloadHandle;
use crate::live::failures::Throttle;
use crate::log::events::RecentEvents;
use crate::state::ControlHandle;
use crate::sys::accept::{self, Acceptor, Connection, Failure};
use crate::sys::raw::{self, Owned};
use crate::sys::socket;
use crate::worker::order::Workers;
use access::Peer;
use framing::{Input, Lines, words};
use process::Target;
use reply::{Reply, ReplyWriter, SeverityOutput};
use socket2::Socket;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longest line, HAProxy's buffer.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// How long it waits for the line of a client that may not use the socket.
const REFUSED_WAIT: Duration = Duration::from_millis(100);

/// How long a stop waits for the first line of a client that has just connected.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// For the clients that a newer process passes on to one without sockets of its own: how many, and how long they
/// may be silent.
const CLIENTS_DEFAULT: u32 = 10;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// How often a client that waits for a slot looks whether the limit was raised.
const LIMIT_EVERY: Duration = Duration::from_secs(1);

/// The runtime sockets, and what their commands need.
#[derive(Debug)]
pub struct Runtime {
    /// The sockets.
    pub sockets: RuntimePlaces,
    /// Connections that a newer process passes on.
    pub connections: mpsc::Receiver<PassedConnection>,
    /// Those that commands can be run in.
    pub old_processes: OldProcesses,
    /// Receives changes.
    pub control: ControlHandle,
    /// Receives requests for reloads.
    pub reload: ReloadHandle,
    /// For listing and ending sessions.
    pub workers: Workers,
    /// The events in memory.
    pub recent: RecentEvents,
}

/// What the commands of one socket need.
struct CommandContext {
    shared: Rc<Shared>,
    control: ControlHandle,
    reload: ReloadHandle,
    workers: Workers,
    recent: RecentEvents,
    old_processes: OldProcesses,
    /// All sockets that are open.
    served: Rc<RefCell<Vec<Rc<Served>>>>,
    /// Which of them it is; `None`: another process has passed the connection on.
    own: Option<Rc<Served>>,
    /// Clients of all sockets.
    slots: Rc<ClientSlots>,
    /// Limits events about refused clients.
    refusals: Throttle,
}

/// A runtime socket that is open.
struct Served {
    /// As HAProxy writes it.
    name: String,
    /// As configured.
    address: BindAddress,
    /// The level of its clients, as it was when a command was last run.
    level: Cell<ApiLevel>,
    /// Cancelled: a reload has removed it.
    removed: CancellationToken,
}

/// HAProxy's prefixes of an abstract name, `abns@` and `abnsz@`, begin so.
const ABSTRACT: &str = "abns";

impl CommandContext {
    /// The name in events of the socket that `peer` has connected to.
    fn path<'a>(&'a self, peer: &'a Peer) -> &'a str {
        peer.socket().unwrap_or_else(|| self.own_path())
    }

    /// Its own name in events.
    fn own_path(&self) -> &str {
        let name = self.own.as_ref().map_or("", |own| &own.name);
        name.strip_prefix("unix@").unwrap_or(name)
    }

    /// The level of `peer` now; a reload changes it, unless another process has granted it.
    fn level(&self, peer: &Peer) -> ApiLevel {
        let granted = peer.granted();
        let own = self.own.as_ref();
        granted.unwrap_or_else(|| own.map_or(ApiLevel::User, |own| self.level_of(own)))
    }

    /// The level of clients of a socket now; of one that a reload has removed, the level that it had last: its clients
    /// have sent their commands before.
    fn level_of(&self, socket: &Served) -> ApiLevel {
        let snapshot = self.shared.snapshot.load();
        let api = snapshot.api.as_ref();
        if let Some(access) = api.and_then(|api| api.access(&socket.address)) {
            socket.level.set(access.level);
        }
        socket.level.get()
    }

    /// The sockets that are open, in the order of the configuration.
    fn in_order(&self) -> Vec<Rc<Served>> {
        let snapshot = self.shared.snapshot.load();
        let api = snapshot.api.iter().flat_map(|api| &api.sockets);
        let served = self.served.borrow();
        let find = |address: &BindAddress| served.iter().find(|one| one.address == *address);
        api.filter_map(|access| find(&access.address).cloned())
            .collect()
    }

    /// Completes when a reload has removed the socket.
    async fn removed(&self) {
        match &self.own {
            Some(own) => own.removed.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Whether `peer` may use the socket now; a reload changes the mode.
    fn admits(&self, peer: &Peer) -> bool {
        if peer.granted().is_some() || !self.own_path().starts_with(ABSTRACT) {
            return true;
        }
        let snapshot = self.shared.snapshot.load();
        let api = snapshot.api.as_ref().zip(self.own.as_ref());
        let access = api.and_then(|(api, own)| api.access(&own.address));
        access.is_some_and(|access| peer.may_connect(access.mode))
    }

    /// Longest silence of a client now; a reload changes it.
    fn timeout(&self) -> Duration {
        let snapshot = self.shared.snapshot.load();
        let api = snapshot.api.as_ref();
        api.map_or(TIMEOUT_DEFAULT, |api| api.timeout)
    }
}

/// How many clients all sockets serve.
#[derive(Default)]
struct ClientSlots {
    taken: Cell<u32>,
    freed: Notify,
}

/// A client's slot; dropping it frees it.
struct ClientSlot(Rc<ClientSlots>);

impl ClientSlot {
    /// One, if there is one now.
    fn try_take(slots: &Rc<ClientSlots>, shared: &Shared) -> Option<Self> {
        let snapshot = shared.snapshot.load();
        let api = snapshot.api.as_ref();
        let limit = api.map_or(CLIENTS_DEFAULT, |api| api.maxconn);
        if slots.taken.get() >= limit {
            return None;
        }
        slots.taken.set(slots.taken.get() + 1);
        Some(Self(Rc::clone(slots)))
    }

    /// Waits until there is one.
    async fn take(slots: &Rc<ClientSlots>, shared: &Shared) -> Self {
        loop {
            let freed = slots.freed.notified();
            if let Some(place) = Self::try_take(slots, shared) {
                return place;
            }
            // A reload may raise the limit meanwhile.
            let _ = timeout(LIMIT_EVERY, freed).await;
        }
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        self.0.freed.notify_one();
    }
}

/// Serves the sockets until the stop.
pub(super) fn start(shared: &Rc<Shared>, runtime: Runtime) {
    let Runtime {
        sockets,
        connections,
        old_processes,
        control,
        reload,
        workers,
        recent,
    } = runtime;
    let (served, slots) = (Rc::default(), Rc::new(ClientSlots::default()));
    let of = Rc::clone(shared);
    let context = move |own| {
        Rc::new(CommandContext {
            shared: Rc::clone(&of),
            control: control.clone(),
            reload: reload.clone(),
            workers: workers.clone(),
            old_processes: old_processes.clone(),
            served: Rc::clone(&served),
            own,
            slots: Rc::clone(&slots),
            recent: recent.clone(),
            refusals: Throttle::default(),
        })
    };
    // A process without a socket of its own serves them, too.
    let task = pass(context(None), connections);
    shared.tracker.spawn_local(task);
    let of = Rc::clone(shared);
    let open = move |place: RuntimePlace| {
        let RuntimePlace {
            name,
            address,
            sockets,
            removed,
        } = place;
        let own = Rc::new(Served {
            name,
            address,
            level: Cell::new(ApiLevel::User),
            removed,
        });
        let context = context(Some(Rc::clone(&own)));
        context.served.borrow_mut().push(Rc::clone(&own));
        of.tracker.spawn_local(run(context, own, sockets));
    };
    let RuntimePlaces {
        open: first,
        mut added,
    } = sockets;
    for place in first {
        open(place);
    }
    let stop = shared.stop.clone();
    shared.tracker.spawn_local(async move {
        let opening = async {
            while let Some(place) = added.recv().await {
                open(place);
            }
        };
        stop.run_until_cancelled(opening).await;
    });
}

/// Serves the connections that a newer process passes on, until the stop.
async fn pass(context: Rc<CommandContext>, mut connections: mpsc::Receiver<PassedConnection>) {
    let stop = context.shared.stop.clone();
    let passing = async {
        while let Some(PassedConnection { stream, asker }) = connections.recv().await {
            let slot = ClientSlot::take(&context.slots, &context.shared).await;
            let Ok(stream) = UnixStream::from_std(stream) else {
                continue;
            };
            let task = Rc::clone(&context);
            context.shared.tracker.spawn_local(async move {
                let severity = SeverityOutput::parse(Some(&asker.severity));
                let severity = severity.unwrap_or(SeverityOutput::None);
                let client = halves(Peer::Passed(asker), stream);
                // An error means that the client has gone.
                let _ = serve(&task, client, severity).await;
                drop(slot);
            });
        }
    };
    stop.run_until_cancelled(passing).await;
}

/// Serves one socket until the stop, or until a reload has removed it.
async fn run(
    context: Rc<CommandContext>,
    own: Rc<Served>,
    mut sockets: mpsc::Receiver<RuntimeSocket>,
) {
    let accepting = async {
        let removed = own.removed.cancelled();
        tokio::pin!(removed);
        loop {
            let mut socket = tokio::select! {
                socket = next(&mut sockets) => socket,
                () = &mut removed => return,
            };
            // Until it is closing and what is queued is accepted, or until another takes its place.
            while let Some(newer) = tokio::select! {
                newer = next(&mut sockets) => Some(newer),
                () = accept_all(&context, socket) => None,
            } {
                socket = newer;
            }
        }
    };
    let stop = context.shared.stop.clone();
    stop.run_until_cancelled(accepting).await;
    let mut served = context.served.borrow_mut();
    served.retain(|one| !Rc::ptr_eq(one, &own));
}

/// The next socket to accept from; waits for ever when none will come.
async fn next(sockets: &mut mpsc::Receiver<RuntimeSocket>) -> RuntimeSocket {
    match sockets.recv().await {
        Some(socket) => socket,
        None => std::future::pending().await,
    }
}

/// Accepts until the socket is closing, and then what had been queued by that time.
async fn accept_all(context: &Rc<CommandContext>, socket: RuntimeSocket) {
    let watched = raw::watch(Owned::new(socket.listener), Interest::READABLE);
    let listener = match watched {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the runtime socket cannot be watched");
            return;
        }
    };
    let acceptor = RuntimeAcceptor {
        context,
        listener: &listener,
    };
    // An error means that the runtime shuts down.
    let _ = accept::run(&listener, &acceptor, &socket.closing).await;
}

/// The acceptor of a runtime socket.
struct RuntimeAcceptor<'a> {
    context: &'a Rc<CommandContext>,
    listener: &'a AsyncFd<Owned<Socket>>,
}

impl Acceptor for RuntimeAcceptor<'_> {
    type Room = ClientSlot;

    fn room(&self) -> Option<ClientSlot> {
        ClientSlot::try_take(&self.context.slots, &self.context.shared)
    }

    async fn wait_for_room(&self, stop: &CancellationToken) -> Option<ClientSlot> {
        let place = ClientSlot::take(&self.context.slots, &self.context.shared);
        stop.run_until_cancelled(place).await
    }

    /// With a descriptor that is kept back if no other is left.
    fn accept(&self) -> io::Result<Connection> {
        let accept = || socket::accept(self.listener.get_ref());
        self.context.shared.reserve.with(accept)
    }

    async fn admit(&self, (client, address): Connection, place: ClientSlot) {
        let context = Rc::clone(self.context);
        self.context.shared.tracker.spawn_local(async move {
            if let Ok(client) = self::client(client, address) {
                // An error means that the client has gone.
                let _ = serve(&context, client, SeverityOutput::None).await;
            }
            drop(place);
        });
    }

    async fn pause(&self, error: &io::Error, _: Failure) {
        tracing::warn!(%error, "the runtime socket cannot accept");
        tokio::time::sleep(accept::PAUSE).await;
    }

    fn may_drain(&self) -> bool {
        true
    }
}

/// The client, and the two halves of its connection.
type Client = (Peer, Lines, Box<dyn AsyncWrite + Unpin>);

/// Who has sent a command, and the connection on which it came.
#[derive(Clone, Copy)]
struct Sender<'a> {
    peer: &'a Peer,
    lines: &'a Lines,
}

impl Sender<'_> {
    /// Runs `command`, which changes nothing, as long as its client is there.
    ///
    /// # Errors
    /// When the client has gone.
    async fn unless_gone<T>(self, command: impl Future<Output = T>) -> io::Result<T> {
        tokio::select! {
            biased;
            done = command => Ok(done),
            () = self.lines.gone() => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

/// Tells who the client is and splits its connection.
fn client(client: OwnedFd, address: Option<SocketAddr>) -> io::Result<Client> {
    if address.is_some() {
        let stream = TcpStream::from_std(client.into())?;
        // Answers are written whole; their last part must not wait for an ACK.
        stream.set_nodelay(true)?;
        let (reading, writing) = stream.into_split();
        let lines = Lines::new(Input::Tcp(reading));
        return Ok((Peer::Tcp(address), lines, Box::new(writing)));
    }
    let stream = UnixStream::from_std(client.into())?;
    Ok(halves(Peer::of(&stream)?, stream))
}

/// Splits the connection of `peer`.
fn halves(peer: Peer, stream: UnixStream) -> Client {
    let (reading, writing) = stream.into_split();
    (peer, Lines::new(Input::Unix(reading)), Box::new(writing))
}

/// Serves one connection: one line, or any number after the command `prompt`.
async fn serve(
    context: &CommandContext,
    (peer, mut lines, writing): Client,
    severity: SeverityOutput,
) -> io::Result<()> {
    let mut reply = ReplyWriter::new(writing, context.timeout());
    reply.severity = severity;
    let mut is_first = true;
    loop {
        if !context.admits(&peer) {
            let second = u64::from(context.shared.second());
            if let Some(unlogged) = context.refusals.allow(second, access::REFUSED_EVERY) {
                access::log_refusal(context.path(&peer), &peer, unlogged);
            }
            // Closing before the line was read would give the client an error, and it would not read the
            // answer.
            let _ = timeout(REFUSED_WAIT, lines.next()).await;
            return reply.send(Reply::error(DENIED)).await;
        }
        reply.timeout = reply.own_timeout.unwrap_or_else(|| context.timeout());
        // A command that has come is answered, and the first one of a client that has just connected. A stop, and a
        // reload that removes the socket, do not wait for another.
        let stopping = async {
            tokio::select! {
                () = context.shared.stop.cancelled() => {}
                () = context.removed() => {}
            }
            if is_first {
                tokio::time::sleep(FIRST_WAIT).await;
            }
        };
        let line = tokio::select! {
            biased;
            line = timeout(reply.timeout, lines.next()) => line,
            () = stopping => return Ok(()),
        };
        is_first = false;
        let line = match line {
            Ok(Ok(Some(line))) => line,
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return reply.send(Reply::error(format!("{error}\n\n"))).await;
            }
            Ok(Ok(None) | Err(_)) | Err(_) => return Ok(()),
        };
        let sender = Sender {
            peer: &peer,
            lines: &lines,
        };
        for command in framing::commands(&line) {
            let command = match process::addressed(&command) {
                Some((Target::Own, command)) => command,
                Some(other) => {
                    let forwarded = process::forward(context, &mut reply, sender.peer, other);
                    sender.unless_gone(forwarded).await??;
                    continue;
                }
                None => &*command,
            };
            if !commands::execute(context, &mut reply, sender, &words(command)).await? {
                return Ok(());
            }
        }
        if !reply.interactive {
            return Ok(());
        }
        reply.write_prompt(context.shared.second()).await?;
    }
}

/// HAProxy's answer to a client that may not do this.
const DENIED: &str = "Permission denied\n";

/// Parses `bytes` as a line from a client, but runs no command. For fuzzing: it must not panic.
#[doc(hidden)]
pub fn exercise_line(bytes: &[u8]) {
    let line = String::from_utf8_lossy(bytes);
    for command in framing::commands(&line) {
        if let Some((_, rest)) = process::addressed(&command) {
            assert!(command.ends_with(rest) && rest.len() < command.len());
        }
        let words = words(&command);
        assert!(words.iter().map(String::len).sum::<usize>() <= command.len());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for level in [ApiLevel::User, ApiLevel::Operator, ApiLevel::Admin] {
            let allowed = grammar::help(&words, level).len();
            assert!(allowed <= grammar::help(&words, ApiLevel::Admin).len());
            if let Some((_, args)) = grammar::find(&words) {
                assert!(words.ends_with(args) && args.len() < words.len());
                let _ = (show::parse_stat(args), show::info_form(args));
                let _ = sessions::parse(args);
                for arg in args {
                    let weight = set::parse_weight(arg, 256);
                    assert!(weight.is_err() || weight.is_ok_and(|weight| weight <= 256));
                }
            } else {
                assert_eq!(grammar::unknown(&words, level).is_empty(), words.is_empty());
            }
        }
    }
}
