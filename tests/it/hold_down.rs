//! `hold-down`: servers that go down again and again stay down for longer.

use crate::harness::client::{TIMEOUT, connect, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true};
use crate::harness::peer::{Behaviour, Peer, Refuses};
use crate::harness::ports;
use crate::harness::rlb::Rlb;
use crate::harness::runtime::{Fixture, ask};
use crate::upgrade::{Next, upgrade};

const QUICK: &str = "check = { interval = \"20ms\", rise = 2, fall = 1 }";
/// It does not end within a test.
const LONG: &str = "hold-down = \"1h\", hold-down-max = \"1h\", flap-window = \"1h\"";
const LEFT: &str = "rlb_server_held_down_seconds{proxy=\"be\",server=\"s1\"}";
const LINE: &str = "Server be/s1 is held down for ";

/// A server that flaps, `s1`, beside one that does not.
struct Flapping {
    port: Refuses,
    other: Peer,
    config: Config,
}

impl Flapping {
    fn new(keys: &str) -> Self {
        let (port, other) = (Refuses::start(), Peer::start(Behaviour::Says("other")));
        let config = Config::new()
            .server_with(port.address(), &format!("{QUICK}, {keys}"))
            .server(other.address());
        Self {
            port,
            other,
            config,
        }
    }

    /// It comes up and goes down, so often. Both listen afterwards.
    fn flap(self, rlb: &Rlb, times: u32) -> [Peer; 2] {
        let mut port = self.port;
        rlb.wait_status("s1", "DOWN");
        for _ in 0..times {
            let peer = Peer::start_on(port, Behaviour::Says("hello"));
            rlb.wait_status("s1", "UP");
            port = peer.stop();
            rlb.wait_status("s1", "DOWN");
        }
        [Peer::start_on(port, Behaviour::Says("hello")), self.other]
    }
}

/// How much longer the server is held down, in seconds.
fn left(rlb: &Rlb) -> f64 {
    let (_, text) = rlb.http_get("/metrics").expect("answered");
    let line = text.lines().find_map(|line| line.strip_prefix(LEFT));
    line.expect("a sample").trim().parse().expect("a number")
}

/// Passed checks do not bring it up; an operator does.
#[test]
fn a_server_that_flaps_is_held_down_until_an_operator_says_otherwise() {
    let flapping = Flapping::new(LONG);
    let mut fixture = Fixture::new(flapping.config.clone(), "admin");
    let _peers = flapping.flap(&fixture.rlb, 1);
    fixture.rlb.wait_status("s1", "DOWN 1/2");
    let event = fixture.rlb.events().wait_for(LINE);
    let parts = [
        "1h: it has gone down 2 times.",
        "\"held_for_ms\":3600000",
        "\"flaps\":2",
    ];
    assert!(parts.iter().all(|part| event.contains(part)), "{event}");
    let seconds = left(&fixture.rlb);
    assert!(seconds > 3_500.0 && seconds <= 3_600.0, "{seconds}");
    let (_, page) = fixture.rlb.http_get("/").expect("answered");
    assert!(page.contains(" held 59m") || page.contains(" held 1h"));
    for _ in 0..5 {
        let heard = read_to_end(&mut connect(fixture.rlb.address())).0;
        assert_eq!(heard, b"other");
    }
    // A reload keeps it, and HAProxy's format does not tell.
    fixture
        .rlb
        .reload(&fixture.config.clone().backend("retries = 2"));
    assert!(left(&fixture.rlb) > 3_000.0);
    let states = fixture.ask("show servers state be");
    let line = states.lines().find(|line| line.contains(" s1 "));
    assert_eq!(line.expect("a line").split(' ').count(), 25);
    assert_eq!(fixture.rlb.status("s1"), "DOWN 1/2");

    assert_eq!(fixture.ask("set server be/s1 state ready"), "\n");
    fixture.rlb.wait_status("s1", "UP");
    let line = "Server be/s1 is held down no longer, changed from CLI.";
    fixture.rlb.events().wait_for(line);
    assert!(left(&fixture.rlb) < 0.001);
    fixture.rlb.stop();
}

