//! Step 9: moves the bytes of established sessions.
//!
//! Runs on a worker. A session that the relay has taken ([`Relay::adopt`]) has no tokio task, timer or
//! registration: it is a record in the [`engine::Engine`], whose epoll instance is one descriptor in tokio's.
//! Outside this folder only the items of this file are visible.
//!
//! Invariant: the engine is borrowed for the length of a turn, never across an await.

mod age;
mod busy_poll;
mod conn;
mod connecting;
mod direction;
mod engine;
mod lifecycle;
mod liveness;
pub(super) mod moved;
mod quiet;
mod splice;
mod table;
mod wheel;

#[cfg(test)]
mod tests;

pub(super) use conn::{Established, Kind};
pub(super) use connecting::Connecting;

use super::order::ServerSet;
use super::session_id::SessionId;
use super::session_stats::WorkerStats;
use super::sessions::{Page, Wanted};
use super::surplus::Surplus;
use crate::live::Cause;
use crate::sys::raw::{self, Owned};
use engine::{Engine, Polled};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::sync::Notify;
use tokio::time::Sleep;

/// How often sessions are served that no event tells of.
const RECHECK_EVERY: Duration = Duration::from_millis(5);

/// Turns in a row before the runtime runs other tasks.
const TURNS_MAX: usize = 8;

/// The relay of one worker.
#[derive(Debug)]
pub(super) struct Relay {
    engine: RefCell<Engine>,
    /// The first session has come, so the clock must be started; or a session has come that had more to do than
    /// its share of a turn. An empty relay needs no clock.
    arrived: Cell<bool>,
    /// Wakes [`Relay::run`].
    runner: RefCell<Option<Waker>>,
    /// Notified when the last session has ended, if [`Relay::awaited`].
    emptied: Notify,
    /// A stop waits for the end of the last session.
    awaited: Cell<bool>,
    /// Sessions that were taken out, and may come back.
    away: Cell<usize>,
}

impl Relay {
    /// An empty relay, and the descriptor to run it with.
    ///
    /// # Errors
    /// When the kernel cannot create an epoll instance.
    pub(super) fn new(worker_stats: Rc<WorkerStats>) -> io::Result<(Rc<Self>, OwnedFd)> {
        let (engine, events) = Engine::new(worker_stats)?;
        let relay = Self {
            engine: RefCell::new(engine),
            arrived: Cell::new(false),
            runner: RefCell::new(None),
            emptied: Notify::new(),
            awaited: Cell::new(false),
            away: Cell::new(0),
        };
        Ok((Rc::new(relay), events))
    }

    /// Takes over an established session and moves what can be moved at once.
    pub(super) fn adopt(&self, session: Established) {
        let mut engine = self.engine.borrow_mut();
        let first = engine.is_empty();
        engine.adopt(session);
        if first || engine.is_unfinished() {
            drop(engine);
            self.announce();
        }
    }

    /// Ends the sessions on these servers.
    pub(super) fn end_sessions(&self, servers: &ServerSet, cause: Cause) {
        self.engine.borrow_mut().end_sessions(servers, cause);
        self.announce_recheck();
    }

    /// Ends some of the sessions that servers have too many of, at quiet moments.
    pub(super) fn end_surplus(&self, surplus: &Surplus) {
        self.engine.borrow_mut().end_surplus(surplus);
        self.announce_recheck();
    }

    /// Ends the session, if it is here.
    pub(super) fn end_session(&self, id: SessionId, cause: Cause) -> bool {
        let found = self.engine.borrow_mut().end_session(id, cause);
        self.announce_recheck();
        found
    }

    /// A page of the sessions that are wanted, from entry `from` on.
    pub(super) fn page(&self, from: usize, wanted: &Wanted) -> Page {
        self.engine.borrow_mut().page(from, wanted)
    }

    /// Ends all sessions at once, by resets.
    pub(super) fn end_all(&self, cause: Cause) {
        self.engine.borrow_mut().end_all(cause);
        self.emptied.notify_waiters();
    }

    /// Whether there is no session, and none can come back.
    fn is_empty(&self) -> bool {
        self.away.get() == 0 && self.engine.borrow().is_empty()
    }

