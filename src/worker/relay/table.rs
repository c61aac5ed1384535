//! The entries of one worker: what the token of an event refers to.
//!
//! An entry is taken when a connect to a server begins, and becomes a session when the server has answered. So
//! the server's socket is registered once for both. Other descriptors that a task waits for have entries too. Runs on a
//! worker, inside the engine.
//!
//! Invariant: a token refers to one use of one entry. It carries the entry's generation, so that an event that
//! was taken before a session ended is not given to the next session in that entry.

use super::conn::{Conn, Side};
use rustix::event::epoll::EventFlags;
use slab::Slab;
use std::ops::{Index, IndexMut};
use std::task::{Context, Poll, Waker};

/// Below this many entries, memory of free ones is not given back.
const SHRINK_MIN: usize = 1024;

/// A descriptor that a task waits for: a server that is being connected to, a listening socket, or a client without a
/// server.
#[derive(Debug)]
pub(super) struct WatchState {
    generation: u32,
    /// Flags of its events so far.
    heard: EventFlags,
    /// The task that waits for it.
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Entry {
    Watched(WatchState),
    Session(Conn),
}

/// The entries of one worker.
#[derive(Debug)]
pub(super) struct Table {
    entries: Slab<Entry>,
    sessions: usize,
    generation: u32,
}

/// What an event concerns.
pub(super) enum Subject<'a> {
    /// One side of a session.
    Session(u32, Side, &'a mut Conn),
    /// Nothing to serve: a use of an entry that has ended, or a descriptor that a task waits for, whose flags
    /// were noted.
    Other,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            entries: Slab::new(),
            sessions: 0,
            generation: 0,
        }
    }

    /// Whether there is no session.
    pub(super) fn is_empty(&self) -> bool {
        self.sessions == 0
    }

    /// Takes an entry for a descriptor that a task waits for. Returns its key and the token of the descriptor.
    pub(super) fn register_watched(&mut self) -> (u32, u64) {
        self.generation = self.generation.wrapping_add(1) & (u32::MAX >> 1);
        let watched = WatchState {
            generation: self.generation,
            heard: EventFlags::empty(),
            waker: None,
        };
        let key = self.entries.insert(Entry::Watched(watched));
        let key = u32::try_from(key).expect("descriptors are fewer than 2^32");
        (key, token(key, self.generation, Side::Server))
    }

    /// Those of `events` that there were. Wakes the task of `context` when there are others.
    pub(super) fn poll_watched(
        &mut self,
        key: u32,
        events: EventFlags,
        context: &mut Context<'_>,
    ) -> Poll<EventFlags> {
        let Some(Entry::Watched(watched)) = self.entries.get_mut(key as usize) else {
            return Poll::Pending;
        };
        let heard = watched.heard.intersection(events);
        if !heard.is_empty() {
            return Poll::Ready(heard);
        }
        match &mut watched.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// These events are no more.
    pub(super) fn clear_watched(&mut self, key: u32, events: EventFlags) {
        if let Some(Entry::Watched(watched)) = self.entries.get_mut(key as usize) {
            watched.heard.remove(events);
        }
    }

    /// Gives back the entry of a descriptor that a task has waited for.
    pub(super) fn deregister_watched(&mut self, key: u32) {
        if let Some(Entry::Watched(_)) = self.entries.get(key as usize) {
            self.entries.remove(key as usize);
        }
    }

    /// Turns the entry of a server that has answered into a session. Returns the flags so far, and the token of
    /// the client's socket.
    pub(super) fn promote(
        &mut self,
        key: u32,
        conn: impl FnOnce(u32) -> Conn,
    ) -> (EventFlags, u64) {
        let entry = &mut self.entries[key as usize];
        let Entry::Watched(watched) = entry else {
            unreachable!("a server's entry is promoted by its one owner");
        };
        let (generation, heard) = (watched.generation, watched.heard);
        *entry = Entry::Session(conn(generation));
        self.sessions += 1;
        (heard, token(key, generation, Side::Client))
    }

    /// Takes an entry for a session; `conn` gets its key and generation.
    pub(super) fn insert(&mut self, conn: impl FnOnce(u32, u32) -> Conn) -> u32 {
        self.generation = self.generation.wrapping_add(1) & (u32::MAX >> 1);
        let entry = self.entries.vacant_entry();
        let key = u32::try_from(entry.key()).expect("descriptors are fewer than 2^32");
        entry.insert(Entry::Session(conn(key, self.generation)));
        self.sessions += 1;
        key
    }

    /// What the event of this token concerns. Flags of a descriptor that a task waits for are noted here, and the task is
    /// woken.
    pub(super) fn subject(&mut self, token: u64, flags: EventFlags) -> Subject<'_> {
        let (key, generation, side) = parts(token);
        match self.entries.get_mut(key as usize) {
            Some(Entry::Session(conn)) if conn.generation == generation => {
                Subject::Session(key, side, conn)
            }
            Some(Entry::Watched(watched)) if watched.generation == generation => {
                watched.heard |= flags;
                if let Some(waker) = watched.waker.take() {
                    waker.wake();
                }
                Subject::Other
            }
            _ => Subject::Other,
        }
    }

    pub(super) fn get(&self, key: u32) -> Option<&Conn> {
        match self.entries.get(key as usize) {
            Some(Entry::Session(conn)) => Some(conn),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, key: u32) -> Option<&mut Conn> {
        match self.entries.get_mut(key as usize) {
            Some(Entry::Session(conn)) => Some(conn),
            _ => None,
        }
    }

    /// All keys are below this.
    pub(super) fn entries(&self) -> usize {
        self.entries.capacity()
    }

    /// Gives back memory of free entries at the end, once three quarters of all are free. How many entries are
    /// left, if it did.
    pub(super) fn shrink(&mut self) -> Option<usize> {
        let before = self.entries.capacity();
        if before < SHRINK_MIN || self.entries.len() > before / 4 {
            return None;
        }
        if self.entries.is_empty() {
            self.entries = Slab::new();
        } else {
            self.entries.shrink_to_fit();
        }
        (self.entries.capacity() < before).then(|| self.entries.capacity())
    }

    /// All sessions.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Conn)> {
        let sessions = self.entries.iter().filter_map(|(key, entry)| match entry {
            Entry::Session(conn) => Some((key, conn)),
            Entry::Watched(_) => None,
        });
        sessions.map(|(key, conn)| {
            let key = u32::try_from(key).expect("descriptors are fewer than 2^32");
            (key, conn)
        })
    }

    /// Removes a session.
    pub(super) fn remove(&mut self, key: u32) -> Option<Conn> {
        self.get(key)?;
        match self.entries.remove(key as usize) {
            Entry::Session(conn) => {
                self.sessions -= 1;
                Some(conn)
            }
            Entry::Watched(_) => None,
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

/// The data of an event: the entry's key, its generation and the side.
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
