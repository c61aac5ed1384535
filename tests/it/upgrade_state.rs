//! What operators have set at run time is in force in the process that takes over, whenever they have set it, and a
//! process that does not take over has changed nothing.

use crate::harness::client::{TIMEOUT, connect, echo};
use crate::harness::config::Config;
use crate::harness::eventually::eventually_true;
use crate::harness::peer::{Behaviour, Peer, Refuses};
use crate::harness::ports;
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use crate::harness::runtime::{Fixture, ask};
use crate::upgrade::{Next, STAY, on, upgrade, upgrade_in_its_last_step};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Administrative state and weight of each server of `be`.
fn states(socket: &Path) -> Vec<String> {
    let text = ask(socket, "show servers state be");
    let servers = text.lines().filter(|line| line.contains(" be "));
    let columns = servers.map(|line| {
        let columns: Vec<&str> = line.split(' ').collect();
        columns[6..8].join(" ")
    });
    columns.collect()
}

/// The old process accepted commands after it had sent its state, and the new process did not know of them.
#[test]
fn what_an_operator_sets_while_the_new_process_starts_is_not_lost() {
    let peers: Vec<Peer> = (0..4).map(|_| Peer::start(Behaviour::Echo)).collect();
    let config = on(ports::free(), &peers).stats_at(ports::free());
    let fixture = Fixture::new(config, "admin");
    let socket = fixture.socket();
    fixture.ask("set maxconn global 500; set server be/s4 state maint");
    let new = upgrade_in_its_last_step(&fixture.rlb);
    for command in [
        "disable server be/s1",
        "set weight be/s2 7",
        "set server be/s3 health down",
        "set maxconn frontend fe 9",
        "set maxconn global 400",
        "del server be/s4",
        "add server be/late 127.0.0.1:9",
    ] {
        let answer = fixture.ask(command);
        let done = ["", "Server deleted.", "New server registered."];
        assert!(done.contains(&answer.trim()), "{command}: {answer}");
    }
    let (states_before, set) = (states(&socket), ask(&socket, "show overrides"));
    assert!(
        fixture.rlb.events().with("upgraded: ").is_empty(),
        "still in the last step"
    );
    let next = Next::logged(&fixture.rlb, 1);
    assert_eq!(next.pid(), new.to_string());
    eventually_true(TIMEOUT, "the new one answers", || {
        ask(&socket, "show info").contains(&format!("Pid: {new}\n"))
    });
    assert_eq!(ask(&socket, "show overrides"), set);
    assert_eq!(states(&socket), states_before);
    assert_eq!(states_before.len(), 4);
    assert_eq!(fixture.rlb.status("s3"), "DOWN");
    next.stop();
}

/// From the moment at which the new process serves, the old one made changes that nobody saw.
#[test]
fn the_old_process_refuses_changes_and_says_who_serves() {
    let peers = [Peer::start(Behaviour::Echo)];
    let address = ports::free();
    let fixture = Fixture::new(on(address, &peers).global(STAY), "admin");
    let socket = fixture.socket();
    let mut stream = connect(address);
    echo(&mut stream, b"keeps the old one");
    let mut client = UnixStream::connect(&socket).expect("the socket is there");
    client.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let mut lines = BufReader::new(client.try_clone().expect("a copy")).lines();
    let mut ask_old = |line: &str| {
        writeln!(client, "{line}").expect("sent");
        let mut answer = lines.by_ref().map(|line| line.expect("an answer"));
        answer.by_ref().find(|line| !line.is_empty())
    };
    let own = format!("{}", fixture.rlb.process.id());
    ask_old("prompt i; show version").expect("an answer");
    assert!(upgrade(&socket).status.success());
    let next = Next::logged(&fixture.rlb, 1);
    for command in [
        "disable server be/s1",
        "set weight be/s1 7",
        "set maxconn frontend fe 9",
        "add server be/late 127.0.0.1:9",
    ] {
        let answer = ask_old(command).expect("an answer");
        let expected = format!("Process {} has taken over", next.pid());
        assert!(answer.starts_with(&expected), "{command}: {answer}");
    }
    // It tells the new one of itself when that serves already.
    eventually_true(TIMEOUT, "the new one knows the old one", || {
        ask(&socket, "show proc").contains(&own)
    });
    let passed = ask(&socket, &format!("@!{own} disable server be/s1"));
    assert!(passed.contains("Nothing was changed"), "{passed}");
    assert!(ask(&socket, "show overrides").lines().count() <= 2);
    echo(&mut stream, b"as before");
    drop(stream);
    next.stop();
}

