//! `rlb check`: written with the configuration loader.

/// Arguments of `rlb check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file
    file: std::path::PathBuf,
}
pub(super) fn run(args: &Args) -> std::process::ExitCode {
    let _ = &args.file;
    std::process::ExitCode::FAILURE
}
