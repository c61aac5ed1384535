//! The steps of a reload: load → plan → prepare → commit. What reads the files and changes nothing is here too.
//!
//! Control thread, part of the reload task. Invariant: everything that can fail comes before the commit.

use super::super::admin_listeners::{self, NextRuntime};
use super::super::commit::Commit;
use super::super::handover::Program;
use super::super::listeners::{self, Reopen};
use super::super::loss::Reopened;
use super::super::resolve;
use super::load::{Line, Loaded, Problems};
use super::report::LOGGED_MAX;
use super::requests::{Answer, Shape, Trigger};
use super::rollback::RollbackWatch;
use super::{Reloader, maxconn, watch};
use crate::config::diff::{Action, Changes, applicable, plan};
use crate::config::model::{Config, RuntimeSocket as RuntimeSocketKeys, ServerAddress};
use crate::log;
use sd_notify::NotifyState;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A configuration with all that it needs, its log, and its runtime sockets.
type Prepared = (Commit, log::PreparedLog, Vec<NextRuntime>);

impl Reloader {
    /// Load, plan, prepare, commit; then what is left retires by itself.
    pub(super) async fn reload(&mut self, trigger: Trigger) -> Answer {
        let Loaded {
            config: written,
            warnings,
            files,
        } = match self.load().await {
            Ok(loaded) => loaded,
            Err(problems) => {
                // What cannot be loaded takes nothing away. The next file that does is waited for anew.
                self.watch.stop_waiting();
                return self.refuse(trigger, problems);
            }
        };
        let changes = plan(&self.current, &written);
        if trigger == Trigger::Watch {
            if changes.is_empty() && self.refused.is_empty() {
                self.watch.stop_waiting();
                self.sources = files.sources;
                let lines = vec![changes.summary()];
                return Answer { done: true, lines };
            }
            if let Some(lines) = self.defer(&changes, &written) {
                return Answer { done: false, lines };
            }
        }
        warnings.lines.iter().take(LOGGED_MAX).for_each(Line::log);
        let config = Arc::new(applicable(&self.current, written));
        let before = Arc::clone(&self.current);
        let snapshot = self.snapshot.load_full();
        let mut notes = match self.put_in_force(Arc::clone(&config), &Reopen::All).await {
            Ok(notes) => notes,
            Err(problems) => return self.refuse(trigger, problems.into()),
        };
        self.follow_files();
        if let Some(change) = self.state.program.as_ref().and_then(Program::change) {
            tracing::warn!("reload: {change}");
            notes.push(change);
        }
        let sources_before = std::mem::replace(&mut self.sources, files.sources);
        if self.rollback.is_none() {
            self.sources_before = sources_before;
        }
        self.rollback = RollbackWatch::after(self.rollback.take(), before, &snapshot, &config);
        if self.rollback.is_none() {
            self.sources_before = Vec::new();
        }
        let mut told = warnings.shown;
        told.extend(notes);
        self.done(&changes, told)
    }

    /// A changed file that takes away listeners or servers, or that ends the watching of the files, may not be
    /// written to its end: it is read again when nothing has happened for [`watch::LOSS_QUIET`]. Returns what is
    /// said about it in this case.
    fn defer(&mut self, changes: &Changes, written: &Config) -> Option<Vec<String>> {
        let removes = |kind: &str| {
            let mut list = changes.list.iter();
            list.any(|change| change.action == Action::Remove && change.kind == kind)
        };
        let what = if removes("bind") || removes("runtime-api") {
            "listeners would close"
        } else if removes("server") {
            "servers would be removed"
        } else if !written.global.watch {
            "`watch` would end"
        } else {
            self.watch.stop_waiting();
            return None;
        };
        if !self.watch.wait_for_loss() {
            return None;
        }
        let quiet = watch::LOSS_QUIET;
        let line = format!("{what}: the files are read again once unchanged for {quiet:?}");
        tracing::warn!("reload deferred: {line}");
        Some(vec![line])
    }

    /// Reads the files. Those that it has looked for are watched from now on.
    async fn load(&mut self) -> Result<Loaded, Problems> {
        match self.loading.load().await {
            Ok(loaded) => {
                self.files.clone_from(&loaded.files.looked_at);
                Ok(loaded)
            }
            Err(refused) => {
                // What is missing may come; what a broken file no longer names may come back.
                let known: HashSet<&PathBuf> = self.files.iter().collect();
                let more = refused.files.looked_at.into_iter();
                let more: Vec<PathBuf> = more.filter(|file| !known.contains(file)).collect();
                self.files.extend(more);
                self.follow_files();
                Err(refused.problems)
            }
        }
    }

