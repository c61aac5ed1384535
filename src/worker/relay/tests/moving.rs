//! Sessions that go from one relay to another. The property test of the relay moves them too.

use super::super::moved::{DetachFrom, Detached, SideFacts};
use super::*;
use crate::state::{BackendId, Server, SnapshotBuilder};
use crate::worker::moving::{ArrivingSession, Leaving, LeavingSession, ServerNames};
use crate::worker::session_stats::Notes;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;

/// The beginning of a round.
const FROM: DetachFrom = DetachFrom {
    round: 1,
    pass: 1,
    place: 0,
};

/// Takes all sessions out that can be moved.
fn detached(relay: &Relay) -> Vec<Detached> {
    let part = relay.detach(FROM, usize::MAX);
    assert_eq!(part.next, None);
    part.sessions
}

impl Fixture {
    fn later(&self, seconds: u64) {
        let mut engine = self.relay.engine.borrow_mut();
        engine.pass(Duration::from_secs(seconds));
    }

    /// Its session goes on in a new relay.
    pub(super) fn move_session(&mut self) {
        let mut sessions = detached(&self.relay);
        let Some(session) = sessions.pop() else {
            // It has ended, or it drains.
            return;
        };
        let session = self.written_and_read(&LeavingSession::relayed(session));
        let relay = Relay::new(Rc::clone(&self.worker_stats)).unwrap();
        relay.attach(session);
        self.relay.decided(1, Vec::new(), 1);
        assert!(self.is_over(), "all were taken out");
        self.relay = relay;
    }

    /// A session as it comes to another process.
    fn written_and_read(&self, session: &LeavingSession) -> Detached {
        let (mut lines, mut bytes) = (String::new(), Vec::new());
        session.write(&ServerNames::default(), (&mut lines, &mut bytes));
        let copy = |socket: BorrowedFd<'_>| socket.try_clone_to_owned().unwrap();
        let (line, mut rest) = (lines.trim_end(), &bytes[..]);
        let sockets = session.sockets().map(copy);
        let read = ArrivingSession::parse(line, &mut rest, sockets, (&self.snapshot, 0));
        assert!(rest.is_empty());
        let id = SessionId::new(7, (0, 1));
        match read.unwrap().leaving(id, &self.worker_stats) {
            Leaving::Relayed(session) => session,
            Leaving::Unserved(_) => panic!("it has a server"),
        }
    }

    /// Its session is taken out and comes back.
    pub(super) fn refuse_session(&mut self) {
        let from = DetachFrom {
            round: 2,
            pass: 1,
            place: 0,
        };
        let sessions = self.relay.detach(from, usize::MAX).sessions;
        // Not refused, so that it can be taken out again.
        self.relay.decided(sessions.len(), sessions, 0);
    }
}

#[test]
fn what_is_in_pipes_and_in_memory_goes_along() {
    const BULK: usize = 3_000_000;
    for _ in 0..4 {
        let mut fixture = Fixture::with_buffers(512 * 1024);
        while fixture.ends[0].written < BULK as u64 {
            let before = fixture.ends[0].written;
            fixture.ends[0].write(0, 300_000);
            fixture.turn();
            if fixture.ends[0].written == before {
                break;
            }
        }
        let pending = fixture.relay.engine.borrow().pending();
        assert_eq!(pending, [false, true], "the server reads nothing");
        fixture.move_session();
        fixture.act(&Act::End(0));
        fixture.move_session();
        fixture.until("the end has come", |f| f.ends[1].ended.is_some());
        assert_eq!(fixture.ends[1].read, fixture.ends[0].written);
        fixture.ends[1].write(1, 1000);
        fixture.move_session();
        fixture.act(&Act::End(1));
        fixture.until("the session has ended", Fixture::is_over);
        let written = fixture.ends[0].written;
        assert_eq!(fixture.counted(), [written, 1000]);
    }
}

