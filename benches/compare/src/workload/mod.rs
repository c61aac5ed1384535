//! The workloads, and running one against one subject.

pub mod integrity;
pub mod user;

use crate::callgrind;
use crate::load::Outcome;
use crate::measure::{self, Perf, Strace};
use crate::subject::{Running, Servers, Subject, beside};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

/// Figures of one run, by name with unit.
pub type Figures = BTreeMap<&'static str, f64>;

/// CPU time of the proxy per operation.
pub const CPU: &str = "CPU us/op";
/// Instructions of the proxy per operation, user and kernel.
pub const INSTRUCTIONS: &str = "instructions/op";
/// System calls of the proxy per operation.
pub const CALLS: &str = "syscalls/op";
/// Instructions of the proxy in user space per operation, counted by callgrind.
pub const USER_INSTRUCTIONS: &str = "user instructions/op";
/// Operations in a second.
pub const RATE: &str = "op/s";
/// Resident bytes of the proxy per connection.
pub const RESIDENT: &str = "RSS bytes/conn";
/// Bytes lost, wrong or short.
pub const BROKEN: &str = "broken";

/// A workload.
pub struct Workload {
    /// Its name in tables.
    pub name: &'static str,
    arguments: String,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// CPU time, instructions, rate and latency.
    Speed,
    /// System calls.
    Calls,
    /// Instructions in user space.
    User,
    /// Memory of connections that are held.
    Memory,
    /// Bytes only.
    Integrity,
}

impl Workload {
    /// All workloads; with `quick` small ones.
    pub fn all(quick: bool) -> Vec<Self> {
        let few = |n: u64| if quick { n / 8 } else { n };
        let make = |name, what, arguments: String| Self {
            name,
            arguments,
            what,
        };
        let ping = |connections: u32, idle: u32, size: u32, operations: u64| {
            format!(
                "--kind ping --connections {connections} --idle {idle} --size {size} --operations {}",
                few(operations)
            )
        };
        let bulk = |streams: u64, direction: &str| {
            format!(
                "--kind bulk --connections {streams} --direction {direction} --size {}",
                few(4_000_000_000) / streams
            )
        };
        let rate = |n: u64| format!("--kind rate --connections 32 --operations {n}");
        let idle = |n: u64, warm: u64| format!("--kind idle --connections {n} --warm {warm}");
        vec![
            make("short connections", What::Speed, rate(few(40_000))),
            make("short connections, calls", What::Calls, rate(few(8_000))),
            make(
                "short connections, user space",
                What::User,
                "--kind rate --connections 32".into(),
            ),
            make("ping 64 x 64 B", What::Speed, ping(64, 0, 64, 240_000)),
            make(
                "ping 64 x 64 B, calls",
                What::Calls,
                ping(64, 0, 64, 40_000),
            ),
            make(
                "ping 64 x 64 B, user space",
                What::User,
                "--kind ping --connections 64".into(),
            ),
            make("ping 64 x 1 KB", What::Speed, ping(64, 0, 1024, 240_000)),
            make("ping 1000 x 64 B", What::Speed, ping(1000, 0, 64, 240_000)),
            make(
                "ping 100 x 64 B + 1000 idle",
                What::Speed,
                ping(100, 1000, 64, 240_000),
            ),
            make("ping 1 x 64 B", What::Speed, ping(1, 0, 64, 40_000)),
            make("bulk 1 down", What::Speed, bulk(1, "down")),
            make("bulk 1 up", What::Speed, bulk(1, "up")),
            make("bulk 8 down", What::Speed, bulk(8, "down")),
            make("bulk 8 up", What::Speed, bulk(8, "up")),
            make(
                "idle",
                What::Memory,
                idle(if quick { 2000 } else { 9000 }, 0),
            ),
            make(
                "idle after 1 MB",
                What::Memory,
                idle(if quick { 200 } else { 2000 }, 1_000_000),
            ),
            make("integrity", What::Integrity, "--kind integrity".into()),
        ]
    }

    /// How often it is run: what repeats exactly needs no rounds.
    pub fn rounds(&self, wanted: usize) -> usize {
        match self.what {
            What::Speed => wanted,
            What::Calls | What::Integrity => wanted.min(2),
            What::Memory | What::User => wanted.min(3),
        }
    }

    /// One whose load is not in the list, for CPU time and the rest of [`What::Speed`].
    pub fn speed(arguments: String) -> Self {
        Self {
            name: "",
            arguments,
            what: What::Speed,
        }
    }

    /// Runs it once.
    pub fn run(&self, subject: &Subject, _servers: &Servers, cores: usize) -> Result<Figures> {
        if self.what == What::User {
            let mut figures = Figures::new();
            if subject.is_proxy() && callgrind::is_installed() {
                let count = user::instructions(subject, cores, &self.arguments, user::MANY)?;
                figures.insert(USER_INSTRUCTIONS, count);
            }
            return Ok(figures);
        }
        let running = subject.start()?;
        let pids = running.pids();
        let rss_before = measure::resident(&pids)?;
        let mut load = Load::start(&self.arguments, &running, cores)?;
        let rss_held = measure::resident(&pids)?;
        let calls = (self.what == What::Calls && !pids.is_empty())
            .then(|| Strace::start(&pids))
            .transpose()?;
        let speed = self.what == What::Speed && !pids.is_empty();
        let perf = if speed {
            Some(Perf::start(&pids)?)
        } else {
            None
        };
        let cpu_before = measure::cpu_ns(&pids)?;
        let outcome = load.go()?;
        let cpu = measure::cpu_ns(&pids)? - cpu_before;
        let instructions = perf.map(Perf::stop).transpose()?.flatten();
        let calls = calls.map(Strace::stop).transpose()?;

        let mut figures = Figures::from([(BROKEN, outcome.broken as f64)]);
        let operations = outcome.operations;
        let mut note = |name, value: Option<f64>| {
            if let Some(value) = value {
                figures.insert(name, value);
            }
        };
        match self.what {
            What::Speed => {
                note(CPU, speed.then(|| cpu as f64 / 1000.0 / operations));
                note(
                    INSTRUCTIONS,
                    instructions.map(|count| count as f64 / operations),
                );
                note(RATE, Some(operations / outcome.seconds));
                note("p50 us", outcome.p50);
                note("p99 us", outcome.p99);
            }
            What::Calls => {
                note(
                    CALLS,
                    calls.map(|c| c.values().sum::<u64>() as f64 / operations),
                );
            }
            What::Memory if !pids.is_empty() => {
                note(
                    RESIDENT,
                    Some(rss_held.saturating_sub(rss_before) as f64 / operations),
                );
            }
            What::Memory | What::Integrity | What::User => {}
        }
        Ok(figures)
    }
}

/// A running load.
pub struct Load {
    child: std::process::Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Load {
    /// Starts it and waits until everything is connected.
    pub fn start(arguments: &str, running: &Running, cores: usize) -> Result<Self> {
        let mut child = beside(cores)?
            .arg("load")
            .args(["--target", &running.target.to_string()])
            .args(arguments.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        ensure!(line == "begin\n", "the load did not begin");
        Ok(Self { child, stdout })
    }

    /// Lets it go, and waits for what comes of it.
    pub fn go(&mut self) -> Result<Outcome> {
        self.child
            .stdin
            .take()
            .context("stdin is piped")?
            .write_all(b"go\n")?;
        let mut text = String::new();
        self.stdout.read_to_string(&mut text)?;
        ensure!(self.child.wait()?.success(), "the load failed");
        Ok(serde_json::from_str(&text)?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
