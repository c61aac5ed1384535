//! An HTTP/1.1 page that names its node, and the client that fetches it.

use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest request head that is read.
const HEAD_MAX: u64 = 8192;
/// Longest answer that the client reads.
const ANSWER_MAX: u64 = 65_536;
/// End of a request head.
const END: &[u8] = b"\r\n\r\n";

/// Answers one request and closes.
pub(super) async fn serve(node: &str, service: &str, mut stream: TcpStream) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut read = read.take(HEAD_MAX);
    let mut head = Vec::new();
    while !head.ends_with(END) {
        if read.read_buf(&mut head).await? == 0 {
            // A health check, or a request without an end.
            return Ok(());
        }
    }
    let body = format!(
        "<!doctype html><title>{service} on {node}</title>\n\
         <h1>{service}</h1>\n<p>This is {node}. Load the page again for the next one.</p>\n"
    );
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    write.write_all(answer.as_bytes()).await?;
    write.shutdown().await
}

/// Fetches the page; whether it came whole.
pub(super) async fn fetch(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let request = b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"</p>\n"))
}
