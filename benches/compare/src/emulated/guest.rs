//! The side of [`super`] that is inside the emulated machine: what is packed into it, the check that
//! its clock counts instructions, and the rounds. What it finds it writes as lines of JSON.

use super::Wanted;
use super::image::Image;
use crate::subject::{self, Subject};
use crate::workload::Workload;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

/// A line from the guest.
#[derive(Debug, Serialize, Deserialize)]
pub enum Note {
    /// The clock was tried.
    Clock {
        /// What came of it.
        counted: String,
    },
    /// Figures of one run: workload, subject, figure → value.
    Figures(String, String, BTreeMap<String, f64>),
    /// Where the instructions are: workload, subject, what perf reports.
    Profile(String, String, String),
    /// It cannot go on.
    Failed(String),
    /// All is done.
    End,
}

/// Turns of the loop that tries the clock.
const TURNS: u64 = 20_000_000;
/// Largest difference between two runs of the same loop: the timer's interrupts.
const DIFFERENCE_MAX: f64 = 0.005;

/// Programs that the image has beside the competitors. Those of busybox are built into it.
const BUSYBOX: &str = "/bin/busybox";
/// Counts system calls, when it is there.
const STRACE: &str = "/usr/bin/strace";
/// Takes samples.
const PERF: &str = "/usr/bin/perf";

/// Everything that the machine boots into.
pub fn image(wanted: &Wanted) -> Result<Vec<u8>> {
    let mut image = Image::default();
    for folder in [
        "/proc",
        "/sys",
        "/dev",
        "/tmp",
        "/var/log/nginx",
        "/var/lib/nginx",
    ] {
        image.folder(folder);
    }
    image.file("/init", 0o755, init(wanted).into_bytes());
    // nginx changes to this user.
    let users = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
    image.file("/etc/passwd", 0o644, users.into());
    let groups = "root:x:0:\nnogroup:x:65534:\n";
    image.file("/etc/group", 0o644, groups.into());
    ensure!(
        Path::new(BUSYBOX).exists(),
        "needs the package busybox-static"
    );
    image.program(Path::new(BUSYBOX), Path::new(BUSYBOX))?;
    image.program(&std::env::current_exe()?, Path::new("/bin/rlb-compare"))?;
    for program in ["/usr/bin/taskset", STRACE, subject::NGINX_STREAM] {
        if Path::new(program).exists() {
            image.program(Path::new(program), Path::new(program))?;
        }
    }
    if wanted.args.profile {
        image.program(Path::new(PERF), Path::new(PERF))?;
    }
    for subject in wanted.subjects {
        if let Some(binary) = subject.binary() {
            image.program(binary, binary)?;
        }
    }
    Ok(image.finish())
}

/// The first process: a shell that sets the machine up and starts this program.
fn init(wanted: &Wanted) -> String {
    let binary = |name: &str| {
        let of = |subject: &&Subject| subject.name.starts_with(name);
        let subject = wanted.subjects.iter().find(of)?;
        Some(subject.binary()?.display().to_string())
    };
    let rlb = binary("rlb").map_or_else(String::new, |path| format!("--rlb '{path}'"));
    let haproxy =
        binary("haproxy").map_or_else(String::new, |path| format!("export HAPROXY_BIN='{path}'\n"));
    let profile = if wanted.args.profile { "--profile" } else { "" };
    let preemption = if wanted.args.preemption {
        ""
    } else {
        "$B mount -t debugfs none /sys/kernel/debug\n\
         echo NO_WAKEUP_PREEMPTION > /sys/kernel/debug/sched/features || exit\n"
    };
    let exact = |flag: &str, names: Vec<&str>| -> String {
        names
            .iter()
            .map(|name| format!(" {flag} '={name}'"))
            .collect()
    };
    let subjects = exact(
        "--subjects",
        wanted.subjects.iter().map(|s| s.name).collect(),
    );
    let only = exact("--only", wanted.workloads.iter().map(|w| w.name).collect());
    let quick = if wanted.quick { "--quick" } else { "" };
    format!(
        "#!{BUSYBOX} sh\n\
         export PATH=/bin:/usr/bin:/sbin:/usr/sbin\n\
         B={BUSYBOX}\n\
         $B mount -t proc none /proc\n$B mount -t sysfs none /sys\n$B mount -t devtmpfs none /dev\n\
         $B ip link set lo up\n\
         echo reno > /proc/sys/net/ipv4/tcp_congestion_control\n\
         echo 1024 65000 > /proc/sys/net/ipv4/ip_local_port_range\n\
         echo {reserved} > /proc/sys/net/ipv4/ip_local_reserved_ports\n\
         echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse\n\
         echo 0 > /proc/sys/kernel/perf_cpu_time_max_percent\n\
         ulimit -n 20000\n\
         {preemption}\
         {haproxy}\
         rlb-compare inside {profile} --rounds {rounds} {quick} {rlb}{subjects}{only} \
         > /dev/ttyS1 2> /dev/ttyS0 < /dev/null\n\
         $B poweroff -f\n",
        rounds = wanted.rounds,
        reserved = subject::reserved_ports()
    )
}

