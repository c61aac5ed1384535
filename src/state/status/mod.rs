//! A server's health and administrative state: HAProxy's state machine as plain data.
//!
//! Pure: events and the clock are arguments. The health counter runs from 0 to rise + fall - 1, and the server
//! is healthy from `rise` on. Runs on the control thread.
//!
//! Invariants: in maintenance the server is [`OperState::Stopped`] with health 0. A checked server is stopped
//! exactly while its health is below `rise`, unless an operator has forced another state.

mod flaps;

pub use flaps::Flaps;

use crate::config::model::{self, HoldDown, InitState, OnError};
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// HAProxy's administrative flags (`srv_admin_state`), with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AdminState(pub u8);

impl AdminState {
    /// In service.
    pub const READY: Self = Self(0);
    /// Maintenance by an operator.
    pub const FMAINT: Self = Self(0x01);
    /// Maintenance inherited from a tracked server.
    pub const IMAINT: Self = Self(0x02);
    /// The configuration said `disabled`. A mark beside `FMAINT`, no maintenance by itself.
    pub const CMAINT: Self = Self(0x04);
    /// Drain by an operator.
    pub const FDRAIN: Self = Self(0x08);
    /// Drain inherited from a tracked server.
    pub const IDRAIN: Self = Self(0x10);
    /// Maintenance because its name does not resolve.
    pub const RMAINT: Self = Self(0x20);

    /// Whether any maintenance flag is set. As in HAProxy, `CMAINT` alone does not count: an operator who
    /// clears `FMAINT` enables a server that was configured as disabled.
    pub fn is_maint(self) -> bool {
        self.has(Self(Self::FMAINT.0 | Self::IMAINT.0 | Self::RMAINT.0))
    }

    /// Whether any drain flag is set.
    pub fn is_drain(self) -> bool {
        self.has(Self(Self::FDRAIN.0 | Self::IDRAIN.0))
    }

    /// Whether any flag of `flags` is set.
    pub fn has(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }

    /// With `flags` set.
    #[must_use]
    pub fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// With `flags` cleared.
    #[must_use]
    pub fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }
}

/// HAProxy's operational state (`srv_state`), with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OperState {
    /// Down.
    Stopped = 0,
    /// Coming up with a slow start.
    Starting = 1,
    /// Up.
    Running = 2,
    /// Up, but receives no new sessions.
    Stopping = 3,
}

impl OperState {
    /// Up, and receives new sessions.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Starting)
    }
}

/// Sixteenths of its weight in which a server's slow start goes: HAProxy's `BE_WEIGHT_SCALE`.
pub const SHARES: u32 = 16;

/// What the keys of a server say about its states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Passed checks in a row that bring it up; at least 1.
    pub rise: u32,
    /// Failed checks in a row that take it down; at least 1.
    pub fall: u32,
    /// Seconds of its slow start; 0: it has none.
    pub slowstart: u32,
    /// It begins with a slow start too.
    pub slowstart_at_start: bool,
    /// How it begins.
    pub init: InitState,
    /// How long it is held down when it goes down again and again.
    pub hold_down: HoldDown,
}

impl Rules {
    /// HAProxy's defaults, also for a server that is not checked.
    pub const DEFAULT: Self = Self {
        rise: 2,
        fall: 3,
        slowstart: 0,
        slowstart_at_start: false,
        init: InitState::None,
        hold_down: HoldDown::OFF,
    };

    /// The rules of a server.
    pub fn of(spec: &model::Server) -> Self {
        let (rise, fall) = match &spec.check {
            Some(check) => (check.rise, check.fall),
            None => (Self::DEFAULT.rise, Self::DEFAULT.fall),
        };
        // HAProxy counts whole seconds, and more are begun.
        let seconds = spec.slowstart.as_secs() + u64::from(spec.slowstart.subsec_nanos() > 0);
        Self {
            rise,
            fall,
            slowstart: u32::try_from(seconds).unwrap_or(u32::MAX),
            slowstart_at_start: spec.slowstart_at_start,
            init: spec.init_state,
            hold_down: spec.hold_down.as_deref().copied().unwrap_or(HoldDown::OFF),
        }
    }

