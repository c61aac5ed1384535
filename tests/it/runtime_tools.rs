//! What tools written for HAProxy's runtime API need, with HAProxy 3.5's answers. Items are those that the tools
//! of three languages, terminal views and scripts failed by.

use crate::harness::client::{TIMEOUT, connect, echo, hear};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually, eventually_true, steadily};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use crate::harness::runtime::Fixture;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

fn echoing() -> (Fixture, Peer) {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new().server_with(peer.address(), "check = false, weight = 10");
    (Fixture::new(config, "admin"), peer)
}

/// The answer to several lines on one connection.
fn converse(fixture: &Fixture, lines: &str) -> String {
    let mut stream = UnixStream::connect(fixture.socket()).expect("the socket is there");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    stream.write_all(lines.as_bytes()).expect("sent");
    stream.shutdown(Shutdown::Write).expect("half closed");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("closed");
    said
}

/// One exchange with the server, finished on both sides.
fn exchange(fixture: &Fixture) {
    let mut stream = connect(fixture.rlb.address());
    echo(&mut stream, b"hello");
    drop(stream);
    eventually_true(STOP_WITHIN, "the session is over", || {
        fixture.rlb.number("BACKEND", "scur") == 0
            && fixture.rlb.number("BACKEND", "ttime_max") < 60_000
    });
}

/// tools.md 1: libraries accept only this name.
#[test]
fn tools_1_the_product_is_called_haproxy_in_every_form() {
    let (fixture, _peer) = echoing();
    let first = |line: &str| fixture.ask(line).lines().next().map(str::to_owned);
    for (line, name) in [
        ("show info", "Name: HAProxy"),
        ("show info typed", "0.Name.1:POSV:str:HAProxy"),
        ("show info desc", "Name: HAProxy:\"Product name\""),
    ] {
        assert_eq!(first(line).as_deref(), Some(name));
    }
    let json: serde_json::Value =
        serde_json::from_str(&fixture.ask("show info json")).expect("JSON");
    assert_eq!(json[0]["value"]["value"], "HAProxy");
    assert!(fixture.ask("show info").contains("\nVersion: 3.0.0-rlb"));
    fixture.rlb.stop();
}

/// tools.md 2.
#[test]
fn tools_2_connections_of_servers_are_listed() {
    let (fixture, peer) = echoing();
    let header = "# bkname/svname bkid/svid addr port - purge_delay served used_cur used_max \
                  need_est idle_sess unsafe_nb safe_nb idle_lim idle_cur idle_per_thr[2]\n";
    let port = peer.address().port();
    let mut stream = connect(fixture.rlb.address());
    echo(&mut stream, b"hello");
    let state = fixture.ask("show servers state be");
    let id = state.lines().nth(2).and_then(|line| line.split(' ').next());
    let id = id.expect("a line").to_owned();
    let line = format!("be/s1 {id}/1 127.0.0.1 {port} - 5000 1 1 1 1 0 0 0 -1 0 0 0\n");
    let whole = format!("{header}{line}\n");
    for of in ["", " be", &format!(" #{id}")] {
        assert_eq!(fixture.ask(&format!("show servers conn{of}")), whole);
    }
    // The proxy of the statistics is a backend without servers.
    assert_eq!(
        fixture.ask("show servers conn stats"),
        format!("{header}\n")
    );
    let none = "Can't find backend.\n\n";
    assert_eq!(fixture.ask("show servers conn nope"), none);
    fixture.rlb.stop_after(stream);
}

