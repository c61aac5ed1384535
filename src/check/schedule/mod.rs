//! When checks start: pure arithmetic, with the clock and a seed as arguments.
//!
//! Used by the check tasks on the control thread. Invariants: a server's checks start on a grid that counts
//! from starts and does not drift. Each start is less than one part in [`JITTER_PART`] of an interval after its
//! point on the grid, and never before it. When a check ran over that point, the next one starts once when it
//! ends, however many points have passed.
//! then the next one starts when it ends, once, however many points have passed.

use crate::config::model::Check;
use crate::state::{OperState, Rules, ServerStatus};
use std::time::{Duration, Instant};

/// All first checks of up to [`SPREAD_SERVERS_MAX`] servers start within this time.
pub const SPREAD: Duration = Duration::from_millis(200);

/// Servers up to which [`SPREAD`] holds. Beyond it the first checks start at [`FIRST_RATE_MAX`].
pub const SPREAD_SERVERS_MAX: u32 = 500;

/// First checks a second, of more than [`SPREAD_SERVERS_MAX`] servers.
pub const FIRST_RATE_MAX: u32 = 2_000;

/// Jitter is below one part in this many of the interval.
pub const JITTER_PART: u32 = 20;

/// All starts except the first are rounded up to multiples of this, the same for all servers, where the jitter
/// has room for it. So one wake-up of the control thread starts many checks.
pub const GRAIN: Duration = Duration::from_millis(10);

/// Checks per second up to which they end with FIN. Above it they end with RST: in `TIME_WAIT` their
/// connections would occupy too many local ports.
pub const FIN_RATE_MAX: f64 = 1_000.0;

/// How long after the start the first check of server `index` of `total` begins.
pub fn first_start(index: u32, total: u32) -> Duration {
    if total <= SPREAD_SERVERS_MAX {
        SPREAD * index / total.max(1)
    } else {
        Duration::from_secs(1) * index / FIRST_RATE_MAX
    }
}

/// Whether checks must end with RST, given all that are configured.
pub fn ends_with_reset<'a>(checks: impl Iterator<Item = &'a Check>) -> bool {
    let rate: f64 = checks
        .map(|check| 1.0 / check.interval.as_secs_f64().max(0.001))
        .sum();
    rate > FIN_RATE_MAX
}

/// Which of a check's intervals applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntervalKind {
    /// The server is up and its counter is full: a passed check changes nothing.
    Normal,
    /// The counter is full, but an operator has forced the server's state, which the next passed check ends.
    Held,
    /// It is coming up or going down.
    Fast,
    /// It is down, or held down.
    Down,
    /// It is in maintenance and is not checked.
    Paused,
}

impl IntervalKind {
    /// The kind for a server with this status.
    pub fn of(status: &ServerStatus, rules: Rules) -> Self {
        if status.admin.is_maint() {
            Self::Paused
        } else if status.health >= rules.full() {
            match status.oper {
                OperState::Running | OperState::Starting => Self::Normal,
                OperState::Stopping | OperState::Stopped => Self::Held,
            }
        } else if status.oper == OperState::Stopped && (status.health == 0 || status.flaps.held) {
            Self::Down
        } else {
            Self::Fast
        }
    }

    /// The time between starts; `None` while paused.
    pub fn interval(self, check: &Check) -> Option<Duration> {
        match self {
            Self::Normal | Self::Held => Some(check.interval),
            Self::Fast => Some(check.fast_interval),
            Self::Down => Some(check.down_interval),
            Self::Paused => None,
        }
    }
}

/// The times at which one server's checks start.
#[derive(Debug)]
pub struct Grid {
    /// Multiples of [`GRAIN`] count from here.
    origin: Instant,
    /// The point of the last start; before any start, the first point.
    point: Instant,
    started: bool,
    /// The jitter of the next start, in 1/2^16 of one part in [`JITTER_PART`] of the interval.
    jitter: u16,
    random: fastrand::Rng,
}

/// A point on the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// When the check is to start.
    pub at: Instant,
    point: Instant,
}

impl Grid {
    /// A grid whose first start is at `first`, exactly. `origin`: an instant before it, the same for all.
    pub fn new(origin: Instant, first: Instant, seed: u64) -> Self {
        Self {
            origin,
            point: first,
            started: false,
            jitter: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The next start for this `interval`, not before `now`. Repeated calls give the same answer, unless the
    /// interval has changed or the time has passed.
    ///
    /// A point that was just missed is not skipped: otherwise, where a check may take as long as the interval,
    /// a server without an answer would be checked half as often as a healthy one.
    pub fn due(&self, interval: Duration, now: Instant) -> Due {
        let mut point = self.point;
        if self.started {
            point += interval * passed(point, interval, now).max(1);
        }
        let room = interval / JITTER_PART;
        let part = |room: Duration| room * u32::from(self.jitter) / u32::from(u16::MAX);
        let at = match room.checked_sub(GRAIN) {
            Some(room) if self.started => self.rounded_up(point + part(room)),
            _ => point + part(room),
        };
        Due {
            at: at.max(now),
            point,
        }
    }

    /// The next multiple of [`GRAIN`].
    fn rounded_up(&self, at: Instant) -> Instant {
        // A second is a multiple of the grain.
        let grain = GRAIN.subsec_nanos();
        let since = at.saturating_duration_since(self.origin);
        let past = since.subsec_nanos() % grain;
        at + Duration::from_nanos(u64::from((grain - past) % grain))
    }

    /// The check that was due has started.
    pub fn start(&mut self, due: Due) {
        self.point = due.point;
        self.started = true;
        self.jitter = self.random.u16(..);
    }
}

/// Points after `point` that are not after `now`.
fn passed(point: Instant, interval: Duration, now: Instant) -> u32 {
    let past = now.saturating_duration_since(point).as_nanos();
    u32::try_from(past / interval.as_nanos().max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
