//! Where control finds a server that a message names, and the lane that steers its checks.
//!
//! Control thread only. Built from the snapshot that control starts with: servers keep their places
//! for as long as the set of servers does.

use crate::check::probe::Target;
use crate::check::schedule::Pace;
use crate::check::task::Lane;
use crate::config::model::ServerAddress;
use crate::state::{BackendId, Snapshot};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

/// A server's place in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Its backend.
    pub(super) backend: BackendId,
    /// Its position in the backend.
    pub(super) index: usize,
}

/// Every server by its uid, and by its host name.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_uid: HashMap<u64, Place>,
    lanes: HashMap<u64, Rc<Lane>>,
    names: BTreeMap<Arc<str>, Vec<u64>>,
}

impl Places {
    /// Those of `snapshot`, with a lane for each checked server.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let mut all = Self::default();
        for backend in snapshot.backends.iter().flatten() {
            for (index, server) in backend.servers.iter().enumerate() {
                let uid = server.live.uid;
                let place = Place {
                    backend: backend.id,
                    index,
                };
                all.by_uid.insert(uid, place);
                if server.spec.check.is_some() {
                    let target = server
                        .endpoint
                        .as_ref()
                        .map(|endpoint| Target::of(&server.spec, endpoint));
                    let lane = Lane::new(Pace::of(&server.status, server.rules()), target);
                    all.lanes.insert(uid, lane);
                }
                if let ServerAddress::Name(name, _) = &server.spec.address {
                    all.names.entry(Arc::clone(name)).or_default().push(uid);
                }
            }
        }
        all
    }

    /// The place of a server.
    pub(super) fn get(&self, uid: u64) -> Option<Place> {
        self.by_uid.get(&uid).copied()
    }

    /// The lane of a checked server.
    pub(super) fn lane(&self, uid: u64) -> Option<&Rc<Lane>> {
        self.lanes.get(&uid)
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
