//! Formats in HAProxy's notation, as `%{+X}o %ci:%cp_%fi:%fp_%Ts_%rt:%pid`: text made of what is known of a session when it
//! begins. Pure: whoever writes one says what the values are.

use super::units::Problem;
use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;

/// Longest format, in bytes.
const FORMAT_MAX: usize = 1024;

/// Longest text of a `unique-id-format`, as in HAProxy: its buffer has room for one byte more.
pub const UNIQUE_ID_MAX: usize = 127;

/// A value of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// The client's address.
    ClientIp,
    /// Its port.
    ClientPort,
    /// The address that it connected to.
    FrontendIp,
    /// Its port.
    FrontendPort,
    /// The name of the frontend.
    Frontend,
    /// The name of the machine.
    Hostname,
    /// The number of the process.
    Pid,
    /// The number of the session.
    Counter,
    /// When it was accepted: seconds since 1970.
    Seconds,
    /// The milliseconds of that second.
    Milliseconds,
    /// What `unique-id-format` has made.
    UniqueId,
    /// The first TLV of this type in the client's PROXY header.
    Tlv(u8),
    /// A random UUID (version 4).
    Uuid4,
    /// One that begins with the time (version 7).
    Uuid7,
}

/// What a [`Value`] is of one session.
#[derive(Debug)]
pub enum Given<'a> {
    /// There is none.
    Nothing,
    /// An address.
    Ip(IpAddr),
    /// A number.
    Number(u64),
    /// Anything else.
    Bytes(Cow<'a, [u8]>),
}

/// `%ci` and the like, and how many digits each has at least as a hexadecimal number.
const TAGS: [(&str, Value, usize); 12] = [
    ("ci", Value::ClientIp, 0),
    ("cp", Value::ClientPort, 4),
    ("fi", Value::FrontendIp, 0),
    ("fp", Value::FrontendPort, 4),
    ("f", Value::Frontend, 0),
    // A frontend of TCP has no `~` behind its name.
    ("ft", Value::Frontend, 0),
    ("H", Value::Hostname, 0),
    ("pid", Value::Pid, 4),
    ("rt", Value::Counter, 4),
    ("Ts", Value::Seconds, 4),
    ("ms", Value::Milliseconds, 2),
    ("ID", Value::UniqueId, 0),
];

/// The tag that sets flags for all that follow.
const GLOBAL: &str = "o";

/// Digits of `%ms`.
const MILLISECOND_DIGITS: usize = 3;

/// `%[src]` and the like.
const SAMPLES: [(&str, Value); 11] = [
    ("src", Value::ClientIp),
    ("src_port", Value::ClientPort),
    ("dst", Value::FrontendIp),
    ("dst_port", Value::FrontendPort),
    ("fe_name", Value::Frontend),
    ("hostname", Value::Hostname),
    ("pid", Value::Pid),
    ("unique-id", Value::UniqueId),
    ("fc_pp_authority", Value::Tlv(0x02)),
    ("fc_pp_unique_id", Value::Tlv(0x05)),
    ("uuid", Value::Uuid4),
];

/// HAProxy's names of types of TLVs.
const TLV_NAMES: [(&str, u8); 12] = [
    ("ALPN", 0x01),
    ("AUTHORITY", 0x02),
    ("CRC32C", 0x03),
    ("NOOP", 0x04),
    ("UNIQUE_ID", 0x05),
    ("SSL", 0x20),
    ("SSL_VERSION", 0x21),
    ("SSL_CN", 0x22),
    ("SSL_CIPHER", 0x23),
    ("SSL_SIG_ALG", 0x24),
    ("SSL_KEY_ALG", 0x25),
    ("NETNS", 0x30),
];

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Flags {
    /// `+X`: a number or an address as hexadecimal digits.
    hex: bool,
    /// `+Q`: in quotes.
    quoted: bool,
    /// `+M`: `-` where there is nothing.
    mandatory: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// Several of them are one, and there is none at the begin.
    Space,
    Tag(Value, usize, Flags),
    /// `true`: as hexadecimal digits, by the converter `hex`.
    Sample(Value, bool, Flags),
}

/// A format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    text: Arc<str>,
    parts: Arc<[Part]>,
}

/// What becomes of bytes that are no printable text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// They stay.
    None,
    /// This letter and two hexadecimal digits.
    With(char),
}

