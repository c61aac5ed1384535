//! The parsers: round trips and refused texts.

use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn durations_round_trip(milliseconds in 0..=2_147_483_647u64) {
        let value = Duration::from_millis(milliseconds);
        prop_assert_eq!(duration(&format_duration(value)), Ok(value));
    }

    #[test]
    fn bare_numbers_are_refused(number: u64) {
        prop_assert!(duration(&number.to_string()).is_err());
    }

    #[test]
    fn nothing_panics(text in "\\PC{0,30}|[0-9.:\\[\\]*/@+-]{0,20}") {
        let _ = (duration(&text), mode(&text), name(&text));
    }
}

#[test]
fn durations_have_a_shortest_and_a_longest() {
    assert_eq!(duration("0s"), Ok(Duration::ZERO));
    assert_eq!(duration(" 1h 30m "), Ok(Duration::from_secs(5400)));
    assert_eq!(duration("2147483647ms"), Ok(DURATION_MAX));
    for bad in ["", "s", "1", "-1s", "1ns", "2147483648ms", "1 fortnight"] {
        assert!(duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn modes_are_octal() {
    assert_eq!(mode("0660"), Ok(0o660));
    assert_eq!(mode("600"), Ok(0o600));
    for bad in ["", "66", "0888", "1777", "+660", "00660", "rw-r--r--"] {
        assert!(mode(bad).is_err(), "{bad}");
    }
}
