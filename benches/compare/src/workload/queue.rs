//! Clients that wait in a proxy's queue, because its servers have as many sessions as they may have.

use crate::load::{Args, Outcome, all, begin, connect};
use crate::wire::Request;
use anyhow::{Context, Result};
use std::cell::RefCell;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Opens the connections, one after the other, of which the first ones get a server; with a size each sends a request
/// of so many bytes at once, otherwise it is silent. When the runner says so, each must be served, and ends, so that
/// the next one gets its turn.
pub async fn run(args: &Args) -> Result<Outcome> {
    let message = vec![b'x'; args.size as usize];
    let mut streams = Vec::new();
    for _ in 0..args.connections {
        let stream = if message.is_empty() {
            TcpStream::connect(args.target).await?
        } else {
            let mut stream = connect(args.target, Request::Echo).await?;
            stream.write_all(&message).await?;
            stream
        };
        streams.push(RefCell::new(Some(stream)));
    }
    let begun = begin()?;
    let size = message.len();
    let served = all(streams.len(), |index| {
        let stream = streams[index].take();
        async move {
            let mut stream = stream.context("each stream has one client")?;
            let mut answer = vec![0; size];
            if size == 0 {
                stream.write_all(&Request::Echo.header()).await?;
                stream.write_all(b"x").await?;
                answer.push(0);
            }
            stream.read_exact(&mut answer).await?;
            Ok(answer.iter().all(|byte| *byte == b'x'))
        }
    })
    .await?;
    Ok(Outcome {
        operations: served.len() as f64,
        seconds: begun.elapsed().as_secs_f64(),
        broken: served.iter().filter(|whole| !**whole).count() as u64,
        ..Outcome::default()
    })
}
