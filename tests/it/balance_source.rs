//! `balance source`, `hash`, `static-rr` and `first` beside HAProxy: both read the same file, and the same clients get the same
//! servers.

#[path = "../../src/balance/tests/clients.rs"]
mod clients;

use crate::harness::eventually::eventually_true;
use crate::harness::needs;
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports::is_listened_on;
use crate::harness::process::Process;
use crate::harness::rlb::{PROGRAM, STOP_WITHIN};
use clients::client;
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Clients of each backend; of those that are recorded.
const CLIENTS: u32 = 100;
const RECORDED: u32 = 10_000;
/// The same of `hash`.
const RECORDED_HASH: u32 = 500;
/// The port of the first backend.
const FIRST_PORT: u16 = 7000;
/// What the servers say: their positions.
const WORDS: [&str; 5] = ["0", "1", "2", "3", "4"];

const HASH_TYPES: [&str; 4] = [
    "map-based",
    "map-based sdbm avalanche",
    "consistent sdbm",
    "consistent",
];
/// The servers of the backends, as src/balance/tests/source.rs reads them.
const SERVERS: [&str; 7] = [
    "1*1,2*1,3*1",
    "1*1,2*1!,3*1",
    "1*10,2*20,3*5",
    "1*2,2*4,3*3!",
    "7*1,11*3,100*1,5*2,9*1",
    "1*1b,2*1!,3*1b",
    "1*256,2*1,3*128",
];

/// Expressions of `balance hash` with their hash types and `hash-balance-factor`.
const HASHES: [(&str, &str, u32); 24] = [
    ("src", "map-based", 0),
    ("src", "map-based sdbm avalanche", 0),
    ("src", "map-based djb2", 0),
    ("src", "map-based djb2 avalanche", 0),
    ("src", "map-based wt6", 0),
    ("src", "map-based wt6 avalanche", 0),
    ("src", "map-based crc32", 0),
    ("src", "map-based crc32 avalanche", 0),
    ("src", "map-based none", 0),
    ("src", "map-based none avalanche", 0),
    ("src", "consistent", 0),
    ("src", "consistent sdbm", 0),
    ("src", "consistent djb2", 0),
    ("src", "consistent djb2 avalanche", 0),
    ("src", "consistent wt6", 0),
    ("src", "consistent wt6 avalanche", 0),
    ("src", "consistent crc32", 0),
    ("src", "consistent crc32 avalanche", 0),
    ("src", "consistent none", 0),
    ("src", "consistent none avalanche", 0),
    ("src,ipmask(16,80)", "map-based crc32", 0),
    ("src,ipmask(12,72)", "consistent wt6", 0),
    ("src", "consistent", 110),
    ("src,ipmask(12,72)", "consistent djb2 avalanche", 150),
];
const HASH_SERVERS: [&str; 2] = ["1*10,2*20,3*5", "7*1,11*3,100*1!,5*2,9*1"];
/// Ports of a backend in which the port decides.
const PORTS: u16 = 50;

/// The statements of a backend, and its servers.
struct Backend {
    balance: String,
    servers: &'static str,
    /// How many ports it has.
    ports: u16,
    /// Further words of its servers.
    words: &'static str,
    /// Its name in the recorded file of `hash`.
    recorded: Option<String>,
}

impl Backend {
    fn new(balance: String, servers: &'static str) -> Self {
        Self {
            balance,
            servers,
            ports: 1,
            words: "",
            recorded: None,
        }
    }
}

fn backends() -> Vec<Backend> {
    let source = HASH_TYPES.iter().flat_map(|hash_type| {
        SERVERS
            .iter()
            .map(move |servers| Backend::new(format!("source\n  hash-type {hash_type}"), servers))
    });
    let plain = ["static-rr", "first"].iter().flat_map(|balance| {
        SERVERS
            .iter()
            .map(|servers| Backend::new((*balance).to_owned(), servers))
    });
    source.chain(plain).collect()
}

