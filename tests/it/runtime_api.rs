//! The runtime socket: framing, commands, bounds, and the two sub-commands that use it.

use crate::harness::client::{TIMEOUT, connect, echo, hear, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually, eventually_true};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::{STOP_WITHIN, command};
use crate::harness::runtime::Fixture;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

fn two(one: &Peer, other: &Peer) -> Config {
    Config::new()
        .server_with(one.address(), "check = false")
        .server_with(other.address(), "check = false")
}

fn fixture(level: &str) -> (Fixture, Peer, Peer) {
    let (one, two_) = (
        Peer::start(Behaviour::Says("1")),
        Peer::start(Behaviour::Says("2")),
    );
    (Fixture::new(two(&one, &two_), level), one, two_)
}

#[test]
fn answers_are_framed_as_haproxys() {
    let (fixture, _one, _two) = fixture("admin");
    assert_eq!(fixture.ask("show version"), "3.0.0-rlb0.1.0\n\n");
    let both = fixture.ask("show version;set server be/s1 state ready ; show version;");
    assert_eq!(both, "3.0.0-rlb0.1.0\n\n\n3.0.0-rlb0.1.0\n\n\n");
    let info = fixture.ask("show info");
    assert!(info.starts_with("Name: "), "{info}");
    assert!(info.ends_with("\n\n"), "an empty line at the end");
    assert!(info.lines().count() > 70, "{info}");
    let unknown = fixture.ask("nosuch command");
    assert!(
        unknown.starts_with("Unknown command: 'nosuch command'"),
        "{unknown}"
    );
    assert!(
        fixture
            .ask("help")
            .starts_with("The following commands are valid at this level:\n")
    );

    let mut stream = UnixStream::connect(fixture.socket()).expect("the socket is there");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    stream
        .write_all(b"prompt\nshow version\n\nquit\n")
        .expect("sent");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("closed by quit");
    assert_eq!(said, "\n> 3.0.0-rlb0.1.0\n\n> \n> ");
    fixture.rlb.stop();
}

#[test]
fn states_and_weights_are_set_and_survive_a_reload() {
    let (mut fixture, _one, _two) = fixture("admin");
    let address = fixture.rlb.address();
    for (line, said) in [
        ("set server be/s1 state maint", "\n"),
        (
            "set server be/s1 state bogus",
            "'set server <srv> state' expects 'ready', 'drain' and 'maint'.\n\n",
        ),
        ("set server be/nosuch state maint", "No such server.\n\n"),
        ("set server nosuch/s1 state maint", "No such backend.\n\n"),
        ("set server be state maint", "Require 'backend/server'.\n\n"),
        (
            "set server be/s2 weight 300",
            "Absolute weight can only be between 0 and 256 inclusive.\n\n",
        ),
        ("set server be/s2 weight 50", "\n"),
        ("get weight be/s2", "50 (initial 1)\n\n"),
    ] {
        assert_eq!(fixture.ask(line), said, "{line}");
    }
    // The answer comes when the change is in force.
    assert_eq!(fixture.rlb.status("s1"), "MAINT");
    for _ in 0..4 {
        assert_eq!(hear(address).0, "2");
    }
    let config = fixture.config.clone().backend("retries = 1");
    fixture.rlb.reload(&config);
    assert_eq!(fixture.rlb.status("s1"), "MAINT");
    assert_eq!(fixture.ask("get weight be/s2"), "50 (initial 1)\n\n");
    assert_eq!(
        fixture.ask("set server be/s1 state ready;set server be/s2 state drain"),
        "\n\n"
    );
    for _ in 0..4 {
        assert_eq!(hear(address).0, "1");
    }
    let state = fixture.ask("show servers state be");
    let lines: Vec<&str> = state.lines().collect();
    assert_eq!(lines[0], "1");
    assert!(lines[1].starts_with("# be_id be_name srv_id"), "{state}");
    assert!(lines[2].contains(" be 1 s1 127.0.0.1 2 0 1 1 "), "{state}");
    assert!(lines[3].contains(" be 2 s2 127.0.0.1 2 8 50 1 "), "{state}");
    assert_eq!(lines[2].split(' ').count(), 25, "as many as the header");
    let events = fixture.rlb.events();
    assert_eq!(events.with("be/s1 is going DOWN for maintenance").len(), 1);
    fixture.rlb.stop();
}

