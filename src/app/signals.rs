//! The process's signals, with HAProxy's meanings. Runs on the control thread.

use crate::control::reload::ReloadHandle;
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How the process is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Wait for sessions to end: SIGTERM, SIGUSR1.
    Soft,
    /// At once: SIGINT, or a second SIGTERM.
    Now,
}

/// The signals that rlb handles, from the creation of this value on.
#[derive(Debug)]
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    usr1: Signal,
    hup: Signal,
    usr2: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            usr1: signal(SignalKind::user_defined1())?,
            hup: signal(SignalKind::hangup())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the first signal that stops the process. Meanwhile SIGHUP reloads, and SIGUSR2 hands over to a
    /// new process.
    pub(super) async fn stop(&mut self, reload: &ReloadHandle) -> Stop {
        loop {
            tokio::select! {
                _ = self.term.recv() => return Stop::Soft,
                _ = self.usr1.recv() => return Stop::Soft,
                _ = self.int.recv() => return Stop::Now,
                _ = self.hup.recv() => reload.signalled(),
                _ = self.usr2.recv() => reload.upgrade_signalled(),
            }
        }
    }

    /// Waits for a signal that ends a soft stop: a SIGTERM or a SIGINT.
    pub(super) async fn now(&mut self) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                _ = self.usr1.recv() => {}
                _ = self.hup.recv() => refuse("SIGHUP", "the configuration is not read again"),
                _ = self.usr2.recv() => refuse("SIGUSR2", "no new process is started"),
            }
        }
    }
}

/// Logs that a signal has no effect.
fn refuse(signal: &str, what: &str) {
    tracing::error!("{signal}: this process is stopping; {what}");
}
