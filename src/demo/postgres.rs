//! A part of PostgreSQL's protocol (version 3.0, "Frontend/Backend Protocol" of its manual), sufficient for
//! `psql` to log in and query the node's name, and a client for it.
//!
//! The answer to every query is one row, `node`. Encryption is declined, as by a server without it.

use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Code of a first message that requests TLS, and of one that requests GSSAPI.
const WANTS_ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];
/// Code of a first message that requests to cancel a query.
const CANCEL: u32 = 80_877_102;
/// Longest message that is read.
const MESSAGE_MAX: u32 = 65_536;
/// Size of the length field, which counts itself.
const LENGTH: u32 = 4;
/// Object id of the type `text`.
const TEXT_OID: u32 = 25;
/// `ReadyForQuery`, idle.
const READY: [u8; 6] = [b'Z', 0, 0, 0, 5, b'I'];

/// Serves one connection.
pub(super) async fn serve(node: &str, mut stream: TcpStream) -> io::Result<()> {
    while let Some((code, _)) = first_message(&mut stream).await? {
        if WANTS_ENCRYPTION.contains(&code) {
            stream.write_all(b"N").await?;
        } else if code == CANCEL {
            return Ok(());
        } else {
            stream.write_all(&welcome()).await?;
            return answer(node, &mut stream).await;
        }
    }
    Ok(())
}

/// After the login: answers every query with a row.
async fn answer(node: &str, stream: &mut TcpStream) -> io::Result<()> {
    loop {
        let Some(kind) = read_or_end(stream.read_u8().await)? else {
            return Ok(());
        };
        let length = stream.read_u32().await?;
        body(stream, length).await?;
        match kind {
            b'Q' => stream.write_all(&row(node)).await?,
            b'S' => stream.write_all(&READY).await?,
            b'X' => return Ok(()),
            // The messages of the extended protocol are answered at the Sync that follows.
            b'P' => {
                let why = b"SERROR\0C0A000\0Mthe demo answers simple queries only\0\0";
                stream.write_all(&message(b'E', why)).await?;
            }
            _ => {}
        }
    }
}

/// Code and contents of a message without a type; `None` at the end of the stream.
async fn first_message(stream: &mut TcpStream) -> io::Result<Option<(u32, Vec<u8>)>> {
    let Some(length) = read_or_end(stream.read_u32().await)? else {
        return Ok(None);
    };
    let contents = body(stream, length).await?;
    let code = contents.first_chunk().copied().map(u32::from_be_bytes);
    code.map(|code| Some((code, contents)))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The contents after a length field.
async fn body(stream: &mut (impl AsyncRead + Unpin), length: u32) -> io::Result<Vec<u8>> {
    if !(LENGTH..=MESSAGE_MAX).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let length = usize::try_from(length - LENGTH).expect("a bounded length");
    let mut contents = vec![0; length];
    stream.read_exact(&mut contents).await?;
    Ok(contents)
}

fn read_or_end<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn message(kind: u8, contents: &[u8]) -> Vec<u8> {
    let length = u32::try_from(contents.len()).expect("a short message") + LENGTH;
    let mut bytes = vec![kind];
    bytes.extend(length.to_be_bytes());
    bytes.extend(contents);
    bytes
}

/// `AuthenticationOk`, the parameters that psql needs, `ReadyForQuery`.
fn welcome() -> Vec<u8> {
    let mut bytes = message(b'R', &[0; 4]);
    for parameter in [
        "server_version\x0015.0 (rlb demo)\0",
        "server_encoding\0UTF8\0",
        "client_encoding\0UTF8\0",
        "standard_conforming_strings\0on\0",
    ] {
        bytes.extend(message(b'S', parameter.as_bytes()));
    }
    bytes.extend(message(b'K', &[0; 8]));
    bytes.extend(READY);
    bytes
}

/// `RowDescription` of a text column `node`, one `DataRow`, `CommandComplete`, `ReadyForQuery`.
fn row(node: &str) -> Vec<u8> {
    let mut column = vec![0, 1];
    column.extend(b"node\0");
    // No table, column 0.
    column.extend([0; 6]);
    column.extend(TEXT_OID.to_be_bytes());
    // Variable size, no modifier, text format.
    column.extend((-1_i16).to_be_bytes());
    column.extend((-1_i32).to_be_bytes());
    column.extend([0; 2]);
    let mut value = vec![0, 1];
    let length = u32::try_from(node.len()).expect("a short name");
    value.extend(length.to_be_bytes());
    value.extend(node.as_bytes());
    let mut bytes = message(b'T', &column);
    bytes.extend(message(b'D', &value));
    bytes.extend(message(b'C', b"SELECT 1\0"));
    bytes.extend(READY);
    bytes
}

/// A client that is logged in.
pub(super) struct Client(TcpStream);

impl Client {
    /// Connects as psql does: requests TLS and goes on without it.
    pub(super) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        let mut ask = 8_u32.to_be_bytes().to_vec();
        ask.extend(WANTS_ENCRYPTION[0].to_be_bytes());
        stream.write_all(&ask).await?;
        if stream.read_u8().await? != b'N' {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let user = b"user\0demo\0\0";
        let length = u32::try_from(user.len()).expect("a short message") + 8;
        let mut startup = length.to_be_bytes().to_vec();
        // Version 3.0.
        startup.extend([0, 3, 0, 0]);
        startup.extend(user);
        stream.write_all(&startup).await?;
        let mut client = Self(stream);
        client.until_ready().await?;
        Ok(client)
    }

    /// Queries the node's name.
    pub(super) async fn ask(&mut self) -> io::Result<()> {
        self.0.write_all(&message(b'Q', b"select node\0")).await?;
        self.until_ready().await
    }

    /// Ends the connection with `Terminate`.
    pub(super) async fn leave(mut self) -> io::Result<()> {
        self.0.write_all(&message(b'X', b"")).await
    }

    async fn until_ready(&mut self) -> io::Result<()> {
        loop {
            let kind = self.0.read_u8().await?;
            let length = self.0.read_u32().await?;
            body(&mut self.0, length).await?;
            if kind == READY[0] {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn the_client_receives_a_node() {
        block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = async {
                let (stream, _) = listener.accept().await.unwrap();
                serve("node07", stream).await.unwrap();
            };
            let client = async {
                let mut client = Client::connect(address).await.unwrap();
                client.ask().await.unwrap();
                client.leave().await.unwrap();
            };
            tokio::join!(server, client);
        });
        let text = row("node07");
        assert!(text.windows(6).any(|part| part == b"node07"));
    }

    #[test]
    fn junk_is_an_error_and_never_read_without_a_bound() {
        block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            for junk in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x04", b"\0\0\0\0"] {
                let mut client = TcpStream::connect(address).await.unwrap();
                client.write_all(junk).await.unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                assert!(serve("node07", stream).await.is_err(), "{junk:?}");
            }
        });
    }
}
