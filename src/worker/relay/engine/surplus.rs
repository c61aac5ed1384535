//! Ends sessions that their servers have too many of (`rebalance`).

use super::super::quiet::{has_unread, quiet_from};
use super::Engine;
use crate::live::{Cause, Phase, Termination};
use crate::worker::surplus::Surplus;

/// Most entries that are looked at for one order, free ones included: about a millisecond.
const PLACES_MAX: usize = 4096;

/// How such a session ends: as one that is too old.
const SURPLUS: Termination = Termination::new(Cause::Proxy, Phase::Data);

impl Engine {
    /// Ends quiet sessions, as many as may. Each look goes on where the last one has stopped, so that no session is asked
    /// for again before the others.
    pub(in super::super) fn end_surplus(&mut self, surplus: &Surplus) {
        self.read_clock();
        let entries = self.conns.entries();
        for _ in 0..entries.min(PLACES_MAX) {
            if self.surplus_from >= entries {
                self.surplus_from = 0;
            }
            let place = self.surplus_from;
            self.surplus_from += 1;
            let Ok(key) = u32::try_from(place) else {
                return;
            };
            if self.is_surplus(key, surplus) {
                self.remove(key, SURPLUS);
                if surplus.is_used_up() {
                    return;
                }
            }
        }
    }

    /// Whether this session is one of them, and ends.
    fn is_surplus(&self, key: u32, surplus: &Surplus) -> bool {
        let conn = self.conns.get(key);
        let Some((conn, server)) = conn.and_then(|it| Some((it, it.stats.server.as_ref()?))) else {
            return false;
        };
        let uid = server.slot.live().uid;
        let is_quiet = || quiet_from(conn).is_some_and(|since| since <= self.now);
        surplus.has(uid) && is_quiet() && !has_unread(conn) && surplus.claim(uid)
    }
}
