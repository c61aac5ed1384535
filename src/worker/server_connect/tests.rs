//! What a session tells of servers and of its queue, with connects that fail at once or are not answered.

use super::*;
use crate::config::model::Server as Spec;
use crate::live::queue::Granted;
use crate::live::retry_budget::LEAST;
use crate::live::slot::Slot;
use crate::state::test_config::{backend, config, origin, server};
use crate::state::{Forced, Origin, Snapshot, SnapshotBuilder};
use std::task::{Context, Poll, Waker};

/// Every connect is refused, or none is answered. Control takes what it is told while it has room.
struct FailingDialer {
    backend: Arc<Backend>,
    token: WorkerToken,
    refuses: bool,
    room: bool,
    told: Vec<u32>,
    denied: u32,
}

impl FailingDialer {
    fn refusing(backend: Arc<Backend>) -> Self {
        Self {
            backend,
            token: WorkerToken::new(0),
            refuses: true,
            room: true,
            told: Vec::new(),
            denied: 0,
        }
    }

    fn silent(backend: Arc<Backend>) -> Self {
        Self {
            refuses: false,
            ..Self::refusing(backend)
        }
    }
}

impl Dialer for FailingDialer {
    type Connection = ();

    fn dial(&mut self, _: &Arc<Server>) -> io::Result<()> {
        if self.refuses {
            return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        }
        Ok(())
    }

    fn abort(&mut self, (): ()) {}

    fn is_answered(&self, (): &()) -> bool {
        false
    }

    fn backend<T>(&self, _: BackendId, look: impl FnOnce(&Backend) -> T) -> Option<T> {
        Some(look(&self.backend))
    }

    fn suspect(&mut self, _: BackendId, _: &Server) {}

    fn observed(&mut self, _: &Server, errors: u32) -> bool {
        self.told.push(errors);
        self.room
    }

    fn short_of(&mut self, _: Shortage, _: &Server) {}

    fn gave_up(&mut self, _: FailureCause, _: Option<&Server>) {}

    fn retry_denied(&mut self, _: &Backend, _: u32) {
        self.denied += 1;
    }

    fn asks(&mut self, _: &Server, _: u32, _: bool) {}

    fn waited(&mut self, _: QueueStay) {}

    fn held(&mut self, _: Duration) {}

    fn token(&self) -> &WorkerToken {
        &self.token
    }
}

/// Where control has no room for the errors in a row, the next error tells them all.
#[test]
fn errors_that_could_not_be_told_are_told_with_the_next_one() {
    let observed = Spec {
        observe: true,
        error_limit: 2,
        ..server("s1")
    };
    let mut spec = backend("b", vec![observed]);
    spec.retries = 0;
    let now = Instant::now();
    let snapshot = Snapshot::initial(&config(vec![spec]), &origin(now));
    let backend = Arc::clone(snapshot.backend(BackendId::first(0)).expect("just made"));
    let mut dialer = FailingDialer::refusing(Arc::clone(&backend));
    for session in 1..=5 {
        dialer.room = session > 2;
        let mut connect = ServerConnect::new(&backend, |_| None, now);
        let end = connect.advance(&mut dialer, now);
        assert_eq!(end, Next::GiveUp(ConnectFailure::Refused));
    }
    assert_eq!(dialer.told, [2, 3, 2]);
}

