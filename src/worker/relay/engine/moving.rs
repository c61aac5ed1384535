//! Sessions that leave this relay, and sessions that come to it.

use super::super::conn::{Conn, Side, SideState, Unsent};
use super::super::direction::CHUNK_MAX;
use super::super::moved::{DetachFrom, Detached, DetachedPart};
use super::super::table::token;
use super::{Engine, INTEREST};
use crate::live::{Cause, Phase, Termination};
use rustix::event::epoll::{self, EventData, EventFlags};
use std::io;

/// Most entries that are looked at for one part, free ones included.
const PLACES_MAX: usize = 4096;

/// A part ends with the session whose bytes in memory exceed this in sum, so that copying them takes a few
/// milliseconds at most.
const BYTES_MAX: usize = 32 * CHUNK_MAX;

impl Engine {
    /// Takes out up to `most` sessions, from an entry on. Those that drain end here. Those that were refused in this
    /// round stay, and for now those of backends in which others wait: a slot that became free here would be given to
    /// one of them, although its session goes on at the server.
    pub(in super::super) fn detach(&mut self, from: DetachFrom, most: usize) -> DetachedPart {
        self.read_clock();
        let entries = self.conns.entries();
        let end = entries.min(from.place.saturating_add(PLACES_MAX));
        let mut sessions: Vec<Detached> = Vec::new();
        let mut bytes = 0;
        let mut place = from.place;
        while place < end && sessions.len() < most && bytes < BYTES_MAX {
            let session = u32::try_from(place)
                .ok()
                .and_then(|key| self.take_out(key, from.round));
            if let Some(session) = session {
                bytes += session
                    .sides
                    .iter()
                    .map(|it| it.unsent.len())
                    .sum::<usize>();
                sessions.push(session);
            }
            place += 1;
        }
        let next = (place < entries).then_some(place);
        DetachedPart { sessions, next }
    }

    /// Takes a session out, if it can be moved.
    fn take_out(&mut self, key: u32, round: u32) -> Option<Detached> {
        let conn = self.conns.get(key)?;
        let backend = conn.stats.backend.as_ref();
        let awaited = backend.is_some_and(|backend| backend.slot.live().queue.is_waiting());
        if conn.draining().is_some() || conn.refused == round || awaited {
            return None;
        }
        for side in Side::BOTH {
            if let Err(error) = self.pipe_into_memory(key, side) {
                self.break_off(key, side, error);
                return None;
            }
        }
        let Conn {
            sides,
            stats,
            client_spoke,
            ..
        } = self.conns.remove(key)?;
        self.wheel.cancel(key);
        for side in &sides {
            // Closing this descriptor does not remove the socket: another process may have it open. An error would
            // mean that it was not there.
            let _ = epoll::delete(&self.epoll, &side.fd);
        }
        let now = self.now;
        let [client, server] = sides;
        let sides = [
            client.detached(client_spoke, now),
            server.detached(false, now),
        ];
        Some(Detached { sides, stats })
    }

    /// Moves what is in the pipe of a side behind its unsent bytes in memory.
    fn pipe_into_memory(&mut self, key: u32, side: Side) -> io::Result<()> {
        let state = self.conns[key].side_mut(side);
        let Some(mut pipe) = state.pipe.take() else {
            return Ok(());
        };
        let read = pipe.read();
        self.io.pipes.release(key, side, pipe);
        let state = self.conns[key].side_mut(side);
        // Bytes in memory were read before those in the pipe.
        let bytes = [state.unsent.bytes(), &read?].concat();
        state.unsent = Unsent::of(bytes.into());
        Ok(())
    }

    /// Goes on with a session in the next turn. `refused`: the round in which another process did not take it, or 0.
    pub(in super::super) fn attach(&mut self, session: Detached, refused: u32) {
        self.read_clock();
        let Detached { sides, stats } = session;
        let now = self.now;
        let client_spoke = sides[Side::Client as usize].facts.spoke;
        let sides = sides.map(|side| SideState::attached(side, now));
        let key = self.conns.insert(|key, generation| {
            let conn = Conn::attached((key, generation), (sides, client_spoke), stats);
            Conn { refused, ..conn }
        });
        if let Err(error) = self.watch(key) {
            let stats = &self.conns[key].stats;
            stats.report_shortage(&error, &self.worker_stats);
            let end = Termination::because(Cause::Resource, Phase::Data, error);
            return self.remove(key, end);
        }
        self.schedule(key);
        // No event may tell of what is left to do, for example a FIN that is to be passed on.
        self.queue(key);
    }

    /// Watches both sockets. Whatever they are ready for already makes an event.
    fn watch(&mut self, key: u32) -> io::Result<()> {
        let conn = &mut self.conns[key];
        let generation = conn.generation;
        for side in Side::BOTH {
            let state = conn.side_mut(side);
            state.watched = side == Side::Server || !state.unsent.is_empty();
            let interest = if state.watched {
                INTEREST | EventFlags::OUT
            } else {
                INTEREST
            };
            let data = EventData::new_u64(token(key, generation, side));
            epoll::add(&self.epoll, &state.fd, data, interest)?;
        }
        Ok(())
    }
}
