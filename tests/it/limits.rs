//! Limits: maxconn of the process and of a frontend, and the descriptor limit.

use crate::harness::client::{connect, echo, hear, http_get};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true, steadily};
use crate::harness::peer::{Behaviour, Peer, Refuses, Unanswering};
use crate::harness::rlb::{Rlb, STOP_WITHIN, Start};
use crate::harness::runtime;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Connections above the limit wait in the backlog, are not refused, and are served later.
fn excess_waits(config: Config, at_once: u64, event: &str) {
    let peer = Peer::start(Behaviour::Echo);
    let rlb = Rlb::start(&config.server_with(peer.address(), "check = false"));
    let mut served: Vec<TcpStream> = (0..at_once).map(|_| connect(rlb.address())).collect();
    for stream in &mut served {
        echo(stream, b"served");
    }
    let mut waiting: Vec<TcpStream> = (0..3).map(|_| connect(rlb.address())).collect();
    for stream in &mut waiting {
        stream.write_all(b"waited").expect("the kernel takes it");
        stream.set_nonblocking(true).expect("non-blocking");
    }
    steadily(
        Duration::from_millis(300),
        "no more than maxconn sessions",
        || {
            rlb.number("FRONTEND", "scur") == at_once
                && peer.accepted() as u64 == at_once
                && waiting.iter_mut().all(|it| it.read(&mut [0]).is_err())
        },
    );
    drop(served);
    for stream in &mut waiting {
        stream.set_nonblocking(false).expect("blocking");
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).expect("served in the end");
        assert_eq!(&answer, b"waited");
    }
    eventually_eq(STOP_WITHIN, &(at_once + 3), || {
        rlb.number("FRONTEND", "stot")
    });
    // Fault 25: one event names the limit that makes clients wait.
    let events = rlb.events().all();
    let told: Vec<&String> = events.iter().filter(|it| it.contains(event)).collect();
    assert_eq!(told.len(), 1, "{events:#?}");
    rlb.stop_after(waiting);
}

#[test]
fn above_the_frontends_maxconn_clients_wait() {
    let event = "\"maxconn of frontend reached\",\"frontend\":\"fe\",\"maxconn\":4,";
    excess_waits(Config::new().frontend("maxconn = 4"), 4, event);
}

#[test]
fn above_the_process_maxconn_clients_wait() {
    let event = "\"maxconn of process reached\",\"maxconn\":4,";
    excess_waits(Config::new().global("maxconn = 4"), 4, event);
}

#[test]
fn statistics_do_not_count_against_maxconn() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .global("maxconn = 1")
        .server_with(peer.address(), "check = false");
    let rlb = Rlb::start(&config);
    let mut only = connect(rlb.address());
    echo(&mut only, b"the one session");
    assert_eq!(rlb.number("FRONTEND", "scur"), 1);
    rlb.stop_after(only);
}

/// Fault 25: why a session got no server is a label of a metric, and in one event a second.
#[test]
fn fault_25_causes_of_failed_sessions_can_be_told_apart() {
    let refuses = Refuses::start();
    let config = Config::new().server_with(refuses.address(), "check = false");
    let mut rlb = Rlb::start(&config);
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(hear(rlb.address()).0, "");
    }
    eventually_eq(STOP_WITHIN, &20, || rlb.failed_sessions("refused"));
    let told =
        "\"session without a server\",\"backend\":\"be\",\"server\":\"s1\",\"cause\":\"refused\"";
    let events = rlb.events().all();
    let times = events.iter().filter(|it| it.contains(told)).count() as u64;
    assert!(
        (1..=begun.elapsed().as_secs() + 2).contains(&times),
        "{events:#?}"
    );
    assert_eq!(rlb.failed_sessions("no_server"), 0);

    let config = Config::new().server_with(refuses.address(), "disabled = true");
    rlb.reload(&config);
    assert_eq!(hear(rlb.address()).0, "");
    eventually_eq(STOP_WITHIN, &1, || rlb.failed_sessions("no_server"));

    let dark = Unanswering::start();
    let config = Config::new()
        .timeout("connect = \"300ms\"")
        .server_with(dark.address(), "check = false");
    rlb.reload(&config);
    assert_eq!(hear(rlb.address()).0, "");
    eventually_eq(STOP_WITHIN, &1, || rlb.failed_sessions("timeout"));
    assert_eq!(rlb.failed_sessions("refused"), 20);
    rlb.stop();
}

