//! A section that is recognised and left out.

use super::context::Context;
use super::report::Outcome;
use super::sections::Section;
use crate::config::haproxy::{Becomes, Place};

/// Reads it into the report.
pub(super) fn read(context: &mut Context<'_, '_>, section: &Section) {
    let word = section.head.word(0);
    if let Some(row) = context.index.find(Place::Section, word) {
        let outcome = match row.becomes {
            Becomes::NotNeeded => Outcome::NotNeeded,
            _ => Outcome::Unsupported,
        };
        context.report.push(section.head.at, word, outcome, row.say);
    }
    for statement in &section.statements {
        let text = format!("it goes with `{word}`");
        let keyword = statement.word(0);
        context
            .report
            .push(statement.at, keyword, Outcome::NotNeeded, text);
    }
}
