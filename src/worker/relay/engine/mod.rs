//! The relay's sessions and their events. Runs on a worker.
//!
//! There is one epoll instance, edge-triggered. A descriptor is added once. It is removed by closing it, or explicitly
//! when its session leaves for another process ([`moving`]), which has the socket open too. A server's socket has
//! write interest from the start, because that reports the server's answer; a client's socket gets it after a short
//! write. A turn takes a batch of events, notes their flags, and serves each session concerned once. A session that
//! does not finish within its share waits for the next turn, after all others.
//!
//! A panic while serving a session ends that session and no other.

mod ending;
mod moving;
mod orders;
mod surplus;
mod timing;

use super::busy_poll::{AWAKE, BusyPoll, MESSAGE_MAX};
use super::conn::{Conn, Established, Side, Unsent};
use super::direction::{Flow, IoContext, flow};
use super::liveness;
use super::splice::TransferMode;
use super::table::{Subject, Table, token};
use super::wheel::Wheel;
use crate::live::timing::millis;
use crate::live::{Cause, Phase, Termination};
use crate::worker::session_stats::WorkerStats;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use timing::{TICK_MS, tick_of};

/// How long before the creation of an engine its clock begins. More than the longest timeout that makes sense for a
/// silent session.
const EARLIER: Duration = Duration::from_secs(400 * 24 * 3600);

/// Events that are taken at once.
const EVENTS_MAX: usize = 256;

/// The sessions of one worker.
pub(super) struct Engine {
    epoll: OwnedFd,
    /// Events that were taken and not handled yet: those that a busy poll has found, until the turn that follows it.
    events: Vec<epoll::Event>,
    conns: Table,
    /// Sessions to be served in this turn.
    ready: Vec<u32>,
    /// Sessions that are served by time too, by key and generation: those that drain, and those for
    /// whose write the kernel had no memory. The kernel makes no event for either.
    recheck: Vec<(u32, u32)>,
    wheel: Wheel,
    io: IoContext,
    start: Instant,
    /// Milliseconds since `start`, read once a turn.
    now: u64,
    /// When the tables were last checked for memory to free, ms.
    shrunk: u64,
    /// When the last turn began, since `start`.
    turned: Duration,
    busy_poll: BusyPoll,
    /// The entry of the table where the next look at sessions for [`Engine::end_surplus`] begins.
    surplus_from: usize,
    worker_stats: Rc<WorkerStats>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("sessions", &self.conns.iter().count())
            .finish_non_exhaustive()
    }
}

impl Engine {
    pub(super) fn new(worker_stats: Rc<WorkerStats>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        // A session may come that has been silent for longer than this process runs.
        let begun = Instant::now();
        let start = begun.checked_sub(EARLIER).unwrap_or(begun);
        let mut engine = Self {
            epoll,
            events: Vec::with_capacity(EVENTS_MAX),
            conns: Table::new(),
            ready: Vec::new(),
            recheck: Vec::new(),
            wheel: Wheel::new(),
            io: IoContext::new(Rc::clone(&worker_stats)),
            start,
            now: 0,
            shrunk: 0,
            turned: Duration::ZERO,
            busy_poll: BusyPoll::new(),
            surplus_from: 0,
            worker_stats,
        };
        engine.turned = engine.read_clock();
        engine.shrunk = engine.now;
        engine.wheel.advance(engine.now / TICK_MS, &mut Vec::new());
        Ok(engine)
    }

    /// A sleep in [`Engine::turn_after`] ends when `descriptor` becomes readable.
    pub(super) fn watch_wakes(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let interest = EventFlags::IN | EventFlags::ET;
        epoll::add(
            &self.epoll,
            descriptor,
            EventData::new_u64(NO_ENTRY),
            interest,
        )?;
        Ok(())
    }

    /// Watches a descriptor for reading, and returns the key of its entry.
    pub(super) fn register_watched(&mut self, descriptor: BorrowedFd<'_>) -> io::Result<u32> {
        let (key, token) = self.conns.register_watched();
        if let Err(error) = epoll::add(&self.epoll, descriptor, EventData::new_u64(token), INTEREST)
        {
            self.conns.deregister_watched(key);
            return Err(error.into());
        }
        Ok(key)
    }

    /// Those of `events` that a watched descriptor has had.
    pub(super) fn poll_watched(
        &mut self,
        key: u32,
        events: EventFlags,
        context: &mut Context<'_>,
    ) -> Poll<EventFlags> {
        self.conns.poll_watched(key, events, context)
    }

