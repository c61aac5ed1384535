//! The access log: HAProxy's tcplog line byte for byte, its letters, syslog's headers, and a log that nobody
//! reads.

use crate::harness::client::{End, TIMEOUT, connect, echo, hear, read_to_end, reset};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually, eventually_true, pace_until};
use crate::harness::peer::{self, Behaviour, Peer};
use crate::harness::rlb::{Rlb, STOP_WITHIN, Start};
use crate::harness::runtime::Fixture;
use crate::harness::syslog::Syslog;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The fields of a tcplog line.
#[derive(Debug)]
struct TcpLog {
    client: String,
    date: String,
    frontend: String,
    server: String,
    timers: [i64; 3],
    bytes: u64,
    letters: String,
    counters: Vec<String>,
    queues: String,
}

impl TcpLog {
    #[track_caller]
    fn parse(line: &str) -> Self {
        let fields: Vec<&str> = line.trim_end().split(' ').collect();
        let [
            client,
            date,
            frontend,
            server,
            timers,
            bytes,
            letters,
            counters,
            queues,
        ] = fields.as_slice()
        else {
            panic!("not a tcplog line: {line:?}");
        };
        let timers: Vec<i64> = timers
            .split('/')
            .map(|it| it.parse().expect("a timer in ms"))
            .collect();
        Self {
            client: (*client).to_owned(),
            date: (*date).to_owned(),
            frontend: (*frontend).to_owned(),
            server: (*server).to_owned(),
            timers: timers.try_into().expect("Tw/Tc/Tt"),
            bytes: bytes.parse().expect("bytes"),
            letters: (*letters).to_owned(),
            counters: counters.split('/').map(str::to_owned).collect(),
            queues: (*queues).to_owned(),
        }
    }
}

fn logged(peer: &Peer, format: &str) -> (Rlb, Syslog) {
    let log = Syslog::udp();
    let config = Config::new()
        .server_with(peer.address(), "check = false")
        .log(format!("udp:{}", log.address()), format);
    (Rlb::start(&config), log)
}

#[test]
fn a_session_is_one_tcplog_line() {
    let peer = Peer::start(Behaviour::Says("0123456789"));
    let (rlb, log) = logged(&peer, "raw");
    let mut stream = connect(rlb.address());
    let client = stream.local_addr().expect("connected").to_string();
    assert_eq!(read_to_end(&mut stream), (b"0123456789".to_vec(), End::Eof));
    drop(stream);
    let line = log.next_with(" fe be/s1 ");
    let parsed = TcpLog::parse(&line);
    assert_eq!(parsed.client, client);
    // [22/Nov/2026:06:51:57.997]
    let date: Vec<char> = parsed.date.chars().collect();
    assert_eq!(date.len(), 26, "{line}");
    for (index, expected) in [
        (0, '['),
        (3, '/'),
        (7, '/'),
        (12, ':'),
        (21, '.'),
        (25, ']'),
    ] {
        assert_eq!(date[index], expected, "{line}");
    }
    assert_eq!(
        (parsed.frontend.as_str(), parsed.server.as_str()),
        ("fe", "be/s1")
    );
    assert!(
        parsed
            .timers
            .iter()
            .all(|&timer| (0..2000).contains(&timer)),
        "{line}"
    );
    assert_eq!((parsed.bytes, parsed.letters.as_str()), (10, "--"));
    assert_eq!(parsed.counters, ["1", "1", "0", "0", "0"], "{line}");
    assert_eq!(parsed.queues, "0/0");
    rlb.stop();
}

#[test]
fn the_letters_say_who_ended_a_session() {
    let peer = Peer::start(Behaviour::Echo);
    let (rlb, log) = logged(&peer, "raw");
    let mut stream = connect(rlb.address());
    echo(&mut stream, b"a client that resets");
    reset(stream);
    let line = log.next_with(" fe be/s1 ");
    assert_eq!(TcpLog::parse(&line).letters, "CD", "{line}");
    rlb.stop();

    let peer = Peer::start(Behaviour::Resets);
    let (rlb, log) = logged(&peer, "raw");
    let mut stream = connect(rlb.address());
    stream.write_all(b"a server that resets").expect("sent");
    assert_eq!(read_to_end(&mut stream).1, End::Reset);
    let line = log.next_with(" fe be/s1 ");
    assert_eq!(TcpLog::parse(&line).letters, "SD", "{line}");
    rlb.stop();
}

