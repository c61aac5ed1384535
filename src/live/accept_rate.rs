//! The limit of a rate at which connections are accepted: by the process (`maxconnrate`, `maxsessrate`, `set rate-limit`)
//! or by a frontend (`rate-limit-sessions`). Any thread.
//!
//! HAProxy's window: the connections of the running second count, and of those of the second before the part that is
//! less than a second old. A second begins with the first connection after a rest of two seconds, not with the clock's.
//! Unlike HAProxy's counter, a place is looked for and taken in one step, so that workers that look at the same time
//! take no more places than there are. Nothing is read or written while there is no limit.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Milliseconds of a window.
const SECOND: u64 = 1000;

/// The connections of the last two seconds.
#[derive(Debug, Default)]
pub struct AcceptRate(Mutex<Window>);

#[derive(Debug, Default, Clone, Copy)]
struct Window {
    /// When the running second has begun, in ms since the start of the process.
    begun: u64,
    /// Connections of the running second.
    current: u64,
    /// Connections of the second before it.
    before: u64,
}

impl AcceptRate {
    /// How long no connection may be accepted at `now`, with at most `limit` a second; 0: no limit.
    pub fn pause(&self, limit: u32, now: Duration) -> Duration {
        if limit == 0 {
            return Duration::ZERO;
        }
        let free = self.window().at(millis(now)).free(limit.into());
        Duration::from_millis(free).saturating_sub(now)
    }

    /// Counts a connection, if one may be accepted at `now` with at most `limit` a second; 0: no limit.
    pub fn take(&self, limit: u32, now: Duration) -> bool {
        let mut window = self.window();
        let at = window.at(millis(now));
        let takes = limit == 0 || at.free(limit.into()) <= millis(now);
        if takes {
            *window = at;
            window.current += 1;
        }
        takes
    }

    /// A connection that was counted was not there.
    pub fn give_back(&self) {
        let mut window = self.window();
        // The second may have ended since it was counted.
        if window.current > 0 {
            window.current -= 1;
        } else {
            window.before = window.before.saturating_sub(1);
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    /// The window as it is at `now`.
    fn at(self, now: u64) -> Self {
        match now.saturating_sub(self.begun) {
            _ if self.current + self.before == 0 => Self {
                begun: now,
                ..Self::default()
            },
            age if age < SECOND => self,
            age if age < 2 * SECOND => Self {
                begun: self.begun + SECOND,
                current: 0,
                before: self.current,
            },
            _ => Self {
                begun: now,
                ..Self::default()
            },
        }
    }

    /// From when on one more connection makes no more than `limit` in a second, if none comes until then.
    fn free(self, limit: u64) -> u64 {
        let next = Self {
            begun: self.begun + SECOND,
            current: 0,
            before: self.current,
        };
        self.free_in_its_second(limit)
            .or_else(|| next.free_in_its_second(limit))
            .unwrap_or(next.begun + SECOND)
    }

    /// The same, if it is in the running second.
    fn free_in_its_second(self, limit: u64) -> Option<u64> {
        // Of the second before, `remaining` thousandths count: before * remaining + current * 1000 < limit * 1000.
        let room = (limit * SECOND).checked_sub(self.current * SECOND + 1)?;
        let remaining = room.checked_div(self.before).unwrap_or(SECOND).min(SECOND);
        (remaining > 0).then(|| self.begun + SECOND - remaining)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Takes what it gets from `from` to `to`, and says when.
    fn taken(rate: &AcceptRate, limit: u32, from: u64, to: u64) -> Vec<u64> {
        let mut times = Vec::new();
        let mut now = MS(from);
        while now < MS(to) {
            let pause = rate.pause(limit, now);
            assert_eq!(rate.take(limit, now), pause.is_zero(), "{now:?}");
            if pause.is_zero() {
                times.push(millis(now));
            }
            now += pause;
        }
        times
    }

    /// The numbers are those of HAProxy's `freq_ctr_remain` for the same times.
    #[test]
    fn a_second_s_worth_comes_at_once_and_then_one_by_one() {
        let rate = AcceptRate::default();
        let times = taken(&rate, 10, 5300, 8300);
        assert_eq!(times[..10], [5300; 10]);
        let next: Vec<u64> = (0..10).map(|n| 6301 + n * 100).collect();
        assert_eq!(times[10..20], next, "none in the rest of the second");
        assert_eq!(
            times[20..],
            next.iter().map(|at| at + 1000).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_rest_forgets_and_another_limit_holds_at_once() {
        let rate = AcceptRate::default();
        assert_eq!(taken(&rate, 10, 5000, 5500).len(), 10);
        assert_eq!(rate.pause(10, MS(5500)), MS(501));
        assert_eq!(rate.pause(11, MS(5500)), Duration::ZERO);
        assert_eq!(rate.pause(0, MS(5500)), Duration::ZERO);
        // What is above a limit that was lowered is waited for.
        assert_eq!(rate.pause(1, MS(5500)), MS(500 + 901));
        assert_eq!(taken(&rate, 10, 7000, 7001).len(), 10);
    }

    #[test]
    fn the_part_of_a_second_that_is_old_does_not_count() {
        let rate = AcceptRate::default();
        assert_eq!(taken(&rate, 100, 2000, 2001).len(), 100);
        assert!(
            !rate.take(100, MS(3000)),
            "all of them are less than a second old"
        );
        assert_eq!(taken(&rate, 100, 3250, 3251).len(), 25);
        assert_eq!(taken(&rate, 100, 3500, 3501).len(), 25);
    }

    #[test]
    fn a_limit_of_one_lets_one_through() {
        let rate = AcceptRate::default();
        assert!(rate.take(1, MS(7000)));
        assert_eq!(rate.pause(1, MS(7000)), MS(1001), "as in HAProxy");
        assert!(!rate.take(1, MS(8000)));
        assert!(rate.take(1, MS(8001)));
    }

    #[test]
    fn a_place_that_was_not_needed_is_free_again() {
        let rate = AcceptRate::default();
        assert_eq!(taken(&rate, 3, 9000, 9001).len(), 3);
        rate.give_back();
        assert_eq!(taken(&rate, 3, 9000, 9001).len(), 1);
        // Also when the second has ended since.
        assert!(rate.take(3, MS(10_400)));
        rate.give_back();
        rate.give_back();
        assert_eq!(taken(&rate, 3, 10_400, 10_401).len(), 2);
    }

    /// Threads that look at the same time do not take more than there is.
    #[test]
    fn places_are_exact_over_threads() {
        let rate = AcceptRate::default();
        let taken: usize = std::thread::scope(|scope| {
            let many = || (0..1000).filter(|_| rate.take(500, MS(1000))).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(many)).collect();
            let counts = threads.into_iter().map(|it| it.join().expect("it counts"));
            counts.sum()
        });
        assert_eq!(taken, 500);
    }
}
