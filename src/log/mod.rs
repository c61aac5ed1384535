//! The log thread: formats sessions and events and writes them to the configured targets, off the data path.
//! [`events`] has the `tracing` events for people.
//!
//! The start begins it and reloads change it, both through [`Log`]. Invariants: the thread never waits for a
//! target without a bound (`output`, `datagram`); every line that was not written is counted in
//! [`GlobalLive::dropped_logs`]; a stop takes no longer than its limit, whatever the targets do.

mod clock;
mod datagram;
pub mod events;
mod lifecycle;
mod output;
mod syslog;
mod tcplog;
mod writer;

pub use lifecycle::{CHANGES_MAX, Log, LogChange, PreparedLog};

use crate::config::model;
use crate::live::{GlobalLive, LogEntry};
use clock::Clock;
use jiff::Zoned;
use jiff::tz::TimeZone;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use syslog::Header;
use writer::Target;

/// Severity of a session's line.
const SESSION_SEVERITY: u8 = model::Severity::Info as u8;
/// How long the thread sleeps when no line comes, and how long it may take to notice a stop while senders still
/// exist.
const TICK: Duration = Duration::from_millis(200);
/// How long lines are collected before the next batch. Without this pause workers would pay a system call per
/// session to wake the thread. With a longer one, a batch of a hundred lines would take a worker's core for
/// half a millisecond, during which its sessions wait.
const GATHER: Duration = Duration::from_millis(2);
/// Lines that are taken before the next check of the clock, the stop and the targets.
const BATCH_MAX: usize = 256;
/// How often dropped lines are reported.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// How long the removed targets of a reload may take to accept their last lines.
const DRAIN_MAX: Duration = Duration::from_millis(100);
/// How much longer than its limit a stop waits for the thread to notice it.
const STOP_SLACK: Duration = Duration::from_millis(100);

/// The running log thread.
#[derive(Debug)]
struct Handle {
    commands: Arc<Commands>,
    ended: Receiver<()>,
}

/// Commands to the thread.
#[derive(Debug, Default)]
struct Commands {
    stop: AtomicBool,
    deadline: Mutex<Option<Instant>>,
    /// The queues and targets that follow when the current queue has ended.
    nexts: Mutex<VecDeque<Next>>,
}

/// A queue and its targets.
#[derive(Debug)]
struct Next {
    receiver: Receiver<LogEntry>,
    targets: Vec<Action>,
}

/// What the thread does with a target.
#[derive(Debug)]
enum Action {
    /// The target at `index` stays, with this level and header.
    Stays {
        index: usize,
        level: model::Severity,
        header: Header,
    },
    /// A new target.
    New(Box<Target>),
}

impl Action {
    fn opened(self) -> Option<Target> {
        match self {
            Self::New(target) => Some(*target),
            Self::Stays { .. } => None,
        }
    }
}

/// Starts a log thread.
fn spawn(
    targets: Vec<Target>,
    receiver: Receiver<LogEntry>,
    global: Arc<GlobalLive>,
) -> io::Result<Handle> {
    let commands = Arc::new(Commands::default());
    let (done, ended) = sync_channel(1);
    let logger = Logger {
        targets,
        receiver,
        global,
        commands: Arc::clone(&commands),
        clock: Clock::new(TimeZone::try_system().unwrap_or(TimeZone::UTC)),
        text: String::new(),
        report: Report::default(),
    };
    std::thread::Builder::new()
        .name("log".into())
        .spawn(move || logger.run(done))?;
    Ok(Handle { commands, ended })
}

impl Handle {
    /// Has the thread switch to `next` when its queue has ended.
    fn then(&self, next: Next) {
        locked(&self.commands.nexts).push_back(next);
    }

    /// Changes that the thread has not made yet.
    fn changes(&self) -> usize {
        locked(&self.commands.nexts).len()
    }