impl Format {
    /// Reads a format.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.len() > FORMAT_MAX {
            let message = format!("a format of more than {FORMAT_MAX} bytes");
            return Err(Problem::new(message));
        }
        let mut parts = Vec::new();
        let mut flags = Flags::default();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('%') {
                rest = item(after, &mut flags, &mut parts)?;
            } else if let Some(after) = rest.strip_prefix(' ') {
                parts.push(Part::Space);
                rest = after;
            } else {
                let end = rest.find(['%', ' ']).unwrap_or(rest.len());
                let (literal, after) = rest.split_at(end);
                push_text(&mut parts, literal);
                rest = after;
            }
        }
        Ok(Self {
            text: text.into(),
            parts: parts.into(),
        })
    }

    /// As it is written in the file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it makes no text at all.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether it has this value.
    pub fn has(&self, value: Value) -> bool {
        self.values().any(|own| own == value)
    }

    fn values(&self) -> impl Iterator<Item = Value> {
        self.parts.iter().filter_map(|part| match part {
            Part::Tag(value, ..) | Part::Sample(value, ..) => Some(*value),
            Part::Text(_) | Part::Space => None,
        })
    }

    /// The same with `-` where there is no value, as in HAProxy's log lines.
    #[must_use]
    pub fn mandatory(&self) -> Self {
        let parts = self.parts.iter().cloned().map(|part| match part {
            Part::Tag(value, digits, flags) => {
                let mandatory = true;
                Part::Tag(value, digits, Flags { mandatory, ..flags })
            }
            Part::Sample(value, hex, flags) => {
                let mandatory = true;
                Part::Sample(value, hex, Flags { mandatory, ..flags })
            }
            other => other,
        });
        Self {
            text: Arc::clone(&self.text),
            parts: parts.collect(),
        }
    }

    /// The text of a session with these values, `most` bytes of it. As in HAProxy it ends before a number or a literal
    /// that does not fit, and a text is cut.
    pub fn write<'a>(
        &self,
        most: usize,
        escape: Escape,
        mut value: impl FnMut(Value) -> Given<'a>,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        let mut after_space = true;
        for part in &*self.parts {
            let (piece, may_cut) = match part {
                Part::Space if after_space => continue,
                Part::Space => (b" ".to_vec(), false),
                Part::Text(text) => (text.as_bytes().to_vec(), false),
                Part::Tag(of, digits, flags) => tag((*of, value(*of)), *digits, *flags),
                Part::Sample(of, hex, flags) => sample(&value(*of), *hex, *flags, escape),
            };
            after_space = *part == Part::Space;
            let room = most.saturating_sub(out.len());
            if piece.len() <= room {
                out.extend(piece);
            } else if may_cut {
                out.extend_from_slice(&piece[..room]);
                break;
            } else {
                break;
            }
        }
        out
    }
}

impl fmt::Display for Format {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

fn push_text(parts: &mut Vec<Part>, literal: &str) {
    if let Some(Part::Text(before)) = parts.last_mut() {
        *before = format!("{before}{literal}").into();
    } else {
        parts.push(Part::Text(literal.into()));
    }
}

/// Reads what stands behind a `%`, and returns what follows it.
fn item<'t>(text: &'t str, global: &mut Flags, parts: &mut Vec<Part>) -> Result<&'t str, Problem> {
    if let Some(after) = text.strip_prefix('%') {
        push_text(parts, "%");
        return Ok(after);
    }
    if text.starts_with('(') {
        let problem = Problem::new("an item of a format has no name here");
        return Err(problem.hint("leave out the parentheses behind `%`: names are for JSON"));
    }
    let mut flags = *global;
    let mut rest = text;
    if let Some(after) = text.strip_prefix('{') {
        let (words, after) = after
            .split_once('}')
            .ok_or_else(|| Problem::new("`}` is missing in a format"))?;
        set_flags(words, &mut flags)?;
        rest = after;
    }
    if let Some(after) = rest.strip_prefix('[') {
        let (expression, after) = after
            .split_once(']')
            .ok_or_else(|| Problem::new("`]` is missing in a format"))?;
        let (value, hex) = expression_of(expression)?;
        parts.push(Part::Sample(value, hex, flags));
        return Ok(after);
    }
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric());
    let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
    if name.is_empty() {
        let problem = Problem::new("a `%` in a format without a tag behind it");
        return Err(problem.hint("write `%%` for the character itself"));
    }
    if name == GLOBAL {
        *global = flags;
        return Ok(after);
    }
    let known = TAGS.iter().find(|(own, ..)| *own == name);
    let Some((_, value, digits)) = known else {
        let all = TAGS.iter().map(|(own, ..)| format!("%{own}"));
        let all: Vec<String> = all.collect();
        let problem = Problem::new(format!("`%{name}` is not known when a session begins"));
        return Err(problem.hint(format!("there is {}", all.join(" "))));
    };
    parts.push(Part::Tag(*value, *digits, flags));
    Ok(after)
}

