//! A descriptor that a task of the worker waits for, in the relay's epoll instance. Runs on a worker.

use super::Relay;
use crate::sys::accept::{Listening, Readiness};
use rustix::event::epoll::EventFlags;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

/// A descriptor that is watched for reading, by one task at a time. Dropping it ends that.
#[derive(Debug)]
pub(in crate::worker) struct Watched<S: AsFd> {
    relay: Rc<Relay>,
    key: u32,
    owner: S,
}

/// It may be read, or is at its end.
const READABLE: EventFlags = EventFlags::IN
    .union(EventFlags::PRI)
    .union(EventFlags::RDHUP)
    .union(EventFlags::HUP)
    .union(EventFlags::ERR);

/// Nothing can be read behind what is there.
const AT_END: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP);

/// Both directions are at their ends.
const BROKEN: EventFlags = EventFlags::HUP.union(EventFlags::ERR);

impl<S: AsFd> Watched<S> {
    /// Watches `owner`.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub(in crate::worker) fn new(relay: &Rc<Relay>, owner: S) -> io::Result<Self> {
        let key = relay.engine.borrow_mut().register_watched(owner.as_fd())?;
        Ok(Self {
            relay: Rc::clone(relay),
            key,
            owner,
        })
    }

    /// The descriptor's owner.
    pub(in crate::worker) fn get_ref(&self) -> &S {
        &self.owner
    }

    /// Completes when it may be read; whether nothing follows what is there, which is told from then on.
    pub(in crate::worker) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<bool> {
        let events = self.poll(READABLE, context);
        events.map(|events| events.intersects(AT_END))
    }

    /// Completes when it is broken or both directions have ended.
    pub(in crate::worker) fn poll_broken(&self, context: &mut Context<'_>) -> Poll<()> {
        self.poll(BROKEN, context).map(drop)
    }

    fn poll(&self, events: EventFlags, context: &mut Context<'_>) -> Poll<EventFlags> {
        let mut engine = self.relay.engine.borrow_mut();
        engine.poll_watched(self.key, events, context)
    }

    /// Nothing was left to read: the next event tells of more. Ends and errors are for ever.
    pub(in crate::worker) fn clear_readable(&self) {
        self.clear(EventFlags::IN | EventFlags::PRI);
    }

    fn clear(&self, events: EventFlags) {
        let mut engine = self.relay.engine.borrow_mut();
        engine.clear_watched(self.key, events);
    }
}

impl<S: AsFd> Drop for Watched<S> {
    fn drop(&mut self) {
        let mut engine = self.relay.engine.borrow_mut();
        engine.deregister_watched(self.key, self.owner.as_fd());
    }
}

impl<S: AsFd> AsFd for Watched<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.owner.as_fd()
    }
}

impl<S: AsFd> Listening for Watched<S> {
    type Ready<'a>
        = &'a Self
    where
        Self: 'a;

    async fn readable(&self) -> io::Result<&Self> {
        poll_fn(|context| self.poll_readable(context)).await;
        Ok(self)
    }
}

impl<S: AsFd> Readiness for &Watched<S> {
    /// A listening socket has no end for ever: another worker that shares it may make it stop listening for a while.
    fn clear(&mut self) {
        Watched::clear(self, EventFlags::all());
    }
}
