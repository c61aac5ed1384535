//! `show events`: the sinks, the events in memory, and clients that follow them.

use crate::harness::client::TIMEOUT;
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_true, steadily};
use crate::harness::rlb::{PROGRAM, STOP_WITHIN, command};
use crate::harness::runtime::{Fixture, ask};
use crate::harness::terminal::Terminal;
use crate::upgrade::Next;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

fn fixture(lines: &str) -> Fixture {
    let config = Config::new().server_with("127.0.0.1:9", "check = false, weight = 10");
    Fixture::with(config, "admin", lines)
}

/// A client that follows.
struct Follower(BufReader<UnixStream>);

impl Follower {
    fn new(socket: &Path, options: &str) -> Self {
        let mut stream = UnixStream::connect(socket).expect("it listens");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        writeln!(stream, "show events buf0 {options}").expect("sent");
        Self(BufReader::new(stream))
    }

    /// Reads up to an event with `text`.
    #[track_caller]
    fn wait_for(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            let length = self.0.read_line(&mut line).expect("an event");
            assert!(length > 0, "it has ended before {text}");
            if line.contains(text) {
                return line;
            }
        }
    }

    /// What comes until the other end closes.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).expect("closed");
        rest
    }
}

/// Sends a command that is logged.
fn event(fixture: &Fixture, weight: u32) -> String {
    let line = format!("set server be/s1 weight {weight}");
    assert_eq!(fixture.ask(&line), "\n");
    format!("command=\"{line}\"")
}

#[test]
fn sinks_and_options_are_answered_as_by_haproxy() {
    let fixture = fixture("");
    let sinks = "Supported events sinks are listed below. Add -0(zero), -w(wait), -n(new). Any key to stop.\n\
                 \x20   stderr     : type=fd, 0 dropped, standard error (fd#2)\n\
                 \x20   buf0       : type=buffer, 0 dropped, in-memory ring buffer\n\n";
    for (line, answer) in [
        ("show events", sinks),
        ("user;show events buf0", "\nPermission denied\n\n"),
        ("show events nope", "No such event sink\n\n"),
        ("show events nope -x", "No such event sink\n\n"),
        ("show events stderr", "Nothing to report for this sink\n\n"),
        ("show events buf0 -x", "unknown option\n\n"),
        ("show events buf0 -n", "\n"),
    ] {
        assert_eq!(fixture.ask(line), answer, "{line}");
    }
    let marked = fixture.ask("set severity-output number;show events");
    assert_eq!(marked, format!("\n[4]: {sinks}"));
    let text = event(&fixture, 5);
    let events = fixture.ask("show events buf0");
    let line = events.lines().find(|line| line.contains(&text));
    assert!(
        line.is_some_and(|line| line.starts_with("<6>2")),
        "{events}"
    );
    assert!(
        events.contains(" ready version=") && events.ends_with("\n\n"),
        "{events}"
    );
    let zero = fixture.ask("show events buf0 -0");
    assert_eq!(zero.replace('\0', "\n"), events);
    assert_eq!(zero.matches('\n').count(), 1);
    fixture.rlb.stop();
}

