//! The real binary: started with a configuration text, ready at its READY=1, its listeners known from its
//! events, stopped by its id.

use super::client;
use super::csv::{Csv, Row};
use super::eventually::eventually;
use super::netns::Netns;
use super::process::{Lines, Process};
use nix::sys::signal::Signal;
use std::fmt::Display;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_rlb");

/// From the start to READY=1.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// From a signal to the end, when nothing delays it.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(5);

/// A shell script: makes its standard input and output descriptors 3 and 4, sets the environment for them, and
/// runs the program.
const PASS_ON: &str = "exec 3<&0 4<&1 </dev/null >/dev/null; \
     export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=one:other; exec \"$@\"";

/// The same for one socket as descriptor 3, and no word about it in the environment.
const PASS_ONE: &str = "exec 3<&0 </dev/null; exec \"$@\"";

/// The release build, whose path `tests/run` gives.
pub(crate) fn release() -> PathBuf {
    let path = std::env::var_os("RLB_RELEASE").expect("RLB_RELEASE: the path of a release build");
    path.into()
}

/// How to start it.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    config: String,
    netns: Option<&'a Netns>,
    stdout: Option<Stdio>,
    sockets: Vec<OwnedFd>,
    descriptor: Option<OwnedFd>,
    environment: Vec<(&'static str, String)>,
    program: PathBuf,
    nofile: Option<u64>,
    option: &'static str,
    managed: bool,
}

impl<'a> Start<'a> {
    /// With this configuration.
    pub(crate) fn new(config: &impl Display) -> Self {
        Self {
            config: config.to_string(),
            netns: None,
            stdout: None,
            sockets: Vec::new(),
            descriptor: None,
            environment: Vec::new(),
            program: PROGRAM.into(),
            nofile: None,
            option: "--config",
            managed: true,
        }
    }

    /// With a configuration of HAProxy's.
    #[must_use]
    pub(crate) fn haproxy(mut self) -> Self {
        self.option = "--haproxy";
        self
    }

    /// Without a service manager: nothing keeps its sockets when it ends.
    #[must_use]
    pub(crate) fn unmanaged(mut self) -> Self {
        self.managed = false;
        self
    }

    /// Inside a namespace.
    #[must_use]
    pub(crate) fn netns(mut self, netns: &'a Netns) -> Self {
        self.netns = Some(netns);
        self
    }

    /// With its standard output there instead of collected.
    #[must_use]
    pub(crate) fn stdout(mut self, stdout: Stdio) -> Self {
        self.stdout = Some(stdout);
        self
    }

    /// With a variable in its environment.
    #[must_use]
    pub(crate) fn env(mut self, name: &'static str, value: impl Display) -> Self {
        self.environment.push((name, value.to_string()));
        self
    }

    /// With another path of the program.
    #[must_use]
    pub(crate) fn program(mut self, path: PathBuf) -> Self {
        self.program = path;
        self
    }

    /// With this soft and hard limit of descriptors.
    #[must_use]
    pub(crate) fn nofile(mut self, limit: u64) -> Self {
        self.nofile = Some(limit);
        self
    }

    /// Passes it two sockets, as a service manager does.
    #[must_use]
    pub(crate) fn inherits(mut self, sockets: [OwnedFd; 2]) -> Self {
        self.sockets = sockets.into();
        self
    }

