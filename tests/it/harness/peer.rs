//! Scripted servers, named by their behaviour. Each has its own listening thread and one thread per connection,
//! in the namespace of the thread that starts it.

use super::client;
use super::eventually::pace_until;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a server handles a connection.
#[derive(Clone)]
pub(crate) enum Behaviour {
    /// Sends back what it receives, then ends as the client ends.
    Echo,
    /// Sends these words, then FIN.
    Says(&'static str),
    /// Sends these words, then echoes.
    SpeaksFirst(&'static str),
    /// Accepts, then neither reads nor writes.
    AcceptsThenStalls,
    /// Sends FIN at once, and reads to the end.
    HalfCloses,
    /// Resets the connection after the first byte.
    Resets,
    /// Reads and discards everything.
    Sink,
    /// A function of the test.
    Script(Arc<dyn Fn(TcpStream) + Send + Sync>),
}

impl Behaviour {
    /// A behaviour defined by the test.
    pub(crate) fn script(script: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::Script(Arc::new(script))
    }

    pub(crate) fn run(&self, mut stream: TcpStream) {
        match self {
            Self::Echo => echo(stream),
            Self::Says(words) => drop(stream.write_all(words.as_bytes())),
            Self::SpeaksFirst(words) => {
                if stream.write_all(words.as_bytes()).is_ok() {
                    echo(stream);
                }
            }
            // Peeking does not take the bytes: this only waits for the end.
            Self::AcceptsThenStalls => {
                while stream.peek(&mut [0]).is_ok_and(|length| length > 0) {
                    pace_until(Instant::now() + Duration::from_millis(20));
                }
            }
            Self::HalfCloses => {
                drop(stream.shutdown(Shutdown::Write));
                drain(&mut stream);
            }
            Self::Resets => {
                drop(client::read_some(&mut stream, &mut [0]));
                client::reset(stream);
            }
            Self::Sink => drain(&mut stream),
            Self::Script(script) => script(stream),
        }
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length) = client::read_some(&mut stream, &mut buffer) {
        if length == 0 || stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn drain(stream: &mut TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while client::read_some(stream, &mut buffer).is_ok_and(|length| length > 0) {}
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    accepted: AtomicUsize,
    live: Mutex<HashMap<usize, TcpStream>>,
}

/// A listening server. Dropping it closes its socket, so that connects are refused, and ends its connections.
pub(crate) struct Peer {
    /// Keeps the port bound, so that nothing else listens there after this server has stopped.
    port: Option<Refuses>,
    listener: Option<TcpListener>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Listens on a loopback port that the kernel chooses.
    #[track_caller]
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        Self::start_on(Refuses::start(), behaviour)
    }

    /// Listens on `address`.
    #[track_caller]
    pub(crate) fn start_at(address: SocketAddr, behaviour: Behaviour) -> Self {
        Self::start_on(Refuses::start_at(address), behaviour)
    }

    /// Listens on a port that was kept, or where a server was stopped.
    #[track_caller]
    pub(crate) fn start_on(port: Refuses, behaviour: Behaviour) -> Self {
        let socket = bound(port.address());
        socket.listen(BACKLOG).expect("listens");
        let listener = TcpListener::from(socket);
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let accepting = listener.try_clone().expect("a descriptor");
        let thread = std::thread::spawn(move || accept(&accepting, &theirs, &behaviour));
        Self {
            port: Some(port),
            listener: Some(listener),
            shared,
            thread: Some(thread),
        }
    }

    /// The address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        let port = self.port.as_ref();
        port.expect("given away by the stop alone").address()
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Stops listening and ends every connection. The port refuses as long as it is kept, and can be used
    /// again.
    pub(crate) fn stop(mut self) -> Refuses {
        self.halt();
        self.port.take().expect("given away by the stop alone")
    }

    /// Stops listening; established connections go on.
    pub(crate) fn stop_listening(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        if let Some(listener) = self.listener.take() {
            // Ends a waiting accept call (EINVAL), in any namespace.
            drop(SockRef::from(&listener).shutdown(Shutdown::Both));
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }

    fn halt(&mut self) {
        self.stop_listening();
        for stream in self
            .shared
            .live
            .lock()
            .expect("no panic holds this lock")
            .values()
        {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.halt();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, behaviour: &Behaviour) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let id = shared.accepted.fetch_add(1, Ordering::SeqCst);
        drop(stream.set_nodelay(true));
        let Ok(clone) = stream.try_clone() else {
            continue;
        };
        shared
            .live
            .lock()
            .expect("no panic holds this lock")
            .insert(id, clone);
        let shared = Arc::clone(shared);
        let behaviour = behaviour.clone();
        std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn(move || {
                behaviour.run(stream);
                shared
                    .live
                    .lock()
                    .expect("no panic holds this lock")
                    .remove(&id);
            })
            .expect("a thread for a connection");
    }
}

/// Connections that may wait for a server.
const BACKLOG: i32 = 4096;

/// A socket on `address`, besides others of this kind: a port may be kept and listened on.
#[track_caller]
fn bound(address: SocketAddr) -> Socket {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    socket.set_reuse_port(true).expect("an option");
    socket
        .bind(&address.into())
        .unwrap_or_else(|error| panic!("a server on {address}: {error}"));
    socket
}

/// A port that refuses: bound, so that nothing else takes it, but not listening.
pub(crate) struct Refuses(Socket);

impl Refuses {
    /// Takes a loopback port that the kernel chooses.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"))
    }

    /// Takes this address.
    #[track_caller]
    fn start_at(address: SocketAddr) -> Self {
        Self(bound(address))
    }

    /// An address where nothing listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0
            .local_addr()
            .expect("bound")
            .as_socket()
            .expect("TCP")
    }
}

/// A port that does not answer: its backlog is full and nobody accepts, so the kernel drops SYNs.
pub(crate) struct Unanswering {
    listener: Socket,
    _fill: Vec<Socket>,
}

impl Unanswering {
    /// Enough connections to fill a backlog of 0.
    const FILL: usize = 8;

    /// Fills the backlog of a loopback port that the kernel chooses.
    pub(crate) fn start() -> Self {
        let listener =
            Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        listener.bind(&any.into()).expect("a port");
        listener.listen(0).expect("listens");
        let address = listener.local_addr().expect("bound");
        let fill = (0..Self::FILL)
            .map(|_| {
                let socket =
                    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
                socket.set_nonblocking(true).expect("non-blocking");
                drop(socket.connect(&address));
                socket
            })
            .collect();
        Self {
            listener,
            _fill: fill,
        }
    }

    /// Answers from now on: connects succeed when their SYN is sent again, a second after the first. Sends
    /// `words` to each and ends.
    pub(crate) fn answers(self, words: &'static str) -> Answering {
        let listener = self.listener.try_clone().expect("a descriptor");
        let thread = std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                drop(TcpStream::from(socket).write_all(words.as_bytes()));
            }
        });
        Answering {
            listener: self.listener,
            thread: Some(thread),
        }
    }

    /// An address that does not answer.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener
            .local_addr()
            .expect("bound")
            .as_socket()
            .expect("IPv4")
    }
}

/// An [`Unanswering`] server that answers now. Stops when dropped.
pub(crate) struct Answering {
    listener: Socket,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        // Ends a waiting accept call (EINVAL).
        drop(self.listener.shutdown(Shutdown::Both));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Bytes in the send queue of a socket that the other side has not acknowledged
/// (`/proc/thread-self/net/tcp`, column `tx_queue`).
pub(crate) fn unacknowledged(stream: &TcpStream) -> u64 {
    let local = stream.local_addr().expect("connected").port();
    let remote = stream.peer_addr().expect("connected").port();
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").expect("the kernel prints it");
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = |field: &str| {
            field
                .rsplit(':')
                .next()
                .and_then(|it| u16::from_str_radix(it, 16).ok())
        };
        if port(fields[1]) == Some(local) && port(fields[2]) == Some(remote) {
            let queue = fields[4].split(':').next().expect("tx:rx");
            return u64::from_str_radix(queue, 16).expect("hexadecimal");
        }
    }
    0
}
