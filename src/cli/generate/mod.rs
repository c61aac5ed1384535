//! `rlb gen`: writes the man pages and shell completions for packages.
//!
//! Runs on the main thread and ends. Everything is made from the definitions that the program itself uses, the
//! command line's and the configuration schema's, so that it is never out of date.

mod command_page;
mod file_page;

use super::Cli;
use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `rlb gen`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to write; made when it is missing
    directory: PathBuf,
}

/// Writes everything, or prints what cannot be written.
pub(super) fn run(args: &Args) -> ExitCode {
    match write(&args.directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rlb: {}: {error}", args.directory.display());
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("rlb.8"), command_page::page(Cli::command())?)?;
    let schema = crate::config::schema();
    std::fs::write(directory.join("rlb.toml.5"), file_page::page(&schema))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), "rlb", directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("new");
        write(&inside).unwrap();
        for name in ["rlb.8", "rlb.toml.5", "rlb.bash", "_rlb", "rlb.fish"] {
            let text = std::fs::read_to_string(inside.join(name)).unwrap();
            assert!(text.len() > 500, "{name}: {text}");
        }
    }
}
