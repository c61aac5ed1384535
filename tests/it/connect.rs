//! Connecting to a server: the next one at once, a second attempt, when to give up, and the counters.

use crate::harness::client::{End, hear, timed};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true};
use crate::harness::peer::{Behaviour, Peer, Refuses, Unanswering};
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use crate::harness::runtime::Fixture;
use crate::harness::syslog::Syslog;
use std::time::Duration;

/// Counts as no wait, on a loaded machine of two cores.
const AT_ONCE: Duration = Duration::from_millis(200);

#[test]
fn a_refusing_server_costs_no_time() {
    let refuses = Refuses::start();
    let peer = Peer::start(Behaviour::Says("hello"));
    let config = Config::new()
        .server_with(refuses.address(), "check = false")
        .server_with(peer.address(), "check = false");
    let rlb = Rlb::start(&config);
    for _ in 0..20 {
        let (heard, took) = timed(|| hear(rlb.address()));
        assert_eq!(heard, ("hello".to_owned(), End::Eof));
        assert!(took < AT_ONCE, "{took:?}");
    }
    eventually_eq(STOP_WITHIN, &20, || rlb.number("s2", "stot"));
    let csv = rlb.csv();
    let (refusing, backend) = (csv.row("be", "s1"), csv.row("be", "BACKEND"));
    // Not all 20 tried it first: after three refusals it is suspected and tried last.
    assert!(
        refusing.number("wredis") >= 3,
        "redispatches are counted on the server that was left"
    );
    assert_eq!(backend.number("wredis"), refusing.number("wredis"));
    assert_eq!(
        (backend.number("econ"), csv.row("be", "s2").number("econ")),
        (0, 0)
    );
    assert_eq!(backend.number("stot"), 20);
    rlb.stop();
}

#[test]
fn an_unanswering_server_costs_one_attempt() {
    let dark = Unanswering::start();
    let peer = Peer::start(Behaviour::Says("hello"));
    let config = Config::new()
        .server_with(dark.address(), "check = false")
        .server_with(peer.address(), "check = false");
    let rlb = Rlb::start(&config);
    for round in 0..10 {
        let (heard, took) = timed(|| hear(rlb.address()));
        assert_eq!(heard, ("hello".to_owned(), End::Eof), "round {round}");
        assert!(
            took < Duration::from_millis(900),
            "round {round} took {took:?}"
        );
    }
    eventually_eq(STOP_WITHIN, &10, || rlb.number("s2", "stot"));
    let csv = rlb.csv();
    assert_eq!(csv.row("be", "BACKEND").number("econ"), 0);
    assert_eq!(
        csv.row("be", "s1").number("stot"),
        0,
        "a session counts where it was served"
    );
    assert_eq!(csv.row("be", "s1").number("scur"), 0, "the loser is let go");
    rlb.stop();
}

#[test]
fn without_retries_a_refusal_is_told_at_once() {
    let refuses = [Refuses::start(), Refuses::start()];
    let log = Syslog::udp();
    let config = refuses
        .iter()
        .fold(Config::new().backend("retries = 0"), |config, it| {
            config.server_with(it.address(), "check = false")
        })
        .log(format!("udp:{}", log.address()), "raw");
    let rlb = Rlb::start(&config);
    for _ in 0..5 {
        let ((words, end), took) = timed(|| hear(rlb.address()));
        assert_eq!(words, "");
        assert_ne!(end, End::Silence);
        assert!(took < AT_ONCE, "{took:?}");
        let line = log.next_with(" fe be/");
        assert!(line.contains(" SC "), "{line}");
    }
    eventually_eq(STOP_WITHIN, &5, || rlb.number("BACKEND", "econ"));
    rlb.stop();
}

#[test]
fn the_connect_timeout_is_the_whole_budget() {
    let dark = [Unanswering::start(), Unanswering::start()];
    let log = Syslog::udp();
    let config = dark
        .iter()
        .fold(Config::new(), |config, it| {
            config.server_with(it.address(), "check = false")
        })
        .timeout("connect = \"1500ms\"")
        .log(format!("udp:{}", log.address()), "raw");
    let rlb = Rlb::start(&config);
    let ((words, end), took) = timed(|| hear(rlb.address()));
    assert_eq!(words, "");
    assert_ne!(end, End::Silence);
    let budget = Duration::from_millis(1500);
    assert!(
        took >= budget && took < budget + Duration::from_millis(300),
        "{took:?}"
    );
    let line = log.next_with(" fe be/");
    assert!(line.contains(" sC "), "{line}");
    eventually_eq(STOP_WITHIN, &1, || rlb.number("BACKEND", "econ"));
    rlb.stop();
}