/// A session waits in a queue, but not for a server that has refused it. When that one comes up again it takes its slot.
/// Otherwise it waited for the others alone.
#[test]
fn a_server_that_has_refused_and_comes_up_serves_the_one_that_waits() {
    let limited = |name: &str| Spec {
        maxconn: 1,
        ..server(name)
    };
    let spec = backend("b", vec![limited("s1"), limited("s2")]);
    let now = Instant::now();
    let first = Arc::new(Snapshot::initial(&config(vec![spec]), &origin(now)));
    first.begin_queues();
    let id = BackendId::first(0);
    let of = |snapshot: &Snapshot| Arc::clone(snapshot.backend(id).expect("it stays"));
    let mut dialer = FailingDialer::refusing(of(&first));
    let _full = Slot::take(&dialer.backend.servers[1].live, &dialer.token);
    let mut connect = ServerConnect::new(&of(&first), |_| None, now);
    assert!(matches!(connect.advance(&mut dialer, now), Next::Wait(_)));
    let uid = dialer.backend.servers[0].live.uid;
    assert!(connect.is_queued() && connect.has_tried(uid));
    let mut base = first;
    for to in [Forced::Down, Forced::Up] {
        let mut builder = SnapshotBuilder::new(Arc::clone(&base));
        let mut server = Server::clone(&base.backend(id).expect("it stays").servers[0]);
        server.status.force(to, server.rules(), now);
        builder.replace(id, 0, server, now);
        let next = Arc::new(builder.finish().expect("a change"));
        next.update_queues(&base);
        base = next;
    }
    // The session hears of both at once.
    dialer.backend = of(&base);
    connect.servers_changed(&mut dialer, now);
    assert!(!connect.has_tried(uid));
    assert!(!connect.is_queued(), "it chooses again");
}

/// Of two servers with a limit one leaves a session without an answer, and the other is full: `then` goes on with it once
/// it waits in the queue beside its attempt.
#[track_caller]
fn beside_an_attempt(then: impl FnOnce(ServerConnect<()>, FailingDialer, Slot, Instant)) {
    let limited = |name: &str| Spec {
        maxconn: 1,
        ..server(name)
    };
    let spec = backend("b", vec![limited("s1"), limited("s2")]);
    let now = Instant::now();
    let snapshot = Snapshot::initial(&config(vec![spec]), &origin(now));
    snapshot.begin_queues();
    let backend = Arc::clone(snapshot.backend(BackendId::first(0)).expect("just made"));
    let mut dialer = FailingDialer::silent(Arc::clone(&backend));
    let full = Slot::take(&backend.servers[1].live, &dialer.token);
    let mut connect = ServerConnect::new(&backend, |_| None, now);
    let Next::Wait(until) = connect.advance(&mut dialer, now) else {
        panic!("it is asked");
    };
    assert!(!connect.is_queued());
    connect.advance(&mut dialer, until);
    assert!(connect.is_queued() && connect.asks_a_server());
    then(connect, dialer, full, until);
}

fn granted(connect: &mut ServerConnect<()>) -> Option<Granted> {
    let mut context = Context::from_waker(Waker::noop());
    match connect.poll_granted(&mut context) {
        Poll::Ready(granted) => granted,
        Poll::Pending => None,
    }
}

#[test]
fn a_slot_is_waited_for_beside_an_attempt_without_an_answer() {
    beside_an_attempt(|mut connect, mut dialer, full, now| {
        drop(full);
        let granted = granted(&mut connect);
        assert!(granted.is_some());
        connect.granted(granted, &mut dialer, now);
        let asked = AttemptSlot::BOTH.map(|slot| connect.server(slot).map(|it| &*it.spec.name));
        assert_eq!(asked, [Some("s1"), Some("s2")]);
        assert!(!connect.is_queued());
    });
}

/// The place in the queue is given up, and the slot that has just come with it.
#[test]
fn an_answer_ends_the_stay_in_the_queue_beside_it() {
    beside_an_attempt(|mut connect, mut dialer, full, now| {
        drop(full);
        let answered = connect.answered(AttemptSlot::A, &mut dialer, now);
        assert_eq!(&*answered.expect("it counts").server.spec.name, "s1");
        assert!(!connect.is_queued());
        let backend = &dialer.backend;
        assert!(!backend.live.queue.is_waiting());
        assert_eq!(backend.servers[1].live.active.get(), 0);
    });
}

