//! The runtime socket: commands over a unix socket, in HAProxy's words and framing. Admin thread,
//! a task a connection.
//!
//! Invariants: at most [`CONNECTIONS_MAX`] are served, the rest waits in the kernel's queue; a line
//! is at most [`LINE_BYTES_MAX`] long, a reply is written chunk by chunk; whoever neither speaks nor
//! listens for [`CLI_TIMEOUT`] is cut. Nothing is changed here: changes go to the control task as
//! messages, and are answered when they are published.

mod framing;
mod grammar;
#[cfg(test)]
mod robust;
mod sessions;
mod set;
mod show;

use super::Shared;
use crate::config::model::ApiLevel;
use crate::control::reload::ReloadHandle;
use crate::state::{AdminRequest, ControlHandle};
use crate::stats::schema;
use crate::worker::order::Workers;
use framing::{Lines, commands, words};
use grammar::Verb;
use std::future::poll_fn;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Connections at once, as HAProxy's `stats maxconn`.
pub const CONNECTIONS_MAX: usize = 10;

/// Longest line, HAProxy's buffer.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// Longest silence, and longest wait for a reply to be read; HAProxy's `stats timeout`.
pub const CLI_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that a client has [`CLI_TIMEOUT`] to take.
const CHUNK_BYTES: usize = 16 * 1024;

/// Pause after an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// The runtime socket and what its commands reach.
#[derive(Debug)]
pub struct Runtime {
    /// Listening, non-blocking.
    pub listener: std::os::unix::net::UnixListener,
    /// Cancelled: accept no more.
    pub closing: CancellationToken,
    /// Where changes go.
    pub control: ControlHandle,
    /// Where reloads are asked for.
    pub reload: ReloadHandle,
    /// Who has the sessions.
    pub workers: Workers,
}

/// What a command works with.
struct CommandContext {
    shared: Rc<Shared>,
    control: ControlHandle,
    reload: ReloadHandle,
    workers: Workers,
    /// Where the socket is.
    path: String,
}

impl CommandContext {
    /// What clients may do now: a reload changes it.
    fn level(&self) -> ApiLevel {
        self.shared
            .snapshot
            .load()
            .api_level
            .unwrap_or(ApiLevel::User)
    }
}