#[test]
fn the_letters_say_which_side_was_silent() {
    for (timeout, letters) in [("client", "cD"), ("server", "sD")] {
        let peer = Peer::start(Behaviour::AcceptsThenStalls);
        let log = Syslog::udp();
        let other = if timeout == "client" {
            "server"
        } else {
            "client"
        };
        let config = Config::new()
            .timeout(&format!("{timeout} = \"500ms\""))
            .timeout(&format!("{other} = \"1h\""))
            .server_with(peer.address(), "check = false")
            .log(format!("udp:{}", log.address()), "raw");
        let rlb = Rlb::start(&config);
        let _silent = connect(rlb.address());
        let line = log.next_with(" fe be/s1 ");
        assert_eq!(TcpLog::parse(&line).letters, letters, "{line}");
        rlb.stop();
    }
}

#[test]
fn syslog_lines_are_framed_as_haproxys() {
    let peer = Peer::start(Behaviour::Says("hello"));
    let (rlb, log) = logged(&peer, "rfc3164");
    hear(rlb.address());
    let line = log.next_with(" fe be/s1 ");
    // <134>Nov 22 06:51:57 rlb[7]: line
    let rest = line
        .strip_prefix("<134>")
        .unwrap_or_else(|| panic!("{line}"));
    let head = format!(" rlb[{}]: 127.0.0.1:", rlb.process.id());
    assert_eq!(rest.find(&head), Some("Nov 22 06:51:57".len()), "{line}");
    assert!("JFMASOND".contains(&rest[..1]), "a month's name: {line}");
    rlb.stop();

    let (rlb, log) = logged(&peer, "rfc5424");
    hear(rlb.address());
    let line = log.next_with(" fe be/s1 ");
    // <134>1 2026-11-22T06:51:57.996+00:00 host rlb 7 - - line
    let fields: Vec<&str> = line.splitn(8, ' ').collect();
    assert_eq!(fields[0], "<134>1", "{line}");
    assert_eq!(&fields[1][10..11], "T", "{line}");
    assert!(!fields[2].is_empty(), "a host name: {line}");
    assert_eq!(
        fields[3..7],
        ["rlb", rlb.process.id().to_string().as_str(), "-", "-"],
        "{line}"
    );
    assert!(fields[7].starts_with("127.0.0.1:"), "{line}");
    rlb.stop();
}

#[test]
fn lines_go_to_unix_sockets_files_and_standard_output_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("log");
    let file = dir.path().join("access.log");
    let log = Syslog::unix(&socket);
    let peer = Peer::start(Behaviour::Says("hello"));
    let config = Config::new()
        .server_with(peer.address(), "check = false")
        .log(format!("unix:{}", socket.display()), "rfc3164")
        .log(format!("file:{}", file.display()), "raw")
        .log("stdout", "raw");
    let rlb = Rlb::start(&config);
    hear(rlb.address());
    assert!(log.next_with(" fe be/s1 ").starts_with("<134>"));
    let line = rlb.process.stdout.wait_for(" fe be/s1 ");
    TcpLog::parse(&line);
    let written = eventually(TIMEOUT, "a line in the file", || {
        std::fs::read_to_string(&file)
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
    assert_eq!(written.trim_end(), line);
    rlb.stop();
}

#[test]
fn quiet_frontends_leave_lines_out() {
    let peer = Peer::start(Behaviour::Echo);
    let log = Syslog::udp();
    let config = Config::new()
        .frontend("dontlognull = true")
        .server_with(peer.address(), "check = false")
        .log(format!("udp:{}", log.address()), "raw");
    let rlb = Rlb::start(&config);
    drop(connect(rlb.address()));
    eventually_true(TIMEOUT, "the probe's session ends", || {
        rlb.number("FRONTEND", "stot") == 1 && rlb.number("FRONTEND", "scur") == 0
    });
    let mut stream = connect(rlb.address());
    echo(&mut stream, b"12345");
    drop(stream);
    // The first line is that of the session with bytes, although the other session was first.
    assert_eq!(TcpLog::parse(&log.next_with(" fe ")).bytes, 5);
    rlb.stop();
}

#[test]
fn a_log_pipe_that_nobody_reads_changes_nothing() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let peer = Peer::start(Behaviour::Says("hello"));
    let config = Config::new()
        .server_with(peer.address(), "check = false")
        .log("stdout", "raw");
    let mut rlb = Start::new(&config).stdout(Stdio::from(writer)).ready();
    let mut standing = connect(rlb.address());
    standing.read_exact(&mut [0; 5]).expect("greeted");
    // A pipe holds 64 KB, a line is about 110 bytes.
    for round in 0..1500 {
        assert_eq!(
            hear(rlb.address()),
            ("hello".to_owned(), End::Eof),
            "session {round}"
        );
    }
    assert_eq!(rlb.http_get("/healthz").expect("answers").0, 200);
    drop(standing);
    rlb.signal(Signal::SIGTERM);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    drop(reader);
}

