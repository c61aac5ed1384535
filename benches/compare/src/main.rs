//! Compares rlb with HAProxy, nginx and a direct connection under the same load.
//!
//! `cargo run --release --manifest-path benches/compare/Cargo.toml -- --quick` as root: it makes a
//! network namespace of its own, runs there, and prints one table of ratios. The proxy has one core
//! (or `--cores`), the load another. Rounds are interleaved; figures are medians with their range.
//!
//! Subcommands: `… -- growth` measures how costs grow with the number of sessions and other objects (see
//! `growth`), `… -- instructions` counts instructions, user and kernel, in an emulated machine (see
//! `emulated`), `… -- chart` draws the results of several runs. `callgrind` counts instructions in user space,
//! in the comparison and in `growth`.

#[path = "../../instructions/callgrind.rs"]
mod callgrind;
mod chart;
mod cli;
mod emulated;
mod growth;
mod interrupt;
mod load;
mod measure;
mod proxy_header;
mod report;
mod results;
mod serve;
mod subject;
mod wire;
mod workload;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use cli::{Cli, Sub};
use results::Results;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;
use subject::Subject;
use workload::{Figures, Workload};

/// The environment variable that tells the runner that it is inside its namespace.
const INSIDE: &str = "RLB_COMPARE_INSIDE";

fn main() -> Result<()> {
    let cli = Cli::parse();
    match &cli.command {
        Some(Sub::Load(args)) => return load::run(args),
        Some(Sub::Serve { ports }) => return serve::run(ports),
        Some(Sub::Instructions(args)) => return count(&cli, args),
        Some(Sub::Inside { profile }) => return count_inside(&cli, *profile),
        Some(Sub::Chart { files }) => return draw(files),
        Some(Sub::Growth) | None => {}
    }
    if std::env::var_os(INSIDE).is_none() {
        return in_a_namespace();
    }
    measure::raise_nofile()?;
    interrupt::watch(|| eprintln!("told to stop; what was measured is written first"))?;
    match cli.command {
        Some(Sub::Growth) => growth::run(&cli),
        _ => compare(&cli),
    }
}

/// Counts instructions in an emulated machine.
fn count(cli: &Cli, args: &emulated::Args) -> Result<()> {
    ensure!(cli.cores > 0, "a proxy has a thread at least");
    interrupt::watch(|| eprintln!("told to stop; what was measured is written first"))?;
    let mut subjects = cli.telling_subjects()?;
    // A direct connection has no proxy to count.
    subjects.retain(Subject::is_proxy);
    emulated::run(&emulated::Wanted {
        subjects: &subjects,
        workloads: &cli.workloads(Workload::emulated(cli.quick)),
        rounds: cli.rounds.unwrap_or(if cli.quick { 1 } else { 2 }),
        threads: cli.cores,
        quick: cli.quick,
        args,
        out: &cli.out,
    })
}

/// The part of [`count`] that runs in the machine.
fn count_inside(cli: &Cli, profile: bool) -> Result<()> {
    measure::raise_nofile()?;
    let rounds = cli.rounds.context("the machine is told its rounds")?;
    emulated::guest::run(
        cli.subjects(cli.cores),
        &cli.workloads(Workload::emulated(cli.quick)),
        cli.cores,
        (!profile).then_some(rounds),
    )
}

/// Draws the last of `files` from the others.
fn draw(files: &[PathBuf]) -> Result<()> {
    let (svg, results) = files.split_last().context("clap wants two")?;
    ensure!(
        svg.extension().is_some_and(|extension| extension == "svg"),
        "{} is no .svg to be written",
        svg.display()
    );
    let results: Vec<Results> = results
        .iter()
        .map(|file| Results::read(file))
        .collect::<Result<_>>()?;
    fs::write(svg, chart::svg(&results.iter().collect::<Vec<_>>()))
        .with_context(|| format!("cannot write {}", svg.display()))
}

/// Runs this program again in a network namespace of its own, with one fixed congestion control.
fn in_a_namespace() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "needs root, to make a network namespace"
    );
    let name = format!("rlbcmp{}", std::process::id());
    let ip = |args: &[&str]| -> Result<()> {
        let status = Command::new("ip")
            .args(args)
            .status()
            .context("iproute2 is needed")?;
        ensure!(status.success(), "ip {} failed", args.join(" "));
        Ok(())
    };
    ip(&["netns", "add", &name])?;
    let run = || -> Result<()> {
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        // BBR, the default on some machines, paces loopback. The port range is wide so that ports do not run
        // out.
        let reserved = subject::reserved_ports();
        let reserved = format!("net.ipv4.ip_local_reserved_ports={reserved}");
        for setting in [
            reserved.as_str(),
            "net.ipv4.tcp_congestion_control=reno",
            "net.ipv4.ip_local_port_range=1024 65000",
            "net.ipv4.tcp_tw_reuse=1",
        ] {
            ip(&["netns", "exec", &name, "sysctl", "-qw", setting])?;
        }
        let mut child = Command::new("ip")
            .args(["netns", "exec", &name])
            .arg(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .spawn()?;
        let pid = rustix::process::Pid::from_child(&child);
        interrupt::watch(move || {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        })?;
        let status = child.wait()?;
        ensure!(status.success(), "the comparison failed");
        Ok(())
    };
    let result = run();
    ip(&["netns", "del", &name])?;
    result
}

fn compare(cli: &Cli) -> Result<()> {
    let all = std::thread::available_parallelism()?.get();
    ensure!(
        (1..=all).contains(&cli.cores),
        "this machine has {all} cores"
    );
    let rounds = cli.rounds.unwrap_or(if cli.quick { 2 } else { 15 });
    let subjects = if cli.quick {
        cli.telling_subjects()?
    } else {
        cli.subjects(cli.cores)?
    };
    let workloads = cli.workloads(Workload::all(cli.quick));
    let mut results = Results::new(&subjects, cli.cores, rounds, results::machine());
    results.configured(&workloads, &subjects);
    let measured = run_rounds(
        &subjects,
        &workloads,
        (rounds, cli.cores),
        |workload, subject, figures| {
            results.add(workload, subject, figures);
            report::write(&results, &cli.out)
        },
    );
    // An interrupted run reports what it has.
    for workload in results.workloads() {
        print!("{}", results.table(workload));
    }
    eprintln!("written to {}", cli.out.display());
    measured?;
    let broken = results.sum("rlb", workload::BROKEN);
    ensure!(broken == 0.0, "rlb broke {broken} of what it was given");
    Ok(())
}

/// Runs every workload against every subject, in interleaved rounds, on this many cores.
fn run_rounds(
    subjects: &[Subject],
    workloads: &[Workload],
    (rounds, cores): (usize, usize),
    mut found: impl FnMut(&'static str, &'static str, Figures) -> Result<()>,
) -> Result<()> {
    let servers = subject::Servers::start(cores)?;
    for workload in workloads {
        let rounds = workload.rounds(rounds);
        for round in 0..rounds {
            let begun = Instant::now();
            for turn in 0..subjects.len() {
                // Each round begins with another subject, so that no subject always follows the same one.
                let subject = &subjects[(turn + round) % subjects.len()];
                if !workload.is_for(subject) {
                    continue;
                }
                let figures = workload.run(subject, &servers, cores).with_context(|| {
                    format!("{} through {}, round {round}", workload.name, subject.name)
                })?;
                found(workload.name, subject.name, figures)?;
            }
            eprintln!(
                "{} round {} of {rounds}, {:.1} s",
                workload.name,
                round + 1,
                begun.elapsed().as_secs_f64()
            );
        }
    }
    Ok(())
}