/// Only states and weights survived an upgrade.
#[test]
fn overrides_survive_upgrades_by_the_rules_of_a_reload() {
    let peers: Vec<Peer> = (0..3).map(|_| Peer::start(Behaviour::Echo)).collect();
    let other = Peer::start(Behaviour::Echo);
    let address = ports::free();
    let check = "check = { interval = \"1h\" }";
    let stats = ports::free();
    let servers = |weight: u32, maxconn: u32| {
        let config = on(address, &peers[1..]).stats_at(stats);
        let config = config.frontend(&format!("maxconn = {maxconn}"));
        config.server_with(peers[0].address(), &format!("{check}, weight = {weight}"))
    };
    let fixture = Fixture::new(servers(1, 100), "admin");
    let socket = fixture.socket();
    let to = other.address();
    for command in [
        "set maxconn frontend fe 50".to_owned(),
        "set maxconn global 500".to_owned(),
        "set weight be/s3 5".to_owned(),
        "disable health be/s3".to_owned(),
        format!("set server be/s1 addr {} port {}", to.ip(), to.port()),
        "set server be/s2 state maint; del server be/s2".to_owned(),
        format!(
            "add server be/late {to} weight 3 check; enable server be/late; enable health be/late"
        ),
    ] {
        fixture.ask(&command);
    }
    let set = ask(&socket, "show overrides");
    for part in ["fe", "global", "be/s1", "be/s2", "be/s3", "be/late"] {
        assert!(set.contains(part), "{part} in {set}");
    }
    assert!(upgrade(&socket).status.success());
    let second = Next::logged(&fixture.rlb, 1);
    assert_eq!(ask(&socket, "show overrides"), set);
    for _ in 0..6 {
        echo(&mut connect(address), b"served");
    }
    assert!(
        fixture.rlb.number("late", "stot") > 0,
        "what was added serves"
    );
    assert_eq!(
        peers[1].accepted() + peers[2].accepted(),
        0,
        "they are elsewhere or gone"
    );

    // The file's own value wins where it has changed.
    fixture.rlb.rewrite(&{
        let dir = fixture.socket();
        let table = format!(
            "[runtime-api]\nsocket = \"{}\"\nlevel = \"admin\"",
            dir.display()
        );
        servers(2, 70).table(&table)
    });
    assert!(upgrade(&socket).status.success());
    let third = Next::logged(&fixture.rlb, 2);
    eventually_true(STOP_WITHIN, "the end of the second", || !second.lives());
    let set = ask(&socket, "show overrides");
    assert!(!set.contains("frontend fe"), "{set}");
    assert!(!set.contains("weight"), "{set}");
    assert!(set.contains("be/s1") && set.contains("be/late"), "{set}");
    third.stop();
}

