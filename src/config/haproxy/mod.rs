//! HAProxy's words, and what becomes of each: the one table that `rlb convert`, the hints of
//! `rlb check` and docs/from-haproxy.md are made from.
//!
//! Plain constant data, usable from any thread. A word that is a key of rlb's stands in the
//! declaration of that key ([`Key::haproxy`](crate::config::Key)); all others stand here.

mod global;
mod line;
mod proxy;

use super::keys;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::LazyLock;

/// Where a word of HAProxy's stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The first word of a section.
    Section,
    /// A statement of `global`.
    Global,
    /// A statement of `defaults`, `frontend`, `backend` or `listen`, with the words that belong to
    /// it: `option httpchk`, `timeout queue`, `tcp-request content reject`.
    Proxy,
    /// Behind the address of a `bind`.
    Bind,
    /// Behind the address of a `server`, and in `default-server`.
    Server,
    /// Behind the address of a `stats socket`.
    Socket,
}

/// What becomes of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// It is carried over.
    Kept,
    /// It is carried over, and means something else.
    Changed,
    /// rlb does the same without it, or it has no effect on TCP.
    NotNeeded,
    /// It has no effect on TCP. An HTTP proxy is carried over without it.
    Http,
    /// It has no effect on TCP. An HTTP proxy that decides by it is not carried over.
    HttpDecides,
    /// Not supported yet; what happens instead is weaker.
    NeedsAllowDegraded,
    /// Not supported yet, and nothing can stand for it: its proxy is not carried over.
    Missing,
    /// Not supported yet; no traffic depends on it.
    NoTrafficDependsOnIt,
}

impl Becomes {
    /// As documents say it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Changed => "kept with another meaning",
            Self::NotNeeded => "needs nothing",
            Self::Http => "needs nothing; from an HTTP proxy dropped",
            Self::HttpDecides => "needs nothing; an HTTP proxy with it is dropped",
            Self::NeedsAllowDegraded => "not supported yet, weaker with `--allow-degraded`",
            Self::Missing => "not supported yet, its proxy is dropped",
            Self::NoTrafficDependsOnIt => "not supported yet, no traffic depends on it",
        }
    }
}

/// Words of which the same is to be said.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// Where they stand.
    pub place: Place,
    /// What becomes of them.
    pub becomes: Becomes,
    /// What rlb does or what to write, as one sentence without a full stop.
    pub say: &'static str,
    /// The words; one that ends in `*` stands for all that begin so.
    pub words: &'static [&'static str],
}

const fn words(
    place: Place,
    becomes: Becomes,
    say: &'static str,
    words: &'static [&'static str],
) -> Words {
    Words {
        place,
        becomes,
        say,
        words,
    }
}

/// The whole table.
pub fn table() -> impl Iterator<Item = &'static Words> {
    let parts = [global::WORDS, proxy::WORDS, line::WORDS];
    parts.into_iter().flatten()
}

/// The table, to look words up in.
#[derive(Debug)]
pub struct Index {
    words: HashMap<(Place, &'static str), &'static Words>,
    families: Vec<(Place, &'static str, &'static Words)>,
}

impl Index {
    /// It is the same for the life of the process.
    pub fn shared() -> &'static Self {
        static INDEX: LazyLock<Index> = LazyLock::new(Index::new);
        &INDEX
    }

    fn new() -> Self {
        let mut index = Self {
            words: HashMap::new(),
            families: Vec::new(),
        };
        for row in table() {
            for word in row.words {
                match word.strip_suffix('*') {
                    Some(start) => index.families.push((row.place, start, row)),
                    None => {
                        index.words.entry((row.place, word)).or_insert(row);
                    }
                }
            }
        }
        index
    }

    /// What becomes of `word`.
    pub fn find(&self, place: Place, word: &str) -> Option<&'static Words> {
        // The life of the key is that of the constants.
        let exact = self.words.get(&(place, word)).copied();
        exact.or_else(|| {
            let mut families = self.families.iter();
            let listed = place != Place::Global || global::is_of_family(word);
            let family =
                families.find(|(at, start, _)| *at == place && listed && word.starts_with(start));
            family.map(|(_, _, row)| *row)
        })
    }

    /// The words of a place, those with a key too, to find a near one.
    pub fn known(&self, place: Place) -> impl Iterator<Item = &'static str> {
        let words = self.words.keys();
        let words = words.filter_map(move |(at, word)| (*at == place).then_some(*word));
        let with_key = declared_at().filter(move |(at, _, _)| *at == place);
        let of_families = global::of_families().filter(move |_| place == Place::Global);
        words
            .chain(with_key.map(|(_, word, _)| word))
            .chain(of_families)
    }
}

/// What rlb says for HAProxy's `key`, in any spelling; it is no key of rlb's.
pub(super) fn hint(key: &str) -> Option<String> {
    let rows = || table().filter(|row| row.place != Place::Section);
    // What says most about a word comes first: a whole one before a family.
    let whole = rows().find(|row| row.words.iter().any(|word| is_word(word, key)));
    let row =
        whole.or_else(|| rows().find(|row| row.words.iter().any(|word| begins(word, key))))?;
    let say = row.say;
    Some(match row.becomes {
        Becomes::Kept
        | Becomes::NeedsAllowDegraded
        | Becomes::Missing
        | Becomes::NoTrafficDependsOnIt => say.to_owned(),
        _ => format!("a keyword of HAProxy's that is no key of rlb's: {say}"),
    })
}

