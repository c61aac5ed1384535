//! When a reload is to be taken back: it has cost a backend all its servers.
//!
//! Control thread, part of the reload task; opt-in by `rollback-window`. Only backends that the
//! reload has changed and that were up before it are looked at, and only verdicts of health checks
//! count: an operator who takes servers out means it.

use super::super::listeners::Reopen;
use super::Reloader;
use crate::config::model::Config;
use crate::live::ReloadEnd;
use crate::state::{Backend, OperState, Snapshot};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A reload that may still be taken back.
#[derive(Debug)]
pub(super) struct RollbackWatch {
    /// What was in force before it.
    pub(super) before: Arc<Config>,
    /// Names of the backends that it changed and that were up.
    backends: HashSet<Arc<str>>,
    until: Instant,
}

/// What a look has shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The time is over: the reload stays.
    Stays,
    /// This backend has lost all its servers.
    Back(Arc<str>),
}

impl RollbackWatch {
    /// The watch of a reload from `before` (`snapshot`) to `after`; `None` without a window. One
    /// that has not ended goes on: its configuration before is the last known to be good.
    pub(super) fn after(
        running: Option<Self>,
        before: Arc<Config>,
        snapshot: &Snapshot,
        after: &Config,
    ) -> Option<Self> {
        let window = after.global.rollback_window?;
        let mut watch = running.unwrap_or(Self {
            before,
            backends: HashSet::new(),
            until: Instant::now(),
        });
        watch.until = Instant::now() + window;
        let known = watch.before.backends.iter();
        let known: HashMap<&str, _> = known.map(|one| (&*one.name, one)).collect();
        let up = snapshot.backends.iter().flatten();
        let up = up.filter(|one| one.status.up).map(|one| &*one.spec.name);
        let up: HashSet<&str> = up.collect();
        for spec in &after.backends {
            let was = known.get(&*spec.name);
            let changed = was.is_some_and(|was| *was != spec);
            if changed && up.contains(&*spec.name) {
                watch.backends.insert(Arc::clone(&spec.name));
            }
        }
        Some(watch)
    }

    /// Looks at what has become of it; `None`: too early to say.
    pub(super) fn judge(&self, snapshot: &Snapshot, now: Instant) -> Option<Verdict> {
        let lost = snapshot
            .backends
            .iter()
            .flatten()
            .find(|backend| self.backends.contains(&backend.spec.name) && is_lost(backend));
        match lost {
            Some(backend) => Some(Verdict::Back(Arc::clone(&backend.spec.name))),
            None => (now >= self.until).then_some(Verdict::Stays),
        }
    }
}

/// No server is usable, and health checks have had a part in it.
fn is_lost(backend: &Backend) -> bool {
    let by_checks = |server: &crate::state::Server| {
        server.status.oper == OperState::Stopped && !server.status.admin.is_maint()
    };
    // One that fails open serves nobody either if none is up.
    let none_up = !backend.status.up || backend.status.fail_open && backend.usable().is_empty();
    none_up && backend.servers.iter().any(|server| by_checks(server))
}

/// Completes when it is time for a look; never without a watch.
pub(super) async fn tick(watch: Option<&RollbackWatch>) {
    match watch {
        Some(_) => tokio::time::sleep(LOOK_EVERY).await,
        None => std::future::pending().await,
    }
}

impl Reloader {
    /// Takes the last reload back if a backend has lost all its servers by it.
    pub(super) async fn check_rollback(&mut self) {
        let Some(watch) = &self.rollback else { return };
        let Some(verdict) = watch.judge(&self.snapshot.load(), Instant::now()) else {
            return;
        };
        let Some(watch) = self.rollback.take() else {
            return;
        };
        let Verdict::Back(backend) = verdict else {
            return;
        };
        let mut reason = format!("backend {backend} has lost all its servers by the reload");
        tracing::error!("{reason}: going back to the configuration before");
        match self.put_in_force(watch.before, &Reopen::All).await {
            Ok(_) => {
                self.follow_files();
                self.sources = std::mem::take(&mut self.sources_before);
                let result = "the configuration before is in force again; the file is unchanged";
                tracing::warn!("rolled back: {result}");
                self.note(ReloadEnd::RolledBack, vec![reason, result.to_owned()]);
            }
            Err(problems) => {
                for line in &problems {
                    tracing::error!("cannot go back: {line}");
                }
                let result = "the configuration before cannot be put in force again: what was reloaded stays";
                tracing::error!("rollback failed: {result}");
                if let Some(first) = problems.first() {
                    reason = format!("{reason}; cannot go back: {first}");
                }
                let more = problems.into_iter().skip(1);
                let lines = std::iter::once(reason).chain(more);
                let lines = lines.chain([result.to_owned()]).collect();
                self.note(ReloadEnd::RollbackFailed, lines);
            }
        }
    }
}