    /// A watched descriptor has these events no more.
    pub(super) fn clear_watched(&mut self, key: u32, events: EventFlags) {
        self.conns.clear_watched(key, events);
    }

    /// Ends the watch of a descriptor, which is still open.
    pub(super) fn deregister_watched(&mut self, key: u32, descriptor: BorrowedFd<'_>) {
        // It can only fail when the kernel knows nothing of the descriptor any more.
        let _ = epoll::delete(&self.epoll, descriptor);
        self.conns.deregister_watched(key);
    }

    /// When the last turn began.
    pub(super) fn clock(&self) -> Instant {
        self.start + self.turned
    }

    pub(super) fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Sets the share of a turn.
    #[cfg(test)]
    pub(super) fn set_share(&mut self, reads: usize) {
        self.io.share = reads;
    }

    /// The most bytes that are kept in memory of one direction.
    #[cfg(test)]
    pub(super) fn most_kept(&self) -> usize {
        let sides = self.conns.iter().flat_map(|(_, conn)| &conn.sides);
        sides
            .map(|side| side.unsent.bytes().len())
            .max()
            .unwrap_or(0)
    }

    /// Advances the clock.
    #[cfg(test)]
    pub(super) fn pass(&mut self, time: std::time::Duration) {
        self.start -= time;
    }

    /// Whether the client and the server of some session have bytes to take.
    #[cfg(test)]
    pub(super) fn pending(&self) -> [bool; 2] {
        Side::BOTH.map(|side| {
            let mut sessions = self.conns.iter();
            sessions.any(|(_, conn)| conn.side(side).has_pending())
        })
    }

    /// As if the last write of all sessions had failed because the kernel had no memory.
    #[cfg(test)]
    pub(super) fn lacks_memory(&mut self) {
        let keys: Vec<u32> = self.conns.iter().map(|(key, _)| key).collect();
        for key in keys {
            for side in &mut self.conns[key].sides {
                side.retry = side.has_pending();
                side.writable |= side.retry;
            }
            self.after_short_write(key);
        }
    }

    /// Pipes that wait to be used again.
    #[cfg(test)]
    pub(super) fn pooled_pipes(&self) -> usize {
        self.io.pipes.pooled()
    }

