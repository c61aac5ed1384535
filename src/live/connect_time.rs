//! How long connects to a server take, for `balance = "ewma"`. Workers write it when a server has answered, or has not in
//! time, and read it when they choose.
//!
//! It is a peak-sensitive average over time, as that of Twitter's finagle (`PeakEwma`): a longer time counts at once, and a
//! shorter one by the time that has passed since. Without a connect it is halved again and again, so that a server that was
//! slow is asked again. Who asks a server of which nothing new is known is the only one to do so until it answers, or for
//! [`WAIT`], so that a new server is not flooded.
//!
//! Plain stores: workers that race may lose a time.

use crate::live::timing::millis;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The unit of the times at which something was learnt. Of two that are 248 days apart or more it is not known which is the
/// first: then nothing is halved.
const TICK_MS: u32 = 10;

/// After so long without a connect half of the time is left.
const HALF_LIFE: u32 = ticks(5_000);

/// Shorter times count at most so often: in whole numbers the average would not move in smaller steps.
const STEP: u32 = ticks(100);

/// What was learnt so long ago is to be learnt anew.
const STALE: u32 = ticks(1_000);

/// How long an answer is waited for before another session asks a server of which nothing new is known.
const WAIT: u32 = ticks(1_000);

const fn ticks(millis: u32) -> u32 {
    millis / TICK_MS
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tick(u32);

impl Tick {
    /// `now` on a clock that began at `begun`.
    pub fn of(now: Instant, begun: Instant) -> Self {
        let ticks = millis(now.saturating_duration_since(begun)) / u64::from(TICK_MS);
        Self(low(ticks))
    }

    /// The one with this number.
    #[cfg(test)]
    pub(crate) fn numbered(number: u32) -> Self {
        Self(number)
    }

    /// How many ticks it is behind another one; 0 if it is before that: sessions know the time at which they began.
    fn since(self, before: Self) -> u32 {
        let ticks = self.0.wrapping_sub(before.0);
        if ticks.cast_signed() < 0 { 0 } else { ticks }
    }
}

/// The smoothed time of a server's connects.
#[derive(Debug, Default)]
pub struct ConnectTime {
    /// The time in nanoseconds, at most four seconds, below the tick at which it was learnt; 0 nanoseconds: unknown.
    learnt: AtomicU64,
    /// The tick, and one, at which somebody has begun to learn it anew; 0: nobody has.
    asked: AtomicU32,
}

impl ConnectTime {
    /// A connect has taken so long.
    pub fn learn(&self, took: Duration, now: Tick) {
        let nanos = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX).max(1);
        let (known, at) = self.learnt();
        let passed = now.since(at);
        let left = halved(known, passed);
        if self.asked.load(Relaxed) != 0 {
            self.asked.store(0, Relaxed);
        } else if nanos <= left && passed < STEP {
            return;
        }
        // The part of the old one that has gone is taken from the new one.
        let next = if nanos >= left {
            nanos
        } else {
            left + (nanos - halved(nanos, passed))
        };
        let learnt = u64::from(now.0) << 32 | u64::from(next.max(1));
        self.learnt.store(learnt, Relaxed);
    }

    /// The time for which a server is expected to be connected to, in nanoseconds; the most possible while somebody finds
    /// out about a server that is unknown.
    pub fn expected(&self, now: Tick) -> u32 {
        let (known, at) = self.learnt();
        match (self.is_asked(now), known) {
            (true, 0) => u32::MAX,
            (true, _) => known,
            (false, _) => halved(known, now.since(at)).max(1),
        }
    }

    /// The server is asked now.
    pub fn ask(&self, now: Tick) {
        let (known, at) = self.learnt();
        if known == 0 || now.since(at) >= STALE {
            self.asked.store(now.0.wrapping_add(1).max(1), Relaxed);
        }
    }

    fn is_asked(&self, now: Tick) -> bool {
        let asked = self.asked.load(Relaxed);
        asked != 0 && now.since(Tick(asked.wrapping_sub(1))) < WAIT
    }

    fn learnt(&self) -> (u32, Tick) {
        let learnt = self.learnt.load(Relaxed);
        (low(learnt), Tick(low(learnt >> 32)))
    }
}

