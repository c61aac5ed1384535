//! Every order in which threads can run: the queues of a backend under loom. It compiles the files of rlb with loom's
//! locks and atomics.
//!
//! What is shown: no client waits while a slot is free for it, no slot is lost, none is given twice.

/// The modules of `src/live` that take part, and what they need of the others.
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "files of rlb, of which this uses a part"
)]
#[path = "../src/live"]
mod live {
    mod sync {
        pub(super) use loom::sync::atomic::{AtomicU32, Ordering};
        pub(super) use loom::sync::{Mutex, MutexGuard};
        pub(super) use std::sync::{Arc, PoisonError};

        pub(super) fn keep_order() {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    mod gauge;

    mod objects {
        pub mod queue;

        use super::gauge::Gauge;
        use super::sync::{Arc, AtomicU32};
        use queue::Queue;

        /// What the queues need of a server.
        #[derive(Debug)]
        pub struct ServerLive {
            pub uid: u64,
            pub active: Gauge,
            pub queue: Arc<Queue>,
            pub queued: AtomicU32,
        }

        impl ServerLive {
            /// No algorithm looks at loads here.
            #[expect(clippy::unused_self, reason = "as of rlb's")]
            pub fn load_changed(&self) {}
        }
    }

    mod models {
        use super::gauge::Gauge;
        use super::objects::ServerLive;
        use super::objects::queue::{Candidate, Granted, Queue, Slot, SlotLimit, Ticket, Wanted};
        use super::sync::{Arc, AtomicU32};
        use loom::model::Builder;
        use loom::thread;
        use std::task::{Context, Poll, Waker};

        /// A backend whose servers may have so many sessions each.
        struct Backend {
            queue: Arc<Queue>,
            servers: Vec<Arc<ServerLive>>,
        }

        impl Backend {
            fn new(limits: &[u32]) -> Self {
                let queue = Arc::new(Queue::new(Arc::new(Gauge::default())));
                let servers = (1..).zip(limits).map(|(uid, _)| {
                    Arc::new(ServerLive {
                        uid,
                        active: Gauge::default(),
                        queue: Arc::clone(&queue),
                        queued: AtomicU32::new(0),
                    })
                });
                let backend = Self {
                    servers: servers.collect(),
                    queue,
                };
                backend.limit(limits);
                backend
            }

            /// What the control thread does when limits change.
            fn limit(&self, limits: &[u32]) {
                let servers = self.servers.iter().zip(limits).zip(0..);
                let candidates = servers.map(|((server, limit), index)| Candidate {
                    server: Arc::clone(server),
                    index,
                    limit: SlotLimit::new(*limit, 0, 0),
                });
                self.queue.set_servers(candidates.collect(), true);
            }

            /// A slot on the server at `index` with this limit, as a session takes it that nobody waits before.
            fn take(&self, index: usize, limit: u32) -> Option<Slot> {
                if self.queue.is_waiting() {
                    return None;
                }
                Slot::below(&self.servers[index], SlotLimit::new(limit, 0, 0))
            }

            fn join(&self) -> Ticket {
                let (ticket, _) = self
                    .queue
                    .join(Wanted::AnyBut(Box::default()), None)
                    .expect("no limit");
                ticket
            }

            fn active(&self) -> u32 {
                self.servers.iter().map(|server| server.active.get()).sum()
            }
        }

        fn granted(ticket: &mut Ticket) -> Option<Granted> {
            match ticket.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(granted) => Some(granted.expect("the servers stay")),
                Poll::Pending => None,
            }
        }

        fn explore(model: impl Fn() + Sync + Send + 'static) {
            let mut builder = Builder::new();
            builder.preemption_bound = Some(3);
            builder.check(model);
        }

        /// A slot becomes free while a session finds the server full and begins to wait.
        #[test]
        fn who_begins_to_wait_while_a_slot_becomes_free_gets_it() {
            explore(|| {
                let backend = Arc::new(Backend::new(&[1]));
                let held = backend.take(0, 1).expect("free");
                let theirs = Arc::clone(&backend);
                let waits = thread::spawn(move || {
                    if let Some(slot) = theirs.take(0, 1) {
                        return drop(slot);
                    }
                    let mut ticket = theirs.join();
                    // Whoever frees the slot may be about to give it.
                    let granted = granted(&mut ticket);
                    drop((granted, ticket));
                });
                drop(held);
                waits.join().expect("it ends");
                assert_eq!(backend.active(), 0);
                assert!(!backend.queue.is_waiting());
            });
        }

        /// The same, and the session stays: when all is quiet it has the slot.
        #[test]
        fn nobody_waits_for_a_free_slot() {
            explore(|| {
                let backend = Arc::new(Backend::new(&[1, 1]));
                let held = [0, 1].map(|index| backend.take(index, 1).expect("free"));
                let theirs = Arc::clone(&backend);
                let waits = thread::spawn(move || theirs.join());
                let [first, second] = held;
                let frees = thread::spawn(move || drop(first));
                drop(second);
                frees.join().expect("it ends");
                let mut ticket = waits.join().expect("it ends");
                let granted = granted(&mut ticket).expect("two slots are free");
                assert_eq!(backend.active(), 1);
                drop((granted, ticket));
                assert_eq!(backend.active(), 0);
            });
        }

        /// The first of two that wait leaves while a slot comes: the second has it then.
        #[test]
        fn a_slot_for_one_that_leaves_goes_to_the_next() {
            explore(|| {
                let backend = Arc::new(Backend::new(&[1]));
                let held = backend.take(0, 1).expect("free");
                let first = backend.join();
                let mut second = backend.join();
                let leaves = thread::spawn(move || drop(first));
                drop(held);
                leaves.join().expect("it ends");
                assert!(
                    granted(&mut second).is_some(),
                    "it is the only one that waits"
                );
                assert_eq!(backend.active(), 0, "and it has just left");
                assert!(!backend.queue.is_waiting());
            });
        }

        /// The limit is raised while a session begins to wait.
        #[test]
        fn a_limit_that_is_raised_serves_who_begins_to_wait() {
            explore(|| {
                let backend = Arc::new(Backend::new(&[1]));
                let held = backend.take(0, 1).expect("free");
                let theirs = Arc::clone(&backend);
                let waits = thread::spawn(move || theirs.join());
                backend.limit(&[2]);
                let mut ticket = waits.join().expect("it ends");
                let granted = granted(&mut ticket).expect("there is room for two");
                assert_eq!(backend.active(), 2);
                drop((held, granted, ticket));
                assert_eq!(backend.active(), 0);
            });
        }

        /// The servers leave, or lose their limits, while a session begins to wait: it gets a slot or chooses again.
        #[test]
        fn nobody_waits_for_servers_that_have_gone() {
            for stays in [false, true] {
                explore(move || {
                    let backend = Arc::new(Backend::new(&[1]));
                    let held = backend.take(0, 1).expect("free");
                    let theirs = Arc::clone(&backend);
                    let waits = thread::spawn(move || theirs.join());
                    let candidates = backend.servers.iter().map(|server| Candidate {
                        server: Arc::clone(server),
                        index: 0,
                        limit: SlotLimit::NONE,
                    });
                    let candidates = candidates.take(usize::from(stays));
                    backend.queue.set_servers(candidates.collect(), false);
                    let mut ticket = waits.join().expect("it ends");
                    let answer = ticket.poll(&mut Context::from_waker(Waker::noop()));
                    assert!(answer.is_ready());
                    assert!(!backend.queue.is_waiting());
                    drop((answer, ticket, held));
                    assert_eq!(backend.active(), 0);
                });
            }
        }

        /// The only server that a session takes leaves while it waits.
        #[test]
        fn who_takes_none_of_the_servers_that_are_left_chooses_again() {
            explore(|| {
                let backend = Backend::new(&[1, 1]);
                let held = [0, 1].map(|index| backend.take(index, 1).expect("free"));
                let wanted = Wanted::AnyBut(Box::new([1]));
                let (mut ticket, _) = backend.queue.join(wanted, None).expect("no limit");
                assert!(granted(&mut ticket).is_none());
                let stays = Candidate {
                    server: Arc::clone(&backend.servers[0]),
                    index: 0,
                    limit: SlotLimit::new(1, 0, 0),
                };
                backend.queue.set_servers(vec![stays], true);
                let answer = ticket.poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(answer, Poll::Ready(None)));
                assert_eq!(backend.queue.waiting_for_any(), 0);
                drop((held, ticket));
            });
        }

