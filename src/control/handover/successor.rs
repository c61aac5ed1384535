//! The old process's side: starts the new one and sees it through until it serves.
//!
//! Blocking, on a thread of its own. Invariant: a new process that does not come to serve is ended.

use super::{BEGIN, Program, VARIABLE};
use crate::sys::channel::{Channel, FDS_MAX, Message};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process};
use socket2::Socket;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How long the new process may take to say a word at all.
const START_MAX: Duration = Duration::from_secs(10);
/// How long it may take to serve: ten thousand servers and a second for their names are far below.
const READY_MAX: Duration = Duration::from_secs(30);

/// What is handed over.
#[derive(Debug)]
pub(in crate::control) struct HandoverPayload {
    /// The listening sockets, by their names in the log.
    pub(in crate::control) sockets: Vec<(String, Arc<Socket>)>,
    /// The text of `show servers state`.
    pub(in crate::control) servers: String,
}

/// A new process that is ready to serve, and waits for the word.
#[derive(Debug)]
pub(in crate::control) struct Successor {
    channel: Channel,
    /// Its process id.
    pub(in crate::control) pid: u32,
}

impl Successor {
    /// Starts the program and waits until it is ready; or says why it is not going to be.
    pub(in crate::control) fn start(
        program: &Program,
        payload: &HandoverPayload,
    ) -> Result<Self, String> {
        if std::process::id() == 1 {
            return Err(
                "rlb is the first process of its container, which would end with it: \
                 start a new container instead"
                    .to_owned(),
            );
        }
        let path = program.path.display();
        let (mut child, channel) =
            launch(program).map_err(|error| format!("cannot start {path}: {error}"))?;
        let pid = match introduced(&channel) {
            Ok(pid) => pid,
            Err(why) => {
                // It may have said something else by its exit.
                drop((child.kill(), child.wait()));
                return Err(format!("{path}: {why}"));
            }
        };
        // It was only there to start the one that speaks.
        let _ = child.wait();
        match settle(&channel, payload) {
            Ok(()) => Ok(Self { channel, pid }),
            Err(why) => {
                end(pid);
                Err(why)
            }
        }
    }

    /// It is in charge from now on.
    pub(in crate::control) fn go(self) -> io::Result<()> {
        self.channel.send("go", &[])
    }
}

fn launch(program: &Program) -> io::Result<(Child, Channel)> {
    let (channel, theirs) = Channel::pair()?;
    channel.set_timeout(START_MAX)?;
    let child = Command::new(&program.path)
        .args(&program.arguments)
        .env(VARIABLE, BEGIN)
        // What the service manager has told this process about itself.
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_FDNAMES")
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::from(theirs))
        .spawn()?;
    Ok((child, channel))
}

/// The process id of whoever is at the other end.
fn introduced(channel: &Channel) -> Result<u32, String> {
    let said = hear(channel, START_MAX)?;
    let pid = said.strip_prefix("pid ").and_then(|pid| pid.parse().ok());
    pid.ok_or_else(|| format!("the new process is no rlb that can take over: it said {said:?}"))
}

/// Hands everything over and waits for the answer.
fn settle(channel: &Channel, payload: &HandoverPayload) -> Result<(), String> {
    // One that has failed before it took everything has said why.
    let given = give(channel, payload).map_err(|error| format!("cannot hand over: {error}"));
    let said = hear(channel, READY_MAX)?;
    match said.strip_prefix("failed ") {
        None if said == "ready" => given,
        None => Err(format!("the new process said {said:?}")),
        Some(why) => Err(format!("the new process cannot serve: {why}")),
    }
}

fn give(channel: &Channel, payload: &HandoverPayload) -> io::Result<()> {
    channel.set_timeout(READY_MAX)?;
    let (own, count) = (std::process::id(), payload.sockets.len());
    channel.send(&format!("from {own}\nsockets {count}"), &[])?;
    for sockets in payload.sockets.chunks(FDS_MAX) {
        let names: Vec<&str> = sockets.iter().map(|(name, _)| &**name).collect();
        let fds: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
        channel.send(&names.join("\n"), &fds)?;
    }
    let mut file = File::from(memfd_create("servers", MemfdFlags::CLOEXEC)?);
    file.write_all(payload.servers.as_bytes())?;
    file.rewind()?;
    channel.send("servers", &[file.as_fd()])
}

/// The next word.
fn hear(channel: &Channel, limit: Duration) -> Result<String, String> {
    let received = channel
        .set_timeout(limit)
        .and_then(|()| channel.receive())
        .map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => {
                format!("the new process was not ready within {} s", limit.as_secs())
            }
            _ => format!("cannot hear the new process: {error}"),
        })?;
    match received {
        Some(Message { text, .. }) => Ok(text),
        None => Err(
            "the new process ended before it could serve; what it has logged says why".to_owned(),
        ),
    }
}

/// Ends a process that has introduced itself and is of no use.
fn end(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
    }
}
