//! Sessions and their workers.

use crate::harness::client::{connect, echo};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, steadily};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use std::net::TcpStream;
use std::time::Duration;

/// Sessions of each worker, from /metrics.
fn sessions(rlb: &Rlb) -> Vec<usize> {
    let (_, text) = rlb.http_get("/metrics").expect("an answer");
    let samples = text.lines().filter_map(|line| {
        let sample = line.strip_prefix("rlb_worker_sessions{worker=\"")?;
        sample.rsplit_once(' ')?.1.parse().ok()
    });
    samples.collect()
}

/// Opens a session and waits until it is served.
fn session(rlb: &Rlb) -> TcpStream {
    let mut stream = connect(rlb.address());
    echo(&mut stream, b"served");
    stream
}

#[test]
fn long_sessions_are_spread_within_a_fifth_after_one_worker_has_lost_its_own() {
    let peer = Peer::start(Behaviour::Echo);
    // It has two workers.
    let rlb = Rlb::start(&Config::new().server_with(peer.address(), "check = false"));
    let mut streams = [Vec::new(), Vec::new()];
    for _ in 0..48 {
        let before = sessions(&rlb);
        let stream = session(&rlb);
        let after = sessions(&rlb);
        assert_eq!(after.len(), 2, "one figure a worker: {after:?}");
        streams[usize::from(after[1] > before[1])].push(stream);
    }
    let [first, kept] = streams;
    assert!(kept.len().abs_diff(24) <= 4, "{} of 48", kept.len());
    drop(first);
    eventually_eq(STOP_WITHIN, &vec![0, kept.len()], || sessions(&rlb));
    // By chance half of the new ones would go to each worker, with 12 and 44 in the end.
    let more: Vec<TcpStream> = (kept.len()..64).map(|_| session(&rlb)).collect();
    let now = sessions(&rlb);
    assert!(now.iter().all(|it| it.abs_diff(32) <= 6), "{now:?}");
    drop((kept, more));
    eventually_eq(STOP_WITHIN, &vec![0, 0], || sessions(&rlb));
    rlb.stop();
}

#[test]
fn a_worker_that_was_busy_sleeps_when_its_sessions_do() {
    let peer = Peer::start(Behaviour::Echo);
    let rlb = Rlb::start(&Config::new().server(peer.address()));
    let mut client = session(&rlb);
    // Long enough for the worker to begin busy polling.
    for _ in 0..2_000 {
        echo(&mut client, b"x");
    }
    let before = rlb.process.cpu_time();
    steadily(Duration::from_secs(1), "it sleeps", || {
        rlb.process.cpu_time().saturating_sub(before) <= Duration::from_millis(100)
    });
    rlb.stop_after(client);
}