fn hashes() -> Vec<Backend> {
    let hashes = HASHES.iter().flat_map(|(expression, hash_type, factor)| {
        HASH_SERVERS.iter().map(move |servers| {
            let name = hash_type.replace(' ', "_");
            let statements = format!("hash {expression}\n  hash-type {hash_type}");
            let bound = format!("{statements}\n  hash-balance-factor {factor}");
            Backend {
                recorded: Some(format!("{expression} {name} {factor} {servers}")),
                ..Backend::new(bound, servers)
            }
        })
    });
    hashes.collect()
}

/// Backends in which a port decides: the client's choice, or the servers'.
fn by_port(haproxy: &Path) -> Vec<Backend> {
    let port = |function: &str| Backend {
        ports: PORTS,
        ..Backend::new(
            format!("hash dst_port\n  hash-type {function}"),
            HASH_SERVERS[0],
        )
    };
    let key = |words| Backend {
        words,
        ..Backend::new("source\n  hash-type consistent".to_owned(), HASH_SERVERS[0])
    };
    let mut backends = vec![
        port("map-based"),
        port("map-based none"),
        port("consistent"),
    ];
    if needs::version(haproxy) >= (3, 0) {
        backends.push(key(" hash-key addr-port"));
    }
    backends
}

struct Setup {
    netns: Netns,
    folder: TempDir,
    _peers: Vec<Peer>,
}

impl Setup {
    fn new(backends: &[Backend]) -> Self {
        let netns = Netns::loopback();
        netns.sysctl("ipv6/ip_nonlocal_bind", "1");
        netns.ip(&["-6", "route", "add", "local", "fd00:1::/32", "dev", "lo"]);
        let peers: Vec<Peer> = netns.enter(|| {
            WORDS
                .iter()
                .map(|word| Peer::start(Behaviour::SpeaksFirst(word)))
                .collect()
        });
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(PROGRAM, folder.path().join("haproxy")).expect("a link");
        // One thread: with more, HAProxy's turns are not in order.
        let mut text = "global\n  nbthread 1\n\
             defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1m\n  timeout server 1m\n"
            .to_owned();
        for (port, backend) in ports(backends) {
            let (balance, words) = (&backend.balance, backend.words);
            let range = format!("{port}-{}", port + backend.ports - 1);
            let _ = writeln!(
                text,
                "listen b{port}\n  bind 127.0.0.1:{range}\n  bind [::1]:{range}\n  balance {balance}"
            );
            for (server, peer) in backend.servers.split(',').zip(&peers) {
                let down = if server.ends_with('!') {
                    " disabled"
                } else {
                    ""
                };
                let server = server.trim_end_matches('!');
                let backup = if server.ends_with('b') { " backup" } else { "" };
                let (id, weight) = server
                    .trim_end_matches('b')
                    .split_once('*')
                    .expect("a pair");
                let address = peer.address();
                let _ = writeln!(
                    text,
                    "  server s{id} {address} id {id} weight {weight}{backup}{down}{words}"
                );
            }
        }
        fs::write(folder.path().join("haproxy.cfg"), text).expect("written");
        Self {
            netns,
            folder,
            _peers: peers,
        }
    }

    /// What `program` chooses in each backend for so many clients.
    fn choices(&self, program: &Path, backends: &[Backend], clients: u32) -> Vec<String> {
        let mut command = Command::new(program);
        command
            .args(["-db", "-f", "haproxy.cfg"])
            .current_dir(&self.folder);
        let mut process = Process::start(command, Some(&self.netns), false);
        let choices = self.netns.enter(|| {
            let last = ports(backends).last().map_or(0, |(port, _)| port);
            // A connection would count where there is a bound.
            eventually_true(STOP_WITHIN, "it listens", || {
                is_listened_on(SocketAddr::from((Ipv4Addr::LOCALHOST, last)))
            });
            std::thread::scope(|scope| {
                let of = |port, backend: &Backend| {
                    let mut chosen = String::new();
                    let mut streams = Vec::new();
                    for number in 0..clients {
                        let turn = u16::try_from(number % u32::from(backend.ports)).expect("few");
                        let (word, stream) = heard(client(number), port + turn);
                        chosen.push(word);
                        // With a bound, the sessions of the servers matter.
                        streams.extend(backend.recorded.is_some().then_some(stream));
                    }
                    chosen
                };
                // A thread stays in the namespace of the one that starts it.
                let all = ports(backends);
                let threads: Vec<_> = all
                    .map(|(port, backend)| scope.spawn(move || of(port, backend)))
                    .collect();
                let choices = threads.into_iter().map(|it| it.join().expect("it ends"));
                choices.collect()
            })
        });
        process.signal(Signal::SIGTERM);
        process.wait(STOP_WITHIN);
        choices
    }
}