    /// Passes it a socket as descriptor 3.
    #[must_use]
    pub(crate) fn descriptor(mut self, socket: OwnedFd) -> Self {
        self.descriptor = Some(socket);
        self
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub(crate) fn ready(self) -> Rlb {
        let managed = self.managed;
        let mut rlb = self.spawn();
        if managed {
            rlb.wait_ready();
        } else {
            rlb.learn_listeners();
        }
        rlb
    }

    /// Starts it and waits until it is ready or has ended; the error has its status and events.
    #[track_caller]
    pub(crate) fn ready_or_ended(self) -> Result<Rlb, (ExitStatus, Vec<String>)> {
        let mut rlb = self.spawn();
        let ended = eventually(READY_WITHIN, "ready or ended", || {
            if rlb.notified("READY=1") {
                return Some(None);
            }
            rlb.process.ended().map(Some)
        });
        let Some(status) = ended else {
            rlb.learn_listeners();
            return Ok(rlb);
        };
        Err((status, rlb.process.stderr.whole()))
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub(crate) fn exits(self) -> (ExitStatus, Vec<String>) {
        let mut rlb = self.spawn();
        let status = rlb.process.wait(READY_WITHIN);
        (status, rlb.process.stderr.whole())
    }

    #[track_caller]
    fn spawn(mut self) -> Rlb {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let config = dir.path().join("rlb.toml");
        std::fs::write(&config, &self.config).expect("the configuration can be written");
        let notify_path = dir.path().join("notify");
        let notify = UnixDatagram::bind(&notify_path).expect("a unix socket");
        notify.set_nonblocking(true).expect("non-blocking");
        let mut sockets = self.sockets.drain(..);
        let passed = sockets.next().zip(sockets.next());
        drop(sockets);
        let mut command = if passed.is_some() {
            let mut shell = Command::new("bash");
            shell.args(["-c", PASS_ON, "bash", PROGRAM]);
            shell
        } else if self.descriptor.is_some() {
            let mut shell = Command::new("bash");
            shell.args(["-c", PASS_ONE, "bash", PROGRAM]);
            shell
        } else if let Some(limit) = self.nofile {
            // It becomes the program.
            let mut limited = Command::new("prlimit");
            limited
                .arg(format!("--nofile={limit}:{limit}"))
                .arg(&self.program);
            limited
        } else {
            Command::new(&self.program)
        };
        command
            .args(["run", "--log-format", "json", self.option])
            .arg(&config)
            .envs(self.environment)
            .env_remove("RUST_LOG");
        if self.managed {
            command.env("NOTIFY_SOCKET", &notify_path);
        } else {
            command.env_remove("NOTIFY_SOCKET");
        }
        if let Some((one, other)) = passed {
            command.stdin(one).stdout(other);
            return Rlb {
                process: Process::start_as_is(command),
                dir,
                notify,
                listeners: Vec::new(),
            };
        }
        if let Some(socket) = self.descriptor {
            command.stdin(socket).stdout(Stdio::null());
            return Rlb {
                process: Process::start_as_is(command),
                dir,
                notify,
                listeners: Vec::new(),
            };
        }
        let keep_stdout = self.stdout.is_some();
        if let Some(stdout) = self.stdout {
            command.stdout(stdout);
        }
        let process = Process::start(command, self.netns, keep_stdout);
        Rlb {
            process,
            dir,
            notify,
            listeners: Vec::new(),
        }
    }
}

/// A running rlb.
#[derive(Debug)]
pub(crate) struct Rlb {
    /// Its process.
    pub(crate) process: Process,
    /// Keeps the configuration and the notify socket as long as the process runs.
    dir: TempDir,
    notify: UnixDatagram,
    listeners: Vec<(String, String)>,
}

impl Rlb {
    /// Starts it with `config` and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(config: &impl Display) -> Self {
        Start::new(config).ready()
    }

    /// The first address of the frontend `fe`.
    #[track_caller]
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses("fe")[0]
    }