/// Tries the clock, then runs every workload so many rounds and writes its figures, or its profile
/// where there are no rounds.
pub fn run(
    subjects: Result<Vec<Subject>>,
    workloads: &[Workload],
    rounds: Option<usize>,
) -> Result<()> {
    let result = subjects.and_then(|subjects| {
        let counted = try_clock()?;
        note(&Note::Clock { counted })?;
        match rounds {
            Some(rounds) => count(&subjects, workloads, rounds),
            None => profile(&subjects, workloads),
        }
    });
    match result {
        Ok(()) => note(&Note::End),
        Err(why) => note(&Note::Failed(format!("{why:#}"))),
    }
}

fn count(subjects: &[Subject], workloads: &[Workload], rounds: usize) -> Result<()> {
    crate::run_rounds(
        subjects,
        workloads,
        (rounds, 1),
        |workload, subject, found| {
            let figures = found.into_iter().map(|(name, value)| (name.into(), value));
            note(&Note::Figures(
                workload.into(),
                subject.into(),
                figures.collect(),
            ))
        },
    )
}

fn profile(subjects: &[Subject], workloads: &[Workload]) -> Result<()> {
    let _servers = subject::Servers::start(1)?;
    for workload in workloads {
        for subject in subjects {
            if let Some(text) = workload.profile(subject, 1)? {
                note(&Note::Profile(
                    workload.name.into(),
                    subject.name.into(),
                    text,
                ))?;
            }
        }
    }
    Ok(())
}

fn note(note: &Note) -> Result<()> {
    println!("{}", serde_json::to_string(note)?);
    Ok(())
}

/// A loop of the same instructions must take the same time always, and twice the time when it runs
/// twice as long: true of a clock that counts, false of one that runs.
fn try_clock() -> Result<String> {
    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let source = fs::read_to_string(source).context("no clock source")?;
    ensure!(
        source.trim() == "tsc",
        "the clock is {}, not tsc",
        source.trim()
    );
    let (first, again, twice) = (turns(TURNS)?, turns(TURNS)?, turns(2 * TURNS)?);
    let differs = |one: f64, other: f64| (one / other - 1.0).abs() > DIFFERENCE_MAX;
    let found = format!(
        "a loop of {TURNS} turns took {first}, {again} ns of CPU time, one of {} {twice} ns",
        2 * TURNS
    );
    ensure!(
        !differs(first, again) && !differs(2.0 * first, twice),
        "the clock does not count instructions: {found}"
    );
    Ok(found)
}

/// CPU time of the loop in ns; the monotonic clock must agree.
fn turns(count: u64) -> Result<f64> {
    let own = [std::process::id()];
    let begun = Instant::now();
    let before = crate::measure::cpu_ns(&own)?;
    for turn in 0..count {
        black_box(turn);
    }
    // A running process' account is brought up to date when it gives the processor away.
    std::thread::park_timeout(std::time::Duration::from_millis(1));
    let took = crate::measure::cpu_ns(&own)? - before;
    let passed = begun.elapsed().as_nanos();
    ensure!(
        passed >= u128::from(took) && passed < u128::from(took) * 11 / 10 + 5_000_000,
        "the clocks differ: {took} ns of CPU time in {passed} ns"
    );
    Ok(took as f64)
}
