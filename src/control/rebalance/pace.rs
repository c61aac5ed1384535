//! When the sessions of a backend are rebalanced, and how many end in a second. Pure: a second is a call.

use super::plan::{Load, Target, is_within, lacks, movable, parts, targets};
use std::collections::VecDeque;

/// It begins when a server is farther from its share, in percent of that. More than [`EVEN_WITHIN`], so that what chance
/// does is not mended all the time.
const UNEVEN_BEYOND: u64 = 20;
/// It ends when all servers are as near to their shares, in percent of them.
const EVEN_WITHIN: u64 = 10;
/// It begins after so many seconds in a row: sessions may be on their way, as after an upgrade.
const UNEVEN_SECONDS: u32 = 5;
/// The seconds in which no more sessions end than in a minute. Two more than a minute: a session may end until a second
/// after it was told, and a second of this clock may be late.
const WINDOW: usize = 62;
/// Seconds of a minute, of which the budget is spread over each, and percents of a whole.
const CREDIT_OF_ONE: u64 = 60 * 100;

/// A second that is over.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    /// Sessions of the backend.
    total: u64,
    /// Those that have ended by this.
    ended: u32,
}

/// What is known of one backend.
#[derive(Debug, Default)]
pub(super) struct Pace {
    window: VecDeque<Second>,
    /// Seconds in a row in which servers were too far from their shares.
    uneven: u32,
    /// Since it has begun: sessions that have ended.
    running: Option<u64>,
    /// What may end now, in parts of a session.
    credit: u64,
}

/// What happens in a second.
#[derive(Debug)]
pub(super) struct Step {
    /// How many sessions of each server may end.
    pub(super) parts: Vec<u32>,
    /// It begins or ends.
    pub(super) turn: Option<Turn>,
}

/// That sessions begin to be ended, or that none is ended any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The server that lacks most sessions, how many it would have, and of how many.
    Begins {
        server: usize,
        share: u32,
        total: u64,
    },
    /// So many have ended. `even`: servers have their shares.
    Ends { sessions: u64, even: bool },
}

impl Pace {
    /// The next second, in which the servers are so. `percent` of all sessions may end in a minute. `is_growing`: shares
    /// change by themselves, so that it is not over yet.
    pub(super) fn second(&mut self, loads: &[Load], percent: u32, is_growing: bool) -> Step {
        let total = loads.iter().map(|load| u64::from(load.sessions)).sum();
        self.window.push_back(Second { total, ended: 0 });
        if self.window.len() > WINDOW {
            self.window.pop_front();
        }
        let turn = self.turn(loads, total, is_growing);
        if self.running.is_none() {
            let parts = vec![0; loads.len()];
            return Step { parts, turn };
        }
        // Those that have ended are about to come back: without them a share would seem to be smaller than it is.
        let expected = self.window.iter().map(|second| second.total).max();
        let expected = expected.unwrap_or(total);
        let movable = movable(loads, &targets(loads, expected));
        let parts = parts(&movable, self.budget(u64::from(percent) * expected));
        let told: u64 = parts.iter().map(|it| u64::from(*it)).sum();
        self.credit -= told * CREDIT_OF_ONE;
        Step { parts, turn }
    }

    /// Of sessions that were told to end in the last second so many have.
    pub(super) fn ended(&mut self, told: u32, ended: u32) {
        self.credit += u64::from(told.saturating_sub(ended)) * CREDIT_OF_ONE;
        if let Some(second) = self.window.back_mut() {
            second.ended += ended;
        }
        if let Some(sessions) = &mut self.running {
            *sessions += u64::from(ended);
        }
    }

    /// Whether nothing has to be remembered, if there is nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none() && self.window.iter().all(|second| second.ended == 0)
    }

    fn turn(&mut self, loads: &[Load], total: u64, is_growing: bool) -> Option<Turn> {
        let targets = targets(loads, total);
        let helps = movable(loads, &targets).iter().any(|it| *it > 0);
        let even = !loads.is_empty() && is_within(loads, &targets, EVEN_WITHIN);
        if let Some(sessions) = self.running {
            if helps && !even || is_growing {
                return None;
            }
            self.running = None;
            self.uneven = 0;
            return Some(Turn::Ends { sessions, even });
        }
        if !helps || is_within(loads, &targets, UNEVEN_BEYOND) {
            self.uneven = 0;
            return None;
        }
        self.uneven += 1;
        if self.uneven < UNEVEN_SECONDS {
            return None;
        }
        self.running = Some(0);
        self.credit = 0;
        let (server, share) = farthest(loads, &targets)?;
        Some(Turn::Begins {
            server,
            share,
            total,
        })
    }

    /// How many sessions may end in this second. `a_minute`: in a minute, times 100.
    fn budget(&mut self, a_minute: u64) -> u64 {
        self.credit = (self.credit + a_minute).min(a_minute + CREDIT_OF_ONE);
        // Less than one in a minute: one after several minutes.
        let most = (a_minute / 100).max(1);
        let ended = self.window.iter().map(|second| u64::from(second.ended));
        let left = most.saturating_sub(ended.sum());
        left.min(self.credit / CREDIT_OF_ONE)
    }
}

/// The server that lacks most sessions, and how many it would have.
fn farthest(loads: &[Load], targets: &[Target]) -> Option<(usize, u32)> {
    let lack = |at: &usize| lacks(&loads[*at], targets[*at]);
    let server = (0..loads.len()).max_by_key(lack)?;
    Some((server, targets[server].least))
}
