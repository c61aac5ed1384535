//! `rlb schema`: written with the configuration loader.
pub(super) fn run() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
