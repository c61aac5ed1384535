//! What a process has used: CPU time, memory, instructions, system calls.

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a process must be nearly idle to count as quiet.
const QUIET_FOR: Duration = Duration::from_millis(250);

/// How long a process must be idle for its CPU time to count as settled.
const SETTLED_FOR: Duration = Duration::from_millis(10);
/// Longest wait for that.
const SETTLE_MAX: Duration = Duration::from_millis(200);

/// Raises the descriptor limit as far as it goes.
pub fn raise_nofile() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?)
}

/// CPU time of all threads of `pids` in ns, kernel included.
pub fn cpu_ns(pids: &[u32]) -> Result<u64> {
    Ok(threads_ns(pids)?.values().sum())
}

/// The same of each thread, by its ID.
pub fn threads_ns(pids: &[u32]) -> Result<BTreeMap<u32, u64>> {
    let mut threads = BTreeMap::new();
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task")).context("the process has ended")? {
            let task = task?;
            let schedstat = fs::read_to_string(task.path().join("schedstat"))?;
            let ran = schedstat
                .split_whitespace()
                .next()
                .context("schedstat is empty")?;
            let id = task.file_name().to_string_lossy().parse()?;
            threads.insert(id, ran.parse()?);
        }
    }
    Ok(threads)
}

/// The busiest thread's share of the CPU time since `before`, in percent.
pub fn busiest_share(before: &BTreeMap<u32, u64>, now: &BTreeMap<u32, u64>) -> Option<f64> {
    let used = |(id, ran): (&u32, &u64)| ran.saturating_sub(before.get(id).copied().unwrap_or(0));
    let total: u64 = now.iter().map(used).sum();
    let most = now.iter().map(used).max()?;
    (total > 0).then(|| most as f64 * 100.0 / total as f64)
}

/// [`cpu_ns`] once it no longer grows: the proxy has then finished the load's work. The CPU time of a proxy
/// that is never idle (checks, timers) is read after [`SETTLE_MAX`].
pub fn settled_cpu_ns(pids: &[u32]) -> Result<u64> {
    Ok(rest(pids, (SETTLED_FOR, Duration::ZERO), SETTLE_MAX)?.0)
}

/// Waits until `pids` use next to no CPU time, however slow they are: the work that had begun is done. Health
/// checks may go on, under valgrind too.
pub fn wait_until_quiet(pids: &[u32]) -> Result<()> {
    let (_, quiet) = rest(pids, (QUIET_FOR, QUIET_FOR / 10), TIMEOUT)?;
    ensure!(quiet, "not within {TIMEOUT:?}: the proxy is quiet");
    Ok(())
}

/// Reads [`cpu_ns`] once a `window` until at most `tolerated` was used in one, for `timeout` at most. Returns
/// the last value, and whether there was such a window.
fn rest(
    pids: &[u32],
    (window, tolerated): (Duration, Duration),
    timeout: Duration,
) -> Result<(u64, bool)> {
    let deadline = Instant::now() + timeout;
    let mut last = cpu_ns(pids)?;
    loop {
        pause(window);
        let now = cpu_ns(pids)?;
        // A thread that has ended no longer counts in the sum.
        let rests = Duration::from_nanos(now.saturating_sub(last)) <= tolerated;
        if rests || Instant::now() >= deadline {
            return Ok((now, rests));
        }
        last = now;
    }
}

/// Resident bytes of `pids`.
pub fn resident(pids: &[u32]) -> Result<u64> {
    let mut total = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .context("no VmRSS")?;
        let kb: u64 = line
            .split_whitespace()
            .nth(1)
            .context("no figure")?
            .parse()?;
        total += kb * 1024;
    }
    Ok(total)
}

/// `perf stat` on running processes, where the machine has counters.
pub struct Perf(Option<(Child, std::path::PathBuf)>);