/// tools.md 2.
#[test]
fn tools_2_the_limits_of_the_process_and_of_frontends_are_set() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .global("maxconn = 100")
        .server_with(peer.address(), "check = false");
    let mut fixture = Fixture::new(config, "admin");
    let range = "Value out of range.\n\n";
    for (line, answer) in [
        ("set maxconn frontend", "A frontend name is expected.\n\n"),
        ("set maxconn frontend be 5", "No such frontend.\n\n"),
        ("set maxconn frontend fe", "Integer value expected.\n\n"),
        ("set maxconn frontend fe -1", range),
        ("set maxconn frontend fe 1", "\n"),
        ("set maxconn frontend stats 50", "\n"),
        ("set maxconn global", "Expects an integer value.\n\n"),
        ("set maxconn global 101", range),
        ("set maxconn global -1", range),
    ] {
        assert_eq!(fixture.ask(line), answer, "{line}");
    }
    assert_eq!(fixture.rlb.csv().row("fe", "FRONTEND").number("slim"), 1);
    assert_eq!(
        fixture.rlb.csv().row("stats", "FRONTEND").number("slim"),
        50
    );
    let mut first = connect(fixture.rlb.address());
    echo(&mut first, b"one");
    let mut second = connect(fixture.rlb.address());
    second.write_all(b"two").expect("sent");
    // The second has no place before the limit is raised.
    let sessions = || fixture.rlb.csv().row("fe", "FRONTEND").number("scur");
    assert_eq!(sessions(), 1);
    assert_eq!(fixture.ask("set maxconn frontend fe 2"), "\n");
    let mut echoed = [0; 3];
    second.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    second.read_exact(&mut echoed).expect("served");
    assert_eq!((&echoed, sessions()), (b"two", 2));

    // A reload keeps it, as long as the file's own value stays.
    let config = fixture.config.clone().backend("retries = 1");
    fixture.rlb.reload(&config);
    let limit = |fixture: &Fixture| fixture.rlb.csv().row("fe", "FRONTEND").number("slim");
    assert_eq!(limit(&fixture), 2);
    fixture.rlb.reload(&config.frontend("maxconn = 7"));
    assert_eq!(limit(&fixture), 7);
    assert_eq!(fixture.ask("set maxconn global 2"), "\n");
    let info = fixture.ask("show info");
    assert!(info.contains("\nMaxconn: 2\nHard_maxconn: 100\n"), "{info}");
    let mut third = connect(fixture.rlb.address());
    third.write_all(b"3").expect("sent");
    assert_eq!(fixture.rlb.csv().row("fe", "FRONTEND").number("scur"), 2);
    assert_eq!(fixture.ask("set maxconn global 0"), "\n");
    third.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    third.read_exact(&mut echoed[..1]).expect("served");
    fixture.rlb.stop_after((first, second, third));
}

/// `set maxconn frontend … 0`, and a word that is no number, lifted the limit; HAProxy accepts nothing then. Neither
/// a stop nor a reload waits for the clients that wait for the limit.
#[test]
fn a_maxconn_of_0_lets_nothing_in() {
    let (mut fixture, _peer) = echoing();
    let mut served = connect(fixture.rlb.address());
    echo(&mut served, b"before");
    let mut waiting = Vec::new();
    for value in ["0", "foo"] {
        let command = format!("set maxconn frontend fe {value}");
        assert_eq!(fixture.ask(&command), "\n");
        assert_eq!(fixture.rlb.csv().row("fe", "FRONTEND").number("slim"), 0);
        let mut stream = connect(fixture.rlb.address());
        stream.write_all(b"waits").expect("the kernel takes it");
        let sessions = || fixture.rlb.csv().row("fe", "FRONTEND").number("scur");
        steadily(Duration::from_millis(100), "nothing is accepted", || {
            sessions() == 1 + waiting.len() as u64
        });
        echo(&mut served, b"it is still served");
        waiting.push(stream);
        assert_eq!(fixture.ask("set maxconn frontend fe 9"), "\n");
        let mut echoed = [0; 5];
        let stream = waiting.last_mut().expect("just pushed");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        stream.read_exact(&mut echoed).expect("served");
        assert_eq!(&echoed, b"waits");
    }
    assert_eq!(fixture.ask("set maxconn frontend fe 0"), "\n");
    // The frontend is closed by a reload while clients wait, some of them with data.
    let unserved = |address| {
        let mut stream = connect(address);
        stream.write_all(b"waits").expect("the kernel takes it");
        stream
    };
    let mut closed: Vec<_> = (0..3).map(|_| unserved(fixture.rlb.address())).collect();
    let elsewhere = fixture.config.clone().bind("127.0.0.2:0");
    fixture.rlb.reload(&elsewhere);
    for stream in &mut closed {
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        assert!(
            !matches!(stream.read(&mut [0]), Ok(1..)),
            "nobody serves it"
        );
    }
    let moved = eventually(STOP_WITHIN, "it listens elsewhere", || {
        let events = fixture.rlb.events().with("\"127.0.0.2:");
        let port = events.first()?.split("127.0.0.2:").nth(1)?;
        port.split('"').next()?.parse::<u16>().ok()
    });
    let _waits = unserved(([127, 0, 0, 2], moved).into());
    fixture.rlb.stop_after((served, waiting));
}

