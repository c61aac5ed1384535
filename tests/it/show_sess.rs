//! `show sess` and `shutdown session`: sessions of every worker and phase, listed and ended.

use crate::harness::client::{End, connect, echo, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::eventually;
use crate::harness::needs;
use crate::harness::peer::{Behaviour, Peer, Unanswering};
use crate::harness::process::Process;
use crate::harness::rlb::STOP_WITHIN;
use crate::harness::runtime::{Fixture, ask};
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

/// The line of a session.
struct Line(String);

impl Line {
    fn id(&self) -> &str {
        self.0.split(':').next().expect("a line begins with an id")
    }

    /// The value of `name=…`.
    fn field(&self, name: &str) -> &str {
        let words = self.0.split(' ');
        let mut values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let value = values.next();
        value.unwrap_or_else(|| panic!("no {name} in {}", self.0))
    }

    /// The names of all fields, in order.
    fn names(&self) -> Vec<&str> {
        let words = self.0.split(' ').skip(1);
        words
            .filter_map(|word| word.split(['=', '[']).next())
            .collect()
    }
}

/// The lines of an answer, without the empty one at its end.
fn lines(answer: &str) -> Vec<Line> {
    let all = answer.lines().filter(|line| !line.is_empty());
    all.map(|line| Line(line.to_owned())).collect()
}

fn list(fixture: &Fixture, arguments: &str) -> Vec<Line> {
    lines(&fixture.ask(&format!("show sess {arguments}")))
}

/// Waits until `count` sessions are listed with these arguments.
fn listed(fixture: &Fixture, arguments: &str, count: usize) -> Vec<Line> {
    eventually(STOP_WITHIN, &format!("{count} sessions"), || {
        let all = list(fixture, arguments);
        (all.len() == count).then_some(all)
    })
}

fn source(stream: &TcpStream) -> String {
    stream.local_addr().expect("connected").to_string()
}

#[test]
fn every_session_is_listed_once_whatever_worker_has_it() {
    /// More than two pages of each worker.
    const SESSIONS: usize = 600;
    let peer = Peer::start(Behaviour::SpeaksFirst("hi"));
    let config = Config::new().server_with(peer.address(), "check = false");
    let fixture = Fixture::new(config, "operator");
    assert_eq!(fixture.ask("show sess"), "\n", "nobody is there");
    let clients: Vec<TcpStream> = (0..SESSIONS)
        .map(|_| {
            let mut client = connect(fixture.rlb.address());
            client.read_exact(&mut [0; 2]).expect("the server's words");
            client
        })
        .collect();
    let all = listed(&fixture, "", SESSIONS);
    let ids: HashSet<&str> = all.iter().map(Line::id).collect();
    assert_eq!(ids.len(), SESSIONS);
    let sources: HashSet<&str> = all.iter().map(|line| line.field("src")).collect();
    let clients_sources: Vec<String> = clients.iter().map(source).collect();
    assert_eq!(
        sources,
        clients_sources.iter().map(String::as_str).collect()
    );
    let threads: HashSet<&str> = all.iter().map(|line| line.field("thr")).collect();
    assert_eq!(threads, HashSet::from(["0", "1"]));
    for line in &all {
        let fields = ["proto", "fe", "be", "srv", "bin", "bout", "rqby", "rpby"];
        let fields = fields.map(|name| line.field(name));
        assert_eq!(
            fields,
            ["tcpv4", "fe", "be", "s1", "0", "2", "copy", "copy"]
        );
    }
    // An operator may list sessions and end none.
    let shutdown = format!("shutdown session {}", all[0].id());
    assert_eq!(fixture.ask(&shutdown), "Permission denied\n\n");
    fixture.rlb.stop_after(clients);
}

#[test]
fn sessions_are_chosen_by_where_they_are() {
    let (one, two) = (Peer::start(Behaviour::Echo), Peer::start(Behaviour::Echo));
    let config = Config::new()
        .server_with(one.address(), "check = false")
        .server_with(two.address(), "check = false")
        .table(&format!(
            "[[listen]]\nname = \"other\"\nbind = [\"127.0.0.1:0\"]\n\
             servers = [{{ name = \"s1\", address = \"{}\", check = false }}]",
            one.address()
        ));
    let fixture = Fixture::new(config, "admin");
    let other = fixture.rlb.addresses("other")[0];
    let mut clients: Vec<TcpStream> = (0..4).map(|_| connect(fixture.rlb.address())).collect();
    clients.push(connect(other));
    for client in &mut clients {
        echo(client, b"established");
    }
    let count = |arguments: &str| list(&fixture, arguments).len();
    assert_eq!(count(""), 5);
    assert_eq!(count("frontend fe"), 4);
    assert_eq!(count("backend other"), 1);
    assert_eq!(count("server be/s1"), 2);
    assert_eq!(count("server other/s1"), 1);
    assert_eq!(count("susp older 1h"), 0);
    assert_eq!(count("susp"), 0, "all have timeouts");
    assert_eq!(fixture.ask("show sess older 3600"), "\n");
    let id = list(&fixture, "backend other")[0].id().to_owned();
    let dump = fixture.ask(&format!("show sess {id}"));
    let port = other.port();
    for part in [
        format!("{id}: ["),
        format!(" proto=tcpv4 source={}\n", source(&clients[4])),
        format!("  frontend=other (id=5 mode=tcp) addr=127.0.0.1:{port}\n"),
        format!("  server=s1 (id=1) addr={}\n", one.address()),
        "  req bytes=11 pending=0 by=copy\n".to_owned(),
        // The client's keepalive is on from the accept, the server's after the session has lasted some seconds.
        " keepalive\n  scb state=EST ".to_owned(),
    ] {
        assert!(dump.contains(&part), "{part} in {dump}");
    }
    assert_eq!(dump.matches("0x").count(), 1, "one session: {dump}");
    assert_eq!(fixture.ask("show sess all").matches(" source=").count(), 5);
    assert_eq!(fixture.ask("show sess 0xffffff"), "Session not found.\n\n");
    fixture.rlb.stop_after(clients);
}

#[test]
fn one_session_is_shut_down_and_no_other() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new().server_with(peer.address(), "check = false");
    let fixture = Fixture::new(config, "admin");
    let mut clients: Vec<TcpStream> = (0..8).map(|_| connect(fixture.rlb.address())).collect();
    for client in &mut clients {
        echo(client, b"established");
    }
    let (victim, rest) = clients.split_first_mut().expect("eight");
    let source = source(victim);
    let all = list(&fixture, "");
    let found = all.iter().find(|line| line.field("src") == source);
    let id = found.expect("it is listed").id();
    assert_eq!(fixture.ask(&format!("shutdown session {id}")), "\n");
    assert_eq!(read_to_end(victim), (vec![], End::Reset));
    for client in rest {
        echo(client, b"still here");
    }
    assert_eq!(
        fixture.ask(&format!("shutdown session {id}")),
        "No such session (use 'show sess').\n\n"
    );
    for line in ["shutdown session", "shutdown session nonsense"] {
        let said = "Session pointer expected (use 'show sess').\n\n";
        assert_eq!(fixture.ask(line), said);
    }
    fixture.rlb.stop_after(clients);
}

