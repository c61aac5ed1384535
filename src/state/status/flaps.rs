//! How long a server is held down that goes down again and again (`hold-down`), as routers do with routes that flap.
//!
//! The first time costs nothing. When a server goes down again within `flap-window` of coming up, no check brings it up
//! for `hold-down`, and each further time for twice as long, `hold-down-max` at most. Each `flap-window` for which it
//! stays up takes one of the times back. Whether checks or connects of sessions (`observe`) take it down makes no
//! difference. What an operator does begins it again.
//!
//! Pure. Invariant: without `hold-down` nothing is counted.

use super::{OperState, Rules, ServerStatus};
use crate::config::model::HoldDown;
use std::time::{Duration, Instant};

/// How long a server is held down that has gone down so often.
fn time(rules: HoldDown, count: u8) -> Duration {
    let Some(doubled) = count.checked_sub(2) else {
        return Duration::ZERO;
    };
    let times = 1_u32.checked_shl(doubled.into()).unwrap_or(u32::MAX);
    rules.base.saturating_mul(times).min(rules.max)
}

/// How often a server has gone down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flaps {
    /// Each time soon after it had come up, less those that are taken back. It does not grow any more once the server is
    /// held down for the longest time.
    pub count: u8,
    /// It is held down since it has gone down last.
    pub held: bool,
}

impl Flaps {
    /// It has gone down after it was up for so long.
    pub(super) fn went_down(&mut self, up: Duration, rules: HoldDown) {
        if rules.base.is_zero() {
            return *self = Self::default();
        }
        let taken_back = up.as_nanos() / rules.window.as_nanos().max(1);
        let taken_back = u8::try_from(taken_back).unwrap_or(u8::MAX);
        self.count = self.count.saturating_sub(taken_back);
        if self.count < 2 || time(rules, self.count) < rules.max {
            self.count = self.count.saturating_add(1);
        }
        self.held = self.count > 1;
    }
}

impl ServerStatus {
    /// How much longer it is held down; `None`: it is not.
    pub fn held_for(&self, rules: Rules, now: Instant) -> Option<Duration> {
        let down = self.flaps.held && self.oper == OperState::Stopped;
        let since = now.saturating_duration_since(self.since);
        let left = time(rules.hold_down, self.flaps.count).saturating_sub(since);
        (down && !left.is_zero()).then_some(left)
    }

    /// It is held down no longer: the checks alone decide.
    pub fn release(&mut self) {
        self.flaps.held = false;
    }

    /// An operator has it come up as soon as checks pass, and what was before does not count.
    pub fn forgive(&mut self) {
        self.flaps = Flaps::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::AdminState;
    use crate::state::status::Forced;

    type Does = fn(&mut ServerStatus, Instant);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const RULES: Rules = Rules {
        hold_down: HoldDown {
            base: Duration::from_secs(10),
            max: Duration::from_secs(60),
            window: Duration::from_secs(100),
        },
        ..Rules::DEFAULT
    };

    /// A server, and the time.
    struct Fixture {
        status: ServerStatus,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let now = Instant::now();
            let mut status = ServerStatus::initial(AdminState::READY, RULES, now);
            status.check_passed(RULES, now);
            Self { status, now }
        }

        fn held_for(&self) -> u64 {
            let left = self.status.held_for(RULES, self.now);
            left.map_or(0, |left| left.as_secs())
        }

        /// It stays up for so long, and goes down.
        fn goes_down_after(&mut self, up: u64) {
            self.now += secs(up);
            for _ in 0..RULES.fall {
                self.status.check_failed(RULES, self.now);
            }
            assert_eq!(self.status.oper, OperState::Stopped);
        }

        /// Checks pass every second, until it is up. How long that took.
        fn comes_up(&mut self) -> u64 {
            let begun = self.now;
            while self.status.oper == OperState::Stopped {
                self.now += secs(1);
                self.status.check_passed(RULES, self.now);
            }
            assert!(!self.status.flaps.held);
            (self.now - begun).as_secs()
        }
    }

