//! `balance = "maglev"`: the table of Google's load balancer (Eisenbud and others, "Maglev: A Fast and Reliable Software
//! Network Load Balancer", NSDI 2016, section 3.4), with weights. It is computed once per change.
//!
//! Every server has an order of preference of all slots, which follows from its name alone. In turns each server gets the
//! first slot of its order that is still free; a server with a smaller weight than another one sits turns out. So the
//! shares are exact to a slot or two, a server that comes or goes moves few clients of others, and two balancers with
//! servers of the same names and weights have the same table, in whichever order the servers are written.

use super::Candidate;
use super::hash::Value;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::sync::Arc;

/// Slots that a session is led on to by its hash. After so many each server is asked, in the order of their names' hashes:
/// a table has more slots than a session may look at.
const WALK_MAX: usize = 64;

/// The slots, which hashes lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maglev {
    /// Server indices.
    slots: Arc<[u32]>,
    /// The servers' indices in the order of the hashes of their names.
    servers: Arc<[u32]>,
}

/// A server's order of preference while the table is made.
struct Order {
    index: u32,
    weight: u64,
    /// The slot that comes next, and the distance to the one after it.
    next: usize,
    skip: usize,
    /// It sits out until its weight times the number of the turn is so much.
    due: u64,
}

impl Maglev {
    /// The table of these servers. `size` is a prime number, so that every order has every slot.
    pub(super) fn new(servers: &[Candidate], size: u32) -> Self {
        let mut sorted: Vec<&Candidate> = servers.iter().collect();
        sorted.sort_by_key(|server| (server.name, server.id));
        Self {
            slots: slots(&sorted, size).into(),
            servers: sorted.iter().map(|server| server.index).collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// The servers of the slots from `start` on, and behind those each server once.
    pub(super) fn from(&self, start: usize) -> impl DoubleEndedIterator<Item = u32> {
        let walk = WALK_MAX.min(self.slots.len());
        round(&self.slots, start, walk).chain(round(&self.servers, start, self.servers.len()))
    }

    #[cfg(test)]
    pub(super) fn slots(&self) -> &[u32] {
        &self.slots
    }
}

/// So many of `indices` from `start` on, which may be any number.
fn round(indices: &[u32], start: usize, count: usize) -> impl DoubleEndedIterator<Item = u32> {
    let len = indices.len();
    (0..count).map(move |step| indices[(start % len + step) % len])
}

fn slots(servers: &[&Candidate], size: u32) -> Vec<u32> {
    let Some(most) = servers.iter().map(|it| u64::from(it.eweight)).max() else {
        return Vec::new();
    };
    let size = u64::from(size);
    let place = |number: u64| usize::try_from(number).expect("less than the size of a table");
    let mut orders: Vec<Order> = servers
        .iter()
        .map(|server| Order {
            index: server.index,
            weight: u64::from(server.eweight).max(1),
            next: place(server.name % size),
            skip: place(mix(!server.name) % (size - 1) + 1),
            due: 0,
        })
        .collect();
    let size = place(size);
    let mut slots: Vec<Option<u32>> = vec![None; size];
    // The turns to come, by their numbers and then in the order of the servers. A heap, so that the turns that servers sit
    // out cost nothing.
    let mut turns: BinaryHeap<Reverse<(u64, usize)>> = (0..orders.len())
        .map(|position| Reverse((1, position)))
        .collect();
    for _ in 0..size {
        let Some(Reverse((number, position))) = turns.pop() else {
            break;
        };
        let order = &mut orders[position];
        while slots[order.next].is_some() {
            order.next = (order.next + order.skip) % size;
        }
        slots[order.next] = Some(order.index);
        order.due += most;
        let next = order.due.div_ceil(order.weight).max(number + 1);
        turns.push(Reverse((next, position)));
    }
    slots.into_iter().flatten().collect()
}

/// What a table knows of the name of a server.
pub fn of_name(name: &str) -> u64 {
    mix(fnv(name.as_bytes()))
}

/// The hash of a session for a table.
pub(super) fn of_value(value: Value) -> u32 {
    let hash = match value {
        Value::Address(IpAddr::V4(address)) => fnv(&address.octets()),
        Value::Address(IpAddr::V6(address)) => fnv(&address.octets()),
        Value::Number(number) => fnv(&number.to_be_bytes()),
    };
    u32::try_from(mix(hash) >> 32).expect("32 bits")
}

/// FNV-1a of 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>).
pub(super) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The last step of `splitmix64` (<https://prng.di.unimi.it/splitmix64.c>): FNV alone hardly spreads the last bytes.
fn mix(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}
