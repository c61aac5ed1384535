//! What became of each statement of the files, as text and as JSON.
//!
//! Plain data. Invariant: every statement has an entry, and none says less than what happened.

use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;

/// A place in the files that are converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// Which file, from 0.
    pub file: usize,
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
}

/// What became of a statement; what comes later weighs more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Something to know; nothing was done.
    Information,
    /// Carried over.
    Kept,
    /// Nothing has to be carried over.
    NotNeeded,
    /// Carried over, and it means something else.
    Changed,
    /// Not carried over.
    Dropped,
    /// Not supported yet.
    Unsupported,
    /// Not valid.
    Error,
}

impl Outcome {
    /// As the report says it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Information => "information",
            Self::Kept => "kept",
            Self::NotNeeded => "needs nothing",
            Self::Changed => "kept with another meaning",
            Self::Dropped => "dropped",
            Self::Unsupported => "not supported yet",
            Self::Error => "error",
        }
    }

    /// As JSON says it.
    fn word(self) -> &'static str {
        match self {
            Self::Information => "information",
            Self::Kept => "kept",
            Self::NotNeeded => "not-needed",
            Self::Changed => "changed",
            Self::Dropped => "dropped",
            Self::Unsupported => "unsupported",
            Self::Error => "error",
        }
    }
}

/// What became of one statement, or of one word of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands; `None`: it is about all files.
    pub at: Option<At>,
    /// The section it stands in, counted from 1; 0: none.
    pub section: usize,
    /// Its words without their values: `timeout client`, `server maxconn`.
    pub keyword: Arc<str>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, or what it is now; may be empty for what is kept.
    pub text: Cow<'static, str>,
    /// Whether connections fare otherwise than in HAProxy because of it.
    pub traffic: bool,
}

/// The report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Names of the files.
    pub files: Vec<String>,
    /// All entries; in the order of the files once the conversion has ended.
    pub entries: Vec<Entry>,
    /// The section that is being read.
    pub(super) section: usize,
    /// The first error since the section that is being read has begun: its keyword and its place.
    pub(super) first_error: Option<(Arc<str>, At)>,
    /// How many errors there are.
    pub(super) errors: usize,
    /// The keywords of all entries.
    pub(super) keywords: HashSet<Arc<str>>,
}

/// What is said once of several statements.
struct Group<'a> {
    /// The first.
    entry: &'a Entry,
    lines: Vec<usize>,
    keywords: Vec<&'a str>,
}

impl<'a> Group<'a> {
    fn add(&mut self, entry: &'a Entry) {
        let line = entry.at.map_or(0, |at| at.line);
        if self.lines.last() != Some(&line) && self.lines.len() <= GROUP_LINES_MAX {
            self.lines.push(line);
        }
        if !self.keywords.contains(&&*entry.keyword) && self.keywords.len() < KEYWORDS_MAX {
            self.keywords.push(&entry.keyword);
        }
    }
}

/// Most errors that are listed: nobody reads more, and a file of another kind has one a line.
pub(super) const ERRORS_MAX: usize = 1000;
/// Most words that are named for one group of the text.
const KEYWORDS_MAX: usize = 100;
/// Most lines that are named for one group of the text.
const GROUP_LINES_MAX: usize = 12;

impl Report {
    /// Adds an entry; its number.
    pub(super) fn push(
        &mut self,
        at: At,
        keyword: impl AsRef<str>,
        outcome: Outcome,
        text: impl Into<Cow<'static, str>>,
    ) -> usize {
        let keyword = self.keyword(keyword.as_ref());
        self.entries.push(Entry {
            at: Some(at),
            section: self.section,
            keyword,
            outcome,
            text: text.into(),
            traffic: false,
        });
        self.entries.len() - 1
    }

    /// Entries of the same keyword share it.
    fn keyword(&mut self, keyword: &str) -> Arc<str> {
        if let Some(known) = self.keywords.get(keyword) {
            return Arc::clone(known);
        }
        let new: Arc<str> = keyword.into();
        self.keywords.insert(Arc::clone(&new));
        new
    }

    /// Adds an error. Those beyond [`ERRORS_MAX`] are counted.
    pub(super) fn error(
        &mut self,
        at: At,
        keyword: impl AsRef<str>,
        text: impl Into<Cow<'static, str>>,
    ) {
        self.errors += 1;
        let keyword = self.keyword(keyword.as_ref());
        self.note_error(&keyword, at);
        if self.errors <= ERRORS_MAX {
            self.push(at, keyword, Outcome::Error, text);
        }
    }

    fn note_error(&mut self, keyword: &Arc<str>, at: At) {
        let before = self.first_error.as_ref();
        if before.is_none_or(|(_, before)| at < *before) {
            self.first_error = Some((Arc::clone(keyword), at));
        }
    }

    /// Adds how many errors were counted alone.
    pub(super) fn tell_errors_left(&mut self) {
        let left = self.errors.saturating_sub(ERRORS_MAX);
        if left > 0 {
            let text = format!("{left} more errors");
            self.entries.push(Entry {
                at: None,
                section: 0,
                keyword: "".into(),
                outcome: Outcome::Error,
                text: text.into(),
                traffic: false,
            });
        }
    }

