//! The files that a pattern of `include` matches.
//!
//! Each part of the pattern between two slashes is compared with the names in one directory. Invariant: at most
//! [`ENTRIES_MAX`] directory entries are read for a configuration, whatever its patterns are; to open a
//! directory counts as [`DIRECTORY_ENTRIES`]. So `**`, which matches directories at any depth, is refused.

use super::units::Problem;
use glob::{MatchOptions, Pattern};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Most directory entries that the patterns of a configuration are compared with.
pub const ENTRIES_MAX: usize = 100_000;

/// Most files of one configuration, those included that cannot be read.
pub const FILES_MAX: usize = 1000;

/// The entries that can be read in the time in which a directory is opened.
const DIRECTORY_ENTRIES: usize = 20;

/// Whether `path` is a pattern and not the name of one file.
pub(super) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// The result of a pattern.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Everything except directories, directory by directory in the order of names.
    pub(super) files: Vec<PathBuf>,
    /// Directories that could not be read, and whether there were too many entries.
    pub(super) problems: Vec<String>,
}

/// The files that match `pattern`, relative to `directory`. `entries`: how many more directory entries may be
/// read.
///
/// # Errors
/// The pattern is not valid.
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
            *entries = entries.saturating_sub(DIRECTORY_ENTRIES);
            next.extend(names(path, &name, entries, &mut found.problems));
            if *entries == 0 {
                found.problems.push(format!(
                    "no more than {ENTRIES_MAX} directory entries are looked at"
                ));
                return Ok(found);
            }
        }
        paths = next;
    }
    let is_file = |path: &PathBuf| path.symlink_metadata().is_ok() && !path.is_dir();
    // One more than may be read, so that it is noticed that there are more.
    found.files = paths
        .into_iter()
        .filter(is_file)
        .take(FILES_MAX + 1)
        .collect();
    Ok(found)
}

/// The entries of `directory` that match `name`, sorted; not all of them when `entries` becomes 0.
fn names(
    directory: &Path,
    name: &Pattern,
    entries: &mut usize,
    problems: &mut Vec<String>,
) -> Vec<PathBuf> {
    // Hidden files are not matched; editors create them.
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
        // A path that does not exist or is a file has no entries.
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
