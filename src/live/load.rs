//! How many sessions each worker has; workers hand off connections by it. Any worker reads and writes it,
//! through guards only (`live::slot`).

use super::gauge::Gauge;

/// One gauge per worker.
#[derive(Debug)]
pub struct Load(Box<[Gauge]>);

impl Load {
    /// Gauges for `threads` threads: the workers and the control thread.
    pub(super) fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| Gauge::default()).collect())
    }

    /// The gauges of all workers. The control thread, which is the last, has no sessions.
    pub fn workers(&self) -> impl Iterator<Item = &Gauge> {
        self.0.iter().take(self.0.len().saturating_sub(1))
    }

    /// Sessions of worker number `worker`.
    pub fn of(&self, worker: usize) -> &Gauge {
        &self.0[worker]
    }
}
