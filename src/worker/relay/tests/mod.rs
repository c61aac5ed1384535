//! The engine between real sockets: random reads, writes, FINs and resets on both sides. What was written on
//! one side must be read on the other.

mod ending;
mod moving;
mod surplus;
mod urgent;

use super::Relay;
use super::conn::{Established, Kind};
use super::connecting::Connecting;
use super::direction::CHUNK_MAX;
use super::watched::Watched;
use crate::config::{Limits, Loader};
use crate::live::slot::{ConnLimits, ConnSlot, Slot};
use crate::live::{Cause, GlobalLive, LogQueue, PIPES_MAX, WorkerToken};
use crate::state::Snapshot;
use crate::state::snapshot::Origin;
use crate::sys::accept::{Listening, Readiness, yield_now};
use crate::worker::order::ServerSet;
use crate::worker::reactor::Reactor;
use crate::worker::session_id::SessionId;
use crate::worker::session_stats::{SessionStats, WorkerStats};
use proptest::prelude::*;
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokio::sync::oneshot::{self, Receiver};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Small, so that writes are short and there is back-pressure.
const SOCKET_BUFFER: usize = 8 * 1024;

/// A session in a relay, and the far ends of its two connections.
struct Fixture {
    relay: Rc<Relay>,
    worker_stats: Rc<WorkerStats>,
    snapshot: Snapshot,
    ends: [End; 2],
}

/// A far end: what it has written and read so far.
struct End {
    stream: Option<TcpStream>,
    written: u64,
    read: u64,
    shut: bool,
    /// It has read the end of the stream, by FIN or by reset.
    ended: Option<ErrorKind>,
}

/// After so many bytes the stream of a side repeats itself; a prime, so that no buffer has that size.
const PERIOD: usize = 65_521;

/// The bytes of the stream that side `side` writes, from number `from` on. They are copied, because tests that are
/// not optimized move gigabytes.
fn bytes(side: usize, from: u64, count: usize) -> Vec<u8> {
    static PERIODS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
        [0, 1].map(|side: u64| {
            let byte =
                |n: u64| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ side << 7).to_le_bytes()[3];
            (0..PERIOD as u64).map(byte).collect()
        })
    });
    let period = &PERIODS[side];
    let mut bytes = Vec::with_capacity(count);
    let mut at = usize::try_from(from % PERIOD as u64).unwrap();
    while bytes.len() < count {
        let end = PERIOD.min(at + count - bytes.len());
        bytes.extend_from_slice(&period[at..end]);
        at = end % PERIOD;
    }
    bytes
}

impl End {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self {
            stream: Some(stream),
            written: 0,
            read: 0,
            shut: false,
            ended: None,
        }
    }

    fn write(&mut self, side: usize, len: usize) {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.shut) else {
            return;
        };
        let bytes = bytes(side, self.written, len);
        if let Ok(count) = stream.write(&bytes) {
            self.written += count as u64;
        }
    }

    /// Reads up to `most` bytes and checks them.
    fn read(&mut self, side: usize, most: usize) {
        let Some(stream) = self.stream.as_mut().filter(|_| self.ended.is_none()) else {
            return;
        };
        let mut buffer = vec![0; most];
        match stream.read(&mut buffer) {
            Ok(0) => self.ended = Some(ErrorKind::UnexpectedEof),
            Ok(count) => {
                let wanted = bytes(1 - side, self.read, count);
                if buffer[..count] != wanted {
                    let wrong = buffer.iter().zip(&wanted).position(|(one, two)| one != two);
                    panic!("byte {} is wrong", self.read + wrong.unwrap() as u64);
                }
                self.read += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.ended = Some(error.kind()),
        }
    }
}

