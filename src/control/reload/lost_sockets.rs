//! Sockets that have lost what they listen on ([`super::super::loss`]): looked at once a second, said once
//! in the log, and opened again as soon as that can help.
//!
//! Part of the reload task, so that no reload is under way meanwhile.

use super::super::listeners::Listeners;
use super::super::loss::LostBind;
use super::{Reloader, RuntimeListener};
use crate::config::model::Config;
use crate::worker::ListenerId;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often sockets are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Time between two attempts to open lost sockets again.
const REOPEN_EVERY: Duration = Duration::from_secs(5);

/// When to look.
pub(super) fn ticks() -> Interval {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// What is known to be lost.
#[derive(Debug, Default)]
pub(super) struct LostSockets {
    /// Binds that the log was told of.
    told: HashSet<ListenerId>,
    /// The log was told of the runtime socket.
    runtime_told: bool,
    /// None is opened again before this.
    retry_at: Option<Instant>,
}

impl LostSockets {
    /// The binds that are lost now; each is said once until it is well again.
    fn look(&mut self, listeners: &Listeners) -> Vec<LostBind> {
        let lost = listeners.lost();
        self.told.retain(|id| lost.iter().any(|one| one.id == *id));
        for one in &lost {
            if self.told.insert(one.id) {
                let (proxy, address, reason) = (&*one.proxy, &one.address, &one.loss);
                tracing::error!(proxy, address, %reason, "listening socket lost");
            }
        }
        lost
    }
}

impl Reloader {
    /// Looks whether sockets have lost what they listen on, and opens those again that can be opened now.
    pub(super) async fn check_sockets(&mut self) {
        let lost = self.lost_sockets.look(&self.state.listeners);
        let config = Arc::clone(&self.current);
        let runtime_can_open = self.look_at_runtime(&config);
        let binds_can_open = lost.iter().any(|one| one.curable);
        let now = Instant::now();
        let too_early = self.lost_sockets.retry_at.is_some_and(|at| now < at);
        if too_early || !(runtime_can_open || binds_can_open) {
            return;
        }
        self.lost_sockets.retry_at = Some(now + REOPEN_EVERY);
        if !binds_can_open {
            self.reopen_lost_runtime(&config).await;
        } else if let Err(problems) = self.put_in_force(config).await {
            for problem in problems {
                tracing::error!(problem, "listening sockets not opened again");
            }
        }
    }

    /// Whether the runtime socket is lost and can be opened again; says once that it is lost.
    fn look_at_runtime(&mut self, config: &Config) -> bool {
        let (Some(runtime), Some(api)) = (&self.state.runtime, &config.runtime_api) else {
            return false;
        };
        let lost = runtime.is_lost(api);
        if lost && !self.lost_sockets.runtime_told {
            let path = api.socket.display();
            tracing::error!(%path, reason = "its file was removed or replaced", "runtime socket lost");
        }
        self.lost_sockets.runtime_told = lost;
        lost && RuntimeListener::can_reopen(api)
    }

    /// Opens the runtime socket again where its file was removed or replaced. What the system refuses is
    /// said, and leaves it as it was.
    pub(super) async fn reopen_lost_runtime(&mut self, config: &Config) -> Option<String> {
        let runtime = self.state.runtime.as_mut()?;
        let api = config.runtime_api.as_ref()?;
        if !runtime.is_lost(api) {
            return None;
        }
        let path = api.socket.display();
        Some(match runtime.reopen(api).await {
            Ok(()) => {
                self.lost_sockets.runtime_told = false;
                tracing::warn!(%path, "runtime socket opened again");
                format!("runtime-api: {path} opened again: its file was removed or replaced")
            }
            Err(error) => {
                tracing::error!(%path, error, "runtime socket not opened again");
                error
            }
        })
    }
}
