//! `source`: from where connections and checks come, beside HAProxy; what happens when ports run out; the client's own
//! address.

use crate::harness::client::{TIMEOUT, connect};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true};
use crate::harness::needs;
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::process::Process;
use crate::harness::rlb::{PROGRAM, Rlb, STOP_WITHIN};
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use tempfile::TempDir;

/// Says from where it was connected to, and goes on until the client ends.
fn telling() -> Behaviour {
    Behaviour::script(|mut stream| {
        let Ok(from) = stream.peer_addr() else { return };
        if writeln!(stream, "{from}").is_ok() {
            let mut lines = BufReader::new(stream);
            while lines
                .read_line(&mut String::new())
                .is_ok_and(|read| read > 0)
            {}
        }
    })
}

/// What the server says; `None`: the connection has ended without a word.
fn told(stream: &TcpStream) -> Option<SocketAddr> {
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let mut line = String::new();
    let read = BufReader::new(stream).read_line(&mut line);
    read.ok()?;
    line.trim().parse().ok()
}

/// Starts `program` under HAProxy's name with the file.
pub(crate) struct Balancer {
    pub(crate) process: Process,
    _folder: TempDir,
}

impl Balancer {
    pub(crate) fn start(program: &Path, netns: &Netns, file: &str, ready: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("haproxy.cfg"), file).expect("written");
        let name = folder.path().join("haproxy");
        std::os::unix::fs::symlink(program, &name).expect("a link");
        let mut command = Command::new(name);
        command
            .args(["-db", "-f", "haproxy.cfg"])
            .current_dir(&folder);
        let process = Process::start(command, Some(netns), false);
        netns.enter(|| {
            eventually_true(STOP_WITHIN, "it listens", || {
                TcpStream::connect(ready).is_ok()
            });
        });
        Self {
            process,
            _folder: folder,
        }
    }

    pub(crate) fn stop(mut self) {
        self.process.signal(Signal::SIGTERM);
        self.process.wait(STOP_WITHIN);
    }
}

/// Both programs; `None`: a test cannot run here.
pub(crate) fn programs() -> Option<[PathBuf; 2]> {
    if !needs::root() {
        return None;
    }
    Some([needs::haproxy()?, PathBuf::from(PROGRAM)])
}

const DEFAULTS: &str = "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 2s\n  \
                        timeout client 1m\n  timeout server 1m\n";

/// The address that the next SYN to a port of this machine comes from. A check that ends with a reset reaches no accept
/// queue.
fn syn_to(port: u16) -> IpAddr {
    /// `ETH_P_ALL`, in the order of the network.
    const ALL: i32 = 0x0300;
    /// Of Ethernet and of IPv4.
    const HEADERS: usize = 14 + 20;
    let mut packets = Socket::new(Domain::PACKET, Type::RAW, Some(ALL.into())).expect("root");
    packets.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let mut packet = [0; 2048];
    loop {
        let length = packets.read(&mut packet).expect("a packet");
        let is_tcp = length >= HEADERS + 20 && packet[12..14] == [8, 0] && packet[23] == 6;
        let (ip, tcp) = (&packet[14..HEADERS], &packet[HEADERS..]);
        let is_syn = tcp[13] & 0x12 == 0x02;
        if is_tcp && is_syn && tcp[2..4] == port.to_be_bytes() {
            return IpAddr::from([ip[12], ip[13], ip[14], ip[15]]);
        }
    }
}

