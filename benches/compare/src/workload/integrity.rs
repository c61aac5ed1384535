//! Whether bytes survive: half-closes, slow readers, writes of every size, both directions at once.

use crate::load::{Outcome, begin, connect};
use crate::wire::{Pattern, Wish};
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// How long one check may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs all checks; `broken` counts the ones that failed.
pub async fn run(target: SocketAddr) -> Result<Outcome> {
    let begun = begin()?;
    let mut done = 0;
    let mut broken = 0;
    for round in 0..40u64 {
        let size = [1, 100, 5_000, 65_536, 300_000, 3_000_000][round as usize % 6] + round;
        let step = [1, 7, 1460, 16_384, 65_521][round as usize % 5];
        let slow = round % 8 == 7;
        // One byte at a time is enough for a few kilobytes.
        let size = if step == 1 { size.min(3_000) } else { size };
        let whole = timeout(PATIENCE, echo(target, size, step, slow)).await;
        done += 1;
        broken += u64::from(!matches!(whole, Ok(Ok(true))));
    }
    Ok(Outcome {
        operations: f64::from(done),
        seconds: begun.elapsed().as_secs_f64(),
        broken,
        ..Outcome::default()
    })
}

/// Sends `size` bytes in writes of `step`, ends its half, and wants all of them back, then the end.
async fn echo(target: SocketAddr, size: u64, step: usize, slow: bool) -> Result<bool> {
    let stream = connect(target, Wish::Echo).await?;
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
