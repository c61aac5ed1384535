//! The old process's side after `go`: until its last session has ended it tells the new process how many it has
//! and what they count, and takes the connections to its runtime socket that the new process passes on.
//!
//! Control thread, one task. Invariants: what was counted is told once, because each report has the difference to
//! the one before, and is kept until it is sent; it needs no descriptor, which the new process may be out of; the last
//! message comes after the last session.

use super::counters;
use super::leaving::Leaving;
use super::link::{Link, value, word};
use super::old_processes::{Asker, OldProcesses, OlderChannel, PassedConnection};
use crate::state::Snapshot;
use crate::sys::channel::{Channel, Message, TEXT_MAX};
use crate::worker::moving::ServerNames;
use crate::worker::order::Workers;
use arc_swap::ArcSwap;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;

/// When the first report follows: workers have stopped accepting by then.
const FIRST: Duration = Duration::from_millis(100);
/// How often the new process is told, if there is something to tell.
const EVERY: Duration = Duration::from_secs(1);
/// Pause before the rest of a report is sent, if the new process has not read what came before.
const AGAIN: Duration = Duration::from_millis(20);
/// How long the new process may take from `go` until it serves.
const FOLLOWED_MAX: Duration = Duration::from_secs(2);
/// How long the last report may take, if the new process does not read.
const LAST_MAX: Duration = Duration::from_secs(1);

/// Longest message of a report, in bytes.
const REPORT_MAX: usize = TEXT_MAX / 2;

/// Connections that were passed on and wait for the admin thread; further ones are closed.
pub const PASSED_MAX: usize = 16;

/// The channel to the new process, and what that process knows of the counters.
#[derive(Debug)]
pub struct Reporter {
    channel: Arc<Channel>,
    /// As [`counters::write`] has it.
    counters: String,
    /// Messages of the last report that are not sent yet.
    unsent: VecDeque<String>,
    /// Since when this process takes no new sessions.
    since: Instant,
    /// Processes that have followed this one, which is the number of the round of moving.
    followers: u32,
    /// A message that was received before [`Reporter::run`].
    first: Option<Message>,
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
            unsent: VecDeque::new(),
            since: Instant::now(),
            followers: 0,
            first: None,
        }
    }

    /// Waits for the first message of the new process, which it sends once it serves; at most for [`FOLLOWED_MAX`].
    pub async fn wait_until_followed(&mut self) {
        let channel = Arc::clone(&self.channel);
        let received = spawn_blocking(move || {
            channel.set_timeout(FOLLOWED_MAX)?;
            channel.receive()
        });
        // A process that has ended is noticed later, too.
        self.first = received.await.ok().and_then(Result::ok).flatten();
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
        if let Some(first) = self.first.take() {
            is_heard = self.take(&link, &parts, first).await;
        }
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
                    if self.unsent.is_empty() {
                        self.collect(&snapshot);
                    }
                    self.send(|text| link.send(text, &[]));
                }
                () = sleep(AGAIN), if is_open && !self.unsent.is_empty() => {
                    self.send(|text| link.send(text, &[]));
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
        // They do not change any more: this process has handed over.
        let names = Arc::new(ServerNames::of(&parts.snapshot.load()));
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
                        names: Arc::clone(&names),
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

    /// Makes a report of what was counted since the last one.
    fn collect(&mut self, snapshot: &Snapshot) {
        let counters = counters::write(snapshot, Instant::now());
        if let Some(more) = counters::since(&self.counters, &counters) {
            let parts = counters::split(&more, REPORT_MAX).into_iter();
            self.unsent
                .extend(parts.map(|part| format!("counters\n{part}")));
        }
        self.counters = counters;
    }

    /// Sends as much as the new process has room for.
    fn send(&mut self, send: impl Fn(&str) -> io::Result<()>) {
        while let Some(message) = self.unsent.front() {
            if send(message).is_err() {
                return;
            }
            self.unsent.pop_front();
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
            self.collect(&parts.snapshot.load_full());
            self.send(|text| channel.send(text, &[]));
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

    struct Fixture {
        snapshot: Arc<ArcSwap<Snapshot>>,
        new: Link,
        stop: CancellationToken,
    }

    impl Fixture {
        /// A reporter that has handed over with its counters at 0, to run; and the new process's end.
        fn new() -> (Self, impl Future<Output = ()> + use<>) {
            Self::with_servers(&["s1".to_owned()])
        }

        fn with_servers(names: &[String]) -> (Self, impl Future<Output = ()> + use<>) {
            let now = Instant::now();
            let origin = Origin {
                global: Arc::new(GlobalLive::new(now, 2)),
                maxconn: 100,
                shards: 2,
                now,
            };
            let servers = names.iter().map(|name| server(name)).collect();
            let config = config(vec![backend("b", servers)]);
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

        /// A session of so many bytes at each server.
        fn count(&self, bytes: u64) {
            let snapshot = self.snapshot.load();
            for server in &snapshot.backends[0].as_ref().unwrap().servers {
                let traffic = server.live.traffic.mine(&WorkerToken::new(0));
                traffic.bin.add(bytes);
            }
        }

        /// The next message, which must need no descriptor.
        async fn next(&self) -> Option<String> {
            let Message { text, fds } = self.new.receive().await.unwrap()?;
            assert!(
                fds.is_empty(),
                "a new process that is out of descriptors loses it: {text}"
            );
            Some(text)
        }
    }

    /// The sum of a report.
    fn bytes(text: &str) -> u64 {
        let counts = text.split("bin=").skip(1);
        let counts = counts.filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        counts.sum()
    }

    #[tokio::test]
    async fn counters_are_reported_as_differences_and_at_the_end() {
        let (fixture, run) = Fixture::new();
        let new = async {
            fixture.new.send("version\nnumber=1", &[]).unwrap();
            assert_eq!(word(&fixture.next().await.unwrap()), "process");
            fixture.count(5);
            let mut sum = 0;
            while sum < 5 {
                let text = fixture.next().await.unwrap();
                sum += bytes(&text);
                let word = word(&text);
                assert!(word == "sessions" || word == "counters", "{word}");
            }
            fixture.count(7);
            fixture.stop.cancel();
            while let Some(text) = fixture.next().await {
                sum += bytes(&text);
            }
            assert_eq!(sum, 12);
        };
        tokio::join!(run, new);
    }

    /// A report of more than the channel has room for.
    #[tokio::test]
    async fn a_long_report_is_sent_in_parts_and_none_is_lost_or_sent_twice() {
        let names: Vec<String> = (0..12_000)
            .map(|number| format!("server{number}"))
            .collect();
        let (fixture, run) = Fixture::with_servers(&names);
        let new = async {
            fixture.new.send("version\nnumber=1", &[]).unwrap();
            assert_eq!(word(&fixture.next().await.unwrap()), "process");
            fixture.count(5);
            let mut sum = 0;
            let mut messages = 0;
            while sum < 60_000 {
                let text = fixture.next().await.unwrap();
                assert!(text.len() <= REPORT_MAX + "counters\n".len());
                messages += u32::from(text.starts_with("counters\n"));
                sum += bytes(&text);
            }
            assert!(messages > 1);
            fixture.count(7);
            fixture.stop.cancel();
            while let Some(text) = fixture.next().await {
                sum += bytes(&text);
            }
            assert_eq!(sum, 12 * 12_000);
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
        let text = fixture.next().await.unwrap();
        assert_eq!((word(&text), bytes(&text)), ("counters", 3));
        assert!(fixture.next().await.is_none());
    }
}
