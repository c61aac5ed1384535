//! What a session tells of servers, with connects that fail at once.

use super::*;
use crate::config::model::Server as Spec;
use crate::live::slot::Slot;
use crate::state::test_config::{backend, config, origin, server};
use crate::state::{Forced, Snapshot, SnapshotBuilder};

/// Every connect is refused. Control takes what it is told while it has room.
struct Refusing {
    backend: Arc<Backend>,
    token: WorkerToken,
    room: bool,
    told: Vec<u32>,
}

impl Dialer for Refusing {
    type Connection = ();

    fn dial(&mut self, _: &Arc<Server>) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ECONNREFUSED))
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
    let mut dialer = Refusing {
        backend: Arc::clone(&backend),
        token: WorkerToken::new(0),
        room: false,
        told: Vec::new(),
    };
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
    let mut dialer = Refusing {
        backend: of(&first),
        token: WorkerToken::new(0),
        room: true,
        told: Vec::new(),
    };
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