/// `+X,-Q`.
fn set_flags(words: &str, flags: &mut Flags) -> Result<(), Problem> {
    for word in words.split(',').filter(|word| !word.is_empty()) {
        let on = !word.starts_with('-');
        match word.trim_start_matches(['+', '-']) {
            "X" => flags.hex = on,
            "Q" => flags.quoted = on,
            "M" => flags.mandatory = on,
            _ => {
                let problem = Problem::new(format!("`{word}` is no flag of a format here"));
                return Err(problem.hint(
                    "there is `+X`, hexadecimal, `+Q`, in quotes, and `+M`, `-` for nothing",
                ));
            }
        }
    }
    Ok(())
}

/// `fc_pp_tlv(0xE0),hex`.
fn expression_of(text: &str) -> Result<(Value, bool), Problem> {
    let text = text.trim();
    let (fetch, converters) = match text.split_once(',') {
        Some((fetch, converters)) => (fetch.trim_end(), Some(converters.trim())),
        None => (text, None),
    };
    if converters.is_some_and(|converters| converters != "hex") {
        let problem = Problem::new(format!(
            "rlb cannot convert by `{}`",
            converters.unwrap_or_default()
        ));
        return Err(problem.hint("`hex` is possible behind a sample"));
    }
    let (name, argument) = match fetch.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')')),
        None => (fetch, Some("")),
    };
    let argument = argument.ok_or_else(|| Problem::new(format!("`)` is missing in `{fetch}`")))?;
    let value = match (name, argument.trim()) {
        ("fc_pp_tlv", kind) => Value::Tlv(tlv_type(kind)?),
        ("uuid", "7") => Value::Uuid7,
        ("uuid", "4") => Value::Uuid4,
        (name, "") => {
            let known = SAMPLES.iter().find(|(own, _)| *own == name);
            let known = known.map(|(_, value)| *value);
            known.ok_or_else(|| unknown_sample(fetch))?
        }
        _ => return Err(unknown_sample(fetch)),
    };
    Ok((value, converters.is_some()))
}

fn unknown_sample(fetch: &str) -> Problem {
    let all: Vec<&str> = SAMPLES.iter().map(|(own, _)| *own).collect();
    let problem = Problem::new(format!("`{fetch}` is not known when a session begins"));
    problem.hint(format!("there is {}, fc_pp_tlv(TYPE)", all.join(", ")))
}

/// The type of a TLV: a number from 0 to 255, decimal, `0x` hexadecimal, or HAProxy's name.
///
/// # Errors
/// It is none.
pub fn tlv_type(text: &str) -> Result<u8, Problem> {
    let named = TLV_NAMES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text));
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = hex.map_or((text, 10), |hex| (hex, 16));
    let number = u8::from_str_radix(digits, radix).ok();
    let number = number.filter(|_| !digits.starts_with('+'));
    named.map(|(_, kind)| *kind).or(number).ok_or_else(|| {
        let problem = Problem::new(format!("`{text}` is no type of a TLV"));
        problem.hint("write a number from 0 to 255, as 0xE4, or a name, as AUTHORITY")
    })
}