/// A `maxconn` of 0 of the statistics' proxy lifted its limit.
#[test]
fn a_maxconn_of_0_closes_the_statistics() {
    let (fixture, _peer) = echoing();
    let get = || fixture.rlb.http_get("/metrics");
    assert_eq!(get().expect("served").0, 200);
    assert_eq!(fixture.ask("set maxconn frontend stats 0"), "\n");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(get);
        let sessions = || fixture.ask("show stat stats 1 -1");
        steadily(Duration::from_millis(100), "nothing is served", || {
            sessions().contains("stats,FRONTEND,,,0,") && !waiting.is_finished()
        });
        assert_eq!(fixture.ask("set maxconn frontend stats 9"), "\n");
        let answer = waiting.join().expect("no panic").expect("served");
        assert_eq!(answer.0, 200);
    });
    fixture.rlb.stop();
}

/// tools.md 2.
#[test]
fn tools_2_counters_are_cleared() {
    let (fixture, _peer) = echoing();
    let row = |name: &str, column: &str| fixture.rlb.number(name, column);
    exchange(&fixture);
    exchange(&fixture);
    assert_eq!((row("s1", "stot"), row("s1", "smax")), (2, 1));
    assert_eq!(fixture.ask("clear counters"), "\n");
    assert_eq!((row("s1", "stot"), row("s1", "smax")), (2, 0));
    assert_eq!(row("FRONTEND", "smax"), 0);
    for line in [
        "clear counters server be/s1",
        "clear counters server be/s1 force",
    ] {
        assert_eq!(fixture.ask(line), "Server counters cleared.\n\n");
        assert_eq!((row("s1", "stot"), row("s1", "bin")), (0, 0));
        assert_eq!((row("BACKEND", "stot"), row("BACKEND", "bin")), (2, 10));
    }
    for (line, answer) in [
        ("clear counters server be", "Require 'backend/server'.\n\n"),
        ("clear counters server nope/s1", "No such backend.\n\n"),
        ("clear counters server be/nope", "No such server.\n\n"),
        ("operator;clear counters all", "\nPermission denied\n\n"),
        ("operator;clear counters", "\n\n"),
        ("clear counters all", "\n"),
    ] {
        assert_eq!(fixture.ask(line), answer, "{line}");
    }
    let csv = fixture.ask("show stat");
    let csv = csv.lines().skip(1).filter(|line| !line.is_empty());
    for line in csv {
        let fields: Vec<&str> = line.split(',').collect();
        // stot, bin, bout, smax; lastsess of backends and servers
        assert!(["0", ""].contains(&fields[7]) && fields[8] == "0", "{line}");
        assert!(fields[9] == "0" && fields[5] == "0", "{line}");
        assert!(["-1", ""].contains(&fields[55]), "{line}");
    }
    // The process's own total goes on, as in HAProxy.
    exchange(&fixture);
    assert_eq!((row("s1", "stot"), row("BACKEND", "stot")), (1, 1));
    fixture.rlb.stop();
}