/// A connection with socket buffers of this size: its near end for the engine, and its far end.
fn connection(kind: Kind, buffer: usize) -> (OwnedFd, TcpStream) {
    if kind == Kind::Unix {
        let (near, far) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        near.set_send_buffer_size(buffer).unwrap();
        far.set_send_buffer_size(buffer).unwrap();
        near.set_nonblocking(true).unwrap();
        // The calls are the same.
        return (near.into(), TcpStream::from(OwnedFd::from(far)));
    }
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.set_recv_buffer_size(buffer).unwrap();
    listener
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(1).unwrap();
    let far = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    far.set_recv_buffer_size(buffer).unwrap();
    far.set_send_buffer_size(buffer).unwrap();
    far.connect(&listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    near.set_send_buffer_size(buffer).unwrap();
    near.set_nonblocking(true).unwrap();
    (near.into(), far.into())
}

/// A session that a relay is to adopt.
struct Ready {
    client: OwnedFd,
    server: OwnedFd,
    kind: Kind,
    stats: Box<SessionStats>,
    prefix: [Option<Box<[u8]>>; 2],
}

impl Ready {
    fn go(self, relay: &Rc<Relay>) {
        let server = Connecting::new(relay, self.server, self.kind).unwrap();
        relay.adopt(Established {
            client: (self.client, self.kind),
            server,
            stats: self.stats,
            prefix: self.prefix,
        });
    }

    /// The same, once the relay has heard that the server has answered.
    async fn go_when_answered(self, relay: &Rc<Relay>) {
        let server = Connecting::new(relay, self.server, self.kind).unwrap();
        std::future::poll_fn(|context| server.poll_answered(context))
            .await
            .unwrap();
        relay.adopt(Established {
            client: (self.client, self.kind),
            server,
            stats: self.stats,
            prefix: self.prefix,
        });
    }
}

/// Runs a test in a loop as a worker's, with the relay of a worker with these statistics.
fn in_a_reactor(worker_stats: Rc<WorkerStats>, test: impl AsyncFnOnce(Rc<Relay>, &Reactor)) {
    let reactor = Reactor::new(Relay::new(worker_stats).unwrap()).unwrap();
    let relay = Rc::clone(&reactor.relay);
    reactor.block_on(test(relay, &reactor)).unwrap();
}

/// Completes with `future`, which must not last for longer than [`TIMEOUT`].
async fn soon<T>(reactor: &Reactor, what: &str, future: impl Future<Output = T>) -> T {
    tokio::select! {
        output = future => output,
        () = reactor.timers.sleep(TIMEOUT) => panic!("{what}"),
    }
}

/// Runs a future as a task, and completes with it.
fn spawned(reactor: &Reactor, future: impl Future<Output = ()> + 'static) -> Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    reactor.tasks.spawn(async move {
        future.await;
        let _ = sender.send(());
    });
    receiver
}

/// A session to be adopted, its statistics, and the far ends of its two connections.
fn session(buffer: usize) -> (Ready, Snapshot, Rc<WorkerStats>, [TcpStream; 2]) {
    session_with(buffer, "")
}

/// The same, with these keys of the listen.
fn session_with(buffer: usize, keys: &str) -> (Ready, Snapshot, Rc<WorkerStats>, [TcpStream; 2]) {
    session_of(Kind::Tcp, buffer, keys)
}

/// The same, over sockets of this kind.
fn session_of(
    kind: Kind,
    buffer: usize,
    keys: &str,
) -> (Ready, Snapshot, Rc<WorkerStats>, [TcpStream; 2]) {
    let limits = Limits::unknown();
    let loader = Loader {
        limits,
        environment: &|_| None,
        disk: false,
    };
    let text = format!(
        "[[listen]]\nname = 'l'\nbind = '127.0.0.1:0'\n{keys}\n\
         servers = [{{ name = 's', address = '127.0.0.1:1' }}]\n"
    );
    let (config, _) = loader.load_text("test", &text).unwrap();
    let global = Arc::new(GlobalLive::new(Instant::now(), 1));
    let origin = Origin {
        global: Arc::clone(&global),
        maxconn: 10,
        shards: 1,
        now: Instant::now(),
    };
    let snapshot = Snapshot::initial(&config, &origin);
    let log = LogQueue::off(Arc::clone(&global));
    let worker_stats = Rc::new(WorkerStats {
        token: WorkerToken::new(0),
        global,
        log,
    });

    let frontend = snapshot.frontends[0].as_ref().unwrap();
    let backend = snapshot.backends[0].as_ref().unwrap();
    let limits = ConnLimits {
        global: 10,
        frontend: None,
    };
    let slot = ConnSlot::take(
        &worker_stats.global,
        Arc::clone(frontend),
        limits,
        &worker_stats.token,
    )
    .unwrap();
    let id = SessionId::new(1, (0, 1));
    let mut stats = SessionStats::open(id, slot, None, &worker_stats);
    stats.enter_backend(backend, &worker_stats);
    let server = &backend.servers[0];
    stats.enter_server(
        server,
        Slot::take(&server.live, &worker_stats.token),
        &worker_stats,
    );

    let (client, far_client) = connection(kind, buffer);
    let (server, far_server) = connection(kind, buffer);
    let session = Ready {
        client,
        server,
        kind,
        stats,
        prefix: [None, None],
    };
    (session, snapshot, worker_stats, [far_client, far_server])
}

