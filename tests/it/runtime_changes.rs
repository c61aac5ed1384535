//! Changes of servers over the runtime socket: health, checks, addresses, servers that come and go; what of it was
//! set and is not in the file; and how it ends. Answers are HAProxy 3.5's.

use crate::harness::client::{connect, echo, hear};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually, eventually_eq, eventually_true};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::{STOP_WITHIN, command};
use crate::harness::runtime::Fixture;
use crate::runtime_proxies::upgrade;

fn says(word: &'static str) -> Peer {
    Peer::start(Behaviour::Says(word))
}

/// Asks each line and compares the answer.
fn asked(fixture: &Fixture, lines: &[(&str, &str)]) {
    for (line, answer) in lines {
        assert_eq!(fixture.ask(line), *answer, "{line}");
    }
}

#[test]
fn health_is_forced_and_checks_are_switched_off_and_on() {
    let (one, two) = (says("1"), says("2"));
    let config = Config::new()
        .server_with(one.address(), "check = { interval = \"1h\" }")
        .server_with(two.address(), "check = false");
    let fixture = Fixture::new(config, "admin");
    let expects = "'set server <srv> health' expects 'up', 'stopping', or 'down'.\n\n";
    let not_configured = "Health check was not configured on this server, cannot enable.\n\n";
    asked(
        &fixture,
        &[
            ("set server be/s1 health", expects),
            ("set server be/s1 health foo", expects),
            ("set server be/s1 health down", "\n"),
            ("enable health be/s2", not_configured),
            ("disable health be/s2", "\n"),
            ("enable health be/zz", "No such server.\n\n"),
            ("enable health", "Require 'backend/server'.\n\n"),
            ("enable agent", "Require 'backend/server'.\n\n"),
            (
                "enable agent be/s1",
                "Agent was not configured on this server, cannot enable.\n\n",
            ),
            ("disable agent be/s1", "\n"),
        ],
    );
    // The check at the start may have passed since.
    let status = fixture.rlb.status("s1");
    assert!(status.starts_with("DOWN"), "{status}");
    assert_eq!(hear(fixture.rlb.address()).0, "2");
    let events = fixture.rlb.events();
    assert_eq!(
        events.with("Server be/s1 is DOWN, changed from CLI.").len(),
        1
    );
    assert_eq!(fixture.ask("set server be/s1 health stopping"), "\n");
    assert_eq!(fixture.rlb.status("s1"), "NOLB");
    assert_eq!(fixture.ask("set server be/s1 health up"), "\n");
    assert_eq!(fixture.rlb.status("s1"), "UP");
    assert_eq!(fixture.ask("disable health be/s1"), "\n");
    assert_eq!(fixture.rlb.status("s1"), "no check");
    assert_eq!(fixture.rlb.csv().row("be", "s1").text("check_status"), "");
    assert_eq!(fixture.ask("enable health be/s1"), "\n");
    assert_eq!(fixture.rlb.status("s1"), "UP");
    // The check runs again: one that is refused takes the server down.
    let free = one.stop();
    assert_eq!(fixture.ask("set server be/s1 check-port 1"), "\n");
    eventually_true(STOP_WITHIN, "the check has failed", || {
        fixture.rlb.csv().row("be", "s1").text("check_status") == "L4CON"
    });
    drop(free);
    fixture.rlb.stop();
}

