//! Proves to the watchdog that each worker runs: each one increments a number of its own, and the watchdog
//! checks that all have changed.
//!
//! Written by the workers, read by the watchdog on the control thread. Invariant: a number changes only while
//! the worker runs its tasks. A worker that has ended in order is not reported.

use crossbeam_utils::CachePadded;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The number of a worker that has ended.
const ENDED: u64 = u64::MAX;

/// The number of one worker.
#[derive(Debug)]
pub struct Pulse {
    every: Duration,
    beats: Arc<CachePadded<AtomicU64>>,
}

impl Pulse {
    /// Increments the number until it is dropped, which means that the worker has ended. `sleep` is that of the worker.
    pub async fn beat<S: Future<Output = ()>>(self, sleep: impl Fn(Duration) -> S) {
        loop {
            self.count();
            sleep(self.every).await;
        }
    }

    fn count(&self) {
        // There is one writer.
        self.beats.store(self.beats.load(Relaxed) + 1, Relaxed);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        // After a panic the worker has not ended in order, and the process ends.
        if !std::thread::panicking() {
            self.beats.store(ENDED, Relaxed);
        }
    }
}

/// The watchdog's view of all workers.
#[derive(Debug)]
pub struct Pulses(Vec<(Arc<CachePadded<AtomicU64>>, u64)>);

impl Pulses {
    /// Numbers for `count` workers, each to be incremented once in `every`.
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

    /// The workers whose numbers have not changed since the last call.
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
    fn a_worker_that_has_ended_is_not_reported() {
        let (mut pulses, mut workers) = Pulses::new(2, Duration::from_secs(1));
        drop(workers.pop());
        workers[0].count();
        assert!(pulses.silent().is_empty());
        assert_eq!(pulses.silent(), [0]);
    }

    #[test]
    fn a_worker_that_panics_is_reported() {
        let (mut pulses, workers) = Pulses::new(1, Duration::from_secs(1));
        let thread = std::thread::spawn(move || {
            let _held = workers;
            panic!("a bug");
        });
        assert!(thread.join().is_err());
        assert_eq!(pulses.silent(), [0]);
    }

    #[test]
    fn it_beats_by_the_clock_of_its_worker() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let (mut pulses, mut workers) = Pulses::new(1, Duration::from_millis(1));
        let pulse = workers.remove(0);
        runtime.block_on(async {
            let _ = tokio::time::timeout(Duration::from_millis(20), pulse.beat(tokio::time::sleep))
                .await;
        });
        assert!(pulses.silent().is_empty());
    }
}
