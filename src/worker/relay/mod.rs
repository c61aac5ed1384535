//! Step 9: moves the bytes of established sessions.
//!
//! Runs on a worker. A session that the relay has taken ([`Relay::adopt`]) has no task and no timer: it is a record in the
//! [`engine::Engine`]. Its epoll instance has all descriptors of the worker, those too that tasks wait for
//! ([`Connecting`], [`Watched`]). Outside this folder only the items of this file are visible.
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
mod watched;
mod wheel;

#[cfg(test)]
mod tests;

pub(super) use conn::{Established, Kind};
pub(super) use connecting::Connecting;
pub(super) use watched::Watched;

use super::order::ServerSet;
use super::session_id::SessionId;
use super::session_stats::WorkerStats;
use super::sessions::{Page, Wanted};
use super::surplus::Surplus;
use crate::live::Cause;
use engine::{Engine, Polled};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How often sessions are served that no event tells of.
const RECHECK_EVERY: Duration = Duration::from_millis(5);

/// The relay of one worker.
#[derive(Debug)]
pub(super) struct Relay {
    engine: RefCell<Engine>,
    /// When the next tick is due, once that was calculated. An empty relay needs no clock.
    clock: Cell<Option<Instant>>,
    /// There was little to do in the last turn.
    was_idle: Cell<bool>,
    /// Notified when the last session has ended, if [`Relay::awaited`].
    emptied: Notify,
    /// A stop waits for the end of the last session.
    awaited: Cell<bool>,
    /// Sessions that were taken out, and may come back.
    away: Cell<usize>,
}

impl Relay {
    /// An empty relay.
    ///
    /// # Errors
    /// When the kernel cannot create an epoll instance.
    pub(super) fn new(worker_stats: Rc<WorkerStats>) -> io::Result<Rc<Self>> {
        let engine = Engine::new(worker_stats)?;
        let relay = Self {
            engine: RefCell::new(engine),
            clock: Cell::new(None),
            was_idle: Cell::new(false),
            emptied: Notify::new(),
            awaited: Cell::new(false),
            away: Cell::new(0),
        };
        Ok(Rc::new(relay))
    }

    /// Takes over an established session and moves what can be moved at once.
    pub(super) fn adopt(&self, session: Established) {
        self.engine.borrow_mut().adopt(session);
    }

    /// Ends the sessions on these servers.
    pub(super) fn end_sessions(&self, servers: &ServerSet, cause: Cause) {
        self.engine.borrow_mut().end_sessions(servers, cause);
        self.notice_end();
    }

    /// Ends some of the sessions that servers have too many of, at quiet moments.
    pub(super) fn end_surplus(&self, surplus: &Surplus) {
        self.engine.borrow_mut().end_surplus(surplus);
        self.notice_end();
    }

    /// Ends the session, if it is here.
    pub(super) fn end_session(&self, id: SessionId, cause: Cause) -> bool {
        let found = self.engine.borrow_mut().end_session(id, cause);
        self.notice_end();
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

    /// A sleep in [`Relay::turn`] ends when `descriptor` becomes readable.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub(super) fn watch_wakes(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.engine.borrow().watch_wakes(descriptor)
    }

    /// Sleeps until there is an event, for `time` at most, and serves the sessions that have events. The time when it began
    /// to do that.
    ///
    /// # Errors
    /// When the epoll instance cannot be read, which is not expected.
    pub(super) fn turn(&self, time: Option<Duration>) -> io::Result<Instant> {
        let mut engine = self.engine.borrow_mut();
        self.was_idle.set(engine.turn_after(time)? == Polled::Idle);
        let now = engine.clock();
        drop(engine);
        self.notice_end();
        Ok(now)
    }

    /// Whether a session has more to do than its share of a turn.
    pub(super) fn is_unfinished(&self) -> bool {
        self.engine.borrow().is_unfinished()
    }

    /// After an idle turn: polls for the next event, where that pays. The next turn handles it.
    ///
    /// # Errors
    /// As of [`Relay::turn`].
    pub(super) fn busy_poll(&self) -> io::Result<()> {
        if self.was_idle.get() {
            self.engine.borrow_mut().busy_poll()?;
        }
        Ok(())
    }

    /// When [`Relay::tick`] has something to do at the latest; `None`: there is no session.
    pub(super) fn due(&self) -> Option<Instant> {
        let engine = self.engine.borrow();
        if engine.is_empty() {
            self.clock.set(None);
            return None;
        }
        let mut at = self.clock.get().unwrap_or_else(|| engine.next_tick());
        if engine.needs_recheck() {
            at = at.min(Instant::now() + RECHECK_EVERY);
        }
        self.clock.set(Some(at));
        Some(at)
    }

    /// Does what is due by time.
    pub(super) fn tick(&self, now: Instant) {
        if self.due().is_some_and(|at| at <= now) {
            self.engine.borrow_mut().tick();
            self.clock.set(None);
            self.notice_end();
        }
    }

    /// Tells a stop that waits for it that the last session has ended: also one that has come and gone within a turn.
    fn notice_end(&self) {
        if self.awaited.get() && self.is_empty() {
            self.emptied.notify_waiters();
        }
    }
}
