//! Which server a session tries, when, and when it gives up: steps 5 to 7 as pure decisions.
//!
//! The clock and the outcomes come in as arguments, so that a simulator can drive it. Rules:
//!
//! - Refused: the next server at once.
//! - Unanswered beyond its timeout: the next server is asked too, while the first attempt stays
//!   open. At most one attempt is in flight beside the oldest; a newer one that is unanswered as
//!   well makes room for the next server.
//! - No server twice until all were tried. Then, while an attempt is still unanswered, one that has
//!   refused may be asked again after [`TURN_AROUND`].
//! - All refused: give up at once. The whole budget spent: give up.
//! - An error of our own holds nothing against the server: it is tried again after [`SHORTAGE_PAUSE`]
//!   when no other server is left, and costs no retry.

use std::time::{Duration, Instant};

/// Pause before a server that has refused is asked again (HAProxy's turn-around).
pub const TURN_AROUND: Duration = Duration::from_secs(1);

/// Pause after a shortage of our own (descriptors, source ports, memory).
pub const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// One of the two attempts that may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptSlot {
    /// The first of the two places.
    A,
    /// The second.
    B,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Choose a server that [`ConnectPolicy::accepts`], close what is in `slot`, and connect there; then
    /// tell [`ConnectPolicy::started`], or [`ConnectPolicy::exhausted`] when there is no such server.
    Start(AttemptSlot),
    /// Wait for an outcome, at most until then.
    Wait(Instant),
    /// End the session.
    GiveUp(ConnectFailure),
}

/// Why no server was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFailure {
    /// There was none to choose.
    NoServer,
    /// All that were tried refused.
    Refused,
    /// The whole budget is spent.
    Timeout,
    /// The whole budget is spent on a shortage of our own.
    Shortage,
}

/// Limits of a session's way to a server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Attempts after the first.
    pub retries: u32,
    /// Whole budget.
    pub budget: Duration,
    /// Least timeout with one server.
    pub attempt: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    server: u64,
    started: Instant,
    timeout: Instant,
}

/// A session's way to a server.
#[derive(Debug)]
pub struct ConnectPolicy {
    limits: Limits,
    deadline: Instant,
    in_flight: [Option<Attempt>; 2],
    /// Servers that were tried, the ones in flight included. Does not allocate before the second.
    tried: Tried,
    /// Servers that could not be tried for want of something of ours.
    short: Vec<u64>,
    attempts: u32,
    last_refusal: Option<Instant>,
    last_shortage: Option<Instant>,
    exhausted: bool,
    repeating: bool,
}

