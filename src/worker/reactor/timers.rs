//! The timers of a worker's tasks. Runs on that worker.
//!
//! They are kept by their times: a task that waits has one for a few milliseconds, and mostly drops it before it fires.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The timers of a worker.
#[derive(Debug)]
pub(in crate::worker) struct Timers {
    waiting: RefCell<BTreeMap<(Instant, u64), Waker>>,
    /// As it was read last.
    now: Cell<Instant>,
    /// The number of the next one.
    next: Cell<u64>,
}

impl Timers {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            waiting: RefCell::default(),
            now: Cell::new(Instant::now()),
            next: Cell::new(0),
        })
    }

    /// Completes at `at`, or soon after.
    pub(in crate::worker) fn sleep_until(self: &Rc<Self>, at: Instant) -> Sleep {
        Sleep {
            timers: Rc::clone(self),
            at,
            number: None,
        }
    }

    /// Completes after `time`, or soon after that.
    pub(in crate::worker) fn sleep(self: &Rc<Self>, time: Duration) -> Sleep {
        let now = Instant::now();
        // No wait is longer than a century.
        let at = now.checked_add(time).unwrap_or(now + FAR);
        self.sleep_until(at)
    }

    /// When the first fires.
    pub(super) fn first(&self) -> Option<Instant> {
        let waiting = self.waiting.borrow();
        waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// Wakes those whose time has come.
    pub(super) fn fire(&self, now: Instant) {
        self.now.set(now);
        loop {
            let mut waiting = self.waiting.borrow_mut();
            let Some(first) = waiting.first_entry().filter(|it| it.key().0 <= now) else {
                return;
            };
            let waker = first.remove();
            drop(waiting);
            waker.wake();
        }
    }
}

/// Longer than any process runs.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A task's wait for a time.
#[derive(Debug)]
pub(in crate::worker) struct Sleep {
    timers: Rc<Timers>,
    at: Instant,
    /// Its number while it waits.
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.at <= self.timers.now.get() {
            return Poll::Ready(());
        }
        let number = self.number.unwrap_or_else(|| {
            let number = self.timers.next.get();
            self.timers.next.set(number + 1);
            number
        });
        let mut waiting = self.timers.waiting.borrow_mut();
        let waker = waiting.entry((self.at, number));
        let waker = waker.or_insert_with(|| context.waker().clone());
        if !waker.will_wake(context.waker()) {
            waker.clone_from(context.waker());
        }
        drop(waiting);
        self.number = Some(number);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.timers.waiting.borrow_mut().remove(&(self.at, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    #[test]
    fn they_fire_in_their_order_and_not_before() {
        let timers = Timers::new();
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        timers.fire(begun);
        let mut context = Context::from_waker(Waker::noop());
        let (mut late, mut soon) = (pin!(timers.sleep_until(at(20))), timers.sleep_until(at(10)));
        assert!(late.as_mut().poll(&mut context).is_pending());
        assert!(Pin::new(&mut soon).poll(&mut context).is_pending());
        assert_eq!(timers.first(), Some(at(10)));
        timers.fire(at(9));
        assert_eq!(timers.first(), Some(at(10)));
        timers.fire(at(10));
        assert_eq!(timers.first(), Some(at(20)));
        assert!(Pin::new(&mut soon).poll(&mut context).is_ready());
        assert!(late.as_mut().poll(&mut context).is_pending());
        timers.fire(at(25));
        assert!(timers.first().is_none() && late.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn one_that_is_dropped_does_not_fire() {
        let timers = Timers::new();
        let mut context = Context::from_waker(Waker::noop());
        let mut sleep = timers.sleep(Duration::from_secs(60));
        for _ in 0..2 {
            assert!(Pin::new(&mut sleep).poll(&mut context).is_pending());
        }
        assert!(timers.first().is_some());
        drop(sleep);
        assert!(timers.first().is_none());
    }
}
