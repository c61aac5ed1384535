//! How sessions end: behind urgent bytes, by a reset, and half-closed ones. Orders are tried in
//! `session_orders`, timeouts in `session_timeouts`.

use crate::harness::client::{End, TIMEOUT, connect, end_of, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{in_some_try, pace_until};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::Rlb;
use crate::harness::syslog::Syslog;
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

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
    in_some_try(Duration::from_secs(2) + LATE_MAX, "the end", || {
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
        // A server that reads again gets the data that rlb had read, then the reset.
        let (bytes, end) = read_to_end(&mut server);
        assert!(!bytes.is_empty());
        assert_eq!(end, end_of(&std::io::ErrorKind::ConnectionReset.into()));
        rlb.stop();
        took
    });
}

/// What is sent before the urgent byte, and behind it: copied, and spliced.
const BEFORE: [usize; 5] = [0, 1, 40_000, 70_000, 4_000_000];
const BEHIND: [usize; 4] = [0, 1, 5_000, 300_000];

/// Sends the urgent byte between the others, and ends.
fn send_urgently(mut stream: &TcpStream, (before, behind): (usize, usize)) {
    stream.write_all(&vec![1; before]).expect("sent");
    let sent = SockRef::from(stream).send_out_of_band(&[2]);
    assert_eq!(sent.expect("sent"), 1);
    stream.write_all(&vec![3; behind]).expect("sent");
    stream.shutdown(Shutdown::Write).expect("a half-close");
}

/// Fault 41: urgent bytes anywhere in bulk, either way: all bytes arrive, and the session ends normally.
#[test]
fn fault_41_urgent_bytes_lose_nothing_and_leave_the_letters() {
    let (sender, streams) = sync_channel(1);
    let peer = Peer::start(Behaviour::script(move |stream| drop(sender.send(stream))));
    let log = Syslog::udp();
    let config = Config::new()
        .server_with(peer.address(), "check = false")
        .log(format!("udp:{}", log.address()), "raw");
    let rlb = Rlb::start(&config);
    for upload in [true, false] {
        for (before, behind) in BEFORE
            .iter()
            .flat_map(|it| BEHIND.map(|behind| (*it, behind)))
        {
            let client = connect(rlb.address());
            let server = streams.recv_timeout(TIMEOUT).expect("reached");
            server.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
            let (source, mut target) = if upload {
                (client, server)
            } else {
                (server, client)
            };
            let writer = std::thread::spawn(move || {
                send_urgently(&source, (before, behind));
                source
            });
            let (bytes, end) = read_to_end(&mut target);
            let case = format!("upload {upload}, {before}, urgent, {behind}");
            assert_eq!(
                (bytes.len(), end),
                (before + 1 + behind, End::Eof),
                "{case}"
            );
            assert_eq!(bytes.iter().position(|it| *it == 2), Some(before), "{case}");
            drop((target, writer.join().expect("no panic")));
            let line = log.next_with(" fe be/s1 ");
            assert!(line.contains(" -- "), "{case}: {line}");
        }
    }
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
