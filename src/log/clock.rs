//! The date of a line. Runs on the log thread.
//!
//! Lines come in bursts, so the text for the last second is kept. It is formatted again for any other second,
//! earlier ones included.

use itoa::Buffer;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::fmt::Write;
use std::time::SystemTime;

/// English month names, whatever the locale: syslog and HAProxy use these.
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Writes dates in HAProxy's format and in one time zone.
#[derive(Debug)]
pub(super) struct Clock {
    zone: TimeZone,
    /// Unix time of [`Clock::text`].
    second: Option<i64>,
    text: String,
}

impl Clock {
    /// A clock that shows the time of `zone`.
    pub(super) fn new(zone: TimeZone) -> Self {
        Self {
            zone,
            second: None,
            text: String::new(),
        }
    }

    /// The time now.
    pub(super) fn now(&self) -> Zoned {
        Timestamp::now().to_zoned(self.zone.clone())
    }

    /// Appends `22/Nov/2026:06:51:57.997`.
    pub(super) fn write(&mut self, line: &mut String, at: SystemTime) {
        // A clock outside the years -9999 to 9999 is shown as 1970.
        let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
        // Rounds down, before 1970 too.
        let millis = at.as_millisecond();
        let second = millis.div_euclid(1000);
        if self.second != Some(second) {
            self.second = Some(second);
            self.text.clear();
            let at = at.to_zoned(self.zone.clone());
            // Writing to a string cannot fail.
            let _ = write!(
                self.text,
                "{:02}/{}/{:04}:{:02}:{:02}:{:02}.",
                at.day(),
                month(&at),
                at.year(),
                at.hour(),
                at.minute(),
                at.second(),
            );
        }
        line.push_str(&self.text);
        let millis = millis.rem_euclid(1000);
        line.push_str(match millis {
            0..10 => "00",
            10..100 => "0",
            _ => "",
        });
        line.push_str(Buffer::new().format(millis));
    }
}

/// `Nov`
pub(super) fn month(at: &Zoned) -> &'static str {
    let index = usize::try_from(at.month() - 1).unwrap_or(0);
    MONTHS.get(index).copied().unwrap_or("Jan")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_has_its_own_date_in_whatever_order() {
        let mut clock = Clock::new(TimeZone::UTC);
        let mut shown = |at: &str| {
            let mut line = String::new();
            clock.write(&mut line, at.parse::<Timestamp>().unwrap().into());
            line
        };
        for _ in 0..2 {
            assert_eq!(
                shown("2026-11-22T06:51:57.007Z"),
                "22/Nov/2026:06:51:57.007"
            );
            assert_eq!(
                shown("2026-11-22T06:51:57.999Z"),
                "22/Nov/2026:06:51:57.999"
            );
            assert_eq!(shown("2026-11-22T06:51:58Z"), "22/Nov/2026:06:51:58.000");
            assert_eq!(shown("1969-12-31T23:59:59.5Z"), "31/Dec/1969:23:59:59.500");
        }
    }
}
