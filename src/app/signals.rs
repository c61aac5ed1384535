//! The process's signals, in HAProxy's meaning. Runs on the control thread.

use crate::control::reload::ReloadHandle;
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How the process is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Let sessions end: SIGTERM, SIGUSR1.
    Soft,
    /// At once: SIGINT, or a second SIGTERM.
    Now,
}

/// The signals that rlb handles, from its making on.
#[derive(Debug)]
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    usr1: Signal,
    hup: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            usr1: signal(SignalKind::user_defined1())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the first signal that stops the process; SIGHUP reloads.
    pub(super) async fn stop(&mut self, reload: &ReloadHandle) -> Stop {
        loop {
            tokio::select! {
                _ = self.term.recv() => return Stop::Soft,
                _ = self.usr1.recv() => return Stop::Soft,
                _ = self.int.recv() => return Stop::Now,
                _ = self.hup.recv() => reload.signalled(),
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
                _ = self.hup.recv() => refuse_reload(),
            }
        }
    }
}

/// Ignoring it in silence would look like a reload that worked.
fn refuse_reload() {
    tracing::error!("SIGHUP: rlb is stopping; the configuration is not read again");
}
