//! Sessions that move bulk are ended by orders: by an operator, and because a server went down or came up.

use crate::harness::client::TIMEOUT;
use crate::harness::config::Config;
use crate::harness::eventually::{eventually, eventually_true, in_some_try};
use crate::harness::peer::{Behaviour, Peer, Refuses};
use crate::harness::runtime::Fixture;
use crate::harness::syslog::Syslog;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The bound, from an order to the end of both sides.
const ENDED_WITHIN: Duration = Duration::from_millis(200);

/// Bytes that must have moved before: bulk is spliced by then.
const MOVED: u64 = 1 << 20;

/// Bytes of a small piece: less than rlb's buffer has.
const PIECE: usize = 8 << 10;

/// How the bytes are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    /// Bulk over TCP, through a pipe.
    Spliced,
    /// Small pieces over TCP, through the buffer.
    Copied,
    /// Bulk over unix sockets, through the buffer.
    Unix,
}

/// What ends the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Session,
    Server,
    MarkedDown,
    MarkedUp,
}

/// Checks that see a change within 0.2 s.
const QUICK: &str = "check = { interval = \"50ms\", timeout = \"50ms\", fall = 2, rise = 1 }";

/// Fault 2: an order to end a session that moves bulk had no effect for as long as it moved. Fault 50: the
/// letters are those of HAProxy 3.5. That nothing is read after it is shown by the relay's own tests.
#[test]
fn fault_2_orders_end_sessions_that_move_bytes() {
    for moved in [Moved::Spliced, Moved::Copied, Moved::Unix] {
        for upload in [false, true] {
            for order in [
                Order::Session,
                Order::Server,
                Order::MarkedDown,
                Order::MarkedUp,
            ] {
                let what = format!("{moved:?}, upload {upload}, {order:?}");
                in_some_try(ENDED_WITHIN, &what, || ended_after(moved, upload, order));
            }
        }
    }
}

/// How long after the order the later one of the two ends was told.
fn ended_after(moved: Moved, upload: bool, order: Order) -> Duration {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("server.sock");
    let (listener, address) = listen(moved, &path);
    let (sender, server_ended) = sync_channel(1);
    let accepting = listener.try_clone().expect("a descriptor");
    let read = Arc::new(AtomicU64::new(0));
    let (moved_server, moved_client) = ((moved, Arc::clone(&read)), (moved, read));
    let server = std::thread::spawn(move || serve(&accepting, &moved_server, upload, &sender));
    let log = Syslog::udp();
    let primary = Refuses::start();
    let config = Config::new().log(format!("udp:{}", log.address()), "raw");
    let front = dir.path().join("front.sock");
    let config = match moved {
        Moved::Unix => config.bind(format!("unix:{}", front.display())),
        Moved::Spliced | Moved::Copied => config,
    };
    let config = match order {
        Order::Session | Order::Server => config.server_with(address, "check = false"),
        Order::MarkedDown => {
            let keys = format!("{QUICK}, on-marked-down = \"shutdown-sessions\"");
            config.server_with(address, &keys)
        }
        Order::MarkedUp => {
            let keys = format!("{QUICK}, on-marked-up = \"shutdown-backup-sessions\"");
            let config = config.server_with(primary.address(), &keys);
            config.server_with(address, "check = false, backup = true")
        }
    };
    let fixture = Fixture::new(config, "admin");
    let (name, letters) = match order {
        Order::MarkedUp => ("s2", " UC "),
        Order::MarkedDown => ("s1", " DC "),
        Order::Session | Order::Server => ("s1", " KC "),
    };
    if order == Order::MarkedUp {
        fixture.rlb.wait_status("s1", "DOWN");
    }
    let client = connect(moved, &front, || fixture.rlb.address());
    let client = std::thread::spawn(move || move_bytes(&client, &moved_client, upload));
    let column = if upload { "bin" } else { "bout" };
    eventually_true(TIMEOUT, "bulk flows", || {
        fixture.rlb.number(name, column) > MOVED
    });
    let list = fixture.ask("show sess");
    let (direction, mode) = (
        if upload { "rqby" } else { "rpby" },
        if moved == Moved::Spliced {
            "splice"
        } else {
            "copy"
        },
    );
    assert!(list.contains(&format!("{direction}={mode}")), "{list}");
    let (begun, _peer) = give(order, &fixture, &list, (&listener, primary));
    let client_ended = client.join().expect("no panic");
    let server_ended = server_ended.recv_timeout(TIMEOUT).expect("it ends");
    log.next_with(letters);
    fixture.rlb.stop();
    drop(listener.shutdown(Shutdown::Both));
    server.join().expect("no panic");
    client_ended.max(server_ended).saturating_sub(begun)
}

