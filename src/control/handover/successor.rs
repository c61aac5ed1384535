//! The old process's side: starts the new one and waits until it is ready to serve.
//!
//! Blocking, on a thread of its own. Invariant: a new process that does not become ready is ended, by its
//! pidfd and not by its number.

use super::{BEGIN, Program, READS_UNUSED, Reporter, VARIABLE};
use crate::live::timing::monotonic;
use crate::state::{Snapshot, overrides};
use crate::stats::servers_state;
use crate::sys::channel::{Channel, FDS_MAX, Message};
use crate::sys::listen_fds;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use socket2::Socket;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the new process may take to its first message.
const START_MAX: Duration = Duration::from_secs(10);
/// How long it may take to serve: ten thousand servers and a second for their names are far below.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long one that was ended may take to be gone, in seconds.
const GONE_MAX: i64 = 1;

/// What is handed over.
#[derive(Debug)]
pub(in crate::control) struct HandoverPayload {
    /// The listening sockets, by their names in the log.
    pub(in crate::control) sockets: Vec<(String, Arc<Socket>)>,
    /// What is in force while the new process starts.
    pub(in crate::control) state: StateTexts,
}

/// What checks and operators have decided, as text.
#[derive(Debug, Default)]
pub(in crate::control) struct StateTexts {
    /// As [`overrides::write`] has it.
    overrides: String,
    /// As [`servers_state::for_next_process`] has it.
    servers: String,
}

impl StateTexts {
    /// What `snapshot` has.
    pub(in crate::control) fn of(snapshot: &Snapshot, now: Instant) -> Self {
        Self {
            overrides: overrides::write(snapshot),
            servers: servers_state::for_next_process(snapshot, (now, monotonic())),
        }
    }

    /// Files to send. The servers come last: a version that knows only them reads the last one.
    fn files(&self) -> io::Result<[File; 2]> {
        Ok([
            memory_file("overrides", &[self.overrides.as_bytes()])?,
            memory_file("servers", &[self.servers.as_bytes()])?,
        ])
    }
}

/// A new process that is ready to serve, and waits for `go`.
#[derive(Debug)]
pub(in crate::control) struct Successor {
    channel: Arc<Channel>,
    /// The process.
    pub(in crate::control) process: NewProcess,
    /// Positions of the sockets that it does not listen on.
    pub(in crate::control) unused: Vec<usize>,
}

impl Successor {
    /// Starts the program and waits until it is ready; the error says why it will not be. `channel` and `theirs` are
    /// the ends of a pair. When the channel is closed meanwhile, the new process is ended.
    pub(in crate::control) fn start(
        program: &Program,
        (channel, theirs): (Arc<Channel>, OwnedFd),
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
        let mut child = channel
            .set_timeout(START_MAX)
            .and_then(|()| launch(program, theirs))
            .map_err(|error| format!("cannot start {path}: {error}"))?;
        let introduced = match introduced(&channel) {
            Ok(introduced) => introduced,
            Err(why) => {
                // It may have ended by itself.
                drop((child.kill(), child.wait()));
                return Err(format!("{path}: {why}"));
            }
        };
        // It has started the process that sends, and ends.
        let _ = child.wait();
        Self::prepare(channel, introduced, payload)
    }

    /// Hands over to a process that has introduced itself, and ends it if it cannot serve.
    fn prepare(
        channel: Arc<Channel>,
        process: NewProcess,
        payload: &HandoverPayload,
    ) -> Result<Self, String> {
        let settled = settle(&channel, payload);
        let mut successor = Self {
            channel,
            process,
            unused: Vec::new(),
        };
        match settled {
            Ok(unused) => {
                successor.unused = unused;
                Ok(successor)
            }
            Err(why) => {
                successor.end();
                Err(why)
            }
        }
    }

    /// Ends it, and waits until it is gone: as long as it has the listening sockets, connections may be queued
    /// for it, and its end would reset them.
    pub(in crate::control) fn end(self) {
        self.channel.close();
        let Some(pidfd) = self.process.pidfd else {
            return;
        };
        // It may have ended by itself.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        let limit = Timespec {
            tv_sec: GONE_MAX,
            tv_nsec: 0,
        };
        // A pidfd is readable when its process has ended. An error or the limit: nothing more can be done.
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
    }

    /// It is in charge from now on. It gets what was counted so far, and what is in force now.
    pub(in crate::control) fn go(
        self,
        counters: String,
        state: &StateTexts,
    ) -> io::Result<(NewProcess, Reporter)> {
        // The counters are the last one: a version that knows only them reads the last one.
        let [overrides, servers] = state.files()?;
        let files = [
            overrides,
            servers,
            memory_file("counters", &[counters.as_bytes()])?,
        ];
        self.channel
            .send("go", &files.each_ref().map(AsFd::as_fd))?;
        Ok((self.process, Reporter::new(self.channel, counters)))
    }
}

fn launch(program: &Program, theirs: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(&program.path);
    if listen_fds::others_have_them() {
        command.env(listen_fds::OTHERS_VARIABLE, "1");
    }
    command
        .arg0(&program.name)
        .args(&program.arguments)
        .env(VARIABLE, BEGIN)
        // What the service manager has told this process about itself.
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_FDNAMES")
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::from(theirs))
        .spawn()
}

