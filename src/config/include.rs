//! The files that a pattern of `include` names.
//!
//! Each part of the pattern between two slashes is compared with the names in one directory.
//! Invariant: no more than [`ENTRIES_MAX`] directory entries are looked at for a configuration,
//! whatever its patterns are; so `**`, which stands for directories of any depth, is refused.

use super::units::Problem;
use glob::{MatchOptions, Pattern};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Most directory entries that the patterns of a configuration are compared with.
pub const ENTRIES_MAX: usize = 100_000;

/// Whether `path` is a pattern and not the name of one file.
pub(super) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// What a pattern has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Everything but directories, in the order of the names, directory by directory.
    pub(super) files: Vec<PathBuf>,
    /// Directories that could not be read, and that there was too much to look at.
    pub(super) problems: Vec<String>,
}

/// The files that match `pattern`, relative to `directory`. `entries` is how many directory entries
/// may still be looked at.
///
/// # Errors
/// The pattern is not one.
pub(super) fn find(directory: &Path, pattern: &str, entries: &mut usize) -> Result<Found, Problem> {
    let mut found = Found::default();
    let root = pattern.starts_with('/').then(|| PathBuf::from("/"));
    let mut paths = vec![root.unwrap_or_else(|| directory.to_owned())];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        if !is_pattern(part) {
            for path in &mut paths {
                path.push(part);
            }
            continue;
        }
        if part.contains("**") {
            return Err(Problem::new("`**` is not a part of a pattern here")
                .hint("write one `*` for each level: \"conf.d/*/*.toml\""));
        }
        let name = Pattern::new(part)
            .map_err(|error| Problem::new("the pattern is not valid").hint(error.msg))?;
        let mut next = Vec::new();
        for path in &paths {
            next.extend(names(path, &name, entries, &mut found.problems));
        }
        paths = next;
    }
    let is_file = |path: &PathBuf| path.symlink_metadata().is_ok() && !path.is_dir();
    found.files = paths.into_iter().filter(is_file).collect();
    Ok(found)
}

/// The entries of `directory` that match `name`, sorted.
fn names(
    directory: &Path,
    name: &Pattern,
    entries: &mut usize,
    problems: &mut Vec<String>,
) -> Vec<PathBuf> {
    // Editors leave hidden files behind.
    let visible = MatchOptions {
        require_literal_leading_dot: true,
        ..MatchOptions::new()
    };
    let here = if directory == Path::new("") {
        Path::new(".")
    } else {
        directory
    };
    let list = match std::fs::read_dir(here) {
        Ok(list) => list,
        // What is not there or is a file holds nothing that could match.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Vec::new();
        }
        Err(error) => {
            problems.push(format!(
                "cannot read the directory `{}`: {error}",
                here.display()
            ));
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for entry in list {
        if *entries == 0 {
            problems.push(format!(
                "more than {ENTRIES_MAX} directory entries to look at"
            ));
            break;
        }
        *entries -= 1;
        match entry {
            Ok(entry) => {
                let file_name = entry.file_name();
                if file_name
                    .to_str()
                    .is_some_and(|text| name.matches_with(text, visible))
                {
                    found.push(directory.join(file_name));
                }
            }
            Err(error) => {
                problems.push(format!(
                    "cannot read the directory `{}`: {error}",
                    here.display()
                ));
                break;
            }
        }
    }
    found.sort();
    found
}
