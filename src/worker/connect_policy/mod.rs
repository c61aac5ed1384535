//! Which server a session tries, when it tries it, and when it gives up: steps 5 to 7 as pure decisions.
//!
//! The clock and the outcomes are arguments, so that a simulation can drive it. Rules:
//!
//! - Refused: try the next server at once, up to `retries` servers after the first.
//! - No answer within the attempt's timeout, which follows from what a connect to the server usually takes
//!   ([`Limits::answer_within`]): try the next server too, and keep the first attempt open. At most
//!   one attempt is in flight beside the oldest. When that one gets no answer either, it is closed for the next
//!   server, if there is one. The first second attempt is made even with `retries = 0`, because nothing has
//!   failed yet.
//! - No server is tried twice before all were tried.
//! - All servers that could be tried have refused: try them again after a pause that grows from [`PAUSE_MIN`]
//!   to [`PAUSE_MAX`], for as long as HAProxy would go on with its `retries` and its turn-around of
//!   [`TURN_AROUND`]. When no server of the backend is usable, give up at once, or hold the session first until one is.
//!   The time in queues and in holds is no part of these times.
//! - The connect timeout has passed: give up.
//! - An attempt at a server that is DOWN or in maintenance is hopeless. When no other attempt is in flight, try
//!   the next server at once; when there is none, give up.
//! - All servers that could be tried have as many sessions as they may have: wait in a queue. The time in queues is no
//!   part of the connect timeout and has a limit of its own. A server that has refused is tried again meanwhile, as
//!   without a queue. An attempt that has got no answer yet stays open beside the queue until the connect timeout has
//!   passed, or a slot has come and a newer attempt needs its place.
//! - The sessions of the backend have made as many retries as they may together (`retry-budget`): a session whose attempt
//!   fails has none left, and no second attempt is made beside one without an answer.
//! - A shortage on this machine does not count against the server and costs no retry. The server is tried again
//!   after [`SHORTAGE_PAUSE`] when no other is left. After [`SHORTAGE_MAX`] of nothing but shortages: give up.

mod tried;

use std::time::{Duration, Instant};
use tried::Tried;

/// HAProxy's turn-around: it waits a second before it tries a server again that has refused.
pub const TURN_AROUND: Duration = Duration::from_secs(1);

/// First pause before servers that have refused are tried again.
pub const PAUSE_MIN: Duration = Duration::from_millis(20);

/// Longest pause before servers that have refused are tried again.
pub const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Pause after a shortage on this machine (descriptors, source ports, memory).
pub const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// How long a session waits for the end of a shortage on this machine.
pub const SHORTAGE_MAX: Duration = Duration::from_millis(1500);

/// One of the two attempts that may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptSlot {
    /// The first.
    A,
    /// The second.
    B,
}

impl AttemptSlot {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Choose a server that [`ConnectPolicy::accepts`]. If there is one, close what is in the slot,
    /// connect there and tell [`ConnectPolicy::started`]; if not, tell [`ConnectPolicy::exhausted`].
    Start(AttemptSlot),
    /// Wait for an outcome, at most until then.
    Wait(Instant),
    /// Close the attempts that have got no answer, and tell [`ConnectPolicy::withdrawn`]. The session goes on waiting in
    /// its queue.
    LeaveServers,
    /// Leave the queue, and tell [`ConnectPolicy::left_queue`]. An attempt may still be answered.
    LeaveQueue,
    /// End the session.
    GiveUp(ConnectFailure),
}

/// Why no server was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFailure {
    /// No server is usable, or none is usable any more.
    NoServer,
    /// All servers that were tried have refused.
    Refused,
    /// The connect timeout has passed.
    Timeout,
    /// A shortage on this machine has lasted too long.
    Shortage,
    /// The session has waited in queues for too long.
    QueueTimeout,
    /// As many sessions wait for its server as may.
    QueueFull,
}

