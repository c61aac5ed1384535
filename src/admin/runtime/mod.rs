//! The runtime socket: commands over a unix socket, with HAProxy's commands and framing. Admin thread, one task
//! per connection.
//!
//! Invariants: at most [`CONNECTIONS_MAX`] connections are served; the others wait in the kernel's queue. A
//! line is at most [`LINE_BYTES_MAX`] long, and a reply is written in chunks. A client that neither sends nor
//! reads for [`CLI_TIMEOUT`] is disconnected. This file changes nothing itself: changes are messages to the
//! control task, and are answered when they are published. Every command that may change something is logged
//! with its peer before it runs.

mod access;
mod commands;
mod config;
mod counters;
mod framing;
mod grammar;
mod maxconn;
mod names;
mod process;
mod reply;
#[cfg(test)]
mod robust;
mod sessions;
mod set;
mod show;

use super::Shared;
use crate::config::model::ApiLevel;
use crate::control::admin_listeners::RuntimeSocket;
use crate::control::handover::{OldProcesses, PassedConnection};
use crate::control::reload::ReloadHandle;
use crate::live::failures::Throttle;
use crate::state::ControlHandle;
use crate::sys::accept::{self, Acceptor, Connection, Failure};
use crate::sys::raw::{self, Owned};
use crate::sys::socket;
use crate::worker::order::Workers;
use access::Peer;
use framing::{Lines, words};
use process::Target;
use reply::{Reply, ReplyWriter, SeverityOutput};
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Connections at once, as HAProxy's `stats maxconn`.
pub const CONNECTIONS_MAX: usize = 10;

/// Longest line, HAProxy's buffer.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// Longest silence, and longest time to take a chunk of a reply; HAProxy's `stats timeout`.
pub const CLI_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it waits for the line of a client that may not use the socket.
const REFUSED_WAIT: Duration = Duration::from_millis(100);

/// The runtime socket, and what its commands need.
#[derive(Debug)]
pub struct Runtime {
    /// The socket to accept from, and each that takes its place.
    pub sockets: mpsc::Receiver<RuntimeSocket>,
    /// Where it is, as configured.
    pub path: PathBuf,
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
}

/// What a command needs.
struct CommandContext {
    shared: Rc<Shared>,
    control: ControlHandle,
    reload: ReloadHandle,
    workers: Workers,
    old_processes: OldProcesses,
    /// Path of the socket.
    path: String,
    /// It has no file whose mode the kernel could check.
    is_abstract: bool,
    /// Limits events about refused clients.
    refusals: Throttle,
}

impl CommandContext {
    /// The level of `peer` now; a reload changes it, unless another process has granted it.
    fn level(&self, peer: &Peer) -> ApiLevel {
        let api = self.shared.snapshot.load().api;
        let level = peer.granted().or_else(|| api.map(|api| api.level));
        level.unwrap_or(ApiLevel::User)
    }

    /// Whether `peer` may use the socket now; a reload changes the mode.
    fn admits(&self, peer: &Peer) -> bool {
        let api = self.shared.snapshot.load().api;
        peer.granted().is_some()
            || !self.is_abstract
            || api.is_some_and(|api| peer.may_connect(api.mode))
    }
}

/// Serves the socket until the stop.
pub(super) async fn run(shared: Rc<Shared>, runtime: Runtime) {
    let mut sockets = runtime.sockets;
    let path = shown(&runtime.path);
    let context = Rc::new(CommandContext {
        shared: Rc::clone(&shared),
        control: runtime.control,
        reload: runtime.reload,
        workers: runtime.workers,
        old_processes: runtime.old_processes,
        is_abstract: path.starts_with(ABSTRACT),
        path,
        refusals: Throttle::default(),
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accepting = async {
        let mut socket = next(&mut sockets).await;
        loop {
            socket = tokio::select! {
                newer = next(&mut sockets) => newer,
                () = accept_all(&context, &places, socket) => next(&mut sockets).await,
            };
        }
    };
    let passing = pass(&context, &places, runtime.connections);
    let serving = async { tokio::join!(accepting, passing) };
    shared.stop.run_until_cancelled(serving).await;
}

/// Serves the connections that a newer process passes on.
async fn pass(
    context: &Rc<CommandContext>,
    places: &Arc<Semaphore>,
    mut connections: mpsc::Receiver<PassedConnection>,
) {
    while let Some(PassedConnection { stream, asker }) = connections.recv().await {
        let Ok(place) = Arc::clone(places).acquire_owned().await else {
            return;
        };
        let Ok(stream) = UnixStream::from_std(stream) else {
            continue;
        };
        let task = Rc::clone(context);
        context.shared.tracker.spawn_local(async move {
            let severity = SeverityOutput::parse(Some(&asker.severity));
            let severity = severity.unwrap_or(SeverityOutput::None);
            // An error means that the client has gone.
            let _ = serve(&task, stream, (Peer::passed(&asker), severity)).await;
            drop(place);
        });
    }
}

/// The next socket to accept from; waits for ever when none will come.
async fn next(sockets: &mut mpsc::Receiver<RuntimeSocket>) -> RuntimeSocket {
    match sockets.recv().await {
        Some(socket) => socket,
        None => std::future::pending().await,
    }
}

/// Accepts until the socket is closing, and then what had been queued by that time.
async fn accept_all(context: &Rc<CommandContext>, places: &Arc<Semaphore>, socket: RuntimeSocket) {
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
        places,
        listener: &listener,
    };
    // An error means that the runtime shuts down.
    let _ = accept::run(&listener, &acceptor, &socket.closing).await;
}

/// The acceptor of the runtime socket.
struct RuntimeAcceptor<'a> {
    context: &'a Rc<CommandContext>,
    /// One for each connection that may be served.
    places: &'a Arc<Semaphore>,
    listener: &'a AsyncFd<Owned<UnixListener>>,
}

