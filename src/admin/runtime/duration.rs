//! Durations in commands, as HAProxy writes them: a number and perhaps its unit. Pure.

use std::time::Duration;

/// Longest duration: HAProxy's timeouts end at `i32::MAX` milliseconds.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

/// The duration of a number, of units `default` if it has no unit of its own. `None`: it is none, or too long.
pub(super) fn parse(text: &str, default: Duration) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().ok()?;
    let unit = match unit {
        "" => default,
        "us" => Duration::from_micros(1),
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        "d" => Duration::from_secs(86_400),
        _ => return None,
    };
    let duration = unit.checked_mul(number)?;
    (duration <= LONGEST).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_haproxys_units() {
        let second = Duration::from_secs(1);
        for (text, expected) in [
            ("300", Some(Duration::from_secs(300))),
            ("5s", Some(Duration::from_secs(5))),
            ("250ms", Some(Duration::from_millis(250))),
            ("1h", Some(Duration::from_secs(3600))),
            ("0", Some(Duration::ZERO)),
            ("24d", Some(Duration::from_secs(24 * 86_400))),
            ("25d", None),
            ("99999999999", None),
            ("", None),
            ("-1", None),
            ("5 s", None),
            ("5x", None),
        ] {
            assert_eq!(parse(text, second), expected, "{text}");
        }
    }
}
