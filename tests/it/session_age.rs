//! `max-session-age`: when a session ends because of its age.

use crate::harness::client::{End, connect, echo, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, pace_until};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::rlb::STOP_WITHIN;
use crate::harness::runtime::{Fixture, ask};
use crate::harness::syslog::Syslog;
use crate::upgrade::{Next, upgrade};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(10);

/// A session of which nothing moves ends in an orderly way at about its age, one that moves bytes at twice that, and one
/// whose client may wait for an answer too. The age goes on in another process.
#[test]
fn a_session_ends_at_a_quiet_moment_after_its_age() {
    let peer = Peer::start(Behaviour::SpeaksFirst("hello"));
    let silent = Peer::start(Behaviour::Sink);
    let log = Syslog::udp();
    let config = Config::new()
        .backend("max-session-age = \"3s\"")
        .server_with(peer.address(), "check = false")
        .log(format!("udp:{}", log.address()), "raw")
        .stats_at(ports::free())
        .bind(ports::free())
        .table(&format!(
            "[[listen]]\nname = \"owes\"\nbind = \"{}\"\nmax-session-age = \"3s\"\n\
             servers = [{{ name = \"s1\", address = \"{}\", check = false }}]",
            ports::free(),
            silent.address()
        ));
    let fixture = Fixture::new(config, "admin");
    let socket = fixture.socket();
    let mut rlb = fixture.rlb;
    let began = Instant::now();
    let hello = |stream: &mut TcpStream| {
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).expect("the greeting");
    };
    let mut quiet = connect(rlb.address());
    hello(&mut quiet);
    let mut waits = connect(rlb.addresses("owes")[0]);
    waits.write_all(b"a question").expect("sent");
    let mut busy = connect(rlb.address());
    hello(&mut busy);
    assert!(upgrade(&socket).status.success());
    let next = Next::logged(&rlb, 1);
    eventually_eq(WITHIN, &3, || {
        ask(&socket, "show sess").matches(" srv=s1 ").count()
    });
    let talks = std::thread::spawn(move || {
        for turn in 0.. {
            pace_until(began + Duration::from_millis(200) * turn);
            if busy.write_all(b"x").is_err() || busy.read_exact(&mut [0]).is_err() {
                return began.elapsed();
            }
        }
        unreachable!("a range without an end")
    });
    let (bytes, end) = read_to_end(&mut quiet);
    let took = began.elapsed();
    assert_eq!((bytes.len(), end), (0, End::Eof));
    // A tenth sooner or later, and a tick.
    assert!(took >= Duration::from_millis(2_690), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    let said = log.next_with(" fe be/s1 ");
    assert!(said.contains(" PD "), "{said}");
    read_to_end(&mut waits);
    let waited = began.elapsed();
    let talked = talks.join().expect("no panic");
    for took in [waited, talked] {
        assert!(took >= Duration::from_millis(5_390), "{took:?}");
        assert!(took < Duration::from_secs(9), "{took:?}");
    }
    let said = log.next_with(" owes owes/s1 ");
    assert!(said.contains(" PD "), "{said}");
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    drop(waits);
    next.stop();
}

/// A client whose answer comes after the age has it, and then an orderly end.
#[test]
fn a_session_that_waits_for_an_answer_ends_after_it() {
    let peer = Peer::start(Behaviour::script(|mut stream: TcpStream| {
        let begun = Instant::now();
        if stream.read_exact(&mut [0]).is_ok() {
            pace_until(begun + Duration::from_millis(3_600));
            let _ = stream.write_all(b"answer");
            let _ = stream.read(&mut [0]);
        }
    }));
    let config = Config::new()
        .backend("max-session-age = \"3s\"")
        .server_with(peer.address(), "check = false");
    let fixture = Fixture::new(config, "admin");
    let mut stream = connect(fixture.rlb.address());
    stream.write_all(b"?").expect("sent");
    assert_eq!(read_to_end(&mut stream), (b"answer".to_vec(), End::Eof));
    fixture.rlb.stop_after(stream);
}

/// A session that is younger goes on, however quiet it is.
#[test]
fn a_young_session_goes_on() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .backend("max-session-age = \"1h\"")
        .server_with(peer.address(), "check = false");
    let fixture = Fixture::new(config, "admin");
    let mut stream = connect(fixture.rlb.address());
    echo(&mut stream, b"one");
    pace_until(Instant::now() + Duration::from_millis(1_500));
    echo(&mut stream, b"two");
    fixture.rlb.stop_after(stream);
}
