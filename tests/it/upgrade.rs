//! A new process takes over from the running one: nothing is refused, sessions go on in the old one, and a new
//! process that cannot serve changes nothing.

use crate::harness::client::{End, TIMEOUT, connect, echo, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually, eventually_eq, eventually_true};
use crate::harness::load::Load;
use crate::harness::peer::{Behaviour, Peer, Refuses};
use crate::harness::ports;
use crate::harness::rlb::{PROGRAM, Rlb, STOP_WITHIN, Start, command};
use crate::harness::runtime::{Fixture, ask};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

/// The old process's event, before the id of the new process.
const DONE: &str = "upgraded: process ";

/// The process that has taken over. It is not a child of the test, and is ended by its id.
pub(crate) struct Next(Pid);

impl Next {
    /// The process of the `count`th upgrade in this log.
    #[track_caller]
    pub(crate) fn logged(rlb: &Rlb, count: usize) -> Self {
        let line = eventually(TIMEOUT, "an upgrade", || {
            rlb.events().with(DONE).into_iter().nth(count - 1)
        });
        let number = line.split(DONE).nth(1);
        let number = number.and_then(|rest| rest.split(' ').next()?.parse().ok());
        Self(Pid::from_raw(number.expect("a process id")))
    }

    /// The process that was announced to the service manager.
    #[track_caller]
    pub(crate) fn of(rlb: &Rlb) -> Self {
        let next = Self::logged(rlb, 1);
        rlb.wait_message(&format!("MAINPID={}", next.0));
        eventually_true(TIMEOUT, "READY=1 of the new one", || {
            rlb.notified("READY=1")
        });
        next
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> String {
        self.0.to_string()
    }

    /// Whether it runs; a zombie does not count.
    pub(crate) fn lives(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// Stops it as systemd does.
    #[track_caller]
    pub(crate) fn stop(self) {
        kill(self.0, Signal::SIGTERM).expect("it runs");
        eventually_true(STOP_WITHIN, "the end of the new one", || !self.lives());
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        if self.lives() {
            let _ = kill(self.0, Signal::SIGKILL);
        }
    }
}

/// Runs `rlb upgrade` with this runtime socket.
pub(crate) fn upgrade(socket: &Path) -> Output {
    command(&["upgrade", "--socket", socket.to_str().expect("text")])
}

/// A field of `show info`.
fn info(socket: &Path, name: &str) -> String {
    let text = ask(socket, "show info");
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value
        .unwrap_or_else(|| panic!("{name} in {text}"))
        .to_owned()
}

/// The old process finishes its sessions.
pub(crate) const STAY: &str = "upgrade-moves-sessions = false";

pub(crate) fn on(address: SocketAddr, peers: &[Peer]) -> Config {
    let config = Config::new().bind(address);
    peers.iter().fold(config, |config, peer| {
        config.server_with(peer.address(), "check = false")
    })
}

#[test]
fn under_load_nothing_is_refused_and_no_stream_ends() {
    let peers: Vec<Peer> = (0..3).map(|_| Peer::start(Behaviour::Echo)).collect();
    let address = ports::free();
    let mut rlb = Rlb::start(&on(address, &peers));
    let mut streams: Vec<TcpStream> = (0..50).map(|_| connect(address)).collect();
    for stream in &mut streams {
        echo(stream, b"before");
    }
    let load = Load::start(address, 4);
    rlb.signal(Signal::SIGUSR2);
    let next = Next::of(&rlb);
    for stream in &mut streams {
        echo(stream, b"after");
    }
    let mut late = connect(address);
    echo(&mut late, b"served by the new one");
    let status = rlb.process.wait(STOP_WITHIN);
    assert_eq!(status.code(), Some(0), "no session is left in the old one");
    for stream in &mut streams {
        echo(stream, b"and still");
    }
    echo(&mut late, b"and still");
    drop(streams);
    let (served, failures) = load.end();
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(served > 50, "{served}");
    drop(late);
    next.stop();
}

#[test]
fn the_runtime_socket_and_what_operators_and_checks_decided_go_along() {
    let peers: Vec<Peer> = (0..3).map(|_| Peer::start(Behaviour::Echo)).collect();
    let dark = Refuses::start();
    // After the first one no check changes anything.
    let check = "check = { interval = \"1h\", fast-interval = \"20ms\", down-interval = \"1h\" }";
    let config = peers
        .iter()
        .fold(Config::new().bind(ports::free()), |config, peer| {
            config.server_with(peer.address(), check)
        });
    let fixture = Fixture::new(config.server_with(dark.address(), check), "admin");
    let socket = fixture.socket();
    let states = || {
        let text = ask(&socket, "show servers state be");
        let servers = text.lines().filter(|line| line.contains(" be "));
        // Operational and administrative state, weight.
        let columns = servers.map(|line| {
            let columns: Vec<&str> = line.split(' ').collect();
            columns[5..8].join(" ")
        });
        columns.collect::<Vec<_>>()
    };
    fixture.ask("set server be/s1 state maint; set server be/s2 state drain");
    fixture.ask("set weight be/s3 7");
    let wanted = ["0 1 1", "2 8 1", "2 0 7", "0 0 1"]
        .map(str::to_owned)
        .to_vec();
    eventually_eq(TIMEOUT, &wanted, states);
    let old = fixture.rlb.process.id().to_string();
    assert_eq!(info(&socket, "Pid"), old);

    let said = upgrade(&socket);
    let next = Next::of(&fixture.rlb);
    assert_eq!(
        String::from_utf8_lossy(&said.stdout),
        format!("process {} serves from now on\n", next.0)
    );
    assert_eq!(said.status.code(), Some(0));
    assert_eq!(info(&socket, "Pid"), next.0.to_string());
    assert_eq!(states(), wanted);
    next.stop();
}

/// The old process has one slot for a session, so that all clients but one wait: in the sockets, or accepted by
/// a worker that did not get the slot.
#[test]
fn what_waits_in_a_socket_of_any_kind_is_served_by_other_workers() {
    let peers = [Peer::start(Behaviour::Echo)];
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("front.sock");
    let v6: SocketAddr = format!("[::1]:{}", ports::free().port())
        .parse()
        .expect("v6");
    let v4 = ports::free();
    let config = |threads: u32, maxconn: u32| {
        let config = Config::default()
            .global(&format!("threads = {threads}"))
            .frontend(&format!("maxconn = {maxconn}"))
            .bind("BINDS")
            .server_with(peers[0].address(), "check = false");
        // Otherwise no more than maxconn wait.
        let bind = |address: &str| format!("{{ address = \"{address}\", backlog = 64 }}");
        let unix = format!("unix:{}", path.display());
        let binds = [v4.to_string(), v6.to_string(), unix].map(|address| bind(&address));
        config.to_string().replace("\"BINDS\"", &binds.join(", "))
    };
    for (before, after) in [(1, 3), (3, 1)] {
        let mut rlb = Rlb::start(&config(before, 1));
        let mut streams: Vec<TcpStream> = (0..8).map(|_| connect(v4)).collect();
        streams.extend((0..8).map(|_| connect(v6)));
        let mut local = UnixStream::connect(&path).expect("queued");
        rlb.rewrite(&config(after, 100));
        rlb.signal(Signal::SIGUSR2);
        let next = Next::of(&rlb);
        for stream in &mut streams {
            echo(stream, b"waited");
        }
        local.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        local.write_all(b"waited").expect("sent");
        let mut answer = [0; 6];
        local.read_exact(&mut answer).expect("answered");
        drop((streams, local));
        assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
        echo(&mut connect(v6), b"another");
        next.stop();
    }
}

#[test]
fn a_new_process_that_cannot_serve_changes_nothing() {
    let peers = [Peer::start(Behaviour::Echo)];
    let address = ports::free();
    let fixture = Fixture::new(on(address, &peers), "admin");
    let mut stream = connect(address);
    echo(&mut stream, b"before");
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("bound");
    let elsewhere = fixture.config.clone().bind(taken);
    let wrong = fixture.config.clone().global("maxcon = 1");
    for (config, why) in [
        (wrong.to_string(), "unknown key `maxcon`"),
        (elsewhere.to_string(), "cannot listen on"),
    ] {
        fixture.rlb.rewrite(&config);
        let said = upgrade(&fixture.socket());
        assert_eq!(said.status.code(), Some(1));
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(text.contains("the new process cannot serve"), "{text}");
        assert!(text.contains(why), "{text}");
        assert!(text.ends_with("this process goes on as it was\n"), "{text}");
        assert!(!fixture.rlb.notified("MAINPID="), "nobody is told");
        echo(&mut stream, b"as before");
        echo(&mut connect(address), b"a new one");
    }
    fixture.rlb.rewrite(&fixture.config);
    assert!(upgrade(&fixture.socket()).status.success());
    let next = Next::of(&fixture.rlb);
    drop(stream);
    next.stop();
}

#[test]
fn the_program_is_what_its_path_leads_to_now() {
    let peers = [Peer::start(Behaviour::Echo)];
    let address = ports::free();
    let config = on(address, &peers);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("rlb");
    let lead_to = |target: &str| {
        let _ = std::fs::remove_file(&path);
        symlink(target, &path).expect("a link");
    };
    lead_to(PROGRAM);
    let mut rlb = Start::new(&config).program(path.clone()).ready();
    for (target, why) in [
        ("/nowhere", "cannot start"),
        ("/bin/true", "ended before it could serve"),
    ] {
        lead_to(target);
        rlb.signal(Signal::SIGUSR2);
        let line = rlb.events().wait_for(why);
        assert!(line.contains("upgrade: "), "{line}");
        echo(&mut connect(address), b"as before");
    }
    lead_to(PROGRAM);
    rlb.signal(Signal::SIGUSR2);
    let next = Next::of(&rlb);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    echo(&mut connect(address), b"the new one");
    next.stop();
}

#[test]
fn upgrade_stop_after_ends_what_is_left() {
    let peers = [Peer::start(Behaviour::Echo)];
    let address = ports::free();
    let config = on(address, &peers).global("hard-stop-after = \"1ms\"");
    let config = config.global(STAY);
    let mut rlb = Rlb::start(&config.global("upgrade-stop-after = \"2s\""));
    let mut stream = connect(address);
    echo(&mut stream, b"before");
    rlb.signal(Signal::SIGUSR2);
    let next = Next::of(&rlb);
    let start = Instant::now();
    echo(&mut stream, b"after");
    assert_eq!(read_to_end(&mut stream).1, End::Reset);
    let took = start.elapsed();
    // The signal was sent a moment before.
    let (least, most) = (Duration::from_millis(1500), Duration::from_secs(3));
    assert!(took > least && took < most, "{took:?}");
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    next.stop();
}

/// A signal for a new process was refused because the old one was "stopping", and its first SIGTERM ended the
/// sessions that a first SIGTERM to any other process leaves alone.
#[test]
fn the_old_process_takes_nothing_new_and_ends_when_it_is_told() {
    let peers = [Peer::start(Behaviour::Echo)];
    let address = ports::free();
    let mut rlb = Rlb::start(&on(address, &peers).global(STAY));
    let mut stream = connect(address);
    echo(&mut stream, b"before");
    rlb.signal(Signal::SIGUSR2);
    let next = Next::of(&rlb);
    // The new process is asked, not the old one.
    kill(next.0, Signal::SIGUSR2).expect("it runs");
    let third = Next::logged(&rlb, 2);
    eventually_true(STOP_WITHIN, "the end of the second", || !next.lives());
    let serves = format!("process {} serves", third.pid());
    for (signal, name) in [(Signal::SIGUSR2, "SIGUSR2"), (Signal::SIGHUP, "SIGHUP")] {
        let refused = format!("{name}: this process has handed over");
        eventually_true(TIMEOUT, "it has heard of the third", || {
            rlb.signal(signal);
            let lines = rlb.events().with(&refused);
            lines.iter().any(|line| line.contains(&serves))
        });
    }
    // A stop of an old process is as any other: it waits for sessions, and a second signal ends them.
    rlb.signal(Signal::SIGTERM);
    rlb.events().wait_for("old process stopping");
    echo(&mut stream, b"still in the first");
    rlb.signal(Signal::SIGTERM);
    assert_ne!(read_to_end(&mut stream).1, End::Silence);
    assert!(rlb.process.wait(STOP_WITHIN).code().is_some());
    echo(&mut connect(address), b"in the third");
    third.stop();
}

#[test]
fn the_service_manager_keeps_what_the_new_process_listens_on() {
    let peers = [Peer::start(Behaviour::Echo)];
    let (stays, goes, comes) = (ports::free(), ports::free(), ports::free());
    let rlb = Rlb::start(&on(stays, &peers).bind(goes));
    let stored = |rlb: &Rlb| {
        let (text, fds) = rlb.wait_message("FDSTORE=1");
        (text.lines().nth(1).map(str::to_owned), fds)
    };
    let name = |address: SocketAddr| Some(format!("FDNAME=tcp-127.0.0.1_{}", address.port()));
    // Two shards of each.
    let kept: Vec<_> = (0..4).map(|_| stored(&rlb)).collect();
    rlb.rewrite(&on(stays, &peers).bind(comes));
    rlb.signal(Signal::SIGUSR2);
    let next = Next::logged(&rlb, 1);
    // In this order, because the manager accepts messages only from the main process.
    rlb.wait_message(&format!("MAINPID={}", next.0));
    rlb.wait_message("READY=1");
    let (text, _) = rlb.wait_message("FDSTOREREMOVE=1");
    assert_eq!(text.lines().nth(1).map(str::to_owned), name(goes));
    for _ in 0..2 {
        assert_eq!(
            stored(&rlb).0,
            name(comes),
            "what came along is there already"
        );
    }
    drop(kept);
    eventually(STOP_WITHIN, "the old port is closed", || {
        TcpStream::connect_timeout(&goes, TIMEOUT).err()
    });
    echo(&mut connect(stays), b"stays");
    echo(&mut connect(comes), b"comes");
    next.stop();
}

/// Fault 26: an upgrade began all counters anew. Fault 29: the old process said that it is stopping.
#[test]
fn counters_go_along_and_the_old_process_does_not_say_that_it_is_stopping() {
    let peers = [Peer::start(Behaviour::Echo)];
    let address = ports::free();
    // The new process has the statistics at the same port only if it is not 0.
    let text = on(address, &peers).to_string();
    let stats = format!("[stats]\nbind = [\"{}\"]", ports::free());
    let rlb = Rlb::start(&text.replace("[stats]\nbind = [\"127.0.0.1:0\"]", &stats));
    for _ in 0..3 {
        echo(&mut connect(address), b"hello");
    }
    eventually_eq(TIMEOUT, &15, || rlb.number("s1", "bin"));
    let kept = connect(address);
    eventually_eq(TIMEOUT, &4, || rlb.number("s1", "stot"));
    rlb.signal(Signal::SIGUSR2);
    let next = Next::of(&rlb);
    for (row, column, wanted) in [
        ("s1", "stot", 4),
        ("s1", "bin", 15),
        ("s1", "bout", 15),
        ("FRONTEND", "stot", 4),
        ("BACKEND", "stot", 4),
    ] {
        assert_eq!(rlb.number(row, column), wanted, "{row} {column}");
    }
    rlb.events().wait_for("no new sessions here");
    assert!(
        rlb.events().with("stopping").is_empty(),
        "it only finishes its sessions"
    );
    drop(kept);
    rlb.events().wait_for("old process ended");
    echo(&mut connect(address), b"again");
    eventually_eq(TIMEOUT, &5, || rlb.number("s1", "stot"));
    next.stop();
}

/// Starts an upgrade that stands still in its last step: the service manager does not read what it is
/// told, which is waited for for a second. The process id of the new process.
#[track_caller]
pub(crate) fn upgrade_in_its_last_step(rlb: &Rlb) -> Pid {
    rlb.fill_notify_queue();
    rlb.signal(Signal::SIGUSR2);
    let line = rlb.events().wait_for("upgrade: the new process is ready");
    let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let fields = event.get("fields").unwrap_or(&event);
    let pid = fields["pid"]
        .as_i64()
        .and_then(|pid| i32::try_from(pid).ok());
    Pid::from_raw(pid.expect("a process id"))
}

/// Fault 10: the new process accepted before it was in charge, and what it had accepted was cut when the
/// hand-over failed.
#[test]
fn fault_10_a_hand_over_that_fails_in_its_last_step_cuts_no_session() {
    let peers = [Peer::start(Behaviour::Echo)];
    let address = ports::free();
    let rlb = Rlb::start(&on(address, &peers));
    let mut streams: Vec<TcpStream> = (0..10).map(|_| connect(address)).collect();
    let new = Next(upgrade_in_its_last_step(&rlb));
    streams.extend((0..50).map(|_| connect(address)));
    for stream in &mut streams {
        echo(stream, b"the old one serves");
    }
    assert!(
        rlb.events().with("upgraded: ").is_empty(),
        "still in the last step"
    );
    kill(new.0, Signal::SIGKILL).expect("it waits for the word");
    rlb.events().wait_for("the new process is gone");
    for stream in &mut streams {
        echo(stream, b"and goes on");
    }
    echo(&mut connect(address), b"with new clients too");
    let own = format!("MAINPID={}", rlb.process.id());
    eventually_true(TIMEOUT, "its own process id", || rlb.notified(&own));
    rlb.stop_after(streams);
}

/// Fault 10: a SIGTERM to the old process in the last step let both processes accept from the same
/// sockets, and the old one end.
#[test]
fn fault_10_a_sigterm_in_the_last_step_gives_the_upgrade_up() {
    let peers = [Peer::start(Behaviour::Echo)];
    let address = ports::free();
    let mut rlb = Rlb::start(&on(address, &peers).global("hard-stop-after = \"60s\""));
    let mut streams: Vec<TcpStream> = (0..10).map(|_| connect(address)).collect();
    let new = Next(upgrade_in_its_last_step(&rlb));
    streams.extend((0..50).map(|_| connect(address)));
    rlb.signal(Signal::SIGTERM);
    for stream in &mut streams {
        echo(stream, b"everyone who came before the stop is served");
    }
    let line = rlb.events().wait_for("this process is stopping");
    assert!(line.contains("upgrade"), "{line}");
    eventually_true(STOP_WITHIN, "the end of the new process", || !new.lives());
    assert!(
        rlb.events().with("upgraded: ").is_empty(),
        "it was given up"
    );
    eventually(STOP_WITHIN, "nobody listens", || {
        // What waits there to be stored would keep the sockets open.
        rlb.notified("");
        TcpStream::connect_timeout(&address, TIMEOUT).err()
    });
    for stream in &mut streams {
        echo(stream, b"sessions end by themselves");
    }
    drop(streams);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
}

/// Fault 10, its kind: after a stop that gave an upgrade up, clients were queued for the new process, which
/// ended without accepting them. A client that comes in the moment between the last `accept` and the end of the socket
/// is still reset, as at any stop. The signal mostly comes before the new process has the sockets.
#[test]
fn fault_10_a_stop_while_the_new_process_starts_resets_nobody() {
    const ROUNDS: u32 = 10;
    const CLIENTS: u32 = 6;
    let peers = [Peer::start(Behaviour::Echo)];
    let address = ports::free();
    let mut reset = Vec::new();
    for _ in 0..ROUNDS {
        let mut rlb = Start::new(&on(address, &peers)).unmanaged().ready();
        let load = Load::start(address, CLIENTS);
        echo(&mut connect(address), b"served");
        rlb.signal(Signal::SIGUSR2);
        rlb.events().wait_for("upgrade: starting the new process");
        rlb.signal(Signal::SIGTERM);
        assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
        let (_, failures) = load.end();
        reset.extend(failures.into_iter().filter(|it| !it.contains("refused")));
    }
    let most = ROUNDS * CLIENTS / 4;
    assert!(reset.len() <= most as usize, "{reset:?}");
}

/// Fault 46: a reload that is asked for during an upgrade was told that the process is stopping.
#[test]
fn fault_46_a_reload_during_an_upgrade_is_told_who_serves() {
    let peers = [Peer::start(Behaviour::Echo)];
    let fixture = Fixture::new(on(ports::free(), &peers), "admin");
    let new = upgrade_in_its_last_step(&fixture.rlb);
    let socket = fixture.socket();
    let said = command(&["reload", "--socket", socket.to_str().expect("text")]);
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        text.contains(&format!("process {new} has taken over")),
        "{text}"
    );
    assert_eq!(said.status.code(), Some(1));
    let next = Next::logged(&fixture.rlb, 1);
    assert_eq!(next.0, new);
    let again = command(&["reload", "--socket", socket.to_str().expect("text")]);
    assert!(again.status.success(), "the new one reloads: {again:?}");
    next.stop();
}

/// A SIGHUP during an upgrade was dropped without a line, and a file that had changed
/// after the new process had read it was never loaded.
#[test]
fn a_sighup_during_an_upgrade_is_kept_and_followed_by_whoever_serves() {
    let peers = [Peer::start(Behaviour::Echo)];
    for succeeds in [true, false] {
        let (address, other) = (ports::free(), ports::free());
        let config = on(address, &peers);
        let rlb = Rlb::start(&config);
        let new = Next(upgrade_in_its_last_step(&rlb));
        rlb.rewrite(&config.bind(other));
        rlb.signal(Signal::SIGHUP);
        let line = rlb
            .events()
            .wait_for("signal kept until the upgrade has ended");
        assert!(line.contains("SIGHUP"), "{line}");
        if succeeds {
            let line = rlb.events().wait_for("signal passed on to the new process");
            assert!(line.contains(&new.0.to_string()), "{line}");
        } else {
            kill(new.0, Signal::SIGKILL).expect("it waits for `go`");
            rlb.events().wait_for("upgrade refused");
        }
        rlb.events().wait_for("\"reloaded: ");
        echo(&mut connect(other), b"as the file says now");
        echo(&mut connect(address), b"and as before");
        if succeeds {
            new.stop();
        } else {
            rlb.stop();
        }
    }
}
