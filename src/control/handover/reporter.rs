//! The old process's side after `go`: until its last session has ended it tells the new process how many it has
//! and what they count, and takes the connections to its runtime socket that the new process passes on.
//!
//! Control thread, one task. Invariants: what was counted is told once, because each message has the difference to
//! the one before; the last message comes after the last session.

use super::counters;
use super::leaving::Leaving;
use super::link::{Link, value, word};
use super::old_processes::{Asker, OldProcesses, OlderChannel, PassedConnection};
use super::successor::memory_file;
use crate::state::Snapshot;
use crate::sys::channel::{Channel, Message};
use crate::worker::order::Workers;
use arc_swap::ArcSwap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
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
    /// Processes that have followed this one, which is the number of the round of moving.
    followers: u32,
}

/// The first version of the messages in which a new process takes sessions.
const MOVING_VERSION: u32 = 2;

/// What it works with.
#[derive(Debug)]
pub struct ReporterParts {
    /// What is counted.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Processes that are older still. They are handed on.
    pub old_processes: OldProcesses,
    /// Where the admin thread takes connections.
    pub passed: mpsc::Sender<PassedConnection>,
    /// Gets the id of the process that follows this one.
    pub serving: Arc<AtomicU32>,
    /// The workers whose sessions are given to the new process; `None`: they stay.
    pub moving: Option<Workers>,
}

impl Reporter {
    /// The process at the other end of `channel` was given `counters` with `go`.
    pub(in crate::control) fn new(channel: Arc<Channel>, counters: String) -> Self {
        Self {
            channel,
            counters,
            since: Instant::now(),
            followers: 0,
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
                let number = value::<u32>(&message.text, "number").unwrap_or(1);
                let pid = value(&message.text, "pid");
                tracing::debug!(number, pid, "the new process follows this one");
                if let Some(pid) = pid {
                    parts.serving.store(pid, Relaxed);
                }
                // What does not go through now is missing in the new process; nothing else depends on it.
                let _ = link.send(&self.introduction(&parts.snapshot.load()), &[]);
                for older in parts.old_processes.release().await {
                    let sent = link.send(&older.message(), &[older.channel.as_fd()]);
                    if let Err(error) = sent {
                        tracing::warn!(%error, "an older process was not handed on");
                    }
                }
                if number >= MOVING_VERSION {
                    self.begin_moving(link, parts);
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

    /// Begins to give the sessions of each worker to the process that follows now.
    fn begin_moving(&mut self, link: &Link, parts: &ReporterParts) {
        let Some(workers) = &parts.moving else {
            return;
        };
        self.followers += 1;
        for worker in 0..workers.count() {
            let begun = Channel::pair().and_then(|(ours, theirs)| {
                let ours = Link::new(Arc::new(ours))?;
                link.send(&format!("moving\nworker={worker}"), &[theirs.as_fd()])?;
                Ok(ours)
            });
            match begun {
                Ok(link) => {
                    let leaving = Leaving {
                        link,
                        workers: workers.clone(),
                        worker,
                        round: self.followers,
                    };
                    // It ends with its worker.
                    tokio::task::spawn_local(leaving.run());
                }
                Err(error) => {
                    tracing::warn!(worker, %error, "sessions stay in this process");
                }
            }
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
        let result = memory_file("counters", &[more.as_bytes()])
            .and_then(|file| send("counters", &[file.as_fd()]));
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

#[cfg(test)]
mod tests {
    use super::super::arriving::ArrivingSessions;
    use super::*;
    use crate::live::{GlobalLive, WorkerToken};
    use crate::state::test_config::{backend, config, server};
    use crate::state::{ControlHandle, Origin};
    use std::fs::File;
    use std::io::Read;

    struct Fixture {
        snapshot: Arc<ArcSwap<Snapshot>>,
        new: Link,
        stop: CancellationToken,
    }

    impl Fixture {
        /// A reporter that has handed over with its counters at 0, to run; and the new process's end.
        fn new() -> (Self, impl Future<Output = ()>) {
            let now = Instant::now();
            let origin = Origin {
                global: Arc::new(GlobalLive::new(now, 2)),
                maxconn: 100,
                shards: 2,
                now,
            };
            let config = config(vec![backend("b", vec![server("s1")])]);
            let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::initial(&config, &origin)));
            let (control, _) = ControlHandle::new();
            let (passed, _) = mpsc::channel(1);
            let (ours, theirs) = Channel::pair().unwrap();
            let go = counters::write(&snapshot.load(), now);
            let parts = ReporterParts {
                snapshot: Arc::clone(&snapshot),
                old_processes: OldProcesses::new(
                    origin.global,
                    control,
                    ArrivingSessions::nowhere(),
                ),
                passed,
                serving: Arc::default(),
                moving: None,
            };
            let stop = CancellationToken::new();
            let run = Reporter::new(Arc::new(ours), go).run(parts, stop.clone());
            let new = Link::new(Arc::new(Channel::from_fd(theirs).unwrap())).unwrap();
            (
                Self {
                    snapshot,
                    new,
                    stop,
                },
                run,
            )
        }

        /// A session of so many bytes.
        fn count(&self, bytes: u64) {
            let snapshot = self.snapshot.load();
            let live = &snapshot.backends[0].as_ref().unwrap().servers[0].live;
            live.traffic.mine(&WorkerToken::new(0)).bin.add(bytes);
        }

        /// The next message, and the text of its file.
        async fn next(&self) -> Option<(String, String)> {
            let Message { text, mut fds } = self.new.receive().await.unwrap()?;
            let mut file = String::new();
            if let Some(fd) = fds.pop() {
                File::from(fd).read_to_string(&mut file).unwrap();
            }
            Some((word(&text).to_owned(), file))
        }
    }

    fn bytes(file: &str) -> Option<u64> {
        file.trim_end().rsplit_once("bin=")?.1.parse().ok()
    }

    #[tokio::test]
    async fn counters_are_reported_as_differences_and_at_the_end() {
        let (fixture, run) = Fixture::new();
        let new = async {
            fixture.new.send("version\nnumber=1", &[]).unwrap();
            assert_eq!(fixture.next().await.unwrap().0, "process");
            fixture.count(5);
            let mut sum = 0;
            while sum < 5 {
                let (word, file) = fixture.next().await.unwrap();
                sum += bytes(&file).unwrap_or(0);
                assert!(word == "sessions" || word == "counters", "{word}");
            }
            fixture.count(7);
            fixture.stop.cancel();
            while let Some((_, file)) = fixture.next().await {
                sum += bytes(&file).unwrap_or(0);
            }
            assert_eq!(sum, 12);
        };
        tokio::join!(run, new);
    }

    /// A new process of another version may not read: it gets the last report alone, and holds nothing up.
    #[tokio::test]
    async fn a_new_process_that_does_not_answer_gets_the_last_report_alone() {
        let (fixture, run) = Fixture::new();
        fixture.count(3);
        let stop = async {
            fixture.new.send("a word of a later version", &[]).unwrap();
            fixture.stop.cancel();
        };
        tokio::join!(run, stop);
        let (word, file) = fixture.next().await.unwrap();
        assert_eq!((&*word, bytes(&file)), ("counters", Some(3)));
        assert!(fixture.next().await.is_none());
    }
}
