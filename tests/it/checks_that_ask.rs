//! Checks that ask more than a connection. HAProxy and rlb under its name run the same file against the same scripted
//! servers, and must tell the same of them; and real servers are asked.

use crate::harness::beside::{self, Beside, WITHIN};
use crate::harness::client::TIMEOUT;
use crate::harness::config::Config;
use crate::harness::csv::Csv;
use crate::harness::eventually::{eventually_eq, eventually_true};
use crate::harness::needs;
use crate::harness::netns::{Lab, Netns};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::process::Process;
use crate::harness::rlb::Rlb;
use crate::harness::stalls::eventually_if_idle;
use crate::lab::services::{Database, nginx};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// Reads once, sends this, and waits for the end.
pub(crate) fn answers(answer: &'static [u8]) -> Behaviour {
    Behaviour::script(move |mut stream| {
        let mut buffer = [0; 4096];
        if stream.read(&mut buffer).is_ok_and(|length| length > 0)
            && stream.write_all(answer).is_ok()
        {
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        }
    })
}

/// Sends this before it reads anything.
fn greets(greeting: &'static [u8]) -> Behaviour {
    Behaviour::script(move |mut stream| {
        let mut buffer = [0; 4096];
        if stream.write_all(greeting).is_ok() {
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        }
    })
}

/// Reads once and ends.
pub(crate) fn ends() -> Behaviour {
    Behaviour::script(|mut stream| drop(stream.read(&mut [0; 4096])))
}

/// A mail server.
fn mail() -> Behaviour {
    Behaviour::script(|mut stream| {
        let mut buffer = [0; 4096];
        for line in ["220 mx ESMTP\r\n", "250 hello you\r\n", "221 bye\r\n"] {
            if stream.write_all(line.as_bytes()).is_err() || stream.read(&mut buffer).is_err() {
                return;
            }
        }
    })
}

pub(crate) const OK: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok";
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nbad";
const GONE: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
const CHUNKS: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
const ROLE: &[u8] = b"HTTP/1.1 200 OK\r\nX-Role: x, primary\r\nContent-Length: 5\r\n\r\nhello";
const PONG: &[u8] = b"+PONG\r\n";

/// A backend: its name, what its server does, its lines, and what is shown of it by both.
pub(crate) type Case = (
    &'static str,
    Behaviour,
    &'static [&'static str],
    &'static str,
);

const HTTP: &str = "option httpchk";
const TCP: &str = "option tcp-check";