/// Gives the order, and tells when: of a server's change of state its event says so.
fn give(
    order: Order,
    fixture: &Fixture,
    list: &str,
    (listener, primary): (&Socket, Refuses),
) -> (Duration, Option<Peer>) {
    let changed = |what: &str| {
        let events = fixture.rlb.events();
        time_of(&eventually(TIMEOUT, what, || events.with(what).pop()))
    };
    match order {
        Order::Session => {
            let id = list.split(':').next().expect("a session").trim();
            let begun = now();
            fixture.ask(&format!("shutdown session {id}"));
            (begun, None)
        }
        Order::Server => {
            let begun = now();
            fixture.ask("shutdown sessions server be/s1");
            (begun, None)
        }
        Order::MarkedDown => {
            // Ends a waiting accept call, and refuses from here on.
            drop(listener.shutdown(Shutdown::Both));
            (changed("Server be/s1 is DOWN"), None)
        }
        Order::MarkedUp => {
            let peer = Peer::start_on(primary, Behaviour::Sink);
            (changed("Server be/s1 is UP"), Some(peer))
        }
    }
}

/// The time of the day.
#[expect(
    clippy::disallowed_methods,
    reason = "compared with the time of an event, which is wall time"
)]
fn now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = now.expect("after 1970").as_millis() % (24 * 3600 * 1000);
    Duration::from_millis(u64::try_from(millis).expect("less than a day"))
}

/// The time of the day of an event, which begins `{"timestamp":"2026-11-28T05:10:18.631Z"`.
fn time_of(event: &str) -> Duration {
    let time = event.split(['T', 'Z']).nth(1).expect("a timestamp");
    let mut numbers = time.split([':', '.']).map(str::parse::<u64>);
    let mut number = || numbers.next().expect("four").expect("numbers");
    let seconds = (number() * 60 + number()) * 60 + number();
    Duration::from_millis(seconds * 1000 + number())
}

fn listen(moved: Moved, path: &Path) -> (Socket, String) {
    let (domain, address) = match moved {
        Moved::Unix => (Domain::UNIX, SockAddr::unix(path).expect("a short path")),
        Moved::Spliced | Moved::Copied => {
            (Domain::IPV4, SocketAddr::from(([127, 0, 0, 1], 0)).into())
        }
    };
    let listener = Socket::new(domain, Type::STREAM, None).expect("a socket");
    listener.bind(&address).expect("bound");
    listener.listen(64).expect("listens");
    let bound = listener.local_addr().expect("bound").as_socket();
    let address = bound.map_or(format!("unix:{}", path.display()), |it| it.to_string());
    (listener, address)
}

fn connect(moved: Moved, path: &Path, address: impl Fn() -> SocketAddr) -> Socket {
    let (domain, address) = match moved {
        Moved::Unix => (Domain::UNIX, SockAddr::unix(path).expect("a short path")),
        Moved::Spliced | Moved::Copied => (Domain::IPV4, address().into()),
    };
    let stream = Socket::new(domain, Type::STREAM, None).expect("a socket");
    stream.connect(&address).expect("connected");
    (&stream).write_all(b"?").expect("sent");
    stream
}

/// Serves the one session until it ends, and tells when. Checks say nothing.
fn serve(
    listener: &Socket,
    moved: &(Moved, Arc<AtomicU64>),
    upload: bool,
    ended: &SyncSender<Duration>,
) {
    while let Ok((stream, _)) = listener.accept() {
        let (ended, moved) = (ended.clone(), moved.clone());
        std::thread::spawn(move || {
            if (&stream).read_exact(&mut [0]).is_ok() {
                // The test may have failed and gone.
                let _ = ended.send(move_bytes(&stream, &moved, !upload));
            }
        });
    }
}

/// Writes, or reads, until the stream ends; when that was. `read` counts what was read. Pieces follow each other
/// when they were read: rlb never finds so much at once that it would be bulk.
fn move_bytes(
    mut stream: &Socket,
    (moved, read): &(Moved, Arc<AtomicU64>),
    write: bool,
) -> Duration {
    let mut block = vec![7; 256 << 10];
    if !write {
        while let Ok(count @ 1..) = stream.read(&mut block) {
            read.fetch_add(count as u64, SeqCst);
        }
    } else if *moved == Moved::Copied {
        let mut written = 0;
        while stream.write_all(&block[..PIECE]).is_ok() {
            written += PIECE as u64;
            while read.load(SeqCst) < written {
                if !matches!(stream.take_error(), Ok(None)) {
                    return now();
                }
                std::thread::yield_now();
            }
        }
    } else {
        while stream.write_all(&block).is_ok() {}
    }
    now()
}