    /// The state of a server that comes up.
    fn coming_up(self) -> OperState {
        if self.slowstart > 0 {
            OperState::Starting
        } else {
            OperState::Running
        }
    }

    /// The state and the health counter of a server that begins.
    fn beginning(self) -> (OperState, u32) {
        let up = if self.slowstart_at_start {
            self.coming_up()
        } else {
            OperState::Running
        };
        self.init().unwrap_or((up, self.rise))
    }

    /// What `init-state` says; `None`: nothing. As in HAProxy a server with one has no slow start then.
    fn init(self) -> Option<(OperState, u32)> {
        match self.init {
            InitState::None => None,
            InitState::FullyUp => Some((OperState::Running, self.full())),
            InitState::Up => Some((OperState::Running, self.rise)),
            InitState::Down => Some((OperState::Stopped, self.rise.saturating_sub(1))),
            InitState::FullyDown => Some((OperState::Stopped, 0)),
        }
    }

    /// The highest value of the health counter.
    pub fn full(self) -> u32 {
        self.rise.saturating_add(self.fall).saturating_sub(1)
    }
}

/// A state that an operator forces on a server's health (`set server … health`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forced {
    /// Up, as if every check had passed.
    Up,
    /// Up, but receives no new sessions.
    Stopping,
    /// Down.
    Down,
}

/// Health and administrative state of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// Administrative flags.
    pub admin: AdminState,
    /// Operational state.
    pub oper: OperState,
    /// Health counter, 0 to rise + fall - 1.
    pub health: u32,
    /// When it last changed between up and down.
    pub since: Instant,
    /// Time spent down before `since`.
    pub down_before: Duration,
    /// Whole seconds of a slow start that were over at its last step.
    pub warmed: u32,
    /// It is down because connects of sessions have failed, and no check has failed since.
    pub ejected: bool,
    /// How often it has gone down, and whether it is held down therefore.
    pub flaps: Flaps,
}

impl ServerStatus {
    /// At the start: up, and a single failed check takes it down, or as `init-state` says; or in maintenance.
    pub fn initial(admin: AdminState, rules: Rules, now: Instant) -> Self {
        let (oper, health) = if admin.is_maint() {
            (OperState::Stopped, 0)
        } else {
            rules.beginning()
        };
        Self {
            admin,
            oper,
            health,
            since: now,
            down_before: Duration::ZERO,
            warmed: 0,
            ejected: false,
            flaps: Flaps::default(),
        }
    }

    /// A check has passed. Returns whether the health counter changed.
    pub fn check_passed(&mut self, rules: Rules, now: Instant) -> bool {
        if self.admin.is_maint() {
            return false;
        }
        let moved = self.count_passed(rules, now);
        if self.health >= rules.rise {
            self.come_up(rules, now);
        }
        moved
    }

    /// A check has passed in which the server has said that it should get no new sessions. Returns the same.
    pub fn check_passed_conditionally(&mut self, rules: Rules, now: Instant) -> bool {
        if self.admin.is_maint() {
            return false;
        }
        let moved = self.count_passed(rules, now);
        if self.health >= rules.rise {
            self.enter(OperState::Stopping, now);
        }
        moved
    }

    /// Counts a passed check. Returns whether the counter has changed.
    fn count_passed(&mut self, rules: Rules, now: Instant) -> bool {
        let before = self.health;
        if self.held_for(rules, now).is_some() {
            // The next passed check after that brings it up.
            self.health = (self.health + 1).min(rules.rise.saturating_sub(1));
            return self.health != before;
        }
        if self.health < rules.full() {
            self.health += 1;
            if self.health >= rules.rise {
                self.health = rules.full();
            }
        }
        self.health != before
    }

