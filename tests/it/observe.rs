//! `observe layer4`: failed connects of sessions that count for a server's health. HAProxy and rlb under its name run the
//! same file, see the same clients, and must tell the same. The server refuses; its check has a port of its own, which is
//! fine.

use crate::harness::beside::{self, Beside, WITHIN};
use crate::harness::client::{TIMEOUT, connect, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true};
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer, Refuses};
use crate::harness::rlb::Rlb;
use crate::harness::runtime;
use std::net::SocketAddr;
use std::path::Path;

/// No check comes by itself.
const RARELY: &str = "inter 1h rise 2 fall 3";
const ERRORS: &str = "Detected 3 consecutive errors, last one was: L4 unsuccessful connection";

/// One of the two programs with a service `fe` and one server.
struct Balancer {
    beside: Beside,
    /// Where the server is, while nothing listens there.
    port: Option<Refuses>,
    /// What is checked.
    checked: Option<Peer>,
    /// What was seen of it.
    seen: Vec<String>,
}

impl Balancer {
    /// The server is checked once, and has these words behind its check.
    fn start(program: &Path, words: &str) -> Self {
        let netns = Netns::loopback();
        let checked = netns.enter(|| Peer::start(Behaviour::Sink));
        let port = netns.enter(Refuses::start);
        let service = format!(
            "  default-server observe layer4\n  server s1 {} check port {} {words}\n",
            port.address(),
            checked.address().port(),
        );
        let balancer = Self {
            beside: Beside::start(program, netns, ("  retries 0\n", &service)),
            port: Some(port),
            checked: Some(checked),
            seen: Vec::new(),
        };
        balancer.wait("check_status", "L4OK");
        balancer
    }

    fn column(&self, column: &str) -> String {
        let csv = self.beside.stat();
        let text = csv.row("fe", "s1").text(column);
        // HAProxy 2.6 writes its -1 without a sign.
        let text = text.replace("18446744073709551615", "0");
        text.trim_start_matches("* ").to_owned()
    }

    /// Waits until a column of the server has this value.
    #[track_caller]
    fn wait(&self, column: &str, value: &str) {
        eventually_eq(WITHIN, &value.to_owned(), || self.column(column));
    }

    /// So many clients, one after another, whose session the server refuses.
    #[track_caller]
    fn refused(&self, clients: u32) {
        for _ in 0..clients {
            let mut client = self.beside.connect();
            assert!(read_to_end(&mut client).0.is_empty());
        }
    }

    /// A client that is served, by a server that listens as long as that takes.
    #[track_caller]
    fn served(&mut self) {
        let port = self.port.take().expect("nothing listens");
        let peer = self
            .beside
            .netns
            .enter(|| Peer::start_on(port, Behaviour::Says("hello")));
        let mut client = self.beside.connect();
        assert_eq!(read_to_end(&mut client).0, b"hello");
        self.port = Some(peer.stop());
    }

    /// Notes what the statistics say of the server once it has been found out `times` that connects fail.
    fn note(&mut self, times: u32) {
        self.wait("hanafail", &times.to_string());
        // It is counted before its consequences are published, and a change is answered after them.
        self.beside.ask("set maxconn frontend fe 1000");
        let columns = [
            "status",
            "check_status",
            "check_desc",
            "check_duration",
            "last_chk",
            "check_health",
            "chkfail",
            "chkdown",
            "econ",
        ];
        let values = columns.map(|column| self.column(column));
        self.seen.push(values.join(", "));
    }

    /// Notes the line of the log that says this.
    fn note_line(&mut self, part: &str) {
        let line = self.beside.log.next_with(part);
        let text = line.split_once("]: ").map_or("", |(_, text)| text);
        // The session that has failed last may be counted yet.
        let text = text.split(" sessions active").next().unwrap_or_default();
        let text = text.trim_end_matches(|it: char| it.is_numeric() || it.is_whitespace());
        self.seen.push(text.to_owned());
    }