/// Limits of connecting for one session.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many servers are tried after the first, and for how many turn-arounds servers are tried again.
    pub retries: u32,
    /// The connect timeout, over all attempts.
    pub budget: Duration,
    /// How long a server may leave a connect unanswered before the next one is tried too.
    pub attempt: Duration,
    /// That time is shorter for a server of which it is known what a connect usually takes. Not where a session has a
    /// server of its own.
    pub by_usual: bool,
    /// The time in queues.
    pub queue: Duration,
    /// The time while no server is usable.
    pub hold: Duration,
}

/// A connect to a server takes so many times what it usually takes before the next one is tried too.
const USUAL_TIMES: u32 = 4;

/// Least time for a connect that is expected to be fast: scheduling alone may take a few milliseconds.
pub const ANSWER_MIN: Duration = Duration::from_millis(5);

impl Limits {
    /// How long an answer of a server is waited for to which a connect usually takes `usual` (zero: unknown), before the
    /// next one is tried too. A server that is far away has three times that, or each connect to it would be two.
    pub fn answer_within(&self, usual: Duration) -> Duration {
        let most = self.attempt.max(usual.saturating_mul(USUAL_TIMES - 1));
        if usual.is_zero() || !self.by_usual {
            return most;
        }
        let soon = usual.saturating_mul(USUAL_TIMES);
        soon.clamp(ANSWER_MIN.min(most), most)
    }
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    server: u64,
    started: Instant,
    /// When the next server is tried too.
    timeout: Instant,
    /// Its server is DOWN or in maintenance.
    hopeless: bool,
}

/// Time that is no part of the other limits and has one of its own, over several stays together.
#[derive(Debug)]
struct Stay {
    limit: Duration,
    /// Since when the one lasts that is under way.
    since: Option<Instant>,
    /// How long those before it have lasted.
    before: Duration,
}

impl Stay {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: None,
            before: Duration::ZERO,
        }
    }

    /// When the one that is under way ends at the latest.
    fn end(&self) -> Option<Instant> {
        let since = self.since?;
        Some(since + self.limit.saturating_sub(self.before))
    }

    fn is_used_up(&self) -> bool {
        self.before >= self.limit
    }

    /// Begins one. When it ends at the latest.
    fn begin(&mut self, now: Instant) -> Instant {
        self.since = Some(now);
        now + self.limit.saturating_sub(self.before)
    }

    /// How long they have lasted together until `now`.
    fn total(&self, now: Instant) -> Duration {
        let lasted = |since| now.saturating_duration_since(since);
        self.before + self.since.map_or(Duration::ZERO, lasted)
    }

    /// Ends the one that is under way, if there is one. How long it has lasted.
    fn leave(&mut self, now: Instant) -> Duration {
        let since = self.since.take().unwrap_or(now);
        let lasted = now.saturating_duration_since(since);
        self.before += lasted;
        lasted
    }
}

/// How long the stays of a session have lasted so far, of which there are limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StayTimes {
    /// In queues.
    pub queue: Duration,
    /// Without a usable server.
    pub hold: Duration,
}

/// What servers have refused.
#[derive(Debug, Clone, Copy)]
struct Refusals {
    /// The first refusal.
    first: Instant,
    /// The last one, or when the last pass would have begun in a queue.
    last: Instant,
    /// How long the stays since the first one have lasted together.
    stays: Duration,
}

/// The state of connecting for one session.
#[derive(Debug)]
pub struct ConnectPolicy {
    limits: Limits,
    deadline: Instant,
    in_flight: [Option<Attempt>; 2],
    /// Servers that were tried, those in flight included. Does not allocate before the second.
    tried: Tried,
    /// Servers that could not be tried because of a shortage on this machine.
    short: Vec<u64>,
    /// While attempts end in nothing but shortages: the time of the first and of the last one.
    shortage: Option<(Instant, Instant)>,
    refusals: Option<Refusals>,
    /// Attempts so far.
    attempts: u32,
    /// Attempts in this pass over the servers.
    pass_attempts: u32,
    /// Passes that have ended in refusals.
    passes: u32,
    /// In queues.
    queue: Stay,
    /// Without a usable server.
    hold: Stay,
    /// How long holds have lasted that have ended, and that [`ConnectPolicy::left_hold`] has not told yet.
    held: Duration,
    /// As the servers are now, none that [`ConnectPolicy::accepts`] can be chosen.
    exhausted: bool,
    /// As the servers are now, none can be chosen at all.
    none_usable: bool,
}

