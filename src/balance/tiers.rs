//! Which servers of a backend new sessions are shared among: those of the tiers in use (`priority`), or backup servers.
//!
//! A tier is the servers of one priority that are no backups. Backup servers have HAProxy's meaning: they come after all
//! tiers.

use super::Candidate;
use std::collections::BTreeMap;

/// Sixteenths, in which weights in force are.
const SIXTEENTHS: u64 = 16;

/// What a backend says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiers {
    /// Use all backup servers at once instead of the first.
    pub allbackups: bool,
    /// Percent of the weight of a tier; when less of it is usable, the next tier is in use as well. 0: when none is.
    pub spill_below: u32,
    /// Fewest usable servers with which any is in use.
    pub min_servers: u32,
}

/// The weight of a tier in sixteenths.
#[derive(Debug, Default)]
struct Weights {
    /// Of all its servers, usable or not.
    all: u64,
    /// In force, of those that are usable.
    usable: u64,
}

impl Weights {
    fn add(&mut self, server: &Candidate) {
        // A weight of 0 that an operator has set drains a server, which is missing then.
        let whole = if server.weight > 0 {
            server.weight
        } else {
            server.written
        };
        self.all += SIXTEENTHS * u64::from(whole);
        if server.may_be_chosen() {
            self.usable += u64::from(server.eweight);
        }
    }

    /// Whether the next tier is in use as well.
    fn spill(&self, below: u32) -> bool {
        self.usable == 0 || self.usable * 100 < self.all * u64::from(below)
    }
}

impl Candidate {
    fn may_be_chosen(&self) -> bool {
        self.usable && self.weight > 0
    }
}

/// The candidates that are in use, in their order: the usable ones of the first tiers; where none of any tier is, the
/// first usable backup, or all of them with `allbackups` (HAProxy's rule). In a backend that fails open those of all
/// tiers, and backups as the checks say.
pub fn in_use(candidates: &[Candidate], tiers: Tiers) -> Vec<Candidate> {
    let of_role = |backup: bool| {
        let usable = candidates.iter().filter(|one| one.may_be_chosen());
        usable.filter(move |one| one.backup == backup)
    };
    let count = of_role(false).count() + of_role(true).count();
    if count < tiers.min_servers as usize {
        return Vec::new();
    }
    let fails_open = candidates.iter().any(|one| one.may_be_chosen() && one.down);
    let last = if fails_open {
        u8::MAX
    } else {
        last_tier(candidates, tiers.spill_below)
    };
    let active = of_role(false).filter(|one| one.priority <= last);
    let mut chosen: Vec<Candidate> = active.copied().collect();
    if chosen.iter().all(|one| one.down) {
        let first = of_role(true).find(|one| !one.down);
        let first = first.or_else(|| of_role(true).next());
        let is_it = |one: &&Candidate| first.is_some_and(|first| first.index == one.index);
        let backups = of_role(true).filter(|one| tiers.allbackups || is_it(one));
        chosen.extend(backups);
        chosen.sort_by_key(|one| one.index);
    }
    chosen
}

/// The priority of the last tier that is in use.
fn last_tier(candidates: &[Candidate], spill_below: u32) -> u8 {
    let mut tiers: BTreeMap<u8, Weights> = BTreeMap::new();
    for server in candidates.iter().filter(|one| !one.backup) {
        tiers.entry(server.priority).or_default().add(server);
    }
    let mut tiers = tiers.into_iter();
    let last = tiers.find(|(_, weights)| !weights.spill(spill_below));
    last.map_or(u8::MAX, |(priority, _)| priority)
}
