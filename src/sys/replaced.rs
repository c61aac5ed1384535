//! The processes that a new one takes over from (`haproxy -sf PID`): their listening sockets are
//! duplicated, and they are signalled once the new process listens.
//!
//! HAProxy's pid file names the master (`-W`), and its workers have the sockets: they are looked at too. The master
//! tells them what it is told, so they are not signalled. Where a HAProxy master has executed this program in its place,
//! its workers are this process's own children.
//!
//! A duplicate is the same socket, so nothing that waits in it is lost when the old process closes
//! its own. The kernel allows to duplicate (`pidfd_getfd(2)`, since Linux 5.6) where it allows to
//! trace: root may, and another user of the same id unless the system forbids it. Where it does not,
//! a new socket joins the old one's address. Control thread, before anything is announced.

use super::haproxy_master::HaproxyMaster;
use super::raw;
use super::socket::{self, Address, Options, is_abstract, unix_address};
use rustix::event::{Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_getfd,
    pidfd_open, pidfd_send_signal, waitpid,
};
use socket2::{Domain, Socket, Type};
use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an old process may take to leave an address that it was told to leave (SIGTTOU).
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// Pause before an address is tried again.
const LEAVE_RETRY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};

/// Processes to take over from.
#[derive(Debug)]
pub struct ReplacedProcesses {
    processes: Vec<ReplacedProcess>,
    /// The sockets that one of them has given by itself (`-x`); `None`: they are duplicated.
    given: RefCell<Option<Vec<Socket>>>,
    /// What keeps alive the workers of the HAProxy master that this process was.
    master: HaproxyMaster,
    /// What they are told when the new process serves; `None`: they are told nothing.
    signal: Option<Signal>,
    /// Since when they have been told to leave their addresses.
    paused: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct ReplacedProcess {
    pid: Pid,
    /// The process itself; `None` before Linux 5.3.
    pidfd: Option<OwnedFd>,
}

impl ReplacedProcess {
    /// The workers of a master: its children that run the same program.
    fn workers(&self) -> Vec<Self> {
        let workers = workers_of(self.pid).into_iter().map(|pid| Self {
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty()).ok(),
        });
        // The number of one that has ended may be another process's by now.
        workers
            .filter(|worker| parent_of(worker.pid) == Some(self.pid))
            .collect()
    }

    fn signal(&self, signal: Signal) -> bool {
        let sent = match &self.pidfd {
            Some(pidfd) => pidfd_send_signal(pidfd, signal),
            None => kill_process(self.pid, signal),
        };
        sent.is_ok()
    }

    /// Duplicates of its listening sockets.
    fn sockets(&self) -> io::Result<Vec<Socket>> {
        let pidfd = self.pidfd.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let folder = format!("/proc/{}/fd", self.pid.as_raw_nonzero());
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(fd) = name.to_str().and_then(|it| it.parse::<RawFd>().ok()) else {
                continue;
            };
            let link = fs::read_link(entry.path()).unwrap_or_default();
            if !link.to_string_lossy().starts_with("socket:") {
                continue;
            }
            match pidfd_getfd(pidfd, fd, PidfdGetfdFlags::empty()) {
                Ok(fd) => found.push(Socket::from(fd)),
                // It was closed meanwhile.
                Err(rustix::io::Errno::BADF) => {}
                Err(error) => return Err(error.into()),
            }
        }
        found.retain(|socket| {
            socket.is_listener().unwrap_or(false)
                && socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
        });
        Ok(found)
    }
}

impl ReplacedProcesses {
    /// Those of `pids` that exist and are not this process. `signal` is what they are told when the
    /// new process serves.
    pub fn new(pids: &[i32], signal: Option<Signal>) -> Self {
        let pids = pids.iter().filter(|pid| **pid > 0);
        let pids = pids.filter_map(|pid| Pid::from_raw(*pid));
        let others = pids.filter(|pid| *pid != getpid());
        let processes = others.filter_map(|pid| match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Some(ReplacedProcess {
                pid,
                pidfd: Some(pidfd),
            }),
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => None,
            Err(_) => Some(ReplacedProcess { pid, pidfd: None }),
        });
        Self {
            processes: processes.collect(),
            given: RefCell::default(),
            master: HaproxyMaster::default(),
            signal,
            paused: Cell::new(None),
        }
    }

    /// The same, with what keeps HAProxy's workers alive, and with the sockets that were given (`None`: they are
    /// duplicated).
    #[must_use]
    pub fn with(mut self, master: HaproxyMaster, given: Option<Vec<Socket>>) -> Self {
        self.master = master;
        self.given = RefCell::new(given);
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Their listening sockets, once, and the reason for each process whose sockets cannot be had.
    pub fn sockets(&self) -> (Vec<Socket>, Vec<(i32, io::Error)>) {
        if let Some(given) = self.given.take() {
            return (given, Vec::new());
        }
        let mut refused = Vec::new();
        let mut sockets = Vec::new();
        let workers: Vec<_> = self
            .processes
            .iter()
            .flat_map(ReplacedProcess::workers)
            .collect();
        for process in self.processes.iter().chain(&workers) {
            match process.sockets() {
                Ok(more) => sockets.extend(more),
                Err(error) => refused.push((process.pid.as_raw_nonzero().get(), error)),
            }
        }
        (sockets, refused)
    }

    /// Opens sockets, on an address that an old process still listens on too: a TCP socket joins its
    /// address, or has it once the old process has left it (SIGTTOU); a unix socket takes its path.
    ///
    /// # Errors
    /// Those of [`socket::listen`]; `AddrInUse` when another process listens there.
    pub fn listen(&self, options: &Options, shards: usize) -> io::Result<Vec<Socket>> {
        let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        match socket::listen(options, shards) {
            Err(error) if in_use(&error) && !self.is_empty() => {}
            result => return result,
        }
        if let Address::Unix(path) = &options.address {
            if self.listens_at(path) && !is_abstract(path) {
                fs::remove_file(path)?;
            }
            return socket::listen(options, shards);
        }
        let join = Options {
            join: true,
            ..options.clone()
        };
        loop {
            match socket::listen(&join, shards) {
                Err(error) if in_use(&error) => {
                    let since = self.paused.get().unwrap_or_else(Instant::now);
                    self.paused.set(Some(since));
                    if !self.tell(Signal::TTOU) || since.elapsed() > LEAVE_MAX {
                        return Err(error);
                    }
                    // It sends no event when it has left the address.
                    poll(&mut [], Some(&LEAVE_RETRY))?;
                }
                result => return result,
            }
        }
    }

    /// Whether one of them listens on the unix socket at `path`.
    fn listens_at(&self, path: &Path) -> bool {
        let mut processes = self.processes.iter();
        listener_of(path).is_some_and(|pid| {
            processes.any(|it| it.pid == pid || workers_of(it.pid).contains(&pid))
        })
    }

    /// Tells them that the new process serves.
    pub fn finish(mut self) {
        if let Some(signal) = self.signal {
            self.tell(signal);
        }
        self.paused.set(None);
        let pids = self.processes.iter().map(|process| process.pid);
        let children = pids.filter(|pid| parent_of(*pid) == Some(getpid()));
        reap(children.collect(), std::mem::take(&mut self.master));
    }

    /// Whether one of them was told.
    fn tell(&self, signal: Signal) -> bool {
        let mut told = false;
        for process in &self.processes {
            told |= process.signal(signal);
        }
        told
    }
}