    /// The addresses of a frontend or of the stats proxy.
    pub(crate) fn addresses(&self, proxy: &str) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter(|(name, _)| name == proxy)
            .map(|(_, address)| {
                address
                    .parse()
                    .unwrap_or_else(|_| panic!("{proxy}'s address is {address:?}"))
            })
            .collect()
    }

    /// GET from the stats listener.
    pub(crate) fn http_get(&self, path: &str) -> std::io::Result<(u16, String)> {
        client::http_get(self.addresses("stats")[0], path)
    }

    /// The statistics now.
    #[track_caller]
    pub(crate) fn csv(&self) -> Csv {
        let (status, text) = self.http_get("/;csv").expect("the stats listener answers");
        assert_eq!(status, 200, "{text}");
        Csv::parse(&text)
    }

    /// Value of a metric with its labels; 0 when it is not there.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.http_get("/metrics").expect("answers");
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse().expect("a number"))
    }

    /// Sessions of `be` that got no server by `cause`.
    #[track_caller]
    pub(crate) fn failed_sessions(&self, cause: &str) -> u64 {
        let labels = format!("{{proxy=\"be\",cause=\"{cause}\"}}");
        self.metric(&format!("rlb_backend_failed_sessions_total{labels}"))
    }

    /// A number of a row of the backend `be`, or of the frontend for `FRONTEND`.
    #[track_caller]
    pub(crate) fn number(&self, svname: &str, column: &str) -> u64 {
        self.row(svname, |row| row.number(column))
    }

    /// The status of a server of `be`.
    #[track_caller]
    pub(crate) fn status(&self, svname: &str) -> String {
        self.row(svname, |row| row.status().to_owned())
    }

    #[track_caller]
    fn row<T>(&self, svname: &str, read: impl FnOnce(Row<'_>) -> T) -> T {
        let proxy = if svname == "FRONTEND" { "fe" } else { "be" };
        read(self.csv().row(proxy, svname))
    }

    /// Waits until a server of `be` has `status`.
    #[track_caller]
    pub(crate) fn wait_status(&self, svname: &str, status: &str) {
        super::eventually::eventually_eq(client::TIMEOUT, &status.to_owned(), || {
            self.status(svname)
        });
    }

    /// The lines of standard error: events as JSON.
    pub(crate) fn events(&self) -> &Lines {
        &self.process.stderr
    }

    /// The file that it was started with.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.path().join("rlb.toml")
    }

    /// Replaces its configuration file by a rename, as an editor does.
    pub(crate) fn rewrite(&self, config: &impl Display) {
        let new = self.dir.path().join("rlb.toml.new");
        std::fs::write(&new, config.to_string()).expect("the configuration can be written");
        std::fs::rename(&new, self.config_path()).expect("the configuration can be replaced");
    }

    /// Reloads with `config` by SIGHUP and waits until it is in force.
    #[track_caller]
    pub(crate) fn reload(&mut self, config: &impl Display) {
        self.rewrite(config);
        self.sighup("\"reloaded: ");
        self.listeners = listeners(&self.process.stderr.all());
    }

    /// Reloads with `config` by SIGHUP and expects a refusal.
    #[track_caller]
    pub(crate) fn reload_refused(&self, config: &impl Display) {
        self.rewrite(config);
        self.sighup("reload refused");
    }

    /// Sends SIGHUP and waits for one more event with `word`.
    #[track_caller]
    fn sighup(&self, word: &str) {
        let before = self.events().with(word).len();
        self.signal(Signal::SIGHUP);
        eventually(READY_WITHIN, word, || {
            // A socket that is not read would fill up.
            self.notified("READY=1");
            let events = self.events().with(word).len();
            assert!(events <= before + 1, "{:#?}", self.events().all());
            (events > before).then_some(())
        });
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Stops it as systemd does, and expects an orderly end with nothing left behind.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.process.wait(STOP_WITHIN);
        assert_eq!(status.code(), Some(0), "a graceful stop: {status}");
        let panics = self.events().with("panicked at");
        assert!(panics.is_empty(), "{panics:#?}");
    }

    /// [`Rlb::stop`] after `streams` have ended.
    #[track_caller]
    pub(crate) fn stop_after<T>(self, streams: T) {
        drop(streams);
        self.stop();
    }

    /// Whether a `NAME=value` line has come on the notify socket; `NAME=` stands for any value.
    pub(crate) fn notified(&self, line: &str) -> bool {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.notify.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            let is_it = |it: &str| it == line || (line.ends_with('=') && it.starts_with(line));
            if text.lines().any(is_it) {
                return true;
            }
        }
        false
    }

    /// The next message on the notify socket that begins with `line`, and its descriptors.
    #[track_caller]
    pub(crate) fn wait_message(&self, line: &str) -> (String, Vec<OwnedFd>) {
        eventually(READY_WITHIN, &format!("a message {line:?}"), || {
            loop {
                let (text, fds) = receive(&self.notify)?;
                if text.lines().next() == Some(line) {
                    return Some((text, fds));
                }
            }
        })
    }

    /// Fills the queue of the notify socket, as if the service manager did not read. [`Rlb::notified`] reads
    /// it empty.
    pub(crate) fn fill_notify_queue(&self) {
        let filler = UnixDatagram::unbound().expect("a socket");
        filler.set_nonblocking(true).expect("non-blocking");
        let address = self.notify.local_addr().expect("an address");
        let path = address.as_pathname().expect("a path");
        while filler.send_to(b"FILLER=1", path).is_ok() {}
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        let deadline = Instant::now() + READY_WITHIN;
        eventually(READY_WITHIN + Duration::from_secs(1), "READY=1", || {
            if let Some(status) = self.process.ended() {
                panic!("ended before it was ready: {status}");
            }
            assert!(
                Instant::now() < deadline,
                "not ready; events: {:#?}",
                self.events().all()
            );
            self.notified("READY=1").then_some(())
        });
        self.learn_listeners();
    }

    fn learn_listeners(&mut self) {
        // The reading thread may be late; this event comes after all events about listeners.
        self.process.stderr.wait_for("\"message\":\"ready\"");
        self.listeners = listeners(&self.process.stderr.all());
    }
}

/// One message with its descriptors; `None` when none waits.
fn receive(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; 4096];
    let mut parts = [std::io::IoSliceMut::new(&mut text)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let length = recvmsg(socket, &mut parts, &mut control, flags).ok()?.bytes;
    let fds = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    Some((String::from_utf8_lossy(&text[..length]).into_owned(), fds))
}

/// Proxy and address of every `listening` event.
fn listeners(lines: &[String]) -> Vec<(String, String)> {
    lines
        .iter()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|event| {
            let fields = event.get("fields").unwrap_or(&event);
            let text = |key: &str| fields.get(key)?.as_str().map(str::to_owned);
            (text("message")? == "listening").then_some(())?;
            Some((text("proxy")?, text("address")?))
        })
        .collect()
}

/// Runs another sub-command to its end.
pub(crate) fn command(arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("rlb starts")
}