    /// A check has failed. Returns whether the health counter changed (HAProxy's `chkfail` counts only those
    /// checks).
    pub fn check_failed(&mut self, rules: Rules, now: Instant) -> bool {
        if self.admin.is_maint() {
            return false;
        }
        self.ejected = false;
        let before = self.health;
        self.health = self.health.saturating_sub(1);
        if self.health < rules.rise {
            self.health = 0;
            let was = self.oper;
            let up = now.saturating_duration_since(self.since);
            self.enter(OperState::Stopped, now);
            if was != OperState::Stopped {
                self.flaps.went_down(up, rules.hold_down);
            }
        }
        self.health != before
    }

    /// As many connects of sessions have failed as `error-limit` says, which counts as a failed check
    /// (`on-error`). Returns what [`ServerStatus::check_failed`] does.
    pub fn observed(&mut self, on_error: OnError, rules: Rules, now: Instant) -> bool {
        if self.admin.is_maint() {
            return false;
        }
        match on_error {
            OnError::FastInter => return false,
            OnError::FailCheck => {}
            OnError::SuddenDeath => {
                if self.health > rules.rise {
                    self.health = rules.rise.saturating_add(1);
                }
            }
            // As in HAProxy also where it is down: that counts as a failed check again.
            OnError::MarkDown => self.health = rules.rise,
        }
        let ejected = self.ejected || self.oper != OperState::Stopped;
        let moved = self.check_failed(rules, now);
        self.ejected = ejected && self.oper == OperState::Stopped;
        moved
    }

    /// Sets the administrative flags. Entering maintenance stops the server. Leaving it starts the server
    /// again: up at once, with a slow start if it has one, or as `init-state` says, and checked at once.
    pub fn set_admin(&mut self, admin: AdminState, rules: Rules, now: Instant) {
        let (was, is) = (self.admin.is_maint(), admin.is_maint());
        self.admin = admin;
        if is && !was {
            self.health = 0;
            self.ejected = false;
            self.forgive();
            self.enter(OperState::Stopped, now);
        } else if was && !is {
            if let Some((oper, health)) = rules.init() {
                self.health = health;
                self.enter(oper, now);
            } else {
                self.health = rules.rise;
                self.come_up(rules, now);
            }
        }
    }

    /// An operator forces the health; later checks may change it again. Does nothing in maintenance.
    pub fn force(&mut self, to: Forced, rules: Rules, now: Instant) {
        if self.admin.is_maint() {
            return;
        }
        match to {
            Forced::Up => self.come_up(rules, now),
            Forced::Stopping => self.enter(OperState::Stopping, now),
            Forced::Down => self.enter(OperState::Stopped, now),
        }
        self.health = if to == Forced::Down { 0 } else { rules.full() };
        self.ejected = false;
        self.forgive();
    }

    /// It is up as it was in an earlier process; `starting`: with a slow start, which goes on once `since` is known.
    pub fn resume(&mut self, starting: bool, rules: Rules, now: Instant) {
        let oper = if starting {
            rules.coming_up()
        } else {
            OperState::Running
        };
        self.enter(oper, now);
    }

    /// A second of a slow start may be over, and with the last one the slow start. HAProxy's `server_warmup`.
    pub fn step(&mut self, rules: Rules, now: Instant) {
        if self.oper != OperState::Starting {
            return;
        }
        let over = now.saturating_duration_since(self.since).as_secs();
        match u32::try_from(over) {
            Ok(over) if over < rules.slowstart => self.warmed = over,
            _ => self.enter(OperState::Running, now),
        }
    }

    /// Seconds that are over of a slow start, and all that it has; `None`: there is none under way.
    fn warming(&self, rules: Rules) -> Option<(u64, u64)> {
        let starting = self.oper == OperState::Starting && self.warmed < rules.slowstart;
        starting.then(|| (self.warmed.into(), rules.slowstart.into()))
    }

    /// Sixteenths of its weight that are in force. HAProxy's `server_recalc_eweight`.
    pub fn shares(&self, rules: Rules) -> u32 {
        let Some((over, all)) = self.warming(rules) else {
            return SHARES;
        };
        let shares = u64::from(SHARES) * over / all + 1;
        u32::try_from(shares).map_or(SHARES, |shares| shares.min(SHARES))
    }