    fn stop(self) -> Vec<String> {
        self.beside.stop();
        self.seen
    }
}

/// Runs `script` with both. Returns what was seen.
fn both(words: &str, script: impl Fn(&mut Balancer)) -> Vec<String> {
    beside::both(|program| {
        let mut balancer = Balancer::start(program, words);
        script(&mut balancer);
        balancer.stop()
    })
}

/// What the statistics say after errors.
fn observed(status: &str, [health, chkfail, chkdown, econ]: [u32; 4]) -> String {
    let check = format!("HANA, Health analyze, 0, {ERRORS}");
    format!("{status}, {check}, {health}, {chkfail}, {chkdown}, {econ}")
}

fn is_down() -> String {
    format!(
        "Server fe/s1 is DOWN, reason: Health analyze, info: \"{ERRORS}\". 0 active and 0 backup servers left."
    )
}

#[test]
fn errors_in_a_row_count_as_a_failed_check() {
    let seen = both(&format!("{RARELY} error-limit 3"), |balancer| {
        balancer.refused(2);
        balancer.wait("econ", "2");
        balancer.seen.push(balancer.column("hanafail"));
        for times in 1..=2 {
            balancer.refused(if times == 1 { 1 } else { 3 });
            balancer.note(times);
        }
        balancer.refused(3);
        balancer.note(3);
        balancer.note_line(" is DOWN");
        balancer.note_line("has no server available!");
    });
    if seen.is_empty() {
        return;
    }
    let expected = [
        "0".to_owned(),
        observed("UP 2/3", [3, 1, 0, 3]),
        observed("UP 1/3", [2, 2, 0, 6]),
        observed("DOWN", [0, 3, 1, 9]),
        is_down(),
        "proxy fe has no server available!".to_owned(),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn mark_down_needs_no_failed_check() {
    let words = format!("{RARELY} error-limit 3 on-error mark-down");
    let seen = both(&words, |balancer| {
        balancer.refused(3);
        balancer.note(1);
        balancer.note_line(" is DOWN");
    });
    if !seen.is_empty() {
        assert_eq!(seen, [observed("DOWN", [0, 1, 1, 3]), is_down()]);
    }
}

#[test]
fn sudden_death_leaves_one_failure() {
    let words = format!("{RARELY} error-limit 3 on-error sudden-death");
    let seen = both(&words, |balancer| {
        for times in 1..=2 {
            balancer.refused(3);
            balancer.note(times);
        }
    });
    if !seen.is_empty() {
        let first = observed("UP 1/3", [2, 1, 0, 3]);
        assert_eq!(seen, [first, observed("DOWN", [0, 2, 1, 6])]);
    }
}

/// With checks every hour only the fast interval can bring the next one.
#[test]
fn fastinter_brings_the_next_check_and_changes_nothing() {
    let words = format!("{RARELY} fastinter 100ms error-limit 3 on-error fastinter");
    let seen = both(&words, |balancer| {
        let port = balancer.checked.take().expect("it runs").stop();
        balancer.refused(3);
        balancer.wait("hanafail", "1");
        balancer.wait("status", "DOWN");
        for column in ["check_status", "hanafail", "chkfail", "chkdown"] {
            balancer.seen.push(balancer.column(column));
        }
        drop(port);
    });
    if !seen.is_empty() {
        assert_eq!(seen, ["L4CON", "1", "3", "1"]);
    }
}

/// The check that comes soon passes, and ends what the errors have begun.
#[test]
fn a_check_that_passes_fills_the_counter_again() {
    let words = format!("{RARELY} fastinter 100ms error-limit 3");
    both(&words, |balancer| {
        balancer.refused(3);
        balancer.wait("hanafail", "1");
        balancer.wait("check_status", "L4OK");
        balancer.wait("status", "UP");
        for column in ["check_health", "chkfail", "chkdown"] {
            balancer.seen.push(balancer.column(column));
        }
    });
}

#[test]
fn a_session_that_connects_begins_the_errors_again() {
    let words = format!("{RARELY} error-limit 3 on-error mark-down");
    let seen = both(&words, |balancer| {
        balancer.refused(2);
        balancer.served();
        balancer.refused(2);
        balancer.wait("econ", "4");
        balancer.seen.push(balancer.column("hanafail"));
        balancer.refused(1);
        balancer.note(1);
    });
    if !seen.is_empty() {
        assert_eq!(seen, ["0".to_owned(), observed("DOWN", [0, 1, 1, 5])]);
    }
}

/// The words of both in the list of `show servers state` and with `option log-health-checks`.
#[test]
fn other_outputs_are_haproxys_too() {
    let words = format!("{RARELY} error-limit 3\n  option log-health-checks");
    let seen = both(&words, |balancer| {
        balancer.refused(3);
        balancer.note(1);
        balancer.note_line(" failed, reason");
        let state = balancer.beside.ask("show servers state fe");
        let line = state.lines().find(|line| line.contains(" s1 "));
        let fields: Vec<&str> = line.expect("a line").split(' ').collect();
        // The status of the check, its result, the health and the state.
        balancer.seen.push(fields[10..14].join(" "));
        let typed = balancer.beside.ask("show stat typed");
        let line = typed.lines().find(|line| line.contains(".hanafail."));
        // Where it is, what it is, its type and the number. HAProxy 2.6 has a letter less.
        let fields: Vec<&str> = line.expect("a line").split(':').collect();
        balancer
            .seen
            .push(fields[1][..3].to_owned() + fields[2] + fields[3]);
    });
    if !seen.is_empty() {
        let line = format!(
            "Health check for server fe/s1 failed, reason: Health analyze, info: \"{ERRORS}\", status: 2/3 UP."
        );
        assert_eq!(seen[1], line);
    }
}

/// A server that is checked elsewhere, and refuses.
fn config(server: SocketAddr, checked: SocketAddr, keys: &str) -> Config {
    let port = checked.port();
    let keys = format!("check = {{ interval = \"1h\", port = {port} }}{keys}");
    Config::new().server_with(server, &keys)
}

/// The value of a metric of the server.
fn metric(rlb: &Rlb, name: &str) -> String {
    let (_, text) = rlb.http_get("/metrics").expect("answered");
    let mut lines = text.lines().filter(|line| line.starts_with(name));
    let line = lines.find(|line| line.contains("server=\"s1\""));
    let (_, value) = line.expect("a sample").rsplit_once(' ').expect("a value");
    value.to_owned()
}

fn refused(at: SocketAddr, clients: u32) {
    for _ in 0..clients {
        read_to_end(&mut connect(at));
    }
}

/// What an operator changes in the file holds for the errors that there were before.
#[test]
fn a_reload_changes_what_errors_are() {
    let (checked, server) = (Peer::start(Behaviour::Sink), Refuses::start());
    let config = |keys: &str| {
        let config = config(server.address(), checked.address(), keys);
        config.backend("retries = 0")
    };
    let mut rlb = Rlb::start(&config(", observe = \"layer4\""));
    rlb.wait_status("s1", "UP");
    refused(rlb.address(), 4);
    eventually_eq(TIMEOUT, &4, || rlb.number("s1", "econ"));
    assert_eq!(rlb.number("s1", "hanafail"), 0);
    assert_eq!(metric(&rlb, "rlb_server_suspect"), "0", "the errors count");
    rlb.reload(&config(
        ", observe = \"layer4\", error-limit = 5, on-error = \"mark-down\"",
    ));
    refused(rlb.address(), 1);
    rlb.wait_status("s1", "DOWN");
    let csv = rlb.csv();
    let text = "Detected 5 consecutive errors, last one was: L4 unsuccessful connection";
    assert_eq!(csv.row("be", "s1").text("last_chk"), text);
    assert_eq!(metric(&rlb, "rlb_server_observed_errors_total"), "1");
    rlb.reload(&config(""));
    assert_eq!(rlb.csv().row("be", "s1").text("hanafail"), "");
    rlb.stop();
}

#[test]
fn a_server_that_is_added_may_be_observed() {
    let (checked, server) = (Peer::start(Behaviour::Sink), Refuses::start());
    let config = config(server.address(), checked.address(), ", disabled = true");
    let config = config.backend("retries = 0");
    let fixture = runtime::Fixture::new(config, "admin");
    let (address, port) = (server.address(), checked.address().port());
    let words = "observe layer4 error-limit 2 on-error mark-down";
    let line = format!("add server be/n1 {address} check inter 1h port {port} {words}");
    assert_eq!(fixture.ask(&line), "New server registered.\n\n");
    for order in ["enable health be/n1", "enable server be/n1"] {
        assert_eq!(fixture.ask(order), "\n");
    }
    fixture.rlb.wait_status("n1", "UP");
    // A second check, for which leaving maintenance asks, begins the errors again.
    eventually_true(TIMEOUT, "it is DOWN", || {
        refused(fixture.rlb.address(), 1);
        fixture.rlb.status("n1") == "DOWN"
    });
    assert_eq!(fixture.rlb.number("n1", "hanafail"), 1);
    fixture.rlb.stop();
}

/// Of two servers that refuse one stays, until the file says otherwise.
#[test]
fn not_all_servers_are_taken_down() {
    let checked = Peer::start(Behaviour::Sink);
    let servers = [Refuses::start(), Refuses::start()];
    let keys = ", observe = \"layer4\", error-limit = 2, on-error = \"mark-down\"";
    let with = |most: u32| {
        let config = config(servers[0].address(), checked.address(), keys);
        let port = checked.address().port();
        let check = format!("check = {{ interval = \"1h\", port = {port} }}{keys}");
        let config = config.server_with(servers[1].address(), &check);
        config.backend(&format!("max-ejected = {most}"))
    };
    let mut rlb = Rlb::start(&with(50));
    for server in ["s1", "s2"] {
        rlb.wait_status(server, "UP");
    }
    let states = || ["s1", "s2"].map(|server| rlb.status(server));
    let found = || ["s1", "s2"].map(|server| rlb.number(server, "hanafail"));
    eventually_true(TIMEOUT, "both are found out", || {
        refused(rlb.address(), 1);
        found().iter().all(|times| *times > 0)
    });
    let mut seen = states();
    seen.sort();
    assert_eq!(seen, ["DOWN", "UP"]);
    rlb.reload(&with(100));
    eventually_true(TIMEOUT, "both are DOWN", || {
        refused(rlb.address(), 1);
        ["s1", "s2"].map(|server| rlb.status(server)) == ["DOWN", "DOWN"]
    });
    rlb.stop();
}

/// A server in front of one that answers is taken out, and no client has noticed.
#[test]
fn clients_are_served_while_a_server_is_found_out() {
    let (checked, server) = (Peer::start(Behaviour::Sink), Refuses::start());
    let peer = Peer::start(Behaviour::Says("hello"));
    let keys = ", observe = \"layer4\", on-error = \"mark-down\"";
    let config = config(server.address(), checked.address(), keys).server(peer.address());
    let rlb = Rlb::start(&config);
    rlb.wait_status("s1", "UP");
    eventually_true(TIMEOUT, "s1 is DOWN", || {
        assert_eq!(read_to_end(&mut connect(rlb.address())).0, b"hello");
        rlb.status("s1") == "DOWN"
    });
    assert_eq!(rlb.number("s1", "hanafail"), 1);
    assert_eq!(rlb.number("s1", "econ"), 0);
    let seen = rlb.number("s1", "connect");
    assert!(seen >= 10, "{seen}");
    rlb.stop();
}
