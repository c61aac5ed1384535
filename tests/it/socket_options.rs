//! Options of the sockets of binds and servers, seen in the sockets of the program itself and on the wire.

use crate::harness::client::{connect, echo, hear, timed};
use crate::harness::config::Config;
use crate::harness::eventually::eventually_true;
use crate::harness::needs;
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::rlb::{Rlb, STOP_WITHIN, Start};
use crate::source::{Balancer, programs};
use crate::upgrade::Next;
use nix::sys::signal::Signal;
use rlb::sys::raw::{TcpOption, tcp_option};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{Domain, Protocol, Socket, Type};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

/// Duplicates of the TCP sockets of a process.
fn sockets(pid: u32) -> Vec<Socket> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = pidfd_open(number.expect("a number"), PidfdFlags::empty()).expect("it runs");
    let numbers = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let numbers = numbers
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let copies = numbers.filter_map(|fd| pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).ok());
    let sockets = copies.map(Socket::from);
    let inet = |socket: &Socket| socket.domain().is_ok_and(|it| it != Domain::UNIX);
    sockets.filter(inet).collect()
}

/// The program's sockets that listen at `address`.
fn listening(pid: u32, address: SocketAddr) -> Vec<Socket> {
    let is_it = |socket: &Socket| {
        let own = socket.local_addr().ok().and_then(|it| it.as_socket());
        own == Some(address) && socket.is_listener().unwrap_or(false)
    };
    sockets(pid).into_iter().filter(is_it).collect()
}

/// The program's connection to `server`.
fn connection_to(pid: u32, server: SocketAddr) -> Socket {
    let is_it = |socket: &Socket| {
        let peer = socket.peer_addr().ok().and_then(|it| it.as_socket());
        peer == Some(server)
    };
    sockets(pid).into_iter().find(is_it).expect("a session")
}

/// `transparent`, `defer-accept`, `tfo`, `mss`, `cc` and `tcp-ut` of a socket.
fn seen(socket: &Socket) -> (bool, bool, i32, u32, String, Option<Duration>) {
    let number = |option| tcp_option(socket.as_fd(), option).expect("TCP");
    (
        socket.ip_transparent_v4().expect("IPv4"),
        number(TcpOption::DeferAccept) != 0,
        number(TcpOption::FastOpen),
        socket.tcp_mss().expect("TCP"),
        algorithm(socket),
        socket.tcp_user_timeout().expect("TCP"),
    )
}

fn algorithm(socket: &Socket) -> String {
    let name = socket.tcp_congestion().expect("TCP");
    let text = String::from_utf8(name).expect("text");
    text.trim_end_matches('\0').to_owned()
}

/// A file whose bind has these keys, and its server those.
fn config(bind: SocketAddr, keys: &str, server: SocketAddr, of_server: &str) -> String {
    let config = Config::new().frontend("").bind("BIND");
    let config = config.server_with(server, of_server);
    let bind = format!("{{ address = \"{bind}\"{keys} }}");
    config.to_string().replace("\"BIND\"", &bind)
}

const OPTIONS: &str =
    ", defer-accept = true, tfo = true, backlog = 77, mss = 1111, cc = \"reno\", tcp-ut = \"7s\"";

/// The system's algorithm, and another one.
fn algorithms() -> (String, &'static str) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    (algorithm(&socket), "reno")
}

#[test]
fn options_of_a_bind_are_set_changed_and_taken_back_on_its_sockets() {
    let peer = Peer::start(Behaviour::Echo);
    let (at, server) = (ports::free(), peer.address());
    let plain = config(at, "", server, "check = false");
    let with = config(at, OPTIONS, server, "check = false");
    let mut rlb = Rlb::start(&plain);
    let all = |rlb: &Rlb| -> Vec<_> {
        let found = listening(rlb.process.id(), at);
        assert_eq!(found.len(), 2, "one a worker");
        found.iter().map(seen).collect()
    };
    let fresh = all(&rlb);
    let (default, _) = algorithms();
    assert!(!fresh[0].1 && fresh[0].2 == 0 && fresh[0].4 == default && fresh[0].5.is_none());
    let mut kept = connect(at);
    echo(&mut kept, b"before");
    let timeout = Some(Duration::from_secs(7));
    let wanted = (false, true, 77, 1111, "reno".to_owned(), timeout);
    rlb.reload(&with);
    assert_eq!(all(&rlb), [wanted.clone(), wanted.clone()]);
    let other = OPTIONS.replace("7s", "9s").replace("mss = 1111, ", "");
    rlb.reload(&config(at, &other, server, "check = false"));
    let changed = (
        false,
        true,
        77,
        fresh[0].3,
        "reno".to_owned(),
        Some(Duration::from_secs(9)),
    );
    assert_eq!(all(&rlb), [changed.clone(), changed]);
    rlb.reload(&plain);
    assert_eq!(all(&rlb), fresh);
    // The sockets were the same all the time.
    echo(&mut kept, b"after");
    drop(kept);
    rlb.stop();

    // At a start, and over an upgrade that takes them back.
    let speaks = Peer::start(Behaviour::Says("hello"));
    let [with, plain] =
        [OPTIONS, ""].map(|keys| config(at, keys, speaks.address(), "check = false"));
    let mut rlb = Rlb::start(&with);
    assert_eq!(all(&rlb), [wanted.clone(), wanted]);
    rlb.rewrite(&plain);
    rlb.signal(Signal::SIGUSR2);
    let next = Next::of(&rlb);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    let (answered, took) = timed(|| is_answered(at));
    assert!(answered && took < Duration::from_millis(500), "{took:?}");
    next.stop();
}