/// The status in the statistics, then operational state, administrative state, weight in force and weight of
/// the file, from `show servers state`.
type Seen = (String, [u32; 4]);

fn seen(fixture: &Fixture, server: &str) -> Seen {
    let state = fixture.ask("show servers state be");
    let line = state
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let fields = line.skip(2).find(|it| it.get(3) == Some(&server));
    let fields = fields.unwrap_or_else(|| panic!("no {server} in {state}"));
    let number = |at: usize| fields[at].parse().expect("a number");
    let csv = fixture.rlb.csv();
    let row = csv.row("be", server);
    assert_eq!(
        row.number("weight"),
        u64::from(number(7)),
        "{server}: {state}"
    );
    (row.status().to_owned(), [5, 6, 7, 8].map(number))
}

/// How many of `connections` each of four servers gets.
fn shares(fixture: &Fixture, connections: usize) -> [usize; 4] {
    let mut shares = [0; 4];
    for _ in 0..connections {
        let server: usize = hear(fixture.rlb.address()).0.parse().expect("a number");
        shares[server - 1] += 1;
    }
    shares
}

#[test]
fn what_an_operator_set_yields_only_to_the_files_own_change() {
    let words = ["1", "2", "3", "4"];
    let peers = words.map(|word| Peer::start(Behaviour::Says(word)));
    let keys = [
        "weight = 11",
        "weight = 12",
        "weight = 13",
        "disabled = true",
    ];
    let servers = peers.iter().zip(keys);
    let config = servers.fold(Config::new(), |config, (peer, keys)| {
        config.server_with(peer.address(), &format!("check = false, {keys}"))
    });
    let mut fixture = Fixture::new(config, "admin");
    for (server, wish) in [
        ("s1", "state maint"),
        ("s2", "state drain"),
        ("s3", "weight 1"),
        ("s4", "state ready"),
    ] {
        assert_eq!(fixture.ask(&format!("set server be/{server} {wish}")), "\n");
    }
    let mut file = fixture.config.to_string();
    let seen_as = |status: &str, numbers| (status.to_owned(), numbers);
    let mut expected = [
        seen_as("MAINT", [0, 0x01, 11, 11]),
        seen_as("DRAIN", [2, 0x08, 12, 12]),
        seen_as("no check", [2, 0, 1, 13]),
        seen_as("no check", [2, 0x04, 1, 1]),
    ];
    let all = |fixture: &Fixture| ["s1", "s2", "s3", "s4"].map(|server| seen(fixture, server));
    assert_eq!(all(&fixture), expected);
    assert_eq!(shares(&fixture, 4), [0, 0, 2, 2]);

    // Nothing changes; then the backend changes, which recreates all its servers.
    for line in ["", "retries = 1\n"] {
        let backend = "name = \"be\"\n";
        file = file.replace(backend, &format!("{backend}{line}"));
        fixture.rlb.reload(&file);
        assert_eq!(all(&fixture), expected, "{line:?}");
        assert_eq!(shares(&fixture, 4), [0, 0, 2, 2], "{line:?}");
    }
    // A reload that is refused does not revert anything, either.
    let bad = file.replace("weight = 13", "weight = 1300");
    fixture.rlb.reload_refused(&bad);
    assert_eq!(all(&fixture), expected);

    // New weights of the file come into force and change no state.
    file = file.replace("weight = 11", "weight = 21");
    file = file.replace("weight = 13", "weight = 3");
    fixture.rlb.reload(&file);
    expected[0].1 = [0, 0x01, 21, 21];
    expected[2].1 = [2, 0, 3, 3];
    assert_eq!(all(&fixture), expected);
    assert_eq!(shares(&fixture, 8), [0, 0, 6, 2]);
    assert_eq!(fixture.ask("get weight be/s3"), "3 (initial 3)\n\n");

    // The file's own `disabled`, too; the operator's drain applies again afterwards.
    let enabled = file.clone();
    file = file.replace("weight = 12", "weight = 12, disabled = true");
    fixture.rlb.reload(&file);
    assert_eq!(seen(&fixture, "s2"), seen_as("MAINT", [0, 0x0d, 12, 12]));
    fixture.rlb.reload(&enabled);
    assert_eq!(all(&fixture), expected);

    // Weights that were set only over the socket still distribute connections after a reload.
    let ready = "set server be/s1 state ready;set server be/s2 state ready";
    let weights = "set server be/s1 weight 4;set server be/s2 weight 2";
    assert_eq!(fixture.ask(&format!("{ready};{weights}")), "\n\n\n\n");
    let mut sums = shares(&fixture, 5);
    fixture
        .rlb
        .reload(&enabled.replace("retries = 1", "retries = 2"));
    for (sum, more) in sums.iter_mut().zip(shares(&fixture, 5)) {
        *sum += more;
    }
    assert_eq!(sums, [4, 2, 3, 1], "one round of ten, a reload within it");
    fixture.rlb.stop();
}

