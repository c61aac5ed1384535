//! Health in the statistics and the log, and its effect on traffic.

use crate::harness::client::{End, TIMEOUT, connect, echo, hear, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually, eventually_eq, eventually_true};
use crate::harness::peer::{Behaviour, Peer, Refuses, Unanswering};
use crate::harness::rlb::Rlb;
use crate::harness::syslog::Syslog;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// HAProxy's text for a refused check.
const REFUSED: &str =
    "ECONNREFUSED returned by OS (Connection refused) at initial connection step of tcp-check";

/// Frequent checks, so that a test need not wait long.
const OFTEN: &str = "check = { type = \"tcp\", interval = \"100ms\" }";

/// Every status of `server` that polling can see, in order, until `last`.
fn statuses_until(rlb: &Rlb, server: &str, last: &str) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    eventually_true(Duration::from_secs(15), last, || {
        let status = rlb.status(server);
        if seen.last() != Some(&status) {
            seen.push(status);
        }
        seen.last().is_some_and(|status| status == last)
    });
    seen
}

#[test]
fn a_server_goes_down_and_comes_up_by_haproxys_steps() {
    let peer = Peer::start(Behaviour::Sink);
    let config = Config::new()
        .backend("check = { type = \"tcp\", interval = \"400ms\", rise = 2, fall = 3 }")
        .server(peer.address());
    let rlb = Rlb::start(&config);
    rlb.wait_status("s1", "UP");
    let csv = rlb.csv();
    let row = csv.row("be", "s1");
    assert_eq!(row.text("check_status").trim_start_matches("* "), "L4OK");
    assert_eq!(row.text("check_desc"), "Layer4 check passed");
    assert_eq!((row.number("check_rise"), row.number("check_fall")), (2, 3));
    assert_eq!(row.number("check_health"), 4);
    assert_eq!((row.number("chkfail"), row.number("chkdown")), (0, 0));
    assert_eq!((row.number("act"), row.number("bck")), (1, 0));

    let port = peer.stop();
    assert_eq!(
        statuses_until(&rlb, "s1", "DOWN"),
        ["UP", "UP 2/3", "UP 1/3", "DOWN"]
    );
    let csv = rlb.csv();
    let row = csv.row("be", "s1");
    assert_eq!(row.text("check_status").trim_start_matches("* "), "L4CON");
    assert_eq!(row.text("check_desc"), "Layer4 connection problem");
    assert_eq!(row.text("last_chk"), REFUSED);
    assert_eq!((row.number("chkfail"), row.number("chkdown")), (3, 1));
    assert_eq!(row.number("check_health"), 0);
    assert_eq!(csv.row("be", "BACKEND").status(), "DOWN");
    assert_eq!(csv.row("be", "BACKEND").number("act"), 0);
    assert_eq!(csv.row("be", "BACKEND").number("chkdown"), 1);

    let _peer = Peer::start_on(port, Behaviour::Sink);
    assert_eq!(statuses_until(&rlb, "s1", "UP"), ["DOWN", "DOWN 1/2", "UP"]);
    let csv = rlb.csv();
    assert_eq!(
        csv.row("be", "s1").number("chkfail"),
        3,
        "does not grow while DOWN"
    );
    assert_eq!(csv.row("be", "BACKEND").status(), "UP");
    rlb.stop();
}

#[test]
fn at_the_start_one_failure_is_enough() {
    let refuses = Refuses::start();
    let config = Config::new()
        .backend("check = { type = \"tcp\", interval = \"1h\", timeout = \"1s\" }")
        .server(refuses.address());
    let rlb = Rlb::start(&config);
    // With an interval of an hour only the first check can have caused it.
    rlb.wait_status("s1", "DOWN");
    assert_eq!(rlb.number("s1", "chkfail"), 1);
    rlb.stop();
}

#[test]
fn a_check_that_is_not_answered_is_a_timeout() {
    let dark = Unanswering::start();
    let config = Config::new()
        .backend("check = { type = \"tcp\", interval = \"2s\", timeout = \"300ms\" }")
        .server(dark.address());
    let rlb = Rlb::start(&config);
    rlb.wait_status("s1", "DOWN");
    let csv = rlb.csv();
    let row = csv.row("be", "s1");
    assert_eq!(row.text("check_status").trim_start_matches("* "), "L4TOUT");
    assert_eq!(row.text("check_desc"), "Layer4 timeout");
    assert!(
        row.text("last_chk")
            .ends_with("at initial connection step of tcp-check")
    );
    let took = row.number("check_duration");
    assert!((300..400).contains(&took), "{took} ms");
    rlb.stop();
}

