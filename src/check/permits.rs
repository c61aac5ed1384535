//! How many checks are in flight at once. Control thread only: a permit costs a few instructions, one of a semaphore
//! for several threads about a hundred, at each of thousands of checks a second.

use std::cell::Cell;
use tokio::sync::Notify;

/// The permits of the checks in flight.
#[derive(Debug)]
pub(super) struct CheckPermits {
    free: Cell<u64>,
    waiting: Cell<u64>,
    freed: Notify,
}

/// One permit, which its end makes free.
#[derive(Debug)]
pub(super) struct CheckPermit<'a>(&'a CheckPermits);

impl CheckPermits {
    /// So many permits.
    pub(super) fn new(count: u64) -> Self {
        Self {
            free: Cell::new(count),
            waiting: Cell::new(0),
            freed: Notify::new(),
        }
    }

    /// A permit, if one is free.
    pub(super) fn try_take(&self) -> Option<CheckPermit<'_>> {
        let left = self.free.get().checked_sub(1)?;
        self.free.set(left);
        Some(CheckPermit(self))
    }

    /// Waits for a permit. Those that wait longest are woken first; a check that begins at that moment may still
    /// be faster.
    pub(super) async fn take(&self) -> CheckPermit<'_> {
        let _waiting = Counted::new(&self.waiting);
        loop {
            if let Some(permit) = self.try_take() {
                return permit;
            }
            // A waiter that is dropped after it was woken wakes the next one.
            self.freed.notified().await;
        }
    }
}

impl Drop for CheckPermit<'_> {
    fn drop(&mut self) {
        let Self(permits) = self;
        permits.free.set(permits.free.get() + 1);
        if permits.waiting.get() > 0 {
            permits.freed.notify_one();
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

    /// Some wait, some of them are ended while they wait or when they have just been woken: each permit is taken
    /// again, and never more than there are.
    #[tokio::test]
    async fn places_are_taken_again_whoever_gives_up_waiting() {
        let check = async {
            let permits = Rc::new(CheckPermits::new(2));
            let (busy, most, done) = (Cell::new(0), Cell::new(0), Cell::new(0_u32));
            let counts = Rc::new((busy, most, done));
            let checks: Vec<_> = (0..50)
                .map(|_| {
                    let (permits, counts) = (Rc::clone(&permits), Rc::clone(&counts));
                    spawn_local(async move {
                        let (busy, most, done) = &*counts;
                        let permit = permits.take().await;
                        let is_busy = Counted::new(busy);
                        most.set(most.get().max(busy.get()));
                        yield_now().await;
                        drop((is_busy, permit));
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
            assert_eq!((permits.free.get(), permits.waiting.get()), (2, 0));
        };
        LocalSet::new().run_until(check).await;
    }
}