    fn has_ended(&self) -> bool {
        self.ended.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Ends the thread: it writes what is queued and ends, after `limit` at the latest. `false` when it has not
    /// ended even then; it is abandoned.
    fn stop(self, limit: Duration) -> bool {
        *locked(&self.commands.deadline) = Some(Instant::now() + limit);
        self.commands.stop.store(true, Relaxed);
        // An error other than the timeout means that the thread has ended.
        !matches!(
            self.ended.recv_timeout(limit + TICK + STOP_SLACK),
            Err(RecvTimeoutError::Timeout)
        )
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Name of this machine; empty when it has none.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()
}

/// How the thread waits for its next line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// On the queue: the sender of a line wakes it.
    Asleep,
    /// For [`GATHER`] first, while lines collect.
    Gathering,
    /// Not at all: more is queued than one batch takes.
    Behind,
}

/// The thread's state.
struct Logger {
    targets: Vec<Target>,
    receiver: Receiver<LogEntry>,
    global: Arc<GlobalLive>,
    commands: Arc<Commands>,
    clock: Clock,
    text: String,
    report: Report,
}

impl Logger {
    fn run(mut self, done: SyncSender<()>) {
        self.flush();
        let mut wait = Wait::Asleep;
        loop {
            match self.next(wait) {
                Ok(entry) => wait = self.batch(&entry),
                Err(RecvTimeoutError::Timeout) => wait = Wait::Asleep,
                // The queue has ended, and its last line is written.
                Err(RecvTimeoutError::Disconnected) => {
                    if !self.switch() {
                        break;
                    }
                }
            }
            self.flush();
            if self.commands.stop.load(Relaxed) {
                break;
            }
        }
        self.finish();
        drop(done);
    }

    /// The next line. After other lines it first pauses instead of waiting on the queue, so that no sender pays
    /// for a wake-up while lines keep coming.
    fn next(&self, wait: Wait) -> Result<LogEntry, RecvTimeoutError> {
        if wait != Wait::Asleep {
            if wait == Wait::Gathering {
                std::thread::park_timeout(GATHER);
            }
            match self.receiver.try_recv() {
                Ok(entry) => return Ok(entry),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => {}
            }
        }
        self.receiver.recv_timeout(TICK)
    }

    /// Writes `first` and what else is queued, up to [`BATCH_MAX`].
    fn batch(&mut self, first: &LogEntry) -> Wait {
        let now = self.clock.now();
        self.write(first, &now);
        for _ in 1..BATCH_MAX {
            let Ok(entry) = self.receiver.try_recv() else {
                return Wait::Gathering;
            };
            self.write(&entry, &now);
        }
        Wait::Behind
    }

    fn write(&mut self, entry: &LogEntry, now: &Zoned) {
        let (severity, text) = match entry {
            LogEntry::Session(session) => {
                self.text.clear();
                tcplog::write(&mut self.text, session, &mut self.clock);
                (SESSION_SEVERITY, self.text.as_str())
            }
            LogEntry::Embryonic(connection) => {
                self.text.clear();
                tcplog::write_embryonic(&mut self.text, connection, &mut self.clock);
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

    /// Writes what the targets take now, counts what they dropped, and reports it from time to time.
    fn flush(&mut self) {
        for target in &mut self.targets {
            target.flush();
            self.report.collect(target, &self.global);
        }
        self.report.tell(&self.global, Instant::now());
    }

    /// Switches to the next queue and its targets, if there is one. Targets that were removed get the lines
    /// that were written for them.
    fn switch(&mut self) -> bool {
        let Some(next) = locked(&self.commands.nexts).pop_front() else {
            return false;
        };
        let before = std::mem::take(&mut self.targets);
        let mut before: Vec<Option<Target>> = before.into_iter().map(Some).collect();
        for action in next.targets {
            let target = match action {
                Action::New(target) => Some(*target),
                Action::Stays {
                    index,
                    level,
                    header,
                } => {
                    let mut target = before.get_mut(index).and_then(Option::take);
                    if let Some(target) = &mut target {
                        target.set_level_and_header(level, header);
                    }
                    target
                }
            };
            self.targets.extend(target);
        }
        self.receiver = next.receiver;
        let deadline = Instant::now() + DRAIN_MAX;
        for mut target in before.into_iter().flatten() {
            target.finish(deadline);
            self.report.collect(&mut target, &self.global);
        }
        true
    }

    /// Empties the queue and the targets, as far as the stop's deadline allows.
    fn finish(&mut self) {
        let deadline = locked(&self.commands.deadline)
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
        while Instant::now() < deadline {
            match self.receiver.try_recv() {
                Ok(entry) => {
                    self.batch(&entry);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    if !self.switch() {
                        break;
                    }
                }
            }
        }
        let unread = self.receiver.try_iter().count() as u64;
        self.global.dropped_logs.fetch_add(unread, Relaxed);
        for target in &mut self.targets {
            target.finish(deadline);
            self.report.collect(target, &self.global);
        }
        // The last report, whenever the one before was.
        self.report.told = None;
        self.report.tell(&self.global, Instant::now());
    }
}

/// Reports dropped lines, at most once in [`REPORT_EVERY`].
#[derive(Debug, Default)]
struct Report {
    /// When the last report was made.
    told: Option<Instant>,
    /// Dropped lines at that time.
    told_total: u64,
    /// Target and reason of the last drop.
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