#[test]
fn unchecked_and_disabled_servers_say_so() {
    let peer = Peer::start(Behaviour::Says("hello"));
    let config = Config::new()
        .backend(OFTEN)
        .server_with(peer.address(), "check = false")
        .server_with(peer.address(), "disabled = true");
    let rlb = Rlb::start(&config);
    assert_eq!(rlb.status("s1"), "no check");
    assert_eq!(rlb.status("s2"), "MAINT");
    for _ in 0..4 {
        assert_eq!(hear(rlb.address()).0, "hello");
    }
    eventually_eq(TIMEOUT, &(4, 0), || {
        (rlb.number("s1", "stot"), rlb.number("s2", "stot"))
    });
    let csv = rlb.csv();
    for server in ["s1", "s2"] {
        assert_eq!(
            csv.row("be", server).text("check_status"),
            "",
            "{server} is not checked"
        );
    }
    rlb.stop();
}

#[test]
fn a_down_server_gets_nothing_from_the_next_connection_on() {
    let (served, other) = (
        Peer::start(Behaviour::Says("s1")),
        Peer::start(Behaviour::Says("s2")),
    );
    // It is checked at another port, so the server itself still answers: only its state keeps connections away,
    // and its counter counts only traffic.
    let checked = Peer::start(Behaviour::Sink);
    let check = format!(
        "check = {{ type = \"tcp\", interval = \"100ms\", port = {} }}",
        checked.address().port()
    );
    let config = Config::new()
        .server_with(served.address(), &check)
        .server_with(other.address(), "");
    let rlb = Rlb::start(&config);
    rlb.wait_status("s1", "UP");
    assert_eq!(
        [hear(rlb.address()).0, hear(rlb.address()).0]
            .iter()
            .filter(|it| *it == "s1")
            .count(),
        1
    );
    let port = checked.stop();
    rlb.wait_status("s1", "DOWN");
    let before = served.accepted();
    for _ in 0..50 {
        assert_eq!(hear(rlb.address()).0, "s2");
    }
    assert_eq!(served.accepted(), before, "a DOWN server was asked");
    let _checked = Peer::start_on(port, Behaviour::Sink);
    rlb.wait_status("s1", "UP");
    let names: Vec<String> = (0..10).map(|_| hear(rlb.address()).0).collect();
    assert_eq!(
        names.iter().filter(|name| *name == "s1").count(),
        5,
        "{names:?}"
    );
    rlb.stop();
}

#[test]
fn sessions_of_a_server_that_goes_down_live_on_by_default() {
    let mut peer = Peer::start(Behaviour::Echo);
    let rlb = Rlb::start(&Config::new().backend(OFTEN).server(peer.address()));
    rlb.wait_status("s1", "UP");
    let mut stream = connect(rlb.address());
    echo(&mut stream, b"before");
    peer.stop_listening();
    rlb.wait_status("s1", "DOWN");
    echo(&mut stream, b"after");
    rlb.stop_after(stream);
}

/// Two servers that echo, with frequent checks.
struct Pair {
    rlb: Rlb,
    first: Option<Peer>,
    second: Option<Peer>,
    log: Syslog,
}

fn pair(first_keys: &str, second_keys: &str, backend: &str) -> Pair {
    let peers = [
        Peer::start(Behaviour::SpeaksFirst("1")),
        Peer::start(Behaviour::SpeaksFirst("2")),
    ];
    let log = Syslog::udp();
    let config = Config::new()
        .backend(OFTEN)
        .backend(backend)
        .server_with(peers[0].address(), first_keys)
        .server_with(peers[1].address(), second_keys)
        .log(format!("udp:{}", log.address()), "raw");
    let rlb = Rlb::start(&config);
    for server in ["s1", "s2"] {
        rlb.wait_status(server, "UP");
    }
    let [first, second] = peers;
    Pair {
        rlb,
        first: Some(first),
        second: Some(second),
        log,
    }
}

/// The name that the server of a new session sends.
fn reached(address: SocketAddr) -> (std::net::TcpStream, u8) {
    let mut stream = connect(address);
    let mut name = [0];
    std::io::Read::read_exact(&mut stream, &mut name).expect("greeted");
    (stream, name[0])
}

