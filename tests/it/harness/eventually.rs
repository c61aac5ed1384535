//! Waiting. The only file of the tests that sleeps: between two checks of a condition, each wait with a
//! deadline of its own, and for the pace of an open-loop load.

use std::time::{Duration, Instant};

/// Time between two checks of a condition.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Repeats `probe` until it returns a value. Panics with `what` after `within`.
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

/// Repeats `probe` until it is true. Panics with `what` after `within`.
#[track_caller]
pub(crate) fn eventually_true(within: Duration, what: &str, mut probe: impl FnMut() -> bool) {
    eventually(within, what, || probe().then_some(()));
}

/// Repeats `probe` until it returns `expected`; the panic shows the last value.
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

/// Repeats `holds` for `length` and panics with `what` when it is false: for what must not happen.
#[track_caller]
pub(crate) fn steadily(length: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + length;
    while Instant::now() < end {
        assert!(holds(), "{what}");
        nap(LOOK_EVERY);
    }
}

/// Tries of [`in_some_try`].
const TRIES: usize = 4;

/// Measures until a time is at most `bound`, [`TRIES`] times. For what the program does within a bound
/// while a busy machine may stop it, or the test, for longer: hardly in every try.
#[track_caller]
pub(crate) fn in_some_try(bound: Duration, what: &str, mut measure: impl FnMut() -> Duration) {
    let mut seen = Vec::new();
    while seen.len() < TRIES {
        seen.push(measure());
        if seen.last().is_some_and(|last| *last <= bound) {
            return;
        }
    }
    panic!("{what}: not within {bound:?}, but after {seen:?}");
}

/// The one in the middle, for a time that a busy machine makes longer now and then.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Returns at `instant`: for the pace of a load, and for scenarios that need a certain length (a split of
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