/// The connect timeout ends the attempt, and the time in the queue goes on.
#[test]
fn the_connect_timeout_ends_an_attempt_and_not_the_stay_in_the_queue_beside_it() {
    beside_an_attempt(|mut connect, mut dialer, full, now| {
        let Next::Wait(until) = connect.advance(&mut dialer, now) else {
            panic!("it waits");
        };
        let Next::Wait(end) = connect.advance(&mut dialer, until) else {
            panic!("it goes on waiting");
        };
        assert!(connect.is_queued() && !connect.asks_a_server());
        drop(full);
        let granted = granted(&mut connect);
        connect.granted(granted, &mut dialer, end);
        assert!(connect.asks_a_server());
    });
}

/// A backend of so many servers, with this budget, and one worker.
fn with_budget(servers: &[&str], percent: u32) -> Arc<Backend> {
    let servers = servers.iter().map(|name| server(name)).collect();
    let mut spec = backend("b", servers);
    spec.retry_budget = Some(percent);
    let origin = Origin {
        shards: 2,
        ..origin(Instant::now())
    };
    let snapshot = Snapshot::initial(&config(vec![spec]), &origin);
    Arc::clone(snapshot.backend(BackendId::first(0)).expect("just made"))
}

fn attempts(backend: &Backend) -> u64 {
    backend.live.traffic.sum(|traffic| &traffic.connect)
}

/// A backend that is dead gets the first attempts, and the retries of the budget.
#[test]
fn sessions_of_a_dead_backend_have_a_budget_for_their_retries() {
    let backend = with_budget(&["s1", "s2", "s3"], 20);
    let mut dialer = FailingDialer::refusing(Arc::clone(&backend));
    let begun = Instant::now();
    let sessions = 500;
    let mut denied = 0;
    for _ in 0..sessions {
        let mut connect = ServerConnect::new(&backend, |_| None, begun);
        let mut now = begun;
        while let Next::Wait(until) = connect.advance(&mut dialer, now) {
            now = until;
        }
        let before = std::mem::replace(&mut denied, dialer.denied);
        assert!(denied - before <= 1, "it is told once");
    }
    // The few sessions that may try for long ask once more than they try.
    let retries = attempts(&backend) - sessions;
    let most = LEAST + sessions / 5;
    assert!(
        retries <= most && retries + 10 > most,
        "{retries} of {most}"
    );
    assert!(u64::from(denied) > sessions / 2, "{denied}");
    let econ = backend.live.traffic.sum(|traffic| &traffic.econ);
    assert_eq!(econ, sessions, "they end as others that are refused");
}

/// No second server is asked, unless the silent one goes down. The budget may allow it later.
#[test]
fn without_a_budget_no_second_server_is_asked_for_an_answer() {
    let backend = with_budget(&["s1", "s2"], 0);
    let retries = &backend.live.retries;
    while retries.take(0, &backend.live.traffic) {}
    let mut dialer = FailingDialer::silent(Arc::clone(&backend));
    let now = Instant::now();
    let attempt = backend.spec.connect_attempt;
    let mut connect = ServerConnect::new(&backend, |_| None, now);
    for times in 1..=3 {
        let next = connect.advance(&mut dialer, now + attempt * times);
        assert_eq!(next, Next::Wait(now + attempt * (times + 1)));
    }
    assert_eq!((attempts(&backend), dialer.denied), (1, 2));
    retries.give_back();
    connect.advance(&mut dialer, now + attempt * 4);
    assert_eq!((attempts(&backend), dialer.denied), (2, 2));
}

/// A second attempt that no server is left for uses nothing up.
#[test]
fn an_attempt_that_is_not_made_is_no_retry() {
    let backend = with_budget(&["s1"], 0);
    let mut dialer = FailingDialer::silent(Arc::clone(&backend));
    let now = Instant::now();
    for _ in 0..2 * LEAST {
        let mut connect = ServerConnect::new(&backend, |_| None, now);
        for at in [now, now + backend.spec.connect_attempt] {
            assert!(matches!(connect.advance(&mut dialer, at), Next::Wait(_)));
        }
    }
    assert_eq!((attempts(&backend), dialer.denied), (2 * LEAST, 0));
}
