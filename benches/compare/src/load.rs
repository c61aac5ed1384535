//! The load: clients in closed loops, in one thread, as the servers in `serve` are, so that two cores are enough.
//! Every byte is checked.

use crate::measure;
use crate::proxy_header;
use crate::wire::{DONE, Pattern, Request};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinSet, LocalSet};

/// Bytes written or read at once.
pub const BLOCK: usize = 64 * 1024 - 512;

/// The load's options.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Where the proxy listens
    #[arg(long)]
    pub target: SocketAddr,
    /// rate, ping, bulk, idle, queue, integrity
    #[arg(long)]
    pub kind: String,
    /// Connections at once
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// Further connections that stay silent (rate, ping)
    #[arg(long, default_value_t = 0)]
    pub idle: usize,
    /// Further downloads whose client stops reading after a megabyte (bulk)
    #[arg(long, default_value_t = 0)]
    pub stalled: usize,
    /// Bytes of a message, or of a bulk transfer, or that a client sends before it waits (queue)
    #[arg(long, default_value_t = 64)]
    pub size: u64,
    /// Operations over all connections (rate, ping)
    #[arg(long, default_value_t = 1000)]
    pub operations: u64,
    /// Direction of bulk: down, up
    #[arg(long, default_value = "down")]
    pub direction: String,
    /// Round trips a second of a ping with one connection; 0: without pauses
    #[arg(long, default_value_t = 0)]
    pub pace: u32,
    /// Bytes that each idle connection moves both ways first
    #[arg(long, default_value_t = 0)]
    pub warm: u64,
    /// Addresses that clients connect from in turn, 127.0.1.1 and those that follow; 0: one, 127.0.0.1 (rate)
    #[arg(long, default_value_t = 0)]
    pub sources: u8,
    /// Begin each connection with a PROXY header of another client, which its server must get (rate)
    #[arg(long)]
    pub announce: bool,
}

/// The result of a load.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Operations done: connections, round trips, or gigabytes.
    pub operations: f64,
    /// Seconds that they took.
    pub seconds: f64,
    /// Median latency of the operations in µs, if measured.
    pub p50: Option<f64>,
    /// The same, 99th percentile.
    pub p99: Option<f64>,
    /// Checks that failed: bytes lost, wrong or short.
    pub broken: u64,
}

/// Runs `future` and what it spawns in this thread.
pub fn local<F: Future>(future: F) -> Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(LocalSet::new().block_on(&runtime, future))
}

/// Sends `bytes` bytes.
pub async fn send(stream: &mut TcpStream, pattern: &Pattern, bytes: u64) -> Result<()> {
    let mut sent = 0;
    while sent < bytes {
        let block = &pattern.at(sent)[..BLOCK.min((bytes - sent) as usize)];
        stream.write_all(block).await?;
        sent += block.len() as u64;
    }
    Ok(())
}

/// Reads `bytes` bytes; 1 when they are wrong or too few.
pub async fn receive(stream: &mut TcpStream, pattern: &Pattern, bytes: u64) -> Result<u64> {
    let mut buffer = vec![0; BLOCK];
    let mut received = 0;
    while received < bytes {
        let most = BLOCK.min((bytes - received) as usize);
        let count = stream.read(&mut buffer[..most]).await?;
        if count == 0 || !pattern.matches(received, &buffer[..count]) {
            return Ok(1);
        }
        received += count as u64;
    }
    Ok(0)
}

/// Produces the load and prints its [`Outcome`] as JSON.
///
/// It prints "begin" when all connections are open, and starts the load when it reads a line. It keeps the
/// connections open until its standard input ends, so that the runner can measure the load alone.
pub fn run(args: &Args) -> Result<()> {
    measure::raise_nofile()?;
    local(async {
        let (outcome, held) = match args.kind.as_str() {
            "rate" => rate(args).await?,
            "ping" => ping(args).await?,
            "bulk" => bulk(args).await?,
            "idle" => idle(args).await?,
            "queue" => (crate::workload::queue::run(args).await?, Vec::new()),
            "integrity" => (
                crate::workload::integrity::run(args.target).await?,
                Vec::new(),
            ),
            other => bail!("no such load: {other}"),
        };
        println!("{}", serde_json::to_string(&outcome)?);
        std::io::stdout().flush()?;
        std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())?;
        drop(held);
        Ok(())
    })?
}

/// Tells the runner that everything is set up, and waits for its line.
pub fn begin() -> Result<Instant> {
    println!("begin");
    std::io::stdout().flush()?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(Instant::now())
}

pub async fn connect(target: SocketAddr, request: Request) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&request.header()).await?;
    Ok(stream)
}

/// A connection that has had one round trip, and so is connected to its server.
async fn established(target: SocketAddr) -> Result<TcpStream> {
    let mut stream = connect(target, Request::Echo).await?;
    stream.write_all(b"x").await?;
    stream.read_exact(&mut [0]).await?;
    Ok(stream)
}

