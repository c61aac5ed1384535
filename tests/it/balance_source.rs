//! `balance source`, `static-rr` and `first` beside HAProxy: both read the same file, and the same clients get the same
//! servers.

#[path = "../../src/balance/tests/clients.rs"]
mod clients;

use crate::harness::client::read_to_end;
use crate::harness::eventually::eventually_true;
use crate::harness::needs;
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::process::Process;
use crate::harness::rlb::{PROGRAM, STOP_WITHIN};
use clients::client;
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Clients of each backend; of those that are recorded.
const CLIENTS: u32 = 100;
const RECORDED: u32 = 10_000;
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

/// The statements of a backend, and its name in the recorded file.
struct Backend {
    balance: String,
    servers: &'static str,
}

fn backends() -> Vec<Backend> {
    let source = HASH_TYPES.iter().flat_map(|hash_type| {
        SERVERS.iter().map(move |servers| Backend {
            balance: format!("source\n  hash-type {hash_type}"),
            servers,
        })
    });
    let plain = ["static-rr", "first"].iter().flat_map(|balance| {
        SERVERS.iter().map(|servers| Backend {
            balance: (*balance).to_owned(),
            servers,
        })
    });
    source.chain(plain).collect()
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
                .map(|word| Peer::start(Behaviour::Says(word)))
                .collect()
        });
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(PROGRAM, folder.path().join("haproxy")).expect("a link");
        // One thread: with more, HAProxy's turns are not in order.
        let mut text = "global\n  nbthread 1\n\
             defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1m\n  timeout server 1m\n"
            .to_owned();
        for (port, backend) in (FIRST_PORT..).zip(backends) {
            let balance = &backend.balance;
            let _ = writeln!(
                text,
                "listen b{port}\n  bind 127.0.0.1:{port}\n  bind [::1]:{port}\n  balance {balance}"
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
                    "  server s{id} {address} id {id} weight {weight}{backup}{down}"
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
            let last = FIRST_PORT + u16::try_from(backends.len()).expect("few") - 1;
            eventually_true(STOP_WITHIN, "it listens", || {
                TcpStream::connect((Ipv4Addr::LOCALHOST, last)).is_ok()
            });
            std::thread::scope(|scope| {
                let of = |port| {
                    (0..clients)
                        .map(|number| chosen(client(number), port))
                        .collect()
                };
                // A thread stays in the namespace of the one that starts it.
                let ports = (FIRST_PORT..).zip(backends).map(|(port, _)| port);
                let threads: Vec<_> = ports.map(|port| scope.spawn(move || of(port))).collect();
                let choices = threads.into_iter().map(|it| it.join().expect("it ends"));
                choices.collect()
            })
        });
        process.signal(Signal::SIGTERM);
        process.wait(STOP_WITHIN);
        choices
    }
}

/// What the server says that a client gets.
fn chosen(client: IpAddr, port: u16) -> String {
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
    let (said, _) = read_to_end(&mut TcpStream::from(socket));
    String::from_utf8_lossy(&said).into_owned()
}

/// HAProxy, if it is installed, and root, who may make a namespace.
fn haproxy() -> Option<PathBuf> {
    if needs::root() {
        needs::haproxy()
    } else {
        None
    }
}

#[test]
fn every_client_gets_the_server_of_haproxys() {
    let Some(haproxy) = haproxy() else { return };
    let backends = backends();
    let setup = Setup::new(&backends);
    let theirs = setup.choices(&haproxy, &backends, CLIENTS);
    let ours = setup.choices(&setup.folder.path().join("haproxy"), &backends, CLIENTS);
    for ((theirs, ours), backend) in theirs.iter().zip(&ours).zip(&backends) {
        assert_eq!(ours, theirs, "{} {}", backend.balance, backend.servers);
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
