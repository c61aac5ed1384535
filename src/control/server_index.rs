//! Where control finds a server that a message names, and the handle of its checks.
//!
//! Control thread only. Built from the snapshot that control starts with, and again at the commit of
//! each reload: between two commits a server keeps its position. Invariant: a check task goes on
//! across a reload exactly when what it checks and how are the same.

use crate::check::probe::Target;
use crate::check::schedule::IntervalKind;
use crate::check::task::CheckHandle;
use crate::config::model::ServerAddress;
use crate::state::{BackendId, Server, Snapshot};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Where a server is in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServerRef {
    /// Its backend.
    pub(super) backend: BackendId,
    /// Its position in the backend.
    pub(super) index: usize,
}

/// A checked server.
#[derive(Debug)]
struct Checked {
    handle: Rc<CheckHandle>,
    /// Cancelled: its check task ends.
    stop: CancellationToken,
}

impl Checked {
    fn new(server: &Server, all: &CancellationToken) -> Self {
        let interval_kind = IntervalKind::of(&server.status, server.rules());
        let handle = CheckHandle::new(interval_kind, target(server));
        handle.set_asks_traffic_target(Target::is_of_traffic(&server.spec));
        Self {
            handle,
            stop: all.child_token(),
        }
    }
}

fn target(server: &Server) -> Option<Target> {
    let endpoint = server.endpoint.as_ref();
    endpoint.map(|endpoint| Target::of(&server.spec, endpoint))
}

/// Every server by its uid, and by its host name.
#[derive(Debug, Default)]
pub(super) struct ServerIndex {
    by_uid: HashMap<u64, ServerRef>,
    checks: HashMap<u64, Checked>,
    names: BTreeMap<Arc<str>, Vec<u64>>,
}

impl ServerIndex {
    /// Those of `snapshot`, with a handle for each checked server. All their checks end with `stop`.
    pub(super) fn of(snapshot: &Snapshot, stop: &CancellationToken) -> Self {
        let mut all = Self::default();
        for (at, server) in all_servers(snapshot) {
            all.insert(at, server);
            if server.spec.check.is_some() {
                let checked = Checked::new(server, stop);
                all.checks.insert(server.live.uid, checked);
            }
        }
        all
    }

    /// Those of `after`, which has followed `before`. Ends the checks that do not go on; returns the
    /// servers whose checks are to be started.
    pub(super) fn update(
        &mut self,
        before: &Snapshot,
        after: &Snapshot,
        stop: &CancellationToken,
    ) -> Vec<u64> {
        let mut old = std::mem::take(self);
        let mut fresh = Vec::new();
        for (at, server) in all_servers(after) {
            let uid = server.live.uid;
            self.insert(at, server);
            if server.spec.check.is_none() {
                continue;
            }
            let was = old.get(uid).and_then(|at| {
                let backend = before.backend(at.backend)?;
                Some((backend, backend.servers.get(at.index)?))
            });
            let source = after.backend(at.backend).map(|it| it.source_of(server));
            let same = was.is_some_and(|(backend, was)| {
                // A check task says the server's name.
                was.spec.name == server.spec.name
                    && was.spec.check == server.spec.check
                    && was.spec.socket == server.spec.socket
                    && Some(backend.source_of(was)) == source
                    && target(was) == target(server)
            });
            let checked = match old.checks.remove(&uid) {
                Some(checked) if same => {
                    let interval_kind = IntervalKind::of(&server.status, server.rules());
                    checked.handle.set_interval_kind(interval_kind);
                    let asks = Target::is_of_traffic(&server.spec);
                    checked.handle.set_asks_traffic_target(asks);
                    checked
                }
                other => {
                    if let Some(other) = other {
                        other.stop.cancel();
                    }
                    fresh.push(uid);
                    Checked::new(server, stop)
                }
            };
            self.checks.insert(uid, checked);
        }
        for checked in old.checks.values() {
            checked.stop.cancel();
        }
        fresh
    }

    fn insert(&mut self, at: ServerRef, server: &Server) {
        let uid = server.live.uid;
        self.by_uid.insert(uid, at);
        if let ServerAddress::Name(name, _) = &server.spec.address {
            self.names.entry(Arc::clone(name)).or_default().push(uid);
        }
    }

    /// Where a server is.
    pub(super) fn get(&self, uid: u64) -> Option<ServerRef> {
        self.by_uid.get(&uid).copied()
    }

    /// The handle of a checked server.
    pub(super) fn check_handle(&self, uid: u64) -> Option<&Rc<CheckHandle>> {
        self.checks.get(&uid).map(|checked| &checked.handle)
    }

    /// What ends the checks of a checked server.
    pub(super) fn stop(&self, uid: u64) -> Option<&CancellationToken> {
        self.checks.get(&uid).map(|checked| &checked.stop)
    }

    /// The servers at a host name.
    pub(super) fn named(&self, name: &str) -> &[u64] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }

    /// All host names that servers are at.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.keys()
    }
}

/// Every server of a snapshot and where it is.
fn all_servers(snapshot: &Snapshot) -> impl Iterator<Item = (ServerRef, &Server)> {
    snapshot.backends.iter().flatten().flat_map(|backend| {
        let servers = backend.servers.iter().enumerate();
        servers.map(|(index, server)| {
            let at = ServerRef {
                backend: backend.id,
                index,
            };
            (at, &**server)
        })
    })
}
