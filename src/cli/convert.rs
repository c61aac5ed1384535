//! `rlb convert`: a configuration of HAProxy's → one of rlb's on standard output, and what became of
//! each statement on standard error.
//!
//! Runs on the main thread and ends. Looks up the names of binds and log targets, and touches no
//! other network.

use super::EXIT_CONFIG;
use crate::config::InputFiles;
use crate::convert::{self, Conversion, HaproxyFiles, Input, NoListener, Options, Outcome, Report};
use clap::ValueEnum;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code of a wrong command line, as clap's.
const EXIT_USAGE: u8 = 2;

/// Arguments of `rlb convert`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration files of HAProxy's, or directories whose `.cfg` files are read in the order of
    /// their names
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    how: How,
    /// How to print what became of each statement
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Print the statements that were kept too
    #[arg(short, long)]
    verbose: bool,
}

/// Files of HAProxy's instead of one of rlb's.
#[derive(Debug, clap::Args)]
pub(super) struct HaproxyArgs {
    /// Take these files of HAProxy's, or directories of them, as `rlb convert` makes a configuration of
    /// them; a reload reads the same files again
    #[arg(long, value_name = "FILE", num_args = 1..)]
    haproxy: Vec<PathBuf>,
    #[command(flatten)]
    how: How,
}

impl HaproxyArgs {
    /// Refuses options about files that are not given.
    pub(super) fn judge(&self) -> Result<(), ExitCode> {
        if self.haproxy.is_empty() && self.how.options() != Options::default() {
            eprintln!("rlb: the options for files of HAProxy's need `--haproxy FILE`");
            return Err(ExitCode::from(EXIT_USAGE));
        }
        Ok(())
    }

    /// The files; `None`: none of HAProxy's are given.
    pub(super) fn files(&self) -> Option<HaproxyFiles> {
        (!self.haproxy.is_empty()).then(|| HaproxyFiles {
            paths: self.haproxy.clone(),
            more: None,
            options: self.how.options(),
        })
    }

    /// Where the configuration comes from; `None`: from no file of HAProxy's.
    pub(super) fn input(&self) -> Option<InputFiles> {
        self.files().map(|files| files.input())
    }
}

/// Most statements that a start tells of.
const TOLD_MAX: usize = 100;

/// Tells in events what is not as it is in HAProxy.
pub(super) fn tell(report: &Report) {
    let told = report
        .entries
        .iter()
        .filter(|entry| matches!(entry.outcome, Outcome::Unsupported | Outcome::Dropped));
    for entry in told.take(TOLD_MAX) {
        let place = entry.at.map_or_else(String::new, |at| report.place(at));
        let (keyword, text, outcome) = (&entry.keyword, &entry.text, entry.outcome.text());
        tracing::warn!("{place}: {outcome}: {keyword}: {text}");
    }
    tracing::info!(
        summary = report.summary(),
        "configuration of HAProxy converted"
    );
}

/// How files of HAProxy's are converted.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct How {
    /// Carry over what rlb has only in a weaker form: an HTTP check as a connection
    #[arg(long)]
    allow_degraded: bool,
    /// What to do with HTTP proxies: without it those are carried over, as TCP, that only pass
    /// requests on
    #[arg(long, value_enum, value_name = "WHAT")]
    http: Option<Http>,
    /// Write HAProxy's defaults where the files say nothing, instead of leaving rlb's
    #[arg(long)]
    haproxy_defaults: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Http {
    /// Leave all of them out
    Drop,
}

/// How the report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people, on standard error
    Human,
    /// One JSON object on standard output, with the configuration in it
    Json,
}

impl How {
    pub(super) fn options(self) -> Options {
        Options {
            allow_degraded: self.allow_degraded,
            http_drop: self.http == Some(Http::Drop),
            haproxy_defaults: self.haproxy_defaults,
            frontend_maxconn: None,
            no_listener: NoListener::Refused,
            log_tag: None,
        }
    }
}

/// Converts. 0: carried over, 1: something that changes traffic was not, 78: the files are not valid.
pub(super) fn run(args: &Args) -> ExitCode {
    let inputs = match convert::read(&args.files) {
        Ok(inputs) if inputs.is_empty() => {
            eprintln!("rlb: no file ends in `.cfg` there");
            return ExitCode::from(EXIT_CONFIG);
        }
        Ok(inputs) => inputs,
        Err(why) => {
            eprintln!("rlb: {why}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let Conversion { toml, report, .. } = converted(&inputs, args.how.options());
    // A reader that has seen enough (head) is no failure.
    let _ = match args.format {
        Format::Human => print_human(&toml, &report, args.verbose),
        Format::Json => print_json(&toml, &report),
    };
    if report.failed() {
        ExitCode::from(EXIT_CONFIG)
    } else if report.changes_traffic() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn converted(inputs: &[Input], options: Options) -> Conversion {
    convert::convert(inputs, options, convert::of_this_process())
}

fn print_human(toml: &str, report: &Report, all: bool) -> std::io::Result<()> {
    std::io::stdout().lock().write_all(toml.as_bytes())?;
    let mut out = std::io::stderr().lock();
    out.write_all(report.text(all).as_bytes())?;
    writeln!(out, "{}", report.summary())?;
    if report.failed() {
        writeln!(out, "not valid: what is in error was left out")?;
    } else if report.changes_traffic() {
        writeln!(
            out,
            "not all traffic is carried over; see `rlb convert --help` for what may be allowed"
        )?;
    }
    Ok(())
}

fn print_json(toml: &str, report: &Report) -> std::io::Result<()> {
    let mut object = report.to_json();
    object["toml"] = toml.into();
    writeln!(std::io::stdout(), "{object:#}")
}
