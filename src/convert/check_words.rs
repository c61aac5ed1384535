//! What the rules of checks are read with: their words as strings of TOML, and why one cannot be carried over.

use super::lexer::Word;
use super::toml_string::{quote, string};
use crate::config::script::{Regex, StepFormat};
use std::borrow::Cow;

/// Keys of a table, as rlb writes them.
pub(super) type Pairs = Vec<(&'static str, String)>;

/// Why a rule cannot be carried over.
pub(super) enum Unread {
    /// rlb does not have it.
    Missing(Cow<'static, str>),
    /// HAProxy does not have it.
    Wrong(String),
}

pub(super) type Read<T> = Result<T, Unread>;

pub(super) fn missing<T>(what: impl Into<Cow<'static, str>>) -> Read<T> {
    Err(Unread::Missing(what.into()))
}

pub(super) fn wrong<T>(what: impl Into<String>) -> Read<T> {
    Err(Unread::Wrong(what.into()))
}

/// Puts values over those of the same keys.
pub(super) fn over(below: &mut Pairs, above: Pairs) {
    for (key, value) in above {
        below.retain(|(known, _)| *known != key);
        below.push((key, value));
    }
}

/// The words of a rule, from the first that was not read on.
pub(super) struct Cursor<'a> {
    words: &'a [Word],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(words: &'a [Word]) -> Self {
        Self { words, at: 0 }
    }

    pub(super) fn next(&mut self) -> Option<&'a Word> {
        let word = self.words.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    pub(super) fn peek(&self) -> &'a str {
        self.words.get(self.at).map_or("", |word| &word.text)
    }

    pub(super) fn value(&mut self, name: &str) -> Read<&'a Word> {
        let value = self.next();
        value.ok_or_else(|| Unread::Wrong(format!("`{name}` needs a value")))
    }
}

/// A word as a string of TOML.
pub(super) fn text(word: &Word) -> Read<String> {
    if word.text.contains('\u{FFFD}') {
        return missing("it has bytes that are no text; write `send-binary` or `expect binary`");
    }
    Ok(quote(&string(word)))
}

/// The same for the expression of a text with lines: the end is also before a last line feed, as in PCRE.
pub(super) fn line_regex(word: &Word) -> Read<String> {
    if word.written.is_some() {
        return regex(word);
    }
    let (mut text, mut escaped, mut in_class) = (String::new(), false, false);
    for letter in word.text.chars() {
        if letter == '$' && !escaped && !in_class {
            text.push_str(r"\n?");
        }
        match letter {
            '[' if !escaped => in_class = true,
            ']' if !escaped => in_class = false,
            _ => {}
        }
        escaped = letter == '\\' && !escaped;
        text.push(letter);
    }
    regex(&Word::plain(text, word.column))
}

/// The same for what is compared with bytes, or sent as such: a byte from 0x80 on is read as a character of Latin-1, and
/// would become two.
pub(super) fn exact(word: &Word) -> Read<String> {
    if word
        .text
        .contains(|letter| ('\u{80}'..='\u{ff}').contains(&letter))
    {
        return missing("it has bytes from 0x80 on; write `send-binary` or `expect binary`");
    }
    text(word)
}

/// A format that checks have.
pub(super) fn format(word: &Word) -> Read<String> {
    match StepFormat::parse(&word.text) {
        Ok(_) => text(word),
        Err(problem) => missing(problem.message),
    }
}

pub(super) fn hex(word: &Word) -> Read<String> {
    let digits = &word.text;
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return wrong(format!(
            "`{digits}` is no even number of hexadecimal digits"
        ));
    }
    Ok(quote(digits))
}

/// What of an expression the crate regex reads in another way than PCRE: operations on classes of characters, recursion, and
/// escapes that are letters or edges of words.
fn differs(text: &str) -> Option<&'static str> {
    let mut in_class = false;
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let here: &[&str] = if in_class {
            &["&&", "~~", "--", r"\v"]
        } else {
            &[r"\<", r"\>", r"\v", "(?R"]
        };
        if let Some(found) = here.iter().find(|it| rest.starts_with(**it)) {
            return Some(*found);
        }
        match letter {
            '[' => in_class = true,
            ']' => in_class = false,
            _ => {}
        }
        let escaped = if letter == '\\' {
            rest.chars().nth(1)
        } else {
            None
        };
        rest = &rest[letter.len_utf8() + escaped.map_or(0, char::len_utf8)..];
    }
    None
}

/// A regular expression that means the same in the crate regex as in PCRE.
pub(super) fn regex(word: &Word) -> Read<String> {
    if let Some(other) = differs(&word.text) {
        return missing(format!(
            "`{other}` means something else to rlb than to HAProxy"
        ));
    }
    match Regex::parse(&word.text) {
        Ok(_) => text(word),
        Err(problem) => missing(problem.message),
    }
}
