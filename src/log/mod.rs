//! The log thread: formats sessions and events and writes them to the configured targets, off the
//! data path. [`events`] is its neighbour for people: where `tracing` events go.
//!
//! Started by the composition root when there are targets. Invariants: the thread never waits for a
//! target without a bound (`output`, `datagram`), every line that was not written is counted in
//! [`GlobalLive::dropped_logs`], and a stop takes no longer than it was given, whatever the targets
//! do.

mod clock;
mod datagram;
pub mod events;
mod output;
mod syslog;
mod tcplog;
mod writer;

use crate::config::model;
use crate::live::{GlobalLive, LogEntry};
use clock::Clock;
use jiff::Zoned;
use jiff::tz::TimeZone;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use writer::Target;

/// Severity of a session's line.
const SESSION_SEVERITY: u8 = model::Severity::Info as u8;
/// How long the thread sleeps when nothing comes; also how soon it notices a stop while senders
/// still exist.
const TICK: Duration = Duration::from_millis(200);
/// How long lines gather after the first of them. Workers would pay a system call a session to wake
/// a thread that waits for every single line.
const GATHER: Duration = Duration::from_millis(10);
/// Lines that are taken between two looks at the clock, the stop and the targets.
const BATCH_MAX: usize = 256;
/// How often lost lines are reported.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// What a stop waits beyond its limit for the thread to notice it.
const STOP_SLACK: Duration = Duration::from_millis(100);

/// The running log thread.
#[derive(Debug)]
pub struct Handle {
    stop: Arc<Stop>,
    ended: Receiver<()>,
}

/// What a stop tells the thread.
#[derive(Debug, Default)]
struct Stop {
    asked: AtomicBool,
    deadline: Mutex<Option<Instant>>,
}

/// Starts the log thread. `node` is the machine's name in RFC 5424 headers; `None`: the host name.
///
/// # Errors
/// When a target's address cannot be used, or the system refuses a thread. A target that cannot be
/// opened now is no error: it is tried again while rlb runs.
pub fn spawn(
    log: &model::Log,
    node: Option<&str>,
    receiver: Receiver<LogEntry>,
    global: Arc<GlobalLive>,
) -> io::Result<Handle> {
    let host = node.map_or_else(host_name, str::to_owned);
    let targets = log
        .targets
        .iter()
        .map(|spec| Target::new(spec, &log.tag, &host))
        .collect::<io::Result<Vec<_>>>()?;
    let stop = Arc::new(Stop::default());
    let (done, ended) = sync_channel(1);
    let logger = Logger {
        targets,
        receiver,
        global,
        stop: Arc::clone(&stop),
        clock: Clock::new(TimeZone::try_system().unwrap_or(TimeZone::UTC)),
        text: String::new(),
        report: Report::default(),
    };
    std::thread::Builder::new()
        .name("log".into())
        .spawn(move || logger.run(done))?;
    Ok(Handle { stop, ended })
}

impl Handle {
    /// Ends the thread: it writes what is queued and ends, at the latest after `limit`. `false`
    /// when it did not even then (a descriptor that could only be polled was filled by another
    /// process): it is left behind, and the process may exit.
    pub fn stop(self, limit: Duration) -> bool {
        *self
            .stop
            .deadline
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + limit);
        self.stop.asked.store(true, Relaxed);
        // An error other than the timeout is the end of the thread.
        !matches!(
            self.ended.recv_timeout(limit + TICK + STOP_SLACK),
            Err(RecvTimeoutError::Timeout)
        )
    }
}

/// Name of this machine; empty when it has none.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()
}

/// The thread's state.
struct Logger {
    targets: Vec<Target>,
    receiver: Receiver<LogEntry>,
    global: Arc<GlobalLive>,
    stop: Arc<Stop>,
    clock: Clock,
    text: String,
    report: Report,
}

impl Logger {
    fn run(mut self, done: SyncSender<()>) {
        self.flush();
        let mut behind = false;
        loop {
            match self.receiver.recv_timeout(TICK) {
                Ok(entry) => {
                    if !behind {
                        // Nobody waits on the queue meanwhile, so no sender pays for a wake-up.
                        std::thread::park_timeout(GATHER);
                    }
                    behind = self.batch(&entry);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.flush();
            if self.stop.asked.load(Relaxed) {
                break;
            }
        }
        self.finish();
        drop(done);
    }

    /// Writes `first` and what else is queued, up to [`BATCH_MAX`]; `true` when more may be.
    fn batch(&mut self, first: &LogEntry) -> bool {
        let now = self.clock.now();
        self.write(first, &now);
        for _ in 1..BATCH_MAX {
            let Ok(entry) = self.receiver.try_recv() else {
                return false;
            };
            self.write(&entry, &now);
        }
        true
    }

    fn write(&mut self, entry: &LogEntry, now: &Zoned) {
        let (severity, text) = match entry {
            LogEntry::Session(session) => {
                self.text.clear();
                tcplog::write(&mut self.text, session, &mut self.clock);
                (SESSION_SEVERITY, self.text.as_str())
            }
            LogEntry::Event { severity, text } => (*severity, &**text),
        };
        for target in &mut self.targets {
            if target.takes(severity) {
                target.write(severity, now, text);
            }
        }
    }

    /// Writes what the targets take now, counts what they lost, and reports it now and then.
    fn flush(&mut self) {
        for target in &mut self.targets {
            target.flush();
            self.report.collect(target, &self.global);
        }
        self.report.tell(&self.global, Instant::now());
    }

    /// Empties the queue and the targets, as far as the stop's deadline allows.
    fn finish(&mut self) {
        let deadline = self
            .stop
            .deadline
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
        while Instant::now() < deadline {
            let Ok(entry) = self.receiver.try_recv() else {
                break;
            };
            self.batch(&entry);
        }
        let unread = self.receiver.try_iter().count() as u64;
        self.global.dropped_logs.fetch_add(unread, Relaxed);
        for target in &mut self.targets {
            target.finish(deadline);
            self.report.collect(target, &self.global);
        }
        // The last word, whenever the one before was.
        self.report.told = None;
        self.report.tell(&self.global, Instant::now());
    }
}

/// Tells people about lost lines, at most once in [`REPORT_EVERY`].
#[derive(Debug, Default)]
struct Report {
    /// When the last was told.
    told: Option<Instant>,
    /// Lines lost by then.
    told_total: u64,
    /// Target and reason of the last loss.
    last: Option<(String, io::Error)>,
}

impl Report {
    fn collect(&mut self, target: &mut Target, global: &GlobalLive) {
        let losses = target.losses();
        global.dropped_logs.fetch_add(losses.lines, Relaxed);
        if let Some(error) = losses.error {
            self.last = Some((target.name.clone(), error));
        }
    }

    fn tell(&mut self, global: &GlobalLive, now: Instant) {
        let total = global.dropped_logs.load(Relaxed);
        let recently = self
            .told
            .is_some_and(|told| now.duration_since(told) < REPORT_EVERY);
        if recently || (total == self.told_total && self.last.is_none()) {
            return;
        }
        let dropped = total.wrapping_sub(self.told_total);
        self.told = Some(now);
        self.told_total = total;
        if let Some((target, error)) = self.last.take() {
            if dropped == 0 {
                tracing::warn!(target, %error, "log target cannot be used");
                return;
            }
            tracing::warn!(dropped, total, target, %error, "log lines dropped");
        } else {
            tracing::warn!(dropped, total, "log lines dropped: the queue was full");
        }
    }
}

#[cfg(test)]
mod tests;
