//! Sessions come back to a server that has returned (`rebalance`): once a second control counts what each server has,
//! and tells all workers how many sessions of which servers may end. Control thread.
//!
//! Invariant: the workers have one [`Surplus`] at a time. Control takes back what is left of it before it makes the next,
//! so that no session counts twice. What was ended in the last minute is kept over reloads.

mod pace;
mod plan;

use super::Control;
use super::server_events::BackendEvent;
use crate::live::{BackendLive, ServerLive, WorkerToken};
use crate::state::{Backend, BackendId, OperState, Server, Snapshot};
use crate::worker::order::Order;
use crate::worker::surplus::Surplus;
use pace::{Pace, Turn};
use plan::Load;
use std::collections::HashMap;
use std::sync::Arc;

/// The backends whose sessions are rebalanced, or were in the last minute.
#[derive(Debug, Default)]
pub(super) struct Rebalances {
    backends: HashMap<BackendId, Rebalance>,
    /// What the workers have.
    surplus: Option<Arc<Surplus>>,
    /// Clients would not come back here.
    stopped: bool,
}

/// One backend.
#[derive(Debug)]
struct Rebalance {
    pace: Pace,
    live: Arc<BackendLive>,
    /// How many sessions of which servers the workers were told to end.
    told: Vec<(Arc<ServerLive>, u32)>,
}

impl Rebalances {
    /// Takes back what has not ended, and counts what has.
    fn settle(&mut self, token: &WorkerToken) {
        let Some(surplus) = self.surplus.take() else {
            return;
        };
        for one in self.backends.values_mut() {
            for (server, told) in one.told.drain(..) {
                let ended = told - surplus.take_back(server.uid);
                one.pace.ended(told, ended);
                for traffic in [&server.traffic, &one.live.traffic] {
                    traffic.mine(token).rebalanced.add(ended.into());
                }
            }
        }
    }

    /// No session is ended any more.
    pub(super) fn stop(&mut self, token: &WorkerToken) {
        self.settle(token);
        self.backends.clear();
        self.stopped = true;
    }
}

impl Control {
    /// The next second.
    pub(super) async fn rebalance(&mut self) {
        if self.rebalances.stopped {
            return;
        }
        self.rebalances.settle(&self.parts.token);
        let snapshot = self.parts.snapshot.load_full();
        let mut surplus = Vec::new();
        for backend in snapshot.backends.iter().flatten() {
            let known = self.rebalances.backends.contains_key(&backend.id);
            if known || backend.spec.rebalance > 0 {
                self.rebalance_one(&snapshot, backend, &mut surplus);
            }
        }
        let is_there = |id: &BackendId| snapshot.backend(*id).is_some();
        self.rebalances.backends.retain(|id, _| is_there(id));
        if !surplus.is_empty() {
            let surplus = Arc::new(Surplus::new(surplus));
            self.rebalances.surplus = Some(Arc::clone(&surplus));
            let order = Order::EndSurplus(surplus);
            self.parts.workers.tell_all(&order).await;
        }
    }

    /// Adds to `surplus` what may end of this backend.
    fn rebalance_one(
        &mut self,
        snapshot: &Snapshot,
        backend: &Backend,
        surplus: &mut Vec<(u64, u32)>,
    ) {
        let helps = backend.spec.rebalance > 0
            && !backend.status.fail_open
            && leads_there(snapshot, backend.id);
        let servers = if helps { shared(backend) } else { Vec::new() };
        let loads: Vec<Load> = servers.iter().map(|(_, load)| *load).collect();
        let is_growing = |(server, load): &(&Arc<Server>, Load)| {
            load.weight > 0 && server.status.oper == OperState::Starting
        };
        let is_growing = servers.iter().any(is_growing);
        let one = self.rebalances.backends.entry(backend.id);
        let one = one.or_insert_with(|| Rebalance {
            pace: Pace::default(),
            live: Arc::clone(&backend.live),
            told: Vec::new(),
        });
        let step = one.pace.second(&loads, backend.spec.rebalance, is_growing);
        for ((server, _), part) in servers.iter().zip(step.parts) {
            if part > 0 {
                surplus.push((server.live.uid, part));
                one.told.push((Arc::clone(&server.live), part));
            }
        }
        if backend.spec.rebalance == 0 && one.pace.is_idle() {
            self.rebalances.backends.remove(&backend.id);
        }
        if let Some(turn) = step.turn {
            self.tell_of_turn(snapshot, backend, turn, &servers);
        }
    }

    fn tell_of_turn(
        &self,
        snapshot: &Snapshot,
        backend: &Backend,
        turn: Turn,
        servers: &[(&Arc<Server>, Load)],
    ) {
        let mut frontends = snapshot.frontends.iter().flatten();
        let event = BackendEvent {
            spec: &backend.spec,
            listen: frontends.any(|one| one.spec.id == backend.spec.id),
            servers: &backend.servers,
            usable: backend.usable(),
        };
        let line = match turn {
            Turn::Begins {
                server,
                share,
                total,
            } => {
                let (server, load) = &servers[server];
                event.rebalances(&server.spec.name, (load.sessions, share, total))
            }
            Turn::Ends { sessions, even } => event.rebalanced(sessions, even),
        };
        self.log(line);
    }
}

/// Whether a client that connects again would come to this backend.
fn leads_there(snapshot: &Snapshot, backend: BackendId) -> bool {
    let mut frontends = snapshot.frontends.iter().flatten();
    frontends.any(|one| one.listens() && one.route.of_now().id == backend)
}

/// The servers of a backend whose sessions are shared out: those in use, and those of other tiers and backups, which are to
/// have none. One that an operator drains keeps its sessions, and so does one that is down. One that is suspected gets no
/// new sessions.
fn shared(backend: &Backend) -> Vec<(&Arc<Server>, Load)> {
    let in_use = backend.in_use();
    if in_use.is_empty() {
        return Vec::new();
    }
    let weights: HashMap<u32, u32> = in_use.iter().map(|it| (it.index, it.eweight)).collect();
    let sessions = backend.live.active.get();
    let servers = (0..).zip(&backend.servers);
    let servers = servers.filter(|(_, it)| it.is_usable() && !it.live.is_suspect());
    let load = |(index, server): (u32, _)| {
        let server: &Arc<Server> = server;
        let load = Load {
            sessions: server.live.active.get(),
            weight: weights.get(&index).copied().unwrap_or(0),
            most: server.slot_limit(backend.spec.fullconn).at(sessions),
        };
        (server, load)
    };
    servers.map(load).collect()
}

#[cfg(test)]
mod tests;
