//! `rlb diff`: what a reload with another file would do.
//!
//! Runs on the main thread and ends. Touches neither the network nor a running rlb.

use super::{EXIT_CONFIG, limits};
use crate::config::diff::{Changes, plan};
use crate::config::{self, model::Config};
use clap::ValueEnum;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `rlb diff`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration to change to
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// The configuration in force
    #[arg(long, short, value_name = "OLD", default_value = "/etc/rlb/rlb.toml")]
    config: PathBuf,
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

/// Compares two files. 0: both are valid, whether they differ or not; 78: one is not.
pub(super) fn run(args: &Args) -> ExitCode {
    let (Some(old), Some(new)) = (load(&args.config), load(&args.new)) else {
        return ExitCode::from(EXIT_CONFIG);
    };
    let changes = plan(&old, &new);
    // A reader that has seen enough (head) is no failure.
    let _ = match args.format {
        Format::Human => print_human(&changes),
        Format::Json => writeln!(std::io::stdout(), "{:#}", to_json(&changes)),
    };
    ExitCode::SUCCESS
}

/// `None` when it is not valid; why has been printed then.
fn load(path: &Path) -> Option<Config> {
    match config::load_with(path, &limits::of_this_machine()) {
        Ok((config, _)) => Some(config),
        Err(problems) => {
            for problem in &problems {
                let _ = writeln!(std::io::stderr(), "{}\n", problem.render(false));
            }
            let _ = writeln!(std::io::stderr(), "{} is not valid", path.display());
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

fn to_json(changes: &Changes) -> serde_json::Value {
    let list: Vec<_> = changes
        .list
        .iter()
        .map(|change| {
            let keys: Vec<_> = change
                .keys
                .iter()
                .map(|one| json!({ "key": one.key, "from": one.from, "to": one.to }))
                .collect();
            json!({
                "action": change.action.name(),
                "kind": change.kind,
                "name": change.name,
                "keys": keys,
                "effect": change.effect,
            })
        })
        .collect();
    json!({
        "summary": changes.summary(),
        "needs_restart": changes.restarts().next().is_some(),
        "changes": list,
    })
}
