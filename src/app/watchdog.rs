//! Sends `WATCHDOG=1` to the service manager twice in `WATCHDOG_USEC`, but only if every worker's number has
//! changed since the last time and control takes its messages.
//!
//! Runs on the control thread, as the control task does, so that a blocked thread sends nothing. The manager
//! decides what follows (a restart, with the sockets kept).

use crate::live::pulse::{Pulse, Pulses};
use crate::state::ControlHandle;
use crate::sys::service_manager::ServiceManager;
use sd_notify::NotifyState;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval_at};

/// Increments of a worker's number between two checks, so that a worker that is only late is not reported.
const BEATS: u32 = 4;

/// A watchdog that has not started.
#[derive(Debug)]
pub(super) struct Watchdog {
    every: Duration,
    pulses: Pulses,
}

impl Watchdog {
    /// A watchdog and the workers' pulses; `None`: the manager does not ask for one.
    pub(super) fn new(workers: usize) -> (Option<Self>, Vec<Option<Pulse>>) {
        let Some(limit) = sd_notify::watchdog_enabled() else {
            return (None, (0..workers).map(|_| None).collect());
        };
        let every = limit / 2;
        let (pulses, workers) = Pulses::new(workers, every / BEATS);
        let workers = workers.into_iter().map(Some).collect();
        (Some(Self { every, pulses }), workers)
    }

    /// Reports now, because the process before may have used half the limit, and then until the task is
    /// aborted.
    pub(super) fn start(self, control: ControlHandle, manager: ServiceManager) -> JoinHandle<()> {
        notify(&manager);
        tokio::task::spawn_local(self.run(control, manager))
    }

    async fn run(mut self, control: ControlHandle, manager: ServiceManager) {
        let mut ticks = interval_at(Instant::now() + self.every, self.every);
        loop {
            ticks.tick().await;
            match verdict(&self.pulses.silent(), control.takes_messages()) {
                Ok(()) => notify(&manager),
                Err(why) => tracing::error!("no sign of life for the watchdog: {why}"),
            }
        }
    }
}

/// Sends `WATCHDOG=1` now. If the manager cannot take it now, it would come too late.
fn notify(manager: &ServiceManager) {
    if let Err(error) = manager.notify_now(&[NotifyState::Watchdog]) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// `Ok` when everything runs; otherwise what does not.
fn verdict(silent: &[usize], control: bool) -> Result<(), String> {
    match (silent, control) {
        ([], true) => Ok(()),
        ([], false) => Err("control does not take its messages".to_owned()),
        (workers, _) => Err(format!("workers {workers:?} do not answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_and_control_must_run() {
        assert_eq!(verdict(&[], true), Ok(()));
        let why = |silent: &[usize], control| verdict(silent, control).unwrap_err();
        assert_eq!(why(&[1], true), "workers [1] do not answer");
        assert_eq!(why(&[0, 2], false), "workers [0, 2] do not answer");
        assert_eq!(why(&[], false), "control does not take its messages");
    }
}
