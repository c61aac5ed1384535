//! The faults of a cluster, each a function over the balancer under test, so that rlb's test and the comparison
//! with HAProxy run the same.

use super::balancer::{BACKENDS, Balancer, Kind, csv, frontend, wait_states};
use super::load::{Load, Outcome, Report};
use super::services::{APP, CONSOLE, Nginx, nginx, scripted};
use crate::harness::client::{End, connect, end_of};
use crate::harness::eventually::{eventually_true, pace_until};
use crate::harness::netns::{Lab, Netns};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::STOP_WITHIN;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// New connections a second.
const RATE: u32 = 50;

/// How long the load runs before a fault: long enough for the first checks.
const BEFORE: Duration = Duration::from_secs(4);

/// How long load runs after a fault.
pub(crate) const AFTER: Duration = Duration::from_secs(17);

/// Longer than any balancer lets a client wait.
const TIMEOUT: Duration = Duration::from_secs(130);

/// A laboratory with nginx on port 80 of all nodes.
pub(super) fn three_servers() -> (Lab, Vec<Option<Nginx>>) {
    let mut lab = Lab::new();
    for node in 0..3 {
        lab.power_on(node);
    }
    let services = (0..3).map(|node| Some(nginx(&lab, node, APP))).collect();
    (lab, services)
}

/// [`three_servers`] behind a balancer that has all of them UP.
fn three_nodes(kind: Kind) -> (Lab, Balancer, Vec<Option<Nginx>>) {
    let (lab, services) = three_servers();
    let balancer = kind.start(&lab);
    wait_states(&lab, BACKENDS[0].0, ["UP"; 3]);
    (lab, balancer, services)
}

/// A node's service stops: its port refuses from then on.
pub(crate) fn service_stops(kind: Kind) -> Report {
    let (lab, mut balancer, mut services) = three_nodes(kind);
    let load = Load::start(&lab.client, frontend(APP), kind.clients(RATE, TIMEOUT));
    pace_until(Instant::now() + BEFORE);
    let fault = Instant::now();
    services[0].take().expect("running").stop();
    pace_until(fault + AFTER);
    let outcomes = load.finish();
    balancer.lives();
    Report::of(&outcomes, fault)
}

/// A stop under load.
pub(crate) struct Stopped {
    /// The clients, from the signal on.
    pub(crate) report: Report,
    /// The same, from the first refused connection on.
    pub(crate) refused: Report,
    /// The answer to a client that had sent half its request before the stop.
    pub(crate) held: String,
    /// The exit code.
    pub(crate) code: Option<i32>,
}

/// rlb is stopped under load, while a session lasts two more seconds.
pub(crate) fn stopped() -> Stopped {
    let (lab, balancer, _services) = three_nodes(Kind::Rlb);
    let Balancer::Rlb(mut rlb) = balancer else {
        unreachable!("asked for above");
    };
    let load = Load::start(&lab.client, frontend(APP), Kind::Rlb.clients(RATE, TIMEOUT));
    let mut stream = lab.client.enter(|| connect(frontend(APP)));
    stream.write_all(b"GET / HTTP/1.0\r\n").expect("sent");
    pace_until(Instant::now() + BEFORE);
    // No service manager keeps the sockets open: messages on the notify socket are dropped.
    assert!(!rlb.notified("STOPPING=1"));
    let fault = Instant::now();
    rlb.signal(Signal::SIGTERM);
    // The process handles the signal a moment later; clients before that are served.
    lab.client.enter(|| {
        eventually_true(STOP_WITHIN, "new connections are refused", || {
            TcpStream::connect(frontend(APP)).is_err()
        });
    });
    let refused = Instant::now();
    pace_until(fault + Duration::from_secs(2));
    let mut held = String::new();
    stream.write_all(b"\r\n").expect("sent after the stop");
    stream.read_to_string(&mut held).expect("answered");
    drop(stream);
    let code = rlb.process.wait(STOP_WITHIN).code();
    let outcomes = load.finish();
    let [report, refused] = [fault, refused].map(|from| Report::of(&outcomes, from));
    Stopped {
        report,
        refused,
        held,
        code,
    }
}