/// Whether a client that says nothing is served.
fn is_answered(at: SocketAddr) -> bool {
    let (text, _) = hear(at);
    text == "hello"
}

/// From one file HAProxy's listening socket and rlb's have the same options.
#[test]
fn the_options_of_a_bind_are_haproxys() {
    let Some(programs) = programs() else { return };
    let netns = Netns::alone("options");
    let at: SocketAddr = ([127, 0, 0, 1], 7200).into();
    let options = "tfo defer-accept mss 1111 tcp-ut 7000 backlog 77 transparent";
    // HAProxy 2.6 does not have it.
    let cc = if needs::version(&programs[0]) >= (3, 0) {
        " cc reno"
    } else {
        ""
    };
    let file = format!(
        "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1m\n  \
         timeout server 1m\nlisten l\n  bind {at} {options}{cc}\n  server s 127.0.0.1:1\n\
         listen ready\n  bind 127.0.0.1:7201\n  server s 127.0.0.1:1\n"
    );
    let [theirs, ours] = programs.map(|program| {
        let ready = ([127, 0, 0, 1], 7201).into();
        let balancer = Balancer::start(&program, &netns, &file, ready);
        let found = listening(balancer.process.id(), at);
        let options = seen(found.first().expect("it listens"));
        balancer.stop();
        options
    });
    assert_eq!(ours, theirs);
    let (transparent, deferred, tfo, mss, _, timeout) = ours;
    assert!(transparent && deferred);
    assert_eq!(
        (tfo, mss, timeout),
        (77, 1111, Some(Duration::from_secs(7)))
    );
}

/// A client that says nothing is accepted a second later; its connection has the options of the bind.
#[test]
fn connections_of_a_bind_have_its_options() {
    let peer = Peer::start(Behaviour::Says("hello"));
    let at = ports::free();
    let rlb = Rlb::start(&config(at, OPTIONS, peer.address(), "check = false"));
    let ((text, _), took) = timed(|| hear(at));
    assert_eq!(text, "hello");
    assert!(took > Duration::from_millis(700), "{took:?}");
    rlb.stop();

    let peer = Peer::start(Behaviour::Echo);
    let rlb = Rlb::start(&config(at, OPTIONS, peer.address(), "check = false"));
    let mut client = connect(at);
    echo(&mut client, b"a word");
    let own = client.local_addr().expect("connected");
    let theirs = connection_to(rlb.process.id(), own);
    assert_eq!(algorithm(&theirs), "reno");
    let timeout = theirs.tcp_user_timeout().expect("TCP");
    assert_eq!(timeout, Some(Duration::from_secs(7)));
    // The client is told so in the SYN-ACK.
    let client_side = socket2::SockRef::from(&client);
    assert!(client_side.tcp_mss().expect("TCP") <= 1111);
    rlb.stop_after(client);
}

#[test]
fn an_option_that_the_kernel_refuses_is_told_of_and_left_out() {
    let peer = Peer::start(Behaviour::Echo);
    let at = ports::free();
    let keys = ", cc = \"no-such-one\", tcp-ut = \"3s\"";
    let of_server = "check = false, cc = \"nor-this-one\", tcp-ut = \"4s\"";
    let rlb = Rlb::start(&config(at, keys, peer.address(), of_server));
    let event = rlb.events().wait_for("\"socket option refused\"");
    assert!(event.contains("\"option\":\"cc\""), "{event}");
    assert!(event.contains(&at.to_string()), "{event}");
    let socket = &listening(rlb.process.id(), at)[0];
    let timeout = socket.tcp_user_timeout().expect("TCP");
    assert_eq!(timeout, Some(Duration::from_secs(3)));
    let mut client = connect(at);
    echo(&mut client, b"served");
    rlb.events().wait_for("\"server\":\"s1\",\"option\":\"cc\"");
    let socket = connection_to(rlb.process.id(), peer.address());
    let timeout = socket.tcp_user_timeout().expect("TCP");
    assert_eq!(timeout, Some(Duration::from_secs(4)));
    rlb.stop_after(client);
}