        /// Of two that wait the first begins to wait again: it is still before the second.
        #[test]
        fn who_waits_again_keeps_its_place() {
            explore(|| {
                let backend = Backend::new(&[1]);
                let held = backend.take(0, 1).expect("free");
                let first = backend.join();
                let mut second = backend.join();
                let rank = Some(first.rank());
                drop(first);
                let again = backend.queue.join(Wanted::AnyBut(Box::default()), rank);
                let (mut again, _) = again.expect("no limit");
                drop(held);
                assert!(granted(&mut second).is_none());
                assert!(granted(&mut again).is_some());
                drop((again, second));
            });
        }

        /// Sessions that come and go at once never exceed the limit, and leave nothing behind.
        #[test]
        fn no_slot_is_given_twice() {
            explore(|| {
                let backend = Arc::new(Backend::new(&[1]));
                let session = |backend: Arc<Backend>| {
                    move || {
                        let slot = backend.take(0, 1);
                        let slot = slot.or_else(|| granted(&mut backend.join()).map(|it| it.slot));
                        if slot.is_some() {
                            assert_eq!(backend.active(), 1);
                        }
                    }
                };
                let other = thread::spawn(session(Arc::clone(&backend)));
                session(Arc::clone(&backend))();
                other.join().expect("it ends");
                assert_eq!(backend.active(), 0);
                assert!(!backend.queue.is_waiting());
            });
        }
    }
}
