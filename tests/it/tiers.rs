//! Tiers of servers (`priority`, `spill-below`), checks that are not believed (`fail-open-below`), and backends with too
//! few servers (`min-servers`).

use crate::harness::client::{End, connect, echo, end_at, hear, read_some};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true};
use crate::harness::peer::{Behaviour, Peer, Refuses};
use crate::harness::runtime::Fixture;
use std::net::TcpStream;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(10);
const OFTEN: &str = "check = { interval = \"50ms\", rise = 1, fall = 1 }";

/// How many of so many clients got each of the servers, which say their numbers.
fn served<const SERVERS: usize>(fixture: &Fixture, clients: usize) -> [usize; SERVERS] {
    let mut counts = [0; SERVERS];
    for _ in 0..clients {
        let (word, end) = hear(fixture.rlb.address());
        assert_eq!(end, End::Eof);
        let server: usize = word.parse().expect("a server's number");
        counts[server - 1] += 1;
    }
    counts
}

/// Clients go to the servers of the lowest priority, to the next ones too while too little of those is usable, and back; at
/// run time, over a reload and for a server that is added.
#[test]
fn clients_go_to_the_next_tier_while_the_first_is_too_small() {
    let mut peers: Vec<Option<Peer>> = ["1", "2", "3", "4"]
        .map(|word| Some(Peer::start(Behaviour::Says(word))))
        .into();
    let address =
        |index: usize, peers: &[Option<Peer>]| peers[index].as_ref().expect("it runs").address();
    let config = Config::new()
        .backend(OFTEN)
        .backend("spill-below = 60")
        .server(address(0, &peers))
        .server_with(address(1, &peers), "priority = 0")
        .server_with(address(2, &peers), "priority = 1, check = false");
    let mut fixture = Fixture::new(config, "admin");
    let priority = "rlb_backend_priority{proxy=\"be\"}";
    assert_eq!(served(&fixture, 6), [3, 3, 0]);
    assert_eq!(fixture.rlb.metric(priority), 0);
    let port = peers[0].take().expect("it runs").stop();
    fixture.rlb.wait_status("s1", "DOWN");
    assert_eq!(served(&fixture, 6), [0, 3, 3]);
    assert_eq!(fixture.rlb.metric(priority), 1);
    assert_eq!(fixture.rlb.number("BACKEND", "weight"), 2);
    assert_eq!(fixture.rlb.number("BACKEND", "act"), 2);

    // Half is enough now, and nothing else has changed.
    let less = fixture
        .config
        .to_string()
        .replace("spill-below = 60", "spill-below = 50");
    fixture.rlb.reload(&less);
    assert_eq!(fixture.rlb.status("s1"), "DOWN");
    assert_eq!(fixture.rlb.number("s2", "stot"), 6);
    assert_eq!(served(&fixture, 4), [0, 4, 0]);
    assert_eq!(fixture.ask("set weight be/s2 0").trim(), "");
    assert_eq!(served(&fixture, 4), [0, 0, 4]);
    assert_eq!(fixture.ask("set server be/s3 state maint").trim(), "");
    assert_eq!(hear(fixture.rlb.address()).0, "", "there is no other");

    let added = format!("add server be/s4 {} priority 7", address(3, &peers));
    assert!(fixture.ask(&added).contains("New server registered."));
    assert_eq!(fixture.ask("enable server be/s4").trim(), "");
    assert_eq!(served(&fixture, 4), [0, 0, 0, 4]);
    assert_eq!(fixture.rlb.metric(priority), 7);
    peers[0] = Some(Peer::start_on(port, Behaviour::Says("1")));
    fixture.rlb.wait_status("s1", "UP");
    assert_eq!(served(&fixture, 4), [4, 0, 0, 0]);
    fixture.rlb.stop();
}

/// The checks fail, and the servers do not: clients are served all the same, in queues too, and by none that an operator has
/// taken out. Once enough checks pass they are believed again.
#[test]
fn checks_that_are_not_believed_keep_no_client_away() {
    let peers = ["1", "2"].map(|word| Peer::start(Behaviour::SpeaksFirst(word)));
    let ports = [Refuses::start(), Refuses::start()];
    let [first, second] = [0, 1].map(|index| {
        format!(
            "maxconn = 1, on-marked-down = \"shutdown-sessions\", \
             check = {{ interval = \"50ms\", rise = 1, fall = 1, port = {} }}",
            ports[index].address().port()
        )
    });
    let config = Config::new()
        .backend("fail-open-below = 50")
        .server_with(peers[0].address(), &first)
        .server_with(peers[1].address(), &second);
    let fixture = Fixture::new(config, "admin");
    let rlb = &fixture.rlb;
    rlb.wait_status("s1", "DOWN");
    rlb.wait_status("s2", "DOWN");
    let event = rlb
        .events()
        .wait_for("backend be fails open: 0 of 2 servers are up");
    assert!(event.contains("\"backend\":\"be\""), "{event}");
    assert_eq!(rlb.events().with("no server available"), [""; 0]);
    let metric = "rlb_backend_fail_open{proxy=\"be\"}";
    assert_eq!(rlb.metric(metric), 1);
    assert_eq!(
        (rlb.status("BACKEND"), rlb.number("BACKEND", "act")),
        ("UP".into(), 0)
    );
    let (_, page) = rlb.http_get("/").expect("the page");
    assert!(page.contains("Checks are not believed in <a href=\"#be\">be</a> (0 of 2 UP)."));

    // Each has a session, and the third waits for a slot.
    let mut streams = [connect(rlb.address()), connect(rlb.address())];
    let mut words = streams.each_mut().map(word_of);
    words.sort_unstable();
    assert_eq!(&words, b"12");
    let mut third = connect(rlb.address());
    eventually_eq(WITHIN, &1, || rlb.number("BACKEND", "qcur"));
    let [one, mut other] = streams;
    drop(one);
    word_of(&mut third);
    echo(&mut other, b"nobody has ended it");
    echo(&mut third, b"nor this");
    drop((other, third));
    eventually_eq(WITHIN, &0, || rlb.number("BACKEND", "scur"));

    assert_eq!(fixture.ask("set server be/s1 state maint").trim(), "");
    for _ in 0..3 {
        assert_eq!(word_of(&mut connect(rlb.address())), b'2');
        eventually_eq(WITHIN, &0, || rlb.number("BACKEND", "scur"));
    }
    assert_eq!(fixture.ask("set server be/s1 state ready").trim(), "");
    rlb.wait_status("s1", "DOWN");
    believed_again(&fixture, metric, ports);
    fixture.rlb.stop();
}