/// A session that has been silent is not silent for the first time in the other relay.
#[test]
fn the_time_of_silence_goes_along() {
    let keys = "timeout = { client = '60s', server = '60s' }";
    let mut fixture = Fixture::of(Kind::Tcp, SOCKET_BUFFER, keys);
    fixture.turn();
    fixture.later(50);
    fixture.move_session();
    fixture.later(9);
    fixture.turn();
    assert!(!fixture.is_over(), "a second is left");
    fixture.later(2);
    fixture.until("it is timed out", Fixture::is_over);
}

/// A session that is about to end does so where it is.
#[test]
fn a_session_that_drains_stays() {
    let mut fixture = Fixture::new();
    while fixture.relay.engine.borrow().pending() != [false, true] {
        fixture.ends[0].write(0, 60_000);
        fixture.turn();
    }
    let stream = fixture.ends[0].stream.take().unwrap();
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
    fixture.turn();
    assert!(detached(&fixture.relay).is_empty());
    fixture.until("it is reset", |f| f.ends[1].ended.is_some());
}

#[test]
fn a_worker_waits_for_sessions_that_may_come_back() {
    let (session, _snapshot, worker_stats, ends) = session(SOCKET_BUFFER);
    in_a_reactor(worker_stats, async |relay, reactor| {
        session.go(&relay);
        let sessions = detached(&relay);
        let empty = {
            let relay = Rc::clone(&relay);
            spawned(reactor, async move { relay.empty().await })
        };
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(empty.is_empty(), "it is away");
        relay.decided(sessions.len(), sessions, 1);
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(empty.is_empty(), "it is back");
        drop(ends);
        soon(reactor, "it has ended", empty).await.unwrap();
        // Another is moved for good.
        let (session, _snapshot, _, _ends) = self::session(SOCKET_BUFFER);
        session.go(&relay);
        let sessions = detached(&relay);
        assert_eq!(sessions.len(), 1);
        relay.decided(1, Vec::new(), 1);
        soon(reactor, "nothing is left", relay.empty()).await;
    });
}

/// Otherwise it would be offered again and again, and pause each time.
#[test]
fn a_session_that_was_refused_is_offered_again_in_another_round_only() {
    let fixture = Fixture::new();
    let sessions = detached(&fixture.relay);
    fixture.relay.decided(1, sessions, 1);
    assert!(detached(&fixture.relay).is_empty());
    assert!(!fixture.is_over(), "it goes on");
    let next = DetachFrom {
        round: 2,
        pass: 1,
        place: 0,
    };
    assert_eq!(fixture.relay.detach(next, 1).sessions.len(), 1);
}

/// The end of one side's data was read in the last read that the session had in this turn: the FIN is still to be
/// sent, and no event will tell of that.
#[test]
fn a_fin_that_is_to_be_passed_on_is_passed_on_elsewhere() {
    let mut fixture = Fixture::new();
    fixture.turn();
    fixture.relay.engine.borrow_mut().set_share(1);
    fixture.act(&Act::End(0));
    fixture.turn();
    fixture.move_session();
    fixture.until("the end has come", |f| f.ends[1].ended.is_some());
}

#[test]
fn facts_are_the_same_after_they_were_written_and_read() {
    let none = SideFacts::of_letters("");
    let one_each = [
        SideFacts { unix: true, ..none },
        SideFacts {
            ended: true,
            ..none
        },
        SideFacts { shut: true, ..none },
        SideFacts {
            writable: true,
            ..none
        },
        SideFacts {
            urgent: true,
            ..none
        },
        SideFacts {
            urgent_inline: true,
            ..none
        },
        SideFacts {
            nodelay: true,
            ..none
        },
        SideFacts {
            kept_alive: true,
            ..none
        },
        SideFacts {
            spoke: true,
            ..none
        },
    ];
    let mut letters = String::new();
    for facts in one_each {
        assert_eq!(SideFacts::of_letters(&facts.letters()), facts);
        assert_eq!(facts.letters().len(), 1);
        letters += &facts.letters();
    }
    assert_eq!(SideFacts::of_letters(&letters).letters(), letters);
    assert_eq!(SideFacts::of_letters("?Z"), none);
}