/// A node is switched off, and on again later.
pub(crate) struct PowerOff {
    /// The clients while it is off.
    pub(crate) off: Report,
    /// The clients after its return.
    pub(crate) on: Report,
    /// From the first answer of the node's service to its first served client.
    pub(crate) serves_again_after: Duration,
    /// Most clients that have waited for a server at once.
    pub(crate) most_waiting: u64,
}

/// A node is switched off: packets are lost, nothing answers. When the last affected client was served or has
/// given up, the node returns under a new load.
pub(crate) fn power_off(kind: Kind) -> PowerOff {
    let (mut lab, mut balancer, mut services) = three_nodes(kind);
    let load = Load::start(&lab.client, frontend(APP), kind.clients(RATE, TIMEOUT));
    pace_until(Instant::now() + BEFORE);
    let fault = Instant::now();
    lab.power_off(0);
    drop(services[0].take());
    pace_until(fault + AFTER);
    let off = Report::of(&load.finish(), fault);

    let load = Load::start(&lab.client, frontend(APP), kind.clients(RATE, TIMEOUT));
    lab.power_on(0);
    services[0] = Some(nginx(&lab, 0, APP));
    let returned = Instant::now();
    wait_states(&lab, BACKENDS[0].0, ["UP"; 3]);
    let served = |outcome: &Outcome| {
        outcome.begun > returned
            && outcome
                .answer
                .as_ref()
                .is_ok_and(|it| it.contains("node01"))
    };
    eventually_true(Duration::from_secs(30), "the node serves again", || {
        load.so_far().iter().any(served)
    });
    pace_until(Instant::now() + Duration::from_secs(2));
    let outcomes = load.finish();
    let most_waiting = csv(&lab).row(BACKENDS[0].0, "BACKEND").number("qmax");
    balancer.lives();
    let first = outcomes
        .iter()
        .find(|outcome| served(outcome))
        .expect("seen above");
    PowerOff {
        off,
        on: Report::of(&outcomes, returned),
        serves_again_after: first.begun - returned,
        most_waiting,
    }
}

/// The behaviour of a client whose node is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pinned {
    /// It reads bytes that the server sends all the time.
    Reading,
    /// Both sides are silent.
    Idle,
    /// It sends all the time and reads no answer.
    Sending,
}

impl Pinned {
    /// All three kinds.
    pub(crate) const ALL: [Self; 3] = [Self::Reading, Self::Idle, Self::Sending];

    fn word(self) -> u8 {
        match self {
            Self::Reading => b'r',
            Self::Idle => b'i',
            Self::Sending => b's',
        }
    }
}

/// Time between two messages of those who send all the time.
const BEAT: Duration = Duration::from_millis(100);

/// Greets with the node's number, then does what the client's first byte asks for.
fn pinned_server(node: usize) -> Behaviour {
    Behaviour::script(move |mut stream| {
        let number = [b'1' + u8::try_from(node).expect("three nodes")];
        let mut word = [0];
        if stream.write_all(&number).is_err() || stream.read_exact(&mut word).is_err() {
            return;
        }
        if word[0] == b'r' {
            while stream.write_all(b"beat").is_ok() {
                pace_until(Instant::now() + BEAT);
            }
        } else {
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        }
    })
}

/// A client of one node; its thread returns how and when its connection ended.
struct PinnedClient {
    kind: Pinned,
    stream: TcpStream,
    thread: JoinHandle<(Instant, End)>,
}

