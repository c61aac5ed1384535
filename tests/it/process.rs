//! The process: exit codes, signals, a second start.

use crate::harness::client::{End, TIMEOUT, connect, echo, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::eventually_true;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::{Rlb, STOP_WITHIN, Start, command};
use crate::harness::syslog::Syslog;
use nix::sys::signal::Signal;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A balancer with one established session.
fn with_a_session(global: &str) -> (Rlb, Peer, TcpStream) {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .global(global)
        .server_with(peer.address(), "check = false");
    let rlb = Rlb::start(&config);
    let mut stream = connect(rlb.address());
    echo(&mut stream, b"before the signal");
    (rlb, peer, stream)
}

#[track_caller]
fn refuses_new_clients(rlb: &Rlb) {
    let address = rlb.address();
    eventually_true(STOP_WITHIN, "new connections are refused", || {
        TcpStream::connect_timeout(&address, TIMEOUT).is_err()
    });
}

#[test]
fn a_graceful_stop_lets_sessions_go_on() {
    let (mut rlb, _peer, mut stream) = with_a_session("hard-stop-after = \"60s\"");
    rlb.signal(Signal::SIGTERM);
    refuses_new_clients(&rlb);
    eventually_true(STOP_WITHIN, "systemd is told", || {
        rlb.notified("STOPPING=1")
    });
    echo(&mut stream, b"after the signal");
    assert!(rlb.process.ended().is_none());
    drop(stream);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
}

#[test]
fn hard_stop_after_ends_what_is_left() {
    let peer = Peer::start(Behaviour::Echo);
    let log = Syslog::udp();
    let config = Config::new()
        .global("hard-stop-after = \"2s\"")
        .server_with(peer.address(), "check = false")
        .log(format!("udp:{}", log.address()), "raw");
    let mut rlb = Rlb::start(&config);
    let mut stream = connect(rlb.address());
    echo(&mut stream, b"before the signal");
    let start = Instant::now();
    rlb.signal(Signal::SIGTERM);
    assert_eq!(read_to_end(&mut stream).1, End::Reset);
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(3),
        "{took:?}"
    );
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    // The last line is written although the process ends.
    let line = log.next_with(" fe be/s1 ");
    assert!(line.contains(" KC "), "{line}");
}

#[test]
fn a_second_term_ends_at_once() {
    let (mut rlb, _peer, mut stream) = with_a_session("hard-stop-after = \"60s\"");
    rlb.signal(Signal::SIGTERM);
    refuses_new_clients(&rlb);
    echo(&mut stream, b"still there");
    rlb.signal(Signal::SIGTERM);
    assert!(rlb.process.wait(STOP_WITHIN).code().is_some());
    assert_ne!(read_to_end(&mut stream).1, End::Silence);
}

#[test]
fn int_ends_at_once() {
    let (mut rlb, _peer, mut stream) = with_a_session("hard-stop-after = \"60s\"");
    rlb.signal(Signal::SIGINT);
    let start = Instant::now();
    rlb.process.wait(STOP_WITHIN);
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert_ne!(read_to_end(&mut stream).1, End::Silence);
}

#[test]
fn usr1_is_a_soft_stop() {
    let (mut rlb, _peer, mut stream) = with_a_session("");
    rlb.signal(Signal::SIGUSR1);
    refuses_new_clients(&rlb);
    echo(&mut stream, b"after the signal");
    drop(stream);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
}

#[test]
fn without_sessions_a_stop_is_immediate() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .global("hard-stop-after = \"60s\"")
        .server_with(
            peer.address(),
            "check = { type = \"tcp\", interval = \"1h\" }",
        );
    let mut rlb = Rlb::start(&config);
    // An open connection to the statistics does not delay a stop.
    let _page = connect(rlb.addresses("stats")[0]);
    let start = Instant::now();
    rlb.signal(Signal::SIGTERM);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_second_start_on_the_same_ports_is_refused() {
    let peer = Peer::start(Behaviour::Echo);
    let first = Rlb::start(&Config::new().server_with(peer.address(), "check = false"));
    let again = Config::new()
        .bind(first.address())
        .server_with(peer.address(), "check = false");
    let (status, stderr) = Start::new(&again).exits();
    assert_eq!(status.code(), Some(1), "{stderr:#?}");
    let address = first.address().to_string();
    assert!(
        stderr.iter().any(|line| line.contains(&address)),
        "says where: {stderr:#?}"
    );
    for _ in 0..4 {
        echo(&mut connect(first.address()), b"the first one serves on");
    }
    first.stop();
}

#[test]
fn exit_codes_tell_kinds_of_failure_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a UTF-8 path").to_owned()
    };
    let address = "127.0.0.1:1".parse().expect("an address");
    let good = write("good.toml", &Config::new().server(address).to_string());
    let bad = write("bad.toml", "[[frontend]]\nnam = \"fe\"\n");
    assert_eq!(command(&["check", &good]).status.code(), Some(0));
    assert_eq!(command(&["check", &bad]).status.code(), Some(78));
    assert_eq!(command(&["run", "--config", &bad]).status.code(), Some(78));
    // Each takes the file as the other does.
    assert_eq!(
        command(&["check", "--config", &good]).status.code(),
        Some(0)
    );
    assert_eq!(command(&["check", "-c", &bad]).status.code(), Some(78));
    assert_eq!(command(&["run", &bad]).status.code(), Some(78));
    let both = command(&["check", &good, "--config", &good]);
    assert_eq!(both.status.code(), Some(2));
    assert_eq!(command(&["no-such-command"]).status.code(), Some(2));
    assert_eq!(
        command(&["check", "/nonexistent/rlb.toml"]).status.code(),
        Some(78)
    );
}

#[test]
fn check_reports_every_problem_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("bad.toml");
    let text = "[[frontend]]\nname = \"fe\"\nbnd = [\"*:70000\"]\ndefault-backend = \"nowhere\"\n";
    std::fs::write(&path, text).expect("written");
    let output = command(&["check", path.to_str().expect("a UTF-8 path")]);
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        said.contains("bad.toml:3:1"),
        "file, line and column: {said}"
    );
    assert!(said.contains("bind"), "did you mean: {said}");
}

#[test]
fn the_health_page_answers() {
    let peer = Peer::start(Behaviour::Echo);
    let rlb = Rlb::start(&Config::new().server(peer.address()));
    assert_eq!(rlb.http_get("/healthz").expect("answers").0, 200);
    // As in HAProxy the uri is a prefix: every other path is the page.
    let (status, page) = rlb.http_get("/no-such-page").expect("answers");
    assert!(status == 200 && page.contains("id=\"be/s1\""), "{page}");
    rlb.stop();
}
