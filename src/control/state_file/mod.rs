//! Server-state files: what is known of servers survives a restart.
//!
//! They are read before the checks begin, and written once a minute, soon after an operator has changed a server, and at
//! the beginning of a stop: from then on another process may serve and write. The format is HAProxy's ([`crate::stats::servers_state`]). A file is replaced as a whole, so that nobody reads a
//! part of one. A thread of the pool writes, because a disk may be slow; one write at a time. After a handover the next
//! process writes.

mod read;
mod write;

pub(super) use read::read;

use super::server_events::{self, LogLine, ServerEvent};
use crate::state::{Backend, BackendId, Interface, Snapshot};
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use write::{Target, Written};

/// The longest time between two writes.
const INTERVAL: Duration = Duration::from_secs(60);
/// How long the last write may take.
const LAST_MAX: Duration = Duration::from_secs(2);

/// When the files are written.
#[derive(Debug)]
pub(super) struct StateFileWriter {
    /// When the last write has begun.
    begun: Instant,
    /// The snapshot that was looked at last, and what operators have decided in each of its backends.
    decided: Option<(Arc<Snapshot>, Decided)>,
    /// The backends in which an operator has changed something since then.
    changed: HashSet<BackendId>,
    writing: Option<JoinHandle<Vec<Written>>>,
    /// What has failed the last time, and why.
    failed: HashMap<PathBuf, String>,
    /// The process stops: the next write is the last.
    stops: bool,
    /// The last write has begun, or another process writes.
    is_over: bool,
}

impl StateFileWriter {
    /// Of a process that starts.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            decided: None,
            changed: HashSet::new(),
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
            self.begin(write::targets(snapshot, |_| true), snapshot, (now, true));
        } else if now.saturating_duration_since(self.begun) >= INTERVAL {
            self.begun = now;
            self.begin(write::targets(snapshot, |_| true), snapshot, (now, false));
        } else if !self.changed.is_empty() {
            let changed = mem::take(&mut self.changed);
            let targets = write::targets(snapshot, |id| changed.contains(&id));
            self.begin(targets, snapshot, (now, false));
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
                let all = write::targets(snapshot, |_| true);
                self.begin(all, snapshot, (Instant::now(), true));
                self.written().await;
            }
        };
        if timeout(LAST_MAX, last).await.is_err() {
            tracing::warn!("the server-state files were not written in time");
        }
    }

    /// Notes in which backends an operator has changed a server since the last look. At the first one all have changed, so
    /// that a file that cannot be written is known of from the start.
    fn look_at(&mut self, snapshot: &Arc<Snapshot>) {
        let before = self.decided.take();
        if let Some((seen, _)) = &before
            && Arc::ptr_eq(seen, snapshot)
        {
            self.decided = before;
            return;
        }
        let now = decided(snapshot);
        let before = before.map_or_else(HashMap::new, |(_, before)| before);
        let changed = now.iter().filter(|(id, is)| before.get(id) != Some(is));
        self.changed.extend(changed.map(|(id, _)| *id));
        self.decided = Some((Arc::clone(snapshot), now));
    }

    /// Begins to write these files, with the states of `snapshot`.
    fn begin(
        &mut self,
        targets: Vec<Target>,
        snapshot: &Arc<Snapshot>,
        (now, last): (Instant, bool),
    ) {
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
        for Written { path, result } in writing.await.unwrap_or_default() {
            let before = self.failed.remove(&path);
            match result {
                Err(error) => {
                    let said = error.to_string();
                    if before.as_ref() != Some(&said) {
                        let path = path.display();
                        tracing::warn!(%path, %error, "cannot write a server-state file");
                    }
                    self.failed.insert(path, said);
                }
                Ok(()) if before.is_some() => {
                    tracing::info!(path = %path.display(), "a server-state file is written again");
                }
                Ok(()) => {}
            }
        }
    }
}

/// What the log says of the states with which servers of `next` begin.
pub(super) fn said<'a>(
    base: &'a Snapshot,
    next: &'a Snapshot,
) -> impl Iterator<Item = LogLine> + 'a {
    let backends = next.backends.iter().flatten();
    let servers = backends.flat_map(|backend| {
        let before = base.backend(backend.id).into_iter();
        let before = before.flat_map(|before| &before.servers);
        let pairs = before.zip(&backend.servers);
        pairs.map(move |(before, server)| (backend, before, server))
    });
    servers.flat_map(|(backend, before, server)| {
        let event = ServerEvent {
            backend: &backend.spec.name,
            server,
            usable: backend.usable(),
            check_is_logged: false,
            interface: Interface::StateFile,
        };
        server_events::changed(&before.status, event, None)
    })
}

/// What operators have decided in each backend: a number that is another one when that is something else.
type Decided = HashMap<BackendId, u64>;

fn decided(snapshot: &Snapshot) -> Decided {
    let one = |backend: &Arc<Backend>| {
        let mut hasher = DefaultHasher::new();
        for server in &backend.servers {
            (server.live.uid, server.status.admin.0, server.weight).hash(&mut hasher);
        }
        (backend.id, hasher.finish())
    };
    snapshot.backends.iter().flatten().map(one).collect()
}
