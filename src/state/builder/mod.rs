//! Builds the next snapshot from the one before and the changes of one batch.
//!
//! Control thread only. Invariant: the next snapshot shares with the one before what a batch does not touch
//! (`Arc` clones). A touched backend is copied once, however many of its servers change, and its picker is
//! rebuilt only if the set or the weights of its usable servers have changed. The backend's status and the
//! counts of usable servers follow every single change, because HAProxy's log lines show them in that order.

use super::ids::{BackendId, FrontendId};
use super::server::{Server, Usable};
use super::snapshot::{
    Backend, BackendStatus, Frontend, Snapshot, is_by_slot, is_limited, picker_for,
};
use super::standing::Standing;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How replacing a server changed its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChange {
    /// It is up or down as before.
    None,
    /// Too few servers are usable since then: usually its last one became unusable.
    Down,
    /// Enough servers are usable again.
    Up,
}

/// A backend that the batch touches.
#[derive(Debug)]
struct Touched {
    before: Arc<Backend>,
    servers: Vec<Arc<Server>>,
    standing: Standing,
    status: BackendStatus,
    turns_changed: bool,
    servers_changed: bool,
    /// Positions of servers that are renewed, in the order in which it happened.
    renewed: Vec<u32>,
    published: bool,
}

/// Builds the next snapshot.
#[derive(Debug)]
pub struct SnapshotBuilder {
    base: Arc<Snapshot>,
    touched: BTreeMap<BackendId, Touched>,
    /// Frontends that the batch changes.
    frontends: BTreeMap<FrontendId, Frontend>,
    /// The base with changes to the process and the stats proxy, if the batch makes any.
    process: Option<Box<Snapshot>>,
}

impl SnapshotBuilder {
    /// No change yet.
    pub fn new(base: Arc<Snapshot>) -> Self {
        Self {
            base,
            touched: BTreeMap::new(),
            frontends: BTreeMap::new(),
            process: None,
        }
    }

    /// The snapshot that the changes are made to.
    pub fn base(&self) -> &Arc<Snapshot> {
        &self.base
    }

    /// The backend as it is in that snapshot. The builder never changes its specification and counters.
    pub fn backend(&self, id: BackendId) -> Option<&Arc<Backend>> {
        self.base.backend(id)
    }

    /// A server as it is now, with the changes so far; `index` is its position in the backend.
    pub fn server(&self, id: BackendId, index: usize) -> Option<&Arc<Server>> {
        match self.touched.get(&id) {
            Some(touched) => touched.servers.get(index),
            None => self.base.backend(id)?.servers.get(index),
        }
    }

    /// The servers of a backend as they are now.
    pub fn servers(&self, id: BackendId) -> &[Arc<Server>] {
        match self.touched.get(&id) {
            Some(touched) => &touched.servers,
            None => self
                .base
                .backend(id)
                .map_or(&[], |backend| backend.servers.as_slice()),
        }
    }

    /// Whether a backend fails open now.
    pub fn fails_open(&self, id: BackendId) -> bool {
        match self.touched.get(&id) {
            Some(touched) => touched.status.fail_open,
            None => self
                .base
                .backend(id)
                .is_some_and(|backend| backend.status.fail_open),
        }
    }

    /// Whether enough servers of a backend are usable now; one that does not exist has enough.
    pub fn is_up(&self, id: BackendId) -> bool {
        match self.touched.get(&id) {
            Some(touched) => touched.status.up,
            None => self
                .base
                .backend(id)
                .is_none_or(|backend| backend.status.up),
        }
    }

    /// How many servers of a backend are usable now, as the checks say.
    pub fn usable(&self, id: BackendId) -> Usable {
        match self.touched.get(&id) {
            Some(touched) => touched.standing.usable(),
            None => Usable::count(self.servers(id).iter().map(AsRef::as_ref)),
        }
    }

    /// Replaces the server at `index` by `server`. Does nothing when the backend or the position does not exist
    /// (any more).
    pub fn replace(
        &mut self,
        id: BackendId,
        index: usize,
        server: Server,
        now: Instant,
    ) -> BackendChange {
        let Some(before) = self.base.backend(id) else {
            return BackendChange::None;
        };
        self.touched
            .entry(id)
            .or_insert_with(|| Touched::new(before))
            .replace(index, server, now)
    }

    /// Backends with a server that has become usable or unusable, or whose operational state or address has changed.
    pub fn backends_changed(&self) -> Vec<BackendId> {
        let touched = self.touched.iter();
        let changed = touched.filter(|(_, touched)| touched.servers_changed);
        changed.map(|(id, _)| *id).collect()
    }

    /// A frontend as it is now, with the changes so far.
    pub fn frontend(&self, id: FrontendId) -> Option<&Frontend> {
        let changed = self.frontends.get(&id);
        changed.or_else(|| self.base.frontend(id).map(AsRef::as_ref))
    }

    /// A frontend with the changes so far, to change it.
    pub fn frontend_mut(&mut self, id: FrontendId) -> Option<&mut Frontend> {
        let before = self.base.frontend(id)?;
        let changed = self.frontends.entry(id);
        Some(changed.or_insert_with(|| Frontend::clone(before)))
    }

    /// The snapshot, to change what belongs to the process or the stats proxy. Changes to frontends and backends
    /// are lost.
    pub fn process_mut(&mut self) -> &mut Snapshot {
        let base = &self.base;
        self.process
            .get_or_insert_with(|| Box::new(Snapshot::clone(base)))
    }