    /// What a reload would change. Reads the files and changes nothing.
    pub(super) async fn compare(&mut self, shape: Shape) -> Answer {
        let (done, lines) = match self.loading.load().await {
            Ok(loaded) => {
                let changes = plan(&self.current, &loaded.config);
                let mut lines = loaded.warnings.shown;
                match shape {
                    Shape::Json => lines = vec![format!("{:#}", changes.to_json())],
                    Shape::Lines => {
                        lines.extend(changes.list.iter().map(ToString::to_string));
                        lines.push(changes.summary());
                    }
                }
                (true, lines)
            }
            Err(refused) => (false, refused.problems.shown),
        };
        Answer { done, lines }
    }

    /// The files that are in force, as they were read.
    pub(super) fn show(&self) -> Answer {
        let restarts = self.restarts.iter();
        let mut lines: Vec<String> = restarts
            .map(|line| format!("# not in force before a restart: {line}"))
            .collect();
        for source in &self.sources {
            lines.push(format!("# configuration file {}:", source.name));
            lines.push(source.text.trim_end_matches('\n').to_owned());
        }
        Answer { done: true, lines }
    }

    /// Prepares `config` and has it committed. Returns a sentence for each socket that was opened again.
    pub(super) async fn put_in_force(
        &mut self,
        config: Arc<Config>,
        reopen: &Reopen,
    ) -> Result<Vec<String>, Vec<String>> {
        let (done, committed) = oneshot::channel();
        let (commit, log, runtime) = self.prepare(Arc::clone(&config), reopen, done).await?;
        self.state.manager().notify(&reloading());
        let stopping = || vec!["rlb is stopping".to_owned()];
        self.commits.send(commit).await.map_err(|_| stopping())?;
        let mut listeners = committed.await.map_err(|_| stopping())?;
        listeners.announce();
        let reopened = listeners.take_reopened().into_iter();
        let mut reopened: Vec<String> = reopened.map(Reopened::report).collect();
        let change = self.state.listeners.take(listeners);
        self.state.log.apply(log);
        self.follow_runtime_mode(&config);
        self.state.runtime.take(runtime).await;
        if matches!(reopen, Reopen::All) {
            reopened.extend(self.reopen_lost_runtime(&config).await);
        }
        self.current = config;
        self.state.admin_listeners.change(change).await;
        self.state.manager().notify(&[NotifyState::Ready]);
        Ok(reopened)
    }

    /// Everything that can fail, or takes time.
    async fn prepare(
        &mut self,
        config: Arc<Config>,
        reopen: &Reopen,
        done: oneshot::Sender<listeners::Prepared>,
    ) -> Result<Prepared, Vec<String>> {
        let maxconn = maxconn(&config, self.nofile);
        let maxconn = maxconn.map_err(|error| vec![error.to_string()])?;
        let snapshot = self.snapshot.load_full();
        let listeners = &self.state.listeners;
        let listeners = listeners.prepare(&config, (maxconn, reopen), &snapshot)?;
        let node = config.global.node.as_deref();
        let log = self.state.log.plan_change(&config.log, node);
        // A file system may take its time, and health checks are not to wait for it.
        let opened = tokio::task::spawn_blocking(move || log.open()).await;
        let log = opened.map_err(|_| vec!["log: cannot be opened".to_owned()])??;
        let mut addresses = self.snapshot.load().known_addresses();
        let unknown = names(&config)
            .filter(|name| !addresses.contains_key(*name))
            .cloned()
            .collect();
        addresses.extend(resolve::look_up_all(unknown).await);
        let runtime = admin_listeners::prepare_runtime(&self.state.runtime.open, sockets(&config))?;
        let commit = Commit {
            config,
            maxconn,
            addresses,
            listeners,
            done,
        };
        Ok((commit, log, runtime))
    }

    /// Changes owner and mode of the runtime sockets' files. What the system refuses is said, and leaves
    /// a file as it was.
    fn follow_runtime_mode(&self, config: &Config) {
        let rights = |one: &RuntimeSocketKeys| (one.mode, one.owner.clone(), one.group.clone());
        for new in sockets(config) {
            let mut known = sockets(&self.current).iter();
            let old = known.find(|one| one.address == new.address);
            if old.is_some_and(|old| rights(old) != rights(new))
                && let Err(error) = admin_listeners::set_runtime_mode(new)
            {
                let path = new.place();
                tracing::warn!(path, %error, "runtime socket keeps its mode and owner");
            }
        }
    }
}

/// The runtime sockets of a configuration.
fn sockets(config: &Config) -> &[RuntimeSocketKeys] {
    config.runtime_api.as_ref().map_or(&[], |api| &api.sockets)
}

fn names(config: &Config) -> impl Iterator<Item = &Arc<str>> {
    let servers = config.backends.iter().flat_map(|backend| &backend.servers);
    servers.filter_map(|server| match &server.address {
        ServerAddress::Name(name, _) => Some(name),
        ServerAddress::Ip(..) | ServerAddress::Unix(_) => None,
    })
}

/// systemd wants to know when a reload began, so that it can tell one READY=1 from another.
fn reloading() -> Vec<NotifyState<'static>> {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now().ok());
    states
}
