//! Chooses a server among the usable ones. Pure except for the cursor. Workers call it; the control thread
//! builds the pickers.

pub mod bound;
pub mod ewma;
pub mod hash;
pub mod hashing;
pub mod maglev;
pub mod map;
pub mod random;
pub mod ring;
pub mod rotation;
pub mod tiers;

use crate::config::model::{Balance, HashOn, HashType, PreserveAffinity, Sample};
use crate::live::connect_time::Tick;
use crate::live::{BackendLive, LoadOrder, ServerLive};
use ewma::Ewma;
use hash::Value;
use hashing::Hashing;
use map::Map;
use random::Random;
use rotation::Rotation;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;
use tiers::Tiers;

/// What the picker needs to know of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Position in the backend's list of servers.
    pub index: u32,
    /// Its number in the statistics (`id`).
    pub id: u32,
    /// The number from which its places on a ring follow ([`hash::of_server`]).
    pub key: u32,
    /// The hash of its name ([`maglev::of_name`]), where its backend chooses by a table.
    pub name: u64,
    /// Weight without a slow start; a server with weight 0 is not chosen.
    pub weight: u32,
    /// Weight in force in sixteenths: less than 16 for each unit of weight during a slow start. HAProxy's `eweight`.
    pub eweight: u32,
    /// Weight as it is written, before operators changed it.
    pub written: u32,
    /// Its tier (`priority`); the lowest one is used first.
    pub priority: u8,
    /// Used only when no other is usable.
    pub backup: bool,
    /// May receive new sessions: not in maintenance, not draining, and not down or not believed to be.
    pub usable: bool,
    /// Usable although it is down by the checks, because its backend fails open.
    pub down: bool,
}

/// How a backend chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The algorithm.
    pub balance: Balance,
    /// How an algorithm that hashes finds the server of a hash.
    pub hash_type: HashType,
    /// What `hash` hashes.
    pub hash_on: HashOn,
    /// Sessions of a server, in percent of its share, above which a hash leads to the next one; 0: no limit.
    pub hash_balance_factor: u32,
    /// Which servers a hash on a ring passes over.
    pub preserve_affinity: PreserveAffinity,
    /// How many slots the table of `maglev` has: a prime number.
    pub table_size: u32,
    /// How many servers `random` draws.
    pub draws: u32,
    /// Which of the usable servers are in use.
    pub tiers: Tiers,
}

/// The servers that are in use now ([`tiers::in_use`]), and the algorithm that chooses.
#[derive(Debug, Clone)]
// A tag of its own: round robin is told by one comparison.
#[repr(u8)]
pub enum Picker {
    /// `balance = "roundrobin"`.
    RoundRobin(Rotation),
    /// `balance = "static-rr"`.
    StaticRr(Map),
    /// `balance = "first"`: in the order of their numbers.
    First(Box<[u32]>),
    /// `balance = "random"`.
    Random(Random),
    /// `balance = "leastconn"`.
    LeastConn {
        /// The order of the chosen ones.
        order: Arc<LoadOrder>,
        /// Their indices, by their positions in the order.
        servers: Box<[u32]>,
    },
    /// `balance = "source"`, `"hash"` and `"maglev"`.
    Hash(Box<Hashing>),
    /// `balance = "ewma"`.
    Ewma(Ewma),
}

/// What is known of a session when its server is chosen. Retries and second attempts use the same input.
#[derive(Debug, Clone, Copy)]
pub struct PickInput {
    /// Its position in the rotation. Retries go on from there.
    cursor: RotationCursor,
    /// Its hash, for an algorithm that hashes. `None`: it takes turns there too.
    hash: Option<u32>,
    /// The sessions of the backend with this one, for an algorithm with a bound.
    sessions: u32,
    /// When it began, for an algorithm that chooses by times.
    began: Tick,
}

impl PickInput {
    /// The input of a new session for an algorithm that takes turns: advances the backend's cursor. Called once per
    /// session.
    pub fn take(cursor: &AtomicUsize) -> Self {
        Self {
            cursor: RotationCursor(cursor.fetch_add(1, Relaxed)),
            hash: None,
            sessions: 0,
            began: Tick::default(),
        }
    }

    /// The same for `picker`, the one of the backend. `sample` tells what is known of the session; as in HAProxy it takes
    /// turns when that is nothing, such as the address of a unix socket's client.
    pub fn new(
        backend: &BackendLive,
        picker: &Picker,
        sample: impl FnOnce(Sample) -> Option<Value>,
        now: Instant,
    ) -> Self {
        let mut input = Self::take(&backend.cursor);
        // One comparison for round robin.
        if !matches!(picker, Picker::RoundRobin(_)) {
            input.complete(backend, picker, sample, now);
        }
        input
    }

    #[inline(never)]
    fn complete(
        &mut self,
        backend: &BackendLive,
        picker: &Picker,
        sample: impl FnOnce(Sample) -> Option<Value>,
        now: Instant,
    ) {
        match picker {
            Picker::Hash(hashing) => {
                self.hash = hashing.hash(sample);
                if hashing.is_bounded() {
                    // As in HAProxy those that wait do not count.
                    let waiting = backend.queue.waiting();
                    self.sessions = backend.active.get().saturating_sub(waiting);
                }
            }
            Picker::Ewma(_) => self.began = backend.tick(now),
            _ => {}
        }
    }
}

