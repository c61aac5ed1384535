//! `server-state-file`, `load-server-state-from-file` and `init-state`: how servers begin.

use crate::harness::beside::{self, Beside, WITHIN};
use crate::harness::client::connect;
use crate::harness::config::Config;
use crate::harness::eventually::eventually_true;
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer, Refuses};
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use crate::harness::runtime::Fixture;
use crate::harness::stalls::eventually_if_idle;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

/// Seconds since the last change, as the files say.
const LASTING: u64 = 1_000;

/// The line of a server of `fe` in a file. `states`: operational and administrative state; `weights`: in force and in the
/// configuration of that time.
fn line(
    (id, name): (u32, &str),
    address: SocketAddr,
    states: (u8, u8),
    weights: (u32, u32),
) -> String {
    let (ip, port) = (address.ip(), address.port());
    let health = if states.0 == 0 { 0 } else { 4 };
    format!(
        "2 fe {id} {name} {ip} {} {} {} {} {LASTING} 6 3 {health} 6 0 0 0 - {port} - 0 0 - - 0\n",
        states.0, states.1, weights.0, weights.1
    )
}

/// What both show of each server: state, weight, and whether that state is as old as the file says.
fn shown(beside: &Beside, names: &[&str]) -> Vec<String> {
    let csv = beside.stat();
    let one = |name: &&str| {
        let row = csv.row("fe", name);
        // Before its first check has ended it is `UP 1/3`.
        let status = row.text("status").split(' ').next().unwrap_or_default();
        let weight = row.text("weight");
        let is_old = row.number("lastchg") >= LASTING;
        format!("{name} {status} {weight} {is_old}")
    };
    names.iter().map(one).collect()
}

/// A file of HAProxy's means the same to both.
#[test]
fn servers_begin_as_haproxys_file_says() {
    let names = ["up", "down", "maint", "drain", "weight", "other", "new"];
    let seen = beside::both(|program| {
        let netns = Netns::loopback();
        let peers = names.map(|_| netns.enter(|| Peer::start(Behaviour::Echo)));
        let dark = netns.enter(Refuses::start);
        let of = |name: &str| match names.iter().position(|it| *it == name) {
            Some(1) | None => dark.address(),
            Some(index) => peers[index].address(),
        };
        let lines = [
            line((1, "up"), of("up"), (2, 0), (1, 1)),
            line((2, "down"), of("down"), (0, 0), (1, 1)),
            line((3, "maint"), of("maint"), (0, 1), (1, 1)),
            line((4, "drain"), of("drain"), (2, 8), (1, 1)),
            line((5, "weight"), of("weight"), (2, 0), (7, 1)),
            // The configuration has another weight now: it counts.
            line((6, "other"), of("other"), (2, 0), (7, 3)),
            // Lines that nobody needs.
            line((9, "gone"), of("up"), (2, 0), (1, 1)),
            "# a remark\n".to_owned(),
        ];
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!("1\n# be_id be_name …\n{}", lines.concat());
        fs::write(folder.path().join("states"), text).expect("written");
        let mut service = String::from("  load-server-state-from-file global\n");
        for name in names {
            let _ = writeln!(service, "  server {name} {} check inter 1s", of(name));
        }
        let base = folder.path().display();
        let _ = write!(
            service,
            "global\n  server-state-base {base}\n  server-state-file states\n"
        );
        let beside = Beside::start(program, netns, ("", &service));
        let seen = shown(&beside, &names);
        beside.stop();
        seen
    });
    if !seen.is_empty() {
        let expected = [
            "up UP 1 true",
            "down DOWN 1 true",
            "maint MAINT 1 true",
            "drain DRAIN 1 true",
            "weight UP 7 true",
            "other UP 1 true",
            "new UP 1 false",
        ];
        assert_eq!(seen, expected);
    }
}