/// The process at the other end.
#[derive(Debug)]
pub(in crate::control) struct NewProcess {
    /// Its process id.
    pub(in crate::control) pid: u32,
    /// The process itself: a number may be another process's by the time it is used. `None` where the
    /// kernel has no such thing (before Linux 5.3): then only the closed channel ends the process.
    pidfd: Option<OwnedFd>,
}

impl NewProcess {
    /// A process that is known by its number alone.
    #[cfg(test)]
    pub(in crate::control) fn numbered(pid: u32) -> Self {
        Self { pid, pidfd: None }
    }

    /// Sends it a signal that this process got in its place.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    pub(in crate::control) fn signal(&self, signal: Signal) -> io::Result<()> {
        if let Some(pidfd) = &self.pidfd {
            pidfd_send_signal(pidfd, signal)?;
        } else {
            let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
            kill_process(pid.ok_or(io::ErrorKind::NotFound)?, signal)?;
        }
        Ok(())
    }
}

fn introduced(channel: &Channel) -> Result<NewProcess, String> {
    let Message { text, mut fds } = next_message(channel, START_MAX)?;
    let pid = text.strip_prefix("pid ").and_then(|pid| pid.parse().ok());
    let Some(pid) = pid else {
        return Err(format!(
            "the new process is no rlb that can take over: it sent {text:?}"
        ));
    };
    // A version before this one sends its number alone. It lives: it waits for an answer.
    let opened = || {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        pidfd_open(pid, PidfdFlags::empty()).ok()
    };
    let pidfd = fds.pop().or_else(opened);
    Ok(NewProcess { pid, pidfd })
}

/// Hands everything over and waits for the answer. Returns the positions of the sockets that are not used.
fn settle(channel: &Channel, payload: &HandoverPayload) -> Result<Vec<usize>, String> {
    // If it has failed before it took everything, its reason is in the next message.
    let given = give(channel, payload).map_err(|error| format!("cannot hand over: {error}"));
    let mut unused = Vec::new();
    let text = loop {
        let text = next_message(channel, READY_MAX)?.text;
        match text.strip_prefix("unused ") {
            Some(positions) => unused.extend(
                positions
                    .split(' ')
                    .filter_map(|it| it.parse::<usize>().ok()),
            ),
            None => break text,
        }
    };
    match text.strip_prefix("failed ") {
        None if text == "ready" => given.map(|()| unused),
        None => Err(format!("the new process sent {text:?}")),
        Some(why) => Err(format!("the new process cannot serve: {why}")),
    }
}

fn give(channel: &Channel, payload: &HandoverPayload) -> io::Result<()> {
    channel.set_timeout(READY_MAX)?;
    let (own, count) = (std::process::id(), payload.sockets.len());
    channel.send(&format!("from {own}\nsockets {count}\n{READS_UNUSED}"), &[])?;
    for sockets in payload.sockets.chunks(FDS_MAX) {
        let names: Vec<&str> = sockets.iter().map(|(name, _)| &**name).collect();
        let fds: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
        channel.send(&names.join("\n"), &fds)?;
    }
    let files = payload.state.files()?;
    channel.send("servers", &files.each_ref().map(AsFd::as_fd))
}

/// A file of its own in memory, to be read from its beginning.
pub(super) fn memory_file(name: &str, parts: &[&[u8]]) -> io::Result<File> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
    for part in parts {
        file.write_all(part)?;
    }
    file.rewind()?;
    Ok(file)
}

/// The next message.
fn next_message(channel: &Channel, limit: Duration) -> Result<Message, String> {
    let received = channel
        .set_timeout(limit)
        .and_then(|()| channel.receive())
        .map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => {
                format!("the new process was not ready within {} s", limit.as_secs())
            }
            _ => format!("no message from the new process: {error}"),
        })?;
    received.ok_or_else(|| {
        "the new process ended before it could serve; what it has logged says why".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").spawn().unwrap()
    }

    /// Fault 10: a new process that failed was ended by a number that had come as text.
    #[test]
    fn a_process_that_fails_is_ended_by_its_pidfd() {
        let (mut failing, mut innocent) = (sleeper(), sleeper());
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::from_fd(theirs).unwrap();
        let pid = i32::try_from(failing.id()).ok().and_then(Pid::from_raw);
        let pidfd = pidfd_open(pid.unwrap(), PidfdFlags::empty()).unwrap();
        let text = format!("pid {}", innocent.id());
        theirs.send(&text, &[pidfd.as_fd()]).unwrap();
        theirs.send("failed on purpose", &[]).unwrap();
        let introduced = introduced(&ours).unwrap();
        assert_eq!(introduced.pid, innocent.id());
        let payload = HandoverPayload {
            sockets: Vec::new(),
            state: StateTexts::default(),
        };
        let why = Successor::prepare(Arc::new(ours), introduced, &payload).unwrap_err();
        assert!(why.contains("on purpose"), "{why}");
        assert_eq!(failing.wait().unwrap().signal(), Some(9));
        assert!(innocent.try_wait().unwrap().is_none());
        innocent.kill().unwrap();
        innocent.wait().unwrap();
    }
}