/// A slow start begins once, and goes on in the next process.
#[test]
fn a_slow_start_goes_on_over_reloads_and_upgrades() {
    let peer = Peer::start(Behaviour::Echo);
    let (address, stats) = (ports::free(), ports::free());
    let config = |slowstart: &str| {
        let config = on(address, &[]).stats_at(stats);
        config.server_with(
            peer.address(),
            &format!("weight = 16, slowstart = \"{slowstart}\""),
        )
    };
    let fixture = Fixture::new(config("200s"), "admin");
    let socket = fixture.socket();
    let rlb = &fixture.rlb;
    let shown = || rlb.csv().row("be", "s1").text("throttle").to_owned();
    assert_eq!(shown(), "", "not at the start");
    fixture.ask("disable server be/s1; enable server be/s1");
    assert_eq!(shown(), "6");
    eventually_true(TIMEOUT, "a second is over", || {
        rlb.number("s1", "lastchg") >= 1
    });
    let table = format!(
        "[runtime-api]\nsocket = \"{}\"\nlevel = \"admin\"",
        socket.display()
    );
    // Another time applies to the seconds that are over.
    rlb.rewrite(&config("8s").table(&table));
    rlb.signal(Signal::SIGHUP);
    eventually_true(TIMEOUT, "another step", || shown() != "6");
    assert_ne!(shown(), "");
    let lasting = rlb.number("s1", "lastchg");
    assert!(upgrade(&socket).status.success());
    let next = Next::logged(rlb, 1);
    assert!(rlb.number("s1", "lastchg") >= lasting, "it is the same one");
    let text = ask(&socket, "show servers state be");
    assert!(text.contains(" s1 127.0.0.1 1 0 16 16 "), "{text}");
    let mut seen = Vec::new();
    eventually_true(2 * TIMEOUT, "the end", || {
        seen.extend(shown().parse::<u32>());
        shown().is_empty() && rlb.number("s1", "weight") == 16
    });
    assert!(seen.is_sorted() && seen[0] >= 18, "{seen:?}");
    next.stop();
}

/// The mode of a unix socket that the running process listens on was changed before it was known whether the new
/// process could serve.
#[test]
fn a_refused_upgrade_leaves_the_sockets_as_they_are() {
    let peers = [Peer::start(Behaviour::Echo)];
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("front.sock");
    let config = |address: SocketAddr, mode: &str| {
        let bind = format!(
            "{{ address = \"unix:{}\", mode = \"{mode}\" }}",
            path.display()
        );
        let text = on(address, &peers).bind("UNIX").to_string();
        text.replace("\"UNIX\"", &bind)
    };
    let address = ports::free();
    let rlb = Rlb::start(&config(address, "0600"));
    let mode = || {
        let found = std::fs::metadata(&path).expect("a socket");
        found.permissions().mode() & 0o777
    };
    assert_eq!(mode(), 0o600);
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("bound");
    rlb.rewrite(&config(taken, "0666"));
    rlb.signal(Signal::SIGUSR2);
    rlb.events().wait_for("upgrade refused");
    assert_eq!(mode(), 0o600);
    rlb.rewrite(&config(address, "0666"));
    rlb.signal(Signal::SIGUSR2);
    let next = Next::of(&rlb);
    assert_eq!(mode(), 0o666);
    next.stop();
}

/// The checks are not believed: their verdict ends no session, also while a session is on its way.
#[test]
fn an_upgrade_ends_no_session_of_a_backend_that_fails_open() {
    let peers = [(); 2].map(|()| Peer::start(Behaviour::Echo));
    let dark = Refuses::start();
    let address = ports::free();
    let keys = format!(
        "on-marked-down = \"shutdown-sessions\", \
         check = {{ interval = \"50ms\", fall = 1, rise = 1, port = {} }}",
        dark.address().port()
    );
    let config = Config::new()
        .bind(address)
        .backend("fail-open-below = 50")
        .server_with(peers[0].address(), &keys)
        .server_with(peers[1].address(), &keys);
    let rlb = Rlb::start(&config);
    rlb.wait_status("s1", "DOWN");
    rlb.wait_status("s2", "DOWN");
    let mut streams = [(); 4].map(|()| connect(address));
    for stream in &mut streams {
        echo(stream, b"before");
    }
    rlb.signal(Signal::SIGUSR2);
    let next = Next::of(&rlb);
    rlb.events().wait_for("old process ended");
    for stream in &mut streams {
        echo(stream, b"after");
    }
    drop(streams);
    next.stop();
}