/// A backend's own file, and files that are none.
#[test]
fn files_of_backends_and_broken_ones_are_as_in_haproxy() {
    for (text, expected) in [
        (None, "s UP 1 false"),
        (Some(String::new()), "s UP 1 false"),
        (Some("2\n".to_owned()), "s UP 1 false"),
        (Some("1\n2 fe 1 s\n".to_owned()), "s UP 1 false"),
        (Some("good".to_owned()), "s MAINT 1 true"),
    ] {
        let seen = beside::both(|program| {
            let netns = Netns::loopback();
            let peer = netns.enter(|| Peer::start(Behaviour::Echo));
            let folder = tempfile::tempdir().expect("a folder");
            let good = format!("1\n{}", line((1, "s"), peer.address(), (0, 1), (1, 1)));
            let text = text
                .as_ref()
                .map(|it| if it == "good" { &good } else { it });
            if let Some(text) = text {
                fs::write(folder.path().join("fe"), text).expect("written");
            }
            let service = format!(
                "  load-server-state-from-file local\n  server s {} check inter 1s\nglobal\n  server-state-base {}\n",
                peer.address(),
                folder.path().display()
            );
            let beside = Beside::start(program, netns, ("", &service));
            let seen = shown(&beside, &["s"]);
            beside.stop();
            seen
        });
        if !seen.is_empty() {
            assert_eq!(seen, [expected], "{text:?}");
        }
    }
}

/// A configuration with three servers whose states are kept at `path`.
fn kept(path: &Path, servers: [SocketAddr; 3]) -> Config {
    let file = format!("server-state-file = \"{}\"", path.display());
    let config = Config::new()
        .global(&file)
        .backend("load-server-state-from-file = \"global\"");
    // Two passed checks in a row bring a server up: none does by the second one.
    let keys = "check = { interval = \"1h\", rise = 2 }";
    servers
        .into_iter()
        .fold(config, |config, server| config.server_with(server, keys))
}

/// The state that a file has of a server: of its health, and of an operator.
fn states(path: &Path, server: &str) -> Option<(String, String)> {
    let text = fs::read_to_string(path).ok()?;
    let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut lines = lines.filter(|columns| columns.len() > 6 && columns[3] == server);
    let columns = lines.next()?;
    Some((columns[5].to_owned(), columns[6].to_owned()))
}

#[test]
fn a_restart_begins_with_what_was_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("states");
    let (one, dark, three) = (
        Peer::start(Behaviour::Echo),
        Refuses::start(),
        Peer::start(Behaviour::Echo),
    );
    let config = kept(&path, [one.address(), dark.address(), three.address()]);
    let fixture = Fixture::new(config, "admin");
    fixture.rlb.wait_status("s2", "DOWN");
    fixture.rlb.wait_status("s1", "UP");
    assert_eq!(fixture.ask("set server be/s3 state maint"), "\n");
    assert_eq!(fixture.ask("set weight be/s1 50"), "\n");
    let config = fixture.config.clone();
    fixture.rlb.stop();
    let of = |oper: &str, admin: &str| Some((oper.to_owned(), admin.to_owned()));
    assert_eq!(states(&path, "s1"), of("2", "0"));
    assert_eq!(states(&path, "s2"), of("0", "0"));
    assert_eq!(states(&path, "s3"), of("0", "1"));

    // It answers again: without the file it would be up at once.
    let answers = Peer::start_on(dark, Behaviour::Echo);
    let rlb = Rlb::start(&config);
    rlb.wait_status("s2", "DOWN 1/2");
    let down = "Server be/s2 is DOWN, changed from server-state after a reload. 1 active and";
    rlb.events().wait_for(down);
    let status = |name: &str| rlb.csv().row("be", name).text("status").to_owned();
    assert_eq!((status("s1"), status("s3")), ("UP".into(), "MAINT".into()));
    assert_eq!(rlb.number("s1", "weight"), 50);
    rlb.stop();
    drop(answers);
}

