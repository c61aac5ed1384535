//! Events per second, as HAProxy's frequency counters. One writer per shard.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Seconds that are kept. The newest is being counted. The one before is complete and stays readable for two
/// more seconds, so that a reader who is a second late still reads all of it.
const SECONDS: usize = 4;

/// A counter per second, for the last few seconds.
#[derive(Debug, Default)]
pub struct Rate {
    slots: [(AtomicU32, AtomicU32); SECONDS],
}

impl Rate {
    /// Counts one event in second `second` of the process's clock.
    pub fn count(&self, second: u32) {
        let (stamp, events) = &self.slots[second as usize % SECONDS];
        // Stamps are one more than the second, so that an unused slot belongs to no second.
        let mine = second + 1;
        if stamp.load(Relaxed) == mine {
            events.store(events.load(Relaxed).wrapping_add(1), Relaxed);
        } else {
            events.store(1, Relaxed);
            stamp.store(mine, Relaxed);
        }
    }

    /// Forgets all events. Called by the writer.
    pub fn clear(&self) {
        for (stamp, _) in &self.slots {
            stamp.store(0, Relaxed);
        }
    }

    /// Events in second `second`, if it is one of the last few.
    pub fn in_second(&self, second: u32) -> u32 {
        let (stamp, events) = &self.slots[second as usize % SECONDS];
        if stamp.load(Relaxed) == second + 1 {
            events.load(Relaxed)
        } else {
            0
        }
    }
}

/// The rate at `now_ms` of the process's clock over all `shards`: the current second plus the part of the one
/// before that is less than a second old. As HAProxy's `read_freq_ctr`.
pub fn per_second<'a>(shards: impl Iterator<Item = &'a Rate> + Clone, now_ms: u64) -> u32 {
    let second = u32::try_from(now_ms / 1000).unwrap_or(u32::MAX - 1);
    let past = now_ms % 1000;
    let current: u64 = shards
        .clone()
        .map(|rate| u64::from(rate.in_second(second)))
        .sum();
    let Some(before) = second.checked_sub(1) else {
        return u32::try_from(current).unwrap_or(u32::MAX);
    };
    let previous: u64 = shards.map(|rate| u64::from(rate.in_second(before))).sum();
    u32::try_from(current + previous * (1000 - past) / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_second_grows_and_the_last_one_fades() {
        let rate = Rate::default();
        for _ in 0..100 {
            rate.count(7);
        }
        let at = |ms| per_second([&rate].into_iter(), ms);
        assert_eq!(at(7_900), 100);
        assert_eq!(at(8_000), 100);
        assert_eq!(at(8_500), 50);
        assert_eq!(at(9_000), 0);
        rate.count(8);
        assert_eq!(at(8_500), 51);
    }

    #[test]
    fn a_slot_that_comes_round_starts_again() {
        let rate = Rate::default();
        rate.count(1);
        rate.count(5);
        assert_eq!((rate.in_second(1), rate.in_second(5)), (0, 1));
    }

    #[test]
    fn the_first_second_of_the_process_counts() {
        let rate = Rate::default();
        assert_eq!(per_second([&rate].into_iter(), 10), 0);
        rate.count(0);
        assert_eq!(per_second([&rate].into_iter(), 10), 1);
    }
}
