//! The servers behind the proxies, all in one thread.
//!
//! A connection may begin with a PROXY header; a client that has asked for its check gets no answer when the header
//! is missing or names someone else.

use crate::load::{BLOCK, local, receive, send};
use crate::measure;
use crate::proxy_header;
use crate::wire::{DONE, HEADER, Pattern, Request};
use anyhow::{Context, Result, ensure};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Serves on the ports until the process ends.
pub fn run(ports: &[u16]) -> Result<()> {
    measure::raise_nofile()?;
    let shared = Rc::new(Shared {
        pattern: Pattern::new(),
        ended: Cell::new(0),
    });
    local(async {
        for &port in ports {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
            let listener = socket.listen(4096)?;
            tokio::task::spawn_local(accept(listener, Rc::clone(&shared)));
        }
        println!("ready");
        std::future::pending::<Result<()>>().await
    })?
}

/// What all connections of the servers share.
struct Shared {
    pattern: Pattern,
    /// See [`Request::Ended`].
    ended: Cell<u64>,
}

async fn accept(listener: TcpListener, shared: Rc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Rc::clone(&shared);
        // Errors are expected: clients go away, and health checks send nothing.
        tokio::task::spawn_local(async move { serve_one(stream, &shared).await });
    }
}

async fn serve_one(mut stream: TcpStream, shared: &Shared) -> Result<()> {
    let pattern = &shared.pattern;
    stream.set_nodelay(true)?;
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await?;
    let mut announced = None;
    if proxy_header::begins(header) {
        let mut rest = vec![0; proxy_header::rest(header)];
        stream.read_exact(&mut rest).await?;
        announced = proxy_header::source(header, &rest);
        stream.read_exact(&mut header).await?;
    }
    loop {
        match Request::parse(header).context("no such request")? {
            Request::Hello => stream.write_all(DONE).await?,
            Request::Echo => return echo(&mut stream).await,
            Request::Announced(client) => {
                ensure!(announced == Some(client), "the PROXY header is another one");
                return echo(&mut stream).await;
            }
            Request::Download(bytes) => return send(&mut stream, pattern, bytes).await,
            Request::Upload(bytes) => {
                let broken = receive(&mut stream, pattern, bytes).await?;
                ensure!(broken == 0, "an upload arrived broken");
                return Ok(stream.write_all(DONE).await?);
            }
            Request::Leave(bytes) => {
                send(&mut stream, pattern, bytes).await?;
                stream.shutdown().await?;
                let broken = receive(&mut stream, pattern, bytes).await?;
                let end = stream.read(&mut [0]).await?;
                shared.count_end(broken == 0 && end == 0);
                return Ok(());
            }
            Request::Reset(bytes) => {
                send(&mut stream, pattern, bytes).await?;
                stream.read_exact(&mut [0]).await?;
                return Ok(stream.set_zero_linger()?);
            }
            Request::Stay(bytes) => {
                let broken = receive(&mut stream, pattern, bytes).await?;
                stream.write_all(DONE).await?;
                let end = stream.read(&mut [0]).await;
                shared.count_end(broken == 0 && !matches!(end, Ok(1)));
                return Ok(());
            }
            Request::Ended => stream.write_all(&shared.ended.get().to_le_bytes()).await?,
        }
        stream.read_exact(&mut header).await?;
    }
}

impl Shared {
    fn count_end(&self, good: bool) {
        self.ended.set(self.ended.get() + u64::from(good));
    }
}

/// Sends back what it receives, until the client shuts down its sending half.
async fn echo(stream: &mut TcpStream) -> Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count]).await?;
        if count == buffer.len() && count < BLOCK {
            buffer.resize(BLOCK, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Shared, serve_one};
    use crate::proxy_header;
    use crate::wire::{Pattern, Request};
    use std::cell::Cell;
    use std::net::{SocketAddr, SocketAddrV4};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Whether a server sends back a byte to one that asks for this client behind this header.
    async fn answers(header: &[u8], client: SocketAddrV4) -> bool {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let request = [header, &Request::Announced(client).header(), b"x"].concat();
        stream.write_all(&request).await.unwrap();
        stream.shutdown().await.unwrap();
        let shared = Shared {
            pattern: Pattern::new(),
            ended: Cell::new(0),
        };
        let (accepted, _) = listener.accept().await.unwrap();
        let _ = serve_one(accepted, &shared).await;
        let mut answer = Vec::new();
        // A server that refuses leaves bytes unread, which makes its end a reset.
        let _ = stream.read_to_end(&mut answer).await;
        answer == b"x"
    }

    #[test]
    fn a_server_answers_only_behind_the_right_header() {
        let client = "198.18.0.7:1031".parse().unwrap();
        let other = "198.18.0.8:1031".parse().unwrap();
        let server = "127.0.0.1:9000".parse().unwrap();
        crate::load::local(async {
            assert!(answers(&proxy_header::of(client, server), client).await);
            assert!(!answers(&proxy_header::of(other, server), client).await);
            assert!(!answers(&[], client).await);
        })
        .unwrap();
    }
}
