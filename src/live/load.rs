//! How many sessions each worker has: what connections are shared out by. Read and written from
//! any worker; moved by guards only (`live::slot`).

use super::gauge::Gauge;

/// One gauge a worker.
#[derive(Debug)]
pub struct Load(Box<[Gauge]>);

impl Load {
    /// For so many threads: the workers, and the control thread.
    pub(super) fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| Gauge::default()).collect())
    }

    /// Of all workers: the control thread, the last, has none.
    pub fn workers(&self) -> impl Iterator<Item = &Gauge> {
        self.0.iter().take(self.0.len().saturating_sub(1))
    }

    /// Sessions of worker number `worker`.
    pub fn of(&self, worker: usize) -> &Gauge {
        &self.0[worker]
    }
}
