//! When checks start: the arithmetic alone, with the clock and a seed as arguments.
//!
//! Used by the check tasks on the control thread. Invariants: a server's starts lie on a grid that
//! counts from starts and never drifts; each start is at most one part in [`JITTER_PART`] of an
//! interval after its point on the grid and never before it, unless a check ran over that point:
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

/// Starts but the first fall on multiples of this, the same for all servers, where the jitter has
/// room for it: one wake-up of the control thread then starts many checks.
pub const GRAIN: Duration = Duration::from_millis(10);

/// Checks a second up to which they end with FIN. Beyond, they end with RST: the connections would
/// take too many of this machine's ports to `TIME_WAIT`.
pub const FIN_RATE_MAX: f64 = 1_000.0;

/// How long after the start the first check of server `index` of `total` starts.
pub fn first_start(index: u32, total: u32) -> Duration {
    if total <= SPREAD_SERVERS_MAX {
        SPREAD * index / total.max(1)
    } else {
        Duration::from_secs(1) * index / FIRST_RATE_MAX
    }
}

/// Whether checks have to end with RST, given all that are configured.
pub fn ends_with_reset<'a>(checks: impl Iterator<Item = &'a Check>) -> bool {
    let rate: f64 = checks
        .map(|check| 1.0 / check.interval.as_secs_f64().max(0.001))
        .sum();
    rate > FIN_RATE_MAX
}

/// Which of a check's intervals rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntervalKind {
    /// The server is up without a doubt: a passed check changes nothing.
    Normal,
    /// As many checks have passed, but an operator holds the server back until the next one does.
    Held,
    /// It is on its way up or down.
    Fast,
    /// It is down.
    Down,
    /// It is in maintenance and not checked.
    Paused,
}

impl IntervalKind {
    /// That of a server with this status.
    pub fn of(status: &ServerStatus, rules: Rules) -> Self {
        if status.admin.is_maint() {
            Self::Paused
        } else if status.health >= rules.full() {
            match status.oper {
                OperState::Running | OperState::Starting => Self::Normal,
                OperState::Stopping | OperState::Stopped => Self::Held,
            }
        } else if status.oper == OperState::Stopped && status.health == 0 {
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
    /// Where multiples of [`GRAIN`] count from.
    origin: Instant,
    /// The last point on the grid that was used; the first one before any was.
    point: Instant,
    started: bool,
    /// Part of the interval by which the next start is late, in 1/2^16 of [`JITTER_PART`].
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
    /// A grid that begins at `first`, exactly. `origin`: an instant before it, the same for all.
    pub fn new(origin: Instant, first: Instant, seed: u64) -> Self {
        Self {
            origin,
            point: first,
            started: false,
            jitter: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The next start, not before `now`, the time between starts being `interval`. Asking again
    /// gives the same answer, unless the interval has changed or the time has passed.
    ///
    /// A point that has just been missed is made up for: where a check may take as long as the
    /// interval, a silent server would else be checked half as often as a healthy one.
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
        // A second is a multiple of it.
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
