//! When a session ends because of its age (`max-session-age`). Pure but for the clock.

use super::conn::Conn;
use super::quiet::{QUIET_MS, quiet_from};
use crate::live::timing::millis;
use std::time::{Duration, UNIX_EPOCH};

/// The age of a session whose backend has `max-session-age`, and its limit, ms.
pub(super) struct Ages {
    age: u64,
    limit: u64,
}

impl Ages {
    /// # Hot path: two branches where the backend does not limit the age.
    #[inline]
    pub(super) fn of(conn: &Conn) -> Option<Self> {
        let most = conn.stats.backend.as_ref()?.spec.max_session_age;
        if most.is_zero() {
            None
        } else {
            Some(Self::limited(conn, most))
        }
    }

    #[cold]
    fn limited(conn: &Conn, most: Duration) -> Self {
        let began = conn.stats.accepted_at().duration_since(UNIX_EPOCH);
        Self {
            age: millis(conn.stats.age()),
            limit: spread(millis(most), began.map_or(0, |it| it.subsec_nanos())),
        }
    }

    /// When the session ends, whatever moves: at twice the age, and not before it could have been quiet.
    pub(super) fn latest(&self, now: u64) -> u64 {
        let latest = self.limit.saturating_mul(2).max(self.limit + 2 * QUIET_MS);
        now.saturating_add(latest).saturating_sub(self.age)
    }

    /// When the session ends if nothing moves until then. It waits for a quiet moment.
    pub(super) fn end(&self, conn: &Conn, now: u64) -> u64 {
        let latest = self.latest(now);
        let old = (now + self.limit).saturating_sub(self.age);
        // What it waits for makes no entry in the wheel: it is looked at again.
        let quiet = quiet_from(conn).unwrap_or(now + QUIET_MS);
        old.max(quiet).min(latest)
    }
}

/// An age of which a tenth is spread: `number` is any number of the session's own.
fn spread(age: u64, number: u32) -> u64 {
    // Multiplied by a constant of Knuth's hash, because clocks may count in larger steps.
    let part = u64::from(number.wrapping_mul(2_654_435_761) >> 16) * 200 / (1 << 16);
    age.saturating_mul(900 + part) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sessions that began together end over a fifth of the age, evenly.
    #[test]
    fn ages_are_spread() {
        let ages: Vec<u64> = (0..1_000).map(|n| spread(1_000_000, n * 1_000)).collect();
        assert!(ages.iter().all(|age| (900_000..1_100_000).contains(age)));
        for tenth in 0..10 {
            let from = 900_000 + 20_000 * tenth;
            let many = ages
                .iter()
                .filter(|age| (from..from + 20_000).contains(*age));
            let many = many.count();
            assert!((50..200).contains(&many), "{many} from {from} on");
        }
        assert_eq!(spread(u64::MAX, 7), u64::MAX / 1_000);
    }
}
