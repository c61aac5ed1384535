//! How many checks are in flight at once. Control thread only, so that a place costs a few instructions; a
//! semaphore for several threads costs ten times as many, at each of thousands of checks a second.

use std::cell::Cell;
use tokio::sync::Notify;

/// The places of the checks in flight.
#[derive(Debug)]
pub(super) struct Places {
    free: Cell<u64>,
    waiting: Cell<u64>,
    freed: Notify,
}

/// One place, which its end makes free.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a Places);

impl Places {
    /// So many places.
    pub(super) fn new(count: u64) -> Self {
        Self {
            free: Cell::new(count),
            waiting: Cell::new(0),
            freed: Notify::new(),
        }
    }

    /// A place, if one is free.
    pub(super) fn try_take(&self) -> Option<Place<'_>> {
        let left = self.free.get().checked_sub(1)?;
        self.free.set(left);
        Some(Place(self))
    }

    /// Waits for a place. Those that wait longest are woken first; a check that begins at that moment may still
    /// be faster.
    pub(super) async fn take(&self) -> Place<'_> {
        let _waiting = Counted::new(&self.waiting);
        loop {
            if let Some(place) = self.try_take() {
                return place;
            }
            // A waiter that is dropped after it was woken wakes the next one.
            self.freed.notified().await;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Self(places) = self;
        places.free.set(places.free.get() + 1);
        if places.waiting.get() > 0 {
            places.freed.notify_one();
        }
    }
}

/// Counts one for as long as it lasts.
struct Counted<'a>(&'a Cell<u64>);

impl<'a> Counted<'a> {
    fn new(count: &'a Cell<u64>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    /// Some wait, some of them are ended while they wait or when they have just been woken: each place is taken
    /// again, and never more than there are.
    #[tokio::test]
    async fn places_are_taken_again_whoever_gives_up_waiting() {
        let check = async {
            let places = Rc::new(Places::new(2));
            let (busy, most, done) = (Cell::new(0), Cell::new(0), Cell::new(0_u32));
            let counts = Rc::new((busy, most, done));
            let checks: Vec<_> = (0..50)
                .map(|_| {
                    let (places, counts) = (Rc::clone(&places), Rc::clone(&counts));
                    spawn_local(async move {
                        let (busy, most, done) = &*counts;
                        let place = places.take().await;
                        let is_busy = Counted::new(busy);
                        most.set(most.get().max(busy.get()));
                        yield_now().await;
                        drop((is_busy, place));
                        done.set(done.get() + 1);
                    })
                })
                .collect();
            let mut ended = 0;
            for (index, check) in checks.iter().enumerate() {
                yield_now().await;
                if index % 3 == 0 && !check.is_finished() {
                    check.abort();
                }
            }
            for check in checks {
                ended += u32::from(check.await.is_err());
            }
            let (_, most, done) = &*counts;
            assert!(ended > 0, "some gave up");
            assert_eq!((most.get(), done.get()), (2, 50 - ended));
            assert_eq!((places.free.get(), places.waiting.get()), (2, 0));
        };
        LocalSet::new().run_until(check).await;
    }
}