impl Acceptor for RuntimeAcceptor<'_> {
    type Room = OwnedSemaphorePermit;

    fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(self.places).try_acquire_owned().ok()
    }

    async fn wait_for_room(&self, stop: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(self.places).acquire_owned();
        // Nobody closes the semaphore.
        stop.run_until_cancelled(place).await?.ok()
    }

    /// With a descriptor that is kept back if no other is left.
    fn accept(&self) -> io::Result<Connection> {
        let accept = || socket::accept(self.listener.get_ref());
        self.context.shared.reserve.with(accept)
    }

    async fn admit(&self, (client, _): Connection, place: OwnedSemaphorePermit) {
        let context = Rc::clone(self.context);
        self.context.shared.tracker.spawn_local(async move {
            let stream = UnixStream::from_std(client.into());
            if let Ok((peer, stream)) = stream.and_then(|it| Ok((Peer::of(&it)?, it))) {
                // An error means that the client has gone.
                let _ = serve(&context, stream, (peer, SeverityOutput::None)).await;
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

/// HAProxy's prefix of an abstract name.
const ABSTRACT: &str = "abns@";

/// The path of a socket as HAProxy writes it: `abns@` before an abstract name.
fn shown(path: &Path) -> String {
    let path = path.display().to_string();
    match path.strip_prefix('@') {
        Some(name) => format!("{ABSTRACT}{name}"),
        None => path,
    }
}

/// Serves one connection: one line, or any number after the command `prompt`.
async fn serve(
    context: &CommandContext,
    stream: UnixStream,
    (peer, severity): (Peer, SeverityOutput),
) -> io::Result<()> {
    let (reading, writing) = stream.into_split();
    let mut lines = Lines::new(reading);
    let mut reply = ReplyWriter::new(writing);
    reply.severity = severity;
    loop {
        if !context.admits(&peer) {
            let second = u64::from(context.shared.second());
            if let Some(unlogged) = context.refusals.allow(second, access::REFUSED_EVERY) {
                access::log_refusal(&context.path, &peer, unlogged);
            }
            // Closing before the line was read would give the client an error, and it would not read the
            // answer.
            let _ = timeout(REFUSED_WAIT, lines.next()).await;
            return reply.send(Reply::error(DENIED)).await;
        }
        // A command that has come is answered; a stop does not wait for another.
        let stopping = context.shared.stop.cancelled();
        let line = tokio::select! {
            () = stopping => return Ok(()),
            line = timeout(CLI_TIMEOUT, lines.next()) => line,
        };
        let line = match line {
            Ok(Ok(Some(line))) => line,
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return reply.send(Reply::error(format!("{error}\n\n"))).await;
            }
            Ok(Ok(None) | Err(_)) | Err(_) => return Ok(()),
        };
        for command in framing::commands(&line) {
            let command = match process::addressed(&command) {
                Some((Target::Own, command)) => command,
                Some(other) => {
                    process::forward(context, &mut reply, &peer, other).await?;
                    continue;
                }
                None => &*command,
            };
            if !commands::execute(context, &mut reply, &peer, &words(command)).await? {
                return Ok(());
            }
        }
        if !reply.interactive {
            return Ok(());
        }
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
                assert!(!grammar::unknown(&words, level).is_empty());
            }
        }
    }
}
