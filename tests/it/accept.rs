//! Listening: every kind of address, several at once, and closed descriptors.

use crate::harness::client::{End, connect, echo, hear};
use crate::harness::config::Config;
use crate::harness::eventually::eventually_true;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use std::net::{IpAddr, SocketAddr, TcpStream};

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
