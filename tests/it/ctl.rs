//! `rlb ctl` with a pipe, on a terminal, and its tables and JSON.

use crate::harness::config::Config;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::PROGRAM;
use crate::harness::runtime::Fixture;
use crate::harness::terminal::Terminal;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn fixture(peer: &Peer) -> (Fixture, PathBuf) {
    let config = Config::new().server_with(peer.address(), "check = false");
    let fixture = Fixture::new(config, "admin");
    let socket = fixture.socket();
    (fixture, socket)
}

/// Runs a program with `input`; its output.
fn piped(mut command: Command, input: &str) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("written");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn lines_of_a_pipe_are_commands() {
    let peer = Peer::start(Behaviour::Echo);
    let (fixture, socket) = fixture(&peer);
    let run = |options: &[&str], input: &str| {
        let mut command = Command::new(PROGRAM);
        command.args(["ctl", "--socket"]).arg(&socket).args(options);
        let output = piped(command, input);
        (output.status.code(), text(&output.stdout))
    };
    let lines = "show version\n\n# a comment\nget weight be/s1\n";
    let answer = "3.0.0-rlb0.1.0\n\n1 (initial 1)\n\n";
    assert_eq!(run(&[], lines), (Some(0), answer.to_owned()));
    // Those behind one that fails are sent too.
    let (code, out) = run(&[], "get weight be/x\nget weight be/s1\n");
    assert_eq!(
        (code, out.as_str()),
        (Some(1), "No such server.\n\n1 (initial 1)\n\n")
    );

    let (code, out) = run(
        &["--json"],
        "show stat be 4 -1;show info\nget weight be/x\n",
    );
    assert_eq!(code, Some(1));
    let objects: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    assert_eq!(objects.len(), 3);
    let server = &objects[0]["rows"][0];
    assert_eq!(
        (&server["svname"], &server["weight"]),
        (&"s1".into(), &1.into())
    );
    let pid = fixture.rlb.process.id();
    assert_eq!(objects[1]["values"]["Pid"], pid);
    assert_eq!(objects[2]["succeeded"], false);
    assert_eq!(objects[2]["text"], "No such server.");

    let (code, out) = run(&["--table"], "show stat be 4 -1\n");
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("pxname  svname  status"), "{out}");
    assert!(lines[1].starts_with("be      s1      no check"), "{out}");
    fixture.rlb.stop();
}

#[test]
fn on_a_terminal_it_remembers_commands() {
    let peer = Peer::start(Behaviour::Echo);
    let (fixture, socket) = fixture(&peer);
    let home = tempfile::tempdir().expect("a directory");
    let line = format!(
        "env -u XDG_STATE_HOME {PROGRAM} ctl --socket {}",
        socket.display()
    );
    let path = home.path().to_str().expect("a UTF-8 path");
    let Some(mut terminal) = Terminal::start(&line, &[("HOME", path)]) else {
        return;
    };
    // What is typed before an answer is there may be lost with it.
    for (line, answer) in [
        ("show version", "3.0.0-rlb0.1.0"),
        ("get weight be/x", "No such server."),
        ("show backend", "stats"),
    ] {
        terminal.press(&format!("{line}\n"));
        terminal.wait_for(answer);
    }
    terminal.press("quit\n");
    assert!(!terminal.ended_well(), "one of them has failed");
    let history = home.path().join(".local/state/rlb/ctl-history");
    let history = std::fs::read_to_string(history).expect("a history");
    let remembered: Vec<&str> = history
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(
        remembered,
        ["show version", "get weight be/x", "show backend"]
    );
    fixture.rlb.stop();
}

#[test]
fn on_a_terminal_an_unreachable_socket_is_an_error() {
    let line = format!("{PROGRAM} ctl --socket /nonexistent/rlb.sock");
    let Some(terminal) = Terminal::start(&line, &[]) else {
        return;
    };
    terminal.wait_for("cannot reach /nonexistent/rlb.sock");
    assert!(!terminal.ended_well(), "nobody listens there");
}