impl ConnectPolicy {
    /// A way that begins at `now`.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            deadline: now + limits.budget,
            in_flight: [None, None],
            tried: Tried::default(),
            short: Vec::new(),
            attempts: 0,
            last_refusal: None,
            last_shortage: None,
            exhausted: false,
            repeating: false,
        }
    }

    /// What to do at `now`.
    pub fn step(&mut self, now: Instant) -> Step {
        if now >= self.deadline {
            return Step::GiveUp(self.failure(ConnectFailure::Timeout));
        }
        match self.newest() {
            None => self.step_idle(now),
            Some(newest) if now < newest.timeout => Step::Wait(newest.timeout.min(self.deadline)),
            Some(_) => self.step_impatient(now),
        }
    }

    /// Nothing is in flight.
    fn step_idle(&mut self, now: Instant) -> Step {
        if self.may_try() && !self.exhausted {
            return Step::Start(AttemptSlot::A);
        }
        match self.last_shortage {
            Some(at) if self.may_try() && !self.short.is_empty() => {
                let again = at + SHORTAGE_PAUSE;
                if now < again {
                    return Step::Wait(again.min(self.deadline));
                }
                self.short.clear();
                self.exhausted = false;
                Step::Start(AttemptSlot::A)
            }
            _ if self.attempts == 0 => Step::GiveUp(ConnectFailure::NoServer),
            _ => Step::GiveUp(ConnectFailure::Refused),
        }
    }

    /// Something is in flight and has been unanswered for too long.
    fn step_impatient(&mut self, now: Instant) -> Step {
        if !self.may_try() {
            return Step::Wait(self.deadline);
        }
        if !self.exhausted {
            return Step::Start(self.slot_for_next());
        }
        let Some(refusal) = self.last_refusal else {
            return Step::Wait(self.deadline);
        };
        let again = refusal + TURN_AROUND;
        if now < again || self.in_flight.iter().all(Option::is_some) {
            let until = if now < again { again } else { self.deadline };
            return Step::Wait(until.min(self.deadline));
        }
        self.repeating = true;
        Step::Start(self.slot_for_next())
    }

    /// Whether the server may be chosen now.
    pub fn accepts(&self, server: u64) -> bool {
        if self.repeating {
            return !self
                .in_flight
                .iter()
                .flatten()
                .any(|attempt| attempt.server == server);
        }
        !self.tried.contains(server) && !self.short.contains(&server)
    }

    /// No server that is accepted can be chosen.
    pub fn exhausted(&mut self) {
        self.exhausted = true;
        if self.repeating {
            // There is none to repeat either: only the attempts in flight can help now.
            self.repeating = false;
            self.last_refusal = None;
        }
    }

    /// A connection to `server` is under way in `slot`. `usual` is what a connect to it takes.
    /// `true` when the server was tried before: a retry, not a redispatch.
    pub fn started(
        &mut self,
        slot: AttemptSlot,
        server: u64,
        usual: Duration,
        now: Instant,
    ) -> bool {
        let timeout = now + self.limits.attempt.max(usual.saturating_mul(3));
        self.in_flight[slot as usize] = Some(Attempt {
            server,
            started: now,
            timeout,
        });
        self.attempts += 1;
        self.repeating = false;
        !self.tried.insert(server)
    }

    /// The attempt in `slot` was refused.
    pub fn refused(&mut self, slot: AttemptSlot, now: Instant) {
        self.in_flight[slot as usize] = None;
        self.last_refusal = Some(now);
    }

    /// The attempt in `slot` failed by a shortage of our own.
    pub fn local_error(&mut self, slot: AttemptSlot, now: Instant) {
        if let Some(attempt) = self.in_flight[slot as usize].take() {
            self.tried.remove(attempt.server);
            self.short.push(attempt.server);
            self.attempts -= 1;
        }
        self.last_shortage = Some(now);
    }

    /// Attempts after the first.
    pub fn retries(&self) -> u32 {
        self.attempts.saturating_sub(1)
    }

    /// When the whole budget is spent.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    fn may_try(&self) -> bool {
        self.attempts <= self.limits.retries
    }

    fn newest(&self) -> Option<Attempt> {
        self.in_flight
            .iter()
            .flatten()
            .copied()
            .max_by_key(|attempt| attempt.started)
    }

    /// A free slot, or that of the newer attempt: the oldest stays open.
    fn slot_for_next(&self) -> AttemptSlot {
        match &self.in_flight {
            [None, _] => AttemptSlot::A,
            [Some(a), Some(b)] if a.started > b.started => AttemptSlot::A,
            _ => AttemptSlot::B,
        }
    }

    fn failure(&self, otherwise: ConnectFailure) -> ConnectFailure {
        let flying = self.in_flight.iter().any(Option::is_some);
        if self.last_shortage.is_some() && !flying {
            ConnectFailure::Shortage
        } else {
            otherwise
        }
    }
}

/// The servers that were tried. The first needs no allocation: nearly every session has one.
#[derive(Debug, Default)]
struct Tried {
    first: Option<u64>,
    more: Vec<u64>,
}

impl Tried {
    fn contains(&self, server: u64) -> bool {
        self.first == Some(server) || self.more.contains(&server)
    }

    /// `false` when it was in already.
    fn insert(&mut self, server: u64) -> bool {
        if self.contains(server) {
            return false;
        }
        if self.first.is_none() {
            self.first = Some(server);
        } else {
            self.more.push(server);
        }
        true
    }

    fn remove(&mut self, server: u64) {
        if self.first == Some(server) {
            self.first = None;
        }
        self.more.retain(|&other| other != server);
    }
}

#[cfg(test)]
mod tests;
