//! An upgrade, the old process's part on the control thread: starts the new process, hands over what is in
//! force, tells the service manager which process to watch from now on, and stops accepting.
//!
//! Invariants: until the new process is in charge, nothing here has changed. A stop that comes before that
//! gives the upgrade up; one that comes later finds the service handed over, so that this process never
//! takes a connection that waits for the new one.

use super::super::handover::{
    self, HandoverPayload, NewProcess, Program, RUNTIME, StateTexts, Successor,
};
use super::{Answer, HandedOver, Reloader};
use crate::state::ToControl;
use crate::sys::channel::Channel;
use crate::sys::service_manager;
use crate::sys::socket::Address;
use sd_notify::NotifyState;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

/// How long the service manager may take to read its message.
const MANAGER_MAX: Duration = Duration::from_secs(1);

/// Why an upgrade is given up at a stop.
const STOPPING: &str = "this process is stopping";

impl Reloader {
    /// Starts the program again and hands over to the new process.
    pub(super) async fn upgrade(
        &mut self,
        stop: &CancellationToken,
    ) -> (Answer, Option<HandedOver>) {
        match self.hand_over(stop).await {
            Ok((process, handed_over)) => {
                let pid = process.pid;
                let line = format!("process {pid} serves from now on");
                tracing::info!("upgraded: {line}");
                let lines = vec![line];
                self.requests.taken_over_by(process);
                (Answer { done: true, lines }, Some(handed_over))
            }
            Err(problem) => {
                let unchanged = if stop.is_cancelled() {
                    "the stop goes on"
                } else {
                    "this process goes on as it was"
                };
                tracing::error!("upgrade: {problem}");
                tracing::error!("upgrade refused: {unchanged}");
                let lines = vec![problem, unchanged.to_owned()];
                (Answer { done: false, lines }, None)
            }
        }
    }

    /// The process that it was handed over to, or why it was not.
    async fn hand_over(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<(NewProcess, HandedOver), String> {
        let limit = self.current.global.upgrade_stop_after;
        let moves = self.current.global.upgrade_moves_sessions;
        let program = self.state.program.clone();
        let program = program.ok_or("what runs here is not a service (`rlb run`)")?;
        tracing::info!(program = %program.path.display(), "upgrade: starting the new process");
        let runtime = self.state.runtime.open.iter();
        let runtime = runtime.map(|runtime| {
            let numbered = runtime.number().map(Address::Descriptor);
            let name = numbered.map_or_else(|| RUNTIME.to_owned(), |it| service_manager::name(&it));
            (name, Arc::clone(&runtime.socket))
        });
        let payload = HandoverPayload {
            sockets: self.state.listeners.lasting().chain(runtime).collect(),
            state: StateTexts::of(&self.snapshot.load(), Instant::now()),
        };
        let successor = start(program, payload, stop).await?;
        let pid = successor.process.pid;
        let left = self.state.listeners.left(&successor.unused);
        tracing::info!(pid, "upgrade: the new process is ready");
        let manager = self.state.manager().clone();
        manager.notify(&[NotifyState::MainPid(pid)]);
        let told = spawn_blocking(move || manager.barrier(MANAGER_MAX));
        if let Ok(Err(error)) = told.await {
            tracing::warn!(%error, "upgrade: the service manager does not listen");
        }
        self.hold_changes().await;
        let gone = if stop.is_cancelled() {
            give_up(successor).await;
            Err(STOPPING.to_owned())
        } else {
            let (snapshot, now) = (self.snapshot.load_full(), Instant::now());
            let counters = handover::counters::write(&snapshot, now);
            let state = StateTexts::of(&snapshot, now);
            let gone = |error| format!("the new process is gone: {error}");
            successor.go(counters, &state).map_err(gone)
        };
        let (process, reporter) = match gone {
            Ok(handed_over) => handed_over,
            Err(problem) => {
                self.control.report(ToControl::ResumeChanges).await;
                let own = NotifyState::MainPid(std::process::id());
                self.state.manager().notify(&[own]);
                return Err(problem);
            }
        };
        self.leave_admin_sockets().await;
        let handed_over = HandedOver {
            limit,
            moves,
            reporter,
            left,
        };
        Ok((process, handed_over))
    }

    /// Has what operators change wait, and what they have changed published.
    async fn hold_changes(&self) {
        let (done, published) = oneshot::channel();
        if self.control.report(ToControl::HoldChanges { done }).await {
            // A control task that has ended changes nothing.
            let _ = published.await;
        }
    }
}

/// Starts the new process and waits until it is ready. A stop gives it up.
async fn start(
    program: Program,
    payload: HandoverPayload,
    stop: &CancellationToken,
) -> Result<Successor, String> {
    let (channel, theirs) = Channel::pair().map_err(|error| error.to_string())?;
    let channel = Arc::new(channel);
    let ours = Arc::clone(&channel);
    let (done, mut starting) = oneshot::channel();
    // A thread of its own: those of the runtime may be older than the change of the user, and what they start may then
    // not listen on ports below 1024 ([`crate::sys::identity`]).
    thread::Builder::new()
        .name("upgrade".to_owned())
        .spawn(move || done.send(Successor::start(&program, (ours, theirs), &payload)))
        .map_err(|error| error.to_string())?;
    let successor = tokio::select! {
        successor = &mut starting => successor,
        () = stop.cancelled() => {
            // The start fails now and ends the new process.
            channel.close();
            starting.await
        }
    };
    let successor = successor.map_err(|error| error.to_string())?;
    if stop.is_cancelled() {
        if let Ok(successor) = successor {
            give_up(successor).await;
        }
        return Err(STOPPING.to_owned());
    }
    successor
}

/// Ends a new process that is not to be in charge. Before this process drains its accept queues, the new one
/// must have left them.
async fn give_up(successor: Successor) {
    // A panic there would be logged; the stop goes on.
    let _ = spawn_blocking(move || successor.end()).await;
}
