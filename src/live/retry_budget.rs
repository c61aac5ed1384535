//! How many retries the sessions of a backend may make together (`retry-budget`).
//!
//! A share of the first attempts of the last [`WINDOW`] seconds, and [`LEAST`] beside it, so that a backend with few
//! sessions may retry too. Workers ask when an attempt has failed or has had no answer, and at no other time: the first
//! attempts are those that the sessions have counted anyway (`connect`), without the retries. Once a second the control
//! thread notes how many there were.
//!
//! Invariant: of the retries that workers ask for at the same time no more are allowed than one after another.

use super::counters::Traffic;
use super::sharded::Shards;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Seconds whose first attempts count, and whose retries.
pub const WINDOW: u64 = 10;

/// Retries that are allowed in a second however few first attempts there are.
pub const LEAST_A_SECOND: u64 = 10;

/// The same in the whole window.
pub const LEAST: u64 = WINDOW * LEAST_A_SECOND;

/// What there was at the end of a second.
#[derive(Debug, Clone, Copy)]
struct Sample {
    second: u64,
    /// Attempts, the retries among them.
    attempts: u64,
    /// Retries that were allowed.
    retries: u64,
}

/// The retries of one backend.
#[derive(Debug, Default)]
pub struct RetryBudget {
    /// Retries that were allowed, since the beginning.
    retries: AtomicU64,
    /// The same at the beginning of the window.
    retries_before: AtomicU64,
    /// The attempts at the beginning of the window.
    attempts_before: AtomicU64,
    /// Retries that were not allowed.
    denied: AtomicU64,
    /// The oldest first, which is the beginning of the window. The control thread alone has it.
    samples: Mutex<VecDeque<Sample>>,
}

impl RetryBudget {
    /// Whether one more attempt may be made after the first, of which there may be `percent` of the first ones. It
    /// counts as made.
    pub fn take(&self, percent: u32, traffic: &Shards<Traffic>) -> bool {
        let attempts = since(
            self.attempts_before.load(Relaxed),
            attempts_of_workers(traffic),
        );
        let before = self.retries_before.load(Relaxed);
        let next = |retries: u64| {
            let made = retries.saturating_sub(before);
            let first = attempts.saturating_sub(made);
            let most = LEAST + first.saturating_mul(percent.into()) / 100;
            (made < most).then_some(retries + 1)
        };
        self.retries.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// The attempt was not made after all.
    pub fn give_back(&self) {
        self.retries.fetch_sub(1, Relaxed);
    }

    /// A retry was not made, because [`RetryBudget::take`] did not allow it.
    pub fn count_denied(&self) {
        self.denied.fetch_add(1, Relaxed);
    }

    /// Retries that were not made.
    pub fn denied(&self) -> u64 {
        self.denied.load(Relaxed)
    }

    /// The process before has counted so many.
    pub fn add_denied(&self, denied: u64) {
        self.denied.fetch_add(denied, Relaxed);
    }

    /// Starts to count them again.
    pub fn clear_denied(&self) {
        self.denied.store(0, Relaxed);
    }

    /// A second is over, and `second` has begun. Control thread.
    pub fn second(&self, second: u64, traffic: &Shards<Traffic>) {
        let sample = Sample {
            second,
            attempts: attempts_of_workers(traffic),
            retries: self.retries.load(Relaxed),
        };
        let samples = self.samples.lock();
        let mut samples = samples.unwrap_or_else(PoisonError::into_inner);
        samples.push_back(sample);
        while samples
            .get(1)
            .is_some_and(|it| it.second + WINDOW <= second)
        {
            samples.pop_front();
        }
        // The one before all others begins the window: of a budget that a reload has brought it is the first second.
        if let Some(begin) = samples.front() {
            self.attempts_before.store(begin.attempts, Relaxed);
            self.retries_before.store(begin.retries, Relaxed);
        }
    }
}

/// The shard of the control thread is the last one. What the process before has counted is added there, and is none of
/// the last seconds.
fn attempts_of_workers(traffic: &Shards<Traffic>) -> u64 {
    let workers = traffic.iter().count().saturating_sub(1).max(1);
    let attempts = traffic.iter().take(workers).map(|it| it.connect.get());
    attempts.fold(0, u64::wrapping_add)
}

/// How far a counter has come since it was `before`. An operator may have cleared it meanwhile.
fn since(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::WorkerToken;
    use std::thread;

    /// A backend with one worker.
    struct Fixture {
        budget: RetryBudget,
        traffic: Shards<Traffic>,
        worker: WorkerToken,
        control: WorkerToken,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                budget: RetryBudget::default(),
                traffic: Shards::new(2),
                worker: WorkerToken::new(0),
                control: WorkerToken::new(1),
            }
        }