    #[test]
    fn each_time_is_twice_as_long_up_to_a_bound() {
        let mut server = Fixture::new();
        for (held, label) in [
            (2, "DOWN"),
            (10, "DOWN 1/2"),
            (20, "DOWN 1/2"),
            (40, "DOWN 1/2"),
            (60, "DOWN 1/2"),
            (60, "DOWN 1/2"),
        ] {
            server.goes_down_after(1);
            assert_eq!(server.held_for(), if held == 2 { 0 } else { held });
            for _ in 0..if held == 2 { 0 } else { 3 } {
                server.status.check_passed(RULES, server.now);
            }
            assert_eq!(server.status.label(Some(RULES)), label);
            assert_eq!(server.comes_up(), held);
        }
        assert_eq!(server.status.flaps.count, 5, "it is enough");
    }

    #[test]
    fn a_failed_check_begins_the_way_up_again() {
        let mut server = Fixture::new();
        server.goes_down_after(1);
        server.comes_up();
        server.goes_down_after(1);
        server.now += secs(9);
        server.status.check_passed(RULES, server.now);
        server.now += secs(1);
        server.status.check_failed(RULES, server.now);
        assert_eq!(server.comes_up(), u64::from(RULES.rise));
    }

    #[test]
    fn a_server_that_stays_up_gets_its_times_back() {
        let mut server = Fixture::new();
        for _ in 0..3 {
            server.goes_down_after(99);
            server.comes_up();
        }
        server.goes_down_after(100);
        assert_eq!(server.held_for(), 20, "as the time before");
        server.comes_up();
        server.goes_down_after(250);
        assert_eq!(server.held_for(), 10);
        server.comes_up();
        server.goes_down_after(100_000_000);
        assert_eq!(server.held_for(), 0);
        server.comes_up();
        server.goes_down_after(1);
        assert_eq!(server.held_for(), 10);
    }

    #[test]
    fn an_operator_begins_it_again() {
        let mut held = Fixture::new();
        held.goes_down_after(1);
        held.comes_up();
        held.goes_down_after(1);
        let orders: [Does; 4] = [
            |it, now| it.force(Forced::Up, RULES, now),
            |it, now| it.force(Forced::Down, RULES, now),
            |it, now| it.set_admin(AdminState::FMAINT, RULES, now),
            |it, now| it.start_over(RULES, now),
        ];
        for order in orders {
            let mut status = held.status.clone();
            order(&mut status, held.now);
            assert_eq!(status.flaps, Flaps::default());
        }
        held.status.forgive();
        assert_eq!(held.comes_up(), u64::from(RULES.rise));
        held.goes_down_after(1);
        assert_eq!(held.held_for(), 0, "it is the first time");
    }

    #[test]
    fn without_the_key_nothing_counts_and_a_reload_that_takes_it_away_ends_it() {
        let mut server = Fixture::new();
        server.goes_down_after(1);
        server.comes_up();
        server.goes_down_after(1);
        let mut off = server.status.clone();
        for _ in 0..Rules::DEFAULT.rise {
            off.check_passed(Rules::DEFAULT, server.now);
        }
        assert_eq!(off.oper, OperState::Running);
        for _ in 0..Rules::DEFAULT.fall {
            off.check_failed(Rules::DEFAULT, server.now);
        }
        assert_eq!(off.flaps, Flaps::default());
    }

    #[test]
    fn a_server_that_is_released_comes_up_by_checks_and_is_held_the_next_time() {
        let mut server = Fixture::new();
        server.goes_down_after(1);
        server.comes_up();
        server.goes_down_after(1);
        server.status.release();
        assert_eq!(server.comes_up(), u64::from(RULES.rise));
        server.goes_down_after(1);
        assert_eq!(server.held_for(), 20);
    }
}
