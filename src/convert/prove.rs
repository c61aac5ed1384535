//! Whether what files become is valid: the written configuration is loaded, and what is wrong with it is told of the
//! statements that it comes from.

use super::report::{At, ERRORS_MAX, Entry, Outcome};
use super::{Conversion, Origin};
use crate::config::source::Place;
use crate::config::{Diagnostic, Limits, Loader, Severity};
use std::collections::HashSet;

/// What attempts to convert have found not to be valid.
#[derive(Default)]
pub(super) struct LeftOut {
    /// Where the proxies begin.
    pub(super) heads: HashSet<At>,
    /// Why.
    pub(super) problems: Vec<Entry>,
    /// How many there were.
    pub(super) attempts: usize,
}

impl LeftOut {
    /// Notes the proxies that `problems` are in, of those that begin at `heads`. Whether there are more of them now.
    pub(super) fn add(&mut self, problems: &[Entry], heads: &[At]) -> bool {
        let before = self.heads.len();
        for at in problems.iter().filter_map(|problem| problem.at) {
            let below = heads.partition_point(|head| *head <= at);
            let head = below.checked_sub(1).map(|index| heads[index]);
            self.heads.extend(head);
        }
        self.problems.extend_from_slice(problems);
        self.attempts += 1;
        self.heads.len() > before
    }
}

/// Loads what was written. What is wrong with it then is an error of the conversion, with the statement that it comes
/// from.
pub(super) fn problems(
    conversion: &Conversion,
    process: &dyn Fn(&str) -> Option<String>,
) -> Vec<Entry> {
    let loader = Loader {
        limits: Limits::unknown(),
        environment: process,
        disk: false,
    };
    let Err(problems) = loader.load_text("rlb.toml", &conversion.toml) else {
        return Vec::new();
    };
    // A variable that is not set here was told, and so was that nothing is left that listens.
    let told = |problem: &&Diagnostic| problem.code == "reference" || problem.code == "no-listener";
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error && !told(problem));
    let lines = &conversion.lines;
    let entry = |problem: &Diagnostic| {
        let mut message = problem.message.clone();
        if let Some((place, _)) = &problem.related
            && let Some(at) = origin(lines, place)
        {
            let files = conversion.report.place(at);
            message = message.replace(&place.short(), &files);
        }
        Entry {
            at: problem
                .place
                .as_ref()
                .and_then(|place| origin(lines, place)),
            section: 0,
            keyword: "".into(),
            outcome: Outcome::Error,
            text: format!("what it becomes is not valid: {message}").into(),
            traffic: false,
        }
    };
    errors.take(ERRORS_MAX).map(entry).collect()
}

/// The statement that a place in the written configuration comes from.
pub(super) fn origin(lines: &[Origin], place: &Place) -> Option<At> {
    let before = &place.source.text[..place.span.start];
    let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1);
    match lines.get(place.start().line - 1)? {
        Origin::Nothing => None,
        Origin::Statement(at) => Some(*at),
        Origin::Parts(parts) => {
            let begun = parts.iter().rfind(|(from, _)| *from <= column);
            begun.or(parts.first()).map(|(_, at)| *at)
        }
    }
}