impl Fixture {
    fn new() -> Self {
        Self::with_buffers(SOCKET_BUFFER)
    }

    fn with_buffers(buffer: usize) -> Self {
        Self::of(Kind::Tcp, buffer, "")
    }

    fn of(kind: Kind, buffer: usize, keys: &str) -> Self {
        let (session, snapshot, worker_stats, ends) = session_of(kind, buffer, keys);
        let relay = Relay::new(Rc::clone(&worker_stats)).unwrap();
        session.go(&relay);
        Self {
            relay,
            worker_stats,
            snapshot,
            ends: ends.map(End::new),
        }
    }

    fn turn(&mut self) {
        let mut engine = self.relay.engine.borrow_mut();
        engine.turn().unwrap();
        engine.tick();
    }

    fn is_over(&self) -> bool {
        self.relay.engine.borrow().is_empty()
    }

    /// Turns, reading on both sides, until `done`.
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !done(self) {
            assert!(Instant::now() < deadline, "not within {TIMEOUT:?}: {what}");
            self.turn();
            for side in 0..2 {
                self.ends[side].read(side, 16 * 1024);
            }
            std::thread::yield_now();
        }
    }

    /// Bytes that the relay has read: from the client, from the server.
    fn counted(&self) -> [u64; 2] {
        let frontend = self.snapshot.frontends[0].as_ref().unwrap();
        let traffic = &frontend.live.traffic;
        [
            traffic.sum(|shard| &shard.bin),
            traffic.sum(|shard| &shard.bout),
        ]
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Write(side, len) => self.ends[side].write(side, len),
            Act::Read(side, most) => self.ends[side].read(side, most),
            Act::End(side) => {
                let end = &mut self.ends[side];
                if let Some(stream) = end.stream.as_ref().filter(|_| !end.shut) {
                    let _ = stream.shutdown(Shutdown::Write);
                    end.shut = true;
                }
            }
            Act::Turn => self.turn(),
            Act::Move => self.move_session(),
            Act::Refuse => self.refuse_session(),
        }
    }
}

#[derive(Debug, Clone)]
enum Act {
    Write(usize, usize),
    Read(usize, usize),
    End(usize),
    Turn,
    Move,
    Refuse,
}

fn act() -> impl Strategy<Value = Act> {
    let size = || prop_oneof![1usize..10, 1usize..3000, 1usize..70_000];
    prop_oneof![
        6 => (0usize..2, size()).prop_map(|(side, len)| Act::Write(side, len)),
        4 => (0usize..2, size()).prop_map(|(side, most)| Act::Read(side, most)),
        1 => (0usize..2).prop_map(Act::End),
        6 => Just(Act::Turn),
        1 => Just(Act::Move),
        1 => Just(Act::Refuse),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn what_is_written_on_one_side_is_read_on_the_other(
        acts in prop::collection::vec(act(), 1..80)
    ) {
        let mut fixture = Fixture::new();
        for act in &acts {
            fixture.act(act);
        }
        fixture.act(&Act::End(0));
        fixture.act(&Act::End(1));
        fixture.until("both ends have read the end", |f| f.ends.iter().all(|e| e.ended.is_some()));
        fixture.until("the session has ended", Fixture::is_over);
        for side in 0..2 {
            prop_assert_eq!(fixture.ends[side].ended, Some(ErrorKind::UnexpectedEof));
            prop_assert_eq!(fixture.ends[side].read, fixture.ends[1 - side].written);
        }
        prop_assert_eq!(fixture.counted(), [fixture.ends[0].written, fixture.ends[1].written]);
    }

    #[test]
    fn a_reset_arrives_as_a_reset_after_all_that_was_read(
        acts in prop::collection::vec(act(), 0..60), from in 0usize..2
    ) {
        let mut fixture = Fixture::new();
        // The remaining side may end its half before; then it is reset all the same.
        for act in acts.iter().filter(|act| !matches!(act, Act::End(side) if *side == from)) {
            fixture.act(act);
        }
        let stream = fixture.ends[from].stream.take().unwrap();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        fixture.until("the session has ended", Fixture::is_over);
        let other = 1 - from;
        fixture.until("the reset has arrived", |f| f.ends[other].ended.is_some());
        let kind = fixture.ends[other].ended;
        prop_assert_eq!(kind, Some(ErrorKind::ConnectionReset));
        prop_assert_eq!(fixture.ends[other].read, fixture.counted()[from]);
    }
}

#[test]
fn prefix_bytes_are_sent_first() {
    let (mut session, _snapshot, worker_stats, [mut client, mut server]) = session(SOCKET_BUFFER);
    session.prefix = [Some((*b"220 ").into()), Some((*b"PROXY ").into())];
    client.write_all(b"question").unwrap();
    server.write_all(b"ready").unwrap();
    let relay = Relay::new(worker_stats).unwrap();
    session.go(&relay);
    relay.engine.borrow_mut().turn().unwrap();
    for (end, expected) in [
        (&mut client, &b"220 ready"[..]),
        (&mut server, b"PROXY question"),
    ] {
        end.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut received = vec![0; expected.len()];
        end.read_exact(&mut received).unwrap();
        assert_eq!(received, expected);
    }
}

#[test]
fn bulk_goes_through_a_pipe_that_comes_back_to_the_pool() {
    const BULK: u64 = 8_000_000;
    let mut fixture = Fixture::with_buffers(512 * 1024);
    let deadline = Instant::now() + TIMEOUT;
    while fixture.ends.iter().any(|end| end.read < BULK) {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}");
        for side in 0..2 {
            let left = BULK - fixture.ends[side].written;
            fixture.ends[side].write(side, usize::try_from(left.min(300_000)).unwrap());
        }
        fixture.turn();
        for side in 0..2 {
            fixture.ends[side].read(side, 400_000);
        }
    }
    assert!(
        fixture.relay.engine.borrow().pooled_pipes() > 0,
        "8 MB were copied all the way"
    );
    for side in 0..2 {
        fixture.act(&Act::End(side));
    }
    fixture.until("the session has ended", Fixture::is_over);
    assert_eq!(fixture.counted(), [BULK, BULK]);
}

