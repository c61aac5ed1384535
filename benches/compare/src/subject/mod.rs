//! What is compared: rlb, HAProxy in three settings, nginx, and no proxy.
//!
//! All proxies check their servers, keep statistics and log every session in one line over UDP, as in
//! production.

mod config;
pub mod large;
pub mod setting;
mod statistics;

pub use setting::Setting;
pub use statistics::Statistics;

use crate::callgrind;
use crate::interrupt;
use crate::measure::wait_until;
use crate::proxy_header;
use crate::wire::Request;
use anyhow::{Context, Result, ensure};
use config::Tuning;
use setting::PLAIN;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where a proxy listens.
const PROXY_PORT: u16 = 9000;
/// Where the servers listen.
const SERVER_PORTS: [u16; 3] = [9101, 9102, 9103];
/// Where log lines go: a socket is bound there, and read only by workloads that must have none.
const LOG_PORT: u16 = 9514;
/// HAProxy's best setting, the base of every ratio.
pub const BASE: &str = "haproxy tuned";

/// The setting between HAProxy's default and its best, which shows least.
pub const BETWEEN: &str = "haproxy splice";

/// The module that nginx needs for TCP.
pub const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// The large configuration ([`large`]): all its frontends but the last listen from this port on, the last
/// listens on [`PROXY_PORT`].
const LARGE_FIRST_PORT: u16 = 20_000;
/// Frontends of the large configuration, each with its own backend.
const LARGE_FRONTENDS: u16 = 1_000;

/// Ports that must not become the local port of a connection, for `net.ipv4.ip_local_reserved_ports`: a
/// lingering connection on such a port would keep the next proxy from listening.
pub fn reserved_ports() -> String {
    let mut ports = vec![PROXY_PORT.to_string(), LOG_PORT.to_string()];
    ports.extend(SERVER_PORTS.map(|port| port.to_string()));
    let last = LARGE_FIRST_PORT + LARGE_FRONTENDS - 1;
    ports.push(format!("{LARGE_FIRST_PORT}-{last}"));
    ports.join(",")
}

/// A competitor.
pub struct Subject {
    /// Its name in tables.
    pub name: &'static str,
    /// The version that it reports.
    pub version: String,
    /// Its configuration, for the record.
    pub config: String,
    kind: Kind,
    /// HAProxy's tuning.
    tuning: Tuning,
    setting: Setting,
    binary: PathBuf,
    cores: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Direct,
    Rlb,
    Haproxy,
    Nginx,
}

impl Subject {
    /// All subjects that this machine has. HAProxy is the one of `HAPROXY_BIN`, or Debian's.
    pub fn all(rlb: Option<PathBuf>, cores: usize) -> Result<Vec<Self>> {
        let rlb = match rlb {
            Some(path) => path,
            None => build_rlb()?,
        }
        .canonicalize()
        .context("no such rlb")?;
        let haproxy = std::env::var_os("HAPROXY_BIN")
            .map_or_else(|| PathBuf::from("/usr/sbin/haproxy"), PathBuf::from);
        let haproxy = haproxy.canonicalize().unwrap_or(haproxy);
        let nginx = PathBuf::from("/usr/sbin/nginx");
        let make = |name, kind, binary: &Path, tuning: Tuning| -> Result<Self> {
            let version = version(kind, binary)?;
            let plain = Self {
                name,
                version,
                config: String::new(),
                kind,
                tuning,
                setting: PLAIN,
                binary: binary.to_owned(),
                cores,
            };
            Ok(plain.with_config(plain.written()))
        };
        let splice = "  option splice-auto\n";
        let tuned_global = "  maxpipes 400\n  expose-experimental-directives\n  tune.bufsize 65536\n  tune.pipesize 262144\n  tune.fd.edge-triggered on\n";
        let tuned = "  option splice-auto\n  option tcp-smart-accept\n  option tcp-smart-connect\n";
        let mut all = vec![make("rlb", Kind::Rlb, &rlb, ("", ""))?];
        if haproxy.exists() {
            for (name, global, defaults) in [
                (BASE, tuned_global, tuned),
                (BETWEEN, "  maxpipes 400\n", splice),
                ("haproxy default", "", ""),
            ] {
                all.push(make(name, Kind::Haproxy, &haproxy, (global, defaults))?);
            }
        }
        if nginx.exists() {
            all.push(make("nginx", Kind::Nginx, &nginx, ("", ""))?);
        }
        all.push(Self::direct());
        Ok(all)
    }

