//! The runtime socket: commands over a unix socket, in HAProxy's words and framing. Admin thread,
//! a task a connection.
//!
//! Invariants: at most [`CONNECTIONS_MAX`] are served, the rest waits in the kernel's queue; a line
//! is at most [`LINE_BYTES_MAX`] long, a reply is written chunk by chunk; whoever neither speaks nor
//! listens for [`TIMEOUT`] is cut. Nothing is changed here: changes go to the control task as
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
use crate::state::{ControlHandle, Wish};
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
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that a client has [`TIMEOUT`] to take.
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
struct Desk {
    shared: Rc<Shared>,
    control: ControlHandle,
    reload: ReloadHandle,
    workers: Workers,
    /// Where the socket is.
    path: String,
}

impl Desk {
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
    let desk = Rc::new(Desk {
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
                    let desk = Rc::clone(&desk);
                    shared.tracker.spawn_local(async move {
                        // An error means that the client has gone.
                        let _ = serve(&desk, stream).await;
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
async fn serve(desk: &Desk, stream: UnixStream) -> io::Result<()> {
    let (reading, writing) = stream.into_split();
    let mut lines = Lines::new(reading);
    let mut out = Out {
        stream: writing,
        interactive: false,
        most: ApiLevel::Admin,
    };
    loop {
        // A command that has come is answered, a further one is not waited for.
        let stopping = desk.shared.stop.cancelled();
        let line = tokio::select! {
            () = stopping => return Ok(()),
            line = timeout(TIMEOUT, lines.next()) => line,
        };
        let line = match line {
            Ok(Ok(Some(line))) => line,
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return out.say(&format!("{error}\n\n")).await;
            }
            Ok(Ok(None) | Err(_)) | Err(_) => return Ok(()),
        };
        for command in commands(&line) {
            if !execute(desk, &mut out, &words(&command)).await? {
                return Ok(());
            }
        }
        if !out.interactive {
            return Ok(());
        }
    }
}

/// Runs one command and ends its reply. `false`: the connection is to end.
async fn execute(desk: &Desk, out: &mut Out, words: &[String]) -> io::Result<bool> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let level = desk.level().min(out.most);
    if let Some((entry, args)) = grammar::find(&words) {
        if entry.level > level {
            out.say("Permission denied\n").await?;
        } else if entry.verb == Verb::Quit {
            return Ok(false);
        } else {
            obey(desk, out, (entry.verb, args, level)).await?;
        }
    } else if !words.is_empty() || !out.interactive {
        out.say(&grammar::unknown(&words, level)).await?;
    }
    let end = if out.interactive { "\n> " } else { "\n" };
    out.say(end).await?;
    Ok(true)
}

async fn obey(
    desk: &Desk,
    out: &mut Out,
    (verb, args, level): (Verb, &[&str], ApiLevel),
) -> io::Result<()> {
    match verb {
        Verb::Help => out.say(&grammar::help(args, level)).await,
        Verb::Operator => {
            out.most = level.min(ApiLevel::Operator);
            Ok(())
        }
        Verb::User => {
            out.most = ApiLevel::User;
            Ok(())
        }
        Verb::Prompt => {
            out.interactive = match args.first() {
                Some(&"n") => false,
                Some(&"i" | &"p") => true,
                _ => !out.interactive,
            };
            Ok(())
        }
        Verb::Quit => Ok(()),
        Verb::ShowBackend => out.say(&show::backends(desk)).await,
        Verb::ShowCliLevel => out.say(&format!("{}\n", level.name())).await,
        Verb::ShowCliSockets => out.say(&show::sockets(desk)).await,
        Verb::ShowErrors => out.say(&show::errors()).await,
        Verb::ShowSchema => out.say(&schema()).await,
        Verb::ShowInfo => out.say(&show::info(desk, args)).await,
        Verb::ShowStat => show::stat(desk, out, args).await,
        Verb::ShowSess => sessions::show(desk, out, args).await,
        Verb::ShowServersState => show::servers_state(desk, out, args).await,
        Verb::ShowVersion => out.say(&show::version()).await,
        Verb::SetServer => out.say(&set::server(desk, args).await).await,
        Verb::SetWeight => out.say(&set::weight(desk, args).await).await,
        Verb::GetWeight => out.say(&set::get_weight(desk, args)).await,
        Verb::Enable => out.say(&set::state(desk, args, Wish::Ready).await).await,
        Verb::Disable => out.say(&set::state(desk, args, Wish::Maint).await).await,
        Verb::ShutdownSession => out.say(&sessions::shutdown(desk, args).await).await,
        Verb::ShutdownSessions => out.say(&set::shutdown_sessions(desk, args).await).await,
        Verb::Reload => out.say(&set::reload(desk).await).await,
        Verb::Upgrade => out.say(&set::upgrade(desk).await).await,
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
struct Out {
    stream: OwnedWriteHalf,
    /// A prompt follows each reply, and another line is waited for.
    interactive: bool,
    /// The most that this client may do: what it has lowered itself to.
    most: ApiLevel,
}

impl Out {
    /// Writes it all, or fails when the client does not take it.
    async fn say(&mut self, text: &str) -> io::Result<()> {
        for chunk in text.as_bytes().chunks(CHUNK_BYTES) {
            timeout(TIMEOUT, self.stream.write_all(chunk)).await??;
        }
        Ok(())
    }
}