#[test]
fn bulk_that_comes_in_pieces_is_still_bulk() {
    const PIECE: usize = 30_000;
    let mut fixture = Fixture::with_buffers(512 * 1024);
    let spliced = |f: &Fixture| f.snapshot.global.traffic.sum(|shard| &shard.spliced_out);
    let mut sent = 0;
    let mut pass = |fixture: &mut Fixture, len: usize| {
        sent += len as u64;
        fixture.ends[1].write(1, len);
        fixture.until("the piece is through", |f| f.ends[0].read == sent);
        // Nothing is left to read, and the engine knows it.
        fixture.turn();
    };
    pass(&mut fixture, PIECE);
    assert_eq!(spliced(&fixture), 0, "a single message is copied");
    pass(&mut fixture, 300_000);
    let before = spliced(&fixture);
    assert!(before > 0, "300 KB at once are bulk");
    for _ in 0..5 {
        pass(&mut fixture, PIECE);
    }
    assert_eq!(spliced(&fixture) - before, 5 * PIECE as u64);
    // Messages follow: after a few it is no longer bulk.
    for _ in 0..20 {
        pass(&mut fixture, 100);
    }
    let before = spliced(&fixture);
    pass(&mut fixture, PIECE);
    assert_eq!(spliced(&fixture), before);
}

#[test]
fn slow_readers_of_bulk_leave_a_pipe_for_the_others() {
    const BULK: u64 = 8_000_000;
    let mut fixture = Fixture::with_buffers(512 * 1024);
    let mut slow = Vec::new();
    for _ in 0..3 * PIPES_MAX {
        let (session, snapshot, _books, ends) = session(512 * 1024);
        session.go(&fixture.relay);
        slow.push((snapshot, ends.map(End::new)));
    }
    // Their servers send until nothing more is taken; their clients do not read.
    let deadline = Instant::now() + TIMEOUT;
    let mut written = 0;
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(100) {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}");
        for (_, ends) in &mut slow {
            ends[1].write(1, 300_000);
        }
        fixture.turn();
        let now = slow.iter().map(|(_, ends)| ends[1].written).sum();
        if written != now {
            (written, since) = (now, Instant::now());
        }
    }
    let kept = || fixture.relay.engine.borrow().most_kept();
    assert!((1..=CHUNK_MAX).contains(&kept()), "{} bytes", kept());
    let spliced = |f: &Fixture| f.snapshot.global.traffic.sum(|shard| &shard.spliced_out);
    let before = spliced(&fixture);
    let deadline = Instant::now() + TIMEOUT;
    while fixture.ends[0].read < BULK {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}");
        let left = BULK - fixture.ends[1].written;
        fixture.ends[1].write(1, usize::try_from(left.min(300_000)).unwrap());
        fixture.turn();
        fixture.ends[0].read(0, 400_000);
    }
    let share = spliced(&fixture) - before;
    assert!(
        share > BULK * 9 / 10,
        "{share} of {BULK} bytes were spliced"
    );
    // They have lost nothing: every byte is checked.
    let deadline = Instant::now() + TIMEOUT;
    while slow.iter().any(|(_, ends)| ends[0].read < ends[1].written) {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}");
        fixture.turn();
        for (_, ends) in &mut slow {
            ends[0].read(0, 400_000);
        }
    }
}

