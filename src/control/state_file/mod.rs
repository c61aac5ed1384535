//! Server-state files: what is known of servers survives a restart.
//!
//! They are read before the checks begin, and written once a minute, soon after an operator has changed a server, and at
//! the beginning of a stop: from then on another process may serve and write. The format is HAProxy's ([`crate::stats::servers_state`]). A file is replaced as a whole, so that nobody reads a
//! part of one. A thread of the pool writes, because a disk may be slow; one write at a time. After a handover the next
//! process writes.

mod read;
mod write;

pub(super) use read::read;

use crate::state::Snapshot;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use write::Written;

/// The longest time between two writes.
const INTERVAL: Duration = Duration::from_secs(60);
/// How long the last write may take.
const LAST_MAX: Duration = Duration::from_secs(2);

/// When the files are written.
#[derive(Debug)]
pub(super) struct StateFileWriter {
    /// When the last write has begun.
    begun: Instant,
    /// The snapshot that was looked at last, and what operators have decided in it.
    decided: Option<(Arc<Snapshot>, u64)>,
    /// An operator has changed something since then.
    changed: bool,
    writing: Option<JoinHandle<Vec<Written>>>,
    /// What has failed the last time, and why.
    failed: HashMap<PathBuf, String>,
    /// The process stops: the next write is the last.
    stops: bool,
    /// The last write has begun, or another process writes.
    is_over: bool,
}

impl StateFileWriter {
    /// The first write is due with the first second, so that a file that cannot be written is known of from the start.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            decided: None,
            changed: true,
            writing: None,
            failed: HashMap::new(),
            stops: false,
            is_over: false,
        }
    }

    /// Once a second: writes what is due.
    pub(super) async fn tick(&mut self, snapshot: &Arc<Snapshot>, now: Instant) {
        if self.is_over {
            return;
        }
        self.look_at(snapshot);
        if self.writing.as_ref().is_some_and(|it| !it.is_finished()) {
            return;
        }
        self.written().await;
        if self.stops {
            self.is_over = true;
            return self.begin(snapshot, (now, true));
        }
        if self.changed || now.saturating_duration_since(self.begun) >= INTERVAL {
            self.begin(snapshot, (now, false));
        }
    }

    /// After a handover the next process writes.
    pub(super) fn leave(&mut self) {
        self.is_over = true;
    }

    /// A stop has begun: what is known now is written, and nothing after it.
    pub(super) fn stop(&mut self) {
        self.stops = true;
    }

    /// Waits for the last write. It begins here if it has not.
    pub(super) async fn finish(mut self, snapshot: &Arc<Snapshot>) {
        let last = async {
            self.written().await;
            if !self.is_over {
                self.begin(snapshot, (Instant::now(), true));
                self.written().await;
            }
        };
        if timeout(LAST_MAX, last).await.is_err() {
            tracing::warn!("the server-state files were not written in time");
        }
    }

    /// Notes whether an operator has changed a server since the last look.
    fn look_at(&mut self, snapshot: &Arc<Snapshot>) {
        let Some((seen, before)) = &mut self.decided else {
            self.decided = Some((Arc::clone(snapshot), decided(snapshot)));
            return;
        };
        if !Arc::ptr_eq(seen, snapshot) {
            let now = decided(snapshot);
            self.changed |= now != *before;
            (*seen, *before) = (Arc::clone(snapshot), now);
        }
    }

    fn begin(&mut self, snapshot: &Arc<Snapshot>, (now, last): (Instant, bool)) {
        (self.begun, self.changed) = (now, false);
        let targets = write::targets(snapshot);
        if !targets.is_empty() {
            let snapshot = Arc::clone(snapshot);
            let writes = move || write::write(targets, &snapshot, (now, last));
            self.writing = Some(spawn_blocking(writes));
        }
    }

    /// Waits until what is being written is, and says what has failed, once.
    async fn written(&mut self) {
        let Some(writing) = self.writing.take() else {
            return;
        };
        let mut failed = HashMap::new();
        for Written { path, result } in writing.await.unwrap_or_default() {
            let before = self.failed.remove(&path);
            match result {
                Err(error) => {
                    let said = error.to_string();
                    if before.as_ref() != Some(&said) {
                        let path = path.display();
                        tracing::warn!(%path, %error, "cannot write a server-state file");
                    }
                    failed.insert(path, said);
                }
                Ok(()) if before.is_some() => {
                    tracing::info!(path = %path.display(), "a server-state file is written again");
                }
                Ok(()) => {}
            }
        }
        self.failed = failed;
    }
}

/// What operators have decided: a number that is another one when that is something else.
fn decided(snapshot: &Snapshot) -> u64 {
    let mut hasher = DefaultHasher::new();
    for backend in snapshot.backends.iter().flatten() {
        for server in &backend.servers {
            (server.live.uid, server.status.admin.0, server.weight).hash(&mut hasher);
        }
    }
    hasher.finish()
}
