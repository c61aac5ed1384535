//! The part of [`super`] that runs inside the emulated machine: what its image contains, and the rounds. It
//! runs them after `clock` has tested that time counts instructions, and writes its results as lines of JSON.

use super::clock;
use super::image::Image;
use super::wanted::Wanted;
use crate::subject::{self, Subject};
use crate::workload::Workload;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// A line from the guest.
#[derive(Debug, Serialize, Deserialize)]
pub enum Note {
    /// The clock was tested.
    Clock {
        /// The result.
        counted: String,
    },
    /// Figures of one run: workload, subject, figure → value.
    Figures(String, String, BTreeMap<String, f64>),
    /// Where the instructions are: workload, subject, perf's report.
    Profile(String, String, String),
    /// The guest cannot go on.
    Failed(String),
    /// All is done.
    End,
}

/// Programs in the image besides the subjects; busybox has the shell's commands built in.
const BUSYBOX: &str = "/bin/busybox";
/// Counts system calls; optional.
const STRACE: &str = "/usr/bin/strace";
/// Takes samples.
const PERF: &str = "/usr/bin/perf";

/// The image from which the machine boots.
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
    // nginx runs its worker as this user.
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

/// The first process: a shell that sets up the machine and starts this program.
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
         ulimit -n 40000\n\
         {preemption}\
         {haproxy}\
         rlb-compare inside {profile} --rounds {rounds} --cores {threads} {quick} {rlb}{subjects}{only} \
         > /dev/ttyS1 2> /dev/ttyS0 < /dev/null\n\
         $B poweroff -f\n",
        rounds = wanted.rounds,
        threads = wanted.threads,
        reserved = subject::reserved_ports()
    )
}

/// Tests the clock, then runs every workload for the given rounds and writes its figures; without rounds it
/// writes profiles.
pub fn run(
    subjects: Result<Vec<Subject>>,
    workloads: &[Workload],
    threads: usize,
    rounds: Option<usize>,
) -> Result<()> {
    let result = subjects.and_then(|subjects| {
        let counted = clock::check(threads)?;
        note(&Note::Clock { counted })?;
        match rounds {
            Some(rounds) => count(&subjects, workloads, (rounds, threads)),
            None => profile(&subjects, workloads, threads),
        }
    });
    match result {
        Ok(()) => note(&Note::End),
        Err(why) => note(&Note::Failed(format!("{why:#}"))),
    }
}

fn count(
    subjects: &[Subject],
    workloads: &[Workload],
    (rounds, threads): (usize, usize),
) -> Result<()> {
    crate::run_rounds(
        subjects,
        workloads,
        (rounds, threads),
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

fn profile(subjects: &[Subject], workloads: &[Workload], threads: usize) -> Result<()> {
    let _servers = subject::Servers::start(threads)?;
    for workload in workloads {
        for subject in subjects {
            if let Some(text) = workload.profile(subject, threads)? {
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