#[test]
fn a_killed_session_is_reset_on_both_sides() {
    let mut fixture = Fixture::new();
    fixture.ends[0].write(0, 100);
    fixture.until("the bytes are through", |f| f.ends[1].read == 100);
    let server = fixture.snapshot.backends[0].as_ref().unwrap().servers[0]
        .live
        .uid;
    fixture
        .relay
        .end_sessions(&ServerSet::new(vec![server + 1]), Cause::Down);
    assert!(!fixture.is_over(), "another server's sessions go on");
    fixture
        .relay
        .end_sessions(&ServerSet::new(vec![server]), Cause::Down);
    fixture.until("both are reset", |b| {
        b.ends
            .iter()
            .all(|end| end.ended == Some(ErrorKind::ConnectionReset))
    });
    assert!(fixture.is_over());
}

#[test]
fn a_stop_notices_the_end_of_a_session_that_came_and_went_in_one_round() {
    let (session, _snapshot, worker_stats, ends) = session(SOCKET_BUFFER);
    in_a_reactor(worker_stats, async |relay, reactor| {
        // The relay runs, and waits for its first session.
        yield_now().await;
        drop(ends);
        session.go(&relay);
        soon(reactor, "the stop hangs", relay.empty()).await;
    });
}

#[test]
fn a_session_with_more_than_its_share_of_data_goes_on_without_an_event() {
    let (session, _snapshot, worker_stats, [mut client, mut server]) = session(512 * 1024);
    in_a_reactor(worker_stats, async |relay, reactor| {
        // Another session is there already: the relay is not told of the first that comes.
        let (other, _others, _, _ends) = self::session(SOCKET_BUFFER);
        other.go(&relay);
        relay.engine.borrow_mut().set_share(1);
        // The server sends first, and all of it is there before the relay has the session. The event for it is
        // taken together with the server's answer, and nothing comes after it.
        let bytes = bytes(1, 0, 100_000);
        server.write_all(&bytes).unwrap();
        session.go_when_answered(&relay).await;
        let (sender, answer) = oneshot::channel();
        std::thread::spawn(move || {
            client.set_read_timeout(Some(TIMEOUT)).unwrap();
            let mut received = vec![0; 100_000];
            let _ = sender.send(client.read_exact(&mut received).map(|()| received));
        });
        let received = soon(reactor, "another thread wakes nobody", answer).await;
        assert!(received.unwrap().expect("the rest is left behind") == bytes);
        drop(server);
    });
}

#[test]
fn timeouts_are_kept_however_busy_the_sessions_are() {
    let keys = "timeout = { client = '300ms', server = '300ms' }";
    let (session, _snapshot, worker_stats, _ends) = session_with(SOCKET_BUFFER, keys);
    in_a_reactor(worker_stats, async |relay, reactor| {
        // Without a share the session never finishes, and no turn is idle.
        relay.engine.borrow_mut().set_share(0);
        session.go(&relay);
        soon(reactor, "its idle timeout is missed", relay.empty()).await;
    });
}

/// Of a socket that workers share, one may make it stop listening, and listen again: the others are not at its end for
/// ever.
#[test]
fn a_listening_socket_that_stops_and_listens_again_is_no_more_readable_than_others() {
    let (_session, _snapshot, worker_stats, _ends) = session(SOCKET_BUFFER);
    in_a_reactor(worker_stats, async |relay, reactor| {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        listener.listen(8).unwrap();
        let watched = Watched::new(&relay, listener.try_clone().unwrap()).unwrap();
        listener.shutdown(Shutdown::Both).unwrap();
        let mut ready = soon(reactor, "an end makes an event", watched.readable())
            .await
            .unwrap();
        ready.clear();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(watched.poll_readable(&mut context).is_pending());
        // At another port: the system has chosen the first.
        listener.listen(8).unwrap();
        let address = listener.local_addr().unwrap();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.connect(&address).unwrap();
        soon(reactor, "nobody is told of a client", watched.readable())
            .await
            .unwrap();
    });
}
