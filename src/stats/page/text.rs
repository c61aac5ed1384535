//! Numbers and ages as the page shows them.

/// Separates groups of three digits: narrow, and no line break.
const SPACE: char = '\u{202f}';

/// `1 610 986`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(SPACE);
        }
        text.push(digit);
    }
    text
}

/// The two largest units: `3s`, `1m5s`, `2h3m`, `4d5h`.
pub fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: u64, one: char, small: u64, two: char| match small {
        0 => format!("{large}{one}"),
        _ => format!("{large}{one}{small}{two}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => two(minutes, 'm', seconds % 60, 's'),
        (0, _, _) => two(hours, 'h', minutes % 60, 'm'),
        _ => two(days, 'd', hours % 24, 'h'),
    }
}

/// `16.519 Mbps`
#[expect(clippy::cast_precision_loss, reason = "three decimals are shown")]
pub(super) fn bit_rate(bytes: u64) -> String {
    let bits = bytes as f64 * 8.0;
    if bits >= 1e9 {
        format!("{:.3} Gbps", bits / 1e9)
    } else if bits >= 1e6 {
        format!("{:.3} Mbps", bits / 1e6)
    } else {
        format!("{:.3} kbps", bits / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_in_threes() {
        let plain = |number| grouped(number).replace(SPACE, " ");
        let all: Vec<String> = [0, 999, 1000, 563_930, 1_610_986].map(plain).into();
        assert_eq!(all, ["0", "999", "1 000", "563 930", "1 610 986"]);
    }

    #[test]
    fn ages_have_two_units() {
        let all = [0, 59, 60, 65, 3600, 7380, 86_400, 363_600].map(age);
        assert_eq!(all, ["0s", "59s", "1m", "1m5s", "1h", "2h3m", "1d", "4d5h"]);
    }

    #[test]
    fn bits_have_a_unit() {
        assert_eq!(bit_rate(0), "0.000 kbps");
        assert_eq!(bit_rate(2_064_875), "16.519 Mbps");
        assert_eq!(bit_rate(250_000_000), "2.000 Gbps");
    }
}