    /// Whether a session waits for its next share of a turn.
    pub(super) fn is_unfinished(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Watches the socket of a server that is being connected to, and returns the key of its entry.
    ///
    /// It has write interest from the start, which reports the server's answer. Later that costs nothing: an
    /// edge comes only after a short write.
    pub(super) fn register_connect(&mut self, socket: BorrowedFd<'_>) -> io::Result<u32> {
        let (key, token) = self.conns.register_watched();
        let interest = INTEREST | EventFlags::OUT;
        if let Err(error) = epoll::add(&self.epoll, socket, EventData::new_u64(token), interest) {
            self.conns.deregister_watched(key);
            return Err(error.into());
        }
        Ok(key)
    }

    /// The events of a server that is being connected to.
    pub(super) fn poll_connect(&mut self, key: u32, context: &mut Context<'_>) -> Poll<EventFlags> {
        self.conns.poll_watched(key, EventFlags::all(), context)
    }

    /// Gives back the entry of a server that was being connected to. The caller closes the socket next.
    pub(super) fn deregister_connect(&mut self, key: u32) {
        self.conns.deregister_watched(key);
    }

    pub(super) fn adopt(&mut self, session: Established) {
        self.read_clock();
        let Established {
            client,
            server,
            stats,
            prefix,
        } = session;
        let Some((socket, kind, key)) = server.into_parts() else {
            return;
        };
        let now = self.now;
        let (heard, token) = self.conns.promote(key, |generation| {
            Conn::new((key, generation), [client, (socket, kind)], stats, now)
        });
        let conn = &mut self.conns[key];
        for (side, bytes) in conn.sides.iter_mut().zip(prefix) {
            if let Some(bytes) = bytes {
                side.unsent = Unsent::of(bytes);
            }
        }
        let client = &conn.side(Side::Client).fd;
        if let Err(error) = epoll::add(&self.epoll, client, EventData::new_u64(token), INTEREST) {
            let error = io::Error::from(error);
            conn.stats.report_shortage(&error, &self.worker_stats);
            let end = Termination::because(Cause::Resource, Phase::Connect, error);
            self.remove(key, end);
            return;
        }
        // The client has usually sent something already.
        conn.side_mut(Side::Client).readable = true;
        if let Some(error) = conn.side_mut(Side::Server).note(heard) {
            self.break_off(key, Side::Server, error);
        }
        self.serve(key);
        if self.conns.get(key).is_some() {
            self.schedule(key);
        }
    }

    /// Takes the events that are there, and serves the sessions concerned.
    #[cfg(test)]
    pub(super) fn turn(&mut self) -> io::Result<Polled> {
        self.turn_after(Some(Duration::ZERO))
    }

    /// Takes a batch of events, unless there is one already, and serves the sessions concerned. Sleeps until there is one,
    /// for `time` at most; `None`: for ever.
    pub(super) fn turn_after(&mut self, time: Option<Duration>) -> io::Result<Polled> {
        if self.events.is_empty() {
            self.take_events(time)?;
        }
        let mut events = std::mem::take(&mut self.events);
        let now = self.read_clock();
        let before = std::mem::replace(&mut self.turned, now);
        for event in &events {
            self.mark(event.data.u64(), event.flags);
        }
        let taken = events.len();
        events.clear();
        self.events = events;
        // There may also be more events of servers that have answered, which are in no session's list.
        let all = taken < EVENTS_MAX;
        // Sessions that use up their share queue again, for the next turn.
        let mut ready = std::mem::take(&mut self.ready);
        let (served, first) = (ready.len(), ready.first().copied());
        self.io.moved = 0;
        self.serve_each(&mut ready.drain(..), true);
        let finished = self.ready.is_empty();
        if finished {
            self.ready = ready;
        }
        if taken > 0 {
            let one = taken == 1 && served == 1 && finished;
            let alone = first.filter(|&key| one && !self.is_bulk(key));
            let since = now.saturating_sub(before);
            self.busy_poll.turned(alone, since);
        }
        Ok(if all && served < FEW && finished {
            Polled::Idle
        } else {
            Polled::More
        })
    }

    /// Whether the session that was just served moves bulk.
    fn is_bulk(&self, key: u32) -> bool {
        let spliced = |conn: &Conn| conn.sides.iter().any(|side| side.mode.is_spliced());
        self.io.moved > MESSAGE_MAX || self.conns.get(key).is_some_and(spliced)
    }

    /// After an idle turn: polls for the next event, where that pays. Whether there is one.
    pub(super) fn busy_poll(&mut self) -> io::Result<bool> {
        if !self.busy_poll.is_worth_it() {
            return Ok(false);
        }
        let begun = Instant::now();
        while self.events.is_empty() && begun.elapsed() < AWAKE {
            self.take_events(Some(Duration::ZERO))?;
        }
        let found = !self.events.is_empty();
        self.busy_poll.ended(found);
        Ok(found)
    }

    /// Takes the events that are there, or waits for one, for `time` at most.
    fn take_events(&mut self, time: Option<Duration>) -> io::Result<()> {
        // What does not fit lasts longer than any process. For the kernel it is rounded up to milliseconds.
        let time = time.and_then(|time| rustix::event::Timespec::try_from(time).ok());
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, spare, time.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes the flags of an event.
    fn mark(&mut self, token: u64, flags: EventFlags) {
        let Subject::Session(key, side, conn) = self.conns.subject(token, flags) else {
            return;
        };
        let error = conn.side_mut(side).note(flags);
        let idle = std::mem::replace(&mut conn.queued, true);
        if !idle {
            self.ready.push(key);
        }
        if let Some(error) = error {
            self.break_off(key, side, error);
        }
    }

    /// Serves a session, and ends it when it is over or when serving it panics.
    fn serve(&mut self, key: u32) {
        self.serve_each(&mut std::iter::once(key), false);
    }

    /// Serves sessions; `queued`: they leave the list of queued sessions. One panic guard covers many sessions,
    /// because a guard for each event would cost more.
    fn serve_each(&mut self, keys: &mut impl Iterator<Item = u32>, queued: bool) {
        let mut serving = None;
        loop {
            let served = catch_unwind(AssertUnwindSafe(|| {
                for key in keys.by_ref() {
                    serving = Some(key);
                    if let Some(end) = self.serve_unguarded(key, queued) {
                        self.remove(key, end);
                    }
                }
            }));
            match (served, serving) {
                (Err(_), Some(key)) => {
                    tracing::error!("a session has ended by an internal error");
                    self.remove(key, Termination::new(Cause::Internal, Phase::Data));
                }
                _ => return,
            }
        }
    }

    /// Moves what can be moved; the session's end if it is over.
    fn serve_unguarded(&mut self, key: u32, queued: bool) -> Option<Termination> {
        let conn = self.conns.get_mut(key)?;
        conn.queued &= !queued;
        if conn.draining().is_some() {
            return self.drain(key);
        }
        self.io.was_short = false;
        let mut unfinished = false;
        for from in Side::BOTH {
            // Mostly one direction has something to do, and this check costs less than a call.
            if !conn.is_moving(from) {
                continue;
            }
            let ended = conn.side(from).ended;
            match flow(conn, from, &mut self.io, self.now, &self.worker_stats) {
                Flow::Waiting => {}
                Flow::Unfinished => unfinished = true,
                Flow::Broken(side, error) => {
                    self.break_off(key, side, error);
                    return self.serve_unguarded(key, false);
                }
            }
            if conn.side(from).ended && !ended {
                // The timeouts for half-closed sessions apply from now on, and may come sooner.
                self.wheel
                    .schedule(key, tick_of(liveness::next_look(conn, self.now, self.now)));
            }
        }
        if conn.is_finished() {
            return Some(Termination::normal());
        }
        if self.io.was_short {
            self.after_short_write(key);
        }
        self.after_flow(key, unfinished);
        if let Some((key, side)) = self.io.pipes.over_limit() {
            self.reclaim(key, side);
        }
        None
    }

    /// Takes back a slow reader's pipe and keeps its content in memory, so that others can use the pipe.
    fn reclaim(&mut self, key: u32, side: Side) {
        let conn = &mut self.conns[key];
        let state = conn.side_mut(side);
        let Some(mut pipe) = state.pipe.take() else {
            return;
        };
        let read = pipe.read();
        self.io.pipes.release(key, side, pipe);
        match read {
            Ok(bytes) => {
                debug_assert!(
                    state.unsent.is_empty(),
                    "a pipe is filled when nothing is owed"
                );
                state.unsent = Unsent::of(bytes);
                // Its reader is slow. Until whole reads fit again, copying costs no more.
                conn.side_mut(side.other()).mode = TransferMode::default();
            }
            // The bytes are lost. Not expected: a pipe that was filled can be read.
            Err(error) => self.break_off(key, side, error),
        }
    }

    /// Some side has bytes to take, or had some until now: registers the events and times that this needs.
    fn after_short_write(&mut self, key: u32) {
        let conn = &mut self.conns[key];
        for side in Side::BOTH {
            let generation = conn.generation;
            let state = conn.side_mut(side);
            if !state.watched && state.has_pending() {
                state.watched = true;
                let data = EventData::new_u64(token(key, generation, side));
                let interest = INTEREST | EventFlags::OUT;
                // It was added before, so the kernel has no reason to refuse.
                let _ = epoll::modify(&self.epoll, &state.fd, data, interest);
            }
        }
        // Which side's silence counts may have changed, and the next timeout may come sooner.
        let due = tick_of(liveness::next_look(conn, self.now, self.now));
        if self.wheel.tick_of(key).is_none_or(|tick| tick > due) {
            self.wheel.schedule(key, due);
        }
        if conn.sides.iter().any(|side| side.retry) {
            self.recheck(key);
        }
    }

    /// Schedules the turn and the time at which the session is served next.
    fn after_flow(&mut self, key: u32, unfinished: bool) {
        let now = self.now;
        if unfinished {
            self.queue(key);
        }
        let conn = &self.conns[key];
        // For bytes that have been unacknowledged for longer, it is scheduled already.
        if conn
            .sides
            .iter()
            .any(|side| side.unacked_since.is_some_and(|since| since.get() == now))
        {
            let due = tick_of(liveness::ack_due(now));
            if self.wheel.tick_of(key).is_some_and(|tick| tick > due) {
                self.wheel.schedule(key, due);
            }
        }
    }

    /// Queues the session for the next turn.
    fn queue(&mut self, key: u32) {
        let conn = &mut self.conns[key];
        if !std::mem::replace(&mut conn.queued, true) {
            self.ready.push(key);
        }
    }

    /// The time since `start`.
    fn read_clock(&mut self) -> Duration {
        let elapsed = self.start.elapsed();
        self.now = millis(elapsed);
        elapsed
    }
}

/// Sessions served in one turn from which on another turn is likely to find events, because they had time to
/// arrive meanwhile.
const FEW: usize = 4;

/// The result of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polled {
    /// There was much to do, or some of it is left: take another turn.
    More,
    /// There was little or nothing to do. Whatever happens from now on makes an event.
    Idle,
}

/// The token of a descriptor without an entry.
const NO_ENTRY: u64 = u64::MAX;

/// The events that are watched from the start.
const INTEREST: EventFlags = EventFlags::IN
    .union(EventFlags::PRI)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);