/// tools.md 5: libraries send such words.
#[test]
fn tools_5_unknown_words_behind_show_info_and_show_stat_are_ignored() {
    let (fixture, _peer) = echoing();
    assert!(fixture.ask("show info json False").starts_with("[{"));
    assert!(
        fixture
            .ask("show info bogus")
            .starts_with("Name: HAProxy\n")
    );
    let exact = fixture.ask("show info float");
    let uptime = exact
        .lines()
        .find_map(|line| line.strip_prefix("Uptime_sec: "));
    let uptime = uptime.and_then(|it| it.split_once('.'));
    assert_eq!(uptime.map(|(_, it)| it.len()), Some(6), "{exact}");
    for line in [
        "show stat domain proxy",
        "show stat bogus",
        "show stat no-maint bogus",
    ] {
        assert!(fixture.ask(line).starts_with("# pxname,svname,"), "{line}");
    }
    let id = fixture.rlb.csv().row("fe", "FRONTEND").number("iid");
    let only = fixture.ask(&format!("show stat #{id} 1 -1 bogus"));
    assert!(
        only.lines()
            .nth(1)
            .is_some_and(|line| line.starts_with("fe,FRONTEND,"))
    );
    assert_eq!(only.lines().filter(|line| !line.is_empty()).count(), 2);
    for line in [
        "show stat 0 1 1",
        "show stat nope 1 1",
        "show stat nope x y",
    ] {
        assert_eq!(fixture.ask(line), "No such proxy.\n\n", "{line}");
    }
    let domain = fixture.ask("show stat domain bogus");
    assert_eq!(domain, "Invalid statistics domain.\n\n");
    assert_eq!(fixture.ask("show errors nope"), "No such proxy.\n\n");
    let fine = fixture.ask("show errors fe");
    assert!(fine.starts_with("Total events captured on ["), "{fine}");
    fixture.rlb.stop();
}

/// tools.md 7 and 8: one library throws the first name away.
#[test]
fn tools_7_and_8_backends_begin_with_the_statistics_and_numbers_name_objects() {
    let (fixture, _peer) = echoing();
    assert_eq!(fixture.ask("show backend"), "# name\nstats\nbe\n\n");
    let csv = fixture.rlb.csv();
    let (fe, be) = (
        csv.row("fe", "FRONTEND").number("iid"),
        csv.row("be", "BACKEND").number("iid"),
    );
    for (line, answer) in [
        (format!("get weight #{be}/s1"), "10 (initial 10)\n\n"),
        (format!("get weight #{be}/#1"), "10 (initial 10)\n\n"),
        (format!("get weight #{fe}/s1"), "No such backend.\n\n"),
        ("get weight be/#9".to_owned(), "No such server.\n\n"),
        (format!("set server #{be}/#1 weight 7"), "\n"),
        ("get weight be/s1".to_owned(), "7 (initial 10)\n\n"),
        (format!("set maxconn frontend #{fe} 9"), "\n"),
        (format!("show sess frontend #{fe}"), "\n"),
        (format!("show sess server #{be}/#1"), "\n"),
        ("show sess backend #99".to_owned(), "No such backend.\n\n"),
    ] {
        assert_eq!(fixture.ask(&line), answer, "{line}");
    }
    assert_eq!(fixture.rlb.csv().row("fe", "FRONTEND").number("slim"), 9);
    fixture.rlb.stop();
}

/// tools.md 8.
#[test]
fn tools_8_the_prompt_has_haproxys_modes() {
    let (fixture, _peer) = echoing();
    let version = "3.0.0-rlb0.1.0";
    let said = converse(
        &fixture,
        "prompt i\nshow version\n\nprompt\nshow version\nprompt n\nshow version\n",
    );
    assert_eq!(said, format!("\n{version}\n\n\n\n> {version}\n\n> \n"));
    assert_eq!(
        converse(&fixture, "prompt p\nprompt\nshow version\n"),
        "\n> \n"
    );
    let timed = converse(&fixture, "prompt timed\n");
    assert!(
        timed.starts_with("\n[0:00:00:") && timed.ends_with("]> "),
        "{timed}"
    );
    assert!(converse(&fixture, "prompt x\n").starts_with("Usage: prompt [help | n | i"));
    fixture.rlb.stop();
}

