//! The new process's side after `go`: the processes before this one that still have sessions. What they count is
//! added to the counters of this process, and commands of the runtime socket can be run in them.
//!
//! Control thread, one task per old process; [`OldProcesses::connect`] is called by the admin thread. Invariant: a
//! message that was received has its effect before the channel is given to a still newer process.

use super::arriving::ArrivingSessions;
use super::link::{Link, value, word};
use crate::config::model::ApiLevel;
use crate::live::{GlobalLive, OldProcess};
use crate::state::{ControlHandle, ToControl};
use crate::sys::channel::{Channel, Message};
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The version of the messages after `go`. An old process gives its sessions only to one that has the version 2.
const VERSION: u32 = 2;

/// The client of a runtime socket whose command is to run in another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// What it may do.
    pub level: ApiLevel,
    /// How it wants errors to be marked, as `set severity-output` has it.
    pub severity: String,
    /// Its user; `None` over TCP.
    pub uid: Option<u32>,
    /// Its process, 0 when it is in another pid namespace; `None` over TCP.
    pub pid: Option<i32>,
    /// Its address over TCP.
    pub client: Option<SocketAddr>,
    /// The socket that it has connected to, without control characters.
    pub socket: Option<String>,
}

/// A connection that a newer process has passed on.
#[derive(Debug)]
pub struct PassedConnection {
    /// Non-blocking.
    pub stream: UnixStream,
    /// Whose it is.
    pub asker: Asker,
}

