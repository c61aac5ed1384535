//! Where a key of the new file comes from: the statement of its section that has HAProxy's word for it.

use crate::config::keys;
use crate::convert::report::{At, Report};
use std::collections::HashMap;

/// The statements, by section and keyword.
pub(super) struct StatementIndex<'a> {
    statements: HashMap<(usize, &'a str), At>,
    /// HAProxy's words for a key.
    words: HashMap<&'static str, Vec<&'static str>>,
}

impl<'a> StatementIndex<'a> {
    pub(super) fn of(report: &'a Report) -> Self {
        let mut statements = HashMap::new();
        for entry in &report.entries {
            if let Some(at) = entry.at {
                let keyword = entry.keyword.as_str();
                statements.insert((entry.section, keyword), at);
                // `timeout client` is a part of the table `timeout`.
                let first = keyword.split(' ').next().unwrap_or(keyword);
                statements.entry((entry.section, first)).or_insert(at);
            }
        }
        let mut words: HashMap<&str, Vec<&str>> = HashMap::new();
        for table in keys::tables() {
            for listed in table.keys {
                let known = words.entry(listed.key.name).or_default();
                known.extend(listed.key.haproxy);
            }
        }
        Self { statements, words }
    }

    /// The statement with this keyword in a section.
    pub(super) fn of_statement(&self, section: usize, keyword: &str) -> Option<At> {
        self.statements.get(&(section, keyword)).copied()
    }

    /// The statement that says `key` in a section.
    pub(super) fn of_key(&self, section: usize, key: &str) -> Option<At> {
        let words = self.words.get(key)?;
        words
            .iter()
            .find_map(|word| self.statements.get(&(section, word)))
            .copied()
    }
}
