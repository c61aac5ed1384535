//! Step 9: moving the bytes of established sessions.
//!
//! Runs on a worker. A session that is handed over ([`Relay::adopt`]) costs no task, no timer and
//! no registration of tokio's from then on: it is a record in the [`engine::Engine`], whose epoll
//! instance is one descriptor in tokio's. This file is the narrow door; nothing outside the folder
//! knows what is behind it.
//!
//! Invariant: the engine is borrowed for the length of a turn, never across an await.

mod asked;
mod closing;
mod conn;
mod engine;
mod half;
mod judge;
mod splice;
mod table;
mod wheel;

#[cfg(test)]
mod tests;

pub(super) use asked::Asked;
pub(super) use conn::{Established, Kind};

use super::account::Books;
use crate::live::Cause;
use crate::sys::raw::{self, Owned};
use engine::Engine;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::sync::Notify;

/// How often a session that waits to be reset is looked at.
const CLOSING_TICK: Duration = Duration::from_millis(5);

/// The relay of one worker.
#[derive(Debug)]
pub(super) struct Relay {
    engine: RefCell<Engine>,
    /// Rung when the first session comes, so that an idle relay needs no clock, and when one that
    /// comes has more to do at once than its share of a turn.
    arrived: Notify,
    /// Rung when the last session has ended and that is [`Relay::awaited`].
    emptied: Notify,
    /// Somebody waits for the end of the last session: the worker is to stop.
    awaited: Cell<bool>,
}

impl Relay {
    /// An empty relay, and the descriptor to run it on.
    ///
    /// # Errors
    /// When the kernel has no epoll instance to give.
    pub(super) fn new(books: Rc<Books>) -> io::Result<(Rc<Self>, OwnedFd)> {
        let (engine, events) = Engine::new(books)?;
        let relay = Self {
            engine: RefCell::new(engine),
            arrived: Notify::new(),
            emptied: Notify::new(),
            awaited: Cell::new(false),
        };
        Ok((Rc::new(relay), events))
    }

    /// Takes over an established session and moves what can be moved at once.
    pub(super) fn adopt(&self, session: Established) {
        let mut engine = self.engine.borrow_mut();
        let first = engine.is_empty();
        engine.adopt(session);
        if first || engine.is_unfinished() {
            self.arrived.notify_one();
        }
    }

    /// Ends the sessions on these servers ([`crate::live::ServerLive::uid`]).
    pub(super) fn end_sessions(&self, servers: &[u64], cause: Cause) {
        self.engine.borrow_mut().end_sessions(servers, cause);
    }

    /// Ends all sessions now, by reset.
    pub(super) fn end_all(&self, cause: Cause) {
        self.engine.borrow_mut().end_all(cause);
        self.emptied.notify_waiters();
    }

    /// Completes when no session is left.
    pub(super) async fn empty(&self) {
        self.awaited.set(true);
        loop {
            let emptied = self.emptied.notified();
            if self.engine.borrow().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Runs the relay, for ever.
    ///
    /// # Errors
    /// When the epoll instance cannot be watched or read, which nothing ordinary brings about.
    pub(super) async fn run(&self, events: OwnedFd) -> io::Result<()> {
        let events = raw::watch(Owned::new(events), Interest::READABLE)?;
        let clock = tokio::time::sleep(CLOSING_TICK);
        tokio::pin!(clock);
        loop {
            let idle = self.engine.borrow().is_empty();
            tokio::select! {
                biased;
                ready = events.readable() => {
                    let mut ready = ready?;
                    let drained = self.engine.borrow_mut().turn()?;
                    if drained {
                        ready.clear_ready();
                    } else {
                        tokio::task::yield_now().await;
                    }
                }
                () = clock.as_mut(), if !idle => {
                    let mut engine = self.engine.borrow_mut();
                    engine.tick();
                    clock.as_mut().reset(engine.next_tick().into());
                }
                () = self.arrived.notified() => {
                    let mut engine = self.engine.borrow_mut();
                    if idle {
                        clock.as_mut().reset(engine.next_tick().into());
                    }
                    // No event will tell of what is left to do.
                    if engine.is_unfinished() && !engine.turn()? {
                        self.arrived.notify_one();
                    }
                }
            }
            if self.engine.borrow().is_closing() {
                let soon = tokio::time::Instant::now() + CLOSING_TICK;
                if soon < clock.deadline() {
                    clock.as_mut().reset(soon);
                }
            }
            // Not only when it was busy at the top of the loop: a session may have come and gone
            // within one round.
            if self.awaited.get() && self.engine.borrow().is_empty() {
                self.emptied.notify_waiters();
            }
        }
    }
}
