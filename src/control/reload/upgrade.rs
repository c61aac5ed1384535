//! An upgrade, the old process's part on the control thread: what is in force is handed over, the
//! service manager is told whom to watch from now on, and the admin listeners are left to the new process.
//!
//! Invariant: until the new process is in charge, nothing here has changed.

use super::super::handover::{HandoverPayload, RUNTIME, Successor};
use super::{Answer, HandedOver, Reloader};
use crate::stats::servers_state;
use sd_notify::NotifyState;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;

/// How long the service manager may take to read what it was told.
const MANAGER_MAX: Duration = Duration::from_secs(1);

impl Reloader {
    /// Starts the program anew and hands over to it.
    pub(super) async fn upgrade(&mut self) -> (Answer, Option<HandedOver>) {
        let limit = self.current.global.upgrade_stop_after;
        match self.hand_over().await {
            Ok(pid) => {
                let line = format!("process {pid} serves from now on");
                tracing::info!("upgraded: {line}");
                let lines = vec![line];
                (Answer { done: true, lines }, Some(HandedOver { limit }))
            }
            Err(problem) => {
                let unchanged = "this process goes on as it was";
                tracing::error!("upgrade: {problem}");
                tracing::error!("upgrade refused: {unchanged}");
                let lines = vec![problem, unchanged.to_owned()];
                (Answer { done: false, lines }, None)
            }
        }
    }

    /// The process id of whom it was handed over to, or why it was not.
    async fn hand_over(&mut self) -> Result<u32, String> {
        let program = self.state.program.clone();
        let program = program.ok_or("what runs here is not a service (`rlb run`)")?;
        tracing::info!(program = %program.path.display(), "upgrade: starting the new process");
        let runtime = self.state.runtime.iter();
        let runtime = runtime.map(|runtime| (RUNTIME.to_owned(), Arc::clone(&runtime.socket)));
        let payload = HandoverPayload {
            sockets: self.state.listeners.lasting().chain(runtime).collect(),
            servers: servers_state::whole(&self.snapshot.load(), Instant::now()),
        };
        let successor = spawn_blocking(move || Successor::start(&program, &payload));
        let successor = successor.await.map_err(|error| error.to_string())??;
        let pid = successor.pid;
        let manager = self.state.manager().clone();
        manager.notify(&[NotifyState::MainPid(pid)]);
        let told = spawn_blocking(move || manager.barrier(MANAGER_MAX));
        if let Ok(Err(error)) = told.await {
            tracing::warn!(%error, "upgrade: the service manager does not listen");
        }
        if let Err(error) = successor.go() {
            // It has ended in this very moment, and may be what is watched.
            let own = NotifyState::MainPid(std::process::id());
            self.state.manager().notify(&[own]);
            return Err(format!("the new process is gone: {error}"));
        }
        self.state
            .admin_listeners
            .change(self.state.listeners.close_admin_listeners())
            .await;
        if let Some(runtime) = &self.state.runtime {
            runtime.closing.cancel();
        }
        Ok(pid)
    }
}