#[test]
fn on_marked_down_ends_the_sessions_of_that_server() {
    let keys = "on-marked-down = \"shutdown-sessions\"";
    let mut pair = pair(keys, keys, "");
    let mut sessions: Vec<_> = (0..4).map(|_| reached(pair.rlb.address())).collect();
    pair.first.as_mut().expect("running").stop_listening();
    pair.rlb.wait_status("s1", "DOWN");
    for (stream, name) in &mut sessions {
        if *name == b'1' {
            assert_eq!(read_to_end(stream).1, End::Reset);
            let line = pair.log.next_with(" fe be/s1 ");
            assert!(line.contains(" DC "), "{line}");
        } else {
            echo(stream, b"the other server's sessions live on");
        }
    }
    pair.rlb.stop_after(sessions);
}

#[test]
fn a_backup_serves_only_when_nobody_else_can() {
    let mut pair = pair("", "backup = true", "");
    for _ in 0..4 {
        assert_eq!(reached(pair.rlb.address()).1, b'1');
    }
    let csv = pair.rlb.csv();
    assert_eq!(
        (
            csv.row("be", "s2").number("act"),
            csv.row("be", "s2").number("bck")
        ),
        (0, 1)
    );
    let backend = csv.row("be", "BACKEND");
    assert_eq!((backend.number("act"), backend.number("bck")), (1, 1));
    let port = pair.first.take().expect("running").stop();
    pair.rlb.wait_status("s1", "DOWN");
    assert_eq!(pair.rlb.csv().row("be", "BACKEND").status(), "UP");
    for _ in 0..4 {
        assert_eq!(reached(pair.rlb.address()).1, b'2');
    }
    let _back = Peer::start_on(port, Behaviour::SpeaksFirst("1"));
    pair.rlb.wait_status("s1", "UP");
    for _ in 0..4 {
        assert_eq!(reached(pair.rlb.address()).1, b'1');
    }
    pair.rlb.stop();
}

#[test]
fn on_marked_up_ends_the_sessions_of_the_backups() {
    let mut pair = pair(
        "on-marked-up = \"shutdown-backup-sessions\"",
        "backup = true",
        "",
    );
    let port = pair.first.take().expect("running").stop();
    pair.rlb.wait_status("s1", "DOWN");
    let (mut stream, name) = reached(pair.rlb.address());
    assert_eq!(name, b'2');
    let _back = Peer::start_on(port, Behaviour::SpeaksFirst("1"));
    pair.rlb.wait_status("s1", "UP");
    assert_eq!(read_to_end(&mut stream).1, End::Reset);
    let line = pair.log.next_with(" fe be/s2 ");
    assert!(line.contains(" UC "), "{line}");
    drop(pair.second.take());
    pair.rlb.stop();
}

#[test]
fn the_first_backup_takes_all_unless_allbackups() {
    for (allbackups, expected) in [("", [0, 6, 0]), ("allbackups = true", [0, 3, 3])] {
        let refuses = Refuses::start();
        let backups = [
            Peer::start(Behaviour::Says("b1")),
            Peer::start(Behaviour::Says("b2")),
        ];
        let config = Config::new()
            .backend(allbackups)
            .server_with(refuses.address(), OFTEN)
            .server_with(backups[0].address(), "backup = true")
            .server_with(backups[1].address(), "backup = true");
        let rlb = Rlb::start(&config);
        rlb.wait_status("s1", "DOWN");
        for _ in 0..6 {
            assert_ne!(hear(rlb.address()).0, "");
        }
        eventually_eq(TIMEOUT, &expected, || {
            ["s1", "s2", "s3"].map(|server| rlb.number(server, "stot"))
        });
        rlb.stop();
    }
}

#[test]
fn state_changes_are_logged_in_haproxys_words() {
    let mut pair = pair("", "", "");
    let port = pair.first.take().expect("running").stop();
    let line = pair.log.next_with("Server be/s1 is DOWN");
    let (head, tail) = line.split_once(", check duration: ").expect("a duration");
    assert_eq!(
        head,
        format!("Server be/s1 is DOWN, reason: Layer4 connection problem, info: \"{REFUSED}\"")
    );
    let rest = tail.trim_start_matches(|character: char| character.is_ascii_digit());
    assert_eq!(
        rest.trim_end(),
        "ms. 1 active and 0 backup servers left. 0 sessions active, 0 requeued, 0 remaining in \
         queue."
    );
    drop(pair.second.take());
    pair.log.next_with("Server be/s2 is DOWN");
    pair.log.next_with("backend be has no server available!");
    let _back = Peer::start_on(port, Behaviour::Sink);
    let line = pair.log.next_with("Server be/s1 is UP");
    assert!(line.starts_with("Server be/s1 is UP, reason: Layer4 check passed, check duration: "));
    assert!(
        line.trim_end().ends_with(
            "ms. 1 active and 0 backup servers online. 0 sessions requeued, 0 total in queue."
        ),
        "{line}"
    );
    pair.rlb.stop();
}

