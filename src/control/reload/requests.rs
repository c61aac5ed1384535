//! What the reload task is asked for, by whom, and what it answers.

use super::super::handover::NewProcess;
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait while a reload runs. Further ones would read the same file.
pub const REQUESTS_MAX: usize = 64;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A reload, and who asked.
    Reload(Trigger),
    /// What a reload would change.
    Compare(Shape),
    /// The files that are in force.
    Show,
    /// A new process.
    Upgrade,
}

/// The form in which the changes of a comparison are returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A line for each object that differs.
    Lines,
    /// One JSON object.
    Json,
}

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    Signal,
    Command,
    Watch,
}

/// What came of a reload or an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The new configuration is in force, or the new process in charge.
    pub done: bool,
    /// What changed or why not, a line each, the summary last.
    pub lines: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) wanted: Wanted,
    pub(super) reply: Option<oneshot::Sender<Answer>>,
}

impl Answer {
    /// This process does nothing that is asked for any more: process `pid` serves.
    pub(super) fn taken_over_by(pid: u32) -> Self {
        Self {
            done: false,
            lines: vec![format!(
                "process {pid} has taken over from this one: ask again, it answers"
            )],
        }
    }
}

impl Wanted {
    /// The signal that asks for it.
    fn signal(self) -> Signal {
        match self {
            Self::Upgrade => Signal::USR2,
            Self::Reload(_) | Self::Compare(_) | Self::Show => Signal::HUP,
        }
    }

    /// Its name.
    fn signal_name(self) -> &'static str {
        match self.signal() {
            Signal::USR2 => "SIGUSR2",
            _ => "SIGHUP",
        }
    }
}

/// What both ends know of an upgrade.
#[derive(Debug, Default)]
struct UpgradeState {
    /// One is under way.
    running: AtomicBool,
    /// One has succeeded: this process serves.
    new_process: OnceLock<NewProcess>,
    /// The process that serves by now, as it has told; 0: it has not.
    serving: Arc<AtomicU32>,
}

impl UpgradeState {
    /// Passes a signal on to the process that serves. It has perhaps read its files before the signal came.
    fn pass_on(&self, wanted: Wanted) {
        let Some(process) = self.new_process.get() else {
            return;
        };
        let (pid, signal) = (process.pid, wanted.signal_name());
        match process.signal(wanted.signal()) {
            Ok(()) => tracing::info!(pid, signal, "signal passed on to the new process"),
            Err(error) => tracing::error!(pid, signal, %error, "signal not passed on"),
        }
    }
}

/// Marks that an upgrade is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Upgrading(Arc<UpgradeState>);

impl Drop for Upgrading {
    fn drop(&mut self) {
        self.0.running.store(false, Relaxed);
    }
}

/// The receiving end of the requests.
#[derive(Debug)]
pub(super) struct Requests {
    receiver: mpsc::Receiver<Request>,
    state: Arc<UpgradeState>,
}

impl Requests {
    /// The two ends.
    pub(super) fn new() -> (ReloadHandle, Self) {
        let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
        let state = Arc::default();
        let handle = ReloadHandle {
            sender,
            state: Arc::clone(&state),
        };
        (handle, Self { receiver, state })
    }

    /// The next request; `None` when nobody is left who could ask.
    pub(super) async fn next(&mut self) -> Option<Request> {
        self.receiver.recv().await
    }

    /// An upgrade begins: signals that come before its end are logged as kept.
    pub(super) fn upgrading(&self) -> Upgrading {
        self.state.running.store(true, Relaxed);
        Upgrading(Arc::clone(&self.state))
    }

    /// `process` serves from now on. Answers so whoever waits or asks later, and
    /// passes on the signals that have come during the upgrade, each kind once.
    pub(super) fn taken_over_by(&mut self, process: NewProcess) {
        let pid = process.pid;
        // It happens once in the life of a process.
        let _ = self.state.new_process.set(process);
        self.receiver.close();
        let mut signals = Vec::new();
        while let Ok(request) = self.receiver.try_recv() {
            match request.reply {
                // Whoever asked may have gone.
                Some(reply) => drop(reply.send(Answer::taken_over_by(pid))),
                None if signals.contains(&request.wanted) => {}
                None => signals.push(request.wanted),
            }
        }
        for wanted in signals {
            self.state.pass_on(wanted);
        }
    }
}

/// Asks for reloads and upgrades; cheap to clone.
#[derive(Debug, Clone)]
pub struct ReloadHandle {
    sender: mpsc::Sender<Request>,
    state: Arc<UpgradeState>,
}

impl ReloadHandle {
    /// One whose requests nobody answers.
    #[cfg(test)]
    pub(crate) fn unattended() -> Self {
        Requests::new().0
    }

