//! The command line: argument types, and one file per sub-command.
//!
//! The only place that prints. Exit codes: 0, 1 failure at run time (of `convert`: something that
//! changes traffic was not carried over), 2 wrong command line (clap), 78 configuration not valid
//! (`EX_CONFIG`).
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line prints"
)]

mod check;
mod convert;
mod ctl;
mod demo;
mod diff;
mod generate;
mod haproxy;
mod limits;
mod run;
mod schema;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Exit code of a configuration that is not valid (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

/// TCP (layer 4) load balancer.
#[derive(Debug, Parser)]
#[command(name = "rlb", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the load balancer
    Run(run::Args),
    /// Show it at work: services, nodes and clients of its own, no root, nothing to install
    Demo(demo::Args),
    /// Check a configuration file and report everything that is wrong with it
    Check(check::Args),
    /// Convert a configuration of HAProxy's, and say what became of each statement
    Convert(convert::Args),
    /// Send a command to the runtime socket and print the answer
    Ctl(ctl::Args),
    /// Read the configuration of the running rlb again; prints what changed or why not
    Reload(ctl::ReloadArgs),
    /// Start the installed program again and hand over to it: no client is refused, sessions go on
    Upgrade(ctl::ChangeArgs),
    /// Write man pages and shell completions, for packages
    #[command(name = "gen", hide = true)]
    Generate(generate::Args),
    /// Print what a reload would do, with the changed file or with another one
    Diff(diff::Args),
    /// Print the JSON schema of the configuration file, for editors
    Schema,
}

/// Parses the command line and runs the sub-command. Under the name `haproxy` the command line is
/// HAProxy's.
pub fn main() -> ExitCode {
    if let Some(words) = haproxy::words() {
        return haproxy::run(&words);
    }
    match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Ctl(args) => ctl::run(&args),
        Command::Reload(args) => ctl::reload(&args),
        Command::Upgrade(args) => ctl::upgrade(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Schema => schema::run(),
    }
}
