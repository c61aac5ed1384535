//! The bounds of the counts, in `benches/instructions.toml`: a table for each profile, since machine code
//! differs between profiles.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::{fs, io};

/// How far a count may be from its bound, as a share of the bound.
pub(crate) const TOLERANCE: f64 = 0.05;

/// Instructions that are never a regression: one more in a dozen is already 8 %.
pub(crate) const SLACK: f64 = 2.0;

/// The first lines of the file.
const HEAD: &str = "# User-space instructions per operation, by profile: the guard's bounds.\n\
    # Written by `cargo run --release -p rlb-instructions -- --update`.\n";

/// Bounds by profile and name.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Bounds(BTreeMap<String, BTreeMap<String, f64>>);

/// The result of comparing a count with its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Within the tolerance.
    Kept,
    /// More than the bound allows: fails.
    Regressed,
    /// So far below the bound that the bound is useless: it is to be updated.
    Improved,
    /// There is no bound for this profile.
    Unbounded,
}

impl Bounds {
    /// Reads the file; a missing file has no bounds.
    pub(crate) fn read(path: &str) -> io::Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Reads the text of the file.
    pub(crate) fn parse(text: &str) -> io::Result<Self> {
        toml::from_str(text).map(Self).map_err(io::Error::other)
    }

    /// The text of the file.
    pub(crate) fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (profile, counts) in &self.0 {
            let _ = writeln!(text, "\n[{profile}]");
            for (name, count) in counts {
                let _ = writeln!(text, "{name} = {count:.1}");
            }
        }
        text
    }

    /// The bound of `name`, if there is one.
    pub(crate) fn get(&self, profile: &str, name: &str) -> Option<f64> {
        self.0.get(profile)?.get(name).copied()
    }

    /// Makes `count` the bound of `name`.
    pub(crate) fn set(&mut self, profile: &str, name: &str, count: f64) {
        let counts = self.0.entry(profile.to_owned()).or_default();
        counts.insert(name.to_owned(), count);
    }

    /// Compares `count` instructions with the bound of `name`.
    pub(crate) fn judge(&self, profile: &str, name: &str, count: f64) -> Verdict {
        let Some(bound) = self.get(profile, name) else {
            return Verdict::Unbounded;
        };
        let allowed = (bound * TOLERANCE).max(SLACK);
        if count > bound + allowed {
            Verdict::Regressed
        } else if count < bound - allowed {
            Verdict::Improved
        } else {
            Verdict::Kept
        }
    }
}
