//! Hot reload of everything except traffic: the statistics' listener, the log, the runtime socket, the files of
//! `${file:…}`; and a rollback that fails.

use crate::harness::client::{TIMEOUT, connect, echo, http_get};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::{Rlb, STOP_WITHIN, command};
use crate::harness::syslog::Syslog;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// A free port at an address that no other test uses, so that no client's source port takes it, either.
fn own_address() -> SocketAddr {
    static LAST: AtomicU8 = AtomicU8::new(0);
    let ip = [127, 88, 0, LAST.fetch_add(1, Relaxed) + 1];
    let listener = TcpListener::bind((std::net::Ipv4Addr::from(ip), 0)).expect("a port");
    listener.local_addr().expect("bound")
}

/// `tables` and a frontend `fe` at `address` with the server `peer`.
fn text(tables: &str, address: SocketAddr, peer: &Peer) -> String {
    format!(
        "{tables}\n[[frontend]]\nname = \"fe\"\nbind = \"{address}\"\ndefault-backend = \"be\"\n\
         [[backend]]\nname = \"be\"\n\
         servers = [{{ name = \"s1\", address = \"{}\", check = false }}]\n",
        peer.address()
    )
}

fn stats(binds: &[SocketAddr]) -> String {
    let binds: Vec<String> = binds.iter().map(ToString::to_string).collect();
    format!("[stats]\nbind = {binds:?}")
}

fn get(address: SocketAddr, path: &str) -> String {
    let (status, text) = http_get(address, path).expect("answers");
    assert_eq!(status, 200, "{text}");
    text
}

fn is_closed(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, TIMEOUT).is_err()
}

/// A request on a connection that stays open.
fn health(stream: &mut TcpStream) {
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok\n") {
        let mut buffer = [0; 512];
        let length = stream.read(&mut buffer).expect("answered");
        assert!(length > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..length]);
    }
}

fn stats_sessions(csv: &str) -> u64 {
    let row = csv.lines().find(|line| line.starts_with("stats,FRONTEND,"));
    let field = row.and_then(|row| row.split(',').nth(7));
    field.and_then(|it| it.parse().ok()).expect("a row")
}

#[test]
fn binds_of_the_statistics_come_and_go() {
    let peer = Peer::start(Behaviour::Echo);
    let (fe, one, two) = (own_address(), own_address(), own_address());
    let with = |binds: &[SocketAddr]| text(&stats(binds), fe, &peer);
    let mut rlb = Rlb::start(&with(&[one]));
    let mut kept = connect(one);
    health(&mut kept);
    let counted = stats_sessions(&get(one, "/;csv"));
    rlb.reload(&with(&[one, two]));
    health(&mut kept);
    get(two, "/healthz");
    rlb.reload(&with(&[two]));
    eventually_true(STOP_WITHIN, "the removed address is closed", || {
        is_closed(one)
    });
    let mut rest = Vec::new();
    kept.read_to_end(&mut rest).expect("an orderly end");
    assert!(rest.is_empty());
    assert!(
        stats_sessions(&get(two, "/;csv")) > counted,
        "its counters go on"
    );
    // An address that is taken changes nothing.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    rlb.reload_refused(&with(&[one, taken.local_addr().expect("bound")]));
    assert!(is_closed(one));
    assert!(get(two, "/metrics").contains("\nrlb_reloads_total{result=\"failure\"} 1\n"));
    // The statistics and a frontend swap addresses.
    rlb.reload(&text(&stats(&[fe]), two, &peer));
    eventually_true(STOP_WITHIN, "the page is where the frontend was", || {
        http_get(fe, "/healthz").is_ok_and(|answer| answer == (200, "ok\n".to_owned()))
    });
    eventually_true(STOP_WITHIN, "and the frontend where the page was", || {
        let mut stream = connect(two);
        stream.write_all(b"hello").is_ok() && stream.read_exact(&mut [0; 5]).is_ok()
    });
    rlb.stop();
}

