//! Every order in which threads can run: the tasks of a worker under loom. It compiles the file of rlb with loom's locks and
//! atomics.
//!
//! What is shown: a task that another thread wakes runs, whatever the worker does meanwhile, and sees what was done before the
//! wake; it does not run for nothing; nothing is left when a worker has ended.

/// The module of `src/worker` that takes part.
#[allow(
    dead_code,
    unreachable_pub,
    reason = "a file of rlb, of which this uses a part"
)]
#[path = "../src/worker"]
mod worker {
    mod reactor {
        mod sync {
            pub(super) use loom::sync::atomic::{AtomicBool, Ordering};
            pub(super) use loom::sync::{Mutex, MutexGuard};
            pub(super) use std::sync::{Arc, PoisonError};

            pub(super) fn set(flag: &AtomicBool, value: bool) {
                flag.swap(value, Ordering::Relaxed);
            }
        }

        mod tasks;

        mod models {
            use super::sync::{Arc, AtomicBool, Ordering};
            use super::tasks::Tasks;
            use loom::model::Builder;
            use loom::thread;
            use std::cell::{Cell, RefCell};
            use std::future::poll_fn;
            use std::rc::Rc;
            use std::task::{Poll, Waker};

            fn explore(model: impl Fn() + Sync + Send + 'static) {
                let mut builder = Builder::new();
                builder.preemption_bound = Some(3);
                builder.check(model);
            }

            /// Whether the event descriptor ends a sleep.
            fn is_readable(tasks: &Tasks) -> bool {
                rustix::io::read(tasks.event(), &mut [0; 8]).is_ok()
            }

            /// A task that waits until `ready` says so.
            struct Waiting {
                ready: Arc<AtomicBool>,
                waker: Waker,
                /// How often it ran.
                runs: Rc<Cell<usize>>,
                is_done: Rc<Cell<bool>>,
            }

            impl Waiting {
                /// It has run once, and waits.
                fn start(tasks: &Tasks) -> Self {
                    let ready = Arc::new(AtomicBool::new(false));
                    let (runs, is_done) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
                    let given = Rc::new(RefCell::new(None));
                    let (asked, counted) = (Arc::clone(&ready), Rc::clone(&runs));
                    let (done, waker) = (Rc::clone(&is_done), Rc::clone(&given));
                    tasks.spawn(poll_fn(move |context| {
                        counted.set(counted.get() + 1);
                        waker.replace(Some(context.waker().clone()));
                        // Only the wake orders it before this.
                        if !asked.load(Ordering::Relaxed) {
                            return Poll::Pending;
                        }
                        done.set(true);
                        Poll::Ready(())
                    }));
                    assert!(!tasks.run());
                    let waker = given.take().expect("it ran");
                    Self {
                        ready,
                        waker,
                        runs,
                        is_done,
                    }
                }

                /// What another thread does for it.
                fn order(&self) -> impl FnOnce() + 'static {
                    let (ready, waker) = (Arc::clone(&self.ready), self.waker.clone());
                    move || {
                        ready.store(true, Ordering::Relaxed);
                        waker.wake();
                    }
                }
            }

            /// The rounds of a worker until it sleeps, as in `Reactor::turn`. Whether the future that is no task was woken.
            fn run_until_it_sleeps(tasks: &Tasks) -> bool {
                let mut main = tasks.run();
                while !tasks.may_sleep() {
                    main |= tasks.run();
                }
                main
            }

            /// The other threads have ended while the worker slept: whoever has woken a task has ended the sleep.
            fn wake_up(tasks: &Tasks) -> bool {
                if !tasks.is_woken() {
                    return false;
                }
                assert!(is_readable(tasks), "it sleeps although a task was woken");
                tasks.awake();
                run_until_it_sleeps(tasks)
            }

            /// A wake comes while the worker runs, looks whether it may sleep, or sleeps.
            #[test]
            fn a_wake_by_another_thread_is_never_missed() {
                explore(|| {
                    let tasks = Tasks::new().expect("a descriptor");
                    let waiting = Waiting::start(&tasks);
                    let other = thread::spawn(waiting.order());
                    run_until_it_sleeps(&tasks);
                    other.join().expect("it ends");
                    wake_up(&tasks);
                    assert!(waiting.is_done.get());
                    assert!(waiting.runs.get() <= 2, "it ran for nothing");
                });
            }

            /// The same, and the task runs meanwhile because it was woken before.
            #[test]
            fn a_task_that_is_woken_while_it_runs_runs_again() {
                explore(|| {
                    let tasks = Tasks::new().expect("a descriptor");
                    let waiting = Waiting::start(&tasks);
                    waiting.waker.wake_by_ref();
                    let other = thread::spawn(waiting.order());
                    run_until_it_sleeps(&tasks);
                    other.join().expect("it ends");
                    wake_up(&tasks);
                    assert!(waiting.is_done.get());
                    assert!(waiting.runs.get() <= 3, "it ran for nothing");
                });
            }

            /// Two threads wake two tasks and the future that is no task.
            #[test]
            fn all_that_several_threads_wake_runs() {
                explore(|| {
                    let tasks = Tasks::new().expect("a descriptor");
                    let main = tasks.main();
                    assert!(tasks.run());
                    let (one, two) = (Waiting::start(&tasks), Waiting::start(&tasks));
                    let (first, second) = (one.order(), two.order());
                    let threads = [
                        thread::spawn(move || {
                            first();
                            main.wake();
                        }),
                        thread::spawn(second),
                    ];
                    let mut ran = run_until_it_sleeps(&tasks);
                    for thread in threads {
                        thread.join().expect("it ends");
                    }
                    ran |= wake_up(&tasks);
                    assert!(one.is_done.get() && two.is_done.get() && ran);
                });
            }

            /// A worker ends while another thread wakes one of its tasks, whose waker it keeps.
            #[test]
            fn nothing_is_left_of_a_worker_that_has_ended() {
                explore(|| {
                    let tasks = Tasks::new().expect("a descriptor");
                    let waiting = Waiting::start(&tasks);
                    let shared = Arc::downgrade(&tasks.shared);
                    let other = thread::spawn(waiting.order());
                    tasks.clear();
                    assert_eq!(Rc::strong_count(&waiting.runs), 1, "its tasks are gone");
                    drop((waiting, tasks));
                    other.join().expect("it ends");
                    assert!(shared.upgrade().is_none(), "a waker keeps itself");
                });
            }
        }
    }
}
