//! The loop of a worker: it runs the tasks that were woken, serves the relay's sessions, and sleeps in the one epoll
//! instance that has all descriptors of the worker, the [`Relay`]'s.
//!
//! So no event passes through two instances, and a sleep is one system call for accepting, connecting and relaying.

mod sync;
mod tasks;
#[cfg(test)]
mod tests;
mod timers;

pub(super) use tasks::Tasks;
pub(super) use timers::Timers;

use super::relay::Relay;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// What runs a worker.
pub(super) struct Reactor {
    pub(super) relay: Rc<Relay>,
    pub(super) tasks: Rc<Tasks>,
    pub(super) timers: Rc<Timers>,
}

impl Reactor {
    /// Runs the tasks with a relay.
    ///
    /// # Errors
    /// No descriptor is left, or those of `epoll_ctl`.
    pub(super) fn new(relay: Rc<Relay>) -> io::Result<Self> {
        let tasks = Tasks::new()?;
        relay.watch_wakes(tasks.event())?;
        Ok(Self {
            relay,
            tasks: Rc::new(tasks),
            timers: Timers::new(),
        })
    }

    /// Runs `main`, the tasks and the sessions until `main` completes. Then no task is left.
    ///
    /// # Errors
    /// When the epoll instance cannot be read, which is not expected.
    pub(super) fn block_on<T>(&self, main: impl Future<Output = T>) -> io::Result<T> {
        let mut main = pin!(main);
        let waker = self.tasks.main();
        let mut context = Context::from_waker(&waker);
        loop {
            if self.tasks.run()
                && let Poll::Ready(output) = main.as_mut().poll(&mut context)
            {
                self.tasks.clear();
                return Ok(output);
            }
            self.turn()?;
        }
    }

    /// Sleeps until there is something to do, and serves the sessions that have events or are due.
    fn turn(&self) -> io::Result<()> {
        let busy = self.tasks.is_woken() || self.relay.is_unfinished();
        let now = if busy || !self.tasks.may_sleep() {
            self.relay.turn(Some(Duration::ZERO))?
        } else {
            let until = [self.timers.first(), self.relay.due()];
            let until = until.into_iter().flatten().min();
            let time = until.map(|until| until.saturating_duration_since(Instant::now()));
            let now = self.relay.turn(time)?;
            self.tasks.awake();
            now
        };
        self.timers.fire(now);
        self.relay.tick(now);
        if !self.tasks.is_woken() {
            self.relay.busy_poll()?;
        }
        Ok(())
    }
}
