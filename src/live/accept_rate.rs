//! The limit of the rate at which the process accepts connections (`set rate-limit`). Any thread.
//!
//! The time is remembered at which the connections so far would have come one by one at the limit. It may be a second
//! ahead: so many connections are accepted at once. Workers that look at the same time may accept one more each, as in
//! HAProxy. Nothing is read or written while there is no limit.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// When the next connection is due at the limit, in ns since the start of the process.
#[derive(Debug, Default)]
pub struct AcceptRate(AtomicU64);

impl AcceptRate {
    /// How long no connection may be accepted at `now`, with at most `limit` a second.
    pub fn pause(&self, limit: u32, now: Duration) -> Duration {
        let earliest = (self.0.load(Relaxed) + interval(limit)).saturating_sub(SECOND);
        Duration::from_nanos(earliest.saturating_sub(nanos(now)))
    }

    /// One was accepted.
    pub fn count(&self, limit: u32, now: Duration) {
        let next = |due: u64| Some(due.max(nanos(now)) + interval(limit));
        // It always changes.
        let _ = self.0.fetch_update(Relaxed, Relaxed, next);
    }
}

fn interval(limit: u32) -> u64 {
    SECOND / u64::from(limit.max(1))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_comes_at_once_and_then_one_by_one() {
        let rate = AcceptRate::default();
        let ms = Duration::from_millis;
        let mut now = ms(5000);
        for _ in 0..10 {
            assert_eq!(rate.pause(10, now), Duration::ZERO);
            rate.count(10, now);
        }
        assert_eq!(rate.pause(10, now), ms(100));
        for _ in 0..5 {
            now += rate.pause(10, now);
            assert_eq!(rate.pause(10, now), Duration::ZERO);
            rate.count(10, now);
            assert_eq!(rate.pause(10, now), ms(100));
        }
        assert_eq!(now, ms(5500));
        // After a rest, the same again; a higher limit comes into force at once.
        assert!(rate.pause(1000, now) <= ms(1));
        assert_eq!(rate.pause(10, ms(9000)), Duration::ZERO);
    }

    #[test]
    fn a_limit_of_one_lets_one_through() {
        let rate = AcceptRate::default();
        let now = Duration::from_secs(7);
        assert_eq!(rate.pause(1, now), Duration::ZERO);
        rate.count(1, now);
        assert_eq!(rate.pause(1, now), Duration::from_secs(1));
    }
}