#[test]
fn addresses_of_servers_and_checks_are_set() {
    let (one, two) = (says("1"), says("2"));
    let config = Config::new().server_with(one.address(), "check = { interval = \"100ms\" }");
    let mut fixture = Fixture::new(config, "admin");
    let (from, to) = (one.address().port(), two.address().port());
    let by = "by 'stats socket command'\n\n";
    asked(
        &fixture,
        &[
            (
                "set server be/s1 addr 127.0.0.1",
                &format!("no need to change the addr {by}"),
            ),
            (
                &format!("set server be/s1 addr 127.0.0.1 port {to}"),
                &format!("no need to change the addr, port changed from '{from}' to '{to}' {by}"),
            ),
            ("set server be/s1 addr foo", "Invalid addr 'foo'\n\n"),
            (
                "set server be/s1 addr",
                "set server <b>/<s> addr requires an address and optionally a port.\n\n",
            ),
            (
                "set severity-output number;set server be/s1 addr 127.0.0.1",
                &format!("\n[4]: no need to change the addr {by}"),
            ),
            (
                "set server be/s1 check-port foo",
                "provided port is not an integer\n\n",
            ),
            (
                "set server be/s1 check-port",
                "set server <b>/<s> check-port requires a port.\n\n",
            ),
            (
                "set server be/s1 fqdn a.b",
                "set server <b>/<s> fqdn failed because no resolution is configured.\n\n",
            ),
            (
                "set server be/s1 agent up",
                "agent checks are not enabled on this server.\n\n",
            ),
        ],
    );
    // New connections and the check go to the new address.
    assert_eq!(hear(fixture.rlb.address()).0, "2");
    let free = one.stop();
    let accepted = two.accepted();
    eventually_true(STOP_WITHIN, "checks go to the new address", || {
        two.accepted() > accepted + 2
    });
    assert_eq!(fixture.rlb.status("s1"), "UP");
    // A reload that changes something else keeps it.
    let file = fixture.config.clone().backend("retries = 1");
    fixture.rlb.reload(&file);
    assert_eq!(hear(fixture.rlb.address()).0, "2");
    let listed = fixture.ask("show overrides");
    let line = format!("server be/s1 address 127.0.0.1:{from} 127.0.0.1:{to}\n");
    assert_eq!(listed, format!("# object setting file now\n{line}\n"));
    drop(free);
    fixture.rlb.stop();
}

#[test]
fn servers_are_added_and_removed() {
    let (one, two) = (says("1"), says("2"));
    let config = Config::new().server_with(one.address(), "check = false");
    let mut fixture = Fixture::new(config, "admin");
    let new = format!(
        "add server be/n1 {} weight 3 check inter 100",
        two.address()
    );
    let exists = "Already exists a server with the same name in backend.\n\n";
    let maint = "Only servers in maintenance mode can be deleted.\n\n";
    asked(
        &fixture,
        &[
            ("add server be", "Require 'backend/server'.\n\n"),
            ("add server nope/x 127.0.0.1:1", "No such backend.\n\n"),
            ("add server be/s1 127.0.0.1:1", exists),
            (
                "add server be/n1",
                "'server' expects <name> and <addr>[:<port>] as arguments.\n\n",
            ),
            (
                "add server be/n1 127.0.0.1:1 bogus",
                "unknown keyword 'bogus'.\n\n",
            ),
            (&new, "New server registered.\n\n"),
            (&new, exists),
            ("del server be/s1", maint),
            ("del server be/nope", "No such server.\n\n"),
        ],
    );
    let row = |column: &str| fixture.rlb.csv().row("be", "n1").text(column).to_owned();
    assert_eq!(
        (row("status"), row("weight"), row("sid")),
        ("MAINT".into(), "3".into(), "2".into())
    );
    assert_eq!(hear(fixture.rlb.address()).0, "1");
    asked(
        &fixture,
        &[
            ("set server be/n1 state ready", "\n"),
            ("enable health be/n1", "\n"),
            ("set server be/s1 state maint", "\n"),
        ],
    );
    assert_eq!(hear(fixture.rlb.address()).0, "2");
    eventually_true(STOP_WITHIN, "it is checked", || {
        fixture.rlb.csv().row("be", "n1").text("check_status") == "L4OK"
    });
    // A reload keeps what was added and what was removed.
    assert_eq!(fixture.ask("del server be/s1"), "Server deleted.\n\n");
    let file = fixture.config.clone().backend("retries = 1");
    fixture.rlb.reload(&file);
    assert_eq!(hear(fixture.rlb.address()).0, "2");
    assert!(fixture.rlb.csv().find("be", "s1").is_none());
    let listed = fixture.ask("show overrides");
    let (added, gone) = (two.address(), one.address());
    assert_eq!(
        listed,
        format!(
            "# object setting file now\nserver be/n1 server none {added}\n\
             server be/n1 state maint ready\nserver be/s1 server {gone} none\n\n"
        )
    );
    fixture.rlb.stop();
}

/// The total of the sessions of the server `new`, and its status.
fn counted(fixture: &Fixture) -> Option<(String, String)> {
    let csv = fixture.ask("show stat be 4 -1");
    let row = csv.lines().find(|line| line.starts_with("be,new,"));
    let row = row.map(|row| row.split(',').collect::<Vec<_>>());
    row.map(|row| (row[7].to_owned(), row[17].to_owned()))
}

