//! How sessions end: by order while bulk flows, and by timeout while a side does not take its bytes.

use crate::harness::client::{TIMEOUT, connect, end_of, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_true, pace_until};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::process::Process;
use crate::harness::rlb::Rlb;
use crate::harness::runtime::Fixture;
use crate::harness::syslog::Syslog;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
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

/// The actions of the two ends of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The client writes until nothing more is taken, repeatedly.
    ClientPushes,
    ServerPushes,
    /// The client sends FIN.
    ClientEnds,
    ServerEnds,
}

use Step::{ClientEnds, ClientPushes, ServerEnds, ServerPushes};

/// Scenarios, and the side that HAProxy 3.5 reports: the one that it waits for. Neither end reads anything.
const SCENARIOS: [(&[Step], Blamed); 11] = [
    (&[ClientPushes], Blamed::Server),
    (&[ServerPushes], Blamed::Client),
    (&[ClientPushes, ServerPushes], Blamed::First),
    (&[ClientEnds], Blamed::Server),
    (&[ServerEnds], Blamed::Client),
    (&[ClientPushes, ClientEnds], Blamed::Server),
    (&[ServerPushes, ServerEnds], Blamed::Client),
    (&[ClientEnds, ServerPushes], Blamed::Client),
    (&[ServerEnds, ClientPushes], Blamed::Server),
    (&[ClientEnds, ServerPushes, ServerEnds], Blamed::Client),
    (&[ServerEnds, ClientPushes, ClientEnds], Blamed::Server),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blamed {
    Client,
    Server,
    /// It waits for both: the side with the shorter timeout is reported, and the session ends when the other
    /// side has not taken its bytes, either.
    First,
}

/// Both timeouts of a session, in seconds.
const TIMEOUTS: [(u64, u64); 2] = [(2, 3), (3, 2)];

/// How late a timeout may be, plus a margin for the log and a busy machine.
const LATE_MAX: Duration = Duration::from_millis(100 + 250);

/// Fault 39: a side that rlb did not read from was reported for its silence. Fault 7: a half-closed session has
/// the timeouts of an open one.
#[test]
fn fault_39_the_side_that_is_waited_for_is_blamed() {
    let log = Syslog::udp();
    let lines = proxied(&log, |servers| {
        let mut text = format!(
            "[global]\nthreads = 2\n[[log.target]]\nto = \"udp:{}\"\nformat = \"raw\"\n",
            log.address()
        );
        for (case, server) in servers.iter().enumerate() {
            let (client, servers) = TIMEOUTS[case % TIMEOUTS.len()];
            let _ = write!(
                text,
                "[[listen]]\nname = \"l{case}\"\nbind = \"127.0.0.1:0\"\n\
                 timeout = {{ client = \"{client}s\", server = \"{servers}s\" }}\n\
                 servers = [{{ name = \"s\", address = \"{server}\", check = false }}]\n"
            );
        }
        let rlb = Rlb::start(&text);
        let addresses = (0..servers.len()).map(|case| rlb.addresses(&format!("l{case}"))[0]);
        (addresses.collect(), rlb)
    });
    judge(&lines);
}

/// The same with the HAProxy of `HAPROXY_BIN`, to which the table above corresponds.
#[test]
fn fault_39_as_haproxy_says() {
    let Some(program) = std::env::var_os("HAPROXY_BIN") else {
        eprintln!("skipped: HAPROXY_BIN names no HAProxy of 3.0 or later");
        return;
    };
    let log = Syslog::udp();
    let lines = proxied(&log, |servers| {
        let mut text = format!(
            "global\n log {} local0\ndefaults\n mode tcp\n log global\n option tcplog\n timeout connect 5s\n",
            log.address()
        );
        let mut addresses = Vec::new();
        for (case, server) in servers.iter().enumerate() {
            let (client, servers) = TIMEOUTS[case % TIMEOUTS.len()];
            let free = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = free.local_addr().expect("bound");
            addresses.push(address);
            let _ = write!(
                text,
                "listen l{case}\n bind {address}\n timeout client {client}s\n \
                 timeout server {servers}s\n server s {server}\n"
            );
        }
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, text).expect("written");
        let mut command = Command::new(&program);
        command.arg("-db").arg("-f").arg(&file);
        let process = Process::start(command, None, false);
        eventually_true(TIMEOUT, "HAProxy listens", || {
            addresses.iter().all(|address| is_bound(*address))
        });
        (addresses, (process, dir))
    });
    judge(&lines);
}

