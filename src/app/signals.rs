//! The process's signals. Runs on the control thread.
//!
//! | signal | `rlb run` | under the name `haproxy` |
//! |---|---|---|
//! | TERM | waits for sessions; a second one ends them | ends at once, by the signal without `-W` |
//! | INT | ends at once | ends at once, by the signal without `-W` |
//! | USR1 | waits for sessions | the same; the statistics and the runtime socket close now |
//! | HUP | reloads | reloads with `-W` or `-Ws`, otherwise logs the state of the servers |
//! | USR2 | hands over to a new process | reloads with `-W` or `-Ws` |
//! | TTOU, TTIN | nothing | the same |
//! | QUIT | ends at once, with a core file | nothing: HAProxy logs its memory pools |
//!
//! A process that has handed over to a new one follows TERM, INT and USR1 likewise. What HUP and USR2 ask for is the
//! new process's to do: the log says which one that is.

use super::start::SignalMeaning;
use crate::control::reload::ReloadHandle;
use crate::state::{OperState, Snapshot};
use arc_swap::ArcSwap;
use rustix::process::Signal as Number;
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How the process is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Wait for sessions to end.
    Soft,
    /// At once, because of this signal.
    Now(Number),
}

impl Stop {
    pub(super) fn is_now(self) -> bool {
        matches!(self, Self::Now(_))
    }
}

/// The signals that rlb handles, from the creation of this value on.
#[derive(Debug)]
pub(super) struct Signals {
    meaning: SignalMeaning,
    term: Signal,
    int: Signal,
    usr1: Signal,
    hup: Signal,
    usr2: Signal,
    /// Sent by a HAProxy that finds an address in use (`-sf`). It would suspend the process otherwise.
    pause: Signal,
    resume: Signal,
    /// Under the name `haproxy` alone.
    quit: Option<Signal>,
}

impl Signals {
    pub(super) fn new(meaning: SignalMeaning) -> io::Result<Self> {
        let by_number = |number: Number| signal(SignalKind::from_raw(number.as_raw()));
        Ok(Self {
            meaning,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            usr1: signal(SignalKind::user_defined1())?,
            hup: signal(SignalKind::hangup())?,
            usr2: signal(SignalKind::user_defined2())?,
            pause: by_number(Number::TTOU)?,
            resume: by_number(Number::TTIN)?,
            quit: match meaning {
                SignalMeaning::Rlb => None,
                SignalMeaning::Haproxy { .. } => Some(signal(SignalKind::quit())?),
            },
        })
    }

    /// Whether a stop leaves the sockets of the statistics and the runtime API to another process, as
    /// HAProxy's does: `haproxy -sf` has started one.
    pub(super) fn leaves_admin(&self) -> bool {
        self.meaning != SignalMeaning::Rlb
    }

    /// Waits for the first signal that stops the process. Meanwhile signals reload, hand over to a new process,
    /// or log the state of the servers.
    pub(super) async fn stop(
        &mut self,
        reload: &ReloadHandle,
        snapshot: &ArcSwap<Snapshot>,
    ) -> Stop {
        let meaning = self.meaning;
        let reloads = match meaning {
            SignalMeaning::Rlb => true,
            SignalMeaning::Haproxy { reloads } => reloads,
        };
        loop {
            tokio::select! {
                _ = self.term.recv() => return match meaning {
                    SignalMeaning::Rlb => Stop::Soft,
                    SignalMeaning::Haproxy { .. } => Stop::Now(Number::TERM),
                },
                _ = self.usr1.recv() => return Stop::Soft,
                _ = self.int.recv() => return Stop::Now(Number::INT),
                _ = self.hup.recv() => if reloads {
                    reload.signalled();
                } else {
                    log_servers(&snapshot.load());
                },
                _ = self.usr2.recv() => match meaning {
                    SignalMeaning::Rlb => reload.upgrade_signalled(),
                    SignalMeaning::Haproxy { reloads: true } => reload.signalled(),
                    SignalMeaning::Haproxy { reloads: false } => {
                        tracing::error!("SIGUSR2: it reloads with `-W` or `-Ws` alone");
                    }
                },
                _ = self.pause.recv() => {
                    tracing::warn!("SIGTTOU: listening sockets are not paused");
                }
                () = received(self.quit.as_mut()) => {
                    tracing::warn!("SIGQUIT: there are no memory pools to tell of");
                }
                _ = self.resume.recv() => {}
            }
        }
    }

    /// Waits for a signal that stops this process, which has handed over.
    pub(super) async fn stop_old(&mut self, reload: &ReloadHandle) -> Stop {
        let term = match self.meaning {
            SignalMeaning::Rlb => Stop::Soft,
            SignalMeaning::Haproxy { .. } => Stop::Now(Number::TERM),
        };
        loop {
            tokio::select! {
                _ = self.term.recv() => return term,
                _ = self.usr1.recv() => return Stop::Soft,
                _ = self.int.recv() => return Stop::Now(Number::INT),
                _ = self.hup.recv() => refuse("SIGHUP", NOT_READ, reload),
                _ = self.usr2.recv() => refuse("SIGUSR2", NOT_STARTED, reload),
                _ = self.pause.recv() => {}
                _ = self.resume.recv() => {}
            }
        }
    }

    /// Waits for a signal that ends a soft stop: a SIGTERM or a SIGINT.
    pub(super) async fn now(&mut self, reload: &ReloadHandle) -> Stop {
        loop {
            tokio::select! {
                _ = self.term.recv() => return Stop::Now(Number::TERM),
                _ = self.int.recv() => return Stop::Now(Number::INT),
                _ = self.usr1.recv() => {}
                _ = self.hup.recv() => refuse("SIGHUP", NOT_READ, reload),
                _ = self.usr2.recv() => refuse("SIGUSR2", NOT_STARTED, reload),
                _ = self.pause.recv() => {}
                _ = self.resume.recv() => {}
            }
        }
    }
}

/// Waits for a signal, for ever without one.
async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

const NOT_READ: &str = "the configuration is not read again";
const NOT_STARTED: &str = "no new process is started";

/// Logs that a signal has no effect, and who would follow it.
fn refuse(signal: &str, what: &str, reload: &ReloadHandle) {
    if let Some(pid) = reload.new_process() {
        tracing::error!(
            "{signal}: this process has handed over and {what}; process {pid} serves: signal that one"
        );
    } else {
        tracing::error!("{signal}: this process is stopping; {what}");
    }
}

/// Logs a line for each server, with HAProxy's words.
fn log_servers(snapshot: &Snapshot) {
    tracing::warn!("SIGHUP received, dumping servers states.");
    for backend in snapshot.backends.iter().flatten() {
        for server in &backend.servers {
            let (proxy, live) = (&backend.live.name, &server.live);
            let state = match server.status.oper {
                OperState::Stopped => "DOWN",
                _ => "UP",
            };
            let active = live.active.get();
            let total = live.traffic.sum(|traffic| &traffic.stot);
            let name = &server.spec.name;
            tracing::warn!(
                "SIGHUP: Server {proxy}/{name} is {state}. Conn: {active} act, 0 pend, {total} tot."
            );
        }
    }
}
