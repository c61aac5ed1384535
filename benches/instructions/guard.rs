//! The guard of the hot paths: user-space instructions per operation, counted by callgrind and compared with
//! `benches/instructions.toml`. More than 5 % above a bound fails; more than 5 % below asks for a new bound. It
//! counts the release build, because that is the one that is shipped, and the compiler optimises other builds
//! differently (for example inlines other functions). Needs valgrind and nothing else; `tests/run` runs the
//! first line.
//!
//! ```text
//! cargo run --release -p rlb-instructions
//! cargo run --release -p rlb-instructions -- --update     # write new bounds
//! cargo run --release -p rlb-instructions -- --rounds 10  # shows how far counts differ
//! cargo run --release -p rlb-instructions -- session      # only names with this word
//! ```
//!
//! Under the name rlb this program is rlb, so one link-time optimization, which takes minutes, serves both.
//!
//! These figures leave out the kernel's part, and so the cost of system calls: `benches/compare` has it.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program: its figures are its output"
)]

mod bounds;
mod callgrind;
mod check;
mod exercise;
#[path = "../fixture/mod.rs"]
mod fixture;
mod proxy;

use bounds::{Bounds, Verdict};
use proxy::Load;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Where the bounds are.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../instructions.toml");

/// How often a count outside its bound is repeated. The least decides: rlb's periodic work, more of it on a
/// busy machine, can only add.
const DOUBTS: usize = 3;

/// What is counted: name, and how often in the short and the long run.
const COUNTED: [(&str, Kind, u64, u64); 16] = [
    ("check", Kind::Function, 100, 2_100),
    ("counter-add", Kind::Function, 1_000, 101_000),
    ("leastconn-3", Kind::Function, 3_000, 103_000),
    ("leastconn-100", Kind::Function, 3_000, 103_000),
    ("leastconn-1000", Kind::Function, 3_000, 103_000),
    ("pick-3", Kind::Function, 1_000, 101_000),
    ("pick-100", Kind::Function, 1_000, 101_000),
    ("pick-1000", Kind::Function, 1_000, 101_000),
    ("pick-10000", Kind::Function, 1_000, 101_000),
    ("pick-maglev-3", Kind::Function, 1_000, 101_000),
    ("pick-maglev-1000", Kind::Function, 1_000, 101_000),
    ("pick-ewma-3", Kind::Function, 1_000, 101_000),
    ("pick-ewma-1000", Kind::Function, 1_000, 101_000),
    ("round-trip", Kind::Through(Load::RoundTrips), 100, 2_100),
    ("session", Kind::Through(Load::Sessions), 100, 1_100),
    ("turns-64", Kind::Through(Load::Turns), 10, 110),
];

