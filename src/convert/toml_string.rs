//! Strings of TOML, and what stands in them.
//!
//! Pure.

use super::address::escaped;
use super::lexer::Word;
use std::fmt::Write;

/// A string of TOML with this content.
pub(super) fn quote(content: &str) -> String {
    let mut out = String::with_capacity(content.len() + 2);
    out.push('"');
    for character in content.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A word as the content of a TOML string.
pub(super) fn string(word: &Word) -> String {
    let plain = || escaped(&word.text);
    word.written.clone().unwrap_or_else(plain)
}
