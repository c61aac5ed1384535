//! What the reload task is asked for, by whom, and what it answers.

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

/// How the changes of a comparison are told.
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
    /// Nothing is done here any more: process `pid` serves.
    pub(super) fn taken_over_by(pid: u32) -> Self {
        Self {
            done: false,
            lines: vec![format!(
                "process {pid} has taken over from this one: ask again, it answers"
            )],
        }
    }
}

/// The receiving end of the requests.
#[derive(Debug)]
pub(super) struct Requests {
    receiver: mpsc::Receiver<Request>,
    taken_over_by: Arc<OnceLock<u32>>,
}

impl Requests {
    /// The two ends.
    pub(super) fn new() -> (ReloadHandle, Self) {
        let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
        let taken_over_by = Arc::default();
        let handle = ReloadHandle {
            sender,
            taken_over_by: Arc::clone(&taken_over_by),
        };
        let requests = Self {
            receiver,
            taken_over_by,
        };
        (handle, requests)
    }

    /// The next request; `None` when nobody is left who could ask.
    pub(super) async fn next(&mut self) -> Option<Request> {
        self.receiver.recv().await
    }

    /// Process `pid` serves from now on: says so to whoever waits, and to whoever asks later.
    pub(super) fn taken_over_by(&mut self, pid: u32) {
        // It happens once in the life of a process.
        let _ = self.taken_over_by.set(pid);
        self.receiver.close();
        while let Ok(request) = self.receiver.try_recv() {
            if let Some(reply) = request.reply {
                let _ = reply.send(Answer::taken_over_by(pid));
            }
        }
    }
}

/// Asks for reloads and upgrades; cheap to clone.
#[derive(Debug, Clone)]
pub struct ReloadHandle {
    sender: mpsc::Sender<Request>,
    taken_over_by: Arc<OnceLock<u32>>,
}

impl ReloadHandle {
    /// A signal asks: the answer goes to the log.
    pub fn signalled(&self) {
        self.tell(Wanted::Reload(Trigger::Signal));
    }

    /// A signal asks for an upgrade: the answer goes to the log.
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

    fn tell(&self, wanted: Wanted) {
        let request = Request {
            wanted,
            reply: None,
        };
        if self.sender.try_send(request).is_err() {
            tracing::warn!(?wanted, "a signal is not heard: too many requests wait");
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
        answer.or_else(|| self.taken_over_by.get().copied().map(Answer::taken_over_by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 46: a reload that was asked for during an upgrade was told that the process is stopping.
    #[tokio::test]
    async fn whoever_asks_during_or_after_an_upgrade_is_told_who_serves() {
        let (handle, mut requests) = Requests::new();
        let upgrade = async {
            let request = requests.next().await.unwrap();
            while requests.receiver.is_empty() {
                tokio::task::yield_now().await;
            }
            requests.taken_over_by(7);
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

    #[tokio::test]
    async fn a_process_that_stops_has_no_answer() {
        let (handle, requests) = Requests::new();
        drop(requests);
        assert!(handle.reload().await.is_none());
    }
}