impl Perf {
    /// Begins to count instructions and cycles of `pids`, user and kernel.
    pub fn start(pids: &[u32]) -> Result<Self> {
        if !Self::works() {
            return Ok(Self(None));
        }
        let file = std::env::temp_dir().join(format!("rlb-compare-{}.perf", std::process::id()));
        let child = Command::new("perf")
            .args(["stat", "-x,", "-e", "instructions,cycles", "-o"])
            .arg(&file)
            .arg("-p")
            .arg(list(pids))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(Some((child, file))))
    }

    /// Whether this machine counts instructions.
    fn works() -> bool {
        static WORKS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *WORKS.get_or_init(|| {
            let run = Command::new("perf")
                .args(["stat", "-x,", "-e", "instructions", "true"])
                .output();
            run.is_ok_and(|run| {
                run.status.success() && !String::from_utf8_lossy(&run.stderr).contains("<not")
            })
        })
    }

    /// Instructions and cycles; `None` where the machine cannot count.
    pub fn stop(self) -> Result<Option<(u64, u64)>> {
        let Some((mut child, file)) = self.0 else {
            return Ok(None);
        };
        interrupt(&mut child)?;
        let text = fs::read_to_string(&file)?;
        let _ = fs::remove_file(&file);
        Ok(counted(&text, "instructions").zip(counted(&text, "cycles")))
    }
}

/// A count in the output of `perf stat -x,`: value, unit, event, and more. A machine with two kinds of cores
/// has an event for each kind, with `<not counted>` when nothing ran there.
fn counted(text: &str, event: &str) -> Option<u64> {
    let values = text.lines().filter_map(|line| {
        let mut fields = line.split(',');
        let (value, _, name) = (fields.next()?, fields.next()?, fields.next()?);
        name.contains(event).then(|| value.parse::<u64>().ok())?
    });
    values.reduce(|one, other| one + other)
}

/// `strace -c` on running processes.
pub struct Strace(Child, std::path::PathBuf);

impl Strace {
    /// Begins to count the system calls of `pids`.
    pub fn start(pids: &[u32]) -> Result<Self> {
        let file = std::env::temp_dir().join(format!("rlb-compare-{}.calls", std::process::id()));
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(&file);
        for pid in pids {
            command.arg("-p").arg(pid.to_string());
        }
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("strace is needed")?;
        wait_until("strace is attached", || {
            Ok(pids.iter().all(|pid| traced(*pid)))
        })?;
        Ok(Self(child, file))
    }

    /// Calls by name.
    pub fn stop(mut self) -> Result<BTreeMap<String, u64>> {
        interrupt(&mut self.0)?;
        let text = fs::read_to_string(&self.1)?;
        let _ = fs::remove_file(&self.1);
        let mut calls = BTreeMap::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // % time, seconds, usecs/call, calls, [errors], name
            if let [share, _, _, count, .., name] = fields[..]
                && share.parse::<f64>().is_ok()
                && name != "total"
            {
                calls.insert(name.to_owned(), count.parse()?);
            }
        }
        Ok(calls)
    }
}

/// Whether all threads of a process are traced.
fn traced(pid: u32) -> bool {
    let is = |path: std::path::PathBuf| {
        fs::read_to_string(path.join("status")).is_ok_and(|text| !text.contains("TracerPid:\t0"))
    };
    fs::read_dir(format!("/proc/{pid}/task"))
        .is_ok_and(|mut tasks| tasks.all(|task| task.is_ok_and(|task| is(task.path()))))
}

/// `perf record` on running processes, sampled by the clock: where the machine's clock counts instructions,
/// this is a profile of instructions.
pub struct Profile(Child, std::path::PathBuf);

/// Nanoseconds between two samples, for several streams of samples whose shares are averaged. The load is so
/// regular that a single period would hit the same functions again and again.
const PROFILE_EVERY: [u32; 7] = [61_027, 71_993, 83_009, 97_021, 109_037, 127_031, 149_021];
/// Smallest share in percent that a profile shows.
const PROFILE_LIMIT: f64 = 0.3;

