//! How many connects to a server have failed in a row.
//!
//! Two counts in one value, so that a connect that succeeds looks at one alone, and a failure changes both at once:
//! the failures since a connect or a check has succeeded, and the errors of HAProxy's `observe layer4`, which begin
//! again when there were as many as `error-limit` says.
//!
//! Invariant: there are no more errors than failures, so that no failure means no error.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits of the number of failures; those above it are the errors.
const FAILURE_BITS: u32 = 32;

/// The count of one server. Workers add, and clear it with the control thread.
#[derive(Debug, Default)]
pub(super) struct FailedConnects(AtomicU64);

impl FailedConnects {
    /// Whether there is none.
    ///
    /// # Hot path: a load of a value that is hardly ever written.
    pub(super) fn is_none(&self) -> bool {
        self.0.load(Relaxed) == 0
    }

    /// One failure more. Returns how many there are.
    pub(super) fn add(&self) -> u32 {
        let (_, failures) = self.change(|errors, failures| (errors, failures.saturating_add(1)));
        failures
    }

    /// One failure more, which is an error. `Some`: there were so many errors in a row, `limit` or more; they begin
    /// again.
    pub(super) fn add_error(&self, limit: u32) -> Option<u32> {
        let mut reached = None;
        self.change(|errors, failures| {
            let errors = errors.saturating_add(1);
            reached = (errors >= limit).then_some(errors);
            let errors = if reached.is_some() { 0 } else { errors };
            (errors, failures.saturating_add(1))
        });
        reached
    }

    /// Takes errors back that began again, because nobody could be told.
    pub(super) fn put_back(&self, more: u32) {
        self.change(|errors, failures| {
            let errors = errors.saturating_add(more);
            (errors, failures.max(errors))
        });
    }

    /// The errors begin again.
    pub(super) fn clear_errors(&self) {
        if self.0.load(Relaxed) >> FAILURE_BITS != 0 {
            self.change(|_, failures| (0, failures));
        }
    }

    /// Both begin again.
    pub(super) fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    /// Returns the errors and failures after the change.
    fn change(&self, mut to: impl FnMut(u32, u32) -> (u32, u32)) -> (u32, u32) {
        let mut now = self.0.load(Relaxed);
        loop {
            #[expect(clippy::cast_possible_truncation, reason = "the halves of the value")]
            let (errors, failures) = to((now >> FAILURE_BITS) as u32, now as u32);
            let next = u64::from(errors) << FAILURE_BITS | u64::from(failures);
            match self.0.compare_exchange_weak(now, next, Relaxed, Relaxed) {
                Ok(_) => return (errors, failures),
                Err(other) => now = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_errors_as_the_limit_are_told_once_and_begin_again() {
        let failed = FailedConnects::default();
        for _ in 0..2 {
            assert_eq!(failed.add_error(3), None);
            assert_eq!(failed.add_error(3), None);
            assert_eq!(failed.add_error(3), Some(3));
        }
        assert_eq!(failed.add(), 7, "the failures go on");
        assert!(!failed.is_none());
        failed.clear();
        assert!(failed.is_none());
    }

    #[test]
    fn a_success_or_a_passed_check_begins_the_errors_again() {
        let failed = FailedConnects::default();
        for (clear, failures) in [
            (FailedConnects::clear as fn(&FailedConnects), 2),
            (FailedConnects::clear_errors, 6),
        ] {
            assert_eq!(failed.add_error(2), None);
            clear(&failed);
            assert_eq!(failed.add_error(2), None);
            assert_eq!(failed.add_error(2), Some(2));
            assert_eq!(
                failed.add(),
                failures + 1,
                "a check of another port tells nothing of them"
            );
        }
    }

    #[test]
    fn errors_that_nobody_was_told_of_are_told_with_the_next() {
        let failed = FailedConnects::default();
        assert_eq!(failed.add_error(1), Some(1));
        failed.put_back(1);
        assert_eq!(failed.add_error(1), Some(2));
    }

    #[test]
    fn a_limit_that_is_lower_now_is_reached_by_the_next_error() {
        let failed = FailedConnects::default();
        for _ in 0..5 {
            assert_eq!(failed.add_error(10), None);
        }
        assert_eq!(failed.add_error(2), Some(6));
    }

    #[test]
    fn no_count_runs_over() {
        let failed = FailedConnects::default();
        failed.put_back(u32::MAX);
        assert_eq!(failed.add(), u32::MAX);
        assert_eq!(failed.add_error(1), Some(u32::MAX));
        assert_eq!(failed.add(), u32::MAX);
        failed.clear_errors();
        assert!(!failed.is_none());
    }
}
