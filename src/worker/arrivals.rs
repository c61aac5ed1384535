//! The sessions of one worker that no server has answered yet: their accounts, kept where they can
//! be listed and ended. Runs on a worker.
//!
//! An established session is a record in the relay; before that it is a task, and this is the
//! register of those tasks. A session takes a [`Place`] when it begins and leaves it, with its
//! account, when it is handed over or over.
//!
//! Invariant: the register is borrowed for the length of a look, never across an await.

use super::account::Account;
use super::session::Desk;
use super::sessions::{Cursor, PLACES_MAX, Page, SessionId, VIEWS_MAX, View, Wanted};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Instant;

/// Places that are kept although nobody has one: beyond that an empty register is given back.
const SPARE_PLACES_MAX: usize = 1024;

/// The register of a worker.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    places: RefCell<Slab<Arrival>>,
    /// Sessions that this worker has had.
    count: Cell<u64>,
    /// All are to end, those too that are still to come. Not asked of [`Desk::kill`], which is a lock
    /// that all workers share.
    closed: Cell<bool>,
}

#[derive(Debug)]
struct Arrival {
    account: Account,
    /// The client's descriptor.
    client: i32,
    /// When the attempt to reach a server is given up.
    until: Option<Instant>,
    /// It is to end.
    ended: bool,
    /// Its task, once it waits.
    waker: Option<Waker>,
}

impl Arrivals {
    /// The number of the next session, `worker` being this one and its number among all.
    pub(super) fn number(&self, worker: (usize, usize)) -> SessionId {
        self.count.set(self.count.get() + 1);
        SessionId::new(self.count.get(), worker)
    }

    /// Ends the session, if it is here.
    pub(super) fn end(&self, id: SessionId) -> bool {
        let mut places = self.places.borrow_mut();
        let mut all = places.iter_mut().map(|(_, arrival)| arrival);
        let found = all.find(|arrival| arrival.account.id == id);
        found.map(Arrival::end).is_some()
    }

    /// Ends all sessions, and those that are still to come.
    pub(super) fn end_all(&self) {
        self.closed.set(true);
        let mut places = self.places.borrow_mut();
        places.iter_mut().for_each(|(_, arrival)| arrival.end());
    }

    /// A page of those that are `wanted`, from place `from` on; after the last of them come the
    /// relay's.
    pub(super) fn page(&self, from: usize, wanted: &Wanted) -> Page {
        let places = self.places.borrow();
        let now = Instant::now();
        let mut views = Vec::new();
        let mut place = from;
        let end = places.capacity().min(from.saturating_add(PLACES_MAX));
        while place < end && views.len() < VIEWS_MAX {
            if let Some(arrival) = places.get(place) {
                views.extend(arrival.view(wanted, now));
            }
            place += 1;
        }
        let relayed = place >= places.capacity();
        let place = if relayed { 0 } else { place };
        let next = Some(Cursor { relayed, place });
        Page { views, next }
    }
}

impl Arrival {
    fn end(&mut self) {
        self.ended = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn view(&self, wanted: &Wanted, now: Instant) -> Option<View> {
        let left = self.until.map(|until| until.saturating_duration_since(now));
        let asked_for = wanted.has(&self.account) && wanted.has_time(left);
        asked_for.then(|| View::new(&self.account, self.client, left))
    }
}

/// A session's place in the register. Dropping it, as a panic does, gives it and the account back.
pub(super) struct Place {
    pub(super) desk: Rc<Desk>,
    /// `None` once it was left.
    key: Option<usize>,
}

impl Place {
    /// A place for a session that begins.
    pub(super) fn take(desk: Rc<Desk>, account: Account, client: i32) -> Self {
        let arrival = Arrival {
            account,
            client,
            until: None,
            ended: desk.arrivals.closed.get(),
            waker: None,
        };
        let key = desk.arrivals.places.borrow_mut().insert(arrival);
        Self {
            desk,
            key: Some(key),
        }
    }

    /// Looks at the account, or writes in it.
    pub(super) fn account<T>(&self, look: impl FnOnce(&mut Account) -> T) -> T {
        self.look(|arrival| look(&mut arrival.account))
    }

    /// Says when the attempt to reach a server is given up.
    pub(super) fn expect_until(&self, until: Instant) {
        self.look(|arrival| arrival.until = Some(until));
    }

    /// Completes when the session is to end.
    pub(super) async fn ended(&self) {
        poll_fn(|context| {
            self.look(|arrival| {
                if arrival.ended {
                    return Poll::Ready(());
                }
                match &mut arrival.waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    none => *none = Some(context.waker().clone()),
                }
                Poll::Pending
            })
        })
        .await;
    }

    /// Leaves the place: the account, which goes on elsewhere.
    pub(super) fn leave(mut self) -> Account {
        self.give_back().expect("a place is left once").account
    }

    fn look<T>(&self, look: impl FnOnce(&mut Arrival) -> T) -> T {
        let mut places = self.desk.arrivals.places.borrow_mut();
        let key = self.key.expect("left by its owner, which ends it");
        look(&mut places[key])
    }

    fn give_back(&mut self) -> Option<Arrival> {
        let mut places = self.desk.arrivals.places.borrow_mut();
        let arrival = places.remove(self.key.take()?);
        if places.is_empty() && places.capacity() > SPARE_PLACES_MAX {
            places.shrink_to_fit();
        }
        Some(arrival)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Outside the borrow: ending an account may wake whoever waits for its place.
        drop(self.give_back());
    }
}