/// A position in a rotation.
#[derive(Debug, Clone, Copy)]
pub struct RotationCursor(usize);

impl Picker {
    /// A picker over the usable `candidates`. `order` makes the order of the loads of some of them, if one is needed, and
    /// `live` has the counters of one.
    pub fn new(
        candidates: &[Candidate],
        choice: Choice,
        order: impl FnOnce(&[Candidate]) -> Arc<LoadOrder>,
        live: impl Fn(&Candidate) -> Arc<ServerLive>,
    ) -> Self {
        let mut chosen = tiers::in_use(candidates, choice.tiers);
        match choice.balance {
            Balance::RoundRobin => Self::RoundRobin(Rotation::new(&chosen)),
            Balance::StaticRr => Self::StaticRr(Map::new(&chosen, candidates)),
            Balance::First => {
                chosen.sort_by_key(|server| server.id);
                Self::First(chosen.iter().map(|server| server.index).collect())
            }
            Balance::Random => Self::Random(Random::new(&chosen, choice.draws)),
            Balance::LeastConn => Self::LeastConn {
                order: order(&chosen),
                servers: chosen.iter().map(|server| server.index).collect(),
            },
            Balance::Source | Balance::Hash | Balance::Maglev => {
                Self::Hash(Box::new(Hashing::new(&chosen, candidates, choice)))
            }
            Balance::Ewma => Self::Ewma(Ewma::new(&chosen, live)),
        }
    }

    /// Whether no server can be chosen.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::RoundRobin(rotation) => rotation.slots().is_empty(),
            Self::StaticRr(map) => map.slots().is_empty(),
            Self::First(servers) | Self::LeastConn { servers, .. } => servers.is_empty(),
            Self::Random(random) => random.is_empty(),
            Self::Hash(hashing) => hashing.is_empty(),
            Self::Ewma(ewma) => ewma.is_empty(),
        }
    }

    /// Whether it chooses by an order of loads, and the server with this index is in it.
    pub fn orders(&self, index: u32) -> bool {
        matches!(self, Self::LeastConn { servers, .. } if servers.binary_search(&index).is_ok())
    }

    /// Whether this session has a server of its own: which ones its hash passes over, and if it comes to a full one it
    /// waits for that. `None`, as with the other algorithms: it waits for the first free slot.
    pub fn affinity(&self, input: &PickInput) -> Option<PreserveAffinity> {
        match self {
            Self::Hash(hashing) if input.hash.is_some() => Some(hashing.preserve_affinity()),
            _ => None,
        }
    }

    /// The server for which a session waits whose hash passes over all: of those that `accept` accepts the last one
    /// before the place of the hash. `None` with an algorithm that passes over none.
    pub fn pick_before(&self, input: &PickInput, accept: impl FnMut(u32) -> bool) -> Option<u32> {
        match self {
            Self::Hash(hashing) => hashing.pick_before(*input, accept),
            _ => None,
        }
    }

    /// When the session began, if the algorithm chooses by times.
    pub fn began(&self, input: &PickInput) -> Option<Tick> {
        self.is_by_time().then_some(input.began)
    }

    /// Whether it chooses by the times of connects, so that they are to be learnt.
    pub fn is_by_time(&self) -> bool {
        matches!(self, Self::Ewma(_))
    }

    /// The first server that `accept` accepts, in the order of the algorithm. `load` tells the load of a server.
    ///
    /// # Hot path: usually the first one, by round robin.
    pub fn pick(
        &self,
        input: &PickInput,
        load: impl Fn(u32) -> u32,
        accept: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        if let Self::RoundRobin(rotation) = self {
            return from(rotation.slots(), input.cursor.0, accept);
        }
        self.pick_otherwise(*input, load, accept)
    }

    /// The same for the other algorithms, so that they cost round robin little more than a comparison.
    #[inline(never)]
    fn pick_otherwise(
        &self,
        input: PickInput,
        load: impl Fn(u32) -> u32,
        mut accept: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        match self {
            Self::RoundRobin(rotation) => from(rotation.slots(), input.cursor.0, accept),
            Self::StaticRr(map) => from(map.slots(), input.cursor.0, accept),
            Self::First(servers) => servers.iter().copied().find(|&index| accept(index)),
            Self::Random(random) => random.pick(|| fastrand::u32(..), load, accept),
            Self::LeastConn { order, servers } => {
                let chosen = order.pick(
                    |position| load(servers[position]),
                    |position| accept(servers[position]),
                );
                chosen.map(|position| servers[position])
            }
            Self::Hash(hashing) => hashing.pick(input, load, accept),
            Self::Ewma(ewma) => ewma.pick(input.began, || fastrand::u32(..), load, accept),
        }
    }
}

/// The first one that `accept` accepts of the slots from `start` on, once round.
fn from(slots: &[u32], start: usize, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
    let start = start.checked_rem(slots.len())?;
    let (before, from) = slots.split_at(start);
    let mut order = from.iter().chain(before).copied();
    order.find(|&index| accept(index))
}

#[cfg(test)]
mod tests;
