//! HAProxy's map of servers, in which `static-rr` takes turns and a map-based hash finds its place. It is computed once
//! per change.
//!
//! Every server has as many slots as its weight, after all weights were divided by their common divisor. In each turn
//! every server gains its weight in points. The next slot is for the first of those that have gained the most whole
//! rounds, a round being the sum of all weights, and it costs a round.

use super::Candidate;
use super::rotation::gcd;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// Server indices, as many times as their shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    slots: Box<[u32]>,
}

/// When a server gains its next whole round.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Gain {
    turn: u64,
    position: usize,
    /// The rounds that it has gained then.
    rounds: u64,
}

impl Map {
    /// The map of the `chosen` ones. The divisor is that of the weights that are written for `all`, whether they are
    /// usable or not: so the others keep the length of the map.
    pub(super) fn new(chosen: &[Candidate], all: &[Candidate]) -> Self {
        let divisor = all
            .iter()
            .fold(0, |divisor, server| gcd(divisor, server.written))
            .max(1);
        let shares: Vec<u64> = chosen
            .iter()
            .map(|server| u64::from(server.weight.div_ceil(divisor)))
            .collect();
        let places = places(&shares);
        let slots = places.into_iter().map(|position| chosen[position].index);
        Self {
            slots: slots.collect(),
        }
    }

    /// The servers' indices.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }
}

/// The positions of `shares` in the order of their slots.
fn places(shares: &[u64]) -> Vec<usize> {
    let round: u64 = shares.iter().sum();
    let gain = |position: usize, rounds: u64| {
        let turn = (rounds * round).div_ceil(shares[position].max(1));
        Reverse(Gain {
            turn,
            position,
            rounds,
        })
    };
    let mut gains: BinaryHeap<_> = (0..shares.len()).map(|it| gain(it, 1)).collect();
    // The rounds that each has left, and the same in the order of the choice.
    let mut left = vec![0_i64; shares.len()];
    let mut order: BTreeSet<(Reverse<i64>, usize)> =
        (0..shares.len()).map(|it| (Reverse(0), it)).collect();
    let change = |order: &mut BTreeSet<_>, left: &mut Vec<i64>, position: usize, by: i64| {
        order.remove(&(Reverse(left[position]), position));
        left[position] += by;
        order.insert((Reverse(left[position]), position));
    };
    let mut places = Vec::with_capacity(usize::try_from(round).unwrap_or(0));
    for turn in 1..=round {
        while let Some(Reverse(next)) = gains.peek()
            && next.turn <= turn
        {
            let (position, rounds) = (next.position, next.rounds);
            gains.pop();
            gains.push(gain(position, rounds + 1));
            change(&mut order, &mut left, position, 1);
        }
        let Some(&(_, position)) = order.first() else {
            break;
        };
        change(&mut order, &mut left, position, -1);
        places.push(position);
    }
    places
}
