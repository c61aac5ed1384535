//! How the engine ends sessions. [`super::super::lifecycle`] decides; this file carries it out.

use super::super::conn::{Conn, Side, Unsent};
use super::super::lifecycle::{self, Drained};
use super::Engine;
use super::timing::tick_of;
use crate::live::Termination;
use std::io;

impl Engine {
    /// The connection of one side is gone.
    pub(super) fn break_off(&mut self, key: u32, side: Side, error: io::Error) {
        if self.conns[key].break_off(side, error, self.now) {
            self.begin_draining(key);
        }
    }

    /// Prepares a session that begins to drain.
    pub(super) fn begin_draining(&mut self, key: u32) {
        self.wheel.cancel(key);
        for side in Side::BOTH {
            let conn = &mut self.conns[key];
            let Some(draining) = conn.draining() else {
                return;
            };
            if !draining.is_killed() && draining.is_closed(side) {
                // It will never take the bytes that it has not taken.
                let state = conn.side_mut(side);
                state.unsent = Unsent::default();
                if let Some(pipe) = state.pipe.take() {
                    self.io.pipes.release(key, side, pipe);
                }
            }
        }
        match self.conns[key].draining() {
            Some(draining) if draining.needs_recheck() => self.recheck(key),
            Some(_) => self.wheel.schedule(key, tick_of(self.now)),
            None => {}
        }
    }

    /// Continues the draining of a session; its end when that is done.
    pub(super) fn drain(&mut self, key: u32) -> Option<Termination> {
        let conn = self.conns.get_mut(key)?;
        match lifecycle::drain(conn, &mut self.io, self.now, &self.worker_stats) {
            Drained::Waiting => None,
            Drained::Unfinished => {
                self.queue(key);
                None
            }
            Drained::Over(end) => Some(end),
        }
    }

    /// Step 10: the session ends by `end`, or by the cause of its draining. Closing the descriptors removes
    /// them from the epoll instance.
    pub(super) fn remove(&mut self, key: u32, end: Termination) {
        if let Some(mut conn) = self.conns.remove(key) {
            self.wheel.cancel(key);
            let end = conn.finish(end);
            let Conn { sides, stats, .. } = conn;
            for (side, state) in Side::BOTH.into_iter().zip(sides) {
                if let Some(pipe) = state.pipe {
                    self.io.pipes.release(key, side, pipe);
                }
            }
            stats.finish(&end, &self.worker_stats);
        }
    }
}
