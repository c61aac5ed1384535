//! Tells the service manager that the process is well, as long as it is: `WATCHDOG=1` twice in
//! `WATCHDOG_USEC`, but only if every worker has moved on since the last time and control takes
//! its messages.
//!
//! Runs on the control thread, as control does, so that a thread that is stuck sends nothing. The
//! manager decides what follows from silence (a restart, with the listeners kept).

use crate::live::pulse::{Pulse, Pulses};
use crate::state::ControlHandle;
use crate::sys::service_manager::ServiceManager;
use sd_notify::NotifyState;
use std::time::Duration;
use tokio::time::{Instant, interval_at};

/// Beats of a worker between two looks at it, so that one that is merely late is not missed.
const BEATS: u32 = 4;

/// A watchdog that has not begun.
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

    /// Reports for as long as it is polled.
    pub(super) async fn run(mut self, control: ControlHandle, manager: ServiceManager) {
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

/// Says now that all is well. What the manager cannot take now would say it too late.
pub(super) fn notify(manager: &ServiceManager) {
    if let Err(error) = manager.notify_now(&[NotifyState::Watchdog]) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// Whether all is well, or what is not.
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
    fn all_have_to_be_well() {
        assert_eq!(verdict(&[], true), Ok(()));
        let why = |silent: &[usize], control| verdict(silent, control).unwrap_err();
        assert_eq!(why(&[1], true), "workers [1] do not answer");
        assert_eq!(why(&[0, 2], false), "workers [0, 2] do not answer");
        assert_eq!(why(&[], false), "control does not take its messages");
    }
}