#[test]
fn a_server_that_ends_before_the_client_is_a_normal_end() {
    let (peer, done) = (
        Peer::start(Behaviour::HalfCloses),
        b"sent after the server's end",
    );
    let (rlb, log) = logged(&peer, "raw");
    let mut stream = connect(rlb.address());
    assert_eq!(read_to_end(&mut stream), (Vec::new(), End::Eof));
    stream.write_all(done).expect("the other half stands");
    eventually_true(TIMEOUT, "the bytes arrive", || {
        peer::unacknowledged(&stream) == 0
    });
    drop(stream);
    let line = log.next_with(" fe be/s1 ");
    assert_eq!(TcpLog::parse(&line).letters, "--", "{line}");
    rlb.stop();
}

#[test]
fn a_reset_after_the_servers_own_end_is_no_abort() {
    // The server answers and closes; later bytes of the client cause a reset. HAProxy writes `--` and counts
    // nothing.
    let peer = Peer::start(Behaviour::Says("the whole answer"));
    let (rlb, log) = logged(&peer, "raw");
    let mut stream = connect(rlb.address());
    assert_eq!(
        read_to_end(&mut stream),
        (b"the whole answer".to_vec(), End::Eof)
    );
    stream.write_all(b"goodbye").expect("the other half stands");
    // The client stays for a while, so that the reset comes first.
    pace_until(Instant::now() + Duration::from_millis(100));
    drop(stream);
    let line = log.next_with(" fe be/s1 ");
    assert_eq!(TcpLog::parse(&line).letters, "--", "{line}");
    let counted = ["srv_abrt", "cli_abrt", "eresp"].map(|column| rlb.number("s1", column));
    assert_eq!(counted, [0, 0, 0], "srv_abrt, cli_abrt, eresp");
    rlb.stop();
}

