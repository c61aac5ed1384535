//! How sessions end: by order while bulk flows, by a reset, and half-closed ones. Timeouts are tried in
//! `session_timeouts`.

use crate::harness::client::{TIMEOUT, connect, end_of, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_true, pace_until};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::Rlb;
use crate::harness::runtime::Fixture;
use crate::harness::syslog::Syslog;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// From an order to the end of both sides; the second part allows for a busy machine.
const ENDED_WITHIN: Duration = Duration::from_millis(200 + 150);

/// Bytes that must have moved before the session is ended, so that it is spliced.
const MOVED: u64 = 4 << 20;

/// Writes until nothing more is taken.
fn flood(mut stream: &TcpStream) {
    let block = vec![7; 256 << 10];
    while stream.write_all(&block).is_ok() {}
}

/// Fault 2: an operator's order to end a session that moves bulk had no effect as long as it moved. Fault 50:
/// the letters are those of HAProxy 3.5.
#[test]
fn fault_2_an_order_ends_sessions_that_move_bulk() {
    for upload in [false, true] {
        for all in [false, true] {
            ends_bulk(upload, all);
        }
    }
}

fn ends_bulk(upload: bool, all: bool) {
    let (ended, server_ended) = sync_channel(1);
    let peer = Peer::start(Behaviour::script(move |mut stream| {
        if upload {
            drop(std::io::copy(&mut stream, &mut std::io::sink()));
        } else {
            flood(&stream);
        }
        // The test may have failed and ended.
        let _ = ended.send(Instant::now());
    }));
    let log = Syslog::udp();
    let config = Config::new()
        .server_with(peer.address(), "check = false")
        .log(format!("udp:{}", log.address()), "raw");
    let fixture = Fixture::new(config, "admin");
    let mut client = connect(fixture.rlb.address());
    let client = std::thread::spawn(move || {
        if upload {
            flood(&client);
        } else {
            let mut buffer = vec![0; 256 << 10];
            while client.read(&mut buffer).is_ok_and(|count| count > 0) {}
        }
        Instant::now()
    });
    let column = if upload { "bin" } else { "bout" };
    eventually_true(TIMEOUT, "bulk flows", || {
        fixture.rlb.number("s1", column) > MOVED
    });
    let order = if all {
        "shutdown sessions server be/s1".to_owned()
    } else {
        let list = fixture.ask("show sess");
        let id = list.split(':').next().expect("a session").trim().to_owned();
        format!("shutdown session {id}")
    };
    let begun = Instant::now();
    fixture.ask(&order);
    let client_ended = client.join().expect("no panic");
    let server_ended = server_ended.recv_timeout(TIMEOUT).expect("it ends");
    for (side, at) in [("client", client_ended), ("server", server_ended)] {
        let took = at.saturating_duration_since(begun);
        assert!(
            took <= ENDED_WITHIN,
            "{order}, upload {upload}: the {side} after {took:?}"
        );
    }
    log.next_with(" KC ");
    fixture.rlb.stop();
}

/// How late a timeout may be, and what the log and a busy machine add.
const LATE_MAX: Duration = Duration::from_millis(100 + 250);

/// Writes until nothing was taken for a while.
fn push(mut stream: &TcpStream) {
    stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .expect("a write timeout");
    let block = vec![7; 64 << 10];
    while stream.write(&block).is_ok() {}
}

/// Fault 40: a reset behind a half-close, with data that the other side has not taken, ends the session
/// after the time that draining may take, and no later.
#[test]
fn fault_40_a_reset_after_a_half_close_is_noticed() {
    let (sender, streams) = sync_channel(1);
    let peer = Peer::start(Behaviour::script(move |stream| drop(sender.send(stream))));
    let log = Syslog::udp();
    let config = Config::new()
        .server_with(peer.address(), "check = false")
        .log(format!("udp:{}", log.address()), "raw");
    let rlb = Rlb::start(&config);
    let client = connect(rlb.address());
    let mut server = streams.recv_timeout(TIMEOUT).expect("reached");
    server.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    push(&client);
    client.shutdown(Shutdown::Write).expect("a half-close");
    crate::harness::client::reset(client);
    let begun = Instant::now();
    log.next_with(" CD ");
    let took = begun.elapsed();
    assert!(took <= Duration::from_secs(2) + LATE_MAX, "{took:?}");
    // A server that reads again gets the data that rlb had read, then the reset.
    let (bytes, end) = read_to_end(&mut server);
    assert!(!bytes.is_empty());
    assert_eq!(end, end_of(&std::io::ErrorKind::ConnectionReset.into()));
    rlb.stop();
}

/// Fault 7: a client that had sent its request and FIN was ended while the answer was computed. Its own timeout
/// does not count, because rlb does not wait for it.
#[test]
fn fault_7_a_half_closed_session_waits_for_an_answer_that_is_computed() {
    let peer = Peer::start(Behaviour::script(|mut stream| {
        let mut question = Vec::new();
        drop(stream.read_to_end(&mut question));
        pace_until(Instant::now() + Duration::from_millis(1500));
        drop(stream.write_all(b"answer"));
    }));
    let config = Config::new()
        .timeout("client = \"1s\"")
        .timeout("server = \"10s\"")
        .server_with(peer.address(), "check = false");
    let rlb = Rlb::start(&config);
    let mut client = connect(rlb.address());
    client.write_all(b"question").expect("sent");
    client.shutdown(Shutdown::Write).expect("a half-close");
    assert_eq!(read_to_end(&mut client).0, b"answer");
    rlb.stop_after(client);
}
