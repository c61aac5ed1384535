//! Idle timeouts: never early, at most 0.2 s late, and what counts as activity.

use crate::harness::client::{End, connect, echo, half_close, read_to_end, timed};
use crate::harness::config::Config;
use crate::harness::eventually::pace_until;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::Rlb;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(1);

/// How late a timeout may be.
const LATE_MAX: Duration = Duration::from_millis(200);

/// The part of the reader and the scheduler in a measured time.
const SLACK: Duration = Duration::from_millis(100);

fn rlb(entries: &[&str], behaviour: Behaviour) -> (Rlb, Peer) {
    let peer = Peer::start(behaviour);
    let config = entries
        .iter()
        .fold(Config::new(), |config, entry| config.timeout(entry))
        .server_with(peer.address(), "check = false");
    (Rlb::start(&config), peer)
}

#[track_caller]
fn punctual(took: Duration, timeout: Duration) {
    assert!(took >= timeout, "early: {took:?}");
    assert!(took <= timeout + LATE_MAX + SLACK, "late: {took:?}");
}

#[test]
fn an_idle_session_ends_at_its_timeout_by_an_orderly_end() {
    for entries in [
        ["client = \"1s\"", "server = \"1h\""],
        ["client = \"1h\"", "server = \"1s\""],
    ] {
        let (rlb, _peer) = rlb(&entries, Behaviour::Echo);
        // Several at once, so that none is alone in its worker.
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut stream = connect(rlb.address());
                    let last = Instant::now();
                    echo(&mut stream, b"the last activity");
                    let (_, end) = read_to_end(&mut stream);
                    assert_eq!(end, End::Eof);
                    punctual(last.elapsed(), TIMEOUT);
                });
            }
        });
        rlb.stop();
    }
}

#[test]
fn activity_puts_the_timeout_off() {
    let (rlb, _peer) = rlb(&["client = \"1s\"", "server = \"1s\""], Behaviour::Echo);
    let mut stream = connect(rlb.address());
    let start = Instant::now();
    for step in 1..=8 {
        pace_until(start + Duration::from_millis(400) * step);
        echo(&mut stream, b"tick");
    }
    let last = Instant::now();
    echo(&mut stream, b"the last activity");
    assert_eq!(read_to_end(&mut stream).1, End::Eof);
    punctual(last.elapsed(), TIMEOUT);
    rlb.stop();
}

#[test]
fn a_half_closed_session_has_a_timeout_of_its_own() {
    let entries = [
        "client = \"1h\"",
        "server = \"1h\"",
        "client-fin = \"1s\"",
        "server-fin = \"1s\"",
    ];
    let (rlb, _peer) = rlb(&entries, Behaviour::Sink);
    let mut other = connect(rlb.address());
    half_close(&other);
    // The server ends when the client has sent FIN; no timeout applies.
    assert_eq!(read_to_end(&mut other).1, End::Eof);
    rlb.stop();

    let (rlb, _peer) = self::rlb(&entries, Behaviour::HalfCloses);
    let mut stream = connect(rlb.address());
    let ((_, end), took) = timed(|| read_to_end(&mut stream));
    assert_eq!(end, End::Eof);
    assert!(
        took < TIMEOUT,
        "the server's end is passed on at once: {took:?}"
    );
    let start = Instant::now();
    crate::harness::eventually::eventually_eq(Duration::from_secs(5), &0, || {
        rlb.number("FRONTEND", "scur")
    });
    assert!(
        start.elapsed() <= TIMEOUT + LATE_MAX + SLACK,
        "{:?}",
        start.elapsed()
    );
    rlb.stop();
}

#[test]
fn timeout_0_is_none() {
    let (rlb, _peer) = rlb(&["client = \"0s\"", "server = \"0s\""], Behaviour::Echo);
    let mut stream = connect(rlb.address());
    echo(&mut stream, b"before");
    pace_until(Instant::now() + Duration::from_secs(3));
    echo(&mut stream, b"after");
    rlb.stop_after(stream);
}