#[test]
fn an_operator_who_says_that_it_is_up_is_obeyed() {
    let flapping = Flapping::new(LONG);
    let fixture = Fixture::new(flapping.config.clone(), "admin");
    let _peers = flapping.flap(&fixture.rlb, 1);
    fixture.rlb.wait_status("s1", "DOWN 1/2");
    assert_eq!(fixture.ask("set server be/s1 health up"), "\n");
    assert_eq!(fixture.rlb.status("s1"), "UP");
    fixture.rlb.stop();
}

/// Each time is longer, and it comes up by itself. Of the first time nobody hears.
#[test]
fn a_server_that_is_held_down_comes_up_when_the_time_is_over() {
    let keys = "hold-down = \"150ms\", hold-down-max = \"300ms\", flap-window = \"1h\"";
    let flapping = Flapping::new(keys);
    let rlb = Rlb::start(&flapping.config.clone());
    let _peers = flapping.flap(&rlb, 3);
    rlb.wait_status("s1", "UP");
    let said = rlb.events().with(LINE);
    let times = ["150ms: ", "300ms: ", "300ms: "].map(|time| format!("{LINE}{time}"));
    assert_eq!(said.len(), times.len());
    for (said, time) in said.iter().zip(&times) {
        assert!(said.contains(time), "{said}");
    }
    let up: Vec<u64> = rlb
        .events()
        .with("Server be/s1 is UP")
        .iter()
        .map(|event| {
            let (_, rest) = event.split_once("\"lasted_ms\":").expect("it was down");
            let end = rest.find(|it: char| !it.is_ascii_digit());
            rest[..end.expect("further fields")]
                .parse()
                .expect("a number")
        })
        .collect();
    assert_eq!(up.len(), 4);
    for (down, least) in up.iter().zip([0, 150, 300, 300]) {
        assert!(*down >= least, "{down} ms of {least}");
    }
    rlb.stop();
}

/// A server that refuses sessions while its check passes is out for longer the second time.
#[test]
fn a_server_that_observe_takes_down_again_is_held_down() {
    let (checked, refuses) = (Peer::start(Behaviour::Sink), Refuses::start());
    let other = Peer::start(Behaviour::Says("hello"));
    let port = checked.address().port();
    let keys = format!(
        "check = {{ interval = \"20ms\", port = {port} }}, observe = \"layer4\", \
         error-limit = 1, on-error = \"mark-down\", {LONG}"
    );
    let config = Config::new()
        .server_with(refuses.address(), &keys)
        .server(other.address());
    let rlb = Rlb::start(&config);
    rlb.wait_status("s1", "UP");
    eventually_true(TIMEOUT, "it is held down", || {
        let heard = read_to_end(&mut connect(rlb.address())).0;
        assert_eq!(heard, b"hello", "another server has served");
        !rlb.events().with(LINE).is_empty()
    });
    rlb.wait_status("s1", "DOWN 1/2");
    assert_eq!(rlb.number("s1", "chkdown"), 2);
    let asked = rlb.number("s1", "connect");
    for _ in 0..10 {
        assert_eq!(read_to_end(&mut connect(rlb.address())).0, b"hello");
    }
    assert_eq!(rlb.number("s1", "connect"), asked);
    rlb.stop();
}

#[test]
fn an_upgrade_goes_on_with_it() {
    let flapping = Flapping::new(LONG);
    let stats = ports::free();
    let config = flapping.config.clone().bind(ports::free()).stats_at(stats);
    let fixture = Fixture::new(config, "admin");
    let socket = fixture.socket();
    let _peers = flapping.flap(&fixture.rlb, 1);
    fixture.rlb.wait_status("s1", "DOWN 1/2");
    assert!(upgrade(&socket).status.success());
    let next = Next::logged(&fixture.rlb, 1);
    eventually_true(TIMEOUT, "the new one answers", || {
        ask(&socket, "show info").contains(&format!("Pid: {}\n", next.pid()))
    });
    let seconds = left(&fixture.rlb);
    assert!(seconds > 3_000.0 && seconds <= 3_600.0, "{seconds}");
    assert_eq!(fixture.rlb.status("s1"), "DOWN 1/2");
    assert_eq!(ask(&socket, "set server be/s1 state ready"), "\n");
    eventually_eq(TIMEOUT, &"UP".to_owned(), || fixture.rlb.status("s1"));
    next.stop();
}
