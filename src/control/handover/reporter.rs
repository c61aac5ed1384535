//! The old process's side after `go`: until its last session has ended it tells the new process how many it has
//! and what they count, and takes the connections to its runtime socket that the new process passes on.
//!
//! Control thread, one task. Invariants: what was counted is told once, because each message has the difference to
//! the one before; the last message comes after the last session.

use super::counters;
use super::link::{Link, value, word};
use super::old_processes::{Asker, OldProcesses, OlderChannel, PassedConnection};
use super::successor::memory_file;
use crate::state::Snapshot;
use crate::sys::channel::{Channel, Message};
use arc_swap::ArcSwap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

/// When the first report follows: workers have stopped accepting by then.
const FIRST: Duration = Duration::from_millis(100);
/// How often the new process is told, if there is something to tell.
const EVERY: Duration = Duration::from_secs(1);
/// How long the last report may take, if the new process does not read.
const LAST_MAX: Duration = Duration::from_secs(1);

/// Connections that were passed on and wait for the admin thread; further ones are closed.
pub const PASSED_MAX: usize = 16;

/// The channel to the new process, and what that process knows of the counters.
#[derive(Debug)]
pub struct Reporter {
    channel: Arc<Channel>,
    /// As [`counters::write`] has it.
    counters: String,
    /// Since when this process takes no new sessions.
    since: Instant,
}

/// What it works with.
#[derive(Debug)]
pub struct ReporterParts {
    /// What is counted.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Processes that are older still. They are handed on.
    pub old_processes: OldProcesses,
    /// Where the admin thread takes connections.
    pub passed: mpsc::Sender<PassedConnection>,
}

impl Reporter {
    /// The process at the other end of `channel` was given `counters` with `go`.
    pub(in crate::control) fn new(channel: Arc<Channel>, counters: String) -> Self {
        Self {
            channel,
            counters,
            since: Instant::now(),
        }
    }

    /// Reports until `stop`, which comes after the last session has ended.
    pub async fn run(mut self, parts: ReporterParts, stop: CancellationToken) {
        let link = match Link::new(Arc::clone(&self.channel)) {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!(%error, "the new process is told nothing more");
                return;
            }
        };
        let mut is_open = true;
        // A version that does not answer after `go` reads nothing either.
        let mut is_heard = false;
        let mut ticks = interval_at((Instant::now() + FIRST).into(), EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sessions = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                received = link.receive(), if is_open => match received {
                    Ok(Some(message)) => {
                        is_heard |= self.take(&link, &parts, message).await;
                    }
                    // It has ended. The sessions here go on.
                    Ok(None) | Err(_) => is_open = false,
                },
                _ = ticks.tick(), if is_open && is_heard => {
                    let snapshot = parts.snapshot.load_full();
                    let now = snapshot.global.active.get();
                    if sessions != Some(now)
                        && link.send(&format!("sessions\ncount={now}"), &[]).is_ok()
                    {
                        sessions = Some(now);
                    }
                    self.report(&snapshot, |text, fds| link.send(text, fds));
                }
            }
        }
        drop(link);
        if is_open {
            self.report_last(parts).await;
        }
    }

    /// Follows one message. `true`: the new process reads.
    async fn take(&mut self, link: &Link, parts: &ReporterParts, message: Message) -> bool {
        match word(&message.text) {
            "version" => {
                let number = value::<u32>(&message.text, "number");
                tracing::debug!(number, "the new process follows this one");
                // What does not go through now is missing in the new process; nothing else depends on it.
                let _ = link.send(&self.introduction(&parts.snapshot.load()), &[]);
                for older in parts.old_processes.release().await {
                    let sent = link.send(&older.message(), &[older.channel.as_fd()]);
                    if let Err(error) = sent {
                        tracing::warn!(%error, "an older process was not handed on");
                    }
                }
                true
            }
            "runtime" => {
                pass(parts, message);
                false
            }
            _ => false,
        }
    }

    fn introduction(&self, snapshot: &Snapshot) -> String {
        let (pid, version) = (std::process::id(), env!("CARGO_PKG_VERSION"));
        let uptime = snapshot.global.start.elapsed().as_millis();
        let since = self.since.elapsed().as_millis();
        let sessions = snapshot.global.active.get();
        format!(
            "process\npid={pid}\nversion={version}\nuptime_ms={uptime}\nsince_ms={since}\nsessions={sessions}"
        )
    }

    /// Sends what was counted since the last report, if anything was.
    fn report(
        &mut self,
        snapshot: &Snapshot,
        send: impl FnOnce(&str, &[BorrowedFd<'_>]) -> io::Result<()>,
    ) {
        let counters = counters::write(snapshot, Instant::now());
        let Some(more) = counters::since(&self.counters, &counters) else {
            self.counters = counters;
            return;
        };
        let result =
            memory_file("counters", &more).and_then(|file| send("counters", &[file.as_fd()]));
        // What was not sent is part of the next report.
        if result.is_ok() {
            self.counters = counters;
        }
    }

    /// The last report, which waits for the new process. It may not have read anything so far.
    async fn report_last(mut self, parts: ReporterParts) {
        let older = parts.old_processes.release().await;
        let told = spawn_blocking(move || {
            // Fails only for a limit of 0.
            let _ = self.channel.set_timeout(LAST_MAX);
            let channel = Arc::clone(&self.channel);
            for older in older {
                // It is out of sight then; its sessions go on.
                let _ = channel.send(&older.message(), &[older.channel.as_fd()]);
            }
            self.report(&parts.snapshot.load_full(), |text, fds| {
                channel.send(text, fds)
            });
        });
        // A panic there would be logged.
        let _ = told.await;
    }
}

/// Gives the admin thread a connection.
fn pass(parts: &ReporterParts, Message { text, mut fds }: Message) {
    let stream = fds.pop().map(UnixStream::from);
    let Some(stream) = stream else {
        return;
    };
    let asker = Asker::of_message(&text);
    // Closed when too many wait.
    let _ = parts.passed.try_send(PassedConnection { stream, asker });
}

impl OlderChannel {
    fn message(&self) -> String {
        format!("older\nupgrades={}", self.upgrades)
    }
}
