//! A measurement, which is not run with the others: thousands of sessions of every kind change process, and every
//! byte is checked. Half of them move bulk in both directions; the others talk, are half-closed, have a client that
//! does not read, or are idle.
//!
//! `cargo test --release --test it -- --ignored --nocapture upgrade_scale`; `RLB_SESSIONS` is their number.

use crate::harness::client::TIMEOUT;
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, pace_until};
use crate::harness::ports;
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use crate::harness::runtime::{Fixture, ask};
use crate::upgrade::{Next, upgrade};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// A message of a session that moves bulk.
const LARGE: usize = 64 * 1024;
/// Pause between two of them.
const LARGE_EVERY: Duration = Duration::from_secs(2);
/// A message of a session that talks.
const SMALL: usize = 64;
/// Pause between two of them.
const SMALL_EVERY: Duration = Duration::from_millis(100);
/// Large messages to a client that does not read.
const STALLED: u64 = 16;
/// How long everything runs before and after the upgrade.
const AROUND: Duration = Duration::from_secs(3);

/// What a session does, by its number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bulk,
    Talk,
    HalfClosed,
    Stalled,
    Idle,
}

impl Kind {
    fn of(number: u32) -> Self {
        match number % 10 {
            0..=4 => Self::Bulk,
            5 | 6 => Self::Talk,
            7 => Self::HalfClosed,
            8 => Self::Stalled,
            _ => Self::Idle,
        }
    }
}

/// Clients that may be ahead of the server.
const QUEUED: u64 = 500;

/// What both ends of all sessions share.
struct Shared {
    begun: Instant,
    /// Sessions that the server has accepted.
    accepted: AtomicU64,
    stop: AtomicBool,
    /// Messages to and from the server of each session.
    counts: Vec<[AtomicU64; 2]>,
    /// When a message was sent, and how long it took.
    times: Mutex<Vec<(Duration, Duration)>>,
}

impl Shared {
    fn note(&self, sent: Duration) {
        let took = self.begun.elapsed().saturating_sub(sent);
        self.times.lock().expect("no panic").push((sent, took));
    }

    /// The median, the 99th percentile and the maximum of those that were sent in this time.
    fn latency(&self, from: Duration, to: Duration) -> String {
        let times = self.times.lock().expect("no panic");
        let within = times.iter().filter(|(sent, _)| (from..to).contains(sent));
        let mut took: Vec<Duration> = within.map(|(_, took)| *took).collect();
        took.sort_unstable();
        let at = |percent: usize| took.get((took.len().max(1) - 1) * percent / 100);
        format!(
            "{} messages: p50 {:?}, p99 {:?}, max {:?}",
            took.len(),
            at(50),
            at(99),
            at(100)
        )
    }
}

/// Message `number` of a stream: its number and the time, then bytes that depend on their place.
fn message(number: u64, length: usize, begun: Instant) -> Vec<u8> {
    let micros = u64::try_from(begun.elapsed().as_micros()).expect("short");
    let mut bytes = template(length).to_vec();
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..16].copy_from_slice(&micros.to_le_bytes());
    bytes
}

/// The bytes of a message.
fn template(length: usize) -> &'static [u8] {
    static ALL: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let byte = |place: u64| place.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()[5];
        (0..).take(LARGE).map(byte).collect()
    });
    &ALL[..length]
}

/// Reads message `number`: when it was sent; `None` at the end of the stream.
async fn read(
    stream: &mut (impl AsyncReadExt + Unpin),
    number: u64,
    wanted: &[u8],
) -> Option<Duration> {
    let mut bytes = vec![0; wanted.len()];
    let first = stream.read(&mut bytes).await.expect("a byte or the end");
    if first == 0 {
        return None;
    }
    stream.read_exact(&mut bytes[first..]).await.expect("whole");
    let value = |from: usize| u64::from_le_bytes(bytes[from..from + 8].try_into().expect("eight"));
    assert_eq!(value(0), number, "the order of messages");
    assert!(bytes[16..] == wanted[16..], "wrong bytes in {number}");
    Some(Duration::from_micros(value(8)))
}