#[test]
fn the_statistics_come_and_go() {
    let peer = Peer::start(Behaviour::Echo);
    let (fe, page) = (own_address(), own_address());
    let mut rlb = Rlb::start(&text("", fe, &peer));
    let mut stream = connect(fe);
    echo(&mut stream, b"counted before there is a page");
    rlb.reload(&text(&stats(&[page]), fe, &peer));
    let csv = get(page, "/;csv");
    let row = csv.lines().find(|line| line.starts_with("fe,FRONTEND,"));
    assert_eq!(
        row.and_then(|row| row.split(',').nth(7)),
        Some("1"),
        "{csv}"
    );
    // Keys of the page apply at once.
    let more = "uri = \"/lb\"\nauth = \"me:secret\"\nrefresh = \"7s\"\nhide-version = true";
    rlb.reload(&text(&format!("{}\n{more}", stats(&[page])), fe, &peer));
    let mut asked = connect(page);
    let asks = "GET /lb HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                authorization: Basic bWU6c2VjcmV0\r\n\r\n";
    asked.write_all(asks.as_bytes()).expect("sent");
    let mut answer = String::new();
    asked.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("refresh: 7\r\n"), "{answer}");
    assert!(!answer.contains(env!("CARGO_PKG_VERSION")), "{answer}");
    assert_eq!(http_get(page, "/lb").expect("answers").0, 401);
    assert_eq!(http_get(page, "/other").expect("answers").0, 401);
    rlb.reload(&text("", fe, &peer));
    eventually_true(STOP_WITHIN, "the page is gone", || is_closed(page));
    echo(&mut stream, b"and the traffic goes on");
    let restarts = rlb.events().with("needs a restart");
    assert!(restarts.is_empty(), "{restarts:?}");
    rlb.stop_after(stream);
}

#[test]
fn log_targets_come_go_and_change() {
    let peer = Peer::start(Behaviour::Says("x"));
    let dir = tempfile::tempdir().expect("a directory");
    let (fe, syslog) = (own_address(), Syslog::udp());
    let file = |name: &str| dir.path().join(name);
    let to_file = |name: &str, level: &str| {
        let path = file(name);
        format!(
            "{{ to = \"file:{}\", level = \"{level}\", format = \"raw\" }}",
            path.display()
        )
    };
    let to_syslog = format!(
        "{{ to = \"udp:{}\", format = \"rfc5424\" }}",
        syslog.address()
    );
    let log = |node: &str, targets: &[&str]| {
        let targets = targets.join(", ");
        let tables = format!("[global]\nnode = \"{node}\"\n[log]\ntarget = [{targets}]");
        text(&tables, fe, &peer)
    };
    let lines = |name: &str| {
        let text = std::fs::read_to_string(file(name)).unwrap_or_default();
        text.lines().count()
    };
    let session = || drop(crate::harness::client::hear(fe));
    let mut rlb = Rlb::start(&log("lb01", &[]));
    session();
    let one = to_file("one", "info");
    rlb.reload(&log("lb01", &[&one, &to_syslog]));
    session();
    eventually_eq(STOP_WITHIN, &1, || lines("one"));
    assert!(
        syslog.next_with(" fe be/s1 ").contains(" lb01 rlb "),
        "its node"
    );
    // A target that cannot be opened refuses the reload, with the reason.
    let nowhere = to_file("nosuch/log", "info");
    rlb.reload_refused(&log("lb01", &[&nowhere]));
    let why = rlb.events().with("nosuch/log");
    assert!(why[0].contains("log: cannot open file:"), "{why:?}");
    session();
    eventually_eq(STOP_WITHIN, &2, || lines("one"));
    // Another name of the machine, another level, another file.
    let quiet = to_file("one", "notice");
    rlb.reload(&log("lb02", &[&to_file("two", "info"), &to_syslog, &quiet]));
    session();
    eventually_eq(STOP_WITHIN, &1, || lines("two"));
    syslog.next_with(" lb02 rlb ");
    assert_eq!(lines("one"), 2, "sessions are not of that level");
    rlb.reload(&log("lb02", &[]));
    session();
    rlb.reload(&log("lb02", &[&to_file("three", "info")]));
    session();
    eventually_eq(STOP_WITHIN, &1, || lines("three"));
    assert_eq!((lines("one"), lines("two")), (2, 1));
    let restarts = rlb.events().with("needs a restart");
    assert!(restarts.is_empty(), "{restarts:?}");
    rlb.stop();
}