/// Nothing announces the end of the process.
#[test]
fn what_an_operator_has_changed_survives_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("states");
    let peers = [(); 3].map(|()| Peer::start(Behaviour::Echo));
    let config = kept(&path, peers.each_ref().map(Peer::address));
    let mut fixture = Fixture::new(config, "admin");
    assert_eq!(fixture.ask("set server be/s2 state drain"), "\n");
    eventually_true(WITHIN, "it is in the file", || {
        states(&path, "s2").is_some_and(|(_, admin)| admin == "8")
    });
    fixture.rlb.process.kill();
    let rlb = Rlb::start(&fixture.config);
    assert_eq!(rlb.status("s2"), "DRAIN");
    rlb.stop();
    let left = fs::read_dir(folder.path()).expect("the folder").count();
    assert_eq!(left, 1, "nothing else is left in the folder");
}

#[test]
fn a_file_that_cannot_be_written_is_told_of_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("missing/states");
    let peers = [(); 3].map(|()| Peer::start(Behaviour::Echo));
    let config = kept(&path, peers.each_ref().map(Peer::address));
    let mut fixture = Fixture::new(config, "admin");
    for state in ["drain", "ready"] {
        let line = format!("set server be/s2 state {state}");
        assert_eq!(fixture.ask(&line), "\n");
        let said = "cannot write a server-state file";
        let said = fixture.rlb.events().wait_for(said);
        assert!(said.contains("missing/states"), "{said}");
    }
    fixture.rlb.signal(Signal::SIGTERM);
    assert_eq!(fixture.rlb.process.wait(STOP_WITHIN).code(), Some(0));
    let said = fixture.rlb.events().with("cannot write a server-state");
    assert_eq!(said.len(), 1, "{said:?}");
}

/// What is no state file is neither waited for nor replaced.
#[test]
fn something_else_at_the_path_stays_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let peers = [(); 3].map(|()| Peer::start(Behaviour::Echo));
    let of = |name: &str| folder.path().join(name);
    let (pipe, text, link) = (of("pipe"), of("text"), of("link"));
    mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
    fs::write(&text, "somebody's\n").expect("written");
    std::os::unix::fs::symlink(of("nowhere"), &link).expect("a link");
    for path in [&pipe, &text, &link] {
        let rlb = Rlb::start(&kept(path, peers.each_ref().map(Peer::address)));
        let said = rlb.events().wait_for("cannot write a server-state file");
        let name = path.to_str().expect("a name");
        assert!(said.contains(name), "{said}");
        rlb.stop();
    }
    assert!(
        fs::metadata(&pipe)
            .expect("it is there")
            .file_type()
            .is_fifo()
    );
    assert_eq!(fs::read(&text).expect("read"), b"somebody's\n");
    assert!(link.is_symlink() && !link.exists());
    let left = fs::read_dir(folder.path()).expect("the folder").count();
    assert_eq!(left, 3, "nothing else is left in the folder");
}

/// Another process may serve and write from then on.
#[test]
fn a_process_that_stops_writes_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("states");
    let peers = [(); 3].map(|()| Peer::start(Behaviour::Echo));
    let fixture = Fixture::new(kept(&path, peers.each_ref().map(Peer::address)), "admin");
    assert_eq!(fixture.ask("set server be/s1 state drain"), "\n");
    let drained = || states(&path, "s1").is_some_and(|(_, admin)| admin == "8");
    eventually_true(WITHIN, "it is in the file", drained);
    let client = connect(fixture.rlb.address());
    eventually_true(WITHIN, "a session", || {
        fixture.rlb.number("FRONTEND", "scur") == 1
    });
    fs::remove_file(&path).expect("removed");
    fixture.rlb.signal(Signal::SIGTERM);
    eventually_true(WITHIN, "the last write", drained);
    fs::remove_file(&path).expect("removed");
    fixture.rlb.stop_after(client);
    assert!(!path.exists());
}

