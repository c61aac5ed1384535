//! The words for how hashes find servers, as text of statistics and commands. Pure.

use super::choices::{HashKeyWord, HashTypeWord, WordList};
use super::values::{HashKey, HashType};

impl HashKey {
    const ALL: [Self; 4] = [Self::Id, Self::Id32, Self::Addr, Self::AddrPort];

    /// HAProxy's word.
    pub fn name(self) -> &'static str {
        HashKeyWord::of(self).text()
    }

    /// The one with this word.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }
}

impl HashType {
    /// HAProxy's words.
    pub fn name(self) -> &'static str {
        HashTypeWord::of(self).text()
    }
}