#[test]
fn the_statistics_are_those_of_the_page() {
    let (fixture, _one, _two) = fixture("user");
    let stat = fixture.ask("show stat");
    assert!(stat.starts_with("# pxname,svname,"), "{stat}");
    let services = |text: &str| -> Vec<String> {
        let rows = text.lines().skip(1).filter(|line| !line.is_empty());
        rows.map(|row| row.split(',').take(2).collect::<Vec<_>>().join("/"))
            .collect()
    };
    let all = services(&stat);
    assert!(all.contains(&"be/s1".to_owned()) && all.contains(&"fe/FRONTEND".to_owned()));
    assert_eq!(
        services(&fixture.ask("show stat -1 4 -1")),
        ["be/s1", "be/s2"]
    );
    assert_eq!(services(&fixture.ask("show stat be 2 -1")), ["be/BACKEND"]);
    assert_eq!(fixture.ask("show stat nosuch 1 -1"), "No such proxy.\n\n");
    // A user may read and change nothing.
    assert_eq!(
        fixture.ask("set server be/s1 state maint"),
        "Permission denied\n\n"
    );
    assert_eq!(fixture.ask("reload"), "Permission denied\n\n");
    fixture.rlb.stop();
}

#[test]
fn what_tools_ask_for_first_is_answered_as_haproxy_does() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .server_with(peer.address(), "check = false")
        .table(&format!(
            "[[listen]]\nname = \"another\"\nbind = [\"127.0.0.1:0\"]\n\
             servers = [{{ name = \"s1\", address = \"{}\", check = false }}]",
            peer.address()
        ));
    let fixture = Fixture::new(config, "admin");
    assert_eq!(
        fixture.ask("show backend"),
        "# name\nstats\nbe\nanother\n\n"
    );
    let errors = fixture.ask("show errors");
    let date = errors.strip_prefix("Total events captured on [");
    let date = date.and_then(|rest| rest.strip_suffix("] : 0\n\n"));
    let length = date.map(str::len);
    assert_eq!(length, Some("22/Nov/2026:06:52:25.978".len()), "{errors}");
    let sockets = format!(
        "# socket lvl processes\nunix@{} admin all\n\n",
        fixture.socket().display()
    );
    assert_eq!(fixture.ask("show cli sockets"), sockets);
    let json = |line: &str| -> serde_json::Value {
        serde_json::from_str(&fixture.ask(line)).unwrap_or_else(|error| panic!("{line}: {error}"))
    };
    assert_eq!(json("show info json")[1]["field"]["name"], "Version");
    assert_eq!(json("show stat json")[0][0]["objType"], "Frontend");
    assert_eq!(json("show schema json")["oneOf"][0]["title"], "Info");
    assert!(
        fixture
            .ask("show info desc")
            .contains(":\"Product name\"\n")
    );
    fixture.rlb.stop();
}