    /// Sets whether frontends may use a backend. `false`: it does not exist (any more).
    pub fn publish(&mut self, id: BackendId, published: bool) -> bool {
        let Some(before) = self.base.backend(id) else {
            return false;
        };
        let touched = self.touched.entry(id);
        touched.or_insert_with(|| Touched::new(before)).published = published;
        true
    }

    /// Whether frontends may use a backend, with the changes so far.
    pub fn is_published(&self, id: BackendId) -> bool {
        match self.touched.get(&id) {
            Some(touched) => touched.published,
            None => self
                .base
                .backend(id)
                .is_none_or(|backend| backend.published),
        }
    }

    /// Frontends that have begun or ceased to accept connections.
    pub fn frontends_changed(&self) -> Vec<FrontendId> {
        let changed = self.frontends.iter().filter(|(id, frontend)| {
            let before = self.base.frontend(**id);
            before.is_some_and(|before| before.state != frontend.state)
        });
        changed.map(|(id, _)| *id).collect()
    }

    /// Adds time that a backend has spent down before this process began.
    pub fn add_downtime(&mut self, id: BackendId, time: Duration) {
        if let Some(before) = self.base.backend(id)
            && !time.is_zero()
        {
            let touched = self
                .touched
                .entry(id)
                .or_insert_with(|| Touched::new(before));
            touched.status.down_before += time;
        }
    }

    /// The next snapshot; `None` when nothing was touched.
    pub fn finish(self) -> Option<Snapshot> {
        let untouched = self.touched.is_empty() && self.frontends.is_empty();
        if untouched && self.process.is_none() {
            return None;
        }
        let mut next = self
            .process
            .map_or_else(|| Snapshot::clone(&self.base), |it| *it);
        let ids: Vec<BackendId> = self.touched.keys().copied().collect();
        for (id, touched) in self.touched {
            next.backends[id.index()] = Some(Arc::new(touched.finish()));
        }
        let backends = &next.backends;
        let changed = |id: BackendId| {
            ids.binary_search(&id).ok()?;
            backends[id.index()].clone()
        };
        for (id, frontend) in self.frontends {
            next.frontends[id.index()] = Some(Arc::new(frontend));
        }
        for frontend in next.frontends.iter_mut().flatten() {
            if let Some(route) = frontend.route.with(&changed) {
                *frontend = Arc::new(frontend.routed(route));
            }
        }
        Some(next)
    }
}

/// Whether the operational state is another one. The end of a slow start is no change for sessions that connect.
fn has_turned(before: &Server, server: &Server) -> bool {
    let (before, after) = (before.status.oper, server.status.oper);
    before != after && !(before.is_up() && after.is_up())
}

impl Touched {
    fn new(before: &Arc<Backend>) -> Self {
        Self {
            before: Arc::clone(before),
            servers: before.servers.clone(),
            standing: Standing::of(&before.servers),
            status: before.status,
            turns_changed: false,
            servers_changed: false,
            renewed: Vec::new(),
            published: before.published,
        }
    }

    fn replace(&mut self, index: usize, mut server: Server, now: Instant) -> BackendChange {
        let Some(place) = self.servers.get(index) else {
            return BackendChange::None;
        };
        let spec = Arc::clone(&self.before.spec);
        self.standing.remove(place);
        self.standing.add(&server);
        let fail_open = self.standing.fails_open(&spec);
        server.fail_open = fail_open;
        self.put(index, server);
        if fail_open != self.status.fail_open {
            for index in 0..self.servers.len() {
                let server = Server {
                    fail_open,
                    ..Server::clone(&self.servers[index])
                };
                self.put(index, server);
            }
        }
        let (was_up, up) = (self.status.up, self.standing.is_up(&spec));
        self.status = self.status.after((fail_open, up), now);
        match (was_up, up) {
            (false, true) => BackendChange::Up,
            (true, false) => BackendChange::Down,
            _ => BackendChange::None,
        }
    }

    /// Puts `server` in the place of the one at `index`.
    fn put(&mut self, index: usize, mut server: Server) {
        let place = &mut self.servers[index];
        let (was, is) = (place.is_usable(), server.is_usable());
        let renewed = server.is_renewed(place);
        if renewed {
            server.renewed = self.before.generation + 1;
            self.renewed.extend(u32::try_from(index));
        }
        self.servers_changed |= renewed || was != is || has_turned(place, &server);
        let spec = &self.before.spec;
        let weights = |server: &Server| (server.weight, server.eweight(spec));
        // Also of one that is not usable: the weight of its tier is shared out by it.
        self.turns_changed |= (was, place.is_up()) != (is, server.is_up())
            || weights(place) != weights(&server)
            || (is && place.hash_key() != server.hash_key());
        *place = Arc::new(server);
    }

    /// The positions of all servers that were renewed, the latest first.
    fn renewals(&self) -> Arc<[u32]> {
        let before = &self.before.renewals;
        if self.renewed.is_empty() {
            return Arc::clone(before);
        }
        let mut seen = HashSet::new();
        let latest = self.renewed.iter().rev().chain(&**before);
        latest
            .copied()
            .filter(|index| seen.insert(*index))
            .collect()
    }

    fn finish(self) -> Backend {
        let renewals = self.renewals();
        let before = self.before;
        let picker = if self.turns_changed {
            picker_for(&self.servers, &before.spec)
        } else {
            before.picker.clone()
        };
        let limited = is_limited(&self.servers);
        let by_slot = is_by_slot(&self.servers, &before.spec);
        Backend {
            id: before.id,
            spec: Arc::clone(&before.spec),
            live: Arc::clone(&before.live),
            servers: self.servers,
            picker,
            limited,
            by_slot,
            status: self.status,
            published: self.published,
            generation: before.generation + 1,
            renewals,
        }
    }
}

#[cfg(test)]
mod tests;
