//! Sockets that have lost what they listen on ([`super::super::loss`]): looked at once a second, logged
//! once, and opened again as soon as that can help.
//!
//! Part of the reload task, so that no reload is under way meanwhile.

use super::super::listeners::{Listeners, Reopen};
use super::{Reloader, RuntimeListener};
use crate::config::model::Config;
use crate::worker::ListenerId;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often sockets are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Time between two attempts to open the same lost socket again. The first is made when the loss is noticed.
const REOPEN_EVERY: Duration = Duration::from_secs(5);

/// When to look.
pub(super) fn ticks() -> Interval {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// What is known to be lost and was logged, and before which time it is not opened again.
#[derive(Debug, Default)]
pub(super) struct LostSockets {
    binds: HashMap<ListenerId, Instant>,
    /// By address.
    runtime: HashMap<String, Instant>,
}

impl LostSockets {
    /// Looks at the binds, and logs each that is lost once until it listens again. Returns those that are
    /// to be opened again now.
    fn look(&mut self, listeners: &Listeners, now: Instant) -> HashSet<ListenerId> {
        let lost = listeners.lost();
        self.binds
            .retain(|id, _| lost.iter().any(|one| one.id == *id));
        let mut due = HashSet::new();
        for one in &lost {
            let at = self.binds.entry(one.id).or_insert_with(|| {
                let (proxy, address, reason) = (&*one.proxy, &one.address, &one.loss);
                tracing::error!(proxy, address, %reason, "listening socket lost");
                now
            });
            if one.can_open && is_due(at, now) {
                due.insert(one.id);
            }
        }
        due
    }
}

/// Whether the time `at` of the next attempt has come; if so, sets the one after it.
fn is_due(at: &mut Instant, now: Instant) -> bool {
    let due = now >= *at;
    if due {
        *at = now + REOPEN_EVERY;
    }
    due
}

impl Reloader {
    /// Looks whether sockets have lost what they listen on, and opens those again that can be opened now.
    pub(super) async fn check_sockets(&mut self) {
        let now = Instant::now();
        let config = Arc::clone(&self.current);
        if self.is_runtime_due(&config, now) {
            self.reopen_lost_runtime(&config).await;
        }
        let due = self.lost_sockets.look(&self.state.listeners, now);
        if !due.is_empty()
            && let Err(problems) = self.put_in_force(config, &Reopen::Only(due)).await
        {
            for problem in problems {
                tracing::error!(problem, "listening sockets not opened again");
            }
        }
    }

    /// Whether a runtime socket is lost and is to be opened again now; logs of each once that it is lost.
    fn is_runtime_due(&mut self, config: &Config, now: Instant) -> bool {
        let sockets = config.runtime_api.iter().flat_map(|api| &api.sockets);
        let mut due = false;
        for (runtime, api) in self.state.runtime.open.iter().zip(sockets) {
            let path = api.place();
            if !runtime.is_lost(api) {
                self.lost_sockets.runtime.remove(&path);
                continue;
            }
            let known = self.lost_sockets.runtime.entry(path);
            let at = known.or_insert_with_key(|path| {
                tracing::error!(
                    path,
                    reason = "its file was removed or replaced",
                    "runtime socket lost"
                );
                now
            });
            due |= RuntimeListener::can_reopen(api) && is_due(at, now);
        }
        due
    }

    /// Opens the runtime sockets again whose file was removed or replaced. What the system refuses is
    /// said, and leaves a socket as it was.
    pub(super) async fn reopen_lost_runtime(&mut self, config: &Config) -> Vec<String> {
        let sockets = config.runtime_api.iter().flat_map(|api| &api.sockets);
        let mut told = Vec::new();
        for (runtime, api) in self.state.runtime.open.iter_mut().zip(sockets) {
            if !runtime.is_lost(api) {
                continue;
            }
            let path = api.place();
            told.push(match runtime.reopen(api).await {
                Ok(()) => {
                    self.lost_sockets.runtime.remove(&path);
                    tracing::warn!(path, "runtime socket opened again");
                    format!("runtime-api: {path} opened again: its file was removed or replaced")
                }
                Err(error) => {
                    tracing::error!(path, error, "runtime socket not opened again");
                    error
                }
            });
        }
        told
    }
}