/// Reads large messages to the end: how many.
async fn read_all(mut stream: impl AsyncReadExt + Unpin, shared: &Shared, timed: bool) -> u64 {
    let wanted = template(LARGE);
    for number in 0.. {
        match read(&mut stream, number, wanted).await {
            Some(sent) if timed => shared.note(sent),
            Some(_) => {}
            None => return number,
        }
    }
    0
}

/// Writes large messages until all stop: how many. The pauses are the pace of the load.
async fn write_until_stop(
    mut stream: impl AsyncWriteExt + Unpin,
    shared: &Shared,
    index: u32,
) -> u64 {
    let mut number = 0;
    // Not all at once.
    sleep(LARGE_EVERY * (index % 997) / 997).await;
    while !shared.stop.load(SeqCst) {
        let bytes = message(number, LARGE, shared.begun);
        stream.write_all(&bytes).await.expect("sent");
        number += 1;
        sleep(LARGE_EVERY).await;
    }
    stream.shutdown().await.expect("ended");
    number
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let index = stream.read_u32().await.expect("a number");
    let [received, sent] = &shared.counts[index as usize];
    match Kind::of(index) {
        Kind::Bulk => {
            let (reader, writer) = stream.into_split();
            let (read, written) = tokio::join!(
                read_all(reader, &shared, true),
                write_until_stop(writer, &shared, index)
            );
            received.store(read, SeqCst);
            sent.store(written, SeqCst);
        }
        Kind::HalfClosed => {
            assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0);
            sent.store(write_until_stop(stream, &shared, index).await, SeqCst);
        }
        Kind::Stalled => {
            for number in 0..STALLED {
                let bytes = message(number, LARGE, shared.begun);
                stream.write_all(&bytes).await.expect("sent");
            }
            sent.store(STALLED, SeqCst);
        }
        Kind::Talk | Kind::Idle => {
            let mut buffer = vec![0; SMALL];
            while let Ok(count) = stream.read(&mut buffer).await {
                if count == 0 || stream.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn talk(mut stream: TcpStream, shared: &Shared, index: u32, times: Option<u64>) {
    let wanted = template(SMALL);
    for number in 0..times.unwrap_or(u64::MAX) {
        if times.is_none() && shared.stop.load(SeqCst) {
            return;
        }
        let bytes = message(number, SMALL, shared.begun);
        stream.write_all(&bytes).await.expect("sent");
        let sent = read(&mut stream, number, wanted).await;
        shared.note(sent.expect("answered"));
        sleep(SMALL_EVERY + SMALL_EVERY * (index % 7) / 7).await;
    }
}

async fn wait_for_stop(shared: &Shared) {
    while !shared.stop.load(SeqCst) {
        sleep(SMALL_EVERY).await;
    }
}

async fn use_session(mut stream: TcpStream, shared: Arc<Shared>, index: u32) {
    let counts = || {
        shared.counts[index as usize]
            .each_ref()
            .map(|it| it.load(SeqCst))
    };
    stream.write_u32(index).await.expect("sent");
    match Kind::of(index) {
        Kind::Bulk => {
            let (reader, writer) = stream.into_split();
            let (read, written) = tokio::join!(
                read_all(reader, &shared, true),
                write_until_stop(writer, &shared, index)
            );
            // Its end comes after the last byte.
            while counts() != [written, read] {
                sleep(SMALL_EVERY).await;
            }
        }
        Kind::HalfClosed => {
            stream.shutdown().await.expect("ended");
            let read = read_all(stream, &shared, true).await;
            while counts() != [0, read] {
                sleep(SMALL_EVERY).await;
            }
        }
        Kind::Stalled => {
            wait_for_stop(&shared).await;
            assert_eq!(read_all(stream, &shared, false).await, STALLED);
        }
        Kind::Talk => talk(stream, &shared, index, None).await,
        Kind::Idle => {
            wait_for_stop(&shared).await;
            talk(stream, &shared, index, Some(1)).await;
        }
    }
}

/// The servers of all sessions, on a thread of their own.
fn start_servers(address: SocketAddr, shared: Arc<Shared>) {
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::bind(address).await.expect("free");
            let mut sessions = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                shared.accepted.fetch_add(1, SeqCst);
                sessions.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
    });
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

async fn connect_all(address: SocketAddr, shared: &Arc<Shared>) -> JoinSet<()> {
    let mut sessions = JoinSet::new();
    for index in (0..).take(shared.counts.len()) {
        let stream = TcpStream::connect(address).await.expect("connected");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        sessions.spawn(use_session(stream, Arc::clone(shared), index));
        // More than the server's queue holds would be reset by the kernel, which sends SYN cookies then.
        while u64::from(index) > shared.accepted.load(SeqCst) + QUEUED {
            tokio::task::yield_now().await;
        }
    }
    sessions
}

/// The clients of all sessions, on a thread of their own. A message follows when all are connected, and one when all
/// have ended and found every byte right.
fn start_clients(address: SocketAddr, shared: Arc<Shared>) -> Receiver<()> {
    let (done, receiver) = sync_channel(2);
    std::thread::spawn(move || {
        runtime().block_on(async {
            let mut sessions = connect_all(address, &shared).await;
            done.send(()).expect("waited for");
            let mut failed = 0;
            while let Some(ended) = sessions.join_next().await {
                failed += usize::from(ended.is_err());
            }
            assert_eq!(failed, 0, "sessions that failed");
            done.send(()).expect("waited for");
        });
    });
    receiver
}

/// As many sessions as are wanted.
fn shared() -> Arc<Shared> {
    let hard = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: hard,
        maximum: hard,
    };
    setrlimit(Resource::Nofile, raised).expect("up to the hard limit");
    let wanted = std::env::var("RLB_SESSIONS").ok();
    let count: usize = wanted.map_or(5000, |count| count.parse().expect("a number"));
    Arc::new(Shared {
        begun: Instant::now(),
        accepted: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        counts: (0..count).map(|_| Default::default()).collect(),
        times: Mutex::default(),
    })
}

/// Each session was counted once.
fn counted_once(rlb: &Rlb, sessions: u64) {
    eventually_eq(TIMEOUT, &0, || rlb.number("FRONTEND", "scur"));
    for (row, column) in [
        ("s1", "stot"),
        ("FRONTEND", "stot"),
        ("FRONTEND", "conn_tot"),
    ] {
        assert_eq!(rlb.number(row, column), sessions, "{row} {column}");
    }
}

#[test]
#[ignore = "a measurement"]
fn thousands_of_sessions_of_every_kind_change_process() {
    let shared = shared();
    let count = shared.counts.len();
    let (address, servers) = (ports::free(), ports::free());
    start_servers(servers, Arc::clone(&shared));
    let config = Config::new()
        .bind(address)
        .server_with(servers, "check = false")
        .log("stdout", "raw");
    let fixture = Fixture::new(config.stats_at(ports::free()), "admin");
    let socket = fixture.socket();
    let mut rlb = fixture.rlb;
    let clients = start_clients(address, Arc::clone(&shared));
    clients.recv().expect("connected");
    let listed = || ask(&socket, "show sess").matches(" fe=fe ").count();
    eventually_eq(TIMEOUT, &count, listed);
    pace_until(Instant::now() + AROUND);

    let before = shared.begun.elapsed();
    assert!(upgrade(&socket).status.success());
    let upgraded = Instant::now();
    let next = Next::logged(&rlb, 1);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    let gone = upgraded.elapsed();
    let after = shared.begun.elapsed();
    assert_eq!(listed(), count);
    pace_until(Instant::now() + AROUND);

    shared.stop.store(true, SeqCst);
    clients.recv().expect("every byte was right");
    let lines = || {
        let lines = rlb.process.stdout.all();
        lines.iter().filter(|it| it.contains(" fe be/s1 ")).count()
    };
    eventually_eq(TIMEOUT, &count, lines);
    counted_once(&rlb, count as u64);
    println!("{count} sessions, 0 lost; the old process was gone after {gone:?}");
    for event in ["sessions moved away", "sessions of the old process"] {
        for line in rlb.events().with(event) {
            println!("{line}");
        }
    }
    for (when, from, to) in [
        ("before", before.saturating_sub(AROUND), before),
        ("during", before, after),
        ("after", after, after + AROUND),
    ] {
        println!("{when} the upgrade: {}", shared.latency(from, to));
    }
    assert!(gone < Duration::from_secs(2), "{gone:?}");
    next.stop();
}