#[test]
fn connections_to_a_server_have_its_options_and_a_reload_changes_them() {
    let peer = Peer::start(Behaviour::Echo);
    let at = ports::free();
    let of_server = "check = false, cc = \"reno\", tcp-ut = \"4s\"";
    let mut rlb = Rlb::start(&config(at, "", peer.address(), of_server));
    let see = |rlb: &Rlb| {
        let mut client = connect(at);
        echo(&mut client, b"a session");
        let socket = connection_to(rlb.process.id(), peer.address());
        let seen = (algorithm(&socket), socket.tcp_user_timeout().expect("TCP"));
        drop(client);
        eventually_true(STOP_WITHIN, "it has ended", || {
            rlb.number("s1", "scur") == 0
        });
        seen
    };
    let (default, reno) = algorithms();
    let with = (reno.to_owned(), Some(Duration::from_secs(4)));
    assert_eq!(see(&rlb), with);
    rlb.reload(&config(at, "", peer.address(), "check = false"));
    assert_eq!(see(&rlb), (default, None));
    rlb.stop();
}

#[test]
fn a_transparent_bind_listens_on_an_address_of_another_machine() {
    if !needs::root() {
        return;
    }
    let peer = Peer::start(Behaviour::Echo);
    let at: SocketAddr = ([192, 0, 2, 77], ports::free().port()).into();
    let rlb = Rlb::start(&config(
        at,
        ", transparent = true",
        peer.address(),
        "check = false",
    ));
    let found = listening(rlb.process.id(), at);
    assert!(!found.is_empty());
    assert!(found.iter().all(|socket| seen(socket).0));
    rlb.stop();

    // A reload takes it back.
    let at = ports::free();
    let [with, plain] =
        [", transparent = true", ""].map(|keys| config(at, keys, peer.address(), "check = false"));
    let mut rlb = Rlb::start(&with);
    let all = |rlb: &Rlb, transparent| {
        let found = listening(rlb.process.id(), at);
        assert!(!found.is_empty());
        found.iter().all(|socket| seen(socket).0 == transparent)
    };
    assert!(all(&rlb, true));
    rlb.reload(&plain);
    assert!(all(&rlb, false));
    rlb.stop();
}

/// rlb listens in one namespace and reaches a server in another, both with the same address, and checks it there.
#[test]
fn a_bind_and_a_server_are_in_namespaces_of_their_own() {
    if !needs::root() {
        return;
    }
    let [front, back] = ["front", "back"].map(Netns::alone);
    let at: SocketAddr = ([127, 0, 0, 1], 7100).into();
    let peer = back.enter(|| Peer::start_at(at, Behaviour::Echo));
    let keys = format!(", namespace = \"{}\"", front.name());
    let of_server = format!(
        "namespace = \"{}\", check = {{ interval = \"100ms\" }}",
        back.name()
    );
    let with = config(at, &keys, at, &of_server);
    let mut rlb = Rlb::start(&with);
    rlb.wait_status("s1", "UP");
    let serves = |netns: &Netns| {
        netns.enter(|| {
            let mut stream = connect(at);
            echo(&mut stream, b"through both");
        });
    };
    serves(&front);
    assert!(TcpStream::connect(at).is_err(), "not here");
    // Another file moves the socket, and an upgrade keeps it.
    let other = Netns::alone("other");
    let keys = format!(", namespace = \"{}\"", other.name());
    rlb.reload(&config(at, &keys, at, &of_server));
    serves(&other);
    front.enter(|| {
        eventually_true(STOP_WITHIN, "it has left", || {
            TcpStream::connect(at).is_err()
        });
    });
    rlb.reload(&with);
    rlb.signal(Signal::SIGUSR2);
    let next = Next::of(&rlb);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    serves(&front);
    next.stop();
    drop(peer);
}

/// The socket of the old one serves nobody any more.
#[test]
fn a_namespace_that_is_made_again_is_listened_in_again() {
    if !needs::root() {
        return;
    }
    let netns = Netns::alone("again");
    let at: SocketAddr = ([127, 0, 0, 1], 7100).into();
    let peer = Peer::start(Behaviour::Echo);
    let keys = format!(", namespace = \"{}\"", netns.name());
    let rlb = Rlb::start(&config(at, &keys, peer.address(), "check = false"));
    for action in ["del", "add"] {
        let mut ip = Command::new("ip");
        let done = ip.args(["netns", action, netns.name()]).status();
        assert!(done.expect("it starts").success());
    }
    netns.ip(&["link", "set", "lo", "up"]);
    netns.enter(|| {
        let connects = || TcpStream::connect(at).is_ok();
        eventually_true(STOP_WITHIN, "it listens there", connects);
        echo(&mut connect(at), b"in the new one");
    });
    let event = rlb.events().wait_for("\"listening socket opened again\"");
    assert!(event.contains(netns.name()), "{event}");
    rlb.stop();
}

