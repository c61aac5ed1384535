//! Formats of steps in HAProxy's notation, as `%[res.payload(4,0),ltrim(' '),cut_crlf]`: text made of the names of a server
//! and of what it has answered. Pure.

use crate::config::units::Problem;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Longest format, in bytes.
const FORMAT_MAX: usize = 4096;

/// A part of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it is.
    Bytes(Arc<[u8]>),
    /// `%[be_name]`
    Backend,
    /// `%[srv_name]`
    Server,
    /// `%[hostname]`
    Hostname,
    /// `%[res.payload(first,length)]`: a part of the answer.
    Answer {
        /// The first byte.
        first: usize,
        /// How many bytes; 0: all.
        length: usize,
        /// `ltrim(' ')`: without the spaces at its begin.
        trimmed: bool,
        /// `cut_crlf`: up to the end of the line.
        line: bool,
    },
}

/// A format, as written and as read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StepFormat {
    text: Arc<str>,
    parts: Arc<[Part]>,
}

impl StepFormat {
    /// Reads a format.
    ///
    /// # Errors
    /// What in it is not known.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.len() > FORMAT_MAX {
            return Err(Problem::new(format!(
                "it is longer than {FORMAT_MAX} bytes"
            )));
        }
        let (mut parts, mut plain, mut rest) = (Vec::new(), Vec::new(), text);
        while let Some(at) = rest.find('%') {
            let (before, tail) = rest.split_at(at);
            plain.extend_from_slice(before.as_bytes());
            let tail = &tail[1..];
            if let Some(tail) = tail.strip_prefix('%') {
                plain.push(b'%');
                rest = tail;
                continue;
            }
            let Some((expression, tail)) = bracketed(tail) else {
                let message = format!("`%{}` is not known here", first_word(tail));
                let hint = "write `%%` for a percent sign; rlb knows %[be_name], %[srv_name], %[hostname] and %[res.payload(first,length)] here";
                return Err(Problem::new(message).hint(hint));
            };
            if !plain.is_empty() {
                parts.push(Part::Bytes(std::mem::take(&mut plain).into()));
            }
            parts.push(part(expression)?);
            rest = tail;
        }
        plain.extend_from_slice(rest.as_bytes());
        if !plain.is_empty() {
            parts.push(Part::Bytes(plain.into()));
        }
        Ok(Self {
            text: text.into(),
            parts: parts.into(),
        })
    }

    /// A text that stands for itself.
    pub(super) fn plain(text: &'static str) -> Self {
        Self {
            text: text.replace('%', "%%").into(),
            parts: [Part::Bytes(text.as_bytes().into())].into(),
        }
    }

    /// A part of the answer up to the end of its first line, from byte `first` on.
    pub(super) fn line(first: usize, trimmed: bool) -> Self {
        let trim = if trimmed { ",ltrim(' ')" } else { "" };
        Self {
            text: format!("%[res.payload({first},0){trim},cut_crlf]").into(),
            parts: [Part::Answer {
                first,
                length: 0,
                trimmed,
                line: true,
            }]
            .into(),
        }
    }

    /// The answer from byte `first` on.
    pub(super) fn answer(first: usize) -> Self {
        Self {
            text: format!("%[res.payload({first},0)]").into(),
            parts: [Part::Answer {
                first,
                length: 0,
                trimmed: false,
                line: false,
            }]
            .into(),
        }
    }

    /// Its parts, in their order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl TryFrom<String> for StepFormat {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|problem| problem.message)
    }
}

impl From<StepFormat> for String {
    fn from(format: StepFormat) -> Self {
        format.text().to_owned()
    }
}

impl fmt::Display for StepFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// The expression in the brackets that `text` begins with, and what follows them.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('[')?;
    let mut quoted = false;
    let end = inner.find(|c| {
        quoted ^= c == '\'';
        c == ']' && !quoted
    })?;
    Some((&inner[..end], &inner[end + 1..]))
}

fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| c.is_whitespace()).unwrap_or(text.len());
    let end = (0..=end.min(40))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

fn part(expression: &str) -> Result<Part, Problem> {
    let unknown = || {
        let message = format!("`%[{expression}]` is not known here");
        let hint = "rlb knows be_name, srv_name, hostname, and res.payload(first,length) with ltrim(' ') and cut_crlf";
        Problem::new(message).hint(hint)
    };
    match expression {
        "be_name" => return Ok(Part::Backend),
        "srv_name" => return Ok(Part::Server),
        "hostname" => return Ok(Part::Hostname),
        _ => {}
    }
    let inner = expression
        .strip_prefix("res.payload(")
        .or_else(|| expression.strip_prefix("check.payload("))
        .ok_or_else(unknown)?;
    let (arguments, mut rest) = inner.split_once(')').ok_or_else(unknown)?;
    let (first, length) = arguments.split_once(',').ok_or_else(unknown)?;
    let number = |text: &str| -> Result<usize, Problem> {
        let number = text.trim().parse::<u32>().map_err(|_| unknown())?;
        usize::try_from(number).map_err(|_| unknown())
    };
    let (first, length) = (number(first)?, number(length)?);
    let (mut trimmed, mut line) = (false, false);
    while let Some(tail) = rest.strip_prefix(',') {
        if let Some(tail) = tail.strip_prefix("ltrim(' ')") {
            (trimmed, rest) = (true, tail);
        } else if let Some(tail) = tail.strip_prefix("cut_crlf") {
            (line, rest) = (true, tail);
        } else {
            return Err(unknown());
        }
    }
    if !rest.is_empty() {
        return Err(unknown());
    }
    Ok(Part::Answer {
        first,
        length,
        trimmed,
        line,
    })
}
