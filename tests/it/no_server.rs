//! What becomes of clients when no server is usable: an end, a reset, or a hold until one is.

use crate::harness::client::{End, connect, echo, end_at, half_close, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true, steadily};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::runtime::{Fixture, ask};
use crate::harness::syslog::Syslog;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(10);

/// A backend whose one server is in maintenance.
fn disabled(peer: &Peer, log: &Syslog) -> Config {
    Config::new()
        .server_with(peer.address(), "check = false, disabled = true")
        .log(format!("udp:{}", log.address()), "raw")
}

/// The times of a line: waiting, connecting, all.
fn times(line: &str) -> [i64; 3] {
    let times = line.split(' ').find_map(|field| {
        let times: Result<Vec<i64>, _> = field.split('/').map(str::parse).collect();
        times.ok().filter(|times| times.len() == 3)
    });
    let times = times.expect("the times");
    times.try_into().expect("three")
}

/// A reset tells that no server is usable, and nothing else.
#[test]
fn a_client_whose_server_refuses_gets_an_end() {
    let peer = Peer::start(Behaviour::Echo);
    let address = peer.address();
    let _port = peer.stop();
    let config = Config::new()
        .server_with(address, "check = false")
        .backend("no-server = \"reset\"\nretries = 0");
    let fixture = Fixture::new(config, "admin");
    assert_eq!(end_at(fixture.rlb.address()), End::Eof);
    fixture.rlb.stop();
}

#[test]
fn a_client_gets_an_end_or_a_reset() {
    let peer = Peer::start(Behaviour::Echo);
    let log = Syslog::udp();
    for (line, end) in [
        ("no-server = \"close\"", End::Eof),
        ("no-server = \"reset\"", End::Reset),
    ] {
        let fixture = Fixture::new(disabled(&peer, &log).backend(line), "admin");
        assert_eq!(end_at(fixture.rlb.address()), end);
        let said = log.next_with(" fe be/<NOSRV> ");
        assert!(said.contains(" SC "), "{said}");
        fixture.rlb.stop();
    }
}

/// Held clients are served as soon as a server is usable, with what they had sent. The others go as they come, and end
/// when the time is over.
#[test]
fn clients_are_held_until_a_server_is_usable() {
    let peer = Peer::start(Behaviour::Echo);
    let log = Syslog::udp();
    let config = disabled(&peer, &log)
        .backend("no-server = \"reset\"")
        .timeout("no-server = \"20s\"")
        // The time does not count.
        .timeout("connect = \"50ms\"");
    let mut fixture = Fixture::new(config, "admin");
    let socket = fixture.socket();
    let address = fixture.rlb.address();
    let mut held: Vec<TcpStream> = (0..3).map(|_| connect(address)).collect();
    for stream in &mut held {
        stream.write_all(b"early").expect("sent");
    }
    half_close(&held[1]);
    let gone = connect(address);
    drop(gone);
    let said = log.next_with(" fe be/<NOSRV> ");
    assert!(said.contains(" CC "), "{said}");
    eventually_eq(WITHIN, &3, || fixture.rlb.number("BACKEND", "scur"));

    // That time is waiting, as in a queue.
    steadily(Duration::from_millis(100), "they are held", || {
        fixture.rlb.number("BACKEND", "scur") == 3
    });
    assert_eq!(ask(&socket, "enable server be/s1").trim(), "");
    half_close(&held[0]);
    half_close(&held[2]);
    for stream in &mut held {
        assert_eq!(read_to_end(stream), (b"early".to_vec(), End::Eof));
        let said = log.next_with(" fe be/s1 ");
        assert!(said.contains(" -- "), "{said}");
        let [wait, reached, total] = times(&said);
        assert!(wait >= 100 && wait + reached <= total, "{said}");
    }
    eventually_true(WITHIN, "the longest time", || {
        fixture.rlb.number("BACKEND", "qtime_max") >= 100
    });

    assert_eq!(ask(&socket, "disable server be/s1").trim(), "");
    let short = fixture.config.to_string();
    let short = short.replace("no-server = \"20s\"", "no-server = \"300ms\"");
    fixture.rlb.reload(&short);
    let began = Instant::now();
    assert_eq!(end_at(address), End::Reset);
    assert!(began.elapsed() >= Duration::from_millis(300));
    let said = log.next_with(" fe be/<NOSRV> ");
    assert!(said.contains(" SC "));
    let [waited, reached, _] = times(&said);
    assert!(waited >= 300 && reached == -1, "{said}");
    assert_eq!(ask(&socket, "enable server be/s1").trim(), "");
    echo(&mut connect(address), b"served");
    fixture.rlb.stop();
}