#[test]
fn a_namespace_that_does_not_exist_is_an_error_of_the_start_and_no_fault_of_a_server() {
    let peer = Peer::start(Behaviour::Echo);
    let at = ports::free();
    let none = "namespace = \"no-such-namespace\"";
    let file = config(at, &format!(", {none}"), peer.address(), "check = false");
    let (status, events) = Start::new(&file).exits();
    assert!(!status.success());
    let text = events.join("\n");
    let says = "cannot enter the namespace no-such-namespace";
    assert!(text.contains(says), "{text}");

    let of_server = format!("{none}, check = {{ interval = \"100ms\" }}");
    let rlb = Rlb::start(&config(at, "", peer.address(), &of_server));
    let event = rlb.events().wait_for("\"socket option refused\"");
    assert!(event.contains(says), "{event}");
    eventually_true(STOP_WITHIN, "it is counted", || {
        rlb.metric("rlb_shortages_total{step=\"check\",cause=\"socket\"}") > 0
    });
    drop(hear(at));
    eventually_true(STOP_WITHIN, "it is counted", || {
        rlb.failed_sessions("socket") > 0
    });
    assert_eq!(rlb.number("s1", "chkfail"), 0);
    rlb.stop();
}

/// A client of MPTCP is served by MPTCP, one of TCP by TCP; so is the server.
#[test]
fn mptcp_is_spoken_on_both_sides() {
    let mptcp = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP));
    let Ok(listener) = mptcp() else {
        eprintln!("skipped: this kernel has no MPTCP");
        return;
    };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    listener.bind(&any.into()).expect("bound");
    listener.listen(16).expect("it listens");
    let server = listener
        .local_addr()
        .expect("bound")
        .as_socket()
        .expect("IPv4");
    let serve = std::thread::spawn(move || {
        for _ in 0..2 {
            let (socket, _) = listener.accept().expect("a session");
            let mut stream = TcpStream::from(socket);
            let mut from = stream.try_clone().expect("a duplicate");
            std::io::copy(&mut from, &mut stream).expect("an echo");
        }
    });
    let at = ports::free();
    let of_server = "check = false, mptcp = true";
    let mut rlb = Rlb::start(&config(at, ", mptcp = true", server, of_server));
    let found = listening(rlb.process.id(), at);
    assert!(!found.is_empty());
    let protocol = |socket: &Socket| socket.protocol().expect("a socket");
    assert!(found.iter().all(|it| protocol(it) == Some(Protocol::MPTCP)));
    for multipath in [true, false] {
        let client = if multipath {
            mptcp()
        } else {
            Socket::new(Domain::IPV4, Type::STREAM, None)
        };
        let client = client.expect("a socket");
        client.connect(&at.into()).expect("connected");
        let mut stream = TcpStream::from(client);
        // More than a relay reads at once.
        for _ in 0..20 {
            echo(&mut stream, &vec![7; 50_000]);
        }
        let to_server = connection_to(rlb.process.id(), server);
        assert_eq!(protocol(&to_server), Some(Protocol::MPTCP));
        drop(stream);
        eventually_true(STOP_WITHIN, "it has ended", || {
            rlb.number("s1", "scur") == 0
        });
    }
    // What such a socket has not is no reason to leave it as it was.
    rlb.rewrite(&config(
        at,
        ", mptcp = true, backlog = 99",
        server,
        of_server,
    ));
    rlb.signal(Signal::SIGUSR2);
    let next = Next::of(&rlb);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    let left = rlb.events().with("a listening socket stays as it was");
    assert!(left.is_empty(), "{left:?}");
    next.stop();
    serve.join().expect("both sessions were served");
}

/// A check by MPTCP finds a server of TCP, too.
#[test]
fn a_server_without_mptcp_is_up() {
    if Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).is_err() {
        return;
    }
    let peer = Peer::start(Behaviour::Echo);
    let at = ports::free();
    let of_server = "mptcp = true, check = { interval = \"100ms\" }";
    let rlb = Rlb::start(&config(at, "", peer.address(), of_server));
    rlb.wait_status("s1", "UP");
    let mut client = connect(at);
    echo(&mut client, b"served");
    assert_eq!(rlb.number("s1", "chkfail"), 0);
    rlb.stop_after(client);
}