#[expect(clippy::too_many_lines, reason = "a table")]
fn http_cases() -> Vec<Case> {
    vec![
        ("http", answers(OK), &[HTTP], "UP L7OK 200 15/3 "),
        (
            "busy",
            answers(BUSY),
            &[HTTP],
            "DOWN L7STS 503 17/2 Service Unavailable",
        ),
        ("silent", Behaviour::Sink, &[HTTP], "DOWN L7TOUT  12/2 "),
        (
            "gone",
            answers(GONE),
            &[HTTP],
            "DOWN L7STS 404 17/2 Not Found",
        ),
        (
            "leaves",
            answers(GONE),
            &[HTTP, "http-check disable-on-404"],
            "NOLB L7OKC 404 16/4 ",
        ),
        (
            "body",
            answers(CHUNKS),
            &[
                "option httpchk GET /x HTTP/1.1",
                "http-check expect string abc",
            ],
            "UP L7OK 200 15/3 ",
        ),
        (
            "no-body",
            answers(CHUNKS),
            &[
                HTTP,
                "http-check comment hello",
                "http-check expect rstring abd",
            ],
            "DOWN L7RSP  13/2 HTTP content check did not match comment: hello",
        ),
        (
            "not-body",
            answers(CHUNKS),
            &[HTTP, "http-check expect ! string abc"],
            "DOWN L7RSP  13/2 HTTP check matched unwanted content",
        ),
        (
            "status",
            answers(CHUNKS),
            &[HTTP, "http-check expect rstatus ^4 comment why"],
            "DOWN L7STS 200 17/2 OK comment: why",
        ),
        (
            "list",
            answers(CHUNKS),
            &[
                HTTP,
                "http-check send meth GET uri /y",
                "http-check expect status 200,204",
            ],
            "UP L7OK 200 15/3 ",
        ),
        (
            "role",
            answers(ROLE),
            &[HTTP, "http-check expect hdr name x-role value primary"],
            "UP L7OK 200 15/3 ",
        ),
        (
            "other-role",
            answers(ROLE),
            &[HTTP, "http-check expect hdr name x-role value -m beg stand"],
            "DOWN L7STS 200 17/2 OK",
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn tcp_cases() -> Vec<Case> {
    vec![
        (
            "ping",
            answers(PONG),
            &[
                TCP,
                "tcp-check connect",
                "tcp-check send PING\\r\\n",
                "tcp-check expect string +PONG",
            ],
            "UP L7OK 0 15/3 (tcp-check)",
        ),
        (
            "pang",
            answers(PONG),
            &[
                TCP,
                "tcp-check send PING\\r\\n",
                "tcp-check comment ping",
                "tcp-check expect string +PANG",
            ],
            "DOWN L7TOUT  12/2  at step 3 of tcp-check (expect string '+PANG') comment: 'ping'",
        ),
        (
            "not-pong",
            answers(PONG),
            &[
                TCP,
                "tcp-check send PING\\r\\n",
                "tcp-check expect ! string PONG",
            ],
            "DOWN L7RSP  13/2 TCPCHK matched unwanted content 'PONG' at step 2",
        ),
        (
            "ends",
            ends(),
            &[
                TCP,
                "tcp-check send PING\\r\\n",
                "tcp-check expect string PONG",
            ],
            "DOWN L7RSP  13/2 TCPCHK got an empty response at step 2",
        ),
        (
            "resets",
            Behaviour::Resets,
            &[
                TCP,
                "tcp-check send P",
                "tcp-check expect rstring PONG comment nothing",
            ],
            "DOWN SOCKERR  5/2 ECONNRESET returned by OS (Connection reset by peer) at step 2 of tcp-check \
             (expect regex) comment: 'nothing'",
        ),
        (
            "refuses",
            Behaviour::Sink,
            &[
                TCP,
                "tcp-check connect port 9 comment boo",
                "tcp-check send x",
            ],
            "DOWN L4CON  8/2 ECONNREFUSED returned by OS (Connection refused) at step 1 of tcp-check \
             (connect port 9) comment: 'boo'",
        ),
        (
            "binary",
            answers(PONG),
            &[
                TCP,
                "tcp-check send-binary 50494e47",
                "tcp-check expect rbinary ^2B504F",
            ],
            "UP L7OK 0 15/3 (tcp-check)",
        ),
        (
            "binary-not",
            answers(PONG),
            &[
                TCP,
                "tcp-check send P",
                "tcp-check expect binary 2B504e comment cc",
            ],
            "DOWN L7TOUT  12/2  at step 2 of tcp-check (expect binary '2B504E') comment: 'cc'",
        ),
        (
            "named",
            answers(PONG),
            &[
                TCP,
                "tcp-check send x",
                "tcp-check expect string PONG on-success fine ok-status L6OK",
            ],
            "UP L6OK  9/3 fine",
        ),
        (
            "at-once",
            answers(PONG),
            &[
                TCP,
                "tcp-check send x",
                "tcp-check expect string PONX error-status L7STS min-recv 0",
            ],
            "DOWN L7STS 0 17/2 TCPCHK did not match content 'PONX' at step 2",
        ),
    ]
}

fn preset_cases() -> Vec<Case> {
    vec![
        (
            "redis",
            answers(PONG),
            &["option redis-check"],
            "UP L7OK 0 15/3 Redis server is ok",
        ),
        (
            "pg",
            answers(b"R\0\0\0\x0c\0\0\0\x05abcd"),
            &["option pgsql-check user u"],
            "UP L7OK 0 15/3 PostgreSQL server is ok",
        ),
        (
            "pg-no",
            answers(b"E\0\0\0\x20SFATAL\0Mno such user\0\0"),
            &["option pgsql-check user u"],
            "DOWN L7RSP  13/2 FATAL",
        ),
        (
            "my-no",
            greets(b"\x11\0\0\0\xff\x10\x04#08004Too many"),
            &["option mysql-check user u"],
            "DOWN L7STS 1040 17/2 #08004Too many",
        ),
        (
            "ldap-no",
            answers(b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x31\x04\0\x04\0"),
            &["option ldap-check"],
            "DOWN L7STS 49 17/2 See RFC: http://tools.ietf.org/html/rfc4511#section-4.1.9",
        ),
        (
            "tls",
            answers(b"\x15\x03\0\0\x02\x02\x28"),
            &["option ssl-hello-chk"],
            "UP L6OK  9/3 ",
        ),
        (
            "tls-no",
            answers(PONG),
            &["option ssl-hello-chk"],
            "DOWN L6RSP  11/2 ",
        ),
        ("mail", mail(), &["option smtpchk"], "UP L7OK 221 15/3 bye"),
        (
            "mail-no",
            greets(b"421 too busy\r\n"),
            &["option smtpchk EHLO me"],
            "DOWN L7STS 421 17/2 too busy",
        ),
    ]
}

/// A line of the log without what differs between two runs.
fn masked(line: &str) -> String {
    let (_, text) = line.split_once("]: ").expect("a tag");
    match text.split_once("check duration: ") {
        Some((before, after)) => {
            let rest = after.split_once("ms").expect("its unit").1;
            format!("{before}check duration: MSms{rest}")
        }
        None => text.to_owned(),
    }
}

/// What is shown of each server, and the first lines about it.
pub(crate) fn seen(program: &Path, cases: &[Case]) -> Vec<String> {
    let netns = Netns::loopback();
    let mut service = String::from("  server s1 127.0.0.1:9\n");
    let mut peers = Vec::new();
    for (name, behaviour, lines, _) in cases {
        let peer = netns.enter(|| Peer::start(behaviour.clone()));
        let lines = lines.join("\n  ");
        let address = peer.address();
        service.extend([format!(
            "backend {name}\n  {lines}\n  server s {address} check\n"
        )]);
        peers.push(peer);
    }
    let defaults =
        "  option log-health-checks\n  timeout check 500ms\n  default-server inter 1s fall 1\n";
    let beside = Beside::start(program, netns, (defaults, &service));
    let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    eventually_true(2 * WITHIN, "each was checked", || {
        while let Some(line) = beside.log.try_next() {
            for (name, ..) in cases {
                let about = lines.entry(name).or_default();
                if line.contains(&format!("server {name}/s ")) && about.is_empty()
                    || line.contains(&format!("Server {name}/s is ")) && about.len() == 1
                {
                    about.push(masked(&line));
                }
            }
        }
        let csv = beside.stat();
        cases.iter().all(|(name, .., expected)| {
            let checked = !csv.row(name, "s").text("check_status").ends_with("INI");
            // Of one that stays as it was there is one line.
            let count = if expected.starts_with("UP") { 1 } else { 2 };
            checked && lines.get(name).is_some_and(|about| about.len() == count)
        })
    });
    let mut out = Vec::new();
    for (name, .., expected) in cases {
        // HAProxy takes back what it says of a check when the next one begins.
        let (csv, state) = eventually_if_idle(2 * WITHIN, "no check runs", || {
            let idle = |csv: &Csv| !csv.row(name, "s").text("check_status").starts_with('*');
            let before = beside.stat();
            let states = beside.ask("show servers state");
            let mut lines = states
                .lines()
                .filter(|line| line.contains(&format!(" {name} ")));
            let state = lines.next().expect("its line").to_owned();
            (idle(&before) && idle(&beside.stat())).then_some((before, state))
        });
        let row = csv.row(name, "s");
        let state: Vec<&str> = state.split(' ').collect();
        let shown = format!(
            "{} {} {} {}/{} {}",
            row.text("status"),
            row.text("check_status"),
            row.text("check_code"),
            state[10],
            state[11],
            row.text("last_chk"),
        );
        assert_eq!(shown, *expected, "{name}");
        out.push(format!("{name}: {shown}; {}", row.text("check_desc")));
        out.extend(lines.remove(name).unwrap_or_default());
    }
    beside.stop();
    out
}

/// Texts are those of HAProxy 3; 2.6 has others for errors of the system.
#[test]
fn checks_of_http_tell_what_haproxys_tell() {
    let cases = http_cases();
    beside::both_since((3, 0), |program| seen(program, &cases));
}

#[test]
fn checks_by_rules_tell_what_haproxys_tell() {
    let cases = tcp_cases();
    beside::both_since((3, 0), |program| seen(program, &cases));
}

#[test]
fn checks_with_a_name_tell_what_haproxys_tell() {
    let cases = preset_cases();
    beside::both_since((3, 0), |program| seen(program, &cases));
}

/// A server that tells what it was asked.
fn listens() -> (Peer, Receiver<String>) {
    let (sender, receiver) = sync_channel(1000);
    let peer = Peer::start(Behaviour::script(move |mut stream: TcpStream| {
        let mut buffer = [0; 4096];
        let mut asked = String::new();
        // A PROXY header may come before the rest.
        while !asked.ends_with("\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(length) if length > 0 => asked += &String::from_utf8_lossy(&buffer[..length]),
                _ => return,
            }
        }
        // Nobody may listen any more.
        drop(sender.try_send(asked));
        drop(stream.write_all(OK));
        while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    }));
    (peer, receiver)
}

#[test]
fn a_request_says_what_is_known_of_the_server() {
    let (peer, asked) = listens();
    let config = Config::new()
        .backend(
            "check = { use = \"api\", interval = \"100ms\" }\ndefault-server = { send-proxy = \"v1\" }",
        )
        .server(peer.address())
        .table(
            "[check.api]\ntype = \"http\"\nmethod = \"GET\"\nuri = \"/readyz\"\nversion = \"HTTP/1.1\"\n\
             headers = { Host = \"%[be_name]\" }\nsend-state = true",
        );
    let rlb = Rlb::start(&config);
    let asked = || asked.recv_timeout(TIMEOUT).expect("a check");
    let first = asked();
    let (proxy, request) = first.split_once("\r\n").expect("a PROXY header");
    assert!(
        proxy.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "),
        "{proxy}"
    );
    let begin = "GET /readyz HTTP/1.1\r\nHost: be\r\nX-Haproxy-Server-State: UP 1/3; address=127.0.0.1; port=";
    assert!(request.starts_with(begin), "{request}");
    let about = "; name=be/s1; node=";
    let end = "; weight=1/1; scur=0/0; qcur=0\r\nConnection: close\r\n\r\n";
    assert!(
        request.contains(about) && request.ends_with(end),
        "{request}"
    );
    eventually_true(TIMEOUT, "it is up", || asked().contains("State: UP; "));
    rlb.wait_status("s1", "UP");
    rlb.stop();
}

#[test]
fn a_reload_changes_what_is_asked() {
    let (peer, asked) = listens();
    let config = |check: &str| {
        Config::new()
            .backend(&format!("check = {{ interval = \"100ms\", {check} }}"))
            .server(peer.address())
    };
    let mut rlb = Rlb::start(&config("type = \"http\", uri = \"/a\""));
    let shown = |rlb: &Rlb| {
        let csv = rlb.csv();
        let row = csv.row("be", "s1");
        let status = row.text("check_status").trim_start_matches("* ").to_owned();
        (
            status,
            row.text("check_code").to_owned(),
            row.text("last_chk").to_owned(),
        )
    };
    let says = |status: &str, code: &str, text: &str| {
        (status.to_owned(), code.to_owned(), text.to_owned())
    };
    eventually_eq(TIMEOUT, &says("L7OK", "200", ""), || shown(&rlb));
    rlb.reload(&config(
        "type = \"http\", uri = \"/b\", expect-status = \"204\"",
    ));
    eventually_eq(TIMEOUT, &says("L7STS", "200", "OK"), || shown(&rlb));
    rlb.wait_status("s1", "DOWN");
    rlb.reload(&config("type = \"http\", uri = \"/c\""));
    eventually_eq(TIMEOUT, &says("L7OK", "200", ""), || shown(&rlb));
    rlb.reload(&config("type = \"tcp\""));
    eventually_eq(TIMEOUT, &says("L4OK", "", ""), || shown(&rlb));
    let all: Vec<String> = asked.try_iter().collect();
    for uri in ["/a", "/b", "/c"] {
        let begin = format!("OPTIONS {uri} HTTP/1.0\r\n");
        assert!(all.iter().any(|one| one.starts_with(&begin)), "{all:?}");
    }
    rlb.stop();
}

/// A server whose checks answer 404 gets no new sessions, and those that it has go on.
#[test]
fn a_server_that_says_404_is_left_alone() {
    let checked = Peer::start(answers(GONE));
    let fine = Peer::start(answers(OK));
    let config = Config::new()
        .backend("check = { type = \"http\", interval = \"100ms\", disable-on-404 = true }")
        .server(checked.address())
        .server(fine.address());
    let rlb = Rlb::start(&config);
    rlb.wait_status("s1", "NOLB");
    rlb.wait_status("s2", "UP");
    let csv = rlb.csv();
    assert_eq!(csv.row("be", "BACKEND").number("act"), 1);
    assert_eq!(rlb.number("s1", "chkfail"), 0);
    rlb.stop();
}

/// Checks that wait for answers which do not come leave the others their time.
#[test]
fn checks_that_wait_delay_no_other() {
    let stalls = Peer::start(Behaviour::AcceptsThenStalls);
    let quick = Peer::start(Behaviour::Sink);
    let mut config = Config::new()
        .backend("check = { type = \"http\", interval = \"300ms\", timeout = \"300ms\" }")
        .server_with(
            quick.address(),
            "check = { type = \"tcp\", interval = \"50ms\", timeout = \"50ms\" }",
        );
    for _ in 0..100 {
        config = config.server(stalls.address());
    }
    let rlb = Rlb::start(&config);
    rlb.wait_status("s101", "DOWN");
    let (begun, before) = (std::time::Instant::now(), quick.accepted());
    eventually_true(TIMEOUT, "20 checks", || quick.accepted() >= before + 20);
    let took = begun.elapsed();
    assert!(
        took < Duration::from_millis(2500),
        "20 checks took {took:?}"
    );
    assert_eq!(rlb.status("s1"), "UP");
    rlb.stop();
}

/// nginx and PostgreSQL as they are: a status, a login, and a question in the wrong protocol.
#[test]
fn real_servers_are_asked() {
    if !needs::root() || needs::program("nginx").is_none() || needs::program("pgbench").is_none() {
        return;
    }
    let mut lab = Lab::new();
    lab.power_on(0);
    let web = nginx(&lab, 0, 80);
    let database = Database::create();
    let _postgres: Process = database.start(&lab, 0);
    let address = |port: u16| SocketAddr::from(([10, 240, 0, 37], port));
    let config = Config::new()
        .backend("check = { interval = \"200ms\", timeout = \"200ms\" }")
        .server_with(
            address(80),
            "check = { type = \"http\", method = \"GET\", uri = \"/\", expect-status = \"200\" }",
        )
        .server_with(
            address(80),
            "check = { type = \"http\", uri = \"/none\", expect-status = \"418\" }",
        )
        .server_with(
            address(5432),
            "check = { type = \"postgres\", user = \"postgres\" }",
        )
        .server_with(address(80), "check = { type = \"redis\" }");
    let rlb = crate::harness::rlb::Start::new(&config)
        .netns(&lab.lb)
        .ready();
    let shown = |server: &str| {
        let csv = lab.lb.enter(|| rlb.csv());
        let row = csv.row("be", server);
        format!(
            "{} {} {}",
            row.text("status"),
            row.text("check_status").trim_start_matches("* "),
            row.text("last_chk")
        )
    };
    let eventually = |server: &str, text: &str| {
        eventually_eq(2 * TIMEOUT, &text.to_owned(), || shown(server));
    };
    eventually("s1", "UP L7OK ");
    eventually("s3", "UP L7OK PostgreSQL server is ok");
    eventually("s2", "DOWN L7STS OK");
    eventually("s4", "DOWN L7STS HTTP/1.1 400 Bad Request");
    drop((web, database));
    rlb.stop();
}
