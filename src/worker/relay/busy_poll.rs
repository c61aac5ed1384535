//! Whether the relay waits for the next event awake. Runs on a worker, inside the engine. Pure.
//!
//! Falling asleep and being woken costs more than a message does, on a virtual machine several times
//! as much; and the answer of a peer on a fast network is often nearer than that. So a worker that
//! has one or two sessions to serve stays awake for [`AWAKE`] after each turn, and it does so only while it
//! pays: turns must have followed each other quickly (which costs nothing to
//! know), half of the waits must be ended by an event, and after a trial that failed many more quick turns are asked
//! for. Slow traffic never gets there: with turns further apart than [`NEAR`] it never waits.

use std::time::Duration;

/// How long the relay waits awake.
pub(super) const AWAKE: Duration = Duration::from_micros(20);

/// Bytes that a turn may have moved; more are bulk, which comes in large pieces and is worth a sleep.
pub(super) const MESSAGE_MAX: u64 = 16 * 1024;

/// Turns that follow each other within this, a sleep included, are near.
const NEAR: Duration = Duration::from_micros(150);

/// Near turns in a row before the first bet.
const NEAR_MIN: u32 = 8;

/// The most that are asked for after losing.
const NEAR_MAX: u32 = 4096;

/// Bets won after which a losing streak is forgiven.
const WON_MIN: u32 = 64;

/// Points that can be had, and are there for a first trial: a processor that has slept deeply is late
/// with its first answers, and sooner once the next questions come quickly. A bet won brings one, a
/// bet lost costs one.
const CREDITS_MAX: u32 = 64;

/// The memory of what paid.
#[derive(Debug)]
pub(super) struct BusyPoll {
    /// The sessions that were served last. With more than these in play their events come anyway, and
    /// taking them one by one costs more than taking some at once.
    recent: [u32; 2],
    /// Near turns in a row.
    near: u32,
    /// How many are asked for.
    asked: u32,
    /// Bets are made while there are any.
    credits: u32,
    /// Bets won since the first point.
    won: u32,
}

impl BusyPoll {
    pub(super) fn new() -> Self {
        Self {
            recent: [0; 2],
            near: 0,
            asked: NEAR_MIN,
            credits: 0,
            won: 0,
        }
    }

    /// A turn with events has come `since` after the last one; `alone` if it had one session to serve,
    /// this one, and that was no bulk.
    pub(super) fn turned(&mut self, alone: Option<u32>, since: Duration) {
        let known = alone.is_some_and(|key| {
            let known = self.recent.contains(&key);
            if self.recent[0] != key {
                self.recent = [key, self.recent[0]];
            }
            known
        });
        if !known || since > NEAR {
            self.near = 0;
            return;
        }
        self.near = self.near.saturating_add(1);
        if self.credits == 0 && self.near >= self.asked {
            self.credits = CREDITS_MAX;
            self.won = 0;
        }
    }

    /// Whether to wait awake now.
    pub(super) fn is_worth_it(&self) -> bool {
        self.near > 0 && self.credits > 0
    }

    /// What became of it: whether an event came.
    pub(super) fn ended(&mut self, event: bool) {
        if event {
            self.won = self.won.saturating_add(1);
            self.credits = (self.credits + 1).min(CREDITS_MAX);
            return;
        }
        self.credits = self.credits.saturating_sub(1);
        self.near = 0;
        if self.credits == 0 {
            self.asked = if self.won >= WON_MIN {
                NEAR_MIN
            } else {
                (self.asked * 2).min(NEAR_MAX)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(60);
    const SLOW: Duration = Duration::from_millis(1);

    /// Quick turns of one session until a bet is made; how many there were.
    fn until_worth_it(busy_poll: &mut BusyPoll) -> u32 {
        (1..=2 * NEAR_MAX)
            .find(|_| {
                busy_poll.turned(Some(7), QUICK);
                busy_poll.is_worth_it()
            })
            .expect("a bet is made at last")
    }

    #[test]
    fn slow_traffic_is_never_waited_for() {
        let mut busy_poll = BusyPoll::new();
        for _ in 0..10_000 {
            // A request and, soon after, its answer: one near turn in two.
            busy_poll.turned(Some(7), SLOW);
            assert!(!busy_poll.is_worth_it());
            busy_poll.turned(Some(7), QUICK);
            assert!(!busy_poll.is_worth_it());
        }
    }

    #[test]
    fn several_at_once_and_bulk_never_bet() {
        let mut busy_poll = BusyPoll::new();
        for _ in 0..10_000 {
            busy_poll.turned(None, QUICK);
            assert!(!busy_poll.is_worth_it());
        }
    }

    #[test]
    fn two_sessions_in_turns_bet_and_three_do_not() {
        let mut busy_poll = BusyPoll::new();
        for turn in 0..2 * NEAR_MIN {
            busy_poll.turned(Some(turn % 2), QUICK);
        }
        assert!(busy_poll.is_worth_it());
        for turn in 0..1000 {
            busy_poll.turned(Some(turn % 3), QUICK);
            assert!(turn < 2 || !busy_poll.is_worth_it());
        }
    }

    #[test]
    fn a_bet_is_kept_up_while_half_of_them_are_won() {
        let mut busy_poll = BusyPoll::new();
        let turns = until_worth_it(&mut busy_poll);
        assert!((NEAR_MIN..=NEAR_MIN + 1).contains(&turns), "{turns}");
        for round in 0..1000 {
            busy_poll.ended(round % 2 == 0);
            busy_poll.turned(Some(7), QUICK);
            assert!(busy_poll.is_worth_it(), "in round {round}");
        }
    }

    #[test]
    fn what_does_not_pay_is_tried_ever_more_rarely() {
        let mut busy_poll = BusyPoll::new();
        let mut turns = 0;
        let mut waits = 0;
        while turns < 1_000_000 {
            turns += until_worth_it(&mut busy_poll);
            busy_poll.ended(false);
            waits += 1;
        }
        // A trial is 64 waits of 20 us, a turn 50 us at least: half a per cent of the time.
        assert!(waits < 20_000, "{waits} waits in vain in a million turns");
        // And what pays again is noticed, and forgiven.
        until_worth_it(&mut busy_poll);
        for _ in 0..WON_MIN {
            busy_poll.turned(Some(7), QUICK);
            busy_poll.ended(true);
        }
        for _ in 0..CREDITS_MAX {
            busy_poll.turned(Some(7), QUICK);
            assert!(busy_poll.is_worth_it());
            busy_poll.ended(false);
        }
        busy_poll.turned(Some(7), QUICK);
        assert!(!busy_poll.is_worth_it());
        assert_eq!(until_worth_it(&mut busy_poll), NEAR_MIN - 1);
    }
}