    /// Adds something to know about all of it.
    pub(super) fn information(&mut self, text: String) {
        self.entries.push(Entry {
            at: None,
            section: 0,
            keyword: "".into(),
            outcome: Outcome::Information,
            text: text.into(),
            traffic: false,
        });
    }

    /// Makes entry `index` say more than it did, when `outcome` weighs more.
    pub(super) fn raise(
        &mut self,
        index: usize,
        outcome: Outcome,
        text: impl Into<Cow<'static, str>>,
        traffic: bool,
    ) {
        let entry = &mut self.entries[index];
        if outcome > entry.outcome || (outcome == entry.outcome && traffic && !entry.traffic) {
            entry.outcome = outcome;
            entry.text = text.into();
        }
        entry.traffic |= traffic;
        if let (Outcome::Error, Some(at)) = (outcome, entry.at) {
            let keyword = Arc::clone(&entry.keyword);
            self.note_error(&keyword, at);
        }
    }

    /// Puts the entries in the order of the files.
    pub(super) fn sort(&mut self) {
        self.entries
            .sort_by_key(|entry| entry.at.map_or((1, None), |at| (0, Some(at))));
    }

    /// The numbers of the entries that are `wanted`, by the number of their section.
    pub(super) fn by_section(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Vec<usize>> {
        let mut sections: Vec<Vec<usize>> = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            if wanted(entry) {
                if sections.len() <= entry.section {
                    sections.resize_with(entry.section + 1, Vec::new);
                }
                sections[entry.section].push(index);
            }
        }
        sections
    }

    /// Whether the files hold something that HAProxy refuses too.
    pub fn failed(&self) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| entry.outcome == Outcome::Error)
    }

    /// Whether something that changes traffic was not carried over.
    pub fn changes_traffic(&self) -> bool {
        self.entries.iter().any(|entry| entry.traffic)
    }

    /// How many entries have this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        let entries = self.entries.iter();
        entries.filter(|entry| entry.outcome == outcome).count()
    }

    /// `haproxy.cfg:12:4`.
    pub fn place(&self, at: At) -> String {
        let file = self.files.get(at.file).map_or("", String::as_str);
        format!("{file}:{}:{}", at.line, at.column)
    }

    /// A line for each entry. What is said of several statements of a section is said once. `all`:
    /// what was kept too.
    pub fn text(&self, all: bool) -> String {
        let mut groups: Vec<Group<'_>> = Vec::new();
        let mut known: HashMap<(usize, Outcome, &str), usize> = HashMap::new();
        for entry in &self.entries {
            if entry.outcome == Outcome::Kept && !all {
                continue;
            }
            let alone = entry.outcome == Outcome::Error || entry.text.is_empty();
            let key = (entry.section, entry.outcome, &*entry.text);
            let found = known.get(&key).filter(|_| !alone && entry.at.is_some());
            let index = found.copied().unwrap_or_else(|| {
                groups.push(Group {
                    entry,
                    lines: Vec::new(),
                    keywords: Vec::new(),
                });
                groups.len() - 1
            });
            if entry.at.is_some() {
                known.insert(key, index);
            }
            groups[index].add(entry);
        }
        groups.iter().fold(String::new(), |mut out, group| {
            let _ = writeln!(out, "{}", self.line(group));
            out
        })
    }

    fn line(&self, group: &Group<'_>) -> String {
        let (outcome, text) = (group.entry.outcome.text(), &group.entry.text);
        let Some(at) = group.entry.at else {
            return format!("{outcome}: {text}");
        };
        let mut place = self.place(at);
        for line in &group.lines[1..] {
            let _ = write!(place, ", {line}");
        }
        let keywords = group.keywords.join(", ");
        match &**text {
            text if keywords.is_empty() => format!("{place}: {outcome}: {text}"),
            "" => format!("{place}: {outcome}: {keywords}"),
            text => format!("{place}: {outcome}: {keywords}: {text}"),
        }
    }

    /// One line that counts.
    pub fn summary(&self) -> String {
        let all = [
            Outcome::Kept,
            Outcome::Changed,
            Outcome::NotNeeded,
            Outcome::Unsupported,
            Outcome::Dropped,
            Outcome::Error,
        ];
        let counted = all.map(|outcome| (self.count(outcome), outcome.text()));
        let counted = counted.iter().filter(|(count, _)| *count > 0);
        let counted: Vec<String> = counted.map(|(n, what)| format!("{n} {what}")).collect();
        if counted.is_empty() {
            "nothing to convert".to_owned()
        } else {
            counted.join(", ")
        }
    }

    /// What `rlb convert --format json` prints, without the configuration.
    pub fn to_json(&self) -> Value {
        let entries = self.entries.iter().map(|entry| {
            let file = entry.at.and_then(|at| self.files.get(at.file));
            json!({
                "file": file,
                "line": entry.at.map(|at| at.line),
                "column": entry.at.map(|at| at.column),
                "keyword": (!entry.keyword.is_empty()).then_some(&entry.keyword),
                "outcome": entry.outcome.word(),
                "text": (!entry.text.is_empty()).then_some(&entry.text),
                "traffic": entry.traffic,
            })
        });
        json!({
            "files": self.files,
            "valid": !self.failed(),
            "changes-traffic": self.changes_traffic(),
            "entries": entries.collect::<Vec<_>>(),
        })
    }
}
