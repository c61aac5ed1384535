//! What the reload task is asked for, by whom, and what it answers.

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

/// Asks for reloads and upgrades; cheap to clone.
#[derive(Debug, Clone)]
pub struct ReloadHandle(pub(super) mpsc::Sender<Request>);

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
        if self.0.try_send(request).is_err() {
            tracing::warn!(?wanted, "a signal is not heard: too many requests wait");
        }
    }

    async fn ask(&self, wanted: Wanted) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            wanted,
            reply: Some(reply),
        };
        self.0.send(request).await.ok()?;
        answer.await.ok()
    }
}