/// The backends with their first ports.
fn ports(backends: &[Backend]) -> impl Iterator<Item = (u16, &Backend)> {
    backends.iter().scan(FIRST_PORT, |next, backend| {
        let port = *next;
        *next += backend.ports;
        Some((port, backend))
    })
}

/// What the server says that a client gets, and the connection.
fn heard(client: IpAddr, port: u16) -> (char, TcpStream) {
    let to: IpAddr = match client {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let to = SocketAddr::new(to, port);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket
        .bind(&SocketAddr::new(client, 0).into())
        .expect("bound");
    socket.connect(&to.into()).expect("connected");
    let mut stream = TcpStream::from(socket);
    let mut word = [0];
    stream.read_exact(&mut word).expect("the server's word");
    (char::from(word[0]), stream)
}

/// HAProxy, if it is installed, and root, who may make a namespace.
fn haproxy() -> Option<PathBuf> {
    if needs::root() {
        needs::haproxy()
    } else {
        None
    }
}

/// Both choose the same for every client of these backends.
fn both_choose_alike(haproxy: &Path, backends: &[Backend]) {
    let setup = Setup::new(backends);
    let theirs = setup.choices(haproxy, backends, CLIENTS);
    let ours = setup.choices(&setup.folder.path().join("haproxy"), backends, CLIENTS);
    for ((theirs, ours), backend) in theirs.iter().zip(&ours).zip(backends) {
        assert_eq!(ours, theirs, "{} {}", backend.balance, backend.servers);
    }
}

#[test]
fn every_client_gets_the_server_of_haproxys() {
    let Some(haproxy) = haproxy() else { return };
    both_choose_alike(&haproxy, &backends());
}

#[test]
fn every_hash_leads_to_the_server_of_haproxys() {
    let Some(haproxy) = haproxy() else { return };
    // Before 3.0 there is no function `none`.
    let is_there =
        |it: &Backend| needs::version(&haproxy) >= (3, 0) || !it.balance.contains(" none");
    for mut backends in [hashes(), by_port(&haproxy)] {
        backends.retain(is_there);
        both_choose_alike(&haproxy, &backends);
    }
}

/// Records HAProxy's choices for the unit tests.
#[test]
#[ignore = "writes src/balance/tests/source.txt"]
fn record_haproxys_choices() {
    let haproxy = haproxy().expect("HAProxy and root");
    let backends = backends();
    let setup = Setup::new(&backends);
    let mut text =
        "# Written by `cargo test --test it -- --ignored record_haproxys_choices`.\n".to_owned();
    let choices = setup.choices(&haproxy, &backends, RECORDED);
    for (choices, backend) in choices.iter().zip(&backends) {
        if let Some((_, hash_type)) = backend.balance.split_once("hash-type ") {
            let name = hash_type.replace(' ', "_");
            let _ = writeln!(text, "{name} {} {choices}", backend.servers);
        }
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/balance/tests/source.txt");
    fs::write(file, text).expect("written");
}

/// The same for `hash`.
#[test]
#[ignore = "writes src/balance/tests/hash.txt"]
fn record_haproxys_hashes() {
    let haproxy = haproxy().expect("HAProxy and root");
    let backends = hashes();
    let mut text =
        "# Written by `cargo test --test it -- --ignored record_haproxys_hashes`.\n".to_owned();
    let choices = Setup::new(&backends).choices(&haproxy, &backends, RECORDED_HASH);
    for (choices, backend) in choices.iter().zip(&backends) {
        let name = backend.recorded.as_deref().expect("a name");
        let _ = writeln!(text, "{name} {choices}");
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/balance/tests/hash.txt");
    fs::write(file, text).expect("written");
}
