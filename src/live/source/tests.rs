use super::*;
use crate::live::source_failures::refusal;
use socket2::{Domain, Protocol, Type};
use std::net::TcpListener;
use std::time::Instant;

struct Setup {
    global: GlobalLive,
    live: ServerLive,
    server: TcpListener,
}

impl Setup {
    fn new() -> Self {
        Self {
            global: GlobalLive::new(Instant::now(), 1),
            live: ServerLive::new(&std::sync::Arc::default(), 1),
            server: TcpListener::bind("127.0.0.1:0").unwrap(),
        }
    }

    fn connect(&self, sources: &[SourceAddress]) -> io::Result<(Socket, SocketAddr)> {
        let connect = Connect {
            global: &self.global,
            live: &self.live,
            names: ("be", "s1"),
            client: None,
            to: self.server.local_addr().unwrap(),
        };
        let socket = connect.start(sources, || {
            Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
        })?;
        let (_, peer) = self.server.accept().unwrap();
        assert_eq!(socket.local_addr().unwrap().as_socket(), Some(peer));
        Ok((socket, peer))
    }

    fn failures(&self, ip: [u8; 4], failure: SourceFailure) -> u64 {
        self.global.source_failures.of(Some(ip.into()), failure)
    }
}

fn source(ip: [u8; 4], ports: Option<(u16, u16)>) -> SourceAddress {
    SourceAddress {
        ip: Some(ip.into()),
        ports,
        interface: None,
        usesrc: None,
    }
}

/// The first of four ports in a row that nobody has.
fn four_ports() -> u16 {
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (20_000..30_000)
        .step_by(4)
        .map(|first| first + u16::try_from(std::process::id() % 997 * 4).unwrap())
        .find(|first| (0..4).all(|more| is_free(first + more)))
        .expect("few are in use")
}

#[test]
fn addresses_take_turns() {
    let setup = Setup::new();
    let sources = [
        source([127, 0, 0, 2], None),
        source([127, 0, 0, 3], None),
        source([127, 0, 0, 4], None),
    ];
    let ips = (0..9).map(|_| setup.connect(&sources).unwrap().1.ip());
    let ips: Vec<IpAddr> = ips.collect();
    let expected = [2, 3, 4].map(|last| IpAddr::from([127, 0, 0, last]));
    assert_eq!(ips, expected.repeat(3));
}

#[test]
fn ports_of_a_range_take_turns_and_the_next_address_follows() {
    let setup = Setup::new();
    let first = four_ports();
    let ports = Some((first, first + 3));
    let sources = [source([127, 0, 0, 2], ports), source([127, 0, 0, 3], ports)];
    let mut open: Vec<(Socket, SocketAddr)> = Vec::new();
    for _ in 0..8 {
        open.push(setup.connect(&sources).unwrap());
    }
    let mut used: Vec<SocketAddr> = open.iter().map(|it| it.1).collect();
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), 8, "each once");
    let used_up = |last| setup.failures([127, 0, 0, last], SourceFailure::UsedUp);
    assert_eq!((used_up(2), used_up(3)), (0, 0));
    let error = setup.connect(&sources).unwrap_err();
    assert_eq!(SourceFailure::of(&error), Some(SourceFailure::UsedUp));
    assert_eq!((used_up(2), used_up(3)), (1, 1));
    // The only free port is found, whoever's turn it is.
    let (socket, free) = open.remove(5);
    socket
        .set_linger(Some(std::time::Duration::ZERO))
        .expect("reset, so that nothing remains");
    drop(socket);
    assert_eq!(setup.connect(&sources).unwrap().1, free);
    // The same ports serve another server.
    let other = Setup::new();
    for _ in 0..8 {
        open.push(other.connect(&sources).unwrap());
    }
}

#[test]
fn an_address_of_another_machine_is_passed_over() {
    let setup = Setup::new();
    let sources = [
        source([192, 0, 2, 1], None),
        source([127, 0, 0, 3], None),
        SourceAddress {
            ip: Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            ..source([0; 4], None)
        },
    ];
    for _ in 0..6 {
        let (_, peer) = setup.connect(&sources).unwrap();
        assert_eq!(peer.ip(), IpAddr::from([127, 0, 0, 3]));
    }
    // In its own turns, and in those of the address of the other family, after which it comes.
    assert_eq!(setup.failures([192, 0, 2, 1], SourceFailure::Refused), 4);
    let error = setup.connect(&sources[..1]).unwrap_err();
    assert_eq!(refusal(&error).unwrap().step, "bind to 192.0.2.1:0");
    let error = setup.connect(&sources[2..]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
}

#[test]
fn a_refusal_is_the_server_s() {
    let mut setup = Setup::new();
    let gone = setup.server.local_addr().unwrap();
    setup.server = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = Connect {
        global: &setup.global,
        live: &setup.live,
        names: ("be", "s1"),
        client: None,
        to: gone,
    };
    let opened = std::cell::Cell::new(0);
    let error = connect
        .start(
            &[source([127, 0, 0, 2], None), source([127, 0, 0, 3], None)],
            || {
                opened.set(opened.get() + 1);
                Socket::new(Domain::IPV4, Type::STREAM, None)
            },
        )
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(opened.get(), 1);
}
