//! The bounded queue to the log thread. Sent to from workers and the control thread.
//!
//! Invariants: sending never waits. A full queue drops the line and counts it
//! ([`GlobalLive::dropped_logs`]), so that a log that nobody reads costs traffic nothing. A line is
//! in exactly one queue: one that is replaced ends for its reader when the last line that was sent
//! into it has been read.

use super::objects::GlobalLive;
use super::record::SessionRecord;
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Lines that may wait for the log thread.
pub const LOG_QUEUE_MAX: usize = 8192;

/// Severity of a [`LogEntry::Event`], by syslog's numbers (0 emerg to 7 debug). A number and not
/// the configuration's type, because this layer sees no configuration.
pub type SeverityCode = u8;

/// One line to be.
#[derive(Debug)]
pub enum LogEntry {
    /// A session has ended.
    Session(Box<SessionRecord>),
    /// Something happened to the service: text in HAProxy's words.
    Event {
        /// How bad.
        severity: SeverityCode,
        /// The line.
        text: Box<str>,
    },
}

/// A queue that is not yet sent to.
#[derive(Debug)]
pub struct LogSender(Arc<SyncSender<LogEntry>>);

/// A queue, and the end that the log thread reads.
pub fn log_queue() -> (LogSender, Receiver<LogEntry>) {
    let (sender, receiver) = sync_channel(LOG_QUEUE_MAX);
    (LogSender(Arc::new(sender)), receiver)
}

/// The sending end; cheap to clone, and all clones lead to the same queue. Without log targets it
/// leads nowhere.
#[derive(Debug, Clone)]
pub struct LogQueue {
    sender: Arc<ArcSwapOption<SyncSender<LogEntry>>>,
    global: Arc<GlobalLive>,
}

impl LogQueue {
    /// A queue, and the end that the log thread reads.
    pub fn new(global: Arc<GlobalLive>) -> (Self, Receiver<LogEntry>) {
        let (sender, receiver) = log_queue();
        let queue = Self::off(global);
        queue.set_sender(Some(sender));
        (queue, receiver)
    }

    /// A queue that leads nowhere: nothing is to be logged.
    pub fn off(global: Arc<GlobalLive>) -> Self {
        Self {
            sender: Arc::new(ArcSwapOption::empty()),
            global,
        }
    }

    /// What is sent from now on goes there; nowhere for `None`.
    pub fn set_sender(&self, sender: Option<LogSender>) {
        self.sender.store(sender.map(|sender| sender.0));
    }

    /// Keeps the queue of now from ending, as a sender does in the middle of a line.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> Option<LogSender> {
        self.sender.load_full().map(LogSender)
    }

    /// Whether lines are wanted at all.
    #[cfg(test)]
    pub(crate) fn is_on(&self) -> bool {
        self.sender.load().is_some()
    }

    /// Sends, or drops and counts. Never waits.
    pub fn send(&self, entry: LogEntry) {
        self.send_with(|| entry);
    }

    /// The same with a line that is built only when it is wanted.
    pub fn send_with(&self, entry: impl FnOnce() -> LogEntry) {
        if let Some(sender) = &*self.sender.load()
            && sender.try_send(entry()).is_err()
        {
            self.global.dropped_logs.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn event(text: &str) -> LogEntry {
        LogEntry::Event {
            severity: 6,
            text: text.into(),
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let global = Arc::new(GlobalLive::new(Instant::now(), 1));
        let (queue, receiver) = LogQueue::new(Arc::clone(&global));
        for _ in 0..LOG_QUEUE_MAX + 5 {
            queue.send(event("x"));
        }
        assert_eq!(global.dropped_logs.load(Relaxed), 5);
        assert_eq!(receiver.try_iter().count(), LOG_QUEUE_MAX);
    }

    #[test]
    fn a_replaced_queue_ends_behind_its_last_line() {
        let global = Arc::new(GlobalLive::new(Instant::now(), 1));
        let (queue, first) = LogQueue::new(Arc::clone(&global));
        let worker = queue.clone();
        worker.send(event("old"));
        let (sender, second) = log_queue();
        queue.set_sender(Some(sender));
        worker.send(event("new"));
        assert_eq!(first.iter().count(), 1, "and it ends");
        assert_eq!(second.try_iter().count(), 1);
        queue.set_sender(None);
        assert!(!worker.is_on());
        worker.send(event("nowhere"));
        assert_eq!(second.iter().count(), 0);
        assert_eq!(global.dropped_logs.load(Relaxed), 0);
    }
}