#[test]
fn a_client_may_lower_itself_and_no_other() {
    let (fixture, _one, _two) = fixture("admin");
    assert_eq!(
        fixture.ask("show cli level;operator;show cli level;reload;show sess;user;show cli level"),
        "admin\n\n\noperator\n\nPermission denied\n\n\n\nuser\n\n"
    );
    // The level cannot be raised again, and commands that are not allowed are not listed.
    assert_eq!(
        fixture.ask("user;operator;show sess"),
        "\nPermission denied\n\nPermission denied\n\n"
    );
    assert!(!fixture.ask("operator;help").contains("reload"));
    assert_eq!(fixture.ask("show cli level"), "admin\n\n");
    fixture.rlb.stop();
}

#[test]
fn sessions_of_a_server_are_shut_down() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new().server_with(peer.address(), "check = false");
    let fixture = Fixture::new(config, "admin");
    let mut stream = connect(fixture.rlb.address());
    echo(&mut stream, b"before");
    assert_eq!(fixture.ask("shutdown sessions server be/s1"), "\n");
    read_to_end(&mut stream);
    eventually_true(STOP_WITHIN, "the session is over", || {
        fixture.rlb.number("s1", "scur") == 0
    });
    echo(&mut connect(fixture.rlb.address()), b"new ones are welcome");
    fixture.rlb.stop();
}

#[test]
fn the_command_line_reloads_and_says_what_changed() {
    let (fixture, _one, _two) = fixture("admin");
    let path = fixture.rlb.config_path();
    let path = path.to_str().expect("a UTF-8 path");
    let reload = || {
        let output = command(&["reload", "--config", path]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let config = fixture.config.clone();
    fixture.rlb.rewrite(&config.clone().frontend("maxconn = 9"));
    let (code, said, _) = reload();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("~ frontend fe: maxconn none -> 9"), "{said}");
    assert_eq!(
        fixture.rlb.number("FRONTEND", "slim"),
        9,
        "in force when it returns"
    );
    fixture.rlb.rewrite(&config.frontend("maxcon = 10"));
    let (code, _, said) = reload();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("maxcon") && said.contains("unchanged"),
        "{said}"
    );
    let socket = fixture.socket();
    let socket = socket.to_str().expect("a UTF-8 path");
    let output = command(&["ctl", "--socket", socket, "show version"]);
    assert_eq!(output.stdout, b"3.0.0-rlb0.1.0\n\n");
    let output = command(&["ctl", "--socket", socket, "nosuch"]);
    assert_eq!(output.status.code(), Some(1));
    let output = command(&["ctl", "--socket", "/nonexistent", "help"]);
    assert_eq!(output.status.code(), Some(1));
    fixture.rlb.stop();
}

#[test]
fn rude_clients_are_bounded() {
    let (fixture, _one, _two) = fixture("admin");
    let mut stream = UnixStream::connect(fixture.socket()).expect("the socket is there");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    // The rest may not be read any more.
    drop(stream.write_all(&vec![b'x'; 100_000]));
    let mut said = Vec::new();
    drop(stream.read_to_end(&mut said));
    assert!(said.len() < 200, "{}", String::from_utf8_lossy(&said));
    // Ten silent ones are disconnected, and then the eleventh is served.
    let silent: Vec<UnixStream> = (0..10)
        .map(|_| UnixStream::connect(fixture.socket()).expect("the socket is there"))
        .collect();
    let mut stream = UnixStream::connect(fixture.socket()).expect("it waits");
    stream
        .set_read_timeout(Some(2 * TIMEOUT))
        .expect("a timeout");
    writeln!(stream, "show version").expect("the kernel takes it");
    let answer = eventually(3 * TIMEOUT, "an answer", || {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok().map(|_| answer)
    });
    assert_eq!(answer, "3.0.0-rlb0.1.0\n\n");
    drop(silent);
    fixture.rlb.stop();
}
