//! `rlb diff`: what a reload would change, with the file of the running rlb or with another one.
//!
//! Runs on the main thread and ends. With a file it uses neither the network nor a running rlb; without one it
//! asks the running rlb over its runtime socket.

use super::convert::HaproxyArgs;
use super::ctl::{self, SocketArgs};
use super::{EXIT_CONFIG, limits};
use crate::config::diff::{Changes, plan};
use crate::config::model::{BindAddress, Config};
use crate::config::{self, Loaded};
use clap::ValueEnum;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `rlb diff`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration to change to; without it the file of the running rlb is compared with what
    /// is in force there
    #[arg(id = "new", value_name = "NEW")]
    new: Option<PathBuf>,
    #[command(flatten)]
    haproxy: HaproxyArgs,
    /// The configuration to change from; without NEW it only names the runtime socket
    #[arg(long, short, value_name = "OLD", default_value = "/etc/rlb/rlb.toml")]
    config: PathBuf,
    /// The runtime socket of the running rlb; by default that of the configuration file
    #[arg(long, short, value_name = "SOCKET", value_parser = ctl::socket, conflicts_with = "new")]
    socket: Option<BindAddress>,
    /// How to print what differs
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

/// How the differences are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each object that differs
    Human,
    /// One JSON object
    Json,
}

/// Compares. Exit code 0: both are valid, whether they differ or not; 78: one is not; 1: the running rlb cannot
/// be asked.
pub(super) fn run(args: &Args) -> ExitCode {
    if let Err(refused) = args.haproxy.judge() {
        return refused;
    }
    let new = match (args.haproxy.input(), &args.new) {
        (Some(input), _) => {
            let loaded = input.load(&limits::of_this_machine()).loaded;
            valid(loaded, input.name())
        }
        (None, Some(new)) => load(new),
        (None, None) => return running(args),
    };
    let (Some(old), Some(new)) = (load(&args.config), new) else {
        return ExitCode::from(EXIT_CONFIG);
    };
    let changes = plan(&old, &new);
    // A reader that stops early (head) is no failure.
    let _ = match args.format {
        Format::Human => print_human(&changes),
        Format::Json => writeln!(std::io::stdout(), "{:#}", changes.to_json()),
    };
    ExitCode::SUCCESS
}

/// Asks the running rlb.
fn running(args: &Args) -> ExitCode {
    let command = match args.format {
        Format::Human => "reload dry-run",
        Format::Json => "reload dry-run json",
    };
    let socket = SocketArgs {
        socket: args.socket.clone(),
        config: args.config.clone(),
        timeout: None,
    };
    match ctl::change(&socket, command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_CONFIG),
        Err(error) => ctl::failed(&error),
    }
}

/// `None` when it is not valid; the reason was printed.
fn load(path: &Path) -> Option<Config> {
    let loaded = config::load_or_pipe(path, &limits::of_this_machine());
    valid(loaded, &path.display().to_string())
}

/// The same of a configuration that was loaded.
fn valid(loaded: Loaded, name: &str) -> Option<Config> {
    match loaded {
        Ok((config, _)) => Some(config),
        Err(problems) => {
            for problem in &problems {
                let _ = writeln!(std::io::stderr(), "{}\n", problem.render(false));
            }
            let _ = writeln!(std::io::stderr(), "{name} is not valid");
            None
        }
    }
}

fn print_human(changes: &Changes) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for change in &changes.list {
        writeln!(out, "{change}")?;
    }
    writeln!(out, "{}", changes.summary())
}