    /// No proxy.
    pub fn direct() -> Self {
        Self {
            name: "direct",
            version: String::new(),
            config: String::new(),
            kind: Kind::Direct,
            tuning: ("", ""),
            setting: PLAIN,
            binary: PathBuf::new(),
            cores: 1,
        }
    }

    /// Whether it is a proxy, not a direct connection.
    pub fn is_proxy(&self) -> bool {
        self.kind != Kind::Direct
    }

    /// The same with another configuration; `@DIR@` in it is its folder.
    pub fn with_config(&self, config: String) -> Self {
        Self {
            name: self.name,
            version: self.version.clone(),
            config,
            kind: self.kind,
            tuning: self.tuning,
            setting: self.setting,
            binary: self.binary.clone(),
            cores: self.cores,
        }
    }

    /// Whether a setting changes its configuration.
    pub fn has_settings(&self) -> bool {
        matches!(self.kind, Kind::Rlb | Kind::Haproxy)
    }

    /// The same with another setting.
    pub fn with_setting(&self, setting: Setting) -> Self {
        let other = Self {
            setting,
            ..self.with_config(String::new())
        };
        other.with_config(other.written())
    }

    /// Its configuration as its setting asks for it.
    fn written(&self) -> String {
        match self.kind {
            Kind::Rlb => config::rlb(self.cores, &self.setting),
            Kind::Haproxy => config::haproxy(self.cores, self.tuning, &self.setting),
            Kind::Nginx => config::nginx(self.cores),
            Kind::Direct => String::new(),
        }
    }

    /// Its program; `None` for a direct connection.
    pub fn binary(&self) -> Option<&Path> {
        self.is_proxy().then_some(&self.binary)
    }

    /// Starts it and waits until it serves.
    pub fn start(&self) -> Result<Running> {
        self.start_with(None)
    }

    /// Starts it under callgrind, which writes its counts to `counts` when the proxy ends.
    pub fn start_under_callgrind(&self, counts: &Path) -> Result<Running> {
        self.start_with(Some(counts))
    }

