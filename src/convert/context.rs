//! What statements are read with: the report, the table of HAProxy's words, the environment; and what
//! all of them need of it.

use super::environment::Environment;
use super::lexer::Word;
use super::proxy::Mark;
use super::report::{At, Outcome, Report};
use super::sections::{Modifier, Statement};
use super::units::{self, Span, Unit};
use super::unix_bind::UnixBind;
use crate::config::haproxy::{Becomes, Index, Place, Words};
use std::collections::HashSet;

/// What statements are read with.
pub(super) struct Context<'a, 'e> {
    pub(super) report: &'a mut Report,
    pub(super) index: &'a Index,
    pub(super) environment: &'a Environment<'e>,
    /// The address of a host name.
    pub(super) resolve: &'a dyn Fn(&str) -> Option<std::net::IpAddr>,
    /// The folder that relative paths are in.
    pub(super) folder: Option<&'a str>,
    /// What `unix-bind` says so far.
    pub(super) unix_bind: UnixBind,
    /// What `global` says of TLS so far.
    pub(super) tls: GlobalTls,
    /// How many words nobody knew.
    pub(super) unknown: usize,
    /// Where formats stand of which it was said that HAProxy refuses them.
    pub(super) told_formats: HashSet<At>,
}

/// What `global` says of TLS.
#[derive(Debug, Clone, Default)]
pub(super) struct GlobalTls {
    /// The folder of relative paths of authorities.
    pub(super) ca_base: Option<String>,
    /// That of certificates.
    pub(super) crt_base: Option<String>,
    /// `ssl-server-verify none`
    pub(super) verify_none: bool,
}

/// Longest word for which a near one is looked for.
const LONGEST_SUGGESTED: usize = 64;
/// Most words that nobody knows for which a near one is looked for.
const SUGGESTIONS_MAX: usize = 200;

impl Context<'_, '_> {
    pub(super) fn kept(&mut self, at: At, keyword: impl AsRef<str>) -> usize {
        self.report.push(at, keyword, Outcome::Kept, "")
    }

    /// The duration of word `index`; what is wrong with it is reported.
    pub(super) fn span(&mut self, statement: &Statement, index: usize, unit: Unit) -> Option<Span> {
        let read = units::span(statement.word(index), unit);
        self.checked(statement, index, read)
    }

    /// The number of word `index`.
    pub(super) fn number(&mut self, statement: &Statement, index: usize) -> Option<i64> {
        let read = units::number(statement.word(index));
        self.checked(statement, index, read)
    }

    /// The number of word `index` as HAProxy's `atol` reads it: without digits it is 0. `None`: a variable in it has no
    /// value, which is reported.
    pub(super) fn number_or_zero(&mut self, statement: &Statement, index: usize) -> Option<i64> {
        let word = statement.words.get(index);
        let is_unset = word.is_none_or(|word| word.unset.is_some());
        if is_unset || word.is_some_and(|word| word.text.contains(|c: char| c.is_ascii_digit())) {
            let text = statement.word(index);
            let begins = text.strip_prefix(['-', '+']).unwrap_or(text);
            if is_unset || begins.starts_with(|c: char| c.is_ascii_digit()) {
                return self.number(statement, index);
            }
        }
        Some(0)
    }

    /// A value that was read, or `None` once what is wrong with it is reported.
    pub(super) fn checked<T>(
        &mut self,
        statement: &Statement,
        index: usize,
        read: Result<T, String>,
    ) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(problem) => {
                let unset = statement
                    .words
                    .get(index)
                    .and_then(|word| word.unset.clone());
                let problem = match (unset, statement.words.get(index)) {
                    (Some(name), _) => format!("the variable `{name}` is not set"),
                    (None, None) => "a value is missing".to_owned(),
                    (None, Some(_)) => problem,
                };
                let keyword = keyword(statement);
                self.report.error(statement.at(index), keyword, problem);
                None
            }
        }
    }

    /// Whether a variable in `word` has no value; then it is said that rlb needs one.
    pub(super) fn is_unset(&mut self, at: At, keyword: &str, word: &Word) -> bool {
        let Some(name) = &word.unset else {
            return false;
        };
        let text = format!("the variable `{name}` is not set here: rlb needs it");
        self.report.push(at, keyword, Outcome::Information, text);
        true
    }

    /// Reports a word of the table; nothing has been done about it yet.
    pub(super) fn mark(&mut self, at: At, keyword: &str, row: &'static Words) -> Mark {
        let outcome = match row.becomes {
            Becomes::Kept => Outcome::Kept,
            Becomes::Changed => Outcome::Changed,
            Becomes::NoTrafficDependsOnIt => Outcome::Unsupported,
            _ => Outcome::NotNeeded,
        };
        let text = match row.becomes {
            Becomes::Kept => "",
            Becomes::Http | Becomes::HttpDecides => "it has no effect on TCP",
            Becomes::NeedsAllowDegraded | Becomes::Missing => {
                "nothing that is carried over needs it"
            }
            _ => row.say,
        };
        Mark {
            entry: self.report.push(at, keyword, outcome, text),
            row,
            front: true,
            back: true,
        }
    }

    /// Reports a word that nobody knows.
    pub(super) fn unknown(&mut self, at: At, place: Place, keyword: &str) {
        let last = keyword.rsplit(' ').next().unwrap_or(keyword);
        let near = |word: &&str| strsim::damerau_levenshtein(word, keyword);
        let longest = keyword.chars().count();
        self.unknown += 1;
        let sought = self.unknown <= SUGGESTIONS_MAX && longest <= LONGEST_SUGGESTED;
        let known = sought.then(|| self.index.known(place));
        // The table has no order; of several that are as near one must always be the same.
        let found = known.into_iter().flatten();
        let found = found.min_by_key(|word| (near(word), std::cmp::Reverse(*word)));
        let close = found.filter(|word| near(word) <= (longest / 3).clamp(1, 3));
        let text = match close {
            Some(word) => format!("HAProxy has no `{last}` here; did you mean `{word}`?"),
            None => format!("HAProxy has no `{last}` here"),
        };
        self.report.error(at, keyword, text);
    }
}

/// The words that name a statement.
pub(super) fn keyword(statement: &Statement) -> String {
    let words = match statement.word(0) {
        "tcp-request" | "tcp-response" if statement.word(1) != "inspect-delay" => 3,
        "option" | "timeout" | "stats" | "monitor" | "external-check" | "tcp-request"
        | "tcp-response" => 2,
        _ => 1,
    };
    let texts = statement.words.iter().take(words);
    let texts: Vec<&str> = texts.map(|word| word.text.as_str()).collect();
    let no = if statement.modifier == Modifier::No {
        "no "
    } else {
        ""
    };
    format!("{no}{}", texts.join(" "))
}
