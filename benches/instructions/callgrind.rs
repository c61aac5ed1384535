//! Counts a program's instructions in user space with valgrind's callgrind, exactly and on any machine. Used by
//! the guard beside this file and by `benches/compare`.
//!
//! The figure is the cost of one more operation, so a program runs twice with different numbers of operations:
//! start and stop cancel out in the difference.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

/// The names of callgrind's files in a folder begin with this; the process ID follows.
const FILE: &str = "callgrind.";

/// Whether valgrind is installed.
pub(crate) fn is_installed() -> bool {
    Command::new("valgrind")
        .arg("--version")
        .output()
        .is_ok_and(|run| run.status.success())
}

/// Adds to `command`, which may be a wrapper, the arguments that run the next argument under callgrind. Counts
/// go to `folder`, one file a process, when the process ends.
pub(crate) fn count_into<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    command
        .args(["valgrind", "--tool=callgrind", "-q"])
        .arg(format!(
            "--callgrind-out-file={}/{FILE}%p",
            folder.display()
        ))
}

/// Instructions of all processes and threads that were counted into `folder`; the counts are
/// removed.
///
/// # Errors
/// When there are none, as after a kill, or a file is not callgrind's.
pub(crate) fn take(folder: &Path) -> io::Result<u64> {
    let mut total = None;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(FILE) {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        fs::remove_file(&path)?;
        // The format: https://valgrind.org/docs/manual/cl-format.html, "totals:".
        let count = text
            .lines()
            .filter_map(|line| line.strip_prefix("totals: "))
            .find_map(|count| count.trim().parse::<u64>().ok())
            .ok_or_else(|| io::Error::other(format!("no totals in {}", path.display())))?;
        total = Some(total.unwrap_or(0) + count);
    }
    total.ok_or_else(|| io::Error::other("callgrind has counted nothing"))
}

/// Instructions of one more operation, from two runs `(operations, instructions)`.
#[expect(
    clippy::cast_precision_loss,
    reason = "far below 2^52, and a quotient anyway"
)]
pub(crate) fn slope(few: (u64, u64), many: (u64, u64)) -> f64 {
    (many.1 as f64 - few.1 as f64) / (many.0 as f64 - few.0 as f64)
}
