//! The loop that accepts the connections of a listening socket, for the workers, the statistics and the
//! runtime socket. It runs in the loop of its caller, a worker's or tokio's.
//!
//! Invariants: a turn takes [`BATCH_MAX`] connections at most, so that accepting does not starve the
//! connections; no error ends the loop and none makes it spin: one that concerns one connection is
//! passed over, any other is followed by a pause. A stop takes what is queued by then and no more:
//! closing a listening socket would throw it away, and there may be no end of those that come.

use super::limits::Shortage;
use super::raw::{self, Owned};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;
use std::time::Duration;
use std::{io, mem};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio_util::sync::CancellationToken;

/// A connection, non-blocking, and the client's address; `None` for a unix socket.
pub type Connection = (OwnedFd, Option<SocketAddr>);

/// Pause after an error that is not of one connection.
pub const PAUSE: Duration = Duration::from_millis(100);

/// Connections taken in one turn.
pub const BATCH_MAX: usize = 64;

/// Connections that are still accepted from a unix socket after the stop; of a TCP socket those that
/// are queued then.
const UNIX_DRAIN_MAX: usize = 4096;

/// What a failed `accept` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection waits.
    Empty,
    /// That one connection was gone, or its network was (accept(2)).
    OneConnection,
    /// Something of this process or machine ran out.
    Shortage(Shortage),
    /// Anything else.
    Unknown,
}

impl Failure {
    /// What `error` means.
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Self::Empty,
            Some(
                libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EINTR
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EPERM,
            ) => Self::OneConnection,
            _ => Shortage::of(error).map_or(Self::Unknown, Self::Shortage),
        }
    }
}

/// What a listener does with the connections of its socket.
#[expect(async_fn_in_trait, reason = "a loop stays on its thread")]
pub trait Acceptor {
    /// What there is for one connection more.
    type Room;

    /// What there is for one connection more, if it may be accepted now.
    fn room(&self) -> Option<Self::Room>;

    /// Waits until one connection more may be accepted; `None` when `stop` came first.
    async fn wait_for_room(&self, stop: &CancellationToken) -> Option<Self::Room>;

    /// Accepts one connection, without waiting.
    ///
    /// # Errors
    /// Those of `accept4`, and of what it needs.
    fn accept(&self) -> io::Result<Connection>;

    /// Serves a connection, mostly in a task of its own.
    async fn admit(&self, connection: Connection, room: Self::Room);

    /// Tells of an error that is not of one connection, and waits for [`PAUSE`] or for less.
    async fn pause(&self, error: &io::Error, failure: Failure);

    /// Whether what is queued is still to be accepted after the stop.
    fn may_drain(&self) -> bool;
}

/// A listening socket that is watched.
#[expect(async_fn_in_trait, reason = "a loop stays on its thread")]
pub trait Listening: AsFd {
    /// That connections may wait.
    type Ready<'a>: Readiness
    where
        Self: 'a;

    /// Completes when connections may wait.
    ///
    /// # Errors
    /// When the runtime shuts down.
    async fn readable(&self) -> io::Result<Self::Ready<'_>>;
}

/// That connections may wait, until it is cleared.
pub trait Readiness {
    /// None waits: the next one is told.
    fn clear(&mut self);
}

impl<S: AsFd> Listening for AsyncFd<Owned<S>> {
    type Ready<'a>
        = AsyncFdReadyGuard<'a, Owned<S>>
    where
        Self: 'a;

    async fn readable(&self) -> io::Result<Self::Ready<'_>> {
        AsyncFd::readable(self).await
    }
}

impl<S: AsFd> Readiness for AsyncFdReadyGuard<'_, Owned<S>> {
    fn clear(&mut self) {
        self.clear_ready();
    }
}

/// Whether more may be waiting after a turn.
enum Turn {
    Drained,
    More,
}

/// Accepts from `socket` until `stop`, and then what had been queued by that time.
///
/// # Errors
/// When the runtime shuts down.
pub async fn run<A: Acceptor, L: Listening>(
    socket: &L,
    acceptor: &A,
    stop: &CancellationToken,
) -> io::Result<()> {
    loop {
        let ready = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            ready = socket.readable() => ready,
        };
        let mut ready = ready?;
        match turn(acceptor, stop, &mut 0).await {
            Turn::Drained => ready.clear(),
            Turn::More => yield_now().await,
        }
    }
    let (never, mut accepted) = (CancellationToken::new(), 0);
    let queued = queued(socket);
    while accepted < queued && acceptor.may_drain() {
        // The event loop may not have reported the last ones yet: they are asked for.
        match turn(acceptor, &never, &mut accepted).await {
            Turn::Drained => break,
            Turn::More => yield_now().await,
        }
    }
    Ok(())
}

/// Accepts some connections, and adds their number to `accepted`.
async fn turn<A: Acceptor>(acceptor: &A, stop: &CancellationToken, accepted: &mut usize) -> Turn {
    for _ in 0..BATCH_MAX {
        // Mostly there is room, and no future is made.
        let room = match acceptor.room() {
            Some(room) => room,
            None => match acceptor.wait_for_room(stop).await {
                Some(room) => room,
                None => return Turn::More,
            },
        };
        match acceptor.accept() {
            Ok(connection) => {
                *accepted += 1;
                acceptor.admit(connection, room).await;
            }
            Err(error) => match Failure::of(&error) {
                Failure::Empty => return Turn::Drained,
                Failure::OneConnection => {}
                failure => {
                    acceptor.pause(&error, failure).await;
                    return Turn::More;
                }
            },
        }
    }
    Turn::More
}