    /// Percent of its `maxconn` that are in force. HAProxy's `srv_dynamic_maxconn`.
    pub fn maxconn_percent(&self, rules: Rules) -> u32 {
        let percent = self.warming(rules).map(|(over, all)| 100 * over / all);
        percent.map_or(100, |percent| u32::try_from(percent).unwrap_or(100))
    }

    /// Earlier checks no longer apply: up until a check fails, or as `init-state` says. A slow start goes on. Does nothing in maintenance.
    pub fn start_over(&mut self, rules: Rules, now: Instant) {
        self.forgive();
        if !self.admin.is_maint() {
            let (oper, health) = rules.beginning();
            self.health = health;
            if self.oper != OperState::Starting || !oper.is_up() {
                self.enter(oper, now);
            }
        }
    }

    /// The limits of the health counter have changed: up stays up and down stays down; a full counter stays
    /// full, an empty one empty.
    pub fn set_rules(&mut self, before: Rules, rules: Rules) {
        self.health = if self.health < before.rise {
            self.health.min(rules.rise.saturating_sub(1))
        } else if self.health >= before.full() {
            rules.full()
        } else {
            // As many failures as before are needed to take it down, within the new limit.
            let left = self.health - before.rise;
            (rules.rise + left).min(rules.full())
        };
    }

    /// Whether new connections may go to it, given its weight in force.
    pub fn is_usable(&self, weight: u32) -> bool {
        self.oper.is_up() && self.is_offered(weight)
    }

    /// The same if it is not down.
    pub fn is_offered(&self, weight: u32) -> bool {
        let leaving = self.oper == OperState::Stopping || self.admin.is_drain();
        weight > 0 && !leaving && !self.admin.is_maint()
    }

    /// Time spent down until `now`, the current outage included.
    pub fn downtime(&self, now: Instant) -> Duration {
        if self.oper == OperState::Stopped {
            self.down_before + now.saturating_duration_since(self.since)
        } else {
            self.down_before
        }
    }

    /// The `status` column. `check`: the limits of its check, `None` for a server that is not checked.
    pub fn label(&self, check: Option<Rules>) -> Cow<'static, str> {
        if self.admin.has(AdminState::RMAINT) {
            return "MAINT (resolution)".into();
        }
        if self.admin.is_maint() {
            return "MAINT".into();
        }
        let Some(rules) = check else {
            return self.unchecked_label().into();
        };
        let word = match self.oper {
            OperState::Stopped if self.health == 0 => return "DOWN".into(),
            OperState::Stopped => {
                return format!("DOWN {}/{}", self.health, rules.rise).into();
            }
            OperState::Stopping => "NOLB",
            _ if self.admin.is_drain() => "DRAIN",
            _ => "UP",
        };
        if self.health >= rules.full() {
            return word.into();
        }
        let left = (self.health + 1).saturating_sub(rules.rise);
        format!("{word} {left}/{}", rules.fall).into()
    }

    fn unchecked_label(&self) -> &'static str {
        match self.oper {
            OperState::Stopped => "DOWN",
            OperState::Stopping => "NOLB",
            _ if self.admin.is_drain() => "DRAIN",
            _ => "no check",
        }
    }

    /// Comes up, with a slow start if it has one. Does nothing when it is up.
    fn come_up(&mut self, rules: Rules, now: Instant) {
        if !self.oper.is_up() {
            self.enter(rules.coming_up(), now);
        }
    }

    /// Changes the operational state and updates the times, as HAProxy's `srv_update_status`.
    fn enter(&mut self, oper: OperState, now: Instant) {
        if self.oper == oper {
            return;
        }
        self.down_before = self.downtime(now);
        self.ejected = false;
        self.flaps.held = false;
        self.oper = oper;
        self.since = now;
        self.warmed = 0;
    }
}

#[cfg(test)]
mod tests;
