//! Where sessions go while no server of their backend is usable: to another backend (`sorry-backend`), or nowhere, because
//! the frontend does not listen (`no-server = "stop-listening"`).

use crate::harness::client::{End, connect, echo, end_at, hear, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::runtime::{Fixture, ask};
use crate::harness::syslog::Syslog;
use crate::upgrade::{Next, upgrade};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(10);

/// A backend `sorry` with this server.
fn sorry(peer: &Peer, lines: &str) -> String {
    let address = peer.address();
    format!(
        "[[backend]]\nname = \"sorry\"\n{lines}\nservers = [{{ name = \"page\", address = \"{address}\" }}]"
    )
}

/// What a client reads before its end.
fn reads(address: SocketAddr) -> String {
    hear(address).0
}

fn greets(words: &'static str) -> Peer {
    Peer::start(Behaviour::Says(words))
}

/// A column of the row of a server or of a backend.
fn column(socket: &Path, proxy: &str, row: &str, column: &str) -> String {
    let text = ask(socket, "show stat");
    let mut lines = text.lines();
    let names: Vec<&str> = lines
        .next()
        .expect("a header")
        .trim_start_matches("# ")
        .split(',')
        .collect();
    let at = names
        .iter()
        .position(|name| *name == column)
        .expect("the column");
    let rows = lines.map(|line| line.split(',').collect::<Vec<_>>());
    let mut rows =
        rows.filter(|fields| fields.first() == Some(&proxy) && fields.get(1) == Some(&row));
    (*rows.next().expect("the row").get(at).expect("the field")).to_owned()
}

/// As with HAProxy's `use_backend sorry if { nbsrv(be) eq 0 }`: the backend itself counts nothing of such a session.
#[test]
fn sessions_go_to_the_sorry_backend_while_no_server_is_usable() {
    let (main, page) = (greets("main"), greets("sorry"));
    let log = Syslog::udp();
    let config = Config::new()
        .backend("sorry-backend = \"sorry\"")
        .server_with(main.address(), "check = false")
        .log(format!("udp:{}", log.address()), "raw")
        .table(&sorry(&page, "no-server = \"reset\""));
    let fixture = Fixture::new(config, "admin");
    let (socket, address) = (fixture.socket(), fixture.rlb.address());
    assert_eq!(reads(address), "main");
    log.next_with(" fe be/s1 ");
    ask(&socket, "disable server be/s1");
    assert_eq!(reads(address), "sorry");
    log.next_with(" fe sorry/page ");
    // The operator takes it out: the session ends as its own backend says.
    ask(&socket, "unpublish backend sorry");
    assert_eq!(reads(address), "");
    log.next_with(" fe be/<NOSRV> ");
    ask(&socket, "publish backend sorry");
    ask(&socket, "disable server sorry/page");
    // None is usable there either: the end is that of the sorry backend.
    assert_eq!(end_at(address), End::Reset);
    log.next_with(" fe sorry/<NOSRV> ");
    ask(&socket, "enable server be/s1");
    assert_eq!(reads(address), "main");
    let counted = |proxy, name| column(&socket, proxy, "BACKEND", name);
    assert_eq!(
        (counted("be", "stot"), counted("be", "econ")),
        ("3".into(), "1".into())
    );
    assert_eq!(
        (counted("sorry", "stot"), counted("sorry", "econ")),
        ("2".into(), "1".into())
    );
    fixture.rlb.stop();
}

/// A session that is held goes there when its time is over, also in the process that follows.
#[test]
fn a_session_that_was_held_goes_to_the_sorry_backend() {
    let (main, page) = (greets("main"), greets("sorry"));
    let config = Config::new()
        .backend("sorry-backend = \"sorry\"\ntimeout = { no-server = \"2s\" }")
        .server_with(main.address(), "check = false, disabled = true")
        .stats_at(ports::free())
        .bind(ports::free())
        .table(&sorry(&page, ""));
    let fixture = Fixture::new(config, "admin");
    let (socket, address) = (fixture.socket(), fixture.rlb.address());
    let mut rlb = fixture.rlb;
    let mut held = connect(address);
    eventually_eq(WITHIN, &"1".to_owned(), || {
        column(&socket, "be", "BACKEND", "scur")
    });
    assert!(upgrade(&socket).status.success());
    let next = Next::logged(&rlb, 1);
    assert_eq!(read_to_end(&mut held).0, b"sorry");
    assert_eq!(rlb.process.wait(WITHIN).code(), Some(0));
    let counted = |name| {
        (
            column(&socket, "be", "BACKEND", name),
            column(&socket, "sorry", "BACKEND", name),
        )
    };
    assert_eq!(counted("stot"), ("1".into(), "1".into()));
    assert_eq!(counted("econ"), ("1".into(), "0".into()));
    drop(held);
    next.stop();
}

/// A session that is held by the sorry backend goes back to its own once that has a server.
#[test]
fn a_session_held_by_the_sorry_backend_goes_back() {
    let (main, page) = (greets("main"), greets("sorry"));
    let log = Syslog::udp();
    let config = Config::new()
        .backend("sorry-backend = \"sorry\"")
        .server_with(main.address(), "check = false, disabled = true")
        .log(format!("udp:{}", log.address()), "raw")
        .table(&sorry(&page, "timeout = { no-server = \"60s\" }"));
    let fixture = Fixture::new(config, "admin");
    let (socket, address) = (fixture.socket(), fixture.rlb.address());
    ask(&socket, "disable server sorry/page");
    let mut held = connect(address);
    eventually_eq(WITHIN, &"1".to_owned(), || {
        column(&socket, "sorry", "BACKEND", "scur")
    });
    ask(&socket, "enable server be/s1");
    assert_eq!(read_to_end(&mut held).0, b"main");
    drop(held);
    log.next_with(" fe be/s1 ");
    assert_eq!(column(&socket, "sorry", "BACKEND", "scur"), "0");
    fixture.rlb.stop();
}

/// The backend is chosen when the PROXY header has come, not at the accept.
#[test]
fn a_client_whose_header_comes_late_goes_where_a_server_is_usable_then() {
    let (main, page) = (greets("main"), greets("sorry"));
    let config = Config::new()
        .bind_with("accept-proxy = \"required\"")
        .backend("sorry-backend = \"sorry\"")
        .server_with(main.address(), "check = false")
        .table(&sorry(&page, ""));
    let fixture = Fixture::new(config, "admin");
    let (socket, address) = (fixture.socket(), fixture.rlb.address());
    let mut client = connect(address);
    eventually_eq(WITHIN, &"1".to_owned(), || {
        column(&socket, "fe", "FRONTEND", "conn_tot")
    });
    ask(&socket, "disable server be/s1");
    client.write_all(b"PROXY UNKNOWN\r\n").expect("it listens");
    assert_eq!(read_to_end(&mut client).0, b"sorry");
    drop(client);
    fixture.rlb.stop();
}

/// Whether the kernel refuses clients.
fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// While no server is usable the frontend does not listen: whoever asks its port sees it. Its other settings stay.
#[test]
fn a_frontend_does_not_listen_while_no_server_is_usable() {
    let main = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .backend("no-server = \"stop-listening\"")
        .server_with(main.address(), "check = false, disabled = true")
        .stats_at(ports::free())
        .bind(ports::free());
    let fixture = Fixture::new(config, "admin");
    let (socket, address) = (fixture.socket(), fixture.rlb.address());
    let mut rlb = fixture.rlb;
    let status = || column(&socket, "fe", "FRONTEND", "status");
    eventually_true(WITHIN, "a refusal", || refuses(address));
    assert_eq!(status(), "PAUSED");
    // An operator has not disabled it.
    assert_eq!(
        ask(&socket, "enable frontend fe"),
        "All sockets are already enabled.\n\n"
    );
    ask(&socket, "enable server be/s1");
    eventually_true(WITHIN, "a client is served", || !refuses(address));
    let mut served = connect(address);
    echo(&mut served, b"served");
    assert_eq!(status(), "OPEN");
    ask(&socket, "set server be/s1 state drain");
    eventually_true(WITHIN, "a refusal", || refuses(address));
    rlb.events()
        .wait_for("Paused frontend fe: backend be has no server available.");
    echo(&mut served, b"goes on");

    // What an operator has disabled does not listen when a server is usable again.
    ask(&socket, "disable frontend fe");
    ask(&socket, "set server be/s1 state ready");
    assert!(refuses(address));
    ask(&socket, "set server be/s1 state drain");
    ask(&socket, "enable frontend fe");
    assert!(refuses(address));
    assert_eq!(status(), "PAUSED");

    assert!(upgrade(&socket).status.success());
    let next = Next::logged(&rlb, 1);
    assert!(refuses(address), "the next process does not listen either");
    ask(&socket, "set server be/s1 state ready");
    eventually_true(WITHIN, "a client is served", || !refuses(address));
    echo(&mut connect(address), b"served there");
    echo(&mut served, b"goes on");
    drop(served);
    assert_eq!(rlb.process.wait(WITHIN).code(), Some(0));
    next.stop();
}

/// A reload may change what is done, and the sorry backend counts as a server that is usable.
#[test]
fn a_reload_makes_the_frontend_listen() {
    let (main, page) = (greets("main"), greets("sorry"));
    let config = Config::new()
        .backend("no-server = \"stop-listening\"")
        .server_with(main.address(), "check = false, disabled = true")
        .bind(ports::free());
    let mut fixture = Fixture::new(config, "admin");
    let address = fixture.rlb.address();
    eventually_true(WITHIN, "a refusal", || refuses(address));
    let text = std::fs::read_to_string(fixture.rlb.config_path()).expect("the file");
    let with_sorry = text.replace(
        "stop-listening\"",
        "stop-listening\"\nsorry-backend = \"sorry\"",
    );
    fixture
        .rlb
        .reload(&format!("{with_sorry}\n{}", sorry(&page, "")));
    eventually_true(WITHIN, "a client is served", || !refuses(address));
    assert_eq!(reads(address), "sorry");
    fixture.rlb.reload(&text);
    eventually_true(WITHIN, "a refusal", || refuses(address));
    fixture.rlb.reload(&text.replace("stop-listening", "close"));
    eventually_true(WITHIN, "an end", || !refuses(address));
    assert_eq!(reads(address), "");
    fixture.rlb.stop();
}
