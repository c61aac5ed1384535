//! HAProxy and rlb under its name with the same file, one after the other, each in a network namespace: what they are seen to
//! do must be the same.

use super::client;
use super::csv::Csv;
use super::needs;
use super::netns::Netns;
use super::ports::is_listened_on;
use super::process::Process;
use super::rlb::{PROGRAM, STOP_WITHIN};
use super::runtime;
use super::stalls::eventually_if_idle;
use super::syslog::Syslog;
use nix::sys::signal::Signal;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long something may take that is expected at once.
pub(crate) const WITHIN: Duration = Duration::from_secs(5);

/// Where the service of each is.
const ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 7000);

/// One of the two with a service `fe`.
pub(crate) struct Beside {
    pub(crate) netns: Netns,
    pub(crate) log: Syslog,
    folder: TempDir,
    process: Process,
}

impl Beside {
    /// Starts `program` in `netns`. `defaults` and `service` are lines of the section `defaults` and of the service.
    #[track_caller]
    pub(crate) fn start(program: &Path, netns: Netns, (defaults, service): (&str, &str)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = netns.enter(Syslog::udp);
        let text = format!(
            "global\n  nbthread 1\n  maxconn 1000\n  stats socket {}/socket level admin\n  log {} local0\n\
             defaults\n  mode tcp\n  log global\n  timeout connect 2s\n  timeout client 1m\n  \
             timeout server 1m\n{defaults}listen fe\n  bind {}\n{service}",
            folder.path().display(),
            log.address(),
            SocketAddr::from(ADDRESS),
        );
        std::fs::write(folder.path().join("haproxy.cfg"), text).expect("written");
        let mut command = Command::new(program);
        command
            .args(["-db", "-f", "haproxy.cfg"])
            .current_dir(&folder);
        let process = Process::start(command, Some(&netns), false);
        let beside = Self {
            netns,
            log,
            folder,
            process,
        };
        eventually_if_idle(WITHIN, "it answers", || {
            let answers = UnixStream::connect(beside.socket()).is_ok()
                && beside.netns.enter(|| is_listened_on(ADDRESS.into()));
            answers.then_some(())
        });
        beside
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// The answer to a command.
    pub(crate) fn ask(&self, line: &str) -> String {
        runtime::ask(&self.socket(), line)
    }

    /// What `show stat` says.
    pub(crate) fn stat(&self) -> Csv {
        Csv::parse(&self.ask("show stat"))
    }

    /// A client.
    #[track_caller]
    pub(crate) fn connect(&self) -> TcpStream {
        let connect = || TcpStream::connect(ADDRESS).expect("connected");
        let stream = self.netns.enter(connect);
        stream.set_read_timeout(Some(WITHIN)).expect("a timeout");
        stream
    }

    /// A client with this address.
    #[track_caller]
    pub(crate) fn connect_from(&self, client: Ipv4Addr) -> TcpStream {
        let connect = || client::connect_from(client, ADDRESS.into());
        let stream = self.netns.enter(connect);
        stream.set_read_timeout(Some(WITHIN)).expect("a timeout");
        stream
    }

    pub(crate) fn stop(mut self) {
        self.process.signal(Signal::SIGTERM);
        self.process.wait(STOP_WITHIN);
    }
}

/// What was seen of rlb by `run`, which gets the program; nothing without root. HAProxy, if it is installed, must be seen to
/// do the same.
#[track_caller]
pub(crate) fn both(run: impl Fn(&Path) -> Vec<String>) -> Vec<String> {
    both_since((0, 0), run)
}

/// The same for what HAProxy has since this version.
#[track_caller]
pub(crate) fn both_since(since: (u32, u32), run: impl Fn(&Path) -> Vec<String>) -> Vec<String> {
    if !needs::root() {
        return Vec::new();
    }
    let folder = tempfile::tempdir().expect("a folder");
    let ours = folder.path().join("haproxy");
    std::os::unix::fs::symlink(PROGRAM, &ours).expect("a link");
    let ours = run(&ours);
    if let Some(haproxy) = needs::haproxy().filter(|it| needs::version(it) >= since) {
        assert_eq!(ours, run(&haproxy), "rlb's is the first");
    }
    ours
}