/// What is logged and counted of a session is the same wherever it ends.
#[test]
fn what_is_logged_goes_along() {
    let fixture = Fixture::new();
    let mut session = detached(&fixture.relay).pop().unwrap();
    session.stats.peer = Some("[2001:db8::1]:4711".parse().unwrap());
    session.stats.accepted -= 3_600_000_000_000;
    session.stats.connect = NonZeroU64::new(1_234_000);
    session.stats.bytes_in = 5;
    session.stats.bytes_out = u64::MAX;
    session.stats.count_attempt(2, true);
    session
        .stats
        .count_wait(crate::worker::server_connect::QueueStay {
            time: Some(Duration::from_millis(3)),
            for_one_server: false,
            position: 7,
            sessions: 0,
        });
    session.stats.delays_mut().handshake = 30;
    session.stats.beside.as_mut().unwrap().notes = Notes {
        unique_id: Some("7F000001:1".into()),
        log_suffix: Some("a\tb\n=".into()),
    };
    let session = LeavingSession::relayed(session);
    let read = fixture.written_and_read(&session);
    let (left, came) = (&session.stats(), read.stats);
    assert_eq!(came.peer, left.peer);
    assert_eq!(came.accepted_at(), left.accepted_at());
    let moved = came.began().saturating_duration_since(left.began());
    assert!(moved < Duration::from_millis(100), "{moved:?}");
    let counts = |it: &SessionStats| (it.bytes_in, it.bytes_out, it.delays());
    assert_eq!(counts(&came), counts(left));
    assert_eq!(came.notes(), left.notes());
    assert_eq!(came.connect, left.connect);
    // Both have it for a moment.
    let frontend = fixture.snapshot.frontends[0].as_ref().unwrap();
    assert_eq!(frontend.live.active.get(), 2);
    drop(session);
    assert_eq!(frontend.live.active.get(), 1);
}

/// Its worker was told to end the sessions of the server before it had this one.
#[test]
fn what_ends_all_sessions_of_a_server_ends_those_on_their_way() {
    let fixture = Fixture::new();
    let session = LeavingSession::relayed(detached(&fixture.relay).pop().unwrap());
    let (mut text, mut bytes) = (String::new(), Vec::new());
    session.write(&ServerNames::default(), (&mut text, &mut bytes));
    let parse = |snapshot: &Snapshot| {
        let copy = |socket: BorrowedFd<'_>| socket.try_clone_to_owned().unwrap();
        let sockets = session.sockets().map(copy);
        ArrivingSession::parse(text.trim_end(), &mut &bytes[..], sockets, (snapshot, 0)).unwrap()
    };
    let arriving = parse(&fixture.snapshot);
    let live = &fixture.snapshot.backends[0].as_ref().unwrap().servers[0].live;
    let stats = &session.stats();
    let established = stats.began() + stats.connect().unwrap();
    let before = established.checked_sub(Duration::from_secs(1)).unwrap();
    live.end_sessions(before, Cause::Up);
    assert_eq!(arriving.end(), None, "it came after that");
    live.end_sessions(Instant::now(), Cause::Killed);
    assert_eq!(arriving.end(), Some(Cause::Killed));
    assert_eq!(parse(&fixture.snapshot).end(), Some(Cause::Killed));
}

