//! The files that are converted: read from the disk, a directory's in the order of their names; and
//! a whole configuration of rlb's made from them.

use super::report::Report;
use super::sections::Input;
use super::{Conversion, Options, Outside, convert, look_up};
use crate::config::{self, Limits, Load};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Most bytes of all files together.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Reads files, and of directories those that end in `.cfg`, as HAProxy's `-f` does.
///
/// # Errors
/// A file or directory that cannot be read, with its name.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Input>, String> {
    let mut inputs = Vec::new();
    let mut left = BYTES_MAX;
    for path in paths {
        let list = if path.is_dir() {
            directory(path).map_err(|error| said(path, &error))?
        } else {
            vec![path.clone()]
        };
        for path in list {
            let bytes = file(&path, left).map_err(|error| said(&path, &error))?;
            left = left.saturating_sub(bytes.len() as u64);
            inputs.push(Input {
                name: path.display().to_string(),
                bytes,
            });
        }
    }
    Ok(inputs)
}

fn said(path: &Path, error: &io::Error) -> String {
    format!("cannot read `{}`: {error}", path.display())
}

fn directory(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".cfg") && !name.starts_with('.') && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn file(path: &Path, left: u64) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(left + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > left {
        let message = format!("the files have more than {BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// The variables and the resolver of this process.
pub fn of_this_process() -> Outside<'static> {
    Outside {
        variable: &|name| std::env::var(name).ok(),
        address: &look_up,
    }
}

/// A configuration that was made from files of HAProxy's.
#[derive(Debug)]
pub struct Converted {
    /// The load of the configuration of rlb's.
    pub load: Load,
    /// What became of each statement; `None`: the files cannot be read.
    pub report: Option<Report>,
}

/// Converts files and loads what they become. What is not carried over is an error of the load.
pub fn load(paths: &[PathBuf], options: Options, limits: &Limits) -> Converted {
    let looked_at = paths.to_vec();
    let inputs = match read(paths) {
        Ok(inputs) => inputs,
        Err(why) => {
            let problem = config::Diagnostic::error("unreadable", why);
            return Converted {
                load: config::refused(vec![problem], looked_at),
                report: None,
            };
        }
    };
    let Conversion { toml, report } = convert(&inputs, options, of_this_process());
    let files = inputs.iter().map(|input| PathBuf::from(&input.name));
    let looked_at: Vec<PathBuf> = looked_at.into_iter().chain(files).collect();
    let problems = problems(&report);
    let load = if problems.is_empty() {
        let name = format!("{} (converted)", report.files.join(", "));
        config::load_converted(&name, &toml, limits, looked_at)
    } else {
        config::refused(problems, looked_at)
    };
    Converted {
        load,
        report: Some(report),
    }
}

/// What forbids to run a configuration: errors, and what changes traffic.
fn problems(report: &Report) -> Vec<config::Diagnostic> {
    let entries = report.entries.iter();
    let entries = entries.filter(|entry| entry.outcome == super::Outcome::Error || entry.traffic);
    let problem = |entry: &super::Entry| {
        let place = entry
            .at
            .map_or_else(String::new, |at| format!("{}: ", report.place(at)));
        let keyword = match entry.keyword.as_str() {
            "" => String::new(),
            keyword => format!("{keyword}: "),
        };
        let outcome = entry.outcome.text();
        let message = format!("{place}{outcome}: {keyword}{}", entry.text);
        config::Diagnostic::error("haproxy", message)
    };
    entries.map(problem).collect()
}
