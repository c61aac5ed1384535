//! Counters in shards, one per writing thread. Runs on any thread.
//!
//! Invariant: a shard has one writer. [`WorkerToken`] is `!Send` and made once per thread, and [`Shards::mine`]
//! is the only access to the shard of a token. So a worker cannot write another's by mistake, and
//! [`Counter::add`] can be a load and a store instead of a locked addition.

use crossbeam_utils::CachePadded;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Permits writing one shard of all counters.
///
/// Not `Send`: it is made on the thread that uses it.
#[derive(Debug)]
pub struct WorkerToken {
    shard: usize,
    _thread: PhantomData<*const ()>,
}

impl WorkerToken {
    /// The token of shard `shard`. Called once per shard: workers have 0 to n-1, the control thread has n.
    pub fn new(shard: usize) -> Self {
        Self {
            shard,
            _thread: PhantomData,
        }
    }

    /// Number of the shard.
    pub fn shard(&self) -> usize {
        self.shard
    }
}

/// One `T` per writing thread, each on cache lines of its own.
#[derive(Debug)]
pub struct Shards<T> {
    shards: Box<[CachePadded<T>]>,
}

impl<T: Default> Shards<T> {
    /// `count` empty shards: one per worker and one for the control thread.
    pub fn new(count: usize) -> Self {
        Self {
            shards: (0..count).map(|_| CachePadded::default()).collect(),
        }
    }
}

impl<T> Shards<T> {
    /// The shard of this thread.
    pub fn mine(&self, token: &WorkerToken) -> &T {
        &self.shards[token.shard]
    }

    /// All shards, for reading.
    pub fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.shards.iter().map(|shard| &**shard)
    }

    /// Sum of a counter over all shards.
    pub fn sum(&self, counter: impl Fn(&T) -> &Counter) -> u64 {
        self.iter()
            .map(|shard| counter(shard).get())
            .fold(0, u64::wrapping_add)
    }

    /// Largest value of a maximum over all shards.
    pub fn max(&self, maximum: impl Fn(&T) -> &Maximum) -> u32 {
        self.iter()
            .map(|shard| maximum(shard).get())
            .max()
            .unwrap_or(0)
    }
}

/// A number that only grows, with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. # Hot path: no locked instruction, because the shard has one writer.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Starts again at 0. Called by the writer.
    pub fn clear(&self) {
        self.0.store(0, Relaxed);
    }
}

/// The largest value seen, with one writer.
#[derive(Debug, Default)]
pub struct Maximum(AtomicU32);

impl Maximum {
    /// Takes `value` into account.
    pub fn see(&self, value: u32) {
        if value > self.0.load(Relaxed) {
            self.0.store(value, Relaxed);
        }
    }

    /// The largest value so far.
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// Forgets the values so far. Called by the writer.
    pub fn clear(&self) {
        self.0.store(0, Relaxed);
    }
}

/// A number of things that exist now, with one writer.
#[derive(Debug, Default)]
pub struct Level(AtomicU32);

impl Level {
    /// There are `value` now.
    pub fn set(&self, value: u32) {
        self.0.store(value, Relaxed);
    }

    /// How many there are now.
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_of_many_threads_add_up() {
        let shards: Shards<Counter> = Shards::new(3);
        std::thread::scope(|scope| {
            for shard in 0..3 {
                let shards = &shards;
                scope.spawn(move || {
                    let token = WorkerToken::new(shard);
                    for _ in 0..10_000 {
                        shards.mine(&token).add(2);
                    }
                });
            }
        });
        assert_eq!(shards.sum(|counter| counter), 60_000);
    }
}