/// An order to end the sessions of the server came when this one was on its way, and the other process did not take it.
#[test]
fn what_ends_all_sessions_of_a_server_ends_those_that_come_back() {
    let mut fixture = Fixture::new();
    fixture.turn();
    fixture.refuse_session();
    fixture.turn();
    assert!(!fixture.is_over(), "nobody has ended it");
    let sessions = detached(&fixture.relay);
    let backend = fixture.snapshot.backends[0].clone().unwrap();
    backend.servers[0]
        .live
        .end_sessions(Instant::now(), Cause::Killed);
    fixture.relay.decided(1, sessions, 1);
    fixture.until("it has ended", Fixture::is_over);
}

/// A server's sessions stayed in the old process once an operator had given it another name.
#[test]
fn sessions_find_a_server_that_was_renamed() {
    let fixture = Fixture::new();
    let session = LeavingSession::relayed(detached(&fixture.relay).pop().unwrap());
    let renamed = |snapshot: &Snapshot, to: &str| {
        let mut builder = SnapshotBuilder::new(Arc::new(snapshot.clone()));
        let id = BackendId::first(0);
        let mut server = Server::clone(builder.server(id, 0).unwrap());
        server.name_in_file = Some(Arc::clone(&server.spec.name));
        let spec = Arc::make_mut(&mut server.spec);
        spec.name = to.into();
        server.added = Some(Arc::new(spec.clone()));
        builder.replace(id, 0, server, Instant::now());
        builder.finish().unwrap()
    };
    let names = ServerNames::of(&renamed(&fixture.snapshot, "x"));
    let (mut line, mut bytes) = (String::new(), Vec::new());
    session.write(&names, (&mut line, &mut bytes));
    let parse = |snapshot: &Snapshot| {
        let copy = |socket: BorrowedFd<'_>| socket.try_clone_to_owned().unwrap();
        let sockets = session.sockets().map(copy);
        let read = ArrivingSession::parse(line.trim_end(), &mut &bytes[..], sockets, (snapshot, 0));
        read.map(|it| it.server_name().to_owned())
    };
    let (old, new) = ("s".to_owned(), "x".to_owned());
    assert_eq!(parse(&renamed(&fixture.snapshot, "x")), Some(new));
    assert_eq!(
        parse(&fixture.snapshot),
        Some(old),
        "it has the file's name here"
    );
    assert_eq!(parse(&renamed(&fixture.snapshot, "y")), None);
}

/// What a process cannot go on with stays where it is, and takes nothing from the others.
#[test]
fn a_line_that_cannot_be_followed_is_refused() {
    let fixture = Fixture::new();
    let session = LeavingSession::relayed(detached(&fixture.relay).pop().unwrap());
    let (mut line, mut bytes) = (String::new(), Vec::new());
    session.write(&ServerNames::default(), (&mut line, &mut bytes));
    let line = line.trim_end();
    let parse = |line: &str, mut bytes: &[u8]| {
        let copy = |socket: BorrowedFd<'_>| socket.try_clone_to_owned().unwrap();
        let sockets = session.sockets().map(copy);
        let read = ArrivingSession::parse(line, &mut bytes, sockets, (&fixture.snapshot, 0));
        (read.is_some(), bytes.len())
    };
    assert_eq!(parse(line, b"other"), (true, 5));
    assert_eq!(parse(&format!("{line}\tlater=1"), b""), (true, 0));
    let three = line.replace("client_unsent=0", "client_unsent=3");
    assert_eq!(parse(&three, b"other"), (true, 2));
    for (part, other, left) in [
        ("frontend=l", "frontend=gone", 5),
        ("backend=l", "backend=gone", 5),
        ("server=s", "server=gone", 5),
        ("in=0", "in=x", 5),
        ("server_silent_ms", "server_quiet_ms", 5),
        ("in=0", "in=0\tneeds=tls", 5),
        ("client_unsent=0", "client_unsent=6", 0),
        ("client_unsent=0", "later_unsent=0", 0),
    ] {
        let changed = line.replace(part, other);
        assert_ne!(changed, line, "{part}");
        assert_eq!(parse(&changed, b"other"), (false, left), "{other}");
    }
}