/// The processes before this one; cheap to clone.
#[derive(Debug, Clone)]
pub struct OldProcesses(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    entries: Mutex<Vec<Entry>>,
    /// Shows them to the statistics.
    global: Arc<GlobalLive>,
    control: ControlHandle,
    /// Their sessions go there.
    arriving: ArrivingSessions,
    /// Ends the tasks.
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Entry {
    channel: Arc<Channel>,
    upgrades: u32,
    /// `None` before it has told.
    process: Option<OldProcess>,
}

/// A channel to an old process, and the upgrades since that process served.
#[derive(Debug)]
pub(super) struct OlderChannel {
    pub(super) channel: Arc<Channel>,
    pub(super) upgrades: u32,
}

impl OldProcesses {
    /// None so far. Their sessions will go to `arriving`.
    pub fn new(
        global: Arc<GlobalLive>,
        control: ControlHandle,
        arriving: ArrivingSessions,
    ) -> Self {
        Self(Arc::new(Inner {
            entries: Mutex::default(),
            global,
            control,
            arriving,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Follows the process at the other end of `channel`, which has handed over, `upgrades` upgrades ago, until its
    /// end. Inside a `LocalSet` or a `LocalRuntime`.
    pub(super) fn follow(&self, channel: Arc<Channel>, upgrades: u32) {
        let this = self.clone();
        self.0.tasks.spawn_local(async move {
            if let Err(error) = this.run(&channel, upgrades).await {
                tracing::warn!(%error, "old process not followed");
            }
        });
    }

    /// Receives messages until the other end is closed or the channel is handed on.
    async fn run(&self, channel: &Arc<Channel>, upgrades: u32) -> io::Result<()> {
        let link = Link::new(Arc::clone(channel))?;
        // It may have ended by now. What it has sent is still there.
        let pid = std::process::id();
        let _ = link.send(&format!("version\nnumber={VERSION}\npid={pid}"), &[]);
        self.entries().push(Entry {
            channel: Arc::clone(channel),
            upgrades,
            process: None,
        });
        loop {
            let received = tokio::select! {
                biased;
                () = self.0.stop.cancelled() => return Ok(()),
                received = link.receive() => received,
            };
            match received {
                Ok(Some(message)) => self.take(channel, message).await,
                Ok(None) => break,
                Err(error) => {
                    self.remove(channel);
                    return Err(error);
                }
            }
        }
        self.remove(channel);
        Ok(())
    }

    async fn take(&self, channel: &Arc<Channel>, Message { text, mut fds }: Message) {
        match word(&text) {
            "process" => self.introduced(channel, &text),
            "sessions" => {
                if let Some(count) = value(&text, "count") {
                    self.change(channel, |process| process.sessions = count);
                }
            }
            "counters" => {
                if let Some((_, counters)) = text.split_once('\n') {
                    self.add_counters(counters.to_owned()).await;
                }
            }
            "moving" => {
                if let Some(Ok(moving)) = fds.pop().map(Channel::from_fd) {
                    self.0.arriving.receive(moving);
                }
            }
            "older" => {
                let older = fds.pop().map(Channel::from_fd);
                let upgrades = value(&text, "upgrades").unwrap_or(1);
                if let Some(Ok(older)) = older {
                    self.follow(Arc::new(older), upgrades);
                }
            }
            _ => {}
        }
    }

    fn introduced(&self, channel: &Arc<Channel>, text: &str) {
        let (Some(pid), Some(version)) = (value(text, "pid"), value::<String>(text, "version"))
        else {
            return;
        };
        let now = Instant::now();
        let before = |name| {
            let millis = value(text, name).map(Duration::from_millis);
            millis.and_then(|time| now.checked_sub(time)).unwrap_or(now)
        };
        let mut entries = self.entries();
        let entry = entries
            .iter_mut()
            .find(|it| Arc::ptr_eq(&it.channel, channel));
        if let Some(entry) = entry {
            entry.process = Some(OldProcess {
                pid,
                version: version.into(),
                started: before("uptime_ms"),
                since: before("since_ms"),
                sessions: value(text, "sessions").unwrap_or(0),
                upgrades: entry.upgrades,
            });
        }
        self.publish(&entries);
    }

    fn change(&self, channel: &Arc<Channel>, change: impl FnOnce(&mut OldProcess)) {
        let mut entries = self.entries();
        let entry = entries
            .iter_mut()
            .find(|it| Arc::ptr_eq(&it.channel, channel));
        if let Some(process) = entry.and_then(|entry| entry.process.as_mut()) {
            change(process);
        }
        self.publish(&entries);
    }

    fn remove(&self, channel: &Arc<Channel>) {
        let mut entries = self.entries();
        entries.retain(|entry| !Arc::ptr_eq(&entry.channel, channel));
        self.publish(&entries);
    }

    /// Shows the statistics what is known now, the newest first.
    fn publish(&self, entries: &[Entry]) {
        let known = entries.iter().filter_map(|entry| entry.process.clone());
        let mut known: Vec<OldProcess> = known.collect();
        known.sort_by_key(|process| process.upgrades);
        self.0.global.old_processes.store(Arc::new(known));
    }

    async fn add_counters(&self, text: String) {
        let (done, counted) = oneshot::channel();
        if self
            .0
            .control
            .report(ToControl::AddCounters { text, done })
            .await
        {
            // A control task that has ended counts nothing more.
            let _ = counted.await;
        }
    }

    /// Takes no more of their sessions: the workers of this process may end when this is complete.
    pub async fn stop_taking_sessions(&self) {
        self.0.arriving.stop().await;
    }

    /// Ends the tasks and returns the channels, for a newer process: it has one upgrade more between.
    pub(super) async fn release(&self) -> Vec<OlderChannel> {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        let mut entries = self.entries();
        let channels = entries.drain(..).map(|entry| OlderChannel {
            channel: entry.channel,
            upgrades: entry.upgrades + 1,
        });
        let channels = channels.collect();
        self.publish(&entries);
        channels
    }

    /// A connection to the runtime socket of the old process `pid`.
    ///
    /// # Errors
    /// `NotFound` when there is no such process; those of `socketpair` and `sendmsg`.
    pub fn connect(&self, pid: u32, asker: &Asker) -> io::Result<UnixStream> {
        let channel = {
            let entries = self.entries();
            let is_it = |entry: &&Entry| entry.process.as_ref().is_some_and(|it| it.pid == pid);
            let entry = entries.iter().find(is_it);
            Arc::clone(&entry.ok_or(io::ErrorKind::NotFound)?.channel)
        };
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        channel.try_send(&asker.message(), &[theirs.as_fd()])?;
        Ok(ours)
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asker {
    fn message(&self) -> String {
        let Self {
            level,
            severity,
            uid,
            pid,
            client,
            socket,
        } = self;
        let mut text = format!("runtime\nlevel={}\nseverity={severity}", level.name());
        let known = [
            ("uid", uid.map(|it| it.to_string())),
            ("pid", pid.map(|it| it.to_string())),
            ("client", client.map(|it| it.to_string())),
            ("socket", socket.clone()),
        ];
        for (name, value) in known {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = write!(text, "\n{name}={value}");
            }
        }
        text
    }

    /// The asker of a `runtime` message. What is not told, or not known to this version, gives the lowest level.
    pub(super) fn of_message(text: &str) -> Self {
        let level: Option<String> = value(text, "level");
        Self {
            level: match level.as_deref() {
                Some("admin") => ApiLevel::Admin,
                Some("operator") => ApiLevel::Operator,
                _ => ApiLevel::User,
            },
            severity: value(text, "severity").unwrap_or_default(),
            uid: value(text, "uid"),
            pid: value(text, "pid"),
            client: value(text, "client"),
            socket: value(text, "socket"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asker_goes_over_as_a_message_and_unknown_words_give_the_lowest_level() {
        for level in [ApiLevel::User, ApiLevel::Operator, ApiLevel::Admin] {
            let asker = Asker {
                level,
                severity: "number".to_owned(),
                uid: Some(7),
                pid: Some(8),
                client: None,
                socket: Some("/run/rlb/a b.sock".to_owned()),
            };
            assert_eq!(Asker::of_message(&asker.message()), asker);
            let over_tcp = Asker {
                uid: None,
                pid: None,
                client: Some(([127, 0, 0, 1], 9).into()),
                ..asker
            };
            assert_eq!(Asker::of_message(&over_tcp.message()), over_tcp);
        }
        let unknown = Asker::of_message("runtime\nlevel=owner\nfuture=1");
        assert_eq!(unknown.level, ApiLevel::User);
    }

    fn processes() -> (OldProcesses, tokio::sync::mpsc::Receiver<ToControl>) {
        let (control, inbox) = ControlHandle::new();
        let global = Arc::new(GlobalLive::new(Instant::now(), 1));
        (
            OldProcesses::new(global, control, ArrivingSessions::nowhere()),
            inbox,
        )
    }

    async fn until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !condition() {
            assert!(Instant::now() < deadline, "it did not come");
            tokio::task::yield_now().await;
        }
    }

    /// The one in the middle ends: what was followed by it is followed by the newest.
    #[tokio::test]
    async fn a_channel_is_handed_on_with_what_has_not_been_read() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let (middle, _inbox) = processes();
                let (oldest, theirs) = Channel::pair().unwrap();
                middle.follow(Arc::new(Channel::from_fd(theirs).unwrap()), 1);
                let process = "process\npid=7\nversion=0.9\nuptime_ms=60000\nsessions=2\nlater=1";
                oldest.send(process, &[]).unwrap();
                oldest.send("a word of a later version", &[]).unwrap();
                until(|| middle.0.global.old_processes.load().len() == 1).await;
                let released = middle.release().await;
                assert!(middle.0.global.old_processes.load().is_empty());
                assert_eq!(released[0].upgrades, 2);
                oldest.send("sessions\ncount=1", &[]).unwrap();

                let (newest, _inbox) = processes();
                let (ours, theirs) = Channel::pair().unwrap();
                newest.follow(Arc::new(Channel::from_fd(theirs).unwrap()), 1);
                let fds = [released[0].channel.as_fd()];
                ours.send("older\nupgrades=2", &fds).unwrap();
                drop(released);
                oldest.send(process, &[]).unwrap();
                oldest.send("sessions\ncount=5", &[]).unwrap();
                let known = || newest.0.global.old_processes.load_full();
                until(|| known().first().is_some_and(|it| it.sessions == 5)).await;
                let found = &known()[0];
                assert_eq!((found.pid, &*found.version, found.upgrades), (7, "0.9", 2));
                assert!(found.started.elapsed() >= Duration::from_secs(60));
                drop(oldest);
                until(|| known().is_empty()).await;
                drop(ours);
                until(|| newest.entries().is_empty()).await;
            })
            .await;
    }
}