fn ask(socket: &Path, line: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("the socket is there");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    writeln!(stream, "{line}").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

#[test]
fn level_mode_node_and_path_of_the_runtime_socket_change() {
    let peer = Peer::start(Behaviour::Echo);
    let dir = tempfile::tempdir().expect("a directory");
    let (socket, other) = (dir.path().join("admin.sock"), dir.path().join("other.sock"));
    let fe = own_address();
    let api = |path: &Path, rest: &str| {
        let path = path.display();
        let tables = format!("[global]\nnode = \"{rest}\"\n[runtime-api]\nsocket = \"{path}\"");
        move |keys: &str, peer: &Peer| text(&format!("{tables}\n{keys}"), fe, peer)
    };
    let mut rlb = Rlb::start(&api(&socket, "lb01")("", &peer));
    assert!(ask(&socket, "show info").contains("\nnode: lb01\n"));
    assert_eq!(ask(&socket, "disable server be/s1"), "\n");
    let user = "level = \"user\"\nmode = \"0660\"";
    rlb.reload(&api(&socket, "lb02")(user, &peer));
    assert!(
        ask(&socket, "show info").contains("\nnode: lb02\n"),
        "without a page, too"
    );
    assert_eq!(ask(&socket, "enable server be/s1"), "Permission denied\n\n");
    let mode = std::fs::metadata(&socket)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    assert!(rlb.events().with("needs a restart").is_empty());
    rlb.reload(&api(&other, "lb02")("", &peer));
    assert!(rlb.events().with("needs a restart").is_empty());
    assert_eq!(ask(&other, "enable server be/s1"), "\n");
    eventually_true(STOP_WITHIN, "the old one is closed", || {
        UnixStream::connect(&socket).is_err()
    });
    let file = rlb.config_path();
    let old = dir.path().join("old.toml");
    std::fs::write(&old, api(&socket, "lb02")("", &peer)).expect("written");
    let (old, new) = (old.to_str().expect("text"), file.to_str().expect("text"));
    let output = command(&["diff", new, "--config", old]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        told.contains("+ runtime-api ") && told.contains("- runtime-api "),
        "{told}"
    );
    rlb.stop();
}

#[test]
fn a_watched_secret_is_read_again_when_it_changes() {
    let peer = Peer::start(Behaviour::Echo);
    let dir = tempfile::tempdir().expect("a directory");
    let (fe, page) = (own_address(), own_address());
    let secret = dir.path().join("password");
    std::fs::write(&secret, "one\n").expect("written");
    let tables = format!(
        "[global]\nwatch = true\n{}\nauth = \"me:${{file:{}}}\"",
        stats(&[page]),
        secret.display()
    );
    let rlb = Rlb::start(&text(&tables, fe, &peer));
    let status = |token: &str| {
        let mut stream = connect(page);
        let asks = format!(
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Basic {token}\r\n\r\n"
        );
        stream.write_all(asks.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer["HTTP/1.1 ".len()..][..3].to_owned()
    };
    let (one, two) = ("bWU6b25l", "bWU6dHdv");
    assert_eq!(
        (status(one), status(two)),
        ("200".to_owned(), "401".to_owned())
    );
    // By a rename, as tools that replace secrets do.
    let new = dir.path().join("password.new");
    std::fs::write(&new, "two\n").expect("written");
    std::fs::rename(&new, &secret).expect("replaced");
    eventually_eq(STOP_WITHIN, &"200".to_owned(), || status(two));
    assert_eq!(status(one), "401");
    let told = rlb.events().with("two");
    assert!(told.is_empty(), "a secret is not for logs: {told:?}");
    // When it is removed the reload is refused, and when it returns it is noticed.
    std::fs::remove_file(&secret).expect("removed");
    std::fs::write(dir.path().join("touched"), "x").expect("written");
    rlb.events().wait_for("reload refused");
    std::fs::write(&secret, "one\n").expect("written");
    eventually_eq(STOP_WITHIN, &"200".to_owned(), || status(one));
    rlb.stop();
}

#[test]
fn a_rollback_that_fails_is_said_everywhere() {
    let (before, mut after) = (Peer::start(Behaviour::Echo), Peer::start(Behaviour::Echo));
    let gone = own_address();
    let config = |peer: &Peer, binds: &[SocketAddr]| {
        let config = Config::new()
            .global("rollback-window = \"60s\"")
            .backend("check = { interval = \"100ms\" }")
            .server(peer.address());
        let all = binds.iter().fold(config.bind("127.0.0.1:0"), Config::bind);
        all.to_string()
    };
    let mut rlb = Rlb::start(&config(&before, &[gone]));
    rlb.wait_status("s1", "UP");
    rlb.reload(&config(&after, &[]));
    rlb.wait_status("s1", "UP");
    eventually_true(STOP_WITHIN, "the address is given up", || is_closed(gone));
    // Another process takes the address, and then the new server dies.
    let _taken = TcpListener::bind(gone).expect("it is free");
    after.stop_listening();
    rlb.events().wait_for("rollback failed");
    let why = rlb.events().with("cannot go back");
    assert!(why[0].contains(&gone.to_string()), "{why:?}");
    let metrics = rlb.http_get("/metrics").expect("answers").1;
    for line in [
        "rlb_reloads_total{result=\"rollback_failure\"} 1",
        "rlb_reloads_total{result=\"rollback\"} 0",
        "rlb_last_reload_success 0",
    ] {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line}");
    }
    let page = rlb.http_get("/").expect("answers").1;
    let alert = page
        .lines()
        .find(|line| line.contains("could not be taken back"));
    assert!(
        alert.is_some_and(|line| line.contains(&gone.to_string())),
        "{alert:?}"
    );
    // The reloaded configuration stays in force, and the next reload works as any other.
    assert!(is_served(rlb.address()), "it listens");
    rlb.reload(&config(&before, &[]));
    rlb.wait_status("s1", "UP");
    echo(&mut connect(rlb.address()), b"served");
    rlb.stop();
}

fn is_served(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, TIMEOUT).is_ok()
}