/// An empty command was answered by the help. Each answer here is that of HAProxy 3.5; the prompt comes once a line.
#[test]
fn an_empty_command_has_an_empty_answer() {
    let (fixture, _peer) = echoing();
    for (lines, answer) in [
        ("\n", "\n"),
        (" \n", "\n"),
        (";\n", "\n\n"),
        (";;\n", "\n\n\n"),
        (
            "get weight be/s1;;get weight be/s1\n",
            "10 (initial 10)\n\n\n10 (initial 10)\n\n",
        ),
        ("get weight be/s1; \n", "10 (initial 10)\n\n\n"),
        ("prompt\n\n;;\n", "\n> \n> \n\n\n> "),
        ("prompt;;get weight be/s1\n", "\n\n10 (initial 10)\n\n> "),
        ("prompt i\n\n;;\n", "\n\n\n\n\n"),
    ] {
        assert_eq!(converse(&fixture, lines), answer, "{lines}");
    }
    fixture.rlb.stop();
}

/// tools.md 8: the last session of a backend is one that a server has answered.
#[test]
fn tools_8_a_backend_that_reached_no_server_has_had_no_session() {
    let peer = Peer::start(Behaviour::Echo);
    let address = peer.address();
    let free = peer.stop();
    let config = Config::new()
        .timeout("connect = \"200ms\"")
        .server_with(address, "check = false");
    let rlb = Rlb::start(&config);
    hear(rlb.address());
    eventually_true(STOP_WITHIN, "the session is over", || {
        rlb.csv().row("be", "BACKEND").number("econ") == 1
    });
    assert_eq!(rlb.csv().row("be", "BACKEND").text("lastsess"), "-1");
    drop(free);
    rlb.stop();
}

/// tools.md 8.
#[test]
fn tools_8_a_disabled_frontend_does_not_count_for_fullconn() {
    let (_fixture, peer) = echoing();
    let config = Config::new()
        .frontend("maxconn = 400")
        .server_with(peer.address(), "check = false")
        .table(
            "[[frontend]]\nname = \"off\"\nbind = [\"127.0.0.1:0\"]\ndisabled = true\n\
             maxconn = 5000\ndefault-backend = \"be\"",
        );
    let rlb = Rlb::start(&config);
    assert_eq!(rlb.csv().row("be", "BACKEND").number("slim"), 40);
    rlb.stop();
}

/// tools.md 8: the lines of HAProxy's stop.
#[test]
fn tools_8_a_stop_tells_what_each_proxy_has_had() {
    let peer = Peer::start(Behaviour::Echo);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let config = Config::new()
        .server_with(peer.address(), "check = false")
        .log(format!("file:{}", path.display()), "raw");
    let rlb = Rlb::start(&config);
    echo(&mut connect(rlb.address()), b"hello");
    rlb.stop();
    let log = std::fs::read_to_string(&path).expect("a log");
    let stopped: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("stopped ("))
        .collect();
    let ends = |line: &str, end: &str| assert!(line.ends_with(end), "{line}");
    assert_eq!(stopped.len(), 3, "{log}");
    assert!(
        stopped[0].contains("Proxy stats stopped (cumulated conns: FE: "),
        "{log}"
    );
    ends(stopped[0], ", BE: 0).");
    ends(
        stopped[1],
        "Proxy fe stopped (cumulated conns: FE: 1, BE: 0).",
    );
    ends(
        stopped[2],
        "Proxy be stopped (cumulated conns: FE: 0, BE: 1).",
    );
}
