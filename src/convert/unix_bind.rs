//! `unix-bind` of `global`: what the unix sockets of the `bind`s behind it have. Runtime sockets do not have it.

use super::address::{self, Address, Use};
use super::context::Context;
use super::lexer::Word;
use super::sections::Statement;
use super::toml_string::quote;
use super::units;
use std::collections::BTreeMap;

/// What it says.
#[derive(Debug, Clone, Default)]
pub(super) struct UnixBind {
    /// It stands before the paths.
    prefix: Option<String>,
    /// `mode`, as rlb writes it.
    mode: Option<String>,
    /// The word for the owner of the files.
    pub(super) owner: Option<&'static str>,
}

impl UnixBind {
    /// Reads one statement; several add up.
    pub(super) fn read(&mut self, context: &mut Context<'_, '_>, statement: &Statement) {
        context.kept(statement.at, "unix-bind");
        let mut index = 1;
        while index < statement.words.len() {
            let (name, value) = (statement.word(index), statement.word(index + 1));
            let at = statement.at(index);
            let keyword = format!("unix-bind {name}");
            let owner = ["user", "uid", "group", "gid"];
            match name {
                "prefix" | "mode" | "user" | "uid" | "group" | "gid" if value.is_empty() => {
                    return context.report.error(at, keyword, "a value is missing");
                }
                "prefix" if self.prefix.is_some() => {
                    let text = "another one stands before it";
                    context.report.error(at, keyword, text);
                }
                "prefix" => self.prefix = Some(value.to_owned()),
                "mode" => match units::file_mode(value) {
                    Ok(mode) => self.mode = mode,
                    Err(problem) => context.report.error(at, keyword, problem),
                },
                _ => {
                    let Some(word) = owner.into_iter().find(|word| *word == name) else {
                        let text = "write `prefix`, `mode`, `uid`, `gid`, `user` or `group`";
                        return context.report.error(at, keyword, text);
                    };
                    self.owner = Some(word);
                }
            }
            index += 2;
        }
    }

    /// The keys that a bind has when it does not say otherwise.
    pub(super) fn keys(&self) -> BTreeMap<&'static str, String> {
        let mode = self.mode.iter().map(|mode| ("mode", quote(mode)));
        mode.collect()
    }

    /// The address of a bind, with the prefix before its path.
    pub(super) fn prefixed(&self, word: Word) -> Word {
        let Some(prefix) = &self.prefix else {
            return word;
        };
        let Address::Unix(path) = address::parse_for(&word.text, Use::Bind) else {
            return word;
        };
        let written = word.written.as_deref();
        let written = written.map(|text| address::parse_for(text, Use::Bind));
        Word {
            text: format!("unix@{prefix}{path}"),
            // Where the variable is the whole address, its value is written.
            written: match written {
                Some(Address::Unix(path)) => {
                    Some(format!("unix@{}{path}", address::escaped(prefix)))
                }
                _ => None,
            },
            ..word
        }
    }
}
