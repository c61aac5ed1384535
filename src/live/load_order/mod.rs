//! The servers of a backend in the order of their loads, for `balance = "leastconn"`.
//!
//! A tree of minima: each leaf is a server, each node the lesser of its two children, so that the root is the server
//! that is to be chosen. A scan of the gauges would read a cache line of each server. The control thread makes an order
//! together with the picker that uses it. Workers change it when a session comes to a server or leaves it; there is no
//! lock.
//!
//! A server's key is HAProxy's: its sessions and one more, divided by its weight; 0 of a server without sessions. Of
//! servers with the same key, the one comes first that has had it longest.
//!
//! Invariant: once no change is under way, every node is the lesser of its children and every leaf has the key of its
//! server's load. Whoever writes a node or a leaf compares it again with what it follows from, and goes on to the node
//! above. So the last one that writes has seen every change; a change that comes later is written by its own thread.

use arc_swap::ArcSwapOption;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence,
};

/// Weight by which the sessions of a server are divided after they were multiplied with it: the highest one, 256 in
/// sixteenths.
const WEIGHT_MAX: u64 = 4096;
/// Bits of an entry for the server's position. As many servers can be in an order.
const POSITION_BITS: u32 = 20;
/// Bits of an entry for the number of the change. The numbers begin again from 0; two of them are compared by the
/// shorter way round.
const CHANGE_BITS: u32 = 18;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
const CHANGE_MASK: u64 = (1 << CHANGE_BITS) - 1;
/// Most servers of an order; a backend's others are not chosen.
const SERVERS_MAX: usize = 1 << POSITION_BITS;
/// The highest key. Servers with more sessions (262,000 with weight 1) count as equally busy.
const KEY_MAX: u64 = (1 << (u64::BITS - POSITION_BITS - CHANGE_BITS)) - 2;
/// How often a choice is made again because the server's load was not the one that the order knew.
const TRIES_MAX: u32 = 4;

/// A server in an order: its key, the number of the change that gave it the key, and its position. `u64::MAX`: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry(u64);

impl Entry {
    const NONE: Self = Self(u64::MAX);

    fn new(key: u64, change: u32, position: usize) -> Self {
        let change = u64::from(change) & CHANGE_MASK;
        Self((key << CHANGE_BITS | change) << POSITION_BITS | position as u64)
    }

    fn change(self) -> u64 {
        self.0 >> POSITION_BITS & CHANGE_MASK
    }

    fn key(self) -> u64 {
        self.0 >> (POSITION_BITS + CHANGE_BITS)
    }

    fn position(self) -> usize {
        (self.0 & POSITION_MASK) as usize
    }

    /// Whether it comes before `other`.
    fn is_before(self, other: Self) -> bool {
        let (mine, others) = (self.key(), other.key());
        if mine != others {
            return mine < others;
        }
        let after = other.change().wrapping_sub(self.change()) & CHANGE_MASK;
        after != 0 && after <= CHANGE_MASK / 2
    }