#[test]
fn fault_5_without_descriptors_clients_are_served_or_told_and_the_rest_goes_on() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .backend("check = { type = \"tcp\", interval = \"200ms\" }")
        .server(peer.address());
    let rlb = Rlb::start(&config);
    rlb.wait_status("s1", "UP");
    echo(&mut connect(rlb.address()), b"warm");
    eventually_true(STOP_WITHIN, "the first session ends", || {
        rlb.number("FRONTEND", "scur") == 0
    });
    let failed_before = rlb.number("s1", "chkfail");

    let before = set_descriptor_limit(&rlb, rlb.process.descriptors() as u64 + 12);
    let events_before = rlb.events().all().len();
    let cpu_before = rlb.process.cpu_time();
    let start = Instant::now();
    // Far more than 12 descriptors allow; each session needs two.
    let mut streams: Vec<TcpStream> = (0..60).map(|_| connect(rlb.address())).collect();
    for stream in &mut streams {
        stream.write_all(b"waited").expect("the kernel takes it");
    }
    steadily(
        Duration::from_secs(3),
        "the statistics answer, and nobody is blamed",
        || {
            let asked = Instant::now();
            let (status, _) = http_get(rlb.addresses("stats")[0], "/healthz").expect("answers");
            status == 200
                && asked.elapsed() < Duration::from_millis(500)
                && rlb.status("s1").starts_with("UP")
        },
    );
    let events = rlb.events().all().len() - events_before;
    assert!(
        events as u64 <= start.elapsed().as_secs() + 2,
        "at most one line a second: {:#?}",
        &rlb.events().all()[events_before..]
    );
    let cpu = rlb.process.cpu_time().saturating_sub(cpu_before);
    assert!(
        cpu < Duration::from_millis(1500),
        "a busy loop: {cpu:?} in {:?}",
        start.elapsed()
    );
    assert_eq!(
        rlb.number("s1", "chkfail"),
        failed_before,
        "no check failed by our own shortage"
    );

    // Fault 25: the shortage, and the step that had it.
    let missing = "rlb_shortages_total{step=\"accept\",cause=\"descriptors\"}";
    assert!(rlb.metric(missing) >= 1);
    let told =
        |line: &String| line.contains("\"no free descriptors") && line.contains("LimitNOFILE");
    assert!(rlb.events().all().iter().any(told));

    served_or_told(&mut streams);
    drop(streams);
    let freed = || rlb.number("FRONTEND", "scur") == 0;
    eventually_true(Duration::from_secs(1), "nothing is held", freed);

    set_descriptor_limit(&rlb, before);
    let over = Instant::now();
    for _ in 0..50 {
        echo(&mut connect(rlb.address()), b"good again");
    }
    assert!(over.elapsed() < Duration::from_millis(1_500));
    rlb.stop();
}

/// Faults 35 and 36: under any descriptor limit rlb either reports in one sentence that it is too low and exits
/// with 1, or serves as many sessions as it reports, with checks, page and runtime socket.
#[test]
fn fault_35_what_maxconn_promises_is_kept_under_any_descriptor_limit() {
    raise_own_limit();
    let sizes = [(1, 1), (10, 40)];
    for nofile in [16, 32, 48, 64, 96, 128, 1024, 4096] {
        for (threads, binds) in sizes {
            let promised = promise_is_kept(nofile, threads, binds);
            if nofile <= 64 {
                assert_eq!(promised, None, "{nofile} descriptors are too few");
            }
            if nofile == 4096 || (nofile >= 128 && threads == 1) {
                assert!(promised.is_some_and(|it| it > 4), "{nofile}: {promised:?}");
            }
        }
    }
}