/// Serves the socket until the stop.
pub(super) async fn run(shared: Rc<Shared>, runtime: Runtime) {
    let path = path_of(&runtime.listener);
    let listener = match UnixListener::from_std(runtime.listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the runtime socket cannot be watched");
            return;
        }
    };
    let context = Rc::new(CommandContext {
        shared: Rc::clone(&shared),
        control: runtime.control,
        reload: runtime.reload,
        workers: runtime.workers,
        path,
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accepting = async {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match accept(&shared, &listener).await {
                Ok(stream) => {
                    let context = Rc::clone(&context);
                    shared.tracker.spawn_local(async move {
                        // An error means that the client has gone.
                        let _ = serve(&context, stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the runtime socket cannot accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = shared.stop.cancelled() => {}
        () = runtime.closing.cancelled() => {}
        () = accepting => {}
    }
}

/// Where a socket is, as HAProxy writes it: `abns@` before an abstract name.
fn path_of(listener: &std::os::unix::net::UnixListener) -> String {
    let Ok(address) = listener.local_addr() else {
        return String::new();
    };
    match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => path.display().to_string(),
        (None, Some(name)) => format!("abns@{}", String::from_utf8_lossy(name)),
        (None, None) => String::new(),
    }
}

/// The next connection, on a descriptor kept back when there is no other.
async fn accept(shared: &Shared, listener: &UnixListener) -> io::Result<UnixStream> {
    poll_fn(|context| {
        let attempt = shared.reserve.with(|| match listener.poll_accept(context) {
            Poll::Ready(result) => result.map(Some),
            Poll::Pending => Ok(None),
        });
        match attempt.transpose() {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        }
    })
    .await
    .map(|(stream, _)| stream)
}

/// One connection: one line, or as many as it likes once it has said `prompt`.
async fn serve(context: &CommandContext, stream: UnixStream) -> io::Result<()> {
    let (reading, writing) = stream.into_split();
    let mut lines = Lines::new(reading);
    let mut reply = ReplyWriter {
        stream: writing,
        interactive: false,
        level_max: ApiLevel::Admin,
    };
    loop {
        // A command that has come is answered, a further one is not waited for.
        let stopping = context.shared.stop.cancelled();
        let line = tokio::select! {
            () = stopping => return Ok(()),
            line = timeout(CLI_TIMEOUT, lines.next()) => line,
        };
        let line = match line {
            Ok(Ok(Some(line))) => line,
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return reply.write(&format!("{error}\n\n")).await;
            }
            Ok(Ok(None) | Err(_)) | Err(_) => return Ok(()),
        };
        for command in commands(&line) {
            if !execute(context, &mut reply, &words(&command)).await? {
                return Ok(());
            }
        }
        if !reply.interactive {
            return Ok(());
        }
    }
}

/// Runs one command and ends its reply. `false`: the connection is to end.
async fn execute(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    words: &[String],
) -> io::Result<bool> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let level = context.level().min(reply.level_max);
    if let Some((entry, args)) = grammar::find(&words) {
        if entry.level > level {
            reply.write("Permission denied\n").await?;
        } else if entry.verb == Verb::Quit {
            return Ok(false);
        } else {
            dispatch(context, reply, (entry.verb, args, level)).await?;
        }
    } else if !words.is_empty() || !reply.interactive {
        reply.write(&grammar::unknown(&words, level)).await?;
    }
    let end = if reply.interactive { "\n> " } else { "\n" };
    reply.write(end).await?;
    Ok(true)
}

async fn dispatch(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    (verb, args, level): (Verb, &[&str], ApiLevel),
) -> io::Result<()> {
    match verb {
        Verb::Help => reply.write(&grammar::help(args, level)).await,
        Verb::Operator => {
            reply.level_max = level.min(ApiLevel::Operator);
            Ok(())
        }
        Verb::User => {
            reply.level_max = ApiLevel::User;
            Ok(())
        }
        Verb::Prompt => {
            reply.interactive = match args.first() {
                Some(&"n") => false,
                Some(&"i" | &"p") => true,
                _ => !reply.interactive,
            };
            Ok(())
        }
        Verb::Quit => Ok(()),
        Verb::ShowBackend => reply.write(&show::backends(context)).await,
        Verb::ShowCliLevel => reply.write(&format!("{}\n", level.name())).await,
        Verb::ShowCliSockets => reply.write(&show::sockets(context)).await,
        Verb::ShowErrors => reply.write(&show::errors()).await,
        Verb::ShowSchema => reply.write(&schema()).await,
        Verb::ShowInfo => reply.write(&show::info(context, args)).await,
        Verb::ShowStat => show::stat(context, reply, args).await,
        Verb::ShowSess => sessions::show(context, reply, args).await,
        Verb::ShowServersState => show::servers_state(context, reply, args).await,
        Verb::ShowVersion => reply.write(&show::version()).await,
        Verb::SetServer => reply.write(&set::server(context, args).await).await,
        Verb::SetWeight => reply.write(&set::weight(context, args).await).await,
        Verb::GetWeight => reply.write(&set::get_weight(context, args)).await,
        Verb::Enable => {
            reply
                .write(&set::state(context, args, AdminRequest::Ready).await)
                .await
        }
        Verb::Disable => {
            reply
                .write(&set::state(context, args, AdminRequest::Maint).await)
                .await
        }
        Verb::ShutdownSession => reply.write(&sessions::shutdown(context, args).await).await,
        Verb::ShutdownSessions => {
            reply
                .write(&set::shutdown_sessions(context, args).await)
                .await
        }
        Verb::Reload => reply.write(&set::reload(context).await).await,
        Verb::Upgrade => reply.write(&set::upgrade(context).await).await,
    }
}

/// Reads `bytes` as a line from a client, up to where commands are obeyed. For fuzzing: it must not
/// panic, whatever it is given.
#[doc(hidden)]
pub fn exercise_line(bytes: &[u8]) {
    let line = String::from_utf8_lossy(bytes);
    for command in commands(&line) {
        let words = words(&command);
        assert!(words.iter().map(String::len).sum::<usize>() <= command.len());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for level in [ApiLevel::User, ApiLevel::Operator, ApiLevel::Admin] {
            let allowed = grammar::help(&words, level).len();
            assert!(allowed <= grammar::help(&words, ApiLevel::Admin).len());
            if let Some((_, args)) = grammar::find(&words) {
                assert!(words.ends_with(args) && args.len() < words.len());
                let _ = (show::parse_stat(args), show::parse_info(args));
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

/// The writing end.
struct ReplyWriter {
    stream: OwnedWriteHalf,
    /// A prompt follows each reply, and another line is waited for.
    interactive: bool,
    /// The most that this client may do: what it has lowered itself to.
    level_max: ApiLevel,
}

impl ReplyWriter {
    /// Writes it all, or fails when the client does not take it.
    async fn write(&mut self, text: &str) -> io::Result<()> {
        for chunk in text.as_bytes().chunks(CHUNK_BYTES) {
            timeout(CLI_TIMEOUT, self.stream.write_all(chunk)).await??;
        }
        Ok(())
    }
}