impl PinnedClient {
    /// Connects until node01 has answered.
    fn at_node01(from: &Netns, kind: Pinned, timeout: Duration, stop: &Arc<AtomicBool>) -> Self {
        let mut stream = from.enter(|| {
            loop {
                let mut stream = TcpStream::connect(frontend(CONSOLE)).expect("served");
                let mut name = [0];
                stream.read_exact(&mut name).expect("greeted");
                if name[0] == b'1' {
                    return stream;
                }
            }
        });
        stream.write_all(&[kind.word()]).expect("sent");
        let mut theirs = stream.try_clone().expect("a descriptor");
        let stop = Arc::clone(stop);
        let thread = std::thread::spawn(move || {
            let end = match kind {
                Pinned::Sending => send_until_the_end(&mut theirs, timeout, &stop),
                Pinned::Reading | Pinned::Idle => read_until_the_end(&mut theirs, timeout),
            };
            (Instant::now(), end)
        });
        Self {
            kind,
            stream,
            thread,
        }
    }
}

fn read_until_the_end(stream: &mut TcpStream, timeout: Duration) -> End {
    stream
        .set_read_timeout(Some(timeout))
        .expect("a read timeout can be set");
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return End::Eof,
            Ok(_) => {}
            Err(error) => return end_of(&error),
        }
    }
}

fn send_until_the_end(stream: &mut TcpStream, timeout: Duration, stop: &AtomicBool) -> End {
    stream.set_nonblocking(true).expect("non-blocking");
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline && !stop.load(Ordering::Relaxed) {
        match stream.write(b"beat") {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return end_of(&error),
            _ => {}
        }
        match stream.read(&mut [0; 16]) {
            Ok(0) => return End::Eof,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return end_of(&error),
            _ => {}
        }
        pace_until(Instant::now() + BEAT);
    }
    End::Silence
}

/// A laboratory whose nodes hold clients, and three clients of node01.
fn pinned_to_node01(
    kind: Kind,
    timeout: Duration,
    stop: &Arc<AtomicBool>,
) -> (Lab, Balancer, Vec<Peer>, Vec<PinnedClient>) {
    let mut lab = Lab::new();
    let peers = (0..3)
        .map(|node| {
            lab.power_on(node);
            scripted(&lab, node, CONSOLE, pinned_server(node))
        })
        .collect();
    let balancer = kind.start(&lab);
    wait_states(&lab, BACKENDS[2].0, ["UP"; 3]);
    let clients = Pinned::ALL
        .map(|kind| PinnedClient::at_node01(&lab.client, kind, timeout, stop))
        .into_iter()
        .collect();
    pace_until(Instant::now() + Duration::from_secs(2));
    (lab, balancer, peers, clients)
}

/// How long after the power-off a client's connection ended, and how.
pub(crate) type Told = (Pinned, Duration, End);

/// Clients of a node that is switched off: when and how the connection of each kind ends.
pub(crate) fn pinned_clients(kind: Kind, timeout: Duration) -> Vec<Told> {
    let stop = Arc::new(AtomicBool::new(false));
    let (mut lab, mut balancer, mut peers, clients) = pinned_to_node01(kind, timeout, &stop);
    let fault = Instant::now();
    lab.power_off(0);
    drop(peers.remove(0));
    let told = clients
        .into_iter()
        .map(|client| {
            let (at, end) = client.thread.join().expect("a client does not panic");
            (client.kind, at - fault, end)
        })
        .collect();
    balancer.lives();
    told
}

/// A node's switch port goes down for twelve seconds; returns the kinds of client that did not survive.
pub(crate) fn split(kind: Kind) -> Vec<Pinned> {
    let timeout = Duration::from_secs(40);
    let stop = Arc::new(AtomicBool::new(false));
    let (lab, mut balancer, _peers, clients) = pinned_to_node01(kind, timeout, &stop);
    let start = Instant::now();
    lab.link(0, false);
    pace_until(start + Duration::from_secs(12));
    lab.link(0, true);
    // Retransmissions back off: give them time until after the repair.
    pace_until(start + Duration::from_secs(32));
    let dead: Vec<Pinned> = clients
        .iter()
        .filter(|client| client.thread.is_finished())
        .map(|it| it.kind)
        .collect();
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        drop(client.stream.shutdown(std::net::Shutdown::Both));
        client.thread.join().expect("a client does not panic");
    }
    balancer.lives();
    dead
}
