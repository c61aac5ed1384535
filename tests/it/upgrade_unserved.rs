//! At an upgrade the sessions that wait for a server go to the new process, too, and wait there.

use crate::harness::client::{End, TIMEOUT, connect, echo, half_close, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::eventually_eq;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::rlb::STOP_WITHIN;
use crate::harness::runtime::{Fixture, ask};
use crate::harness::syslog::Syslog;
use crate::upgrade::{Next, upgrade};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

/// Sessions of the services, the runtime socket's own not counted.
fn sessions(socket: &Path) -> usize {
    let text = ask(socket, "show sess");
    text.lines().filter(|line| line.contains(" fe=fe ")).count()
}

/// The time in queues of a log line.
fn waited(line: &str) -> u32 {
    let times = line.split(' ').nth(4);
    let waited = times.and_then(|times| times.split('/').next()?.parse().ok());
    waited.unwrap_or_else(|| panic!("{line}"))
}

/// Sessions that have a backend and no server.
fn waiting(socket: &Path) -> usize {
    let text = ask(socket, "show sess");
    let waits = |line: &&str| line.contains(" be=pp srv=<none> ");
    text.lines().filter(waits).count()
}

/// Sessions that moved left their slots to those that waited in the old process: these moved, too, and the server got
/// all at once.
#[test]
fn those_in_a_queue_keep_their_order_and_the_server_its_maxconn() {
    const CLIENTS: usize = 7;
    let limited = Peer::start(Behaviour::Echo);
    let address = ports::free();
    let log = Syslog::udp();
    let config = Config::default()
        .global("threads = 1")
        .bind(address)
        .server_with(limited.address(), "check = false, maxconn = 2")
        .timeout("queue = \"1m\"")
        .log(format!("udp:{}", log.address()), "raw");
    let fixture = Fixture::new(config, "admin");
    let socket = fixture.socket();
    let mut rlb = fixture.rlb;
    let mut clients: Vec<TcpStream> = Vec::new();
    for number in 1..=CLIENTS {
        // One after the other, so that they wait in this order.
        clients.push(connect(address));
        eventually_eq(TIMEOUT, &number, || sessions(&socket));
    }
    for client in &mut clients[..2] {
        echo(client, b"served");
    }

    assert!(upgrade(&socket).status.success());
    let next = Next::logged(&rlb, 1);
    let moved = rlb.events().wait_for("sessions moved away");
    assert!(moved.contains(r#""moved":7,"refused":0,"#), "{moved}");
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    // Behind those that came before it.
    clients.push(connect(address));
    eventually_eq(TIMEOUT, &clients.len(), || sessions(&socket));
    for served in 2..=CLIENTS {
        assert_eq!(limited.accepted(), served);
        // Its slot goes to the first one that waits.
        clients.remove(0);
        echo(&mut clients[1], b"served");
        let line = log.next_with(" fe be/s1 ");
        assert!(line.contains(" -- "), "{line}");
    }
    // The time in both processes, and the place in the new one's queue.
    drop(clients);
    let line = log.next_with(" fe be/s1 ");
    assert!(waited(&line) > 0, "{line}");
    next.stop();
}

/// They are served as soon as a server is usable in the new process, with what their PROXY headers have said, and each
/// is logged once.
#[test]
fn those_that_are_held_are_served_by_the_new_process() {
    let peer = Peer::start(Behaviour::Echo);
    let log = Syslog::udp();
    let address = ports::free();
    let listen = format!(
        "[[listen]]\nname = \"pp\"\nbind = [{{ address = \"{address}\", accept-proxy = \"required\" }}]\n\
         timeout = {{ no-server = \"1m\" }}\nservers = [{{ name = \"s\", address = \"{}\", check = false, \
         disabled = true, send-proxy = \"v1\" }}]",
        peer.address()
    );
    let config = Config::new()
        .server(peer.address())
        .table(&listen)
        .log(format!("udp:{}", log.address()), "raw");
    let fixture = Fixture::new(config, "admin");
    let socket = fixture.socket();
    let mut rlb = fixture.rlb;
    let mut held: Vec<TcpStream> = (0..20).map(|_| connect(address)).collect();
    let header = "PROXY TCP4 192.0.2.7 192.0.2.9 4711 25\r\n";
    for stream in &mut held {
        write!(stream, "{header}early").expect("sent");
    }
    let mut leaves = connect(address);
    leaves.write_all(header.as_bytes()).expect("sent");
    eventually_eq(TIMEOUT, &21, || waiting(&socket));

    assert!(upgrade(&socket).status.success());
    let next = Next::logged(&rlb, 1);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    assert_eq!(waiting(&socket), 21);
    drop(leaves);
    let said = log.next_with(" pp pp/<NOSRV> ");
    assert!(said.contains(" CC "), "{said}");
    assert_eq!(ask(&socket, "enable server pp/s").trim(), "");
    for stream in &mut held {
        half_close(stream);
        let echoed = format!("{header}early").into_bytes();
        assert_eq!(read_to_end(stream), (echoed, End::Eof));
        let said = log.next_with(" pp pp/s ");
        assert!(said.starts_with("192.0.2.7:4711 "), "{said}");
    }
    assert_eq!(log.try_next(), None, "one line a session");
    next.stop();
}

/// What the new process does not have goes on in the old one, with the limit that it had.
#[test]
fn what_the_new_process_does_not_have_waits_in_the_old_one() {
    let peer = Peer::start(Behaviour::Echo);
    let log = Syslog::udp();
    let (address, other) = (ports::free(), ports::free());
    let config = |bind, name| {
        Config::new()
            .bind(bind)
            .server_with(peer.address(), "check = false")
            .log(format!("udp:{}", log.address()), "raw")
            .table(&format!(
                "[[listen]]\nname = \"{name}\"\nbind = \"{other}\"\ntimeout = {{ queue = \"2s\" }}\n\
                 servers = [{{ name = \"s\", address = \"{}\", check = false, maxconn = 1 }}]",
                peer.address()
            ))
    };
    let fixture = Fixture::new(config(address, "gone"), "admin");
    let socket = fixture.socket();
    let mut rlb = fixture.rlb;
    let mut served = connect(other);
    echo(&mut served, b"served");
    let mut waits = connect(other);
    eventually_eq(TIMEOUT, &1, || {
        rlb.csv().row("gone", "BACKEND").number("qcur")
    });

    let text = std::fs::read_to_string(rlb.config_path()).expect("the file");
    rlb.rewrite(&text.replace("name = \"gone\"", "name = \"new\""));
    assert!(upgrade(&socket).status.success());
    let next = Next::logged(&rlb, 1);
    assert_eq!(read_to_end(&mut waits), (Vec::new(), End::Eof));
    let said = log.next_with(" gone gone/<NOSRV> ");
    assert!(said.contains(" sQ "), "{said}");
    // All of its time counts, and once.
    assert!((2_000..2_900).contains(&waited(&said)), "{said}");
    assert!(said.trim_end().ends_with(" 0/1"), "{said}");
    echo(&mut served, b"goes on");
    drop(served);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    let mut byte = [0];
    assert!(matches!(waits.read(&mut byte), Ok(0) | Err(_)));
    next.stop();
}

/// A session that was chosen for a server in one process is not counted again when it has its slot in the other.
#[test]
fn what_was_counted_in_the_old_process_is_not_counted_again() {
    let peer = Peer::start(Behaviour::Echo);
    let config = |maxconn: u32| {
        Config::new()
            .backend("balance = \"source\"")
            .timeout("queue = \"1m\"")
            .server_with(
                peer.address(),
                &format!("check = false, maxconn = {maxconn}"),
            )
    };
    let stats = ports::free();
    let fixture = Fixture::new(config(1).stats_at(stats).bind(ports::free()), "admin");
    let socket = fixture.socket();
    let mut rlb = fixture.rlb;
    let address = rlb.address();
    let mut clients: Vec<TcpStream> = Vec::new();
    for number in 1..=5 {
        clients.push(connect(address));
        eventually_eq(TIMEOUT, &number, || sessions(&socket));
    }
    let chosen = || {
        let text = ask(&socket, "show stat be 4 -1");
        let columns = text.lines().next().expect("a header").split(',');
        let column = columns
            .clone()
            .position(|it| it == "lbtot")
            .expect("it is there");
        let row = text.lines().nth(1).expect("a row");
        row.split(',').nth(column).map(str::to_owned)
    };
    assert_eq!(chosen(), Some("5".to_owned()));

    let text = std::fs::read_to_string(rlb.config_path()).expect("the file");
    rlb.rewrite(&text.replace("maxconn = 1 ", "maxconn = 9 "));
    assert!(upgrade(&socket).status.success());
    let next = Next::logged(&rlb, 1);
    for client in &mut clients {
        echo(client, b"served");
    }
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    assert_eq!(chosen(), Some("5".to_owned()));
    drop(clients);
    next.stop();
}
