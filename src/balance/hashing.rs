//! `balance = "source"`, `"hash"` and `"maglev"`: from what is known of a session to its server.

use super::bound::Bound;
use super::hash::{self, Value};
use super::maglev::{self, Maglev};
use super::map::Map;
use super::ring::Ring;
use super::{Candidate, Choice, PickInput, from};
use crate::config::model::{Balance, HashOn, HashType, PreserveAffinity, Sample};

/// How servers are found by hashes.
#[derive(Debug, Clone)]
pub struct Hashing {
    /// What is hashed; `None`: the client's address, by the hash of `source`.
    hash_on: Option<HashOn>,
    hash_type: HashType,
    lookup: Lookup,
    bound: Option<Bound>,
    preserve_affinity: PreserveAffinity,
}

/// Where hashes lead.
#[derive(Debug, Clone)]
enum Lookup {
    /// `hash-type = "map-based"`.
    Map(Map),
    /// `hash-type = "consistent"`.
    Ring(Ring),
    /// `balance = "maglev"`.
    Maglev(Maglev),
}

impl Hashing {
    /// The servers that are `chosen` of `all`.
    pub(super) fn new(chosen: &[Candidate], all: &[Candidate], choice: Choice) -> Self {
        let lookup = match (choice.balance, choice.hash_type.consistent) {
            (Balance::Maglev, _) => Lookup::Maglev(Maglev::new(chosen, choice.table_size)),
            (_, true) => Lookup::Ring(Ring::new(chosen)),
            (_, false) => Lookup::Map(Map::new(chosen, all)),
        };
        let is_map = matches!(lookup, Lookup::Map(_));
        Self {
            hash_on: (choice.balance != Balance::Source).then_some(choice.hash_on),
            hash_type: choice.hash_type,
            lookup,
            bound: Bound::new(chosen, choice.hash_balance_factor).filter(|_| !is_map),
            preserve_affinity: if is_map {
                PreserveAffinity::Always
            } else {
                choice.preserve_affinity
            },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match &self.lookup {
            Lookup::Map(map) => map.slots().is_empty(),
            Lookup::Ring(ring) => ring.is_empty(),
            Lookup::Maglev(table) => table.is_empty(),
        }
    }

    /// Whether the number of the backend's sessions matters.
    pub(super) fn is_bounded(&self) -> bool {
        self.bound.is_some()
    }

    /// Which servers a hash passes over.
    pub(super) fn preserve_affinity(&self) -> PreserveAffinity {
        self.preserve_affinity
    }

    /// The hash of a session of which `sample` tells something; `None`: it takes turns.
    pub(super) fn hash(&self, sample: impl FnOnce(Sample) -> Option<Value>) -> Option<u32> {
        let hash = match self.hash_on {
            None => match sample(Sample::Source)? {
                Value::Address(address) => hash::of_address(address),
                Value::Number(_) => return None,
            },
            Some(hash_on) => {
                let value = match sample(hash_on.sample)? {
                    Value::Address(address) => Value::Address(hash_on.masked(address)?),
                    number @ Value::Number(_) => number,
                };
                if let Lookup::Maglev(_) = self.lookup {
                    return Some(maglev::of_value(value));
                }
                hash::of_value(self.hash_type.function, value)
            }
        };
        Some(if self.hash_type.avalanche {
            hash::avalanche(hash)
        } else {
            hash
        })
    }

    /// The first server that `accept` accepts, from the place of the hash on. One without room is passed over if
    /// another one has room.
    pub(super) fn pick(
        &self,
        input: PickInput,
        load: impl Fn(u32) -> u32,
        accept: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let turn = input.cursor.0;
        match &self.lookup {
            Lookup::Map(map) => {
                let start = input.hash.map_or(turn, |hash| hash as usize);
                from(map.slots(), start, accept)
            }
            Lookup::Ring(ring) => {
                let start = input.hash.map_or(turn, |hash| ring.nearest(hash));
                self.pick_within(|| ring.from(start), input.sessions, load, accept)
            }
            Lookup::Maglev(table) => {
                let start = input.hash.map_or(turn, |hash| hash as usize);
                self.pick_within(|| table.from(start), input.sessions, load, accept)
            }
        }
    }

    /// The first one in this order that `accept` accepts. One without room is passed over if another one has room.
    fn pick_within<I: Iterator<Item = u32>>(
        &self,
        order: impl Fn() -> I,
        sessions: u32,
        load: impl Fn(u32) -> u32,
        mut accept: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let found = self.bound.as_ref().and_then(|bound| {
            let has_room = |index| bound.has_room(index, load(index), sessions);
            let mut with_room = order().filter(|&index| has_room(index));
            with_room.find(|&index| accept(index))
        });
        found.or_else(|| order().find(|&index| accept(index)))
    }

    /// The last server before the place of the hash of those that `accept` accepts.
    pub(super) fn pick_before(
        &self,
        input: PickInput,
        mut accept: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        match &self.lookup {
            Lookup::Map(_) => None,
            Lookup::Ring(ring) => {
                let start = ring.nearest(input.hash?);
                ring.before(start).find(|&index| accept(index))
            }
            Lookup::Maglev(table) => {
                let mut order = table.from(input.hash? as usize).rev();
                order.find(|&index| accept(index))
            }
        }
    }
}
