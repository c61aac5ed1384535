//! `rlb check`: reports everything that is wrong with a configuration.
//!
//! Runs on the main thread and ends. Uses no network unless `--resolve` asks for it.

use super::convert::HaproxyArgs;
use super::{EXIT_CONFIG, limits};
use crate::config::model::{Config, ServerAddress};
use crate::config::{self, Diagnostic, Severity};
use clap::ValueEnum;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `rlb check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file
    #[arg(
        id = "config",
        value_name = "FILE",
        default_value = "/etc/rlb/rlb.toml"
    )]
    file: PathBuf,
    /// The same, as of `rlb run`
    #[arg(
        long = "config",
        short = 'c',
        id = "config-option",
        value_name = "FILE",
        conflicts_with = "config"
    )]
    option: Option<PathBuf>,
    #[command(flatten)]
    haproxy: HaproxyArgs,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Resolve the names of servers too; one that does not resolve is a warning
    #[arg(long)]
    resolve: bool,
    /// Exit with 78 when there are warnings
    #[arg(long)]
    deny_warnings: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

/// How diagnostics are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people, on standard error
    Human,
    /// One JSON object on standard output, for editors and CI
    Json,
}

impl Args {
    /// The file of rlb's.
    fn path(&self) -> &Path {
        self.option.as_ref().unwrap_or(&self.file)
    }

    /// What is checked.
    fn name(&self) -> String {
        let input = self.haproxy.input();
        input.map_or_else(
            || self.path().display().to_string(),
            |input| input.name().to_owned(),
        )
    }
}

/// Checks a file and prints the diagnostics. Exit code 0: it can be used; 78: it cannot.
pub(super) fn run(args: &Args) -> ExitCode {
    if let Err(refused) = args.haproxy.judge() {
        return refused;
    }
    let limits = limits::of_this_machine();
    let loaded = match args.haproxy.input() {
        Some(input) => input.load(&limits).loaded,
        None => config::load_or_pipe(args.path(), &limits),
    };
    let (valid, mut diagnostics) = match loaded {
        Ok((config, mut warnings)) => {
            if args.resolve {
                warnings.extend(resolve(&config));
            }
            (true, warnings)
        }
        Err(diagnostics) => (false, diagnostics),
    };
    let warned = diagnostics
        .iter()
        .any(|one| one.severity == Severity::Warning);
    let accepted = valid && !(warned && args.deny_warnings);
    if args.quiet && !args.deny_warnings {
        diagnostics.retain(|diagnostic| diagnostic.severity == Severity::Error);
    }
    match args.format {
        Format::Human => print_human(args, &diagnostics, accepted),
        Format::Json => print_json(args, &diagnostics, accepted),
    }
    if accepted {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_CONFIG)
    }
}

fn count(diagnostics: &[Diagnostic], severity: Severity) -> usize {
    diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == severity)
        .count()
}

fn print_human(args: &Args, diagnostics: &[Diagnostic], accepted: bool) {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for diagnostic in diagnostics {
        let _ = writeln!(std::io::stderr(), "{}\n", diagnostic.render(color));
    }
    let verdict = if accepted { "valid" } else { "not valid" };
    let counted = [Severity::Error, Severity::Warning].map(|severity| {
        let number = count(diagnostics, severity);
        let plural = if number == 1 { "" } else { "s" };
        (number > 0).then(|| format!("{number} {}{plural}", severity.name()))
    });
    let counted: Vec<String> = counted.into_iter().flatten().collect();
    let counted = if counted.is_empty() {
        String::new()
    } else {
        format!(": {}", counted.join(", "))
    };
    let line = format!("{} is {verdict}{counted}", args.name());
    if !accepted {
        let _ = writeln!(std::io::stderr(), "{line}");
    } else if !args.quiet {
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}

fn print_json(args: &Args, diagnostics: &[Diagnostic], accepted: bool) {
    let report = json!({
        "file": args.name(),
        "valid": accepted,
        "errors": count(diagnostics, Severity::Error),
        "warnings": count(diagnostics, Severity::Warning),
        "diagnostics": diagnostics.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
    });
    // A reader that stops early (head) is no failure.
    let _ = writeln!(std::io::stdout(), "{report:#}");
}

/// A warning for every server whose name does not resolve; each name is looked up once.
fn resolve(config: &Config) -> Vec<Diagnostic> {
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    for backend in &config.backends {
        for server in &backend.servers {
            if let ServerAddress::Name(name, _) = &server.address {
                names
                    .entry(name)
                    .or_insert_with(|| format!("{}/{}", backend.name, server.name));
            }
        }
    }
    let mut warnings = Vec::new();
    for (name, server) in names {
        let why = match (name, 0)
            .to_socket_addrs()
            .map(|mut addresses| addresses.next())
        {
            Ok(Some(_)) => continue,
            Ok(None) => "it has no address".to_owned(),
            Err(error) => error.to_string(),
        };
        let message = format!("`{name}` of server {server} does not resolve: {why}");
        warnings.push(Diagnostic::warning("unresolved", message));
    }
    warnings
}
