//! HAProxy's syntax of a line: bytes → words.
//!
//! Quotes, escapes, variables in double quotes, comments, as HAProxy reads them: a backslash at the
//! end of a line stands for itself (no line goes on in the next), and a carriage return ends the
//! line. Pure; each byte is looked at once.

use super::environment::{Environment, Variable};

/// Most words of a line, as in HAProxy.
pub(super) const WORDS_MAX: usize = 64;

/// Most bytes that variables fill in on a line. `setenv` could double the length of one with every line.
const FILLED_MAX: usize = 1024 * 1024;

/// A word of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// What it says, variables filled in.
    pub(super) text: String,
    /// The same as a string of rlb's, with `${NAME}` for each variable; `None` without a variable of
    /// the process.
    pub(super) written: Option<String>,
    /// A variable in it has no value and no default.
    pub(super) unset: Option<String>,
    /// Character of the line at which it begins, from 1.
    pub(super) column: usize,
}

impl Word {
    /// A word of which nothing but the text is known.
    pub(super) fn plain(text: impl Into<String>, column: usize) -> Self {
        Self {
            text: text.into(),
            written: None,
            unset: None,
            column,
        }
    }
}

/// Why a line cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// What is wrong.
    pub(super) message: String,
    /// Character of the line, from 1.
    pub(super) column: usize,
}

/// The words of `line`, which has no line feed.
pub(super) fn split(line: &[u8], environment: &Environment<'_>) -> Result<Vec<Word>, Problem> {
    let mut lexer = Lexer {
        line,
        at: 0,
        environment,
        quote: None,
        words: Vec::new(),
        word: None,
        columns: (0, 1),
        filled: 0,
    };
    lexer.run()?;
    Ok(lexer.words)
}

/// A word that is being read.
#[derive(Default)]
struct Draft {
    text: Vec<u8>,
    written: Option<Vec<u8>>,
    /// A variable has been filled in that cannot be written as `${NAME}`.
    filled: bool,
    unset: Option<String>,
    column: usize,
}

struct Lexer<'a> {
    line: &'a [u8],
    at: usize,
    environment: &'a Environment<'a>,
    /// The quote that is open, and where; whether nothing has come since.
    quote: Option<(u8, usize, bool)>,
    words: Vec<Word>,
    word: Option<Draft>,
    /// Byte of which the column is known, and that column.
    columns: (usize, usize),
    /// Bytes that variables have filled in.
    filled: usize,
}

/// As C's `isspace`.
fn is_space(byte: u8) -> bool {
    byte == b' ' || (b'\t'..=b'\r').contains(&byte)
}