/// A tag's text, and whether it may be cut.
fn tag((of, value): (Value, Given<'_>), digits: usize, flags: Flags) -> (Vec<u8>, bool) {
    let text = match value {
        Given::Ip(ip) if flags.hex => return (hex_of(&octets(ip)).into_bytes(), false),
        Given::Number(number) if flags.hex => {
            return (format!("{number:0digits$X}").into_bytes(), false);
        }
        Given::Number(number) if of == Value::Milliseconds => {
            return (format!("{number:0MILLISECOND_DIGITS$}").into_bytes(), false);
        }
        Given::Number(number) => return (number.to_string().into_bytes(), false),
        Given::Nothing => Vec::new(),
        Given::Ip(ip) => ip.to_string().into_bytes(),
        Given::Bytes(bytes) => bytes.into_owned(),
    };
    (finished(text, flags), true)
}

/// A sample's text.
fn sample(value: &Given<'_>, hex: bool, flags: Flags, escape: Escape) -> (Vec<u8>, bool) {
    let text = match value {
        Given::Nothing => Vec::new(),
        Given::Ip(ip) if hex => hex_of(&octets(*ip)).into_bytes(),
        Given::Ip(ip) => ip.to_string().into_bytes(),
        // As in HAProxy, where a number is one of eight bytes.
        Given::Number(number) if hex => format!("{number:016X}").into_bytes(),
        Given::Number(number) => number.to_string().into_bytes(),
        Given::Bytes(bytes) if hex => hex_of(bytes).into_bytes(),
        Given::Bytes(bytes) => escaped(bytes, escape),
    };
    (finished(text, flags), true)
}

fn finished(text: Vec<u8>, flags: Flags) -> Vec<u8> {
    if flags.quoted {
        return [b"\"", &*text, b"\""].concat();
    }
    if text.is_empty() && flags.mandatory {
        return b"-".to_vec();
    }
    text
}

fn escaped(bytes: &[u8], escape: Escape) -> Vec<u8> {
    let Escape::With(letter) = escape else {
        return bytes.to_vec();
    };
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_ascii_control() {
                // Writing to a string cannot fail.
                let _ = write!(out, "{letter}{:02X}", u32::from(c));
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "{letter}{byte:02X}");
        }
    }
    out.into_bytes()
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02X}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(format: &str, most: usize) -> String {
        let value = |value| match value {
            Value::ClientIp => Given::Ip([127, 0, 0, 1].into()),
            Value::ClientPort => Given::Number(0x8296),
            Value::FrontendIp => Given::Ip("2001:db8::1e".parse().unwrap()),
            Value::FrontendPort => Given::Number(80),
            Value::Frontend => Given::Bytes(b"fe"[..].into()),
            Value::Hostname => Given::Bytes(b"lb1"[..].into()),
            Value::Pid => Given::Number(0x790A),
            Value::Counter => Given::Number(3),
            Value::Seconds => Given::Number(0x4F7B_0A69),
            Value::Milliseconds => Given::Number(7),
            Value::Tlv(0xE0) => Given::Bytes(b"a\x01\xFFz"[..].into()),
            Value::UniqueId | Value::Tlv(_) | Value::Uuid4 | Value::Uuid7 => Given::Nothing,
        };
        let format = Format::parse(format).unwrap_or_else(|problem| panic!("{problem:?}"));
        let bytes = format.write(most, Escape::With('#'), value);
        String::from_utf8(bytes).unwrap()
    }

    /// The first one is the example of HAProxy's manual, but for an address of IPv6.
    #[test]
    fn a_format_is_written_as_haproxy_writes_it() {
        for (format, expected) in [
            (
                "%{+X}o %ci:%cp_%fi:%fp_%Ts_%rt:%pid",
                "7F000001:8296_20010DB800000000000000000000001E:0050_4F7B0A69_0003:790A",
            ),
            ("%ci:%cp", "127.0.0.1:33430"),
            ("%fi", "2001:db8::1e"),
            ("%{+X}ms %ms", "07 007"),
            ("%{+X}o %{-X}cp %cp", "33430 8296"),
            ("  a   b ", "a b "),
            ("100%%", "100%"),
            ("%{+Q}f%[fe_name]%H", "\"fe\"felb1"),
            ("%[fc_pp_tlv(0xE0)]", "a#01#FFz"),
            ("%[fc_pp_tlv(224),hex]", "6101FF7A"),
            ("<%[fc_pp_authority]>", "<>"),
            ("%{+M}[fc_pp_tlv(netns)]", "-"),
            ("%[src]:%[src_port,hex]", "127.0.0.1:0000000000008296"),
        ] {
            assert_eq!(text(format, 1000), expected, "{format}");
        }
        let line = Format::parse("%[fc_pp_authority]|%ID").unwrap().mandatory();
        let line = line.write(100, Escape::None, |_| Given::Nothing);
        assert_eq!(line, b"-|-");
    }

    #[test]
    fn what_does_not_fit_is_left_out_or_cut() {
        assert_eq!(text("ab%cp", 7), "ab33430");
        assert_eq!(text("ab%cp", 6), "ab");
        assert_eq!(text("ab%H%cp", 4), "ablb");
        assert_eq!(text("abc", 2), "");
    }

    #[test]
    fn what_is_no_format_is_refused() {
        for (format, part) in [
            ("%", "without a tag"),
            ("% a", "without a tag"),
            ("%9", "`%9` is not known"),
            ("%Tt", "`%Tt` is not known"),
            ("%{+X", "`}` is missing"),
            ("%{+E}ci", "`+E` is no flag"),
            ("%[src", "`]` is missing"),
            ("%[src,upper]", "convert by `upper`"),
            ("%[req.hdr(x)]", "`req.hdr(x)` is not known"),
            ("%[fc_pp_tlv(256)]", "`256` is no type"),
            ("%[fc_pp_tlv(0x+1)]", "`0x+1` is no type"),
            ("%[fc_pp_tlv(x)]", "`x` is no type"),
            ("%[fc_pp_tlv(]", "`)` is missing"),
            ("%(name)ci", "has no name"),
        ] {
            let problem = Format::parse(format).unwrap_err();
            assert!(
                problem.message.contains(part),
                "{format}: {}",
                problem.message
            );
        }
        assert!(Format::parse(&"a".repeat(FORMAT_MAX + 1)).is_err());
        assert!(Format::parse("").unwrap().is_empty());
    }
}
