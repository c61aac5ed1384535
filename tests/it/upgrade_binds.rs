//! An upgrade to a configuration that listens elsewhere loses no client.

use crate::harness::client::{connect, echo};
use crate::harness::config::Config;
use crate::harness::load::Load;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use crate::upgrade::{Next, on};
use nix::sys::signal::Signal;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

/// A reload can do it; an upgrade was refused because the old process listened there.
#[test]
fn one_address_and_all_addresses_of_a_port_replace_each_other() {
    let peers = [Peer::start(Behaviour::Echo)];
    let one = ports::free();
    let all = SocketAddr::from(([0, 0, 0, 0], one.port()));
    for (before, after) in [(one, all), (all, one)] {
        let mut rlb = Rlb::start(&on(before, &peers));
        let mut stream = connect(one);
        echo(&mut stream, b"before");
        let load = Load::start(one, 4);
        rlb.rewrite(&on(after, &peers));
        rlb.signal(Signal::SIGUSR2);
        let next = Next::of(&rlb);
        drop(stream);
        assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
        echo(&mut connect(one), b"served by the new one");
        let (served, failures) = load.end();
        assert!(failures.is_empty(), "{before} {after}: {failures:#?}");
        assert!(served > 10, "{served}");
        next.stop();
    }
}

/// A socket that refuses IPv4 was taken over by a bind that does not say so, which refused IPv4 from then on.
#[test]
fn a_bind_that_takes_ipv4_and_one_that_refuses_it_replace_each_other() {
    let peers = [Peer::start(Behaviour::Echo)];
    let port = ports::free().port();
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let config = |only: &str| {
        let config = Config::new().frontend("").bind("BIND");
        let config = config.server_with(peers[0].address(), "check = false");
        let bind = format!("{{ address = \"[::]:{port}\"{only} }}");
        config.to_string().replace("\"BIND\"", &bind)
    };
    let (only, both) = (config(", v6only = true"), config(""));
    for (before, after, takes_v4) in [(&only, &both, true), (&both, &only, false)] {
        let mut rlb = Rlb::start(before);
        let mut stream = connect(v6);
        echo(&mut stream, b"before");
        assert_eq!(TcpStream::connect(v4).is_ok(), !takes_v4);
        let load = Load::start(v6, 4);
        rlb.rewrite(after);
        rlb.signal(Signal::SIGUSR2);
        let next = Next::of(&rlb);
        drop(stream);
        assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
        if takes_v4 {
            echo(&mut connect(v4), b"served by the new one");
        } else {
            assert!(TcpStream::connect(v4).is_err());
        }
        let (served, failures) = load.end();
        assert!(failures.is_empty(), "{takes_v4}: {failures:#?}");
        assert!(served > 0, "{served}");
        next.stop();
    }
}

/// The same by a reload: the socket that was replaced closed while handshakes were under way there.
#[test]
fn a_reload_to_all_addresses_of_a_port_resets_nobody() {
    let peers = [Peer::start(Behaviour::Echo)];
    let one = ports::free();
    let all = SocketAddr::from(([0, 0, 0, 0], one.port()));
    for (before, after) in [(one, all), (all, one)] {
        let mut rlb = Rlb::start(&on(before, &peers));
        let load = Load::start(one, 4);
        rlb.reload(&on(after, &peers));
        let (served, failures) = load.end();
        assert!(failures.is_empty(), "{before} {after}: {failures:#?}");
        echo(&mut connect(one), b"served");
        assert!(served > 0, "{served}");
        rlb.stop();
    }
}

/// The clients that waited at a bind that was removed were reset.
#[test]
fn clients_that_wait_at_a_bind_that_is_removed_are_served_by_the_old_process() {
    let peers = [Peer::start(Behaviour::Echo)];
    let (stays, goes) = (ports::free(), ports::free());
    let config = |binds: &[SocketAddr]| {
        let config = Config::new().frontend("maxconn = 1").bind("BINDS");
        let config = config.server_with(peers[0].address(), "check = false");
        // Otherwise no more than maxconn wait.
        let binds = binds.iter();
        let binds = binds.map(|address| format!("{{ address = \"{address}\", backlog = 64 }}"));
        let binds = binds.collect::<Vec<_>>().join(", ");
        config.to_string().replace("\"BINDS\"", &binds)
    };
    let mut rlb = Rlb::start(&config(&[stays, goes]));
    let mut holder = connect(stays);
    echo(&mut holder, b"has the only slot");
    let waiting: Vec<TcpStream> = (0..6).map(|_| connect(goes)).collect();
    rlb.rewrite(&config(&[stays]));
    rlb.signal(Signal::SIGUSR2);
    let next = Next::of(&rlb);
    drop(holder);
    // They get the slot one after another, in an order of the workers' own.
    std::thread::scope(|scope| {
        for mut stream in waiting {
            scope.spawn(move || echo(&mut stream, b"waited"));
        }
    });
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    next.stop();
}
