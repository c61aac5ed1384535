//! HAProxy's durations and numbers, as rlb writes them.
//!
//! Pure.

/// The unit of a duration that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Milliseconds,
    Seconds,
}

/// A duration: as rlb writes it, and how many milliseconds it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) text: String,
    pub(super) milliseconds: u64,
}

impl Span {
    pub(super) fn is_zero(&self) -> bool {
        self.milliseconds == 0
    }
}

/// The longest duration, in milliseconds, as in HAProxy.
const MILLISECONDS_MAX: u64 = i32::MAX as u64;

/// `30s`, `500ms`, `5000`: what is written is kept, with its unit.
pub(super) fn span(text: &str, unit: Unit) -> Result<Span, String> {
    span_within(text, unit, (MILLISECONDS_MAX, "24 days"))
}

/// A number of seconds, which HAProxy counts in seconds, up to 68 years. Parts of a second are one more.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let most = (MILLISECONDS_MAX * 1000, "68 years");
    let span = span_within(text, Unit::Seconds, most)?;
    Ok(span.milliseconds.div_ceil(1000))
}

/// A duration of `most` milliseconds, which are so long in words.
fn span_within(text: &str, unit: Unit, most: (u64, &str)) -> Result<Span, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!("`{text}` is not a duration"));
    }
    let (most, in_words) = most;
    let too_long = || format!("`{text}` is too long, the longest duration is {in_words}");
    let value: u64 = number.parse().map_err(|_| too_long())?;
    let rest = match (rest, unit) {
        ("", Unit::Milliseconds) => "ms",
        ("", Unit::Seconds) => "s",
        (rest, _) => rest,
    };
    let (milliseconds, unit) = match rest {
        "us" => (Some(value.div_ceil(1000)), "ms"),
        "ms" => (Some(value), "ms"),
        _ if rest.starts_with('s') => (value.checked_mul(1000), "s"),
        _ if rest.starts_with("ms") => (Some(value), "ms"),
        _ if rest.starts_with("us") => (Some(value.div_ceil(1000)), "ms"),
        // HAProxy warns about what follows the unit, and reads on.
        _ if rest.starts_with('m') => (value.checked_mul(60_000), "m"),
        _ if rest.starts_with('h') => (value.checked_mul(3_600_000), "h"),
        _ if rest.starts_with('d') => (value.checked_mul(86_400_000), "d"),
        _ => {
            return Err(format!(
                "`{rest}` is not a unit of time: us, ms, s, m, h or d"
            ));
        }
    };
    let milliseconds = milliseconds.filter(|it| *it <= most).ok_or_else(too_long)?;
    let text = match (rest, milliseconds) {
        (_, 0) => "0s".to_owned(),
        ("us", _) => format!("{milliseconds}ms"),
        _ if rest.starts_with("us") => format!("{milliseconds}ms"),
        _ => format!("{value}{unit}"),
    };
    Ok(Span { text, milliseconds })
}

/// A number as C's `atol` reads it: what follows the digits is not looked at.
pub(super) fn number(text: &str) -> Result<i64, String> {
    let sign = usize::from(text.starts_with(['-', '+']));
    let digits = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    let value = text[..sign + digits].parse();
    value.map_err(|_| format!("`{text}` is not a number"))
}

/// A file mode as HAProxy reads it, by `strtol`, and as rlb writes it: the bits that are no access are left out. `None`: 0
/// leaves the file as it is.
pub(super) fn file_mode(text: &str) -> Result<Option<String>, String> {
    let bare = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_octal = !bare.is_empty() && bare.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    if !is_octal {
        return Err(format!("`{text}` is not a file mode"));
    }
    let greatest = if text.starts_with('-') {
        i64::MIN
    } else {
        i64::MAX
    };
    let mode = i64::from_str_radix(text, 8).unwrap_or(greatest);
    // HAProxy keeps so many bits of it, and the kernel looks at the last twelve.
    if mode.trailing_zeros() >= u32::BITS {
        return Ok(None);
    }
    let access = mode & 0o777;
    Ok(Some(if access == mode && [3, 4].contains(&text.len()) {
        text.to_owned()
    } else {
        format!("{access:04o}")
    }))
}

/// A file mode as HAProxy reads it in `unix-bind`, by `strtol`: what follows the octal digits is not looked at, and without
/// any it is 0. The bits that are no access are left out.
pub(super) fn leading_file_mode(text: &str) -> Option<String> {
    if let Ok(mode) = file_mode(text) {
        return mode;
    }
    let bare = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = bare.bytes().take_while(|byte| (b'0'..=b'7').contains(byte));
    let digits = &bare[..digits.count()];
    let last = &digits[digits.len().saturating_sub(3)..];
    let mode = u32::from_str_radix(last, 8).unwrap_or(0);
    let mode = if text.starts_with('-') {
        mode.wrapping_neg() & 0o777
    } else {
        mode
    };
    (mode != 0).then(|| format!("{mode:04o}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_keeps_its_unit() {
        let text = |written: &str, unit| span(written, unit).map(|span| span.text);
        for (written, meant) in [
            ("30s", "30s"),
            ("5000", "5000ms"),
            ("1m", "1m"),
            ("24d", "24d"),
            ("1500us", "2ms"),
            ("0", "0s"),
            ("30sec", "30s"),
            ("007s", "7s"),
        ] {
            assert_eq!(text(written, Unit::Milliseconds).as_deref(), Ok(meant));
        }
        assert_eq!(text("10", Unit::Seconds).as_deref(), Ok("10s"));
        for wrong in ["", "s", "1y", "25d", "99999999999999999999s"] {
            assert!(span(wrong, Unit::Milliseconds).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_are_counted_in_seconds() {
        assert_eq!(seconds("100d"), Ok(8_640_000));
        assert_eq!(seconds("1500ms"), Ok(2));
        assert_eq!(seconds("2147483647"), Ok(2_147_483_647));
        assert!(seconds("2147483648").is_err() && seconds("x").is_err());
    }

    #[test]
    fn a_number_ends_at_the_first_letter() {
        assert_eq!(number("2000k"), Ok(2000));
        assert_eq!(number("-1"), Ok(-1));
        assert!(number("many").is_err());
    }

    #[test]
    fn a_file_mode_is_octal() {
        let mode = |text: &str| file_mode(text).expect("it is one");
        assert_eq!(mode("660").as_deref(), Some("660"));
        assert_eq!(mode("0660").as_deref(), Some("0660"));
        assert_eq!(mode("00660").as_deref(), Some("0660"));
        assert_eq!(mode("7").as_deref(), Some("0007"));
        assert_eq!(mode("0"), None);
        for (text, mode) in [
            ("660", Some("660")),
            ("1777", Some("0777")),
            ("+7", Some("0007")),
            ("-1", Some("0777")),
            ("66x", Some("0066")),
            ("888", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(leading_file_mode(text).as_deref(), mode, "{text}");
        }
        assert_eq!(mode("1777").as_deref(), Some("0777"));
        assert_eq!(mode("-1").as_deref(), Some("0777"));
        assert_eq!(mode("+7").as_deref(), Some("0007"));
        assert_eq!(mode("65536000").as_deref(), Some("0000"));
        assert_eq!(mode("-000"), None);
        let long = "7".repeat(40);
        assert_eq!(mode(&long).as_deref(), Some("0777"));
        assert_eq!(mode(&format!("-{long}")), None);
        for wrong in ["", "8", "6x6", "-", "+-7", "0x1ff"] {
            assert!(file_mode(wrong).is_err(), "{wrong}");
        }
    }
}
