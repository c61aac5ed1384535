//! Which sessions end because their servers have too many: those that are quiet, and no more than may.

use super::*;
use crate::worker::surplus::Surplus;

/// A little more than a session must have been silent.
const QUIET: Duration = Duration::from_millis(1_100);

fn uid(snapshot: &Snapshot) -> u64 {
    snapshot.backends[0].as_ref().unwrap().servers[0].live.uid
}

impl Fixture {
    /// How many sessions end of those that may.
    fn end_surplus(&self) -> u32 {
        let server = uid(&self.snapshot);
        let surplus = Surplus::new(vec![(server, 10)]);
        self.relay.end_surplus(&surplus);
        10 - surplus.take_back(server)
    }

    fn wait_quietly(&self) {
        self.relay.engine.borrow_mut().pass(QUIET);
    }
}

#[test]
fn a_quiet_session_gets_an_orderly_end() {
    let mut fixture = Fixture::new();
    fixture.ends[1].write(1, 100);
    fixture.until("the bytes are through", |f| f.ends[0].read == 100);
    assert_eq!(fixture.end_surplus(), 0, "a byte has just come");
    fixture.wait_quietly();
    assert_eq!(fixture.end_surplus(), 1);
    assert!(fixture.is_over());
    let ended = |f: &Fixture| f.ends.iter().all(|end| end.ended.is_some());
    fixture.until("both are told", ended);
    for end in &fixture.ends {
        assert_eq!(end.ended, Some(ErrorKind::UnexpectedEof));
    }
}

#[test]
fn a_session_whose_client_waits_for_an_answer_goes_on() {
    let mut fixture = Fixture::new();
    fixture.ends[0].write(0, 100);
    fixture.until("the question is through", |f| f.ends[1].read == 100);
    fixture.wait_quietly();
    assert_eq!(fixture.end_surplus(), 0);
    fixture.ends[1].write(1, 100);
    fixture.until("the answer is through", |f| f.ends[0].read == 100);
    assert_eq!(fixture.end_surplus(), 0);
    fixture.wait_quietly();
    assert_eq!(fixture.end_surplus(), 1);
}

/// The relay has not seen the question yet.
#[test]
fn a_question_that_has_just_come_is_not_lost() {
    let mut fixture = Fixture::new();
    fixture.turn();
    fixture.wait_quietly();
    fixture.ends[0].write(0, 100);
    assert_eq!(fixture.end_surplus(), 0);
    fixture.until("the question is through", |f| f.ends[1].read == 100);
}

#[test]
fn a_session_that_has_bytes_to_deliver_or_is_half_over_goes_on() {
    let mut fixture = Fixture::new();
    let deadline = Instant::now() + TIMEOUT;
    while !fixture.relay.engine.borrow().pending()[0] {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}");
        fixture.ends[1].write(1, 100_000);
        fixture.turn();
    }
    fixture.wait_quietly();
    assert_eq!(fixture.end_surplus(), 0);
    let mut fixture = Fixture::new();
    fixture.act(&Act::End(1));
    fixture.until("the end is passed on", |f| f.ends[0].ended.is_some());
    fixture.wait_quietly();
    assert_eq!(fixture.end_surplus(), 0);
    assert!(!fixture.is_over());
}

/// Two sessions, of servers of which one has too many.
#[test]
fn sessions_of_other_servers_go_on() {
    let fixture = Fixture::new();
    let (session, other, _, _ends) = session(SOCKET_BUFFER);
    session.go(&fixture.relay);
    fixture.wait_quietly();
    let (one, other) = (uid(&fixture.snapshot), uid(&other));
    for (may, ends) in [
        ((one, 0), 0),
        ((one + other, 9), 0),
        ((other, 9), 1),
        ((other, 9), 0),
    ] {
        let surplus = Surplus::new(vec![may]);
        fixture.relay.end_surplus(&surplus);
        assert_eq!(may.1 - surplus.take_back(may.0), ends);
    }
    assert!(!fixture.is_over());
    assert_eq!(fixture.end_surplus(), 1);
}

#[test]
fn a_stop_notices_that_the_last_session_has_ended() {
    let (session, snapshot, worker_stats, _ends) = session(SOCKET_BUFFER);
    in_a_reactor(worker_stats, async |relay, reactor| {
        session.go_when_answered(&relay).await;
        relay.engine.borrow_mut().pass(QUIET);
        let waits = Rc::clone(&relay);
        let empty = spawned(reactor, async move { waits.empty().await });
        yield_now().await;
        relay.end_surplus(&Surplus::new(vec![(uid(&snapshot), 1)]));
        soon(reactor, "the stop hangs", empty).await.unwrap();
    });
}
