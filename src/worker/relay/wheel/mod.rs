//! When each session is to be checked: a hierarchical timer wheel over small integer keys.
//!
//! Pure; runs on a worker. Scheduling, moving and cancelling are O(1) and need 12 bytes a key, and no
//! allocation once the keys exist. Ticks at which nothing happens are skipped. A key fires in the first
//! [`Wheel::advance`] that reaches its tick, never before. (Varghese and Lauck, 1987, scheme 7.)

/// Slots of a level, as a power of two.
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
/// Levels. With ticks of 100 ms the last one covers 19 days; later ticks wait in it and are placed again when
/// it comes round.
const LEVELS: usize = 4;
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
    /// Slot over all levels, or [`NONE`] when not scheduled.
    slot: u32,
}

/// A timer wheel. Ticks are counted from its creation.
#[derive(Debug)]
pub(super) struct Wheel {
    now: u64,
    heads: [u32; SLOTS * LEVELS],
    /// For each level a bit per slot, set when the slot has a key.
    occupied: [u64; LEVELS],
    links: Vec<Link>,
    ticks: Vec<u64>,
}

impl Wheel {
    /// An empty wheel at tick 0.
    pub(super) fn new() -> Self {
        Self {
            now: 0,
            heads: [NONE; SLOTS * LEVELS],
            occupied: [0; LEVELS],
            links: Vec::new(),
            ticks: Vec::new(),
        }
    }

    /// The tick that `key` fires at, if it is scheduled.
    pub(super) fn tick_of(&self, key: u32) -> Option<u64> {
        let link = self.links.get(key as usize)?;
        (link.slot != NONE).then(|| self.ticks[key as usize])
    }

    /// Fires `key` at `tick` only, or at the next tick if that is past.
    pub(super) fn schedule(&mut self, key: u32, tick: u64) {
        self.cancel(key);
        let index = key as usize;
        if index >= self.links.len() {
            self.links.resize(
                index + 1,
                Link {
                    before: NONE,
                    after: NONE,
                    slot: NONE,
                },
            );
            self.ticks.resize(index + 1, 0);
        }
        self.ticks[index] = tick.max(self.now + 1);
        self.place(key);
    }

    /// Removes `key`, if it is scheduled.
    pub(super) fn cancel(&mut self, key: u32) {
        let Some(&Link {
            before,
            after,
            slot,
        }) = self.links.get(key as usize)
        else {
            return;
        };
        if slot == NONE {
            return;
        }
        if before == NONE {
            self.heads[slot as usize] = after;
            self.note(slot as usize);
        } else {
            self.links[before as usize].after = after;
        }
        if after != NONE {
            self.links[after as usize].before = before;
        }
        self.links[key as usize].slot = NONE;
    }

    /// Advances to tick `to` and appends the keys that fire to `fired`.
    pub(super) fn advance(&mut self, to: u64, fired: &mut Vec<u32>) {
        while let Some(next) = self.next_stop().filter(|&next| next <= to) {
            self.now = next;
            // Where a level comes round, the current slot of the next one is spread over the levels below.
            let coarse = (1..LEVELS)
                .take_while(|level| self.now.is_multiple_of(span(*level)))
                .count();
            for level in (1..=coarse).rev() {
                self.spread(level);
            }
            let slot = slot_of(0, self.now);
            while self.heads[slot] != NONE {
                let key = self.heads[slot];
                self.cancel(key);
                fired.push(key);
            }
        }
        // Nothing happens in between, however long that is.
        self.now = self.now.max(to);
    }

    /// The next tick at which a key fires or a slot is spread, if any is scheduled.
    fn next_stop(&self) -> Option<u64> {
        let stops = (0..LEVELS).filter_map(|level| {
            let current = self.now / span(level);
            let next = u32::try_from((current + 1) % SLOTS as u64).expect("less than SLOTS");
            let ahead = self.occupied[level].rotate_right(next);
            let slots = (ahead != 0).then(|| u64::from(ahead.trailing_zeros()) + 1)?;
            Some((current + slots) * span(level))
        });
        stops.min()
    }

    /// Notes whether a slot has a key.
    fn note(&mut self, slot: usize) {
        let (level, bit) = (slot / SLOTS, 1 << (slot % SLOTS));
        if self.heads[slot] == NONE {
            self.occupied[level] &= !bit;
        } else {
            self.occupied[level] |= bit;
        }
    }

    /// Frees the memory of keys from `keys` on. None of them may be scheduled.
    pub(super) fn truncate(&mut self, keys: usize) {
        debug_assert!(self.links.iter().skip(keys).all(|link| link.slot == NONE));
        self.links.truncate(keys);
        self.links.shrink_to_fit();
        self.ticks.truncate(keys);
        self.ticks.shrink_to_fit();
    }

    fn spread(&mut self, level: usize) {
        let slot = slot_of(level, self.now);
        let mut key = std::mem::replace(&mut self.heads[slot], NONE);
        self.note(slot);
        while key != NONE {
            let after = self.links[key as usize].after;
            self.place(key);
            key = after;
        }
    }

    /// Links `key` into the slot of its tick.
    fn place(&mut self, key: u32) {
        let tick = self.ticks[key as usize];
        let ahead = tick - self.now;
        let level = (0..LEVELS)
            .find(|&level| ahead < span(level + 1))
            .unwrap_or(LEVELS - 1);
        let seen = if level == LEVELS - 1 {
            tick.min(self.now + span(LEVELS) - 1)
        } else {
            tick
        };
        let slot = slot_of(level, seen);
        let head = std::mem::replace(&mut self.heads[slot], key);
        self.note(slot);
        if head != NONE {
            self.links[head as usize].before = key;
        }
        let slot = u32::try_from(slot).expect("there are few slots");
        self.links[key as usize] = Link {
            before: NONE,
            after: head,
            slot,
        };
    }
}

/// Ticks that one slot of `level` covers.
fn span(level: usize) -> u64 {
    1 << (BITS * u32::try_from(level).expect("there are few levels"))
}

fn slot_of(level: usize, tick: u64) -> usize {
    let within = usize::try_from(tick / span(level) % SLOTS as u64).expect("less than SLOTS");
    level * SLOTS + within
}

#[cfg(test)]
mod tests;