impl Lexer<'_> {
    fn peek(&self, offset: usize) -> u8 {
        self.line.get(self.at + offset).copied().unwrap_or(0)
    }

    /// The column of the byte at `at`, which is not before the last one asked for.
    fn column(&mut self, at: usize) -> usize {
        let (from, column) = self.columns;
        let at = at.clamp(from, self.line.len());
        let passed = &self.line[from..at];
        // Bytes that go on with a character begin none.
        let characters = passed.iter().filter(|byte| *byte & 0xC0 != 0x80).count();
        self.columns = (at, column + characters);
        self.columns.1
    }

    fn problem(&mut self, at: usize, message: impl Into<String>) -> Problem {
        self.columns = (0, 1);
        Problem {
            message: message.into(),
            column: self.column(at),
        }
    }

    fn run(&mut self) -> Result<(), Problem> {
        loop {
            let byte = self.peek(0);
            let quote = self.quote.map(|(quote, ..)| quote);
            match byte {
                _ if self.at >= self.line.len() => break,
                0 | b'\n' | b'\r' => break,
                b'#' if quote.is_none() => break,
                b'"' | b'\'' if quote.is_none_or(|open| open == byte) => self.quote(byte),
                b'\\' if quote != Some(b'\'') => self.escape()?,
                b'$' if quote == Some(b'"') => self.variable()?,
                _ if quote.is_none() && is_space(byte) => {
                    self.end_word()?;
                    while is_space(self.peek(0)) && self.peek(0) != b'\r' && self.peek(0) != b'\n' {
                        self.at += 1;
                    }
                }
                _ => {
                    self.push(byte);
                    self.at += 1;
                }
            }
        }
        if let Some((_, at, _)) = self.quote {
            return Err(self.problem(at, "a quote that is not closed"));
        }
        self.end_word()
    }

    fn quote(&mut self, byte: u8) {
        match self.quote.take() {
            // Nothing between two quotes is an empty word.
            Some((_, _, true)) => {
                self.draft();
            }
            Some(_) => {}
            None => self.quote = Some((byte, self.at, true)),
        }
        self.at += 1;
    }

    fn draft(&mut self) -> &mut Draft {
        if self.word.is_none() {
            let column = self.column(self.at);
            self.word = Some(Draft {
                column,
                ..Draft::default()
            });
        }
        self.word.get_or_insert_default()
    }

    fn push(&mut self, byte: u8) {
        if let Some((_, _, empty)) = &mut self.quote {
            *empty = false;
        }
        let draft = self.draft();
        draft.text.push(byte);
        if let Some(written) = &mut draft.written {
            if byte == b'{' && written.ends_with(b"$") {
                written.push(b'$');
            }
            written.push(byte);
        }
    }

    fn end_word(&mut self) -> Result<(), Problem> {
        let Some(draft) = self.word.take() else {
            return Ok(());
        };
        if self.words.len() == WORDS_MAX {
            let message = format!("more than {WORDS_MAX} words");
            return Err(self.problem(self.at, message));
        }
        if draft.text.contains(&0) {
            return Err(self.problem(self.at, "a zero byte in a word"));
        }
        let written = draft.written.filter(|_| !draft.filled);
        self.words.push(Word {
            text: text(draft.text),
            written: written.map(text),
            unset: draft.unset,
            column: draft.column,
        });
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Problem> {
        let in_double = matches!(self.quote, Some((b'"', ..)));
        let (byte, length) = match self.peek(1) {
            byte @ (b' ' | b'\\' | b'#' | b'\'' | b'"') => (byte, 2),
            b'$' if in_double => (b'$', 2),
            b't' => (b'\t', 2),
            b'n' => (b'\n', 2),
            b'r' => (b'\r', 2),
            b'x' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (Some(high), Some(low)) = (digit(self.peek(2)), digit(self.peek(3))) else {
                    let message = "`\\x` without two hexadecimal digits";
                    return Err(self.problem(self.at, message));
                };
                (u8::try_from(high * 16 + low).unwrap_or_default(), 4)
            }
            _ => (b'\\', 1),
        };
        self.push(byte);
        self.at += length;
        Ok(())
    }

    fn variable(&mut self) -> Result<(), Problem> {
        let begun = self.at;
        self.at += 1;
        let braces = self.peek(0) == b'{';
        self.at += usize::from(braces);
        let first = self.peek(0);
        if !first.is_ascii_alphabetic() && first != b'_' && first != b'.' {
            return Err(self.problem(self.at, "this cannot begin the name of a variable"));
        }
        let start = self.at;
        self.at += 1;
        while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == b'_' {
            self.at += 1;
        }
        let name = text(self.line[start..self.at].to_vec());
        let mut default = None;
        let mut split = false;
        if braces {
            if self.line[self.at..].starts_with(b"[*]") {
                split = true;
                self.at += 3;
            } else if self.peek(0) == b'[' {
                return Err(self.problem(self.at, "expected `[*]`"));
            }
            if self.peek(0) == b'-' {
                let rest = &self.line[self.at + 1..];
                let length = rest.iter().position(|byte| *byte == b'}');
                let Some(length) = length else {
                    return Err(self.problem(begun, "`${` without a closing `}`"));
                };
                default = Some(rest[..length].to_vec());
                self.at += 1 + length;
            }
            if self.peek(0) != b'}' {
                return Err(self.problem(begun, "`${` without a closing `}`"));
            }
            self.at += 1;
        }
        if name.starts_with('.') && !matches!(&*name, ".LINE" | ".FILE" | ".SECTION") {
            return Err(self.problem(start, format!("there is no variable `{name}`")));
        }
        self.fill_in(&name, default.as_deref(), split)
    }

    fn fill_in(&mut self, name: &str, default: Option<&[u8]>, split: bool) -> Result<(), Problem> {
        let variable = self.environment.get(name);
        let by_name = matches!(variable, Variable::Process(_) | Variable::Unset);
        let (value, unset) = match (variable, default) {
            (Variable::Process(value) | Variable::Own(value), _) => (value.into_bytes(), false),
            (Variable::Unset | Variable::Removed, Some(default)) => (default.to_owned(), false),
            (Variable::Removed, None) => (Vec::new(), false),
            (Variable::Unset, None) => (Vec::new(), true),
        };
        self.filled += value.len();
        if self.filled > FILLED_MAX {
            let text = format!("the variables of this line have more than {FILLED_MAX} bytes");
            return Err(self.problem(self.at, text));
        }
        if let Some((_, _, empty)) = &mut self.quote {
            *empty = false;
        }
        if split {
            for byte in value {
                if is_space(byte) {
                    self.end_word()?;
                } else {
                    let draft = self.draft();
                    draft.text.push(byte);
                    draft.filled = true;
                }
            }
            return Ok(());
        }
        let draft = self.draft();
        if unset {
            draft.unset = Some(name.to_owned());
        }
        if draft.written.is_none() {
            draft.written = Some(escaped(&draft.text));
        }
        let ends_in_dollar = draft.text.ends_with(b"$");
        draft.text.extend_from_slice(&value);
        if let Some(written) = &mut draft.written {
            written.extend_from_slice(b"${");
            written.extend_from_slice(name.as_bytes());
            if let Some(default) = default {
                written.push(b'-');
                written.extend_from_slice(default);
            }
            written.push(b'}');
        }
        // `$` before a reference would make it a literal one.
        draft.filled |= !by_name || ends_in_dollar;
        Ok(())
    }
}

/// UTF-8, else Latin-1.
pub(super) fn text(bytes: Vec<u8>) -> String {
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => error
            .as_bytes()
            .iter()
            .map(|byte| char::from(*byte))
            .collect(),
    }
}

fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if *byte == b'{' && out.ends_with(b"$") {
            out.push(b'$');
        }
        out.push(*byte);
    }
    out
}

#[cfg(test)]
mod tests;