#[test]
fn a_client_without_any_server_is_told_at_once() {
    let refuses = Refuses::start();
    let log = Syslog::udp();
    let config = Config::new()
        .backend(OFTEN)
        .server(refuses.address())
        .log(format!("udp:{}", log.address()), "raw");
    let rlb = Rlb::start(&config);
    rlb.wait_status("s1", "DOWN");
    let start = std::time::Instant::now();
    assert_eq!(hear(rlb.address()).0, "");
    assert!(
        start.elapsed() < Duration::from_millis(200),
        "{:?}",
        start.elapsed()
    );
    let line = log.next_with(" fe be/<NOSRV> ");
    let times = line
        .split_once(" -1/-1/")
        .expect("times of no connection")
        .1;
    let (took, rest) = times.split_once(' ').expect("a time");
    assert!(rest.starts_with("0 SC "), "{line}");
    let took: u64 = took.parse().expect("a number");
    assert!(took < 200, "{line}");
    eventually(TIMEOUT, "econ", || {
        (rlb.number("BACKEND", "econ") >= 1).then_some(())
    });
    rlb.stop();
}

#[test]
fn checks_end_without_a_reset() {
    // A reset at the end of each check fills the logs of servers that notice it.
    let ends = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = std::sync::Arc::clone(&ends);
    let peer = Peer::start(Behaviour::script(move |mut stream| {
        let (_, end) = read_to_end(&mut stream);
        sink.lock().expect("no panic holds this lock").push(end);
    }));
    let rlb = Rlb::start(&Config::new().backend(OFTEN).server(peer.address()));
    let seen = eventually(TIMEOUT, "five checks", || {
        let ends = ends.lock().expect("no panic holds this lock").clone();
        (ends.len() >= 5).then_some(ends)
    });
    assert!(seen.iter().all(|end| *end == End::Eof), "{seen:?}");
    rlb.stop();
}

/// Fault 14: where the check connects to another port and passes while connections are refused, each few
/// failed connects asked for a check (1,168 in 2 s), and each passed one made the next clients pay again.
#[test]
fn fault_14_failed_connects_ask_for_one_check_in_a_fast_interval() {
    const FAST: Duration = Duration::from_millis(400);
    const LENGTH: Duration = Duration::from_secs(2);
    let checked = Peer::start(Behaviour::Sink);
    let refuses = Refuses::start();
    let other = Peer::start(Behaviour::Echo);
    let keys = format!(
        "check = {{ type = \"tcp\", interval = \"1h\", fast-interval = \"{}ms\", port = {} }}",
        FAST.as_millis(),
        checked.address().port()
    );
    let first = Config::new().server_with(refuses.address(), &keys);
    let alone = first.clone().backend("retries = 0");
    let beside = first.server_with(other.address(), "check = false");
    for (config, served) in [(alone, false), (beside, true)] {
        let before = checked.accepted();
        let rlb = Rlb::start(&config);
        eventually_true(TIMEOUT, "the first check", || {
            rlb.csv().row("be", "s1").text("check_status") == "L4OK"
        });
        // The peer's own thread counts it.
        let first = before + 1;
        eventually_eq(TIMEOUT, &first, || checked.accepted());
        let (mut clients, start) = (0, Instant::now());
        while start.elapsed() < LENGTH {
            let mut client = connect(rlb.address());
            if served {
                echo(&mut client, b"served by the other");
            } else {
                assert_eq!(read_to_end(&mut client).0, b"");
            }
            clients += 1;
        }
        let extra = checked.accepted() - first;
        let intervals = start.elapsed().as_millis() / FAST.as_millis();
        let most = 1 + usize::try_from(intervals).expect("few");
        assert!(
            (1..=most).contains(&extra),
            "{extra} checks, {most} at most"
        );
        assert!(clients > 100, "{clients}");
        if served {
            let paid = rlb.number("s1", "wredis");
            // What is picked before three have failed, by each of two workers.
            assert!(
                (3..20).contains(&paid),
                "{paid} of {clients} asked it in vain"
            );
        }
        rlb.stop();
    }
}