    fn first(self, other: Self) -> Self {
        if other.is_before(self) { other } else { self }
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.is_before(*self).cmp(&self.is_before(*other))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Servers in the order of their loads. A server is known by its position in the order.
#[derive(Debug)]
pub struct LoadOrder {
    /// The weights in sixteenths, at least 1.
    weights: Box<[u32]>,
    /// The root is at 1, the children of a node at twice its position and behind that. The leaves are the second half.
    nodes: Box<[AtomicU64]>,
    /// Counts the changes of keys.
    changes: AtomicU32,
}

impl LoadOrder {
    /// The order of servers with these weights and loads. Of those with the same key the earlier ones come first.
    /// `turns`: the positions, in that order.
    fn new(servers: &[(u32, u32)], turns: &[usize]) -> Self {
        let leaves = servers.len().next_power_of_two();
        let mut order = Self {
            weights: servers.iter().map(|(weight, _)| *weight).collect(),
            nodes: Box::default(),
            changes: AtomicU32::new(u32::try_from(servers.len()).unwrap_or(0)),
        };
        let mut nodes = vec![Entry::NONE; 2 * leaves];
        for (change, &position) in (0..).zip(turns) {
            let key = order.key(position, servers[position].1);
            nodes[leaves + position] = Entry::new(key, change, position);
        }
        for node in (1..leaves).rev() {
            nodes[node] = nodes[2 * node].first(nodes[2 * node + 1]);
        }
        order.nodes = nodes
            .into_iter()
            .map(|entry| AtomicU64::new(entry.0))
            .collect();
        order
    }

    /// The order of servers with these places and weights. `load` tells the load of the one at a position. From now on
    /// their sessions change this order and no other. Those that had the same weight in an order before come first, as
    /// they came in it. Control thread.
    pub fn of(servers: &[(&OrderPlace, u32)], load: impl Fn(usize) -> u32) -> Arc<Self> {
        let servers = &servers[..servers.len().min(SERVERS_MAX)];
        let mut turns: Vec<usize> = (0..servers.len()).collect();
        turns.sort_by_key(|&position| {
            let (place, weight) = servers[position];
            Reverse(place.age(weight))
        });
        let weights = servers.iter().enumerate();
        let loads = weights.map(|(position, (_, weight))| (*weight, load(position)));
        let order = Arc::new(Self::new(&loads.collect::<Vec<_>>(), &turns));
        for (position, (place, _)) in servers.iter().enumerate() {
            let order = Arc::clone(&order);
            place.set(Some(Arc::new(Ordered { order, position })));
            // It may have changed meanwhile.
            place.changed(|| load(position));
        }
        order
    }

    /// Whether there is no server.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// The first server that `accept` accepts. `load` tells the load of a server.
    pub fn pick(
        &self,
        load: impl Fn(usize) -> u32,
        mut accept: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let mut first = self.node(1).position();
        // The order may have been replaced by one that is not used yet, and then learns of no session that ends.
        for _ in 0..TRIES_MAX {
            if self.key(first, load(first)) == self.node(1).key() {
                break;
            }
            self.update(first, || load(first));
            first = self.node(1).position();
        }
        if accept(first) {
            return Some(first);
        }
        self.others(first, accept)
    }

    /// The first one that `accept` accepts of those behind `first`.
    #[cold]
    fn others(&self, first: usize, mut accept: impl FnMut(usize) -> bool) -> Option<usize> {
        let mut nodes = BinaryHeap::from([(Reverse(self.node(1)), 1)]);
        while let Some((_, node)) = nodes.pop() {
            if node < self.nodes.len() / 2 {
                for child in [2 * node, 2 * node + 1] {
                    nodes.push((Reverse(self.node(child)), child));
                }
                continue;
            }
            let position = node - self.nodes.len() / 2;
            if position < self.weights.len() && position != first && accept(position) {
                return Some(position);
            }
        }
        None
    }

    /// The load of the server at `position` may have changed; it is `load` now.
    pub fn update(&self, position: usize, load: impl Fn() -> u32) {
        let leaf = self.nodes.len() / 2 + position;
        let mut changed = false;
        loop {
            // Before it the load was changed or the leaf was written, behind it both are read.
            fence(SeqCst);
            let key = self.key(position, load());
            if self.node(leaf).key() == key {
                break;
            }
            let change = self.changes.fetch_add(1, Relaxed);
            self.nodes[leaf].store(Entry::new(key, change, position).0, SeqCst);
            changed = true;
        }
        let mut node = leaf;
        while changed && node > 1 {
            node /= 2;
            changed = false;
            loop {
                let least = self.node(2 * node).first(self.node(2 * node + 1));
                if self.node(node) == least {
                    break;
                }
                self.nodes[node].store(least.0, SeqCst);
                changed = true;
            }
        }
    }

    /// For how many changes the server at `position` has had its key.
    fn age(&self, position: usize) -> u64 {
        let entry = self.node(self.nodes.len() / 2 + position);
        u64::from(self.changes.load(Relaxed)).wrapping_sub(entry.change()) & CHANGE_MASK
    }

    fn node(&self, node: usize) -> Entry {
        Entry(self.nodes[node].load(SeqCst))
    }

    /// HAProxy's key of a server.
    fn key(&self, position: usize, load: u32) -> u64 {
        if load == 0 {
            return 0;
        }
        let weight = u64::from(self.weights[position].max(1));
        ((u64::from(load) + 1) * WEIGHT_MAX / weight).min(KEY_MAX)
    }
}

/// Where a server is in an order of loads, if it is in one.
#[derive(Debug, Default)]
pub struct OrderPlace {
    /// Whether it is in one. Sessions look at this alone if it is not.
    is_ordered: AtomicBool,
    ordered: ArcSwapOption<Ordered>,
}

#[derive(Debug)]
struct Ordered {
    order: Arc<LoadOrder>,
    position: usize,
}

impl OrderPlace {
    /// The load of the server may have changed; it is `load` now.
    #[inline]
    pub(super) fn changed(&self, load: impl Fn() -> u32) {
        if self.is_ordered.load(Relaxed) {
            self.update(load);
        }
    }

    #[inline(never)]
    fn update(&self, load: impl Fn() -> u32) {
        if let Some(ordered) = &*self.ordered.load() {
            ordered.order.update(ordered.position, load);
        }
    }

    fn set(&self, ordered: Option<Arc<Ordered>>) {
        let is_ordered = ordered.is_some();
        self.ordered.store(ordered);
        self.is_ordered.store(is_ordered, SeqCst);
    }

    /// The server is in no order any more. Control thread.
    pub fn leave(&self) {
        if self.is_ordered.load(Relaxed) {
            self.set(None);
        }
    }

    /// For how many changes of its order it has had its key, if its weight is `weight` there.
    fn age(&self, weight: u32) -> Option<u64> {
        let ordered = self.ordered.load();
        let Ordered { order, position } = &**ordered.as_ref()?;
        (order.weights[*position] == weight).then(|| order.age(*position))
    }
}

#[cfg(test)]
mod tests;