/// Once a check passes, new clients go to the server that passes it, and the session of the other one goes on.
fn believed_again(fixture: &Fixture, metric: &str, ports: [Refuses; 2]) {
    let rlb = &fixture.rlb;
    assert_eq!(rlb.metric(metric), 1);
    let mut stays = connect(rlb.address());
    let [one, two] = ports;
    let (passes, name, other) = match word_of(&mut stays) {
        b'1' => (two, b'2', "s1"),
        _ => (one, b'1', "s2"),
    };
    let _answers = Peer::start_on(passes, Behaviour::Sink);
    eventually_eq(WITHIN, &0, || rlb.metric(metric));
    rlb.events()
        .wait_for("backend be fails open no longer: 1 of 2 servers are up.");
    assert_eq!(rlb.status(other), "DOWN");
    for _ in 0..3 {
        assert_eq!(word_of(&mut connect(rlb.address())), name);
    }
    echo(&mut stays, b"it goes on");
}

/// The first byte, which tells the server.
fn word_of(stream: &mut TcpStream) -> u8 {
    let mut word = [0];
    read_some(stream, &mut word).expect("a server");
    word[0]
}

/// Below `min-servers` the backend is DOWN: new clients get what `no-server` says, or are held, and those that have a server
/// keep it.
#[test]
fn too_few_servers_are_as_good_as_none() {
    let mut peers = ["1", "2"].map(|word| Some(Peer::start(Behaviour::SpeaksFirst(word))));
    let [first, second] = peers
        .each_ref()
        .map(|peer| peer.as_ref().expect("it runs").address());
    let config = Config::new()
        .backend(OFTEN)
        .backend("min-servers = 2\nno-server = \"reset\"")
        .server(first)
        .server(second)
        .table("[readiness]\nrequire = { be = 1 }");
    let mut fixture = Fixture::new(config, "admin");
    let ready = |fixture: &Fixture| {
        let (status, text) = fixture.rlb.http_get("/readyz").expect("an answer");
        (status, text.trim().to_owned())
    };
    eventually_true(WITHIN, "ready", || ready(&fixture).0 == 200);
    let mut kept: Vec<_> = (0..2).map(|_| connect(fixture.rlb.address())).collect();
    for stream in &mut kept {
        read_some(stream, &mut [0]).expect("a server");
    }
    let port = peers[0].take().expect("it runs").stop();
    fixture.rlb.wait_status("s1", "DOWN");
    eventually_eq(WITHIN, &"DOWN".to_owned(), || fixture.rlb.status("BACKEND"));
    fixture
        .rlb
        .events()
        .wait_for("backend be has no server available! 1 usable, min-servers 2.");
    assert_eq!(fixture.rlb.status("s2"), "UP");
    assert_eq!(fixture.rlb.number("BACKEND", "act"), 1);
    let (_, page) = fixture.rlb.http_get("/").expect("the page");
    assert!(page.contains("No usable server in <a href=\"#be\">be</a> (1 UP, min-servers 2)."));
    let no = "backend be: 1 usable servers, 2 required".to_owned();
    assert_eq!(ready(&fixture), (503, no));
    assert_eq!(end_at(fixture.rlb.address()), End::Reset);
    eventually_eq(WITHIN, &1, || fixture.rlb.failed_sessions("no_server"));
    let alive = kept.iter_mut().filter_map(|stream| {
        use std::io::Write;
        stream.write_all(b"x").ok()?;
        read_some(stream, &mut [0])
            .ok()
            .filter(|length| *length > 0)
    });
    assert_eq!(alive.count(), 1, "that of the server that is up");

    // Held, they are served when there are enough again.
    let longer = fixture.config.to_string() + "\n[defaults.timeout]\nno-server = \"20s\"\n";
    fixture.rlb.reload(&longer);
    let mut held = connect(fixture.rlb.address());
    eventually_true(WITHIN, "it is held", || {
        fixture.rlb.number("BACKEND", "scur") >= 2
    });
    let _back = Peer::start_on(port, Behaviour::SpeaksFirst("1"));
    read_some(&mut held, &mut [0]).expect("a server");
    fixture
        .rlb
        .events()
        .wait_for("backend be is UP again: 2 servers usable, min-servers 2.");
    fixture.rlb.stop_after((kept, held));
}