#[derive(Clone, Copy)]
enum Kind {
    /// A function, in a process of this program.
    Function,
    /// Something done through rlb.
    Through(Load),
}

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name() == Some("rlb".as_ref()) {
        return rlb::cli::main();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["exercise", name, times] = words[..] {
        let done = times.parse().is_ok_and(|times| exercise::run(name, times));
        return if done {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    if !callgrind::is_installed() {
        println!("skipped: valgrind is not installed");
        return ExitCode::SUCCESS;
    }
    let result = Options::parse(&words).and_then(|options| guard(&options));
    result.unwrap_or_else(|error| {
        eprintln!("instructions: {error}");
        ExitCode::FAILURE
    })
}

/// What the command line asks for.
struct Options<'a> {
    update: bool,
    rounds: usize,
    only: Vec<&'a str>,
}

impl<'a> Options<'a> {
    fn parse(words: &[&'a str]) -> io::Result<Self> {
        let mut options = Self {
            update: false,
            rounds: 1,
            only: Vec::new(),
        };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            match word {
                "--update" => options.update = true,
                "--rounds" => {
                    let rounds = words.next().and_then(|number| number.parse().ok());
                    options.rounds = rounds
                        .filter(|&rounds| rounds > 0)
                        .ok_or_else(|| io::Error::other("--rounds needs a number from 1 on"))?;
                }
                _ if word.starts_with('-') => {
                    return Err(io::Error::other(format!("no such option: {word}")));
                }
                _ => options.only.push(word),
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word))
    }
}

fn guard(options: &Options) -> io::Result<ExitCode> {
    let mut bounds = Bounds::read(FILE)?;
    let profile = profile()?;
    let (mut failed, mut stale) = (false, false);
    println!("instructions in user space per operation, profile {profile}");
    for (name, kind, few, many) in COUNTED {
        if !options.wants(name) {
            continue;
        }
        let once = || cost(name, kind, few, many);
        let mut counts = (0..options.rounds)
            .map(|_| once())
            .collect::<io::Result<Vec<f64>>>()?;
        let doubtful = |counts: &[f64]| {
            let verdict = bounds.judge(&profile, name, least(counts));
            matches!(verdict, Verdict::Regressed | Verdict::Improved)
        };
        while counts.len() < DOUBTS && (options.update || doubtful(&counts)) {
            counts.push(once()?);
        }
        let count = least(&counts);
        let verdict = bounds.judge(&profile, name, count);
        println!(
            "{}",
            line(name, &counts, bounds.get(&profile, name), verdict)
        );
        failed |= verdict == Verdict::Regressed;
        stale |= verdict == Verdict::Improved;
        if options.update {
            bounds.set(&profile, name, count);
        }
    }
    if options.update {
        std::fs::write(FILE, bounds.text())?;
        println!("written: benches/instructions.toml");
        return Ok(ExitCode::SUCCESS);
    }
    if failed {
        println!("more instructions than the bound allows: make it cheaper, or argue for --update");
    }
    if stale {
        println!("note: cheaper than the bound: keep the gain with --update");
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The profile that this program was built with: the name of its folder.
fn profile() -> io::Result<String> {
    let this = std::env::current_exe()?;
    let folder = this.parent().and_then(Path::file_name).unwrap_or_default();
    Ok(folder.to_string_lossy().into_owned())
}

/// One figure as it is printed.
fn line(name: &str, counts: &[f64], bound: Option<f64>, verdict: Verdict) -> String {
    let count = least(counts);
    let high = counts.iter().copied().fold(0.0, f64::max);
    let range = if counts.len() > 1 {
        format!(" [to {high:.1}]")
    } else {
        String::new()
    };
    let bound = bound.map_or_else(String::new, |bound| {
        let change = (count / bound - 1.0) * 100.0;
        format!(" bound {bound:.1} ({change:+.1} %)")
    });
    let word = match verdict {
        Verdict::Kept => " ok",
        Verdict::Regressed => " REGRESSED",
        Verdict::Improved => " improved",
        Verdict::Unbounded => "",
    };
    format!("{name:<16} {count:>10.1}{range}{bound}{word}")
}

/// Instructions of one more operation.
fn cost(name: &str, kind: Kind, few: u64, many: u64) -> io::Result<f64> {
    let folder = tempfile::tempdir()?;
    let rlb = folder.path().join("rlb");
    std::os::unix::fs::symlink(std::env::current_exe()?, &rlb)?;
    let run = |times: u64| -> io::Result<(u64, u64)> {
        let count = match kind {
            Kind::Function => exercise_counted(name, times, folder.path()),
            Kind::Through(load) => proxy::count(&rlb, load, times, folder.path()),
        }?;
        Ok((times, count))
    };
    Ok(callgrind::slope(run(few)?, run(many)?))
}

/// Runs this program as `exercise` under callgrind.
fn exercise_counted(name: &str, times: u64, folder: &Path) -> io::Result<u64> {
    let mut command = Command::new("env");
    let status = callgrind::count_into(&mut command, folder)
        .arg(std::env::current_exe()?)
        .args(["exercise", name, &times.to_string()])
        .stdin(Stdio::null())
        .status()?;
    if !status.success() {
        return Err(io::Error::other(format!("{name} has failed: {status}")));
    }
    callgrind::take(folder)
}

fn least(counts: &[f64]) -> f64 {
    counts.iter().copied().fold(f64::INFINITY, f64::min)
}