impl Profile {
    /// Begins to take samples of `pids`.
    pub fn start(pids: &[u32]) -> Result<Self> {
        let file = std::env::temp_dir().join(format!("rlb-compare-{}.perf", std::process::id()));
        let events = PROFILE_EVERY.map(|period| format!("cpu-clock/period={period}/"));
        let child = Command::new("perf")
            .args(["record", "-q", "-B", "-N", "-e", &events.join(",")])
            // Room for all samples: on one processor perf does not get to run beside a busy load.
            .args(["-g", "--kernel-callchains", "-m", "4096"])
            .args(["-p", &list(pids), "-o"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .context("linux-perf is needed")?;
        let descriptors = format!("/proc/{}/fd", child.id());
        wait_until("perf is attached", || {
            Ok(fs::read_dir(&descriptors)?
                .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
                .any(|target| target.to_string_lossy().contains("perf_event")))
        })?;
        // perf reads the kernel's symbols and modules before it starts sampling.
        settled_cpu_ns(&[child.id()])?;
        Ok(Self(child, file))
    }

    /// Shares in percent: of programs and libraries; of system calls including everything that they call; of
    /// functions.
    pub fn stop(mut self) -> Result<String> {
        interrupt(&mut self.0)?;
        let mut calls = self.report(&["--children", "--sort", "sym"])?;
        calls.retain(|(name, _)| name.contains("__x64_sys_"));
        let tables = [
            self.report(&["--no-children", "--sort", "dso"])?,
            calls,
            self.report(&["--no-children", "--sort", "dso,sym"])?,
        ];
        let mut text = String::new();
        for (name, share) in tables.into_iter().flatten() {
            text.push_str(&format!("{share:6.2} %  {name}\n"));
        }
        let _ = fs::remove_file(&self.1);
        Ok(text)
    }

    /// Names with their shares in percent, averaged over the streams of samples, largest first.
    fn report(&self, arguments: &[&str]) -> Result<Vec<(String, f64)>> {
        let report = Command::new("perf")
            .args(["report", "--stdio", "-q", "-g", "none"])
            .args(arguments)
            .arg("-i")
            .arg(&self.1)
            .output()?;
        let why = String::from_utf8_lossy(&report.stderr);
        ensure!(report.status.success(), "perf report: {why}");
        let mut shares: BTreeMap<String, f64> = BTreeMap::new();
        for line in String::from_utf8_lossy(&report.stdout).lines() {
            // The share including callees, if asked for; the function's own share; the name.
            let mut parts = line.rsplit('%').map(str::trim);
            let (Some(name), Some(share)) = (parts.next(), parts.next_back()) else {
                continue;
            };
            if let Ok(share) = share.parse::<f64>() {
                *shares.entry(name.to_owned()).or_default() += share / PROFILE_EVERY.len() as f64;
            }
        }
        let mut shares: Vec<(String, f64)> = shares.into_iter().collect();
        shares.retain(|(_, share)| *share >= PROFILE_LIMIT);
        shares.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        Ok(shares)
    }
}

fn interrupt(child: &mut Child) -> Result<()> {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    child.wait()?;
    Ok(())
}

fn list(pids: &[u32]) -> String {
    pids.iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

/// Lets time pass, for measurements of a given time.
pub fn pause(length: Duration) {
    let since = Instant::now();
    while since.elapsed() < length {
        std::thread::park_timeout(length.saturating_sub(since.elapsed()));
    }
}

/// Polls `done` until it holds.
pub fn wait_until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while !done()? {
        ensure!(Instant::now() < deadline, "not within {TIMEOUT:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_by_event() {
        let text = "# started on Sun Nov 22\n\n\
            4521882,,instructions,9023331,100.00,0.72,insn per cycle\n\
            6233122,,cycles,9023331,100.00,,\n";
        assert_eq!(counted(text, "instructions"), Some(4_521_882));
        assert_eq!(counted(text, "cycles"), Some(6_233_122));
        let hybrid = "<not counted>,,cpu_atom/cycles/,0,0.00,,\n700,,cpu_core/cycles/,9,100.00,,\n";
        assert_eq!(counted(hybrid, "cycles"), Some(700));
        assert_eq!(
            counted("<not supported>,,cycles,0,100.00,,\n", "cycles"),
            None
        );
    }
}
