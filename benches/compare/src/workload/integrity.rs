//! Whether all bytes arrive unchanged: half-closes and resets by either side, slow readers, writes of every
//! size, both directions at once.

use crate::load::{Outcome, begin, connect, receive, send};
use crate::wire::{DONE, Pattern, Request};
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long one check may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Number of checks, several at once so that bytes of another connection are found too.
const CHECKS: usize = 40;
const AT_ONCE: usize = 5;
/// Most writes of one check.
const WRITES_MAX: u64 = 5_000;
/// Bytes before an end that the server or a reset makes. These checks run one after the other, because the
/// server counts the ends.
const ENDINGS: [u64; 4] = [1, 20_000, 300_000, 3_000_000];

/// Runs all checks; `broken` counts the failed ones.
pub async fn run(target: SocketAddr) -> Result<Outcome> {
    let begun = begin()?;
    let mut lanes = JoinSet::new();
    for lane in 0..AT_ONCE {
        lanes.spawn_local(async move {
            let mut broken = 0;
            for number in (lane..CHECKS).step_by(AT_ONCE) {
                broken += u64::from(!check(target, number).await);
            }
            broken
        });
    }
    lanes.spawn_local(async move {
        let mut broken = 0;
        for size in ENDINGS {
            broken += u64::from(!ends(parting(target, size)).await);
            broken += u64::from(!ends(reset_by_server(target, size)).await);
            broken += u64::from(!ends(reset_by_client(target, size)).await);
        }
        broken
    });
    Ok(Outcome {
        operations: (CHECKS + 3 * ENDINGS.len()) as f64,
        seconds: begun.elapsed().as_secs_f64(),
        broken: lanes.join_all().await.iter().sum(),
        ..Outcome::default()
    })
}

/// Whether the bytes of one check come back unchanged, followed by the end.
async fn check(target: SocketAddr, number: usize) -> bool {
    let size = [1, 100, 5_000, 65_536, 300_000, 3_000_000][number % 6] + number as u64;
    let step = [1, 7, 1460, 16_384, 65_521][number % 5];
    let slow = number % 8 == 7;
    // A few thousand tiny writes are enough.
    let size = size.min(step as u64 * WRITES_MAX);
    ends(echo(target, size, step, slow)).await
}

/// Whether the check succeeded in time.
async fn ends(check: impl Future<Output = Result<bool>>) -> bool {
    matches!(timeout(TIMEOUT, check).await, Ok(Ok(true)))
}

/// The server sends `size` bytes and shuts down its sending half; the client's bytes and end must still arrive.
async fn parting(target: SocketAddr, size: u64) -> Result<bool> {
    let before = ended(target).await?;
    let pattern = Pattern::new();
    let mut stream = connect(target, Request::Leave(size)).await?;
    let broken = receive(&mut stream, &pattern, size).await?;
    let end = stream.read(&mut [0]).await?;
    send(&mut stream, &pattern, size).await?;
    stream.shutdown().await?;
    Ok(broken == 0 && end == 0 && has_ended(target, before).await?)
}

/// The server resets when its bytes have arrived: they must be complete, and the client must see a reset or an
/// end.
async fn reset_by_server(target: SocketAddr, size: u64) -> Result<bool> {
    let mut stream = connect(target, Request::Reset(size)).await?;
    let broken = receive(&mut stream, &Pattern::new(), size).await?;
    stream.write_all(b"x").await?;
    let end = stream.read(&mut [0]).await;
    Ok(broken == 0 && !matches!(end, Ok(1)))
}

/// The same with a reset by the client.
async fn reset_by_client(target: SocketAddr, size: u64) -> Result<bool> {
    let before = ended(target).await?;
    let mut stream = connect(target, Request::Stay(size)).await?;
    send(&mut stream, &Pattern::new(), size).await?;
    let mut answer = [0; DONE.len()];
    stream.read_exact(&mut answer).await?;
    stream.set_zero_linger()?;
    drop(stream);
    Ok(answer == *DONE && has_ended(target, before).await?)
}

/// How many correct ends the servers have seen.
async fn ended(target: SocketAddr) -> Result<u64> {
    let mut answer = [0; 8];
    let mut stream = connect(target, Request::Ended).await?;
    stream.read_exact(&mut answer).await?;
    Ok(u64::from_le_bytes(answer))
}

/// Waits for one more, as long as a check may take.
async fn has_ended(target: SocketAddr, before: u64) -> Result<bool> {
    while ended(target).await? == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(true)
}

/// Sends `size` bytes in writes of `step`, shuts down the sending half, and expects all bytes back, then the
/// end.
async fn echo(target: SocketAddr, size: u64, step: usize, slow: bool) -> Result<bool> {
    let stream = connect(target, Request::Echo).await?;
    let (mut from, mut to) = stream.into_split();
    let writer = async move {
        let pattern = Pattern::new();
        let mut sent = 0;
        while sent < size {
            let block = &pattern.at(sent)[..step.min((size - sent) as usize)];
            to.write_all(block).await?;
            sent += block.len() as u64;
        }
        to.shutdown().await.context("shutdown")
    };
    let reader = async move {
        let pattern = Pattern::new();
        let mut buffer = vec![0; 60_000];
        let mut received = 0;
        loop {
            if slow && received < size {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let count = from.read(&mut buffer).await?;
            if count == 0 {
                return Ok::<bool, anyhow::Error>(received == size);
            }
            if !pattern.matches(received, &buffer[..count]) {
                return Ok(false);
            }
            received += count as u64;
        }
    };
    let (written, whole) = tokio::join!(writer, reader);
    written?;
    whole
}