    /// A signal asks: the answer goes to the log. During an upgrade it is kept: when the upgrade fails the
    /// files are read then, otherwise the new process gets the signal.
    pub fn signalled(&self) {
        self.tell(Wanted::Reload(Trigger::Signal));
    }

    /// A signal asks for an upgrade: the answer goes to the log. During an upgrade it is kept likewise.
    pub fn upgrade_signalled(&self) {
        self.tell(Wanted::Upgrade);
    }

    /// An operator asks and waits. `None` when the process is stopping.
    pub async fn reload(&self) -> Option<Answer> {
        self.ask(Wanted::Reload(Trigger::Command)).await
    }

    /// An operator asks what a reload would change, and waits. Nothing is changed. `None` when the
    /// process is stopping.
    pub async fn compare(&self, shape: Shape) -> Option<Answer> {
        self.ask(Wanted::Compare(shape)).await
    }

    /// An operator asks for the text of the files that are in force, and waits. `None` when the
    /// process is stopping.
    pub async fn show(&self) -> Option<Answer> {
        self.ask(Wanted::Show).await
    }

    /// An operator asks for an upgrade and waits. `None` when the process is stopping.
    pub async fn upgrade(&self) -> Option<Answer> {
        self.ask(Wanted::Upgrade).await
    }

    /// The id of the process that serves, after this one has handed over.
    pub fn new_process(&self) -> Option<u32> {
        let first = self.state.new_process.get()?.pid;
        let newest = self.state.serving.load(Relaxed);
        Some(if newest == 0 { first } else { newest })
    }

    /// Where the id of the process that serves is noted when it is a newer one than this one has started; 0: it is not.
    pub fn serving(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.state.serving)
    }

    fn tell(&self, wanted: Wanted) {
        let request = Request {
            wanted,
            reply: None,
        };
        let signal = wanted.signal_name();
        match self.sender.try_send(request) {
            Ok(()) if self.state.running.load(Relaxed) => {
                tracing::info!(signal, "signal kept until the upgrade has ended");
            }
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!(signal, "signal ignored: too many requests wait");
            }
            Err(mpsc::error::TrySendError::Closed(_)) => self.state.pass_on(wanted),
        }
    }

    async fn ask(&self, wanted: Wanted) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            wanted,
            reply: Some(reply),
        };
        let sent = self.sender.send(request).await;
        let answer = match sent {
            Ok(()) => answer.await.ok(),
            Err(_) => None,
        };
        answer.or_else(|| self.new_process().map(Answer::taken_over_by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 46: a reload that was asked for during an upgrade was told that the process is stopping.
    #[tokio::test]
    async fn requests_during_or_after_an_upgrade_are_answered_with_the_new_process() {
        let (handle, mut requests) = Requests::new();
        let upgrade = async {
            let request = requests.next().await.unwrap();
            while requests.receiver.is_empty() {
                tokio::task::yield_now().await;
            }
            requests.taken_over_by(NewProcess::numbered(7));
            drop(request);
        };
        let (waiting, queued, ()) = tokio::join!(handle.reload(), handle.upgrade(), upgrade);
        for answer in [waiting, queued, handle.reload().await] {
            let answer = answer.expect("an answer");
            assert!(
                !answer.done && answer.lines[0].contains("process 7"),
                "{answer:?}"
            );
        }
        drop(requests);
        assert!(handle.reload().await.is_some());
    }

    /// A signal that came during an upgrade was dropped without a line.
    #[tokio::test]
    async fn signals_during_an_upgrade_go_to_the_new_process() {
        use std::os::unix::process::ExitStatusExt;
        let sleeper = || {
            let mut command = std::process::Command::new("sleep");
            command.arg("60").spawn().unwrap()
        };
        // A shell may ignore SIGHUP for what it starts (nohup), but not SIGUSR2.
        // Before the end of the upgrade, and between it and the end of the task.
        for late in [false, true] {
            let (handle, mut requests) = Requests::new();
            let mut new = sleeper();
            let upgrading = requests.upgrading();
            if !late {
                handle.upgrade_signalled();
                handle.upgrade_signalled();
            }
            requests.taken_over_by(NewProcess::numbered(new.id()));
            drop(upgrading);
            if late {
                handle.upgrade_signalled();
            }
            assert_eq!(new.wait().unwrap().signal(), Some(Signal::USR2.as_raw()));
        }
    }

    #[tokio::test]
    async fn a_process_that_stops_has_no_answer() {
        let (handle, requests) = Requests::new();
        drop(requests);
        assert!(handle.reload().await.is_none());
    }
}