/// The addresses that a server sees with each form of `source`, and those that its checks have.
#[test]
fn connections_come_from_where_haproxys_come() {
    let Some(programs) = programs() else { return };
    let netns = Netns::alone("source");
    let peer = netns.enter(|| Peer::start(telling()));
    let checked = netns
        .enter(|| TcpListener::bind("127.0.0.1:0"))
        .expect("a port");
    let checked_at = checked.local_addr().expect("an address");
    let server = peer.address();
    let file = format!(
        "{DEFAULTS}\
         listen plain\n  bind 127.0.0.1:7000\n  server s {server}\n\
         listen backend\n  bind 127.0.0.1:7001\n  source 127.0.0.9\n  server s {server}\n\
         listen server\n  bind 127.0.0.1:7002\n  source 127.0.0.9\n  server s {server} source 127.0.0.8\n\
         listen default\n  bind 127.0.0.1:7003\n  source 127.0.0.9\n  default-server source 127.0.0.7\n  \
         server s {server}\n\
         listen none\n  bind 127.0.0.1:7004\n  source 127.0.0.9\n  server s {server} source 0.0.0.0\n\
         listen device\n  bind 127.0.0.1:7005\n  source 127.0.0.6 interface lo\n  server s {server}\n\
         listen port\n  bind 127.0.0.1:7006\n  source 127.0.0.5:30500\n  server s {server}\n\
         listen client\n  bind 127.0.0.1:7007\n  source 127.0.0.9 usesrc clientip\n  server s {server}\n\
         listen checked\n  bind 127.0.0.1:7008\n  source 127.0.0.9 usesrc clientip\n  \
         server s {checked_at} check inter 100ms\n"
    );
    let see = |program: &Path| {
        let balancer = Balancer::start(program, &netns, &file, ([127, 0, 0, 1], 7005).into());
        let seen: Vec<Option<SocketAddr>> = netns.enter(|| {
            let from = |port: u16| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
                let client = SocketAddr::from(([127, 0, 9, 9], 0));
                socket.bind(&client.into()).expect("bound");
                let to = SocketAddr::from(([127, 0, 0, 1], port));
                socket.connect(&to.into()).expect("connected");
                told(&TcpStream::from(socket))
            };
            (7000..7008).map(from).collect()
        });
        let check = netns.enter(|| syn_to(checked_at.port()));
        balancer.stop();
        (seen, check)
    };
    let [theirs, ours] = programs.map(|program| see(&program));
    let ips = |seen: &[Option<SocketAddr>]| -> Vec<Option<IpAddr>> {
        seen.iter().map(|it| it.map(|it| it.ip())).collect()
    };
    let expected = [
        [127, 0, 0, 1],
        [127, 0, 0, 9],
        [127, 0, 0, 8],
        [127, 0, 0, 7],
        [127, 0, 0, 1],
        [127, 0, 0, 6],
        [127, 0, 0, 5],
        [127, 0, 9, 9],
    ]
    .map(|ip| Some(IpAddr::from(ip)));
    assert_eq!(ips(&ours.0), expected);
    assert_eq!(ips(&theirs.0), ips(&ours.0));
    assert_eq!(ours.0[6].map(|it| it.port()), Some(30_500));
    assert_eq!(theirs.0[6], ours.0[6]);
    // A check has no client: it comes from the address itself.
    assert_eq!(
        (ours.1, theirs.1),
        ([127, 0, 0, 9].into(), [127, 0, 0, 9].into())
    );
}

/// The ports of a range are used once each, those of the next address follow, and when none is left the client ends
/// without blame for the server.
#[test]
fn ports_that_are_used_up_are_counted_and_the_next_address_is_tried() {
    let peer = Peer::start(telling());
    // Checks have ports of their own: they go elsewhere.
    let checked = Peer::start(Behaviour::Sink);
    let check = format!(
        "check = {{ interval = \"100ms\", port = {} }}",
        checked.address().port()
    );
    let config = Config::new()
        .backend("source = [\"127.0.0.2:31000-31001\", \"127.0.0.3:31000-31001\"]")
        .server_with(peer.address(), &check);
    let rlb = Rlb::start(&config);
    rlb.wait_status("s1", "UP");
    let failures = |rlb: &Rlb, address: &str, cause: &str| {
        rlb.metric(&format!(
            "rlb_source_failures_total{{address=\"{address}\",cause=\"{cause}\"}}"
        ))
    };
    assert_eq!(failures(&rlb, "127.0.0.2", "used_up"), 0);
    let mut open = Vec::new();
    let mut from = Vec::new();
    for _ in 0..4 {
        let stream = connect(rlb.address());
        from.push(told(&stream).expect("served"));
        open.push(stream);
    }
    from.sort_unstable();
    let expected: Vec<SocketAddr> = [(2, 31_000), (2, 31_001), (3, 31_000), (3, 31_001)]
        .map(|(last, port)| ([127, 0, 0, last], port).into())
        .into();
    assert_eq!(from, expected);
    assert_eq!(failures(&rlb, "127.0.0.2", "refused"), 0);
    let unserved = connect(rlb.address());
    assert_eq!(told(&unserved), None);
    eventually_eq(STOP_WITHIN, &1, || rlb.failed_sessions("source_ports"));
    for address in ["127.0.0.2", "127.0.0.3"] {
        assert!(failures(&rlb, address, "used_up") > 0, "{address}");
    }
    rlb.events()
        .wait_for("\"source ports of an address used up\"");
    // That is no fault of the server's.
    assert_eq!(rlb.status("s1"), "UP");
    assert_eq!(rlb.number("s1", "chkfail"), 0);
    // A port that is free again is found.
    drop(open.remove(1));
    eventually_true(STOP_WITHIN, "a port is free", || {
        let stream = connect(rlb.address());
        told(&stream).is_some_and(|from| expected.contains(&from))
    });
    rlb.stop_after(open);
}