/// Whether the first of two servers gets one of ten clients.
fn serves(beside: &Beside) -> bool {
    let mut words = (0..10).map(|_| {
        let mut word = [0];
        let read = beside.connect().read_exact(&mut word);
        read.expect("a server");
        word
    });
    words.any(|word| word == *b"0")
}

/// Without a check the state stays; maintenance ends with it as well.
#[test]
fn servers_begin_as_init_state_says_in_haproxy_too() {
    for (state, expected) in [
        ("none", ["no check true", "no check true"]),
        ("fully-up", ["no check true", "no check true"]),
        ("up", ["no check true", "no check true"]),
        ("down", ["DOWN false", "DOWN false"]),
        ("fully-down", ["DOWN false", "DOWN false"]),
    ] {
        let seen = beside::both_since((3, 1), |program| {
            let netns = Netns::loopback();
            let peers =
                ["0", "1"].map(|word| netns.enter(|| Peer::start(Behaviour::SpeaksFirst(word))));
            let service = format!(
                "  server s {} init-state {state}\n  server t {}\n",
                peers[0].address(),
                peers[1].address()
            );
            let beside = Beside::start(program, netns, ("", &service));
            let look = || {
                let status = beside.stat().row("fe", "s").text("status").to_owned();
                format!("{status} {}", serves(&beside))
            };
            let begun = look();
            for to in ["maint", "ready"] {
                assert_eq!(beside.ask(&format!("set server fe/s state {to}")), "\n");
            }
            let seen = vec![begun, look()];
            beside.stop();
            seen
        });
        if !seen.is_empty() {
            assert_eq!(seen, expected, "{state}");
        }
    }
}

/// The log says when a server goes up or down: how many checks it takes.
#[test]
fn checks_bring_a_server_out_of_its_first_state_as_in_haproxy() {
    let cases = [
        ("none", false, "DOWN 1"),
        ("up", false, "DOWN 1"),
        ("fully-up", false, "DOWN 3"),
        ("down", true, "UP 1"),
        ("fully-down", true, "UP 4"),
    ];
    for (state, answers, expected) in cases {
        let seen = beside::both_since((3, 1), |program| {
            let netns = Netns::loopback();
            let peer = netns.enter(|| Peer::start(Behaviour::Echo));
            let dark = netns.enter(Refuses::start);
            let address = if answers {
                peer.address()
            } else {
                dark.address()
            };
            let service = format!(
                "  option log-health-checks\n  server s {address} check inter 100ms rise 4 fall 3 init-state {state}\n"
            );
            let beside = Beside::start(program, netns, ("", &service));
            let status = if answers { "UP" } else { "DOWN" };
            eventually_if_idle(WITHIN, status, || {
                let csv = beside.stat();
                let row = csv.row("fe", "s");
                (row.text("status") == status && row.number("lastchg") < 100).then_some(())
            });
            let next = || beside.log.next_with("Health check for server fe/s ");
            let last = format!(" {status}.");
            let before =
                std::iter::repeat_with(next).take_while(|line| !line.trim_end().ends_with(&last));
            let checks = before.count() + 1;
            beside.stop();
            vec![format!("{status} {checks}")]
        });
        if !seen.is_empty() {
            assert_eq!(seen, [expected], "{state}");
        }
    }
}

/// The times are the file's also beside the checks of the new process.
#[test]
fn the_time_of_the_last_change_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("states");
    let peers = [(); 3].map(|()| Peer::start(Behaviour::Echo));
    let address = peers[0].address();
    let text = line((1, "s1"), address, (2, 0), (1, 1)).replace(" fe ", " be ");
    fs::write(&path, format!("1\n{text}")).expect("written");
    let rlb = Rlb::start(&kept(&path, peers.each_ref().map(Peer::address)));
    let lasting = rlb.number("s1", "lastchg");
    let bounds = LASTING..LASTING + Duration::from_secs(60).as_secs();
    assert!(bounds.contains(&lasting), "{lasting}");
    assert!(rlb.number("s2", "lastchg") < 60);
    rlb.stop();
}