#[test]
fn a_session_that_is_still_connecting_is_listed_and_shut_down() {
    let dark = Unanswering::start();
    let config = Config::new()
        .global("hard-stop-after = \"1s\"")
        .timeout("connect = \"1m\"")
        .server_with(dark.address(), "check = false")
        .log("stdout", "raw");
    let mut fixture = Fixture::new(config, "admin");
    let mut clients: Vec<TcpStream> = (0..3).map(|_| connect(fixture.rlb.address())).collect();
    // A session is in the list from its acceptance on, a moment before a server is chosen.
    let all = eventually(STOP_WITHIN, "3 sessions with a server", || {
        let all = list(&fixture, "");
        let chosen = all.iter().all(|line| line.field("srv") != "<none>");
        (all.len() == 3 && chosen).then_some(all)
    });
    let left = |line: &Line| line.field("c_exp").strip_suffix('s')?.parse::<u64>().ok();
    for line in &all {
        let fields = ["fe", "be", "srv", "rc"].map(|name| line.field(name));
        assert_eq!(fields, ["fe", "be", "s1", "0"]);
        assert!(line.field("scb").starts_with("[5,1h,fd=-1,"), "{}", line.0);
        assert!(
            left(line).is_some_and(|seconds| (1..60).contains(&seconds)),
            "{}",
            line.0
        );
    }
    let dump = fixture.ask("show sess all");
    assert_eq!(dump.matches("  scb state=CON\n").count(), 3, "{dump}");
    let first = source(&clients[0]);
    let found = all.iter().find(|line| line.field("src") == first);
    let id = found.expect("it is listed").id();
    assert_eq!(fixture.ask(&format!("shutdown session {id}")), "\n");
    assert_eq!(read_to_end(&mut clients[0]).0, b"");
    assert_eq!(listed(&fixture, "", 2).len(), 2);
    assert_eq!(fixture.rlb.number("FRONTEND", "scur"), 2);
    // The end of a stop ends the others.
    fixture.rlb.signal(Signal::SIGTERM);
    assert_eq!(fixture.rlb.process.wait(STOP_WITHIN).code(), Some(0));
    let killed = || fixture.rlb.process.stdout.with(" KC ");
    eventually(STOP_WITHIN, "three lines", || {
        (killed().len() == 3).then_some(())
    });
}

