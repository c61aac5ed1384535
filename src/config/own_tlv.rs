//! A TLV that rlb makes for a PROXY header of version 2 (`proxy-v2-tlvs`), in rlb's form and in HAProxy's. Pure.

use super::format::{Format, tlv_type};
use super::units::Problem;
use std::fmt;
use std::sync::Arc;

/// HAProxy's word, before the type in parentheses.
const WORD: &str = "set-proxy-v2-tlv-fmt";

/// The type of a header's checksum.
const CHECKSUM: u8 = 0x03;

/// Those of a server, in their order.
pub type OwnTlvs = Arc<[OwnTlv]>;

/// A TLV, and what it says of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnTlv {
    /// Its type.
    pub kind: u8,
    /// Its value.
    pub value: Format,
}

impl OwnTlv {
    /// Reads `0xE1=%[src]`: a type, and a format.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let (kind, value) = text
            .split_once('=')
            .ok_or_else(|| Problem::new("`=` is missing behind the type of a TLV"))?;
        Self::new(tlv_type(kind.trim())?, value)
    }

    /// A TLV of this type with this format.
    ///
    /// # Errors
    /// It is no format, or the type is that of the checksum: every receiver would refuse the header.
    pub fn new(kind: u8, value: &str) -> Result<Self, Problem> {
        if kind == CHECKSUM {
            let problem = Problem::new("a checksum is not a text");
            return Err(problem.hint("`proxy-v2-options = \"crc32c\"` makes it"));
        }
        let value = Format::parse(value)?;
        Ok(Self { kind, value })
    }

    /// The type in HAProxy's `set-proxy-v2-tlv-fmt(0xE1)`, 0 without parentheses; `None`: it is another word.
    ///
    /// # Errors
    /// It is no type. As HAProxy's `strtoul` a number is decimal, `0x` hexadecimal, or octal behind a `0`.
    pub fn haproxy_type(word: &str) -> Option<Result<u8, Problem>> {
        let rest = word.strip_prefix(WORD)?;
        let Some(rest) = rest.strip_prefix('(') else {
            return rest.is_empty().then_some(Ok(0));
        };
        let read = || {
            // What follows the parenthesis is not looked at.
            let (digits, _) = rest.split_once(')')?;
            let hex = digits
                .strip_prefix("0x")
                .or_else(|| digits.strip_prefix("0X"));
            let octal = digits.strip_prefix('0').filter(|rest| !rest.is_empty());
            let (digits, radix) = match (hex, octal) {
                (Some(hex), _) => (hex, 16),
                (None, Some(octal)) => (octal, 8),
                (None, None) => (digits, 10),
            };
            u8::from_str_radix(digits.trim_start(), radix).ok()
        };
        Some(read().ok_or_else(|| {
            Problem::new(format!(
                "`{word}` has no type of a TLV, a number from 0 to 255"
            ))
        }))
    }
}

/// As in the file.
impl fmt::Display for OwnTlv {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "0x{:02X}={}", self.kind, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tlv_is_read_and_written() {
        for (text, as_written) in [
            ("0xE1=%[src]", "0xE1=%[src]"),
            ("authority = a b=c", "0x02= a b=c"),
            ("225=", "0xE1="),
        ] {
            assert_eq!(OwnTlv::parse(text).unwrap().to_string(), as_written);
        }
        for text in [
            "",
            "0xE1",
            "0x100=a",
            "=a",
            "0xE1=%nothing",
            "-1=a",
            "CRC32C=x",
        ] {
            assert!(OwnTlv::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_type_is_read_as_by_strtoul() {
        let read = |word: &str| OwnTlv::haproxy_type(word).map(Result::ok);
        for (word, kind) in [
            ("set-proxy-v2-tlv-fmt(0xE1)", Some(Some(0xE1))),
            ("set-proxy-v2-tlv-fmt(0Xe1)", Some(Some(0xE1))),
            ("set-proxy-v2-tlv-fmt(225)", Some(Some(225))),
            ("set-proxy-v2-tlv-fmt(010)", Some(Some(8))),
            ("set-proxy-v2-tlv-fmt(0)", Some(Some(0))),
            ("set-proxy-v2-tlv-fmt", Some(Some(0))),
            ("set-proxy-v2-tlv-fmt(0xE1)x", Some(Some(0xE1))),
            ("set-proxy-v2-tlv-fmt(256)", Some(None)),
            ("set-proxy-v2-tlv-fmt()", Some(None)),
            ("set-proxy-v2-tlv-fmt(1", Some(None)),
            ("set-proxy-v2-tlv-fmts", None),
            ("proxy-v2-options", None),
        ] {
            assert_eq!(read(word), kind, "{word}");
        }
    }
}