#[test]
fn retries_0_asks_one_server_only() {
    let refuses = Refuses::start();
    let peer = Peer::start(Behaviour::Says("hello"));
    let config = Config::new()
        .backend("retries = 0")
        .server_with(refuses.address(), "check = false")
        .server_with(peer.address(), "check = false");
    let rlb = Rlb::start(&config);
    let words: Vec<String> = (0..2).map(|_| hear(rlb.address()).0).collect();
    assert_eq!(
        words.iter().filter(|it| *it == "hello").count(),
        1,
        "{words:?}"
    );
    eventually_eq(STOP_WITHIN, &(1, 0), || {
        (
            rlb.number("BACKEND", "econ"),
            rlb.number("BACKEND", "wredis"),
        )
    });
    rlb.stop();
}

#[test]
fn no_server_is_asked_twice_before_all_were_tried() {
    let refuses = [Refuses::start(), Refuses::start(), Refuses::start()];
    let peer = Peer::start(Behaviour::Says("hello"));
    let config = refuses
        .iter()
        .fold(Config::new(), |config, it| {
            config.server_with(it.address(), "check = false")
        })
        .server_with(peer.address(), "check = false");
    let rlb = Rlb::start(&config);
    for _ in 0..12 {
        assert_eq!(
            hear(rlb.address()).0,
            "hello",
            "the fourth server is always reached"
        );
    }
    rlb.stop();
}

#[test]
fn a_suspected_server_is_asked_last_and_keeps_its_state() {
    let refuses = Refuses::start();
    let peer = Peer::start(Behaviour::Says("hello"));
    // Checked at a port that always passes: only traffic notices that it refuses.
    let checked = Peer::start(Behaviour::Sink);
    let config = Config::new()
        .server_with(
            refuses.address(),
            &format!(
                "check = {{ interval = \"1h\", port = {} }}",
                checked.address().port()
            ),
        )
        .server_with(peer.address(), "check = false");
    let rlb = Rlb::start(&config);
    rlb.wait_status("s1", "UP");
    let checks = checked.accepted();
    for _ in 0..20 {
        assert_eq!(hear(rlb.address()).0, "hello");
    }
    crate::harness::eventually::eventually_true(STOP_WITHIN, "a check at once", || {
        checked.accepted() > checks
    });
    assert_eq!(rlb.status("s1"), "UP", "a state is changed by checks alone");
    rlb.stop();
}

/// A server that got another address, by a reload or by an operator, was not asked by the clients that were waiting:
/// neither by one whose attempt at the old address had no answer, nor by one that it had refused.
#[test]
fn waiting_clients_are_served_at_the_new_address_of_a_server() {
    for by_reload in [true, false] {
        for is_dark in [true, false] {
            served_at_the_new_address(by_reload, is_dark);
        }
    }
}

/// One client, a server without an answer, and one that has none either or refuses, and then moves.
fn served_at_the_new_address(by_reload: bool, is_dark: bool) {
    let (dark, refuses) = (Unanswering::start(), Refuses::start());
    let good = Peer::start(Behaviour::Says("hello"));
    let config = |address| {
        Config::new()
            .backend("retries = 0")
            .timeout("connect = \"30s\"")
            .server_with(dark.address(), "check = false")
            .server_with(address, "check = false")
    };
    let old = if is_dark {
        dark.address()
    } else {
        refuses.address()
    };
    let mut fixture = Fixture::new(config(old), "admin");
    let address = fixture.rlb.address();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| timed(|| hear(address)));
        eventually_true(STOP_WITHIN, "both servers were tried", || {
            fixture.rlb.number("s1", "connect") == 1 && fixture.rlb.number("s2", "connect") == 1
        });
        if by_reload {
            let socket = fixture.socket();
            let table = format!("[runtime-api]\nsocket = \"{}\"", socket.display());
            fixture.rlb.reload(&config(good.address()).table(&table));
        } else {
            let (ip, port) = (good.address().ip(), good.address().port());
            let said = fixture.ask(&format!("set server be/s2 addr {ip} port {port}"));
            assert!(said.contains("port changed"), "{said}");
        }
        let (heard, took) = waiting.join().expect("no panic");
        assert_eq!(heard, ("hello".to_owned(), End::Eof));
        assert!(
            took < Duration::from_secs(10),
            "at once, not after {took:?}"
        );
    });
    fixture.rlb.stop();
}