#[test]
fn an_address_of_another_machine_is_passed_over_and_told_of() {
    let peer = Peer::start(telling());
    let config = Config::new()
        .backend("source = [\"192.0.2.7\", \"127.0.0.4\"]")
        .server_with(peer.address(), "check = false");
    let rlb = Rlb::start(&config);
    for _ in 0..6 {
        let from = told(&connect(rlb.address())).expect("served");
        assert_eq!(from.ip(), IpAddr::from([127, 0, 0, 4]));
    }
    let refused = rlb.metric("rlb_source_failures_total{address=\"192.0.2.7\",cause=\"refused\"}");
    assert_eq!(refused, 3, "in its own turns alone");
    let event = rlb.events().wait_for("\"source address refused\"");
    assert!(event.contains("cannot bind to 192.0.2.7:0"), "{event}");
    assert_eq!(rlb.number("s1", "econ"), 0);
    rlb.stop();
}

/// A client, a balancer and a server on three machines; the server's way back leads through the balancer.
struct Machines {
    client: Netns,
    balancer: Netns,
    server: Netns,
}

/// Connections that the test does not wait for.
const CONNECTIONS_MAX: usize = 64;
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const TO_SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 2, 0, 2)), 9000);

impl Machines {
    fn new() -> Self {
        let [client, balancer, server] =
            ["client", "balancer", "server"].map(|name| Netns::alone(&format!("src-{name}")));
        for (netns, own, device, to) in [
            (&client, "10.1.0.2/24", "clients", "10.1.0.1/24"),
            (&server, "10.2.0.2/24", "servers", "10.2.0.1/24"),
        ] {
            balancer.ip(&[
                "link",
                "add",
                device,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                netns.name(),
            ]);
            netns.ip(&["addr", "add", own, "dev", "eth0"]);
            netns.ip(&["link", "set", "eth0", "up"]);
            balancer.ip(&["addr", "add", to, "dev", device]);
            balancer.ip(&["link", "set", device, "up"]);
        }
        server.ip(&["route", "add", "default", "via", "10.2.0.1"]);
        // As in docs/configuration.md.
        balancer.ip(&["rule", "add", "iif", "servers", "lookup", "100"]);
        balancer.ip(&[
            "route", "add", "local", "default", "dev", "lo", "table", "100",
        ]);
        Self {
            client,
            balancer,
            server,
        }
    }

    /// Where connections to the server come from.
    fn arrivals(&self) -> Receiver<SocketAddr> {
        let (sender, receiver) = sync_channel(CONNECTIONS_MAX);
        drop(self.server.spawn(move || {
            let listener = TcpListener::bind(SERVER).expect("the server's address");
            for stream in listener.incoming().flatten() {
                let from = stream.peer_addr().expect("connected");
                if sender.send(from).is_err() {
                    return;
                }
            }
        }));
        receiver
    }
}

#[test]
fn a_server_sees_the_client_as_behind_haproxy() {
    let Some(programs) = programs() else { return };
    let machines = Machines::new();
    let arrivals = machines.arrivals();
    let file = format!(
        "{DEFAULTS}\
         listen client\n  bind {BALANCER}:7000\n  source 0.0.0.0 usesrc client\n  server s {SERVER}\n\
         listen clientip\n  bind {BALANCER}:7001\n  source 0.0.0.0 usesrc clientip\n  server s {SERVER}\n\
         listen own\n  bind {BALANCER}:7002\n  source {BALANCER}\n  server s {SERVER}\n\
         listen ready\n  bind 127.0.0.1:7009\n  server s 127.0.0.1:1\n"
    );
    for program in programs {
        let ready = ([127, 0, 0, 1], 7009).into();
        let balancer = Balancer::start(&program, &machines.balancer, &file, ready);
        let arrive = |port: u16| {
            let client = || connect((BALANCER, port).into());
            let stream = machines.client.enter(client);
            let own = stream.local_addr().expect("connected");
            (own, arrivals.recv_timeout(TIMEOUT).expect("a connection"))
        };
        let (own, seen) = arrive(7000);
        assert_eq!(own.ip(), IpAddr::V4(CLIENT));
        assert_eq!(seen, own, "{}", program.display());
        let (own, seen) = arrive(7001);
        assert_eq!(seen.ip(), own.ip(), "{}", program.display());
        let (_, seen) = arrive(7002);
        assert_eq!(seen.ip(), IpAddr::V4(BALANCER), "{}", program.display());
        assert_ne!(seen.ip(), IpAddr::V4(TO_SERVER));
        balancer.stop();
    }
}
