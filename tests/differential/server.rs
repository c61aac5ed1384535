//! The servers of a script. The first line that a client sends is the order; a server answers with its name
//! and a line feed, and then does what the order says.
//!
//! | order | the server |
//! |---|---|
//! | `echo` | sends back what it receives until the client ends |
//! | `answer N` | sends N bytes and ends |
//! | `count` | reads until the client ends, and sends how many bytes it has read, in text |
//! | `fin` | ends what it sends, and reads until the client ends |
//! | `reset` | resets after one more byte |
//! | `hold` | reads until the client ends |
//! | `stay` | reads until the client ends, and keeps the connection open until the run is over |
//!
//! A client that ends without an order is answered by an end.

use crate::client::{Stream, filler};
use crate::harness::peer::{Behaviour, Peer, Refuses, Unanswering};
use crate::script::Serves;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Connections that stay open until the run is over.
pub(crate) type Kept = Arc<Mutex<Vec<Stream>>>;

/// A server.
pub(crate) enum Server {
    Tcp(Peer),
    Refuses(Refuses),
    Dark(Unanswering),
    Unix(PathBuf, Arc<AtomicUsize>),
}

impl Server {
    /// Starts it. A unix socket gets its path in `folder`.
    pub(crate) fn start(name: &str, serves: Serves, folder: &Path, kept: &Kept) -> Self {
        match serves {
            Serves::Tcp => Self::Tcp(Peer::start(behaviour(name, kept))),
            Serves::Tcp6 => {
                let any = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0));
                Self::Tcp(Peer::start_at(any, behaviour(name, kept)))
            }
            Serves::Refuses => Self::Refuses(Refuses::start()),
            Serves::Dark => Self::Dark(Unanswering::start()),
            Serves::Unix => {
                let (path, accepted) = unix(name, folder, kept);
                Self::Unix(path, accepted)
            }
        }
    }

    /// Makes it refuse.
    pub(crate) fn stopped(self) -> Self {
        match self {
            Self::Tcp(peer) => Self::Refuses(peer.stop()),
            other => other,
        }
    }

    /// Makes it serve where it refuses.
    pub(crate) fn started(self, name: &str, kept: &Kept) -> Self {
        match self {
            Self::Refuses(port) => Self::Tcp(Peer::start_on(port, behaviour(name, kept))),
            other => other,
        }
    }

    /// Connections that it has accepted.
    pub(crate) fn accepted(&self) -> usize {
        match self {
            Self::Tcp(peer) => peer.accepted(),
            Self::Unix(_, accepted) => accepted.load(Ordering::SeqCst),
            Self::Refuses(_) | Self::Dark(_) => 0,
        }
    }

    /// Its address, for the configuration.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Tcp(peer) => peer.address().to_string(),
            Self::Refuses(port) => port.address().to_string(),
            Self::Dark(port) => port.address().to_string(),
            Self::Unix(path, _) => path.display().to_string(),
        }
    }
}

fn behaviour(name: &str, kept: &Kept) -> Behaviour {
    let (name, kept) = (name.to_owned(), Arc::clone(kept));
    Behaviour::script(move |stream| serve(&name, Stream::Tcp(stream), &kept))
}

/// Serves on a unix socket for as long as the test lives, and counts connections.
fn unix(name: &str, folder: &Path, kept: &Kept) -> (PathBuf, Arc<AtomicUsize>) {
    let path = folder.join(format!("{name}.sock"));
    let listener = UnixListener::bind(&path).expect("a unix socket");
    let (name, kept) = (name.to_owned(), Arc::clone(kept));
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            counter.fetch_add(1, Ordering::SeqCst);
            let (name, kept) = (name.clone(), Arc::clone(&kept));
            std::thread::spawn(move || serve(&name, Stream::Unix(stream), &kept));
        }
    });
    (path, accepted)
}

fn serve(name: &str, mut stream: Stream, kept: &Kept) {
    let Some(order) = stream.line() else {
        return;
    };
    if stream.write_all(format!("{name}\n").as_bytes()).is_err() {
        return;
    }
    let (word, number) = order.split_once(' ').unwrap_or((&order, "0"));
    match word {
        "echo" => {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
        }
        "answer" => {
            let size = number.parse().expect("a size");
            drop(stream.write_all(&filler(size)));
        }
        "count" => {
            let count = stream.drain();
            drop(stream.write_all(count.to_string().as_bytes()));
        }
        "fin" => {
            stream.shutdown(Shutdown::Write);
            stream.drain();
        }
        "reset" => {
            drop(stream.read(&mut [0]));
            stream.reset();
        }
        "hold" => drop(stream.drain()),
        "stay" => {
            stream.drain();
            kept.lock().expect("no panic holds this lock").push(stream);
        }
        _ => panic!("no order: {order}"),
    }
}