impl ConnectPolicy {
    /// Begins at `now`.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            deadline: now + limits.budget,
            in_flight: [None, None],
            tried: Tried::default(),
            short: Vec::new(),
            shortage: None,
            refusals: None,
            attempts: 0,
            pass_attempts: 0,
            passes: 0,
            queue: Stay::new(limits.queue),
            hold: Stay::new(limits.hold),
            held: Duration::ZERO,
            exhausted: false,
            none_usable: false,
        }
    }

    /// What to do at `now`.
    pub fn step(&mut self, now: Instant) -> Step {
        if let Some(end) = self.queue.end() {
            return self.step_queued(end, now);
        }
        if let Some(end) = self.hold.end() {
            if !self.none_usable {
                self.end_hold(now);
            } else if now < end {
                return Step::Wait(end);
            } else {
                return Step::GiveUp(ConnectFailure::NoServer);
            }
        }
        if now >= self.deadline {
            return Step::GiveUp(if self.is_connecting() {
                ConnectFailure::Timeout
            } else if self.shortage.is_some() {
                ConnectFailure::Shortage
            } else if self.refusals.is_some() {
                ConnectFailure::Refused
            } else {
                ConnectFailure::Timeout
            });
        }
        let step = match self.newest() {
            None => self.step_idle(now),
            Some(newest) if now < newest.timeout && !self.is_hopeless() => {
                Step::Wait(newest.timeout)
            }
            Some(_) => self.step_silent(now),
        };
        match step {
            Step::Wait(until) => Step::Wait(until.min(self.deadline)),
            Step::GiveUp(ConnectFailure::NoServer) if !self.hold.is_used_up() => {
                Step::Wait(self.hold.begin(now))
            }
            step => step,
        }
    }

    /// The session waits in a queue, until then at most.
    fn step_queued(&mut self, end: Instant, now: Instant) -> Step {
        let connects = self.is_connecting();
        if now >= end && connects && !self.is_hopeless() {
            return Step::LeaveQueue;
        }
        if now >= end {
            return Step::GiveUp(ConnectFailure::QueueTimeout);
        }
        if connects && now >= self.deadline {
            return Step::LeaveServers;
        }
        let end = end.min(if connects { self.deadline } else { end });
        match self.next_pass_queued() {
            Some(at) if now < at => Step::Wait(end.min(at)),
            Some(_) => {
                // Those that have refused may be chosen again, too. When they are full, the next pass comes after the
                // next pause.
                self.exhausted = true;
                if let Some(refusals) = &mut self.refusals {
                    refusals.last = now;
                }
                self.begin_pass(self.slot_for_next())
            }
            None => Step::Wait(end),
        }
    }

    /// Nothing is in flight.
    fn step_idle(&mut self, now: Instant) -> Step {
        if !self.exhausted && self.may_try() {
            return Step::Start(AttemptSlot::A);
        }
        if let Some((since, last)) = self.shortage
            && !self.short.is_empty()
        {
            return if now >= since + SHORTAGE_MAX {
                Step::GiveUp(ConnectFailure::Shortage)
            } else {
                self.after_shortage(last, now, AttemptSlot::A)
            };
        }
        if self.none_usable {
            return Step::GiveUp(ConnectFailure::NoServer);
        }
        match self.next_pass() {
            None => Step::GiveUp(ConnectFailure::Refused),
            Some(at) if now < at => Step::Wait(at),
            Some(_) => self.begin_pass(AttemptSlot::A),
        }
    }

    /// An attempt is in flight. The newest has had no answer for too long, or all are hopeless.
    fn step_silent(&mut self, now: Instant) -> Step {
        let slot = self.slot_for_next();
        if !self.exhausted && (self.may_try() || self.attempts == 1) {
            return Step::Start(slot);
        }
        if self.none_usable && self.is_hopeless() {
            return Step::GiveUp(ConnectFailure::NoServer);
        }
        if self.in_flight.iter().any(Option::is_none) {
            if let Some((since, last)) = self.shortage
                && !self.short.is_empty()
            {
                return if self.is_hopeless() && now >= since + SHORTAGE_MAX {
                    Step::GiveUp(ConnectFailure::Shortage)
                } else {
                    self.after_shortage(last, now, slot)
                };
            }
            match self.next_pass() {
                Some(at) if now < at => return Step::Wait(at),
                Some(_) => return self.begin_pass(slot),
                None => {}
            }
        }
        if self.is_hopeless() {
            // Another server is usable, but the retries are used up.
            return Step::GiveUp(ConnectFailure::Refused);
        }
        Step::Wait(self.deadline)
    }

    /// A stay has lasted so long: that time counts for no limit that runs while servers are tried.
    fn stayed(&mut self, lasted: Duration, now: Instant) {
        self.deadline += lasted;
        if let Some(refusals) = &mut self.refusals {
            let most = now.saturating_duration_since(refusals.first);
            refusals.stays = (refusals.stays + lasted).min(most);
        }
        if let Some((since, _)) = &mut self.shortage {
            *since = (*since + lasted).min(now);
        }
    }

    /// Tries again the servers that a shortage prevented, or waits until that is due.
    fn after_shortage(&mut self, last: Instant, now: Instant, slot: AttemptSlot) -> Step {
        let again = last + SHORTAGE_PAUSE;
        if now < again {
            return Step::Wait(again);
        }
        self.short.clear();
        self.exhausted = false;
        Step::Start(slot)
    }

    /// When servers that have refused are tried again. `None`: not again, or none has refused.
    fn next_pass(&self) -> Option<Instant> {
        self.pass_within(self.refusals?.stays)
    }

    /// The same while the session waits in a queue: not for all of that time, or many sessions would ask for long.
    fn next_pass_queued(&self) -> Option<Instant> {
        self.pass_within(Duration::ZERO)
    }

    /// When the next pass begins, if that is before the retries are over. They last for `longer`.
    fn pass_within(&self, longer: Duration) -> Option<Instant> {
        let refusals = self.refusals?;
        let at = refusals.last + self.pause();
        let most = TURN_AROUND.saturating_mul(self.limits.retries) + longer;
        (at <= refusals.first + most).then_some(at)
    }

    fn begin_pass(&mut self, slot: AttemptSlot) -> Step {
        self.passes += 1;
        self.pass_attempts = 0;
        if self.exhausted {
            self.tried.clear();
            self.exhausted = false;
        }
        Step::Start(slot)
    }

    /// Whether the server may be chosen now.
    pub fn accepts(&self, server: u64) -> bool {
        !self.tried.contains(server) && !self.short.contains(&server) && !self.is_asked(server)
    }

    fn is_asked(&self, server: u64) -> bool {
        let mut asked = self.in_flight.iter().flatten();
        asked.any(|attempt| attempt.server == server)
    }

    /// The pause before the next pass.
    fn pause(&self) -> Duration {
        let doubled = PAUSE_MIN.saturating_mul(1 << self.passes.min(16));
        doubled.min(PAUSE_MAX)
    }

    /// No server that [`ConnectPolicy::accepts`] can be chosen; `none_usable`: no other server either.
    pub fn exhausted(&mut self, none_usable: bool) {
        self.exhausted = true;
        self.none_usable = none_usable;
        let pause = self.pause();
        if self.passes > 0
            && self.pass_attempts == 0
            && let Some(refusals) = &mut self.refusals
        {
            // No server could be tried in this pass. The next pass comes after the next pause.
            refusals.last += pause;
        }
    }

    /// Whether the session may wait in a queue beside an attempt: without time for that it would leave it at once.
    pub fn may_queue(&self) -> bool {
        !self.queue.is_used_up()
    }

    /// All servers that can be chosen are full, and the session does not wait in a queue beside its attempt: the next
    /// one is made later.
    pub fn postponed(&mut self, now: Instant) {
        let newest = self.in_flight.iter_mut().flatten();
        if let Some(newest) = newest.max_by_key(|attempt| attempt.started) {
            newest.timeout = now + self.limits.attempt;
        }
    }

    /// All servers that can be chosen are full: the session waits in a queue.
    pub fn queued(&mut self, now: Instant) {
        self.queue.begin(now);
    }

    /// The session does not wait in a queue any more. Returns for how long it has.
    pub fn left_queue(&mut self, now: Instant) -> Duration {
        let is_over = self.queue.end().is_some_and(|end| now >= end);
        let waited = self.queue.leave(now);
        // The attempt that goes on alone had that time, too.
        if !(is_over && self.is_connecting()) {
            self.stayed(waited, now);
        }
        waited
    }

    /// How long the session has waited until `now`.
    pub fn waited(&self, now: Instant) -> StayTimes {
        StayTimes {
            queue: self.queue.total(now),
            hold: self.hold.total(now),
        }
    }

    /// How long the stay lasts that is under way, until `now`.
    pub fn stay(&self, now: Instant) -> Duration {
        let since = self.queue.since.or(self.hold.since);
        since.map_or(self.held, |since| {
            self.held + now.saturating_duration_since(since)
        })
    }

    /// The session has waited elsewhere before it has begun here.
    pub fn has_waited(&mut self, waited: StayTimes) {
        self.queue.before = waited.queue;
        self.hold.before = waited.hold;
    }

    /// Whether the session waits because no server is usable.
    pub fn is_held(&self) -> bool {
        self.hold.end().is_some()
    }

    /// A hold is over, if there is one.
    fn end_hold(&mut self, now: Instant) {
        let held = self.hold.leave(now);
        self.stayed(held, now);
        self.held += held;
    }

    /// Whether there is a hold, or one that [`ConnectPolicy::left_hold`] has not told yet.
    ///
    /// # Hot path: few sessions are ever held.
    pub fn was_held(&self) -> bool {
        self.hold.since.is_some() || !self.held.is_zero()
    }

    /// The session is not held any more. Returns for how long it was since the last call.
    pub fn left_hold(&mut self, now: Instant) -> Duration {
        self.end_hold(now);
        std::mem::take(&mut self.held)
    }

    /// Whether the session waits in a queue.
    pub fn is_queued(&self) -> bool {
        self.queue.end().is_some()
    }

    /// The servers that may not be chosen now.
    pub fn refused_servers(&self) -> Box<[u64]> {
        let asked = self.in_flight.iter().flatten().map(|it| it.server);
        let asked = asked.filter(|server| !self.tried.contains(*server));
        self.tried
            .all()
            .map(|(server, _)| *server)
            .chain(self.short.iter().copied())
            .chain(asked)
            .collect()
    }

    /// Servers have come UP or gone DOWN, or the list of them has changed.
    pub fn servers_changed(&mut self) {
        self.exhausted = false;
        self.none_usable = false;
    }

    /// Sets whether the server of the attempt in `slot` is DOWN or in maintenance.
    pub fn set_hopeless(&mut self, slot: AttemptSlot, hopeless: bool) {
        if let Some(attempt) = &mut self.in_flight[slot as usize] {
            attempt.hopeless = hopeless;
        }
    }

    /// Whether `server` was not tried since it was renewed in the generation `renewed`.
    pub fn is_news(&self, server: u64, renewed: u64) -> bool {
        let tried = self.tried.last(server);
        tried.is_none_or(|tried| renewed > tried)
    }

    /// The server has come UP or got another address since it was tried, so that earlier attempts at it do not
    /// count. The caller closes the attempt that was in flight.
    pub fn renewed(&mut self, server: u64) {
        for attempt in &mut self.in_flight {
            if attempt.is_some_and(|attempt| attempt.server == server) {
                *attempt = None;
            }
        }
        self.tried.remove(server);
        // It is tried even when the retries are used up.
        self.pass_attempts = 0;
        self.servers_changed();
    }

    /// A connect to `server`, as it was renewed last in the generation `renewed`, has begun in `slot`. `usual` is how
    /// long a connect to it usually takes.
    pub fn started(
        &mut self,
        slot: AttemptSlot,
        (server, renewed): (u64, u64),
        usual: Duration,
        now: Instant,
    ) {
        let timeout = now + self.limits.answer_within(usual);
        self.in_flight[slot as usize] = Some(Attempt {
            server,
            started: now,
            timeout,
            hopeless: false,
        });
        self.attempts += 1;
        self.pass_attempts += 1;
        self.tried.insert(server, renewed);
    }

    /// The attempt in `slot` was refused.
    pub fn refused(&mut self, slot: AttemptSlot, now: Instant) {
        debug_assert!(self.in_flight[slot as usize].is_some(), "nothing was asked");
        self.in_flight[slot as usize] = None;
        self.shortage = None;
        let refusals = self.refusals.get_or_insert(Refusals {
            first: now,
            last: now,
            stays: Duration::ZERO,
        });
        refusals.last = now;
    }

    /// Whether an attempt follows the one that has just failed.
    pub fn retries_again(&self, now: Instant) -> bool {
        let at_once = !self.exhausted && self.may_try();
        now < self.deadline && (at_once || self.next_pass().is_some())
    }

    /// No attempt may follow the one that has just failed, as if there were no retries left. The session has what is in
    /// flight, and servers that come UP.
    pub fn retry_denied(&mut self) {
        self.exhausted = true;
        self.refusals = None;
    }

    /// The attempt in `slot` has ended for a reason that no server caused.
    pub fn withdrawn(&mut self, slot: AttemptSlot) {
        self.in_flight[slot as usize] = None;
    }

    /// The attempt in `slot` has ended by an order: others are tried, also when the retries are used up.
    pub fn ordered_away(&mut self, slot: AttemptSlot) {
        self.withdrawn(slot);
        self.pass_attempts = 0;
        self.servers_changed();
    }

    /// The attempt in `slot` failed by a shortage on this machine.
    pub fn local_error(&mut self, slot: AttemptSlot, now: Instant) {
        if let Some(attempt) = self.in_flight[slot as usize].take() {
            self.tried.remove(attempt.server);
            self.short.push(attempt.server);
            self.attempts -= 1;
            self.pass_attempts = self.pass_attempts.saturating_sub(1);
        }
        let since = self.shortage.map_or(now, |(since, _)| since);
        self.shortage = Some((since, now));
    }

    /// Attempts after the first.
    pub fn retries(&self) -> u32 {
        self.attempts.saturating_sub(1)
    }

    /// When the connect timeout has passed, or the time in queues or without a usable server.
    pub fn deadline(&self) -> Instant {
        let stay = self.queue.end().or(self.hold.end());
        stay.unwrap_or(self.deadline)
    }

    /// Whether an attempt is in this slot.
    pub fn is_in_flight(&self, slot: AttemptSlot) -> bool {
        self.in_flight[slot as usize].is_some()
    }

    /// Whether anything is in flight.
    pub fn is_connecting(&self) -> bool {
        self.in_flight.iter().any(Option::is_some)
    }

    /// Something is in flight, and every attempt is at a server that is DOWN or in maintenance.
    pub fn is_hopeless(&self) -> bool {
        let mut attempts = self.in_flight.iter().flatten();
        self.is_connecting() && attempts.all(|attempt| attempt.hopeless)
    }

    fn may_try(&self) -> bool {
        self.pass_attempts <= self.limits.retries
    }

    fn newest(&self) -> Option<Attempt> {
        self.in_flight
            .iter()
            .flatten()
            .copied()
            .max_by_key(|attempt| attempt.started)
    }

    /// A free slot, or that of the newer attempt: the older one stays open.
    pub fn slot_for_next(&self) -> AttemptSlot {
        match &self.in_flight {
            [None, _] => AttemptSlot::A,
            [Some(a), Some(b)] if a.started > b.started => AttemptSlot::A,
            _ => AttemptSlot::B,
        }
    }
}

#[cfg(test)]
mod tests;
