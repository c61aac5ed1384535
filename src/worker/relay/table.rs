//! The places of one worker: what the token of an event stands for.
//!
//! A place is taken when a server is asked for a connection, becomes a session once it has
//! answered, and so the server's socket is registered once for both. Runs on a worker, inside the
//! engine.
//!
//! Invariant: a token names one use of one place. It carries the place's generation, so that an
//! event that was taken before a session ended is not given to the next one in its place.

use super::conn::{Conn, Side};
use rustix::event::epoll::EventFlags;
use slab::Slab;
use std::ops::{Index, IndexMut};
use std::task::{Context, Poll, Waker};

/// A server that is asked for a connection.
#[derive(Debug)]
pub(super) struct Asking {
    generation: u32,
    /// What was heard of it.
    heard: EventFlags,
    /// Who waits for it.
    waker: Option<Waker>,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all places are sessions, which a box would cost an allocation each"
)]
enum PendingGuard {
    Asking(Asking),
    Session(Conn),
}

/// The places of one worker.
#[derive(Debug)]
pub(super) struct Table {
    places: Slab<PendingGuard>,
    sessions: usize,
    generation: u32,
}

/// What an event is about.
pub(super) enum Subject<'a> {
    /// One side of a session.
    Session(u32, Side, &'a mut Conn),
    /// A use of a place that has ended, or a server that is asked: that was noted.
    Other,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            places: Slab::new(),
            sessions: 0,
            generation: 0,
        }
    }

    /// Whether there is no session.
    pub(super) fn is_empty(&self) -> bool {
        self.sessions == 0
    }

    /// Takes a place for a server that is asked: its key, and the token of the socket.
    pub(super) fn ask(&mut self) -> (u32, u64) {
        self.generation = self.generation.wrapping_add(1) & (u32::MAX >> 1);
        let asking = Asking {
            generation: self.generation,
            heard: EventFlags::empty(),
            waker: None,
        };
        let key = self.places.insert(PendingGuard::Asking(asking));
        let key = u32::try_from(key).expect("descriptors are fewer than 2^32");
        (key, token(key, self.generation, Side::Server))
    }

    /// What was heard of the server that is asked; the task of `context` is woken when there is
    /// something.
    pub(super) fn poll(&mut self, key: u32, context: &mut Context<'_>) -> Poll<EventFlags> {
        let Some(PendingGuard::Asking(asking)) = self.places.get_mut(key as usize) else {
            return Poll::Pending;
        };
        if !asking.heard.is_empty() {
            return Poll::Ready(asking.heard);
        }
        match &mut asking.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Gives the place of a server that was asked back.
    pub(super) fn forget(&mut self, key: u32) {
        if let Some(PendingGuard::Asking(_)) = self.places.get(key as usize) {
            self.places.remove(key as usize);
        }
    }

    /// Makes the server that was asked a session: what was heard of it so far, and the token of
    /// the client's socket.
    pub(super) fn settle(&mut self, key: u32, conn: impl FnOnce(u32) -> Conn) -> (EventFlags, u64) {
        let place = &mut self.places[key as usize];
        let PendingGuard::Asking(asking) = place else {
            unreachable!("a server's place is settled by its one owner");
        };
        let (generation, heard) = (asking.generation, asking.heard);
        *place = PendingGuard::Session(conn(generation));
        self.sessions += 1;
        (heard, token(key, generation, Side::Client))
    }

    /// What the event of this token is about. One about a server that is asked is noted here, and
    /// wakes who waits for it.
    pub(super) fn subject(&mut self, token: u64, flags: EventFlags) -> Subject<'_> {
        let (key, generation, side) = parts(token);
        match self.places.get_mut(key as usize) {
            Some(PendingGuard::Session(conn)) if conn.generation == generation => {
                Subject::Session(key, side, conn)
            }
            Some(PendingGuard::Asking(asking)) if asking.generation == generation => {
                asking.heard |= flags;
                if let Some(waker) = asking.waker.take() {
                    waker.wake();
                }
                Subject::Other
            }
            _ => Subject::Other,
        }
    }

    pub(super) fn get(&self, key: u32) -> Option<&Conn> {
        match self.places.get(key as usize) {
            Some(PendingGuard::Session(conn)) => Some(conn),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, key: u32) -> Option<&mut Conn> {
        match self.places.get_mut(key as usize) {
            Some(PendingGuard::Session(conn)) => Some(conn),
            _ => None,
        }
    }

    /// All keys of places are below this.
    pub(super) fn places(&self) -> usize {
        self.places.capacity()
    }

    /// All sessions.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Conn)> {
        let sessions = self.places.iter().filter_map(|(key, place)| match place {
            PendingGuard::Session(conn) => Some((key, conn)),
            PendingGuard::Asking(_) => None,
        });
        sessions.map(|(key, conn)| {
            let key = u32::try_from(key).expect("descriptors are fewer than 2^32");
            (key, conn)
        })
    }

    /// Takes a session out.
    pub(super) fn remove(&mut self, key: u32) -> Option<Conn> {
        self.get(key)?;
        match self.places.remove(key as usize) {
            PendingGuard::Session(conn) => {
                self.sessions -= 1;
                Some(conn)
            }
            PendingGuard::Asking(_) => None,
        }
    }
}

impl Index<u32> for Table {
    type Output = Conn;

    fn index(&self, key: u32) -> &Conn {
        self.get(key).expect("the key of a session that lives")
    }
}

impl IndexMut<u32> for Table {
    fn index_mut(&mut self, key: u32) -> &mut Conn {
        self.get_mut(key).expect("the key of a session that lives")
    }
}

/// What epoll gives back with an event: the place, its generation and the side.
pub(super) fn token(key: u32, generation: u32, side: Side) -> u64 {
    u64::from(key) << 32 | u64::from(generation) << 1 | side as u64
}

fn parts(token: u64) -> (u32, u32, Side) {
    let side = if token & 1 == 0 {
        Side::Client
    } else {
        Side::Server
    };
    let low = u32::try_from(token & u64::from(u32::MAX)).expect("masked");
    (u32::try_from(token >> 32).expect("shifted"), low >> 1, side)
}