/// The sessions that rlb has reported and served; `None`: it did not start.
fn promise_is_kept(nofile: u64, threads: usize, binds: usize) -> Option<usize> {
    let peer = Peer::start(Behaviour::Echo);
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("rlb.sock");
    let config = (0..binds).fold(Config::new(), |config, _| config.bind("127.0.0.1:0"));
    let config = config
        .backend("check = { type = \"tcp\", interval = \"200ms\" }")
        .server(peer.address())
        .table(&format!("[runtime-api]\nsocket = \"{}\"", socket.display()))
        .to_string()
        .replace("threads = 2", &format!("threads = {threads}"));
    let rlb = match Start::new(&config).nofile(nofile).ready_or_ended() {
        Ok(rlb) => rlb,
        Err((status, events)) => {
            assert_eq!(status.code(), Some(1), "{events:#?}");
            assert_eq!(events.len(), 1, "one sentence: {events:#?}");
            assert!(events[0].contains("descriptors is too low"), "{events:#?}");
            return None;
        }
    };
    let ready = rlb.events().with("\"message\":\"ready\"");
    let (_, maxconn) = ready[0]
        .split_once("\"maxconn\":")
        .expect("it says how many");
    let digits = maxconn.trim_end_matches(|it: char| !it.is_ascii_digit());
    let maxconn: usize = digits.parse().expect("a number");
    rlb.wait_status("s1", "UP");
    let addresses = rlb.addresses("fe");
    let client = |number: usize| connect(addresses[number % addresses.len()]);
    let mut served: Vec<TcpStream> = (0..maxconn).map(client).collect();
    for stream in &mut served {
        echo(stream, b"served");
    }
    // Each accept queue holds as many as `maxconn`.
    let waiting: Vec<TcpStream> = (0..maxconn.min(3)).map(client).collect();
    let failed = rlb.number("s1", "chkfail");
    steadily(Duration::from_millis(400), "all goes on", || {
        let asked = Instant::now();
        let page = rlb.http_get("/").is_ok_and(|(status, _)| status == 200);
        let info = runtime::ask(&socket, "show info");
        page && info.contains("Maxconn: ")
            && asked.elapsed() < Duration::from_millis(500)
            && rlb.status("s1").starts_with("UP")
    });
    assert_eq!(rlb.number("s1", "chkfail"), failed);
    let short = rlb.events().with("no free descriptors");
    assert!(
        short.is_empty(),
        "{nofile}, {threads} × {binds}: {short:#?}"
    );
    rlb.stop_after((served, waiting));
    Some(maxconn)
}

/// Both ends of all sessions are in this process.
fn raise_own_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(Resource::Nofile, raised).expect("up to the hard limit");
}

/// Each client was served or rejected by now, and some were rejected.
fn served_or_told(streams: &mut [TcpStream]) {
    let mut told = 0;
    for stream in streams {
        stream.set_nonblocking(true).expect("non-blocking");
        let mut answer = [0; 6];
        match stream.read(&mut answer) {
            Ok(0) => told += 1,
            Ok(_) => assert_eq!(&answer, b"waited"),
            Err(error) => panic!("neither served nor told: {error}"),
        }
    }
    assert!(told > 0, "descriptors for all: the test tests nothing");
}

/// Sets the soft descriptor limit of a running rlb; returns the one before.
fn set_descriptor_limit(rlb: &Rlb, limit: u64) -> u64 {
    let id = i32::try_from(rlb.process.id()).expect("a process id is a pid_t");
    let pid = Pid::from_raw(id).expect("not 0");
    let text = std::fs::read_to_string(format!("/proc/{id}/limits")).expect("the process lives");
    let maximum = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
    let new = Rlimit {
        current: Some(limit),
        maximum,
    };
    let old = prlimit(Some(pid), Resource::Nofile, new).expect("our own child");
    old.current.expect("a finite limit")
}