        /// So many sessions make their first attempt.
        fn first(&self, attempts: u64) {
            self.traffic.mine(&self.worker).connect.add(attempts);
        }

        /// How many retries are allowed now. Each is made.
        fn allowed(&self, percent: u32) -> u64 {
            let mut allowed = 0;
            while self.budget.take(percent, &self.traffic) {
                self.first(1);
                allowed += 1;
            }
            allowed
        }

        fn second(&self, second: u64) {
            self.budget.second(second, &self.traffic);
        }
    }

    #[test]
    fn a_share_of_the_first_attempts_may_be_retried_and_a_few_more() {
        let fixture = Fixture::new();
        assert_eq!(fixture.allowed(20), LEAST);
        fixture.first(1_000);
        assert_eq!(fixture.allowed(20), 200);
        assert_eq!(fixture.allowed(20), 0);
        fixture.first(4);
        assert_eq!(fixture.allowed(20), 0);
        fixture.first(1);
        assert_eq!(fixture.allowed(20), 1);
        fixture.budget.give_back();
        assert_eq!(fixture.allowed(20), 1);
    }

    #[test]
    fn only_the_last_seconds_count() {
        let fixture = Fixture::new();
        fixture.first(100_000);
        for second in 1..=WINDOW {
            fixture.second(second);
        }
        assert_eq!(fixture.allowed(10), LEAST, "they were before");
        fixture.first(1_000);
        assert_eq!(fixture.allowed(10), 100);
        fixture.second(WINDOW + 1);
        assert_eq!(fixture.allowed(10), 0, "they are the last seconds'");
        for second in WINDOW + 2..=2 * WINDOW + 1 {
            fixture.second(second);
        }
        assert_eq!(fixture.allowed(10), LEAST);
    }

    /// The control thread was late, or a reload has brought the budget.
    #[test]
    fn a_window_without_samples_is_as_long_as_they_are_apart() {
        let fixture = Fixture::new();
        fixture.first(5_000);
        fixture.second(100);
        assert_eq!(fixture.allowed(50), LEAST);
        fixture.first(100);
        fixture.second(104);
        assert_eq!(fixture.allowed(50), 50);
        fixture.second(114);
        assert_eq!(fixture.allowed(50), LEAST - 50);
    }

    #[test]
    fn what_an_operator_clears_and_what_the_process_before_has_counted_is_no_budget() {
        let fixture = Fixture::new();
        fixture.first(5_000);
        fixture.second(1);
        assert_eq!(fixture.allowed(10), LEAST);
        fixture.traffic.mine(&fixture.worker).connect.clear();
        fixture.first(LEAST + 100);
        assert_eq!(fixture.allowed(10), 10);
        fixture.traffic.mine(&fixture.control).connect.add(5_000);
        assert_eq!(fixture.allowed(10), 0);
    }

    #[test]
    fn workers_that_ask_at_once_get_no_more() {
        let (budget, traffic) = (RetryBudget::default(), Shards::new(5));
        let of_each: Vec<u64> = thread::scope(|scope| {
            let ask = || (0..1_000).filter(|_| budget.take(20, &traffic)).count();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            let got = workers.into_iter().map(|it| it.join().expect("it counts"));
            got.map(|it| it as u64).collect()
        });
        assert_eq!(of_each.iter().sum::<u64>(), LEAST);
    }
}
