//! `balance = "ewma"`: two servers are drawn, by their weights, and the one is chosen whose connects are expected to take
//! less time ([`ConnectTime`](crate::live::connect_time::ConnectTime)), for its load and its weight. So a server that is far
//! away or slow gets less, without a look at all of them.

use super::Candidate;
use crate::live::ServerLive;
use crate::live::connect_time::Tick;
use std::sync::Arc;

/// The servers that are drawn from.
#[derive(Debug, Clone)]
pub struct Ewma {
    places: Arc<[Place]>,
    /// The sum of all weights in force.
    sum: u32,
}

/// A server, at those numbers from `before` on that are as many as its weight.
#[derive(Debug)]
struct Place {
    index: u32,
    before: u32,
    weight: u32,
    live: Arc<ServerLive>,
}

impl Ewma {
    pub(super) fn new(servers: &[Candidate], live: impl Fn(&Candidate) -> Arc<ServerLive>) -> Self {
        let mut sum = 0;
        let places = servers.iter().map(|server| {
            let before = sum;
            sum += server.eweight;
            Place {
                index: server.index,
                before,
                weight: server.eweight,
                live: live(server),
            }
        });
        Self {
            places: places.collect(),
            sum,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The server with the least cost of two that `accept` accepts and the `numbers` lead to. In place of one that it does
    /// not accept another one is drawn, by the weights: the next one would get its share.
    pub(super) fn pick(
        &self,
        now: Tick,
        mut numbers: impl FnMut() -> u32,
        load: impl Fn(u32) -> u32,
        mut accept: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let drawn = self.at(below(numbers(), self.sum));
        let one = self.or_another(drawn, None, &mut numbers, &mut accept)?;
        let Place { before, weight, .. } = self.places[one];
        // Not the same one again.
        let number = below(numbers(), self.sum - weight);
        let drawn = self.at(number + if number < before { 0 } else { weight });
        let Some(other) = self.or_another(drawn, Some(one), &mut numbers, &mut accept) else {
            return Some(self.places[one].index);
        };
        let [first, second] = [one, other].map(|position| &self.places[position]);
        // The expected time, as many times as there are sessions with this one, for each unit of weight.
        let cost = |place: &Place| {
            let time = place.live.connect_time.expected(now);
            u128::from(time) * (u128::from(load(place.index)) + 1)
        };
        let (one, other) = (
            cost(first) * u128::from(second.weight),
            cost(second) * u128::from(first.weight),
        );
        Some(if other < one { second } else { first }.index)
    }

    /// The position of the server that has this number; the first one if none has.
    fn at(&self, number: u32) -> usize {
        let after = self.places.partition_point(|place| place.before <= number);
        after.saturating_sub(1)
    }

    /// The one that is `drawn`, if it is accepted; else one of those that are, drawn by their weights. But not this one.
    fn or_another(
        &self,
        drawn: usize,
        but: Option<usize>,
        numbers: &mut impl FnMut() -> u32,
        accept: &mut impl FnMut(u32) -> bool,
    ) -> Option<usize> {
        let mut accepts =
            |position: usize| Some(position) != but && accept(self.places[position].index);
        if accepts(drawn) {
            return Some(drawn);
        }
        // Each takes the place of the one before with the share that it has of them together: one look at each is enough.
        let (mut found, mut sum) = (None, 0);
        for (position, place) in self.places.iter().enumerate() {
            if position != drawn && accepts(position) {
                sum += place.weight;
                if below(numbers(), sum) < place.weight {
                    found = Some(position);
                }
            }
        }
        found
    }
}

/// A number below `bound` for a random one.
fn below(number: u32, bound: u32) -> u32 {
    u32::try_from((u64::from(number) * u64::from(bound)) >> 32).unwrap_or(0)
}