/// It keeps its sessions and counters; a reload and an upgrade keep the name.
#[test]
fn a_server_gets_another_name() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .server_with(peer.address(), "check = { interval = \"1h\" }")
        .server_with(peer.address(), "check = false, weight = 0");
    let mut fixture = Fixture::new(config, "admin");
    let mut stream = connect(fixture.rlb.address());
    echo(&mut stream, b"hello");
    let maint =
        "Server must be in maintenance mode to be renamed (set server <b>/<s> state maint).\n\n";
    let exists = "A server with the same name already exists in this backend.\n\n";
    let invalid = "Server name contains invalid characters.\n\n";
    let long = format!("set server be/s1 name {}", "x".repeat(64));
    asked(
        &fixture,
        &[
            (
                "set server be/s1 name",
                "set server <b>/<s> name requires a new name.\n\n",
            ),
            ("set server be/nope name x", "No such server.\n\n"),
            ("set server be/s1 name x/y", invalid),
            (&long, "Server name too long.\n\n"),
            (
                "set server be/s1 name FRONTEND",
                "`FRONTEND` cannot be the name of a server.\n\n",
            ),
            (
                "add server be/BACKEND 127.0.0.1:9",
                "`BACKEND` cannot be the name of a server.\n\n",
            ),
            ("set server be/s1 name new", maint),
            ("set server be/s1 state maint", "\n"),
            ("set server be/s1 name s1", "Server name updated.\n\n"),
            ("set server be/s1 name s2", exists),
            ("set server be/#1 name new", "Server name updated.\n\n"),
            ("set server be/s1 state ready", "No such server.\n\n"),
            ("set server be/new state ready", "\n"),
            (
                "show overrides",
                "# object setting file now\nserver be/new name s1 new\n\n",
            ),
        ],
    );
    echo(&mut stream, b"it is still served");
    echo(&mut connect(fixture.rlb.address()), b"so are new ones");
    let total = "2".to_owned();
    // A check follows the maintenance; until then it is "UP 1/3".
    let up = Some((total.clone(), "UP".to_owned()));
    eventually_eq(STOP_WITHIN, &up, || counted(&fixture));
    let events = fixture.rlb.events();
    assert_eq!(events.with("Server be/new renamed from 's1'.").len(), 1);
    let file = fixture.config.clone().backend("retries = 1");
    fixture.rlb.reload(&file);
    assert_eq!(counted(&fixture), Some((total.clone(), "UP".to_owned())));
    drop(stream);
    let path = fixture.rlb.config_path();
    let path = path.to_str().expect("UTF-8");
    let next = upgrade(&fixture, 1);
    assert_eq!(counted(&fixture), Some((total, "UP".to_owned())));
    let output = command(&["reload", "--config", path, "--reset-overrides"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(counted(&fixture), None);
    assert_eq!(
        fixture.ask("set server be/s1 state maint"),
        "\n",
        "it has the file's name again"
    );
    next.stop();
    let status = fixture.rlb.process.wait(STOP_WITHIN);
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_server_with_sessions_is_not_removed_and_wait_tells_when_it_can_be() {
    let peer = Peer::start(Behaviour::Echo);
    let other = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .server_with(peer.address(), "check = false")
        .server_with(other.address(), "check = false, disabled = true");
    let fixture = Fixture::new(config, "admin");
    let mut stream = connect(fixture.rlb.address());
    echo(&mut stream, b"hello");
    let attached = "Server still has connections attached to it, cannot remove it.\n\n";
    asked(
        &fixture,
        &[
            ("wait", "Expects a duration in milliseconds.\n\n"),
            ("wait foo", "Invalid duration.\n\n"),
            (
                "wait 1 srv-removable",
                "Missing server name (<backend>/<server>).\n\n",
            ),
            (
                "wait 1 srv-removable be/nope",
                "Failed. No such server.\n\n",
            ),
            (
                "wait 1 srv-removable be/s1",
                "Failed. Only servers in maintenance mode can be deleted.\n\n",
            ),
            ("set server be/s1 state maint", "\n"),
            ("del server be/s1", attached),
            (
                "wait 10 srv-removable be/s1",
                &format!("Failed. {attached}"),
            ),
            ("wait 10", "Done.\n\n"),
            ("wait 10 srv-removable be/s2", "Done.\n\n"),
            ("echo a  b", "a b\n\n"),
            ("show env NOPE", "Variable not found\n\n"),
            ("operator;wait 1", "\nPermission denied\n\n"),
        ],
    );
    assert!(
        fixture
            .ask("wait -h")
            .starts_with("Usage: wait {-h|<duration>} [")
    );
    echo(&mut stream, b"it is still served");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| fixture.ask("wait 30s srv-removable be/s1"));
        drop(stream);
        assert_eq!(waiting.join().expect("answered"), "Done.\n\n");
    });
    assert_eq!(fixture.ask("del server be/s1"), "Server deleted.\n\n");
    fixture.rlb.stop();
}