impl Drop for ReplacedProcesses {
    /// A new process that does not serve lets the old ones go on.
    fn drop(&mut self) {
        if self.paused.get().is_some() {
            self.tell(Signal::TTIN);
        }
    }
}

/// Waits for the end of children of this process, one after the other, on a thread of its own, and keeps them alive
/// until then.
fn reap(children: Vec<Pid>, master: HaproxyMaster) {
    if children.is_empty() {
        return;
    }
    let wait = move || {
        for child in children {
            // It exists until it is waited for.
            let _ = waitpid(Some(child), WaitOptions::empty());
        }
        drop(master);
    };
    let thread = std::thread::Builder::new().name("reap".to_owned());
    if let Err(error) = thread.spawn(wait) {
        tracing::warn!(%error, "the old processes stay in the table of processes when they have ended");
    }
}

/// The children of a process that run the same program.
fn workers_of(pid: Pid) -> Vec<Pid> {
    let (Some(program), Ok(processes)) = (program_of(pid), fs::read_dir("/proc")) else {
        return Vec::new();
    };
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let children = numbers
        .filter_map(Pid::from_raw)
        .filter(|it| parent_of(*it) == Some(pid));
    children
        .filter(|child| program_of(*child).as_ref() == Some(&program))
        .collect()
}

/// The parent of a process, while there is one that this process can see.
fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name before it is in parentheses and may have any characters.
    let (_, behind) = stat.rsplit_once(") ")?;
    Pid::from_raw(behind.split(' ').nth(1)?.parse().ok()?)
}

/// The path of the program that a process runs, also when another file has that path by now.
fn program_of(pid: Pid) -> Option<String> {
    let link = fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).ok()?;
    let path = link.to_str()?;
    Some(path.strip_suffix(" (deleted)").unwrap_or(path).to_owned())
}

/// The process that listens on the unix socket at `path`; `None` when this one cannot see it, too.
pub fn listener_of(path: &Path) -> Option<Pid> {
    let address = unix_address(path).ok()?;
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).ok()?;
    probe.set_nonblocking(true).ok()?;
    probe.connect(&address).ok()?;
    Pid::from_raw(raw::peer_pid(probe.as_fd()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn own_pid() -> i32 {
        getpid().as_raw_nonzero().get()
    }

    #[test]
    fn this_process_and_processes_that_are_gone_are_left_out() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        assert!(ReplacedProcesses::new(&[own_pid(), gone, 0, -5], None).is_empty());
    }

    #[test]
    fn the_listening_sockets_of_a_process_are_found_and_no_others() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let pid = getpid();
        let process = ReplacedProcess {
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty()).ok(),
        };
        let sockets = process.sockets().unwrap();
        let here = |socket: &Socket| socket.local_addr().unwrap().as_socket() == Some(address);
        assert_eq!(sockets.iter().filter(|socket| here(socket)).count(), 1);
        assert!(sockets.iter().all(|socket| socket.is_listener().unwrap()));
    }

    #[test]
    fn the_workers_of_a_process_are_its_children_that_run_its_program() {
        let mut other = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let child = Pid::from_raw(i32::try_from(other.id()).unwrap()).unwrap();
        assert_eq!(parent_of(child), Some(getpid()));
        assert!(!workers_of(getpid()).contains(&child), "another program");
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(parent_of(child), None);

        // The shell in parentheses is one more process of this program. It ends with its input.
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "exec 3<&0; (read line <&3) & echo; wait"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(shell.id()).unwrap()).unwrap();
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        assert_eq!(workers_of(pid).len(), 1);
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }

    #[test]
    fn a_path_is_taken_from_an_old_process_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(listener_of(&path), Some(getpid()));
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let other = ReplacedProcesses::new(&[i32::try_from(child.id()).unwrap()], None);
        assert!(!other.is_empty() && !other.listens_at(&path));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
