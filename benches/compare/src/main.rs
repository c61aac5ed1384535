//! Compares rlb with HAProxy, nginx and a direct connection under the same load.
//!
//! `cargo run --release --manifest-path benches/compare/Cargo.toml -- --quick` as root: it makes a
//! network namespace of its own, runs there, and prints one table of ratios. The proxy has one core
//! (or `--cores`), the load another. Rounds are interleaved; figures are medians with their range.
//!
//! `… -- instructions` counts instructions instead, in an emulated machine: see `instructions`.

mod instructions;
mod load;
mod measure;
mod report;
mod subject;
mod wire;
mod workload;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::Command;
use subject::Subject;
use workload::{Figures, Workload};

/// The argument that tells the runner that it is inside its namespace.
const INSIDE: &str = "RLB_COMPARE_INSIDE";

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Sub>,
    /// Few rounds and small loads: under two minutes
    #[arg(long, global = true)]
    quick: bool,
    /// Rounds; default 15, with --quick 3; for instructions, which repeat, 2 and 1
    #[arg(long, global = true)]
    rounds: Option<usize>,
    /// Only workloads whose name contains one of these; "=NAME" is the whole name
    #[arg(long, value_name = "WORD", global = true)]
    only: Vec<String>,
    /// Only subjects whose name contains one of these; "=NAME" is the whole name
    #[arg(long, value_name = "WORD", global = true)]
    subjects: Vec<String>,
    /// Worker threads of each proxy, one core each
    #[arg(long, default_value_t = 1)]
    cores: usize,
    /// The rlb to measure; default: target/release/rlb, built when missing
    #[arg(long, global = true)]
    rlb: Option<PathBuf>,
    /// Where results.json and chart.svg go
    #[arg(long, default_value = "target/compare", global = true)]
    out: PathBuf,
}

#[derive(Subcommand)]
enum Sub {
    /// Count every instruction, user and kernel, in an emulated machine; needs no root, but the Debian
    /// packages qemu-system-x86 and busybox-static
    Instructions(instructions::Args),
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
        Some(Sub::Inside { profile }) => {
            measure::raise_nofile()?;
            let workloads = cli.workloads(Workload::counted(cli.quick));
            let rounds = cli.rounds.context("the machine is told its rounds")?;
            return instructions::guest::run(
                cli.subjects(),
                &workloads,
                if *profile { None } else { Some(rounds) },
            );
        }
        None => {}
    }
    if std::env::var_os(INSIDE).is_none() {
        return in_a_namespace();
    }
    compare(&cli)
}

impl Cli {
    /// Those of `all` that the words of the command line leave.
    fn wanted<T>(words: &[String], all: Vec<T>, name: fn(&T) -> &'static str) -> Vec<T> {
        let matches = |word: &String, name: &str| match word.strip_prefix('=') {
            Some(whole) => name == whole,
            None => name.contains(word.as_str()),
        };
        all.into_iter()
            .filter(|one| words.is_empty() || words.iter().any(|word| matches(word, name(one))))
            .collect()
    }

    fn subjects(&self) -> Result<Vec<Subject>> {
        let all = Subject::all(self.rlb.clone(), self.cores)?;
        Ok(Self::wanted(&self.subjects, all, |subject| subject.name))
    }

    fn workloads(&self, all: Vec<Workload>) -> Vec<Workload> {
        Self::wanted(&self.only, all, |workload| workload.name)
    }
}

/// Counts instructions in an emulated machine.
fn count(cli: &Cli, args: &instructions::Args) -> Result<()> {
    ensure!(cli.cores == 1, "the emulated machine has one processor");
    let mut subjects = cli.subjects()?;
    // A direct connection has no proxy to count, and the setting in between tells little.
    if cli.subjects.is_empty() {
        subjects.retain(|subject| subject.name != "haproxy splice");
    }
    subjects.retain(|subject| subject.binary().is_some());
    instructions::run(&instructions::Wanted {
        subjects: &subjects,
        workloads: &cli.workloads(Workload::counted(cli.quick)),
        rounds: cli.rounds.unwrap_or(if cli.quick { 1 } else { 2 }),
        quick: cli.quick,
        args,
        out: &cli.out,
    })
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
        for setting in [
            "net.ipv4.tcp_congestion_control=reno",
            "net.ipv4.ip_local_port_range=1024 65000",
            "net.ipv4.tcp_tw_reuse=1",
        ] {
            ip(&["netns", "exec", &name, "sysctl", "-qw", setting])?;
        }
        let status = Command::new("ip")
            .args(["netns", "exec", &name])
            .arg(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .status()?;
        ensure!(status.success(), "the comparison failed");
        Ok(())
    };
    let result = run();
    ip(&["netns", "del", &name])?;
    result
}

fn compare(cli: &Cli) -> Result<()> {
    measure::raise_nofile()?;
    let rounds = cli.rounds.unwrap_or(if cli.quick { 3 } else { 15 });
    let subjects = cli.subjects()?;
    let workloads = cli.workloads(Workload::all(cli.quick));
    let mut results = report::Results::new(&subjects, cli.cores, rounds, report::machine());
    run_rounds(
        &subjects,
        &workloads,
        (rounds, cli.cores),
        |workload, subject, figures| {
            results.add(workload, subject, figures);
            Ok(())
        },
    )?;
    for workload in &workloads {
        print!("{}", results.table(workload.name));
    }
    results.write(&cli.out)
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
        for round in 0..workload.rounds(rounds) {
            for turn in 0..subjects.len() {
                // Another one begins each round, so that no subject has the same neighbour always.
                let subject = &subjects[(turn + round) % subjects.len()];
                let figures = workload.run(subject, &servers, cores).with_context(|| {
                    format!("{} through {}, round {round}", workload.name, subject.name)
                })?;
                found(workload.name, subject.name, figures)?;
            }
            eprintln!(
                "{} round {} of {}",
                workload.name,
                round + 1,
                workload.rounds(rounds)
            );
        }
    }
    Ok(())
}
