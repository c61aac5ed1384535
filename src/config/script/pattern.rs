//! What an answer is compared with. Pure.

use crate::config::units::Problem;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Most memory of a compiled expression, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// Most ranges of a list of status codes.
const RANGES_MAX: usize = 64;

/// What an answer is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pattern {
    /// It has these bytes; of HTTP, its body has them.
    String(Arc<[u8]>),
    /// The same, written in hexadecimal digits.
    Binary(Arc<[u8]>),
    /// The expression matches it; of HTTP, its body.
    Regex(Regex),
    /// The expression matches its bytes, written as hexadecimal digits.
    BinaryRegex(Regex),
    /// The status of HTTP is one of these.
    Status(StatusRanges),
    /// The expression matches the digits of the status.
    StatusRegex(Regex),
    /// A header of HTTP.
    Header(HeaderMatch),
    /// The first packet of a MySQL server.
    MysqlGreeting,
    /// Its second packet, which accepts the user.
    MysqlOk,
    /// The answer of an LDAP server to a bind.
    LdapBind,
}

/// A header, and what its value is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// Its name, whatever the case of its letters.
    pub name: Arc<str>,
    /// `None`: any value.
    pub value: Option<(MatchMethod, Arc<str>, Option<Regex>)>,
}

/// How a value is compared: HAProxy's `-m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MatchMethod {
    /// It is the same.
    Same,
    /// It begins so.
    Begin,
    /// It ends so.
    End,
    /// It has this in it.
    Within,
    /// The expression matches it.
    Regex,
}

impl MatchMethod {
    /// HAProxy's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "str",
            Self::Begin => "beg",
            Self::End => "end",
            Self::Within => "sub",
            Self::Regex => "reg",
        }
    }
}

/// A regular expression over bytes.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Regex(regex::bytes::Regex);

impl Regex {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let built = regex::bytes::RegexBuilder::new(text)
            .unicode(false)
            .size_limit(REGEX_BYTES_MAX)
            .build();
        built.map(Self).map_err(|error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            let why = last.trim_start_matches("error: ").trim();
            let problem = Problem::new(format!("it is no regular expression: {why}"));
            problem.hint("look-around and back-references are not possible")
        })
    }

    /// Whether it matches a part of `bytes`.
    pub fn is_match(&self, bytes: &[u8]) -> bool {
        self.0.is_match(bytes)
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        self.0.as_str()
    }
}

impl TryFrom<String> for Regex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|problem| problem.message)
    }
}

impl From<Regex> for String {
    fn from(regex: Regex) -> Self {
        regex.text().to_owned()
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Regex {}

impl fmt::Debug for Regex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Regex({:?})", self.text())
    }
}

/// Status codes of HTTP: a list of numbers and ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRanges(Arc<[(u16, u16)]>);

impl StatusRanges {
    /// 200 to 399: what HAProxy expects where nobody says anything.
    pub fn success() -> Self {
        Self([(200, 399)].into())
    }

    /// Reads a list as `200,204,300-399`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let bad = |one: &str| {
            Problem::new(format!("`{one}` is no status of HTTP"))
                .hint("write \"200\", \"200,204\" or \"200-399\"")
        };
        let number = |one: &str, digits: &str| -> Result<u16, Problem> {
            let number = digits.trim().parse().map_err(|_| bad(one))?;
            if (100..=999).contains(&number) {
                Ok(number)
            } else {
                Err(bad(one))
            }
        };
        let range = |one: &str| {
            let (first, last) = one.split_once('-').unwrap_or((one, one));
            let (first, last) = (number(one, first)?, number(one, last)?);
            if first > last {
                let message = format!("the range `{one}` has no status in it");
                return Err(Problem::new(message).hint("write the lower one first"));
            }
            Ok((first, last))
        };
        let ranges: Vec<(u16, u16)> = text.split(',').map(range).collect::<Result<_, _>>()?;
        if ranges.len() > RANGES_MAX {
            let message = format!("it has more than {RANGES_MAX} ranges");
            return Err(Problem::new(message));
        }
        Ok(Self(ranges.into()))
    }

    /// Whether `status` is one of them.
    pub fn has(&self, status: u16) -> bool {
        let mut ranges = self.0.iter();
        ranges.any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl fmt::Display for StatusRanges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str(",")?;
            }
            if first == last {
                write!(formatter, "{first}")?;
            } else {
                write!(formatter, "{first}-{last}")?;
            }
        }
        Ok(())
    }
}
