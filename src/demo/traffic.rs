//! The demo's clients: short connections at a constant rate, and some long ones.
//!
//! Invariant: at most [`CLIENTS_MAX`] short connections are open. When that many are open, new ones are not
//! made and count as failed, so that they cannot pile up at a service that does not answer.

use super::addresses::{Kind, Service};
use super::{Tally, http, postgres};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Short connections per second.
pub const RATE: u32 = 50;
/// Long connections at a time.
pub const LONG_MAX: usize = 12;
/// Short connections open at a time.
const CLIENTS_MAX: usize = 256;
/// How long a client waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two exchanges of a long connection, and before a new one after it was cut.
const EXCHANGE_EVERY: Duration = Duration::from_millis(500);
/// Exchanges of a long connection: 5 to 40 seconds.
const EXCHANGES: std::ops::Range<u32> = 10..80;
/// The text that is sent to the echo service.
const WORDS: &[u8] = b"GET /api/v1/watch/pods\n";

/// Runs all clients, once the frontends listen.
pub(super) async fn run(services: &[Service], tally: &Arc<Tally>) {
    wait_for(services).await;
    let mut long = JoinSet::new();
    let watched: Vec<Service> = services
        .iter()
        .filter(|service| service.kind != Kind::Page)
        .copied()
        .collect();
    for service in watched.iter().cycle().take(LONG_MAX) {
        long.spawn_local(keep_open(*service, Arc::clone(tally)));
    }
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut short = JoinSet::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let service = services[fastrand::usize(..services.len())];
                if short.len() < CLIENTS_MAX {
                    short.spawn_local(visit(service, Arc::clone(tally)));
                } else {
                    tally.note(false);
                }
            }
            Some(_) = short.join_next() => {}
        }
    }
}

/// Waits until every frontend accepts connections.
async fn wait_for(services: &[Service]) {
    for service in services {
        while TcpStream::connect(service.frontend()).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// One short connection.
async fn visit(service: Service, tally: Arc<Tally>) {
    let address = service.frontend();
    let once = async {
        match service.kind {
            Kind::Page => http::fetch(address).await,
            Kind::Postgres => {
                let mut client = postgres::Client::connect(address).await?;
                client.ask().await?;
                client.leave().await.map(|()| true)
            }
            Kind::Echo => {
                let mut stream = TcpStream::connect(address).await?;
                echo(&mut stream).await
            }
        }
    };
    let answered = matches!(timeout(TIMEOUT, once).await, Ok(Ok(true)));
    tally.note(answered);
}

/// Keeps one long connection open: a new one follows each.
async fn keep_open(service: Service, tally: Arc<Tally>) {
    loop {
        if watch(service).await.is_err() {
            tally.cut.fetch_add(1, Relaxed);
            sleep(EXCHANGE_EVERY).await;
        }
    }
}

/// A long connection, from start to end.
async fn watch(service: Service) -> io::Result<()> {
    let exchanges = fastrand::u32(EXCHANGES);
    let address = service.frontend();
    if service.kind == Kind::Postgres {
        let mut client = postgres::Client::connect(address).await?;
        for _ in 0..exchanges {
            client.ask().await?;
            sleep(EXCHANGE_EVERY).await;
        }
        return client.leave().await;
    }
    watch_echo(address, exchanges).await
}

async fn watch_echo(address: SocketAddr, exchanges: u32) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    for _ in 0..exchanges {
        if !echo(&mut stream).await? {
            return Err(io::ErrorKind::InvalidData.into());
        }
        sleep(EXCHANGE_EVERY).await;
    }
    Ok(())
}

/// Sends a text; whether the same came back.
async fn echo(stream: &mut TcpStream) -> io::Result<bool> {
    stream.write_all(WORDS).await?;
    let mut back = [0; WORDS.len()];
    let deadline = Instant::now() + TIMEOUT;
    tokio::time::timeout_at(deadline, stream.read_exact(&mut back)).await??;
    Ok(back == WORDS)
}
