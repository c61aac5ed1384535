//! The bounded queue to the log thread. Sent to from workers and the control thread.
//!
//! Invariant: sending never waits. A full queue drops the line and counts it
//! ([`GlobalLive::dropped_logs`]), so that a log that nobody reads costs traffic nothing.

use super::objects::GlobalLive;
use super::record::SessionRecord;
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

/// The sending end; cheap to clone. Without log targets it is [`LogQueue::off`].
#[derive(Debug, Clone)]
pub struct LogQueue {
    sender: Option<SyncSender<LogEntry>>,
    global: Arc<GlobalLive>,
}

impl LogQueue {
    /// A queue, and the end that the log thread reads.
    pub fn new(global: Arc<GlobalLive>) -> (Self, Receiver<LogEntry>) {
        let (sender, receiver) = sync_channel(LOG_QUEUE_MAX);
        (
            Self {
                sender: Some(sender),
                global,
            },
            receiver,
        )
    }

    /// A queue that leads nowhere: nothing is to be logged.
    pub fn off(global: Arc<GlobalLive>) -> Self {
        Self {
            sender: None,
            global,
        }
    }

    /// Whether lines are wanted at all. Ask before building one.
    pub fn is_on(&self) -> bool {
        self.sender.is_some()
    }

    /// Sends, or drops and counts. Never waits.
    pub fn send(&self, entry: LogEntry) {
        if let Some(sender) = &self.sender
            && sender.try_send(entry).is_err()
        {
            self.global.dropped_logs.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_full_queue_drops_and_counts() {
        let global = Arc::new(GlobalLive::new(Instant::now(), 1));
        let (queue, receiver) = LogQueue::new(Arc::clone(&global));
        for _ in 0..LOG_QUEUE_MAX + 5 {
            queue.send(LogEntry::Event {
                severity: 6,
                text: "x".into(),
            });
        }
        assert_eq!(global.dropped_logs.load(Relaxed), 5);
        assert_eq!(receiver.try_iter().count(), LOG_QUEUE_MAX);
    }
}