/// Lets other tasks run.
pub async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Connections that wait to be accepted.
fn queued(socket: &impl AsFd) -> usize {
    // A unix socket does not tell.
    raw::tcp_info(socket.as_fd()).map_or(UNIX_DRAIN_MAX, |info| info.unacked as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::accept;
    use std::cell::{Cell, RefCell};
    use std::net::{TcpListener, TcpStream};
    use tokio::io::Interest;

    /// Takes connections from a real socket, after the errors that it is told to have.
    struct Fixture {
        socket: AsyncFd<Owned<TcpListener>>,
        errors: RefCell<Vec<i32>>,
        taken: RefCell<Vec<Connection>>,
        pauses: Cell<usize>,
        drains: bool,
        stop: CancellationToken,
        /// Stops once it has accepted so many.
        stop_after: usize,
    }

    impl Fixture {
        fn new(errors: &[i32], drains: bool, stop_after: usize) -> (Self, SocketAddr) {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let address = listener.local_addr().unwrap();
            let fixture = Self {
                socket: raw::watch(Owned::new(listener), Interest::READABLE).unwrap(),
                errors: RefCell::new(errors.to_vec()),
                taken: RefCell::default(),
                pauses: Cell::new(0),
                drains,
                stop: CancellationToken::new(),
                stop_after,
            };
            (fixture, address)
        }
    }

    impl Acceptor for Fixture {
        type Room = ();

        fn room(&self) -> Option<()> {
            (self.drains || !self.stop.is_cancelled()).then_some(())
        }

        async fn wait_for_room(&self, stop: &CancellationToken) -> Option<()> {
            stop.cancelled().await;
            None
        }

        fn accept(&self) -> io::Result<Connection> {
            match self.errors.borrow_mut().pop() {
                Some(code) => Err(io::Error::from_raw_os_error(code)),
                None => accept(self.socket.get_ref()),
            }
        }

        async fn admit(&self, connection: Connection, (): ()) {
            self.taken.borrow_mut().push(connection);
            if self.taken.borrow().len() == self.stop_after {
                self.stop.cancel();
            }
        }

        async fn pause(&self, _: &io::Error, failure: Failure) {
            assert!(matches!(failure, Failure::Shortage(_) | Failure::Unknown));
            self.pauses.set(self.pauses.get() + 1);
        }

        fn may_drain(&self) -> bool {
            self.drains
        }
    }

    fn clients(address: SocketAddr, count: usize) -> Vec<TcpStream> {
        (0..count)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect()
    }

    /// Every error that accept(2) names, and one that it does not.
    #[tokio::test]
    async fn errors_of_one_connection_are_passed_over_and_others_pause() {
        let errors = [
            libc::ECONNABORTED,
            libc::EMFILE,
            libc::EINTR,
            libc::EPERM,
            libc::ENOBUFS,
            libc::EINVAL,
        ];
        let (fixture, address) = Fixture::new(&errors, true, 1);
        let _clients = clients(address, 1);
        run(&fixture.socket, &fixture, &fixture.stop).await.unwrap();
        assert_eq!(fixture.taken.borrow().len(), 1);
        assert_eq!(fixture.pauses.get(), 3, "EMFILE, ENOBUFS, EINVAL");
        let of = |code| Failure::of(&io::Error::from_raw_os_error(code));
        assert_eq!(of(libc::EAGAIN), Failure::Empty);
        assert_eq!(of(libc::ENFILE), Failure::Shortage(Shortage::OpenFiles));
        assert_eq!(of(libc::ENOMEM), Failure::Shortage(Shortage::Memory));
        assert_eq!(of(libc::EBADF), Failure::Unknown);
    }

    #[tokio::test]
    async fn a_stop_takes_what_is_queued_unless_it_is_another_s() {
        for (drains, expected) in [(true, 70), (false, 1)] {
            let (fixture, address) = Fixture::new(&[], drains, 1);
            let _clients = clients(address, 70);
            run(&fixture.socket, &fixture, &fixture.stop).await.unwrap();
            assert_eq!(fixture.taken.borrow().len(), expected);
        }
    }

    /// A turn has a bound: a task beside it comes to its turn while clients are queued.
    #[tokio::test]
    async fn a_turn_has_a_bound() {
        let (fixture, address) = Fixture::new(&[], true, BATCH_MAX + 6);
        let _clients = clients(address, BATCH_MAX + 6);
        let seen = Cell::new(0);
        let beside = async {
            while fixture.taken.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            seen.set(fixture.taken.borrow().len());
        };
        let accepting = run(&fixture.socket, &fixture, &fixture.stop);
        // In this order: whoever is beside looks after each turn.
        let (accepted, ()) = tokio::join!(biased; accepting, beside);
        accepted.unwrap();
        assert_eq!(seen.get(), BATCH_MAX);
        assert_eq!(fixture.taken.borrow().len(), BATCH_MAX + 6);
    }
}