/// The same, for a word that is carried over and is more than one key.
pub(super) fn several_keys(key: &str) -> Option<&'static str> {
    let mut rows =
        table().filter(|row| row.place != Place::Section && row.becomes == Becomes::Kept);
    let row = rows.find(|row| row.words.iter().any(|word| is_word(word, key)))?;
    Some(row.say)
}

fn plain(word: &str) -> String {
    word.to_lowercase().replace(['_', '.', ' '], "-")
}

fn is_word(word: &str, key: &str) -> bool {
    let (word, key) = (plain(word), plain(key));
    word == key || word.strip_prefix("option-") == Some(&key)
}

fn begins(family: &str, key: &str) -> bool {
    family
        .strip_suffix('*')
        .is_some_and(|start| plain(key).starts_with(&plain(start)))
}

/// Whether `word` begins a section of HAProxy's.
pub(super) fn is_section(word: &str) -> bool {
    let mut sections = table().filter(|row| row.place == Place::Section);
    sections.any(|row| row.words.contains(&word))
}

/// The tables of docs/from-haproxy.md.
pub fn document() -> String {
    let mut text = String::new();
    let places = [
        (Place::Section, "Sections"),
        (Place::Global, "`global`"),
        (Place::Proxy, "`defaults`, `frontend`, `backend`, `listen`"),
        (Place::Bind, "`bind`"),
        (Place::Server, "`server`, `default-server`"),
        (Place::Socket, "`stats socket`"),
    ];
    text.push_str("### Words that are keys\n\n| HAProxy | rlb | where |\n|---|---|---|\n");
    for (words, key, place) in declared() {
        let _ = writeln!(text, "| {words} | `{key}` | {place} |");
    }
    for (place, title) in places {
        let _ = write!(
            text,
            "\n### {title}\n\n| HAProxy | becomes | |\n|---|---|---|\n"
        );
        for row in table().filter(|row| row.place == place) {
            let words: Vec<String> = row.words.iter().map(|word| format!("`{word}`")).collect();
            let _ = writeln!(
                text,
                "| {} | {} | {} |",
                words.join(" "),
                row.becomes.text(),
                row.say.replace('|', "\\|")
            );
        }
    }
    text
}

/// The words of HAProxy's that rlb carries over, in the form of `-dKcfg`.
pub fn keywords() -> String {
    let mut places: BTreeMap<(usize, &str), BTreeSet<&str>> = BTreeMap::new();
    let place = |place: Place| match place {
        Place::Section | Place::Global => (0, "global"),
        Place::Socket => (0, "stats socket <addr>"),
        Place::Proxy => (1, "listen"),
        Place::Bind => (1, "bind <addr>"),
        Place::Server => (1, "server <name> <addr>"),
    };
    let rows = table().filter(|row| {
        row.place != Place::Section && matches!(row.becomes, Becomes::Kept | Becomes::Changed)
    });
    let of_rows = rows.flat_map(|row| row.words.iter().map(|word| (row.place, *word)));
    let of_keys = declared_at().map(|(place, word, _)| (place, word));
    for (at, word) in of_rows.chain(of_keys) {
        places.entry(place(at)).or_default().insert(word);
    }
    let mut text = String::new();
    for (section, name) in [(0, "global"), (1, "listen")] {
        let _ = writeln!(text, "{name}");
        for ((_, begin), words) in places.iter().filter(|((of, _), _)| *of == section) {
            for word in words {
                let begin = if *begin == name {
                    String::new()
                } else {
                    format!("{begin} ")
                };
                let _ = writeln!(text, "\t{begin}{word}");
            }
        }
    }
    text
}

/// Every word of HAProxy's that a key is declared for: where it stands, the word, and the key.
fn declared_at() -> impl Iterator<Item = (Place, &'static str, &'static str)> {
    keys::tables().iter().flat_map(|table| {
        let place = table.place;
        let keys = table.keys.iter();
        keys.flat_map(move |listed| {
            let key = listed.key;
            let words = key.haproxy.iter();
            words.map(move |word| (place_of(place, word), *word, key.name))
        })
    })
}

/// Where a word stands that is a key of the table `table`.
fn place_of(table: &str, word: &str) -> Place {
    match table {
        "[global]" | "[log]" | "[[log.target]]" | "[readiness]" => Place::Global,
        "[runtime-api]" => Place::Socket,
        "a bind table" => Place::Bind,
        // `option tcp-check` and `timeout check` are statements.
        _ if word.contains(' ') => Place::Proxy,
        "a server" | "a default-server table" | "a node" | "a check table" => Place::Server,
        _ => Place::Proxy,
    }
}

/// The words that declarations have: words, key, tables.
fn declared() -> Vec<(String, &'static str, String)> {
    let mut rows: Vec<(String, &'static str, Vec<&'static str>)> = Vec::new();
    for table in keys::tables() {
        for listed in &table.keys {
            let key = listed.key;
            if key.haproxy.is_empty() {
                continue;
            }
            let words: Vec<String> = key.haproxy.iter().map(|it| format!("`{it}`")).collect();
            let words = words.join(" ");
            let known = rows
                .iter_mut()
                .find(|(other, name, _)| *other == words && *name == key.name);
            match known {
                Some((_, _, places)) if places.contains(&table.place) => {}
                Some((_, _, places)) => places.push(table.place),
                None => rows.push((words, key.name, vec![table.place])),
            }
        }
    }
    let joined = |places: Vec<&str>| {
        let places = places.iter().map(|place| format!("`{place}`"));
        places.collect::<Vec<_>>().join(", ")
    };
    rows.into_iter()
        .map(|(words, key, places)| (words, key, joined(places)))
        .collect()
}

#[cfg(test)]
mod tests;