/// Whether anything listens there; a connection would start a session.
fn is_bound(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_err()
}

/// The log of a case: the letters and the session's length; and how long the actions of its ends took.
type Lines = HashMap<usize, (String, Duration, Duration)>;

/// Runs all cases at once through the proxy that `start` starts for these servers.
fn proxied<T>(log: &Syslog, start: impl FnOnce(&[SocketAddr]) -> (Vec<SocketAddr>, T)) -> Lines {
    let listeners: Vec<TcpListener> = (0..SCENARIOS.len() * TIMEOUTS.len())
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
        .collect();
    let servers: Vec<SocketAddr> = listeners
        .iter()
        .map(|listener| listener.local_addr().expect("bound"))
        .collect();
    let (addresses, _proxy) = start(&servers);
    let mut acted = Vec::new();
    std::thread::scope(|scope| {
        let cases = listeners.iter().zip(&addresses).enumerate();
        let cases = cases.map(|(case, (listener, address))| {
            scope.spawn(move || act(SCENARIOS[case / TIMEOUTS.len()].0, *address, listener))
        });
        let cases: Vec<_> = cases.collect();
        for case in cases {
            acted.push(case.join().expect("no panic"));
        }
    });
    let mut lines = Lines::new();
    eventually_true(TIMEOUT, "all sessions end", || {
        while let Some(line) = log.try_next() {
            if let Some((case, letters, length)) = parse(&line) {
                lines.insert(case, (letters, length, acted[case].2));
            }
        }
        lines.len() == acted.len()
    });
    lines
}

/// Opens a session, exchanges a byte in each direction and does the steps. Returns the two ends, and how long
/// it took.
fn act(
    steps: &[Step],
    proxy: SocketAddr,
    listener: &TcpListener,
) -> (TcpStream, TcpStream, Duration) {
    let begun = Instant::now();
    let mut client = connect(proxy);
    let (mut server, _) = listener.accept().expect("the server is reached");
    client.write_all(b"?").expect("sent");
    server.read_exact(&mut [0]).expect("received");
    server.write_all(b"!").expect("sent");
    client.read_exact(&mut [0]).expect("received");
    for step in steps {
        match step {
            Step::ClientPushes => push(&client),
            Step::ServerPushes => push(&server),
            Step::ClientEnds => client.shutdown(Shutdown::Write).expect("a half-close"),
            Step::ServerEnds => server.shutdown(Shutdown::Write).expect("a half-close"),
        }
    }
    (client, server, begun.elapsed())
}

/// Writes until nothing was taken for a while.
fn push(mut stream: &TcpStream) {
    stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .expect("a write timeout");
    let block = vec![7; 64 << 10];
    while stream.write(&block).is_ok() {}
}

/// Case, letters and length of a tcplog line.
fn parse(line: &str) -> Option<(usize, String, Duration)> {
    let line = line.split_once("]: ").map_or(line, |(_, line)| line);
    let fields: Vec<&str> = line.split(' ').collect();
    let case = fields.get(2)?.strip_prefix('l')?.parse().ok()?;
    let length = fields.get(4)?.rsplit('/').next()?.parse().ok()?;
    let letters = (*fields.get(6)?).to_owned();
    Some((case, letters, Duration::from_millis(length)))
}

#[track_caller]
fn judge(lines: &Lines) {
    for (case, (letters, length, acted)) in lines {
        let (steps, blamed) = SCENARIOS[case / TIMEOUTS.len()];
        let (client, server) = TIMEOUTS[case % TIMEOUTS.len()];
        let (expected, timeout) = match blamed {
            Blamed::Client => ("cD", client),
            Blamed::Server => ("sD", server),
            Blamed::First if client < server => ("cD", server),
            Blamed::First => ("sD", client),
        };
        let what = format!("{steps:?}, client {client} s, server {server} s: {letters} {length:?}");
        assert_eq!(letters, expected, "{what}");
        let timeout = Duration::from_secs(timeout);
        assert!(*length >= timeout, "early: {what}");
        assert!(
            *length <= *acted + timeout + LATE_MAX,
            "late: {what} after {acted:?}"
        );
    }
}

/// Fault 40: after a reset that follows a half-close, with data that the other side has not taken, the session
/// ends within the time of draining.
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
