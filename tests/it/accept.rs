//! Listening: every kind of address, several at once, and closed descriptors.

use crate::harness::client::{End, connect, echo, half_close, hear, read_to_end, reset};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use crate::harness::syslog::Syslog;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

#[test]
fn a_frontend_listens_on_all_its_binds() {
    let peer = Peer::start(Behaviour::Says("hello"));
    let config = Config::new()
        .bind("127.0.0.1:0")
        .bind("127.0.0.2:0")
        .bind("[::1]:0")
        .server(peer.address());
    let rlb = Rlb::start(&config);
    let addresses = rlb.addresses("fe");
    assert_eq!(addresses.len(), 3, "one event a listener: {addresses:?}");
    for address in addresses {
        assert_eq!(hear(address), ("hello".to_owned(), End::Eof), "{address}");
    }
    rlb.stop();
}

#[test]
fn a_star_listens_on_every_address() {
    let peer = Peer::start(Behaviour::Says("hello"));
    let rlb = Rlb::start(&Config::new().bind("*:0").server(peer.address()));
    let port = rlb.address().port();
    let address: SocketAddr = format!("127.0.0.3:{port}").parse().expect("an address");
    assert_eq!(hear(address), ("hello".to_owned(), End::Eof));
    rlb.stop();
}

#[test]
fn an_ipv6_wildcard_serves_both_families_unless_told_otherwise() {
    let peer = Peer::start(Behaviour::Says("hello"));
    let rlb = Rlb::start(&Config::new().bind("[::]:0").server(peer.address()));
    let port = rlb.address().port();
    for ip in ["127.0.0.1", "::1"] {
        let ip: IpAddr = ip.parse().expect("an address");
        assert_eq!(
            hear((ip, port).into()),
            ("hello".to_owned(), End::Eof),
            "{ip}"
        );
    }
    rlb.stop();
}

#[test]
fn a_port_range_opens_every_port() {
    // Ports that the kernel chooses cannot be a range.
    let first = ports::free_pair();
    let peer = Peer::start(Behaviour::Says("hello"));
    let config = Config::new()
        .bind(format!("127.0.0.1:{first}-{}", first + 1))
        .server(peer.address());
    let rlb = Rlb::start(&config);
    let ports: Vec<u16> = rlb.addresses("fe").iter().map(SocketAddr::port).collect();
    assert_eq!(ports, [first, first + 1]);
    for address in rlb.addresses("fe") {
        assert_eq!(hear(address).0, "hello");
    }
    rlb.stop();
}

#[test]
fn sessions_give_every_descriptor_back() {
    let peer = Peer::start(Behaviour::Echo);
    let rlb = Rlb::start(&Config::new().server_with(peer.address(), "check = false"));
    echo(&mut connect(rlb.address()), b"warm");
    eventually_true(STOP_WITHIN, "the first session ends", || {
        rlb.number("FRONTEND", "scur") == 0
    });
    let before = rlb.process.descriptors();
    for round in 0..5 {
        let mut streams: Vec<TcpStream> = (0..50).map(|_| connect(rlb.address())).collect();
        for stream in &mut streams {
            echo(stream, b"some words");
        }
        assert_eq!(rlb.number("FRONTEND", "scur"), 50, "round {round}");
        drop(streams);
        eventually_true(STOP_WITHIN, "sessions end", || {
            rlb.number("FRONTEND", "scur") == 0
        });
    }
    // Pipes and the connection of the last statistics request may stay for a moment.
    eventually_true(STOP_WITHIN, "descriptors are given back", || {
        rlb.process.descriptors() <= before + 2
    });
    assert_eq!(rlb.number("FRONTEND", "stot"), 251);
    rlb.stop();
}

/// How long a loop may take to end once its first client has gone.
const LOOP_ENDS_WITHIN: Duration = Duration::from_secs(3);

/// Sessions of a loop that is as large as it may be.
const LOOP_SESSIONS: u64 = 40;

/// Waits until the sessions of all `proxies` are `count`.
#[track_caller]
fn wait_sessions(rlb: &Rlb, proxies: &[&str], count: u64) {
    eventually_eq(LOOP_ENDS_WITHIN, &count, || {
        let csv = rlb.csv();
        let sessions = |proxy: &&str| csv.row(proxy, "FRONTEND").number("scur");
        proxies.iter().map(sessions).sum()
    });
}

/// Fault 44: a server that is the frontend's own address fills `maxconn` with sessions that wait for
/// each other. They end when the first client has gone, however it goes.
#[test]
fn fault_44_a_loop_ends_when_its_first_client_has_gone() {
    let (port, other) = (ports::free(), ports::free());
    let own = Config::new().bind(port).server_with(port, "check = false");
    // The same through two frontends.
    let two = Config::new().bind(port).server_with(other, "check = false");
    let two = two.table(&format!(
        "[[listen]]\nname = \"other\"\nbind = \"{other}\"\n\
         servers = [{{ name = \"s\", address = \"{port}\", check = false }}]"
    ));
    for (config, proxies) in [(own, &["fe"][..]), (two, &["fe", "other"])] {
        let config = config.global(&format!("maxconn = {LOOP_SESSIONS}"));
        let rlb = Rlb::start(&config);
        for goes in [drop as fn(TcpStream), reset] {
            let client = connect(port);
            wait_sessions(&rlb, proxies, LOOP_SESSIONS);
            goes(client);
            wait_sessions(&rlb, proxies, 0);
        }
        rlb.stop();
    }
}

/// Connections in the accept queue of an IPv4 port.
fn queued(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let rows = table.lines().map(str::split_whitespace);
    let rows = rows.filter_map(|mut row| {
        let (local, state, lengths) = (row.nth(1)?, row.nth(1)?, row.next()?);
        let listens = state == "0A" && local.ends_with(&format!(":{port:04X}"));
        let (_, waiting) = lengths.split_once(':').filter(|_| listens)?;
        u64::from_str_radix(waiting, 16).ok()
    });
    rows.sum()
}

/// Fault 44: a client that goes while it waits for a slot is noticed and logged; one that stays, and
/// has ended what it sends, is served.
#[test]
fn fault_44_a_client_that_goes_while_it_waits_for_a_slot_is_noticed() {
    let peer = Peer::start(Behaviour::Echo);
    let log = Syslog::udp();
    let config = Config::new()
        .global("maxconn = 1")
        .server_with(peer.address(), "check = false")
        .log(format!("udp:{}", log.address()), "raw");
    let config = config.to_string().replace("threads = 2", "threads = 1");
    let rlb = Rlb::start(&config);
    let mut first = connect(rlb.address());
    echo(&mut first, b"has the slot");
    let gone = connect(rlb.address());
    let address = gone.local_addr().expect("connected").to_string();
    drop(gone);
    let line = log.next_with(&address);
    assert!(line.contains(" CC "), "{line}");
    assert_eq!(
        (
            rlb.number("FRONTEND", "scur"),
            rlb.number("FRONTEND", "smax")
        ),
        (1, 1)
    );

    let mut second = connect(rlb.address());
    second.write_all(b"a request").expect("sent");
    half_close(&second);
    let mut third = connect(rlb.address());
    // One is accepted without a slot, and no other.
    eventually_eq(STOP_WITHIN, &1, || queued(rlb.address().port()));
    drop(first);
    assert_eq!(read_to_end(&mut second), (b"a request".to_vec(), End::Eof));
    echo(&mut third, b"and the next one");
    assert_eq!(rlb.number("FRONTEND", "smax"), 1);
    rlb.stop_after((second, third));
}