#[test]
fn a_reload_drops_overrides_when_it_is_told_to() {
    let (one, two) = (says("1"), says("2"));
    let config = Config::new()
        .global("maxconn = 100")
        .server_with(one.address(), "check = false")
        .server_with(two.address(), "check = false, weight = 2");
    let fixture = Fixture::new(config, "admin");
    assert_eq!(
        fixture.ask("show overrides"),
        "# object setting file now\n\n"
    );
    let added = format!("add server be/n1 {}", two.address());
    asked(
        &fixture,
        &[
            ("set maxconn global 50", "\n"),
            ("set maxconn frontend fe 7", "\n"),
            ("set server be/s1 state drain", "\n"),
            ("set server be/s2 weight 9", "\n"),
            (&added, "New server registered.\n\n"),
        ],
    );
    let listed = fixture.ask("show overrides");
    let address = two.address();
    assert_eq!(
        listed,
        format!(
            "# object setting file now\nglobal maxconn 100 50\nfrontend fe maxconn none 7\n\
             server be/s1 state ready drain\nserver be/s2 weight 2 9\n\
             server be/n1 server none {address}\n\n"
        )
    );
    let path = fixture.rlb.config_path();
    let path = path.to_str().expect("UTF-8");
    let output = command(&["reload", "--config", path, "--reset-overrides"]);
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        output.status.success() && said.contains("overrides dropped: 5"),
        "{said}"
    );
    assert_eq!(
        fixture.ask("show overrides"),
        "# object setting file now\n\n"
    );
    assert!(fixture.rlb.csv().find("be", "n1").is_none());
    assert_eq!(fixture.ask("get weight be/s2"), "2 (initial 2)\n\n");
    assert_eq!(fixture.rlb.status("s1"), "no check");
    // Who did it is in the log.
    let commands = eventually(STOP_WITHIN, "the commands are logged", || {
        let found = fixture.rlb.events().with("runtime command").len();
        (found >= 6).then_some(found)
    });
    assert!(commands >= 6);
    fixture.rlb.stop();
}

/// `reload reset-overrides` put servers into traffic without a word and without a check.
#[test]
fn what_a_reset_of_overrides_does_is_logged_and_checked_at_once() {
    let (one, two) = (says("1"), says("2"));
    let check = "check = { interval = \"1h\", fall = 1 }";
    let config = Config::new()
        .server_with(one.address(), check)
        .server_with(two.address(), check);
    let fixture = Fixture::new(config, "admin");
    asked(
        &fixture,
        &[
            ("set server be/s2 state maint", "\n"),
            ("set server be/s1 weight 9", "\n"),
        ],
    );
    let _refuses = two.stop();
    let said = fixture.ask("reload reset-overrides");
    assert!(said.contains("overrides dropped: 2"), "{said}");
    // The next regular check is an hour away.
    eventually_true(STOP_WITHIN, "the check of s2", || {
        fixture.rlb.status("s2") == "DOWN"
    });
    let events = fixture.rlb.events();
    let ready = events.wait_for("Server be/s2 is UP/READY (leaving forced maintenance).");
    assert!(ready.contains("\"backend\":\"be\""), "{ready}");
    let dropped = events.with("override dropped");
    assert_eq!(dropped.len(), 2, "{dropped:?}");
    for part in ["server be/s1", "weight", "\"was\":\"9\"", "\"file\":\"1\""] {
        assert!(dropped[0].contains(part), "{part}: {dropped:?}");
    }
    fixture.rlb.stop();
}