/// Whether a byte comes back.
async fn answers(stream: &mut TcpStream) -> bool {
    let mut answer = [0];
    let sent = stream.write_all(b"x").await;
    sent.is_ok() && stream.read_exact(&mut answer).await.is_ok() && answer == *b"x"
}

/// The connections that stay open and silent.
async fn silent(args: &Args) -> Result<Vec<TcpStream>> {
    let mut held = Vec::new();
    for _ in 0..args.idle {
        held.push(established(args.target).await?);
    }
    Ok(held)
}

#[derive(Default)]
struct Tally {
    left: Cell<u64>,
    broken: Cell<u64>,
    times: RefCell<Vec<u32>>,
}

impl Tally {
    fn new(operations: u64) -> Rc<Self> {
        Rc::new(Self {
            left: Cell::new(operations),
            ..Self::default()
        })
    }

    /// Takes one operation, if any is left.
    fn next(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    fn time(&self, since: Instant) {
        self.times
            .borrow_mut()
            .push(since.elapsed().as_nanos().min(u128::from(u32::MAX)) as u32);
    }

    fn outcome(&self, begun: Instant) -> Outcome {
        let seconds = begun.elapsed().as_secs_f64();
        let mut times = self.times.borrow_mut();
        times.sort_unstable();
        let at = |share: f64| {
            let last = times.len().checked_sub(1)?;
            Some(f64::from(times[(last as f64 * share) as usize]) / 1000.0)
        };
        Outcome {
            operations: times.len() as f64,
            seconds,
            p50: at(0.5),
            p99: at(0.99),
            broken: self.broken.get(),
        }
    }
}

/// Runs `count` clients to their end; returns their results in no order.
pub async fn all<T: 'static, F: Future<Output = Result<T>> + 'static>(
    count: usize,
    client: impl Fn(usize) -> F,
) -> Result<Vec<T>> {
    let mut clients = JoinSet::new();
    for index in 0..count {
        clients.spawn_local(client(index));
    }
    let mut left = Vec::new();
    while let Some(result) = clients.join_next().await {
        left.push(result??);
    }
    Ok(left)
}

/// A connection from an address of this machine, or from the one that the kernel chooses.
async fn connect_from(source: Option<Ipv4Addr>, target: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(source) = source {
        socket.bind(SocketAddr::from((source, 0)))?;
    }
    Ok(socket.connect(target).await?)
}

/// The PROXY header of a client that has this number, and its request.
fn announcement(number: u64, target: SocketAddr) -> Result<Vec<u8>> {
    let SocketAddr::V4(target) = target else {
        bail!("the header is one of IPv4");
    };
    // The network of RFC 2544, which is for such loads.
    let [.., high, low] = (number as u32).to_be_bytes();
    let client = SocketAddrV4::new(Ipv4Addr::new(198, 18, high, low), 1024 + u16::from(low));
    let mut message = proxy_header::of(client, target);
    message.extend(Request::Announced(client).header());
    Ok(message)
}

/// Short connections (connect, one small exchange, close) beside silent ones.
async fn rate(args: &Args) -> Result<(Outcome, Vec<TcpStream>)> {
    let tally = Tally::new(args.operations);
    let (target, size, announce) = (args.target, args.size as usize, args.announce);
    let silent = silent(args).await?;
    let pattern = Rc::new(Pattern::new());
    let begun = begin()?;
    all(args.connections, |index| {
        let (tally, pattern) = (Rc::clone(&tally), Rc::clone(&pattern));
        let source = index
            .checked_rem(usize::from(args.sources))
            .map(|it| Ipv4Addr::new(127, 0, 1, 1 + it as u8));
        async move {
            let mut buffer = vec![0; size];
            while tally.next() {
                let since = Instant::now();
                let mut stream = connect_from(source, target).await?;
                stream.set_nodelay(true)?;
                let mut message = if announce {
                    announcement(tally.left.get(), target)?
                } else {
                    Request::Echo.header().to_vec()
                };
                message.extend_from_slice(&pattern.at(0)[..size]);
                stream.write_all(&message).await?;
                stream.read_exact(&mut buffer).await?;
                if !pattern.matches(0, &buffer) {
                    tally.broken.set(tally.broken.get() + 1);
                }
                drop(stream);
                tally.time(since);
            }
            Ok(())
        }
    })
    .await?;
    Ok((tally.outcome(begun), silent))
}

/// Ping-pong on open connections, beside silent ones.
async fn ping(args: &Args) -> Result<(Outcome, Vec<TcpStream>)> {
    let tally = Tally::new(args.operations);
    let mut silent = silent(args).await?;
    let size = args.size as usize;
    let pause = Duration::from_secs(1).checked_div(args.pace);
    ensure!(
        pause.is_none() || args.connections == 1,
        "one connection can be paced"
    );
    let mut streams = Vec::new();
    for _ in 0..args.connections {
        streams.push(RefCell::new(Some(established(args.target).await?)));
    }
    let pattern = Rc::new(Pattern::new());
    let begun = begin()?;
    let held = all(streams.len(), |index| {
        let (tally, pattern) = (Rc::clone(&tally), Rc::clone(&pattern));
        let stream = streams[index].take();
        async move {
            let mut stream = stream.context("each stream has one client")?;
            let mut buffer = vec![0; size];
            let mut offset = 0;
            let mut due = begun;
            while tally.next() {
                if let Some(pause) = pause {
                    due += pause;
                    // Finer than the runtime's timers. Nothing else runs on this thread, and nobody unparks it.
                    while Instant::now() < due {
                        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
                    }
                }
                let since = Instant::now();
                stream.write_all(&pattern.at(offset)[..size]).await?;
                stream.read_exact(&mut buffer).await?;
                if !pattern.matches(offset, &buffer) {
                    tally.broken.set(tally.broken.get() + 1);
                }
                offset += size as u64;
                tally.time(since);
            }
            Ok(stream)
        }
    })
    .await?;
    silent.extend(held);
    Ok((tally.outcome(begun), silent))
}

/// Downloads whose clients stop reading: the data under way to them stays there.
async fn stalled(args: &Args) -> Result<Vec<TcpStream>> {
    let mut begun = vec![0; 1_000_000];
    let mut held = Vec::new();
    for _ in 0..args.stalled {
        let mut stream = connect(args.target, Request::Download(u64::MAX)).await?;
        stream.read_exact(&mut begun).await?;
        held.push(stream);
    }
    Ok(held)
}

/// Bulk transfers in one direction; operations are gigabytes.
async fn bulk(args: &Args) -> Result<(Outcome, Vec<TcpStream>)> {
    let tally = Tally::new(0);
    let (target, bytes, up) = (args.target, args.size, args.direction == "up");
    let mut stalled = stalled(args).await?;
    let mut streams = Vec::new();
    for _ in 0..args.connections {
        let mut stream = connect(target, Request::Hello).await?;
        ensure!(done(&mut stream).await, "a server did not say hello");
        streams.push(RefCell::new(Some(stream)));
    }
    let pattern = Rc::new(Pattern::new());
    let begun = begin()?;
    let held = all(streams.len(), |index| {
        let (tally, pattern) = (Rc::clone(&tally), Rc::clone(&pattern));
        let stream = streams[index].take();
        async move {
            let mut stream = stream.context("each stream has one client")?;
            let broken = if up {
                stream.write_all(&Request::Upload(bytes).header()).await?;
                send(&mut stream, &pattern, bytes).await?;
                !done(&mut stream).await
            } else {
                stream.write_all(&Request::Download(bytes).header()).await?;
                receive(&mut stream, &pattern, bytes).await? != 0
            };
            tally.broken.set(tally.broken.get() + u64::from(broken));
            Ok(stream)
        }
    })
    .await?;
    let operations = bytes as f64 * args.connections as f64 / 1e9;
    let outcome = Outcome {
        operations,
        ..tally.outcome(begun)
    };
    stalled.extend(held);
    Ok((outcome, stalled))
}

/// Whether the server says [`DONE`] next.
async fn done(stream: &mut TcpStream) -> bool {
    let mut answer = [0; DONE.len()];
    stream.read_exact(&mut answer).await.is_ok() && answer == *DONE
}

/// Opens connections, moves some bytes on each, and holds them until the runner says so; then each must answer
/// once more.
async fn idle(args: &Args) -> Result<(Outcome, Vec<TcpStream>)> {
    let pattern = Pattern::new();
    let mut streams = Vec::new();
    let mut broken = 0;
    for _ in 0..args.connections {
        let mut stream = connect(args.target, Request::Echo).await?;
        let mut moved = 0;
        // At least one byte, so that the connection reaches its server.
        while moved < args.warm.max(1) {
            let block = &pattern.at(moved)[..BLOCK.min((args.warm.max(1) - moved) as usize)];
            let (mut from, mut to) = stream.split();
            let mut buffer = vec![0; block.len()];
            let (sent, received) = tokio::join!(to.write_all(block), from.read_exact(&mut buffer));
            sent?;
            received?;
            broken += u64::from(!pattern.matches(moved, &buffer));
            moved += block.len() as u64;
        }
        streams.push(stream);
    }
    // Long enough for memory that is freed late.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = begin()?;
    // The connections must still be open: one that an idle timeout had closed would have taken no memory.
    for stream in &mut streams {
        broken += u64::from(!answers(stream).await);
    }
    let outcome = Outcome {
        operations: streams.len() as f64,
        seconds: begun.elapsed().as_secs_f64(),
        broken,
        ..Outcome::default()
    };
    Ok((outcome, streams))
}
