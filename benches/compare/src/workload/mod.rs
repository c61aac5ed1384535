//! The workloads, and how one is run against one subject.

mod effect;
pub mod integrity;
mod list;
pub mod queue;
mod running;
#[cfg(test)]
mod tests;
pub mod user;

pub use running::Load;

use crate::callgrind;
use crate::measure::{self, Perf, Profile, Strace};
use crate::subject::{Servers, Setting, Subject};
use anyhow::Result;
use std::collections::BTreeMap;

/// Figures of one run, by name with unit.
pub type Figures = BTreeMap<&'static str, f64>;

/// CPU time of the proxy per operation.
pub const CPU: &str = "CPU us/op";
/// Instructions of the proxy per operation, user and kernel: by the processor's counters, where it has them, or
/// by emulation.
pub const INSTRUCTIONS: &str = "instructions/op";
/// Cycles of the proxy per operation, where the processor counts them.
pub const CYCLES: &str = "cycles/op";
/// Instructions of the whole emulated machine per operation: load, proxy and servers.
pub const MACHINE: &str = "machine's instr/op";
/// The busiest thread's share of the proxy's instructions, when it has several workers: how evenly they share
/// the work.
pub const BUSIEST: &str = "busiest thread, %";
/// System calls of the proxy per operation.
pub const CALLS: &str = "syscalls/op";
/// Instructions of the proxy in user space per operation, counted by callgrind.
pub const USER_INSTRUCTIONS: &str = "user instructions/op";
/// Operations in a second.
pub const RATE: &str = "op/s";
/// Median latency of an operation.
pub const P50: &str = "p50 us";
/// Resident bytes of the proxy per connection.
pub const RESIDENT: &str = "RSS bytes/conn";
/// Servers that have had a connection, where the workload has a setting.
pub const USED: &str = "servers used";
/// Most connections that have waited for a server, where the workload limits them.
pub const MOST_QUEUED: &str = "most queued";
/// Bytes lost, wrong or short.
pub const BROKEN: &str = "broken";

/// A workload.
pub struct Workload {
    /// Its name in tables.
    pub name: &'static str,
    arguments: String,
    /// A load that runs first and is not measured, so that the figures leave out the one-time cost of the first
    /// connections.
    warm: Option<String>,
    /// What it changes in the configurations. Only rlb and HAProxy run it then.
    setting: Option<Setting>,
    /// The only subjects that it runs with.
    only: Option<&'static [&'static str]>,
    /// Most rounds: figures that repeat need few.
    most: usize,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// CPU time, instructions, rate and latency.
    Speed,
    /// Instructions, user and kernel, as CPU time of a machine where a nanosecond is an instruction: see
    /// `emulated`.
    Emulated,
    /// System calls.
    Calls,
    /// Instructions in user space, by callgrind.
    User,
    /// Memory of open connections.
    Memory,
    /// Memory of this many clients that wait in the proxy's queue.
    Waiting(u64),
    /// Correct bytes only.
    Integrity,
}

impl Workload {
    fn new(name: &'static str, what: What, arguments: String) -> Self {
        Self {
            name,
            arguments,
            warm: None,
            setting: None,
            only: None,
            most: match what {
                What::Speed | What::Emulated => usize::MAX,
                What::Calls | What::Integrity => 2,
                What::Memory | What::Waiting(_) | What::User => 3,
            },
            what,
        }
    }

    /// How many rounds it runs when `wanted` are asked for.
    pub fn rounds(&self, wanted: usize) -> usize {
        wanted.min(self.most)
    }

    /// Whether it runs with this subject.
    pub fn is_for(&self, subject: &Subject) -> bool {
        self.only.is_none_or(|names| names.contains(&subject.name))
            && (self.setting.is_none() || subject.has_settings())
    }

    /// `subject` with this workload's setting, if it has one.
    fn set(&self, subject: &Subject) -> Subject {
        match self.setting {
            Some(setting) => subject.with_setting(setting),
            None => subject.with_config(subject.config.clone()),
        }
    }

    /// The configuration of `subject`, if this workload changes it.
    pub fn config(&self, subject: &Subject) -> Option<String> {
        let is_changed = self.setting.is_some() && subject.has_settings();
        is_changed.then(|| self.set(subject).config)
    }

    /// A workload with its own load, for CPU time and the rest of [`What::Speed`].
    pub fn speed(arguments: String) -> Self {
        Self::new("", What::Speed, arguments)
    }

    /// Runs it once.
    pub fn run(&self, subject: &Subject, servers: &Servers, cores: usize) -> Result<Figures> {
        if self.what == What::User {
            let mut figures = Figures::new();
            if subject.is_proxy() && callgrind::is_installed() {
                let count = user::instructions(subject, cores, &self.arguments, user::MANY)?;
                figures.insert(USER_INSTRUCTIONS, count);
            }
            return Ok(figures);
        }
        let subject = &self.set(subject);
        if self.setting.is_some_and(|setting| !setting.logs) {
            servers.take_lines();
        }
        let running = subject.start()?;
        let pids = running.pids();
        if let Some(warm) = &self.warm {
            Load::start(warm, &running, cores)?.go()?;
        }
        if matches!(self.what, What::Waiting(_)) {
            // The memory that the statistics take is no client's.
            effect::wait_for_queue(&running, 0)?;
        }
        let rss_before = measure::resident(&pids)?;
        let mut load = Load::start(&self.arguments, &running, cores)?;
        if let What::Waiting(waiting) = self.what {
            effect::wait_for_queue(&running, waiting)?;
        }
        let rss_held = measure::resident(&pids)?;
        let calls = (self.what == What::Calls && !pids.is_empty())
            .then(|| Strace::start(&pids))
            .transpose()?;
        let speed = matches!(self.what, What::Speed | What::Emulated) && !pids.is_empty();
        let perf = if speed && self.what == What::Speed {
            Some(Perf::start(&pids)?)
        } else {
            None
        };
        let cpu_before = measure::settled_cpu_ns(&pids)?;
        let threads_before = measure::threads_ns(&pids)?;
        let outcome = load.go()?;
        let cpu = measure::settled_cpu_ns(&pids)? - cpu_before;
        let counted = perf.map(Perf::stop).transpose()?.flatten();
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
                let per = |count: u64| count as f64 / operations;
                note(
                    INSTRUCTIONS,
                    counted.map(|(instructions, _)| per(instructions)),
                );
                note(CYCLES, counted.map(|(_, cycles)| per(cycles)));
                note(RATE, Some(operations / outcome.seconds));
                note(P50, outcome.p50);
                note("p99 us", outcome.p99);
            }
            What::Emulated => {
                note(INSTRUCTIONS, speed.then(|| cpu as f64 / operations));
                note(MACHINE, Some(outcome.seconds * 1e9 / operations));
                if cores > 1 {
                    let now = measure::threads_ns(&pids)?;
                    note(BUSIEST, measure::busiest_share(&threads_before, &now));
                }
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
            What::Waiting(waiting) => {
                note(
                    RESIDENT,
                    Some(rss_held.saturating_sub(rss_before) as f64 / waiting as f64),
                );
            }
            What::Memory | What::Integrity | What::User => {}
        }
        if let Some(setting) = &self.setting {
            figures.extend(effect::check(setting, &running, servers)?);
        }
        Ok(figures)
    }

    /// Where the proxy spends its time under this load, as text; `None` for a direct connection.
    pub fn profile(&self, subject: &Subject, cores: usize) -> Result<Option<String>> {
        if self.what != What::Emulated || !self.is_for(subject) {
            return Ok(None);
        }
        let running = self.set(subject).start()?;
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