#[test]
fn a_list_says_what_moves_the_bytes() {
    /// Enough that a download is bulk, and more than the sockets hold.
    const BYTES: usize = 64 << 20;
    let flood = Behaviour::script(|mut stream| {
        let chunk = vec![0; 1 << 20];
        while stream.write_all(&chunk).is_ok() {}
    });
    let peer = Peer::start(flood);
    let config = Config::new().server_with(peer.address(), "check = false");
    let fixture = Fixture::new(config, "admin");
    let mut client = connect(fixture.rlb.address());
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..BYTES / buffer.len() {
        client.read_exact(&mut buffer).expect("bulk");
    }
    // The client stops reading; data stays in a pipe.
    let line = eventually(STOP_WITHIN, "a spliced download that waits", || {
        let line = list(&fixture, "").pop()?;
        let waits = !line.0.contains(" rp[f=000000h,i=0,");
        (line.field("rpby") == "splice" && waits).then_some(line)
    });
    assert_eq!(line.field("rqby"), "copy");
    let bytes: usize = line.field("bout").parse().expect("a number");
    assert!(bytes >= BYTES, "{}", line.0);
    fixture.rlb.stop_after(client);
}

#[test]
fn a_client_that_does_not_read_the_list_keeps_nobody_waiting() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new().server_with(peer.address(), "check = false");
    let fixture = Fixture::new(config, "admin");
    let mut clients: Vec<TcpStream> = (0..400).map(|_| connect(fixture.rlb.address())).collect();
    for client in &mut clients {
        echo(client, b"established");
    }
    let mut rude = UnixStream::connect(fixture.socket()).expect("the socket is there");
    let line = "show sess all;".repeat(50);
    writeln!(rude, "{line}").expect("sent");
    // It reads nothing; meanwhile sessions go on and other clients get answers.
    for client in &mut clients {
        echo(client, b"still here");
    }
    assert_eq!(list(&fixture, "").len(), 400);
    assert_eq!(fixture.ask("set server be/s1 state ready"), "\n");
    drop(rude);
    fixture.rlb.stop_after(clients);
}

/// A session of HAProxy and one of rlb: the same fields with the same names in the same order.
#[test]
fn the_line_begins_as_haproxys() {
    let Some(haproxy) = needs::program("haproxy") else {
        return;
    };
    let peer = Peer::start(Behaviour::Echo);
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let text = format!(
        "global\n stats socket {}\ndefaults\n mode tcp\n timeout client 1m\n timeout server 1m\n \
         timeout connect 5s\nfrontend fe\n bind unix@{}\n default_backend be\nbackend be\n \
         server s1 {}\n",
        path("admin.sock").display(),
        path("fe.sock").display(),
        peer.address(),
    );
    std::fs::write(path("haproxy.cfg"), text).expect("written");
    let mut command = Command::new(haproxy);
    command.arg("-db").arg("-f").arg(path("haproxy.cfg"));
    let process = Process::start(command, None, false);
    let talk = |socket: &Path| {
        let mut stream = eventually(STOP_WITHIN, "the socket", || {
            UnixStream::connect(socket).ok()
        });
        stream.write_all(b"x").expect("written");
        stream.read_exact(&mut [0]).expect("echoed");
        stream
    };
    let theirs = talk(&path("fe.sock"));
    let config = Config::new()
        .bind(format!("unix:{}", path("rlb.sock").display()))
        .server_with(peer.address(), "check = false");
    let fixture = Fixture::new(config, "admin");
    let ours = talk(&path("rlb.sock"));
    // HAProxy lists the session of the runtime socket, too.
    let answers = [&path("admin.sock"), &fixture.socket()].map(|socket| {
        let all = lines(&ask(socket, "show sess"));
        let mut of_proxy = all.into_iter().filter(|line| line.field("fe") == "fe");
        of_proxy.next().expect("the session is listed")
    });
    let [haproxys, rlbs] = &answers;
    let (names, ours_names) = (haproxys.names(), rlbs.names());
    assert!(names.len() >= 18, "{names:?}");
    assert_eq!(names, ours_names[..names.len()]);
    for name in ["proto", "src", "fe", "be", "srv", "ts", "rc", "c_exp"] {
        assert_eq!(haproxys.field(name), rlbs.field(name), "{name}");
    }
    drop((theirs, process));
    fixture.rlb.stop_after(ours);
}
