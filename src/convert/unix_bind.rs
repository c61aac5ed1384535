//! `unix-bind` of `global`: what the unix sockets of the `bind`s behind it have. Runtime sockets do not have it.
//!
//! Plain data, which `global` fills in.

use super::address::{self, Address, Use};
use super::lexer::Word;
use super::toml_string::quote;
use std::collections::BTreeMap;

/// What it says.
#[derive(Debug, Clone, Default)]
pub(super) struct UnixBind {
    /// It stands before the paths.
    pub(super) prefix: Option<String>,
    /// `mode`, as rlb writes it.
    pub(super) mode: Option<String>,
    /// The word for the owner of the files.
    pub(super) owner: Option<&'static str>,
    /// The first line of it that is in error: what it says of the files is not known.
    pub(super) in_error: Option<usize>,
}

impl UnixBind {
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
