//! The tasks of a worker: futures that run on its thread. Any thread may wake one.
//!
//! Invariant: a task that was woken is in the list until it runs. A worker that sleeps while one is put there is woken by
//! its event descriptor: [`Tasks::may_sleep`] and [`Shared::push`] take the same lock, so one of the two sees the other.
//! `tests/tasks_model.rs` shows it for every order of threads.

use super::sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering, PoisonError, set};
use rustix::event::{EventfdFlags, eventfd};
use slab::Slab;
use std::cell::RefCell;
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Wake, Waker};
use std::{io, mem};

/// The place of the future that [`super::Reactor::block_on`] runs.
const MAIN: usize = usize::MAX;

/// What all threads see of the tasks.
#[derive(Debug)]
pub(super) struct Shared {
    /// `None` when the worker has ended: the list would keep a task that is put into it, and the task the list.
    woken: Mutex<Option<Vec<Arc<Task>>>>,
    /// The worker sleeps, or is about to.
    asleep: AtomicBool,
    /// Wakes it.
    event: OwnedFd,
}

impl Shared {
    fn push(&self, task: Arc<Task>) {
        match &mut *self.list() {
            Some(list) => list.push(task),
            None => return,
        }
        if self.asleep.swap(false, Ordering::AcqRel) {
            // It can only fail when the number overflows, and then the worker is about to wake.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    fn list(&self) -> MutexGuard<'_, Option<Vec<Arc<Task>>>> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What wakes a task.
#[derive(Debug)]
struct Task {
    place: usize,
    /// It is in the list.
    is_woken: AtomicBool,
    shared: Arc<Shared>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            let shared = Arc::clone(&self.shared);
            shared.push(self);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            self.shared.push(Arc::clone(self));
        }
    }
}

/// A task that waits or runs.
pub(super) struct Place {
    /// `None` while it runs.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Waker,
}

/// The tasks of a worker.
pub(in crate::worker) struct Tasks {
    pub(super) shared: Arc<Shared>,
    pub(super) places: RefCell<Slab<Place>>,
    /// Those that run in this round.
    round: RefCell<Vec<Arc<Task>>>,
}

impl Tasks {
    /// No task yet.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            shared: Arc::new(Shared {
                woken: Mutex::new(Some(Vec::new())),
                asleep: AtomicBool::new(false),
                event,
            }),
            places: RefCell::default(),
            round: RefCell::default(),
        })
    }

    /// Becomes readable when the worker is to wake.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    /// Runs a future as a task. A panic ends it and no other.
    pub(in crate::worker) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let mut places = self.places.borrow_mut();
        let place = places.vacant_entry();
        let task = self.task(place.key());
        place.insert(Place {
            future: Some(Box::pin(future)),
            waker: Waker::from(Arc::clone(&task)),
        });
        task.wake();
    }

    /// A waker of the future that is no task.
    pub(super) fn main(&self) -> Waker {
        let task = self.task(MAIN);
        task.wake_by_ref();
        Waker::from(task)
    }

    fn task(&self, place: usize) -> Arc<Task> {
        Arc::new(Task {
            place,
            is_woken: AtomicBool::new(false),
            shared: Arc::clone(&self.shared),
        })
    }

    /// Runs the tasks that were woken before. Whether the future that is no task was among them.
    pub(super) fn run(&self) -> bool {
        let mut round = self.round.take();
        if let Some(list) = &mut *self.shared.list() {
            mem::swap(list, &mut round);
        }
        let mut main = false;
        for task in round.drain(..) {
            // Before it runs, so that it can be woken meanwhile. Whoever has found it woken has done before what the task
            // sees now: the swap of one reads that of the other.
            task.is_woken.swap(false, Ordering::AcqRel);
            if task.place == MAIN {
                main = true;
            } else {
                self.poll(task.place);
            }
        }
        // Its memory is used again.
        self.round.replace(round);
        main
    }

    /// Runs a task. One that has ended may have been woken before, and another one has its place: that is woken for
    /// nothing.
    fn poll(&self, place: usize) {
        let (mut future, waker) = {
            let mut places = self.places.borrow_mut();
            let Some(found) = places.get_mut(place) else {
                return;
            };
            let Some(future) = found.future.take() else {
                return;
            };
            (future, found.waker.clone())
        };
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let is_pending = future.as_mut().poll(&mut context).is_pending();
            // What has ended is dropped here, too.
            is_pending.then_some(future)
        }));
        match polled {
            Ok(Some(future)) => {
                if let Some(found) = self.places.borrow_mut().get_mut(place) {
                    found.future = Some(future);
                }
                return;
            }
            Ok(None) => {}
            Err(_) => tracing::error!("a task of a worker has ended by an internal error"),
        }
        self.places.borrow_mut().try_remove(place);
    }

    /// Whether the worker may sleep: no task was woken. One that is woken from now on wakes it.
    pub(super) fn may_sleep(&self) -> bool {
        set(&self.shared.asleep, true);
        let may = !self.is_woken();
        if !may {
            self.awake();
        }
        may
    }

    /// Whether a task waits for its turn.
    pub(super) fn is_woken(&self) -> bool {
        let list = self.shared.list();
        list.as_ref().is_some_and(|list| !list.is_empty())
    }

    /// The worker does not sleep any more.
    pub(super) fn awake(&self) {
        set(&self.shared.asleep, false);
    }

    /// Drops all tasks. None runs any more.
    pub(super) fn clear(&self) {
        loop {
            let all = mem::take(&mut *self.places.borrow_mut());
            if all.is_empty() {
                break;
            }
            drop(all);
        }
        *self.shared.list() = None;
    }
}