/// An event, as JSON.
#[track_caller]
fn event(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// Fault 29: what a server's events say in fields; maintenance that was asked for is no error.
#[test]
fn fault_29_events_of_servers_have_fields() {
    let [first, second] = [(); 2].map(|()| Peer::start(Behaviour::Echo));
    let config = Config::new()
        .backend("check = { interval = \"100ms\", fall = 1 }")
        .server(first.address())
        .server(second.address());
    let fixture = Fixture::new(config, "admin");
    fixture.rlb.wait_status("s1", "UP");
    assert_eq!(fixture.ask("set server be/s2 state maint"), "\n");
    let line = fixture
        .rlb
        .events()
        .wait_for("Server be/s2 is going DOWN for maintenance");
    let said = event(&line);
    assert_eq!(said["level"], "INFO", "{line}");
    let fields = ["backend", "server", "status", "reason"].map(|name| said[name].as_str());
    let expected = ["be", "s2", "MAINT", "runtime command"].map(Some);
    assert_eq!(fields, expected, "{line}");
    assert_eq!(said["active_servers"], 1, "{line}");

    first.stop();
    let line = fixture
        .rlb
        .events()
        .wait_for("Server be/s1 is DOWN, reason: Layer4");
    let said = event(&line);
    assert_eq!(said["level"], "ERROR", "{line}");
    let fields = ["server", "status", "reason", "check_status"].map(|name| said[name].as_str());
    let expected = ["s1", "DOWN", "Layer4 connection problem", "L4CON"].map(Some);
    assert_eq!(fields, expected, "{line}");
    // Fault 49: the configuration does not say `tcp`.
    assert_eq!(
        said["check_info"],
        "ECONNREFUSED returned by OS (Connection refused)"
    );
    for number in [
        "check_duration_ms",
        "lasted_ms",
        "sessions",
        "active_servers",
    ] {
        assert!(said[number].is_u64(), "{number}: {line}");
    }
    let line = fixture
        .rlb
        .events()
        .wait_for("backend be has no server available!");
    assert_eq!(event(&line)["backend"], "be", "{line}");
    fixture.rlb.stop();
}

/// Fault 29: a start that fails says so in one event, however much is wrong.
#[test]
fn fault_29_a_failed_start_is_one_event() {
    let holders = [(); 10].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let mut config = Config::new().server_with("127.0.0.1:9", "check = false");
    for holder in &holders {
        config = config.bind(holder.local_addr().expect("bound"));
    }
    let (status, lines) = Start::new(&config).exits();
    assert_eq!(status.code(), Some(1));
    let errors: Vec<_> = lines.iter().map(|line| event(line)).collect();
    let errors: Vec<_> = errors.iter().filter(|it| it["level"] == "ERROR").collect();
    let [said] = errors.as_slice() else {
        panic!("one event: {lines:#?}");
    };
    let text = said["message"].as_str().expect("a message");
    assert!(
        !text.contains('\n') && text.ends_with("and 2 more"),
        "{text}"
    );
    assert_eq!(text.matches("cannot listen on").count(), 8, "{text}");

    // What is wrong in the file is told in JSON too.
    let (status, lines) = Start::new(&"[global]\nthraeds = 1\n").exits();
    assert_eq!(status.code(), Some(78));
    let said: Vec<_> = lines.iter().map(|line| event(line)).collect();
    assert!(
        said.iter()
            .any(|it| it["code"] == "unknown-key" && it["level"] == "ERROR"),
        "{lines:#?}"
    );
}

/// Fault 49: with `log-health-checks` the reason stands in the check's line and in no other, and
/// the words of `option tcp-check` where it is asked for.
#[test]
fn fault_49_a_logged_check_is_told_once() {
    for (kind, words) in [
        ("", ""),
        (
            "type = \"tcp\", ",
            " at initial connection step of tcp-check",
        ),
    ] {
        let peer = Peer::start(Behaviour::Echo);
        let log = Syslog::udp();
        let config = Config::new()
            .backend("log-health-checks = true")
            .backend(&format!(
                "check = {{ {kind}interval = \"100ms\", fall = 1, rise = 1 }}"
            ))
            .server(peer.address())
            .log(format!("udp:{}", log.address()), "raw");
        let rlb = Rlb::start(&config);
        rlb.wait_status("s1", "UP");
        let port = peer.stop();
        let line = log.next_with("Health check for server be/s1 failed");
        let info = format!("\"ECONNREFUSED returned by OS (Connection refused){words}\"");
        assert!(line.contains(&info), "{line}");
        let line = log.next_with("Server be/s1 is DOWN");
        assert!(line.starts_with("Server be/s1 is DOWN. 0 active"), "{line}");
        let _peer = Peer::start_on(port, Behaviour::Echo);
        log.next_with("Health check for server be/s1 succeeded");
        let line = log.next_with("Server be/s1 is UP");
        assert!(line.starts_with("Server be/s1 is UP. 1 active"), "{line}");
        rlb.stop();
    }
}
