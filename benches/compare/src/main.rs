//! Compares rlb with HAProxy, nginx and a direct connection under the same load.
//!
//! `cargo run --release --manifest-path benches/compare/Cargo.toml -- --quick` as root: it makes a
//! network namespace of its own, runs there, and prints one table of ratios. The proxy has one core
//! (or `--cores`), the load another. Rounds are interleaved; figures are medians with their range.
//! `growth` instead tells what one more costs when there are many.

#[path = "../../instructions/callgrind.rs"]
mod callgrind;
mod growth;
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
use workload::Workload;

/// The argument that tells the runner that it is inside its namespace.
const INSIDE: &str = "RLB_COMPARE_INSIDE";

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Sub>,
    /// Few rounds and small loads: under two minutes
    #[arg(long, global = true)]
    quick: bool,
    /// Rounds; default 15, with --quick 3
    #[arg(long, global = true)]
    rounds: Option<usize>,
    /// Only workloads, or sections of growth, whose name contains one of these
    #[arg(long, global = true, value_name = "WORD")]
    only: Vec<String>,
    /// Only subjects whose name contains one of these
    #[arg(long, value_name = "WORD")]
    subjects: Vec<String>,
    /// Worker threads of each proxy, one core each
    #[arg(long, default_value_t = 1)]
    cores: usize,
    /// The rlb to measure; default: target/release/rlb, built when missing
    #[arg(long, global = true)]
    rlb: Option<PathBuf>,
    /// Where results.json and chart.svg go, or growth.json
    #[arg(long, global = true, default_value = "target/compare")]
    out: PathBuf,
}

#[derive(Subcommand)]
enum Sub {
    /// What one more costs when there are many: sessions, servers, frontends
    Growth,
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
    match cli.command {
        Some(Sub::Load(args)) => return load::run(&args),
        Some(Sub::Serve { ports }) => return load::serve(&ports),
        Some(Sub::Growth) | None => {}
    }
    if std::env::var_os(INSIDE).is_none() {
        return in_a_namespace();
    }
    measure::raise_nofile()?;
    match cli.command {
        Some(Sub::Growth) => growth::run(&cli),
        _ => compare(&cli),
    }
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
    let rounds = cli.rounds.unwrap_or(if cli.quick { 3 } else { 15 });
    let wanted = |words: &[String], name: &str| {
        words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))
    };
    let subjects: Vec<Subject> = Subject::all(cli.rlb.clone(), cli.cores)?
        .into_iter()
        .filter(|subject| wanted(&cli.subjects, subject.name))
        .collect();
    let workloads: Vec<Workload> = Workload::all(cli.quick)
        .into_iter()
        .filter(|workload| wanted(&cli.only, workload.name))
        .collect();
    let servers = subject::Servers::start(cli.cores)?;
    let mut results = report::Results::new(&subjects, cli.cores, rounds);
    for workload in &workloads {
        for round in 0..workload.rounds(rounds) {
            for turn in 0..subjects.len() {
                // Another one begins each round, so that no subject has the same neighbour always.
                let subject = &subjects[(turn + round) % subjects.len()];
                let figures = workload
                    .run(subject, &servers, cli.cores)
                    .with_context(|| {
                        format!("{} through {}, round {round}", workload.name, subject.name)
                    })?;
                results.add(workload.name, subject.name, figures);
            }
            eprintln!(
                "{} round {} of {}",
                workload.name,
                round + 1,
                workload.rounds(rounds)
            );
        }
        print!("{}", results.table(workload.name));
    }
    results.write(&cli.out)
}
