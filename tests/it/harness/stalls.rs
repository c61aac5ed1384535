//! How long tasks of this machine have waited for a processor. A bound that a program keeps on an idle machine is longer by
//! that time, so that a test says something about the program and nothing about what else runs.

use super::eventually::eventually;
use std::time::{Duration, Instant};

/// By how much a wait may be longer than on an idle machine.
const TIMES_MAX: u32 = 4;

/// Counts from here.
pub(crate) struct Stalls(Option<Duration>);

impl Stalls {
    pub(crate) fn begin() -> Self {
        Self(stalled())
    }

    /// For how long at least one task was ready to run and did not, since the begin; zero where the kernel does not tell.
    pub(crate) fn so_far(&self) -> Duration {
        let both = self.0.zip(stalled());
        both.map_or(Duration::ZERO, |(begin, now)| now.saturating_sub(begin))
    }
}

/// Repeats `probe` until it returns a value. Panics with `what` after `within` on an idle machine.
#[track_caller]
pub(crate) fn eventually_if_idle<T>(
    within: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let (begun, stalls) = (Instant::now(), Stalls::begin());
    eventually(within * TIMES_MAX, what, || {
        let found = probe();
        let most = within + stalls.so_far();
        let late = found.is_none() && begun.elapsed() > most;
        assert!(!late, "not within {most:?}: {what}");
        found
    })
}

/// The sum of `some` of the kernel's pressure stall information.
fn stalled() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let total = some
        .split(' ')
        .find_map(|word| word.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}
