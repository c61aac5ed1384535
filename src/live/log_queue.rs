//! The bounded queue to the log thread. Workers and the control thread send to it.
//!
//! Invariants: sending never waits. A full queue drops the line and counts it ([`GlobalLive::dropped_logs`]),
//! so that a log that is not read costs traffic nothing. A line is in exactly one queue. A queue that was
//! replaced ends for its reader after the last line that was sent into it.

use super::objects::GlobalLive;
use super::record::{EmbryonicRecord, SessionRecord};
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Lines that may wait for the log thread.
pub const LOG_QUEUE_MAX: usize = 8192;

/// Severity of a [`LogEntry::Event`], by syslog's numbers (0 emerg to 7 debug). A number, because this layer
/// does not see the configuration's type.
pub type SeverityCode = u8;

/// A line to log.
#[derive(Debug)]
pub enum LogEntry {
    /// A session has ended.
    Session(Box<SessionRecord>),
    /// A connection has ended before it was a session.
    Embryonic(Box<EmbryonicRecord>),
    /// An event of the service; the text is HAProxy's.
    Event {
        /// Its severity.
        severity: SeverityCode,
        /// The line.
        text: Box<str>,
    },
}

/// A queue that nothing sends to yet.
#[derive(Debug)]
pub struct LogSender(Arc<SyncSender<LogEntry>>);

/// A queue: the sender, and the receiver that the log thread reads.
pub fn log_queue() -> (LogSender, Receiver<LogEntry>) {
    let (sender, receiver) = sync_channel(LOG_QUEUE_MAX);
    (LogSender(Arc::new(sender)), receiver)
}

/// Sends lines to the log thread; cheap to clone, and all clones send to the same queue. Without log targets it
/// discards them.
#[derive(Debug, Clone)]
pub struct LogQueue {
    sender: Arc<ArcSwapOption<SyncSender<LogEntry>>>,
    global: Arc<GlobalLive>,
}

impl LogQueue {
    /// A queue, and the receiver that the log thread reads.
    pub fn new(global: Arc<GlobalLive>) -> (Self, Receiver<LogEntry>) {
        let (sender, receiver) = log_queue();
        let queue = Self::off(global);
        queue.set_sender(Some(sender));
        (queue, receiver)
    }

    /// Discards every line: nothing is to be logged.
    pub fn off(global: Arc<GlobalLive>) -> Self {
        Self {
            sender: Arc::new(ArcSwapOption::empty()),
            global,
        }
    }

    /// Lines are sent to `sender` from now on; `None` discards them.
    pub fn set_sender(&self, sender: Option<LogSender>) {
        self.sender.store(sender.map(|sender| sender.0));
    }

    /// Keeps the current queue from ending, as a thread that is sending a line does.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> Option<LogSender> {
        self.sender.load_full().map(LogSender)
    }

    /// Whether lines are sent at all.
    #[cfg(test)]
    pub(crate) fn is_on(&self) -> bool {
        self.sender.load().is_some()
    }

    /// Sends a line, or drops and counts it. Never waits.
    pub fn send(&self, entry: LogEntry) {
        self.send_with(|| entry);
    }

    /// The same with a line that is built only if lines are sent.
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
