//! Where a key of the new file comes from: the statement of its section that has HAProxy's word for it.

use crate::config::keys;
use crate::convert::report::{At, Report};
use std::collections::HashMap;

/// The statements of each section, by the section's number. A section is asked for few keys.
pub(super) struct StatementIndex<'a> {
    statements: Vec<Vec<(&'a str, At)>>,
    /// HAProxy's words for a key.
    words: HashMap<&'static str, Vec<&'static str>>,
}

impl<'a> StatementIndex<'a> {
    pub(super) fn of(report: &'a Report) -> Self {
        let mut statements: Vec<Vec<(&str, At)>> = Vec::new();
        for entry in &report.entries {
            if let Some(at) = entry.at {
                if statements.len() <= entry.section {
                    statements.resize_with(entry.section + 1, Vec::new);
                }
                statements[entry.section].push((&entry.keyword, at));
            }
        }
        let mut words: HashMap<&str, Vec<&str>> = HashMap::new();
        for table in keys::tables() {
            for listed in &table.keys {
                let known = words.entry(listed.key.name).or_default();
                known.extend(listed.key.haproxy);
            }
        }
        Self { statements, words }
    }

    /// The last statement with this keyword in a section; of a keyword that is the first of several
    /// words (`timeout`), the first statement.
    pub(super) fn of_statement(&self, section: usize, keyword: &str) -> Option<At> {
        let all = self.statements.get(section)?;
        let same = all.iter().rfind(|(known, _)| *known == keyword);
        let found = same.or_else(|| {
            all.iter()
                .find(|(known, _)| known.split(' ').next() == Some(keyword))
        });
        found.map(|(_, at)| *at)
    }

    /// The statement that says `key` in a section.
    pub(super) fn of_key(&self, section: usize, key: &str) -> Option<At> {
        let words = self.words.get(key)?;
        words
            .iter()
            .find_map(|word| self.of_statement(section, word))
    }
}
