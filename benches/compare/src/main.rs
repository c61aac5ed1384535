//! Compares rlb with HAProxy, nginx and a direct connection under the same load.
//!
//! `cargo run --release --manifest-path benches/compare/Cargo.toml -- --quick` as root: it makes a
//! network namespace of its own, runs there, and prints one table of ratios. The proxy has one core
//! (or `--cores`), the load another. Rounds are interleaved; figures are medians with their range.
//!
//! More that it does: `… -- growth` tells what one more costs when there are many (see `growth`),
//! `… -- instructions` counts instructions, user and kernel, in an emulated machine (see `emulated`),
//! `… -- chart` draws what several runs have found.
//! Those in user space are counted by `callgrind`, in the comparison and in `growth`.

#[path = "../../instructions/callgrind.rs"]
mod callgrind;
mod chart;
mod emulated;
mod growth;
mod interrupt;
mod load;
mod measure;
mod report;
mod subject;
mod wire;
mod workload;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use report::Results;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;
use subject::Subject;
use workload::{Figures, Workload};

/// The argument that tells the runner that it is inside its namespace.
const INSIDE: &str = "RLB_COMPARE_INSIDE";

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Sub>,
    /// Few rounds and small loads: under two minutes for the comparison. Without "haproxy splice" unless it
    /// is named; user space and stalled readers only of rlb and "haproxy tuned"
    #[arg(long, global = true)]
    quick: bool,
    /// Rounds; default 15, with --quick 2; of growth 5 and 1; for instructions, which repeat, 2 and 1
    #[arg(long, global = true)]
    rounds: Option<usize>,
    /// Only workloads, or sections of growth, whose name contains one of these; "=NAME" is the whole
    /// name
    #[arg(long, value_name = "WORD", global = true)]
    only: Vec<String>,
    /// Only subjects whose name contains one of these; "=NAME" is the whole name
    #[arg(long, value_name = "WORD", global = true)]
    subjects: Vec<String>,
    /// Worker threads of each proxy: one core each, but in the emulated machine, which has one
    #[arg(long, default_value_t = 1, global = true)]
    cores: usize,
    /// The rlb to measure; default: target/release/rlb, built when missing
    #[arg(long, global = true)]
    rlb: Option<PathBuf>,
    /// Where results.json and chart.svg go, or growth.json
    #[arg(long, default_value = "target/compare", global = true)]
    out: PathBuf,
}

#[derive(Subcommand)]
enum Sub {
    /// What one more costs when there are many: sessions, servers, frontends
    Growth,
    /// Count every instruction, user and kernel, in an emulated machine; needs no root, but the Debian
    /// packages qemu-system-x86 and busybox-static
    Instructions(emulated::Args),
    /// Draw a chart of one or several results.json; what two of them have is taken from the first
    Chart {
        /// The results, then the SVG to be written
        #[arg(required = true, num_args = 2..)]
        files: Vec<PathBuf>,
    },
    /// Internal: the side of that in the machine
    #[command(hide = true)]
    Inside {
        /// Profiles in place of figures
        #[arg(long)]
        profile: bool,
    },
    /// Internal: produce load against an address and print what came of it as JSON
    #[command(hide = true)]
    Load(load::Args),
    /// Internal: the servers behind the proxies
    #[command(hide = true)]
    Serve {
        /// Ports on 127.0.0.1
        ports: Vec<u16>,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match &cli.command {
        Some(Sub::Load(args)) => return load::run(args),
        Some(Sub::Serve { ports }) => return load::serve(ports),
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

impl Cli {
    /// Whether these words of the command line, which name everything when there are none, name this.
    fn named(words: &[String], name: &str) -> bool {
        let matches = |word: &String| match word.strip_prefix('=') {
            Some(whole) => name == whole,
            None => name.contains(word.as_str()),
        };
        words.is_empty() || words.iter().any(matches)
    }

    /// The competitors that are wanted, with so many worker threads each.
    fn subjects(&self, cores: usize) -> Result<Vec<Subject>> {
        let mut all = Subject::all(self.rlb.clone(), cores)?;
        all.retain(|subject| Self::named(&self.subjects, subject.name));
        Ok(all)
    }

    /// The same without the one that tells least, unless subjects are named.
    fn telling_subjects(&self) -> Result<Vec<Subject>> {
        let mut subjects = self.subjects(self.cores)?;
        subjects.retain(|subject| !self.subjects.is_empty() || subject.name != subject::BETWEEN);
        Ok(subjects)
    }

    /// Those of `all` that are wanted.
    fn workloads(&self, mut all: Vec<Workload>) -> Vec<Workload> {
        all.retain(|workload| Self::named(&self.only, workload.name));
        all
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

/// The side of [`count`] that is in the machine.
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
        // BBR, which some machines default to, paces loopback; ports must not run out.
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
    let mut results = Results::new(&subjects, cli.cores, rounds, report::machine());
    let measured = run_rounds(
        &subjects,
        &workloads,
        (rounds, cli.cores),
        |workload, subject, figures| {
            results.add(workload, subject, figures);
            results.write(&cli.out)
        },
    );
    // A run that was cut short says what it has.
    for workload in results.workloads() {
        print!("{}", results.table(workload));
    }
    eprintln!("written to {}", cli.out.display());
    measured?;
    let broken = results.sum("rlb", workload::BROKEN);
    ensure!(broken == 0.0, "rlb broke {broken} of what it was given");
    Ok(())
}

/// Runs every workload against every subject, in rounds that take turns, on so many cores.
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
                // Another one begins each round, so that no subject has the same neighbour always.
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
