//! Waiting. The only file of the tests that sleeps: short naps between two looks at a condition,
//! each wait with a deadline of its own, and the pace of an open-loop load.

use std::time::{Duration, Instant};

/// Time between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks until `probe` yields a value, and returns it. Panics with `what` after `within`.
#[track_caller]
pub(crate) fn eventually<T>(
    within: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        nap(LOOK_EVERY);
    }
}

/// Looks until `probe` is true. Panics with `what` after `within`.
#[track_caller]
pub(crate) fn eventually_true(within: Duration, what: &str, mut probe: impl FnMut() -> bool) {
    eventually(within, what, || probe().then_some(()));
}

/// Looks until `probe` yields `expected`; the last value seen is part of the panic's text.
#[track_caller]
pub(crate) fn eventually_eq<T: PartialEq + std::fmt::Debug>(
    within: Duration,
    expected: &T,
    mut probe: impl FnMut() -> T,
) {
    let deadline = Instant::now() + within;
    loop {
        let seen = probe();
        if seen == *expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not within {within:?}: {expected:?}, but {seen:?}"
        );
        nap(LOOK_EVERY);
    }
}

/// Looks during the whole of `length` and panics with `what` as soon as `holds` is false. For what
/// must not happen.
#[track_caller]
pub(crate) fn steadily(length: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + length;
    while Instant::now() < end {
        assert!(holds(), "{what}");
        nap(LOOK_EVERY);
    }
}

/// Returns at `instant`: the pace of a load, and scenarios whose length is their point (a split of
/// twelve seconds).
pub(crate) fn pace_until(instant: Instant) {
    if let Some(rest) = instant.checked_duration_since(Instant::now()) {
        nap(rest);
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where tests wait")]
fn nap(length: Duration) {
    std::thread::sleep(length);
}
