//! Requests to the stats proxy, for its own row. Only the admin thread writes it.

use crate::live::rate::{Rate, per_second};
use crate::live::sharded::{Counter, Maximum};

/// The requests that the admin thread has answered.
#[derive(Debug, Default)]
pub struct Requests {
    /// Requests so far (`req_tot`); rlb answers every one itself (`intercepted`).
    pub total: Counter,
    /// Responses by the first digit of their status, 1 to 5; 0: another (`hrsp_…`).
    classes: [Counter; 6],
    rate: Rate,
    rate_max: Maximum,
}

impl Requests {
    /// Counts a request answered with `status` in second `second` of the process's clock.
    pub fn count(&self, status: u16, second: u32) {
        self.total.add(1);
        self.classes[class(status)].add(1);
        self.rate.count(second);
        self.rate_max.see(self.rate.in_second(second));
    }

    /// Starts all counters again.
    pub fn clear(&self) {
        self.total.clear();
        self.classes.iter().for_each(Counter::clear);
        self.rate.clear();
        self.clear_maxima();
    }

    /// Starts the maxima again.
    pub fn clear_maxima(&self) {
        self.rate_max.clear();
    }

    /// Responses whose status begins with `digit`; 0: others.
    pub fn answered(&self, digit: u16) -> u64 {
        self.classes[class(digit.saturating_mul(100))].get()
    }

    /// Requests in the last second (`req_rate`).
    pub fn per_second(&self, now_ms: u64) -> u32 {
        per_second([&self.rate].into_iter(), now_ms)
    }

    /// Most requests in one second (`req_rate_max`).
    pub fn rate_max(&self) -> u32 {
        self.rate_max.get()
    }
}

fn class(status: u16) -> usize {
    match status / 100 {
        digit @ 1..=5 => usize::from(digit),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_class_and_second() {
        let requests = Requests::default();
        for status in [200, 204, 404, 999] {
            requests.count(status, 7);
        }
        let classes: Vec<u64> = (0..=5).map(|digit| requests.answered(digit)).collect();
        assert_eq!(classes, [1, 0, 2, 0, 1, 0]);
        assert_eq!((requests.total.get(), requests.rate_max()), (4, 4));
        assert_eq!(requests.per_second(7_999), 4);
        assert_eq!(requests.per_second(9_000), 0);
    }
}
