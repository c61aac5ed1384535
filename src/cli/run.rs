//! `rlb run`: the service.

use super::EXIT_CONFIG;
use super::convert::{self, HaproxyArgs};
use crate::app;
use crate::config::{self, InputFiles, Limits, Load, Severity, descriptors};
use crate::control::handover::{self, Predecessor, Program};
use crate::convert::Report;
use crate::log::events::{self, EventFormat, EventLog};
use crate::sys::raw;
use clap::ValueEnum;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// How long writing the last events may take.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// Arguments of `rlb run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", default_value = "/etc/rlb/rlb.toml")]
    config: PathBuf,
    /// The same, as of `rlb check`
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    #[command(flatten)]
    haproxy: HaproxyArgs,
    /// How events are written to stderr
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Least severe events that are written: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: LevelFilter,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people; with priorities for the journal when systemd reads stderr
    Text,
    /// One JSON object a line
    Json,
}

pub(super) fn run(args: &Args) -> ExitCode {
    raw::unblock_signals();
    if let Err(refused) = args.haproxy.judge() {
        return refused;
    }
    if let Some(started) = handover::start_next() {
        return match started {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed("cannot start the process that is to take over", &error),
        };
    }
    // Before anything can change the program's path.
    let program = match Program::of_this_process() {
        Ok(program) => program,
        Err(error) => return failed("cannot tell where this program is", &error),
    };
    let predecessor = match Predecessor::connect() {
        Ok(predecessor) => predecessor,
        Err(error) => return failed("cannot take over", &error),
    };
    let format = match args.log_format {
        LogFormat::Text => EventFormat::Human,
        LogFormat::Json => EventFormat::Json,
    };
    let log = match events::init(events::Options {
        format,
        level: args.log_level,
    }) {
        Ok(log) => log,
        Err(error) => return failed("cannot write events", &error),
    };
    let limits = super::limits::of_this_machine();
    let (input, load, report) = read(args, &limits);
    let Load { loaded, files } = load;
    let (config, warnings) = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => {
            refuse(&problems, &log, predecessor.as_ref());
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    // A limit that is too low ends the start with one sentence, so it is no warning, too.
    let fits = |nofile| descriptors::capacity(&config, nofile).is_ok();
    if limits.nofile.is_none_or(fits) {
        for warning in &warnings {
            tracing::warn!("{}", warning.line());
        }
    }
    if let Some(report) = report {
        convert::tell(&report);
    }
    let start = app::Start::telling(&program.path, log.recent());
    let options = app::RunOptions {
        config,
        input,
        files,
        limits,
        program: Some(program),
        predecessor: predecessor.clone(),
        start,
    };
    let code = match app::run(options) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(predecessor) = predecessor {
                predecessor.refuse(&error.to_string());
            }
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    };
    log.flush(FLUSH_MAX);
    code
}

/// Tells what is wrong with the configuration: as `rlb check` for people, else one event each.
fn tell(problems: &[config::Diagnostic], log: &EventLog) {
    for problem in problems {
        if log.is_for_people() {
            eprintln!("{}", problem.render(false));
        } else {
            let (code, hint) = (problem.code, problem.hint.as_deref());
            match problem.severity {
                Severity::Error => tracing::error!(code, hint, "{}", problem.line()),
                Severity::Warning => tracing::warn!(code, hint, "{}", problem.line()),
            }
        }
    }
    log.flush(FLUSH_MAX);
}

/// The files that are run, and what was read; of files of HAProxy's what became of the statements.
fn read(args: &Args, limits: &Limits) -> (InputFiles, Load, Option<Report>) {
    let Some(files) = args.haproxy.files() else {
        let input = InputFiles::file(args.file.as_ref().unwrap_or(&args.config).clone());
        let load = input.load(limits);
        return (input, load, None);
    };
    let converted = files.load(limits);
    let report = converted.conversion.map(|conversion| conversion.report);
    (files.input(), converted.load, report)
}

/// Tells what is wrong with the configuration, the predecessor too.
fn refuse(problems: &[config::Diagnostic], log: &EventLog, predecessor: Option<&Predecessor>) {
    tell(problems, log);
    if let Some(predecessor) = predecessor {
        let lines: Vec<String> = problems.iter().map(config::Diagnostic::line).collect();
        predecessor.refuse(&lines.join("\n"));
    }
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("rlb: {what}: {error}");
    ExitCode::FAILURE
}
