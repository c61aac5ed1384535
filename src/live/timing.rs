//! Times as statistics and logs count them: whole milliseconds, and sliding averages, as HAProxy's `swrate`. One writer
//! per shard. And the clock that all processes of a machine share.

use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The whole milliseconds of `time`.
///
/// # Hot path: [`Duration::as_millis`] calculates with 128 bits.
pub fn millis(time: Duration) -> u64 {
    let whole = time.as_secs().saturating_mul(1000);
    whole.saturating_add(time.subsec_millis().into())
}

/// The whole nanoseconds of `time`, of 584 years at most.
///
/// # Hot path: [`Duration::as_nanos`] calculates with 128 bits.
pub fn nanos(time: Duration) -> u64 {
    let whole = time.as_secs().saturating_mul(1_000_000_000);
    whole.saturating_add(time.subsec_nanos().into())
}

/// The monotonic clock's time, by which processes tell each other when something began.
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Sessions in the window of an average (HAProxy's `TIME_STATS_SAMPLES`).
const SAMPLES_MAX: u64 = 512;

/// The average of the last few hundred values.
#[derive(Debug, Default)]
pub struct Average {
    sum: AtomicU64,
    samples: AtomicU64,
}

impl Average {
    /// Adds a value to the window.
    pub fn add(&self, value: u64) {
        let samples = self.samples.load(Relaxed);
        let sum = self.sum.load(Relaxed);
        if samples < SAMPLES_MAX {
            self.samples.store(samples + 1, Relaxed);
            self.sum.store(sum.saturating_add(value), Relaxed);
        } else {
            let left = sum - sum.div_ceil(SAMPLES_MAX);
            self.sum.store(left.saturating_add(value), Relaxed);
        }
    }

    /// Forgets all values. Called by the writer.
    pub fn clear(&self) {
        self.samples.store(0, Relaxed);
        self.sum.store(0, Relaxed);
    }
}

/// The average over all `shards`, weighted by their numbers of samples.
pub fn average<'a>(shards: impl Iterator<Item = &'a Average>) -> u64 {
    let (sum, samples) = shards.fold((0u64, 0u64), |(sum, samples), shard| {
        let more = shard.samples.load(Relaxed);
        (sum.saturating_add(shard.sum.load(Relaxed)), samples + more)
    });
    sum.checked_div(samples).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_is_exact_at_first_and_then_follows() {
        let time = Average::default();
        assert_eq!(average([&time].into_iter()), 0);
        for value in [10, 20, 30] {
            time.add(value);
        }
        assert_eq!(average([&time].into_iter()), 20);
        for _ in 0..10_000 {
            time.add(100);
        }
        let settled = average([&time].into_iter());
        assert!((98..=100).contains(&settled), "{settled}");
    }
}
