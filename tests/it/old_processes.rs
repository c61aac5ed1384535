//! After an upgrade the old process is not out of sight as long as it has sessions: `show proc`, `@!PID`, the
//! page and the metrics show it, and what it counts is counted.

use crate::harness::client::{End, TIMEOUT, connect, echo, read_to_end};
use crate::harness::eventually::{eventually, eventually_eq, eventually_true};
use crate::harness::load::Load;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::rlb::{Rlb, STOP_WITHIN, command};
use crate::harness::runtime::{Fixture, ask};
use crate::upgrade::{Next, STAY, on, upgrade};
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The lines of `show proc` after `heading` and before the next, without their uptimes.
fn processes(socket: &Path, heading: &str) -> Vec<String> {
    let text = ask(socket, "show proc");
    let lines = text.lines().skip_while(|line| !line.starts_with(heading));
    let lines = lines.skip(1).take_while(|line| !line.starts_with('#'));
    let row = |line: &str| {
        let mut columns: Vec<&str> = line.split("  ").map(str::trim).collect();
        columns.retain(|column| !column.is_empty());
        columns.remove(3);
        columns.join(" ")
    };
    lines.filter(|line| !line.is_empty()).map(row).collect()
}

/// Runs `rlb ctl`: whether it succeeded, and what it printed.
fn ctl(socket: &Path, line: &str) -> (bool, String) {
    let said = command(&["ctl", "--socket", socket.to_str().expect("text"), line]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    (said.status.success(), text)
}

/// A command for a process is answered by it; the first of `pids` serves.
fn each_answers_for_itself(socket: &Path, pids: &[String]) {
    // The answer ends with an empty line, as HAProxy's.
    for pid in pids {
        let line = format!("@!{pid} show info");
        let text = ask(socket, &line);
        assert!(text.contains(&format!("Pid: {pid}\n")), "{text}");
        assert!(text.ends_with("\n\n"), "{text:?}");
        assert!(ctl(socket, &line).0);
    }
    for prefix in ["@1", "@master"] {
        let text = ask(socket, &format!("{prefix} show info;show version"));
        assert!(text.contains(&format!("Pid: {}\n", pids[0])), "{text}");
    }
}

/// Clients that have gone hold no slot, neither here nor in the old process `own`.
fn gone_askers_free_their_slots(socket: &Path, own: &str) {
    let ask_and_go = || {
        let mut client = UnixStream::connect(socket).expect("it listens");
        writeln!(client, "@!{own} wait 1h").expect("sent");
        client
    };
    for _ in 0..2 {
        let clients: Vec<UnixStream> = (0..10).map(|_| ask_and_go()).collect();
        drop(clients);
    }
    assert!(ask(socket, &format!("@!{own} show version")).contains("rlb"));
}

/// What cannot be done in the old process `own` is an error.
fn failures_are_told(socket: &Path, own: &str) {
    let (succeeded, text) = ctl(socket, "@!1 show info");
    assert_eq!(
        text,
        "Can't find the target PID matching the prefix '@!1'\n\n"
    );
    assert!(!succeeded);
    let (succeeded, text) = ctl(socket, &format!("@!{own} set weight be/none 1"));
    assert!(!succeeded && text.starts_with("No such"), "{text}");
    let reload = ask(socket, &format!("@!{own} reload"));
    assert!(reload.contains("has taken over"), "{reload}");
}

/// Fault 26: the sessions of an old process were on no page, in no metric and in no `show sess`. Two upgrades in a
/// row: the middle process hands its channel to the oldest on.
#[test]
fn fault_26_old_processes_are_shown_and_take_commands() {
    let peers = [Peer::start(Behaviour::Echo)];
    let address = ports::free();
    let config = on(address, &peers).global(STAY);
    let fixture = Fixture::new(config.stats_at(ports::free()), "admin");
    let (rlb, socket) = (&fixture.rlb, fixture.socket());
    let version = env!("CARGO_PKG_VERSION");
    let row = |pid: &str, upgrades: u32| format!("{pid} worker {upgrades} {version}");
    let old = || processes(&socket, "# old workers");
    let own = rlb.process.id().to_string();
    assert_eq!(processes(&socket, "# workers"), [row(&own, 0)]);
    assert_eq!(
        processes(&socket, "#<PID>"),
        [format!("{own} master 0 [failed: 0] {version}")]
    );
    assert!(old().is_empty());

    let mut in_first = connect(address);
    echo(&mut in_first, b"first");
    assert!(upgrade(&socket).status.success());
    let second = Next::logged(rlb, 1);
    // For a moment the first may still accept.
    let in_second = eventually(TIMEOUT, "two sessions in the second", || {
        let mut streams: Vec<TcpStream> = (0..2).map(|_| connect(address)).collect();
        for stream in &mut streams {
            echo(stream, b"second");
        }
        let table = ask(&socket, "show sess");
        (table.matches(": proto=tcpv4").count() == 2).then_some(streams)
    });
    assert!(upgrade(&socket).status.success());
    let third = Next::logged(rlb, 2);
    let pids = [third.pid(), second.pid(), own.clone()];
    let [third_pid, second_pid, _] = &pids;
    let wanted = vec![row(second_pid, 1), row(&own, 2)];
    eventually_eq(TIMEOUT, &wanted, old);
    assert_eq!(processes(&socket, "# workers"), [row(third_pid, 0)]);
    eventually_eq(TIMEOUT, &3, || rlb.metric("rlb_old_process_sessions"));
    assert_eq!(rlb.metric("rlb_old_processes"), 2);
    let (_, page) = rlb.http_get("/").expect("a page");
    for line in [
        format!("old process {second_pid}: 2 sessions, since "),
        format!("old process {own}: 1 session, since "),
    ] {
        assert!(page.contains(&line), "{line}");
    }

    each_answers_for_itself(&socket, &pids);
    gone_askers_free_their_slots(&socket, &own);
    failures_are_told(&socket, &own);
    let sessions = |pid: &str| {
        let text = ask(&socket, &format!("@!{pid} show sess"));
        let ids = text
            .lines()
            .filter_map(|line| line.split_once(": proto=tcpv4"));
        ids.map(|(id, _)| id.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!([sessions(&own).len(), sessions(second_pid).len()], [1, 2]);

    // The middle process ends: the oldest stays in sight.
    drop(in_second);
    eventually_true(STOP_WITHIN, "the end of the second", || !second.lives());
    eventually_eq(TIMEOUT, &vec![row(&own, 2)], old);
    // Nobody may do more in an old process than here.
    let id = &sessions(&own)[0];
    let shutdown = format!("@!{own} shutdown session {id}");
    let denied = ask(&socket, &format!("operator;{shutdown}"));
    assert_eq!(denied, "\nPermission denied\n\n");
    echo(&mut in_first, b"as before");
    assert_eq!(ctl(&socket, &shutdown), (true, "\n".to_owned()));
    let logged = rlb.events().wait_for(&format!("\"shutdown session {id}\""));
    assert!(logged.contains("runtime command"), "{logged}");
    read_to_end(&mut in_first);
    rlb.events().wait_for("old process ended");
    eventually_true(TIMEOUT, "none is left", || old().is_empty());
    assert_eq!(rlb.metric("rlb_old_processes"), 0);
    third.stop();
}

/// Sessions of a server are ended in the old process too, which goes on to decide after it has handed over.
#[test]
fn sessions_of_a_server_are_ended_in_an_old_process_without_a_runtime_socket() {
    let peers = [Peer::start(Behaviour::Echo), Peer::start(Behaviour::Echo)];
    let address = ports::free();
    let config = on(address, &peers).global(STAY);
    let mut rlb = Rlb::start(&config);
    // One after the other, so that the first is the first server's.
    let one = || {
        let mut stream = connect(address);
        echo(&mut stream, b"one each");
        stream
    };
    let mut streams = [one(), one()];
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("admin.sock");
    let api = format!(
        "[runtime-api]\nsocket = \"{}\"\nlevel = \"admin\"\n\
         sockets = {{ socket = \"127.0.0.1:0\", level = \"admin\" }}",
        socket.display()
    );
    rlb.rewrite(&config.table(&api));
    rlb.signal(nix::sys::signal::Signal::SIGUSR2);
    let next = Next::of(&rlb);
    let pid = rlb.process.id();
    eventually_true(TIMEOUT, "the old process", || {
        ask(&socket, &format!("@!{pid} show info")).contains(&format!("Pid: {pid}\n"))
    });
    let answer = ask(&socket, &format!("@!{pid} shutdown sessions server be/s1"));
    assert_eq!(answer, "\n");
    let logged = rlb.events().wait_for("shutdown sessions server be/s1");
    let path = socket.display().to_string();
    assert!(logged.contains(&path) && logged.contains("uid"), "{logged}");
    assert_ne!(read_to_end(&mut streams[0]).1, End::Silence);
    // The event names the client and the socket of the process that was asked.
    let sockets = ask(&socket, "show cli sockets");
    let tcp = sockets.lines().find_map(|line| line.strip_prefix("ipv4@"));
    let tcp = tcp
        .expect("one over TCP")
        .split(' ')
        .next()
        .expect("an address");
    let mut client = TcpStream::connect(tcp).expect("it listens");
    let from = client.local_addr().expect("an address");
    writeln!(client, "@!{pid} shutdown sessions server be/none").expect("sent");
    read_to_end(&mut client);
    let logged = rlb.events().wait_for("shutdown sessions server be/none");
    for part in [format!("\"ipv4@{tcp}\""), format!("\"client\":\"{from}\"")] {
        assert!(logged.contains(&part), "{part}: {logged}");
    }
    assert!(!logged.contains("uid"), "{logged}");
    echo(&mut streams[1], b"the other server's");
    drop(streams);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    assert!(next.lives());
    next.stop();
}

/// Six of 4,175 sessions were missing in the counters after upgrades under load.
#[test]
fn counters_are_exact_after_upgrades_under_load() {
    let peers: Vec<Peer> = (0..2).map(|_| Peer::start(Behaviour::Echo)).collect();
    let address = ports::free();
    let fixture = Fixture::new(on(address, &peers).stats_at(ports::free()), "admin");
    let (rlb, socket) = (&fixture.rlb, fixture.socket());
    let load = Load::start(address, 4);
    let mut kept = Vec::new();
    let mut said = 0;
    let mut processes = Vec::new();
    for count in 1..=3 {
        let mut stream = connect(address);
        echo(&mut stream, b"12345");
        kept.push(stream);
        assert!(upgrade(&socket).status.success());
        processes.push(Next::logged(rlb, count));
        for stream in &mut kept {
            echo(stream, b"1234567");
            said += 7;
        }
        said += 5;
    }
    let next = processes.pop().expect("three");
    let (served, failures) = load.end();
    assert!(failures.is_empty(), "{failures:#?}");
    let sessions = served + kept.len() as u64;
    // Those that go on are counted while they do.
    eventually_eq(TIMEOUT, &(served * 5 + said), || {
        rlb.number("BACKEND", "bin")
    });
    drop(kept);
    eventually_eq(STOP_WITHIN, &3, || {
        rlb.events().with("old process ended").len()
    });
    let sums = || {
        let of = |column| {
            ["s1", "s2"]
                .map(|name| rlb.number(name, column))
                .iter()
                .sum::<u64>()
        };
        [
            rlb.number("FRONTEND", "stot"),
            rlb.number("FRONTEND", "conn_tot"),
            rlb.number("BACKEND", "stot"),
            of("stot"),
            of("lbtot"),
            of("bin"),
            of("bout"),
            rlb.number("FRONTEND", "bout"),
        ]
    };
    let bytes = served * 5 + said;
    let wanted = [
        sessions, sessions, sessions, sessions, sessions, bytes, bytes, bytes,
    ];
    eventually_eq(TIMEOUT, &wanted, sums);
    next.stop();
}
