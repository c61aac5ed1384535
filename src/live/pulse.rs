//! Signs of life: each worker moves a number of its own on, and the watchdog looks whether all
//! have moved.
//!
//! Written by the workers, read by the watchdog on the control thread. Invariant: a number moves
//! only while the worker's runtime turns; a worker that has ended properly is not missed.

use crossbeam_utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The number of a worker that has ended.
const ENDED: u64 = u64::MAX;

/// A worker's own number.
#[derive(Debug)]
pub struct Pulse {
    every: Duration,
    beats: Arc<CachePadded<AtomicU64>>,
}

impl Pulse {
    /// Beats until it is dropped, which means that the worker has ended.
    pub async fn beat(self) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.count();
        }
    }

    fn count(&self) {
        // One writer.
        self.beats.store(self.beats.load(Relaxed) + 1, Relaxed);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        // A panic is no proper end, and ends the process.
        if !std::thread::panicking() {
            self.beats.store(ENDED, Relaxed);
        }
    }
}

/// The watchdog's view of all workers.
#[derive(Debug)]
pub struct Pulses(Vec<(Arc<CachePadded<AtomicU64>>, u64)>);

impl Pulses {
    /// Numbers for `count` workers, each to be moved on `every` so often.
    pub fn new(count: usize, every: Duration) -> (Self, Vec<Pulse>) {
        let pulses: Vec<Pulse> = (0..count)
            .map(|_| Pulse {
                every,
                beats: Arc::default(),
            })
            .collect();
        let seen = pulses
            .iter()
            .map(|pulse| (Arc::clone(&pulse.beats), 0))
            .collect();
        (Self(seen), pulses)
    }

    /// The numbers of the workers that have not moved since this was last asked.
    pub fn silent(&mut self) -> Vec<usize> {
        let mut silent = Vec::new();
        for (worker, (beats, seen)) in self.0.iter_mut().enumerate() {
            let now = beats.load(Relaxed);
            if now == *seen && now != ENDED {
                silent.push(worker);
            }
            *seen = now;
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_does_not_beat_is_named_until_it_does() {
        let (mut pulses, workers) = Pulses::new(3, Duration::from_secs(1));
        assert_eq!(pulses.silent(), [0, 1, 2], "none has begun");
        workers.iter().for_each(Pulse::count);
        assert!(pulses.silent().is_empty());
        workers[0].count();
        workers[2].count();
        assert_eq!(pulses.silent(), [1]);
        workers.iter().for_each(Pulse::count);
        assert!(pulses.silent().is_empty(), "late, but there");
    }

    #[test]
    fn a_worker_that_has_ended_is_not_missed() {
        let (mut pulses, mut workers) = Pulses::new(2, Duration::from_secs(1));
        drop(workers.pop());
        workers[0].count();
        assert!(pulses.silent().is_empty());
        assert_eq!(pulses.silent(), [0]);
    }

    #[test]
    fn a_panic_is_silence() {
        let (mut pulses, workers) = Pulses::new(1, Duration::from_secs(1));
        let thread = std::thread::spawn(move || {
            let _held = workers;
            panic!("a bug");
        });
        assert!(thread.join().is_err());
        assert_eq!(pulses.silent(), [0]);
    }

    #[test]
    fn it_beats_by_the_clock_of_its_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let (mut pulses, mut workers) = Pulses::new(1, Duration::from_millis(1));
        let pulse = workers.remove(0);
        runtime.block_on(async {
            let _ = tokio::time::timeout(Duration::from_millis(20), pulse.beat()).await;
        });
        assert!(pulses.silent().is_empty());
    }
}