#[test]
fn a_client_follows_until_it_sends_something() {
    let fixture = fixture("timeout = \"1s\"");
    let socket = fixture.socket();
    let mut all = Follower::new(&socket, "-w");
    all.wait_for(" ready version=");
    let mut new = Follower::new(&socket, "-n -w");
    // It has no end by itself, however long nothing happens.
    new.0.get_ref().set_nonblocking(true).expect("set");
    steadily(Duration::from_millis(1500), "nothing", || {
        let read = new.0.get_mut().read(&mut [0]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    });
    new.0.get_ref().set_nonblocking(false).expect("set");
    let text = event(&fixture, 6);
    all.wait_for(&text);
    let first = new.wait_for("");
    assert!(first.contains(&text), "{first}");
    // What it sends is thrown away.
    for byte in [b"s", b"h"] {
        new.0.get_ref().write_all(byte).expect("sent");
    }
    assert_eq!(new.rest(), "\n");
    // The end of what it sends, too.
    all.0
        .get_ref()
        .shutdown(Shutdown::Write)
        .expect("half closed");
    assert_eq!(all.rest(), "\n");
    let mut prompted = UnixStream::connect(&socket).expect("it listens");
    prompted.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    prompted
        .write_all(b"prompt i\nshow events buf0 -nw\n")
        .expect("sent");
    let mut prompted = Follower(BufReader::new(prompted));
    prompted.wait_for("");
    eventually_true(TIMEOUT, "it follows", || {
        let text = event(&fixture, 7);
        prompted.wait_for("").contains(&text)
    });
    prompted.0.get_ref().write_all(b"\n").expect("sent");
    prompted.wait_for("");
    prompted
        .0
        .get_ref()
        .write_all(b"show version\n")
        .expect("sent");
    prompted.wait_for("rlb");
    fixture.rlb.stop();
}

/// As many as are allowed, whether they read or not: nobody else waits for them, and a stop does not.
#[test]
fn many_clients_follow_and_those_that_do_not_read_hold_nobody_up() {
    let fixture = fixture("maxconn = 250\ntimeout = \"1s\"");
    let socket = fixture.socket();
    let mut readers: Vec<Follower> = (0..100).map(|_| Follower::new(&socket, "-w")).collect();
    let idle: Vec<Follower> = (0..100).map(|_| Follower::new(&socket, "-w")).collect();
    let mut halves: Vec<Follower> = (0..20).map(|_| Follower::new(&socket, "-w")).collect();
    for half in &mut halves {
        half.0
            .get_ref()
            .shutdown(Shutdown::Write)
            .expect("half closed");
    }
    for half in &mut halves {
        assert!(half.rest().ends_with("\n\n"));
    }
    // More than is kept and than a socket takes.
    let long = "x".repeat(900);
    for number in 0..600 {
        let answer = ask(&socket, &format!("set server be/{long}{number} weight 1"));
        assert_eq!(answer, "No such server.\n\n");
        if number % 50 == 0 {
            for reader in &mut readers {
                reader.wait_for(&format!("{long}{number} weight"));
            }
        }
    }
    let text = event(&fixture, 9);
    for reader in &mut readers {
        reader.wait_for(&text);
    }
    let kept = fixture.ask("show events buf0");
    assert!(
        kept.len() < 140_000 && kept.contains(&text),
        "{}",
        kept.len()
    );
    fixture.rlb.stop_after((readers, idle));
}

#[test]
fn a_reload_leaves_followers_and_an_upgrade_ends_them() {
    let mut fixture = fixture("");
    let socket = fixture.socket();
    let mut follower = Follower::new(&socket, "-nw");
    fixture.rlb.reload(&fixture.config.clone());
    follower.wait_for("reloaded: ");
    fixture.ask("upgrade");
    follower.wait_for("upgraded: process ");
    assert!(follower.rest().ends_with('\n'));
    let next = Next::of(&fixture.rlb);
    assert!(ask(&socket, "show events buf0").contains(" ready version="));
    // A reload that removes the socket ends them, too.
    next.stop();
}

#[test]
fn ctl_follows_until_a_line_is_typed_or_its_reader_ends() {
    let fixture = fixture("");
    let socket = fixture.socket().display().to_string();
    let ctl = |line: &str| {
        let said = command(&["ctl", "--socket", &socket, line]);
        (
            said.status.code(),
            String::from_utf8(said.stdout).expect("text"),
        )
    };
    let none = (Some(1), "No such event sink\n\n".to_owned());
    assert_eq!(ctl("show events nope -w"), none);
    let line = format!("{PROGRAM} ctl --socket {socket} 'show events buf0 -w'");
    let head = std::process::Command::new("sh")
        .args(["-c", &format!("{line} | head -n 1")])
        .output()
        .expect("it starts");
    assert!(head.stdout.starts_with(b"<"), "{head:?}");
    let Some(mut terminal) = Terminal::start(&line, &[]) else {
        return;
    };
    terminal.wait_for(" ready version=");
    let text = event(&fixture, 8);
    terminal.wait_for(&text);
    terminal.press("\n");
    assert!(terminal.ended_well());
    eventually_true(STOP_WITHIN, "all slots are free", || {
        ask(&fixture.socket(), "show info").contains("Maxconn")
    });
    fixture.rlb.stop();
}