    fn start_with(&self, counts: Option<&Path>) -> Result<Running> {
        interrupt::check()?;
        if !self.is_proxy() {
            let target = SocketAddr::from(([127, 0, 0, 1], SERVER_PORTS[0]));
            return Ok(Running {
                target,
                child: None,
                dir: None,
            });
        }
        let dir = std::env::temp_dir().join(format!("rlb-compare-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let file = dir.join("config");
        fs::write(
            &file,
            self.config.replace("@DIR@", &dir.display().to_string()),
        )?;
        let mut command = pinned(&(0..self.cores).collect::<Vec<_>>());
        if let Some(counts) = counts {
            callgrind::count_into(&mut command, counts);
        }
        command.arg(&self.binary);
        match self.kind {
            Kind::Rlb => command
                .args(["run", "--log-level", "error", "--config"])
                .arg(&file),
            Kind::Haproxy => command.args(["-db", "-f"]).arg(&file),
            Kind::Nginx => command.arg("-c").arg(&file).arg("-p").arg(&dir),
            Kind::Direct => &mut command,
        };
        let log = fs::File::create(dir.join("output"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let running = Running {
            target: SocketAddr::from(([127, 0, 0, 1], PROXY_PORT)),
            child: Some(
                command
                    .spawn()
                    .with_context(|| format!("cannot start {}", self.name))?,
            ),
            dir: Some(dir.clone()),
        };
        let announced = self.setting.proxy_header;
        let serves = wait_until(self.name, || Ok(echoes(running.target, announced)));
        serves.with_context(|| fs::read_to_string(dir.join("output")).unwrap_or_default())?;
        Ok(running)
    }
}

/// A command that runs on these cores.
fn pinned(cores: &[usize]) -> Command {
    let list: Vec<String> = cores.iter().map(ToString::to_string).collect();
    let mut command = Command::new("taskset");
    command.args(["-c", &list.join(",")]);
    command
}

/// This program on the cores that the proxies do not use (on all, when they use all).
pub fn beside(cores: usize) -> Result<Command> {
    let all = std::thread::available_parallelism()?.get();
    let free: Vec<usize> = if cores < all {
        (cores..all).collect()
    } else {
        (0..all).collect()
    };
    let mut command = pinned(&free);
    command.arg(std::env::current_exe()?);
    Ok(command)
}

/// Whether a byte comes back, after a PROXY header if one is announced.
fn echoes(target: SocketAddr, announced: bool) -> bool {
    let try_once = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(target)?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        if announced {
            let client = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
            stream.write_all(&proxy_header::of(client, client))?;
        }
        stream.write_all(&Request::Echo.header())?;
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])
    };
    try_once().is_ok()
}

/// A running competitor; ended when dropped.
pub struct Running {
    /// Where to connect.
    pub target: SocketAddr,
    child: Option<Child>,
    dir: Option<PathBuf>,
}

impl Running {
    /// Its output so far, for reporting a failure.
    pub fn output(&self) -> String {
        let file = self.dir.as_ref().map(|dir| dir.join("output"));
        file.and_then(|file| fs::read_to_string(file).ok())
            .unwrap_or_default()
    }

    /// Its statistics now. Only a configuration with a setting has the socket for them.
    pub fn statistics(&self) -> Result<Statistics> {
        let dir = self.dir.as_ref().context("a proxy has a folder")?;
        Statistics::read(&dir.join("admin.sock"))
    }

    /// Its processes; none for a direct connection.
    pub fn pids(&self) -> Vec<u32> {
        let Some(child) = &self.child else {
            return Vec::new();
        };
        let mut pids = vec![child.id()];
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        pids.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
        pids
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let pid = rustix::process::Pid::from_child(child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            if wait_until("the end", || Ok(child.try_wait()?.is_some())).is_err() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if let Some(dir) = &self.dir {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

/// The servers behind the proxies, and the log sink.
pub struct Servers {
    child: Child,
    log: UdpSocket,
}

impl Servers {
    /// Starts them.
    pub fn start(cores: usize) -> Result<Self> {
        let mut child = beside(cores)?
            .arg("serve")
            .args(SERVER_PORTS.map(|port| port.to_string()))
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "ready\n", "the servers did not start");
        let log = UdpSocket::bind(("127.0.0.1", LOG_PORT))?;
        log.set_nonblocking(true)?;
        Ok(Self { child, log })
    }

    /// Takes the log lines that wait, and says how many they were.
    pub fn take_lines(&self) -> usize {
        let mut line = [0; 2048];
        std::iter::from_fn(|| self.log.recv(&mut line).ok()).count()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn build_rlb() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let status = Command::new("cargo")
        .args(["build", "--release", "--quiet", "--bin", "rlb"])
        .current_dir(&root)
        .status()?;
    ensure!(status.success(), "rlb does not build");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/rlb"))
}

fn version(kind: Kind, binary: &Path) -> Result<String> {
    let argument = match kind {
        Kind::Direct => return Ok(String::new()),
        Kind::Rlb => "--version",
        Kind::Haproxy | Kind::Nginx => "-v",
    };
    let output = Command::new(binary)
        .arg(argument)
        .output()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned())
}
