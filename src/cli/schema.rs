//! `rlb schema`: prints the JSON schema of the configuration file, for editors and CI.
//!
//! Runs on the main thread and ends. The schema is made from the types that read the file, so it cannot differ
//! from what `rlb check` accepts.

use crate::config::schema;
use std::io::Write;
use std::process::ExitCode;

/// Prints the schema.
pub(super) fn run() -> ExitCode {
    // A reader that stops early (head) is no failure.
    let _ = writeln!(std::io::stdout(), "{:#}", schema());
    ExitCode::SUCCESS
}