/// What is left of a time after so many ticks.
fn halved(nanos: u32, ticks: u32) -> u32 {
    let left = nanos.checked_shr(ticks / HALF_LIFE).unwrap_or(0);
    // In thousandths of a half-life. Between the halvings it falls along a parabola, within 1 % of the power of two.
    let part = u64::from(ticks % HALF_LIFE) * 1_000 / u64::from(HALF_LIFE);
    let gone = u64::from(left) * part * (664_000 - 164 * part) / 1_000_000_000;
    left - u32::try_from(gone).unwrap_or(left)
}

fn low(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u32) -> Tick {
        Tick::numbered(ticks(millis))
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_longer_time_counts_at_once_and_a_shorter_one_by_the_time_that_has_passed() {
        let time = ConnectTime::default();
        time.learn(MS, at(1_000));
        assert_eq!(time.expected(at(1_000)), 1_000_000);
        time.learn(100 * MS, at(1_010));
        assert_eq!(time.expected(at(1_010)), 100_000_000);
        time.learn(MS, at(1_020));
        assert_eq!(
            time.expected(at(1_010)),
            100_000_000,
            "hardly any time has passed"
        );
        for step in 1..=50 {
            time.learn(MS, at(1_010 + 100 * step));
        }
        let half = time.expected(at(6_010));
        assert!((48_000_000..=54_000_000).contains(&half), "{half}");
        for step in 51..=600 {
            time.learn(MS, at(1_010 + 100 * step));
        }
        let all = time.expected(at(61_010));
        assert!((1_000_000..=1_100_000).contains(&all), "{all}");
    }

    #[test]
    fn without_a_connect_it_is_halved_and_one_session_finds_out() {
        let time = ConnectTime::default();
        time.learn(8 * MS, at(0));
        assert_eq!(time.expected(at(5_000)), 4_000_000);
        assert_eq!(time.expected(at(7_500)), 2_836_000);
        assert_eq!(time.expected(at(15_000)), 1_000_000);
        assert_eq!(time.expected(at(1_000_000)), 1);
        time.ask(at(15_000));
        assert_eq!(
            time.expected(at(15_500)),
            8_000_000,
            "somebody waits for its answer"
        );
        assert_eq!(time.expected(at(16_000)), 873_760, "for a second");
        time.ask(at(16_000));
        time.learn(MS / 2, at(16_010));
        let fast = time.expected(at(16_010));
        assert!(fast < 1_500_000, "{fast}");
    }

    #[test]
    fn an_unknown_server_is_asked_by_one_session() {
        let time = ConnectTime::default();
        assert_eq!(time.expected(at(0)), 1);
        time.ask(at(0));
        assert_eq!(time.expected(at(0)), u32::MAX);
        assert_eq!(time.expected(at(1_000)), 1, "it has not answered");
        time.learn(Duration::from_secs(60), at(1_010));
        assert_eq!(time.expected(at(1_010)), u32::MAX, "more than can be told");
    }

    #[test]
    fn the_clock_may_begin_again() {
        let time = ConnectTime::default();
        let last = Tick::numbered(u32::MAX - 4);
        time.learn(8 * MS, last);
        let later = Tick::numbered(last.0.wrapping_add(ticks(5_000)));
        assert_eq!(time.expected(later), 4_000_000);
        assert_eq!(
            time.expected(Tick::numbered(u32::MAX - 9)),
            8_000_000,
            "a session that began before"
        );
        let begun = Instant::now();
        assert_eq!(Tick::of(begun + 25 * MS, begun), Tick::numbered(2));
        assert_eq!(Tick::of(begun, begun + MS), Tick::numbered(0));
    }
}
