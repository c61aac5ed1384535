//! The workloads, and running one against one subject.

pub mod integrity;

use crate::load::Outcome;
use crate::measure::{self, Perf, Profile, Strace};
use crate::subject::{Running, Servers, Subject, beside};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

/// Figures of one run, by name with unit.
pub type Figures = BTreeMap<&'static str, f64>;

/// CPU time of the proxy per operation.
pub const CPU: &str = "CPU us/op";
/// Instructions of the proxy per operation, user and kernel.
pub const INSTRUCTIONS: &str = "instructions/op";
/// Instructions of the whole machine per operation: load, proxy and servers.
pub const MACHINE: &str = "machine's instr/op";
/// System calls of the proxy per operation.
pub const CALLS: &str = "syscalls/op";
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
    /// A load that comes first and is not measured: what the first connections cost once is no
    /// matter where there are few of them.
    warm: Option<String>,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// CPU time, instructions, rate and latency.
    Speed,
    /// CPU time, where a nanosecond of it is an instruction: see `instructions`.
    Counted,
    /// System calls.
    Calls,
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
            warm: None,
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
            make("ping 64 x 64 B", What::Speed, ping(64, 0, 64, 240_000)),
            make(
                "ping 64 x 64 B, calls",
                What::Calls,
                ping(64, 0, 64, 40_000),
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

    /// The workloads whose instructions are counted, of a size for a machine that is emulated: some
    /// 300 million instructions a second for load, proxy and servers together.
    pub fn counted(quick: bool) -> Vec<Self> {
        let few = |n: u64| if quick { n / 2 } else { n };
        let make = |name, what, warm: Option<String>, arguments: String| Self {
            name,
            arguments,
            warm,
            what,
        };
        let rate = |n: u64| format!("--kind rate --connections 32 --operations {n}");
        let ping = |connections: u32, idle: u32, size: u32, operations: u64| {
            format!(
                "--kind ping --connections {connections} --idle {idle} --size {size} --operations {operations}"
            )
        };
        let bulk = |streams: u64, direction: &str, bytes: u64| {
            format!(
                "--kind bulk --connections {streams} --direction {direction} --size {}",
                bytes / streams
            )
        };
        let counted = |name, connections, idle, size, operations| {
            let load = ping(connections, idle, size, few(operations));
            make(name, What::Counted, None, load)
        };
        let moved = |name, streams, direction| {
            let warm = bulk(streams, direction, 16_000_000);
            let load = bulk(streams, direction, few(200_000_000));
            make(name, What::Counted, Some(warm), load)
        };
        vec![
            make(
                "short connections",
                What::Counted,
                Some(rate(200)),
                rate(few(2_000)),
            ),
            make("short connections, calls", What::Calls, None, rate(400)),
            counted("ping 64 x 64 B", 64, 0, 64, 10_000),
            make(
                "ping 64 x 64 B, calls",
                What::Calls,
                None,
                ping(64, 0, 64, 3_000),
            ),
            counted("ping 64 x 1 KB", 64, 0, 1024, 10_000),
            counted("ping 1000 x 64 B", 1000, 0, 64, 10_000),
            counted("ping 100 x 64 B + 1000 idle", 100, 1000, 64, 10_000),
            counted("ping 1 x 64 B", 1, 0, 64, 5_000),
            make(
                "ping 1 x 64 B, calls",
                What::Calls,
                None,
                ping(1, 0, 64, 1_000),
            ),
            moved("bulk 1 down", 1, "down"),
            moved("bulk 1 up", 1, "up"),
            moved("bulk 8 down", 8, "down"),
            moved("bulk 8 up", 8, "up"),
        ]
    }

    /// How often it is run: what repeats exactly needs no rounds.
    pub fn rounds(&self, wanted: usize) -> usize {
        match self.what {
            What::Speed | What::Counted => wanted,
            What::Calls | What::Integrity => wanted.min(2),
            What::Memory => wanted.min(3),
        }
    }

    /// Runs it once.
    pub fn run(&self, subject: &Subject, _servers: &Servers, cores: usize) -> Result<Figures> {
        let running = subject.start()?;
        let pids = running.pids();
        if let Some(warm) = &self.warm {
            Load::start(warm, &running, cores)?.go()?;
        }
        let rss_before = measure::resident(&pids)?;
        let mut load = Load::start(&self.arguments, &running, cores)?;
        let rss_held = measure::resident(&pids)?;
        let calls = (self.what == What::Calls && !pids.is_empty())
            .then(|| Strace::start(&pids))
            .transpose()?;
        let speed = matches!(self.what, What::Speed | What::Counted) && !pids.is_empty();
        let perf = if speed && self.what == What::Speed {
            Some(Perf::start(&pids)?)
        } else {
            None
        };
        let cpu_before = measure::settled_cpu_ns(&pids)?;
        let outcome = load.go()?;
        let cpu = measure::settled_cpu_ns(&pids)? - cpu_before;
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
            What::Counted => {
                note(INSTRUCTIONS, speed.then(|| cpu as f64 / operations));
                note(MACHINE, Some(outcome.seconds * 1e9 / operations));
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
            What::Memory | What::Integrity => {}
        }
        Ok(figures)
    }

    /// Where the proxy spends its time under this load, as text; `None` where there is none to see.
    pub fn profile(&self, subject: &Subject, cores: usize) -> Result<Option<String>> {
        if self.what != What::Counted {
            return Ok(None);
        }
        let running = subject.start()?;
        let pids = running.pids();
        if let Some(warm) = &self.warm {
            Load::start(warm, &running, cores)?.go()?;
        }
        let mut load = Load::start(&self.arguments, &running, cores)?;
        measure::settled_cpu_ns(&pids)?;
        let profile = Profile::start(&pids)?;
        load.go()?;
        profile.stop().map(Some)
    }
}

/// A running load.
struct Load {
    child: std::process::Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Load {
    /// Starts it and waits until everything is connected.
    fn start(arguments: &str, running: &Running, cores: usize) -> Result<Self> {
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

    /// Lets it go, and waits for what comes of it. What is connected stays so until it is dropped.
    fn go(&mut self) -> Result<Outcome> {
        let stdin = self.child.stdin.as_mut().context("stdin is piped")?;
        stdin.write_all(b"go\n")?;
        let mut text = String::new();
        self.stdout.read_line(&mut text)?;
        serde_json::from_str(&text).context("the load failed")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