    /// Completes when no session is left.
    pub(super) async fn empty(&self) {
        self.awaited.set(true);
        loop {
            let emptied = self.emptied.notified();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Runs the relay until it fails.
    ///
    /// # Errors
    /// When the epoll instance cannot be watched or read, which is not expected.
    pub(super) async fn run(&self, events: OwnedFd) -> io::Result<()> {
        let events = raw::watch(Owned::new(events), Interest::READABLE)?;
        let mut clock = pin!(tokio::time::sleep(RECHECK_EVERY));
        loop {
            let idle = self.engine.borrow().is_empty();
            let idle_turn =
                match poll_fn(|context| self.call(context, &events, clock.as_mut(), idle)).await? {
                    Call::Events(mut ready) => {
                        let idle_turn = self.turns()?;
                        if idle_turn {
                            ready.clear_ready();
                        }
                        idle_turn
                    }
                    Call::Clock => {
                        self.tick(clock.as_mut());
                        true
                    }
                    Call::Arrived => {
                        if idle {
                            clock
                                .as_mut()
                                .reset(self.engine.borrow().next_tick().into());
                        }
                        // No event will tell of the work that is left.
                        let unfinished = self.engine.borrow().is_unfinished();
                        let idle_turn = !unfinished || self.turns()?;
                        self.arrived.set(!idle_turn);
                        idle_turn
                    }
                };
            if !idle_turn {
                // The clock is polled last, so while sessions are busy it would never be seen.
                if tokio::time::Instant::now() >= clock.deadline() {
                    self.tick(clock.as_mut());
                }
                tokio::task::yield_now().await;
            }
            if self.engine.borrow().needs_recheck() {
                let soon = tokio::time::Instant::now() + RECHECK_EVERY;
                if soon < clock.deadline() {
                    clock.as_mut().reset(soon);
                }
            }
            // Checked in each round, also when the relay was empty before: a session may have come and gone
            // within one round.
            if self.awaited.get() && self.is_empty() {
                self.emptied.notify_waiters();
            }
        }
    }

    /// Does what is due by time, and sets the clock for the next tick.
    fn tick(&self, clock: Pin<&mut Sleep>) {
        let mut engine = self.engine.borrow_mut();
        engine.tick();
        clock.reset(engine.next_tick().into());
        if engine.is_unfinished() {
            // No event will tell of the work that is left.
            self.arrived.set(true);
        }
    }

    /// Waits for something to do. Written by hand, because every wake-up of a worker pays for it.
    fn call<'a>(
        &self,
        context: &mut Context<'_>,
        events: &'a AsyncFd<Owned<OwnedFd>>,
        clock: Pin<&mut Sleep>,
        idle: bool,
    ) -> Poll<io::Result<Call<'a>>> {
        if let Poll::Ready(ready) = events.poll_read_ready(context) {
            return Poll::Ready(ready.map(Call::Events));
        }
        if self.arrived.take() {
            return Poll::Ready(Ok(Call::Arrived));
        }
        if !idle && clock.poll(context).is_ready() {
            return Poll::Ready(Ok(Call::Clock));
        }
        match &mut *self.runner.borrow_mut() {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Takes turns until one is idle. `false` when that took too long and other tasks are to run. The next turn
    /// finds what arrives during one, without going through the runtime.
    ///
    /// The last turn is not followed by a busy poll. An event that one has found would be served by the next call. That
    /// call would not ask the kernel, and yet clear the readiness that the runtime has noted meanwhile for a later event.
    fn turns(&self) -> io::Result<bool> {
        let mut engine = self.engine.borrow_mut();
        for turn in 1..=TURNS_MAX {
            if engine.turn()? == Polled::Idle && turn < TURNS_MAX && !engine.busy_poll()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tells [`Relay::run`] that sessions are to be served soon. An order to end them comes from outside the
    /// relay, and the next tick may be far.
    fn announce_recheck(&self) {
        if self.engine.borrow().needs_recheck() {
            self.announce();
        }
        if self.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Wakes [`Relay::run`]: a session has come, or there is something to do.
    fn announce(&self) {
        self.arrived.set(true);
        if let Some(waker) = &*self.runner.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// Why [`Relay::run`] was woken.
enum Call<'a> {
    /// Sessions have events.
    Events(AsyncFdReadyGuard<'a, Owned<OwnedFd>>),
    /// It is time for [`Engine::tick`].
    Clock,
    /// [`Relay::announce`] was called.
    Arrived,
}
