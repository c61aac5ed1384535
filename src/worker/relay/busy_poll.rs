//! Decides whether the relay busy-polls for the next event instead of sleeping. Runs on a worker, inside the
//! engine. Pure.
//!
//! Sleeping and being woken costs more than a message, on a virtual machine several times as much; and a peer
//! on a fast network often answers sooner than that. So a worker with one or two active sessions polls for
//! [`AWAKE`] after each turn, as long as that pays: turns must have followed each other quickly, and half of
//! the polls must end with an event. After a series of polls that has failed, more quick turns are needed
//! before the next one. Slow traffic is never polled for: its turns are further apart than [`NEAR`].

use std::time::Duration;

/// How long one busy poll lasts at most.
pub(super) const AWAKE: Duration = Duration::from_micros(20);

/// Bytes that a turn may move; more are bulk, which comes in large pieces and is worth a sleep.
pub(super) const MESSAGE_MAX: u64 = 16 * 1024;

/// Turns that follow each other within this time, a sleep included, are near.
const NEAR: Duration = Duration::from_micros(150);

/// Near turns in a row before the first busy poll.
const NEAR_MIN: u32 = 8;

/// The most near turns that are needed after failed polls.
const NEAR_MAX: u32 = 4096;

/// Successful polls after which the number of near turns is [`NEAR_MIN`] again.
const WON_MIN: u32 = 64;

/// The most credits, and those of a first series: a processor that has slept deeply answers late at first, and
/// sooner once questions come quickly. A successful poll adds one, a failed poll takes one.
const CREDITS_MAX: u32 = 64;

/// What is known about earlier turns and polls.
#[derive(Debug)]
pub(super) struct BusyPoll {
    /// The sessions that were served last. With more active sessions than these, events come anyway, and taking
    /// them one by one costs more than taking some at once.
    recent: [u32; 2],
    /// Near turns in a row.
    near: u32,
    /// How many near turns are needed before polling.
    asked: u32,
    /// Busy polls are made while there are any.
    credits: u32,
    /// Successful polls in this series.
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

    /// A turn with events has come `since` after the last one. `alone`: the session, if the turn served only
    /// one and it moved no bulk.
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

    /// Whether to poll now.
    pub(super) fn is_worth_it(&self) -> bool {
        self.near > 0 && self.credits > 0
    }

    /// A poll has ended; `event`: an event came.
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

    /// Quick turns of one session until it polls; how many there were.
    fn until_worth_it(busy_poll: &mut BusyPoll) -> u32 {
        (1..=2 * NEAR_MAX)
            .find(|_| {
                busy_poll.turned(Some(7), QUICK);
                busy_poll.is_worth_it()
            })
            .expect("it polls at last")
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
    fn several_at_once_and_bulk_are_never_polled_for() {
        let mut busy_poll = BusyPoll::new();
        for _ in 0..10_000 {
            busy_poll.turned(None, QUICK);
            assert!(!busy_poll.is_worth_it());
        }
    }

    #[test]
    fn two_sessions_in_turns_are_polled_for_and_three_are_not() {
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
    fn polling_goes_on_while_half_of_the_polls_succeed() {
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
        // A series is 64 polls of 20 us, and a turn takes 50 us at least: half a per cent of the time.
        assert!(waits < 20_000, "{waits} failed polls in a million turns");
        // Polls that succeed again bring the number of near turns back.
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
