//! The new process's side of moving sessions: takes those that the old process gives, and spreads them over its
//! workers. [`super::leaving`] has the messages and says when a session is whose.
//!
//! Control thread, one task per worker of the old process. Invariants: it refuses before it says `taken`, and never
//! after; sessions are taken only while the workers last ([`ArrivingSessions::stop`]).

use super::link::{Link, value, word};
use crate::live::GlobalLive;
use crate::state::Snapshot;
use crate::sys::channel::{Channel, Message};
use crate::worker::moving::ArrivingSession;
use crate::worker::order::Workers;
use arc_swap::ArcSwap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long an old process that has stopped receiving may take to say what that means.
const BACK_MAX: Duration = Duration::from_secs(5);

/// Messages of the workers about pauses that may wait; further ones are missing in the log event.
const PAUSES_MAX: usize = 4096;

/// Where sessions of old processes go; cheap to clone.
#[derive(Debug, Clone)]
pub struct ArrivingSessions {
    snapshot: Arc<ArcSwap<Snapshot>>,
    workers: Workers,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl ArrivingSessions {
    /// To these workers.
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, workers: Workers) -> Self {
        Self {
            snapshot,
            workers,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Takes what comes through `channel`. Inside a `LocalSet` or a `LocalRuntime`.
    pub(super) fn receive(&self, channel: Channel) {
        let this = self.clone();
        self.tasks.spawn_local(async move {
            match Link::new(Arc::new(channel)) {
                Ok(link) => this.run(&link).await,
                Err(error) => tracing::warn!(%error, "sessions stay in the old process"),
            }
        });
    }

    /// Takes no more sessions. Completes when all that were taken are with the workers, which may end then.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn run(&self, link: &Link) {
        let (pauses, mut answers) = mpsc::channel(PAUSES_MAX);
        let mut arrived = Arrived::default();
        let taken = self.take_all(link, &pauses, &mut answers, &mut arrived);
        if let Err(error) = taken.await {
            // The old process goes on with them when this end is closed.
            tracing::warn!(%error, "sessions stay in the old process");
        }
        drop(pauses);
        // Until all workers have answered.
        while let Some(some) = answers.recv().await {
            arrived.add(some);
        }
        arrived.tell_rest();
    }

    /// Takes sessions until no others come. `pauses` receives for how long they were in neither process, and gives
    /// that to `answers`. An error: the old process goes on with those that it has given.
    async fn take_all(
        &self,
        link: &Link,
        pauses: &mpsc::Sender<Vec<Duration>>,
        answers: &mut mpsc::Receiver<Vec<Duration>>,
        arrived: &mut Arrived,
    ) -> io::Result<()> {
        loop {
            let received = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                Some(some) = answers.recv() => {
                    arrived.add(some);
                    continue;
                }
                received = link.receive_any() => received,
            };
            match received {
                Ok(Some(message)) => match word(&message.text) {
                    "move" => arrived.given += self.take(link, message, pauses).await?,
                    "passed" => arrived.first_pass_is_over(),
                    _ => {}
                },
                Ok(None) => return Ok(()),
                // There were not enough descriptors for what it carried, and the kernel has closed the others.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    link.send(&format!("later\nreason={error}"), &[])?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the sessions of one message; how many. An error: the old process goes on with them.
    async fn take(
        &self,
        link: &Link,
        Message { text, fds }: Message,
        pauses: &mpsc::Sender<Vec<Duration>>,
    ) -> io::Result<usize> {
        let count = value(&text, "sessions").unwrap_or(0);
        let (parts, refused) = self.read(count, fds)?;
        match link.send(&format!("taken\nrefused={}", refused.join(",")), &[]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.old_process_has_ended(link).await?;
            }
            Err(error) => return Err(error),
        }
        let taken = parts.iter().map(Vec::len).sum();
        for (worker, sessions) in parts.into_iter().enumerate() {
            if !sessions.is_empty() {
                let pauses = pauses.clone();
                self.workers.arrive(worker, sessions, pauses).await;
            }
        }
        Ok(taken)
    }

    /// The old process does not receive. An error: it goes on with the sessions itself, or may do so.
    async fn old_process_has_ended(&self, link: &Link) -> io::Result<()> {
        match timeout(BACK_MAX, link.receive()).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(_))) => Err(io::Error::other("the old process did not wait any longer")),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// The sessions of a message for each worker, and the positions of those that are refused.
    fn read(
        &self,
        count: usize,
        fds: Vec<OwnedFd>,
    ) -> io::Result<(Vec<Vec<ArrivingSession>>, Vec<String>)> {
        let incomplete = || io::Error::new(io::ErrorKind::InvalidData, "incomplete sessions");
        let mut fds = fds.into_iter();
        let mut content = Vec::new();
        File::from(fds.next().ok_or_else(incomplete)?).read_to_end(&mut content)?;
        let snapshot = self.snapshot.load_full();
        let workers = self.workers.count();
        let mut parts: Vec<Vec<ArrivingSession>> = (0..workers).map(|_| Vec::new()).collect();
        let mut refused = Vec::new();
        let (lines, mut bytes) = split(&content, count).ok_or_else(incomplete)?;
        for (position, line) in lines.iter().enumerate() {
            let sockets = fds.next().zip(fds.next()).ok_or_else(incomplete)?;
            let worker = least_loaded(&snapshot.global, workers);
            let here = (&*snapshot, worker);
            match ArrivingSession::parse(line, &mut bytes, sockets.into(), here) {
                Some(session) => parts[worker].push(session),
                None => refused.push(position.to_string()),
            }
        }
        Ok((parts, refused))
    }
}

/// The first `count` lines, and what follows.
fn split(content: &[u8], count: usize) -> Option<(Vec<&str>, &[u8])> {
    let (mut lines, mut rest) = (Vec::new(), content);
    for _ in 0..count {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        lines.push(std::str::from_utf8(&rest[..end]).ok()?);
        rest = &rest[end + 1..];
    }
    Some((lines, rest))
}

/// The worker that has fewest sessions, those included that are on their way to it.
fn least_loaded(global: &GlobalLive, workers: usize) -> usize {
    let least = (0..workers).min_by_key(|worker| global.load.of(*worker).get());
    least.unwrap_or(0)
}

/// The sessions that came through one channel, for the log.
#[derive(Debug, Default)]
struct Arrived {
    /// How many were given to the workers.
    given: usize,
    /// For how long those that are with the workers were in neither process.
    pauses: Vec<Duration>,
    /// The old process has looked at all its sessions once.
    is_first_pass_over: bool,
    /// How many the log has.
    told: usize,
}

impl Arrived {
    fn add(&mut self, pauses: Vec<Duration>) {
        self.pauses.extend(pauses);
        self.tell_first_pass();
    }

    fn first_pass_is_over(&mut self) {
        self.is_first_pass_over = true;
        self.tell_first_pass();
    }

    /// Logs them once, when the first pass is over and the workers have them.
    fn tell_first_pass(&mut self) {
        if self.is_first_pass_over && self.told == 0 && self.pauses.len() == self.given {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.pauses.sort_unstable();
        if let Some(longest) = self.pauses.last() {
            let taken = self.pauses.len();
            let p99 = self.pauses[(taken - 1) * 99 / 100];
            tracing::info!(
                taken,
                pause_p99 = ?p99,
                pause_max = ?longest,
                "sessions of the old process go on here"
            );
            self.told = taken;
        }
    }

    /// Logs those that came after the first pass; no others come.
    fn tell_rest(&mut self) {
        let taken = self.pauses.len() - self.told;
        if self.told == 0 {
            self.tell();
        } else if taken > 0 {
            tracing::debug!(taken, "further sessions of the old process go on here");
        }
    }
}

#[cfg(test)]
impl ArrivingSessions {
    /// For tests in which no session comes.
    pub(super) fn nowhere() -> Self {
        let global = Arc::new(GlobalLive::new(std::time::Instant::now(), 1));
        let origin = crate::state::Origin {
            global,
            maxconn: 1,
            shards: 1,
            now: std::time::Instant::now(),
        };
        let config = crate::state::test_config::config(Vec::new());
        let snapshot = Snapshot::initial(&config, &origin);
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        Self::new(snapshot, Workers::new(0).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Origin;
    use crate::state::test_config::{backend, config, frontend, server};
    use crate::worker::order::Order;
    use socket2::{Domain, Socket, Type};
    use std::os::fd::AsFd;
    use std::time::Instant;

    /// A new process with one worker and room for so many sessions, and the old one's end of a channel for sessions.
    struct Fixture {
        arriving: ArrivingSessions,
        orders: mpsc::Receiver<Order>,
        old: Channel,
    }

    impl Fixture {
        fn new(maxconn: u32) -> Self {
            let now = Instant::now();
            let origin = Origin {
                global: Arc::new(GlobalLive::new(now, 2)),
                maxconn,
                shards: 2,
                now,
            };
            let mut config = config(vec![backend("b", vec![server("s1")])]);
            config.frontends.push(frontend("f", 7));
            let snapshot = Snapshot::initial(&config, &origin);
            let (workers, mut orders) = Workers::new(1);
            let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
            let arriving = ArrivingSessions::new(snapshot, workers);
            let (old, _) = Channel::pair().unwrap();
            Self {
                arriving,
                orders: orders.pop().unwrap(),
                old,
            }
        }

        /// Sends sessions of these frontends, and does `then` before the new process reads.
        fn give(&mut self, frontends: &[&str], then: impl FnOnce(&Channel)) {
            let (old, new) = Channel::pair().unwrap();
            self.old = old;
            let lines = frontends.iter().map(|frontend| {
                format!(
                    "frontend={frontend}\tbackend=b\tserver=s1\tbegan_ns=1\tdate_ns=1\tconnect_ns=1\tin=0\tout=0\t\
                     client_facts=w\tclient_silent_ms=0\tclient_unsent=0\t\
                     server_facts=w\tserver_silent_ms=0\tserver_unsent=0\n"
                )
            });
            let lines: String = lines.collect();
            let file = super::super::successor::memory_file("sessions", &[lines.as_bytes()]);
            let file = file.unwrap();
            let (socket, _) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
            let mut fds = vec![file.as_fd()];
            fds.resize(1 + 2 * frontends.len(), socket.as_fd());
            let text = format!("move\nsessions={}", frontends.len());
            self.old.send(&text, &fds).unwrap();
            then(&self.old);
            self.arriving.receive(Channel::from_fd(new).unwrap());
        }

        /// Whether the worker gets sessions before the task ends.
        async fn arrive(&mut self) -> bool {
            let stopped = self.arriving.tasks.clone();
            stopped.close();
            let ended = async {
                tokio::select! {
                    biased;
                    order = self.orders.recv() => order,
                    () = stopped.wait() => None,
                }
            };
            let order = timeout(Duration::from_secs(5), ended).await.unwrap();
            matches!(order, Some(Order::Arrive { .. }))
        }

        fn answer(&self) -> String {
            self.old.set_timeout(Duration::from_secs(5)).unwrap();
            self.old.receive().unwrap().unwrap().text
        }
    }

    fn local(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn what_is_not_here_is_refused_and_the_rest_taken() {
        local(async {
            let mut fixture = Fixture::new(9);
            fixture.give(&["f", "gone", "f"], |_| {});
            assert!(fixture.arrive().await);
            assert_eq!(fixture.answer(), "taken\nrefused=1");
        });
    }

    #[test]
    fn more_than_maxconn_is_refused() {
        local(async {
            let mut fixture = Fixture::new(1);
            fixture.give(&["f", "f"], |_| {});
            assert!(fixture.arrive().await);
            assert_eq!(fixture.answer(), "taken\nrefused=1");
        });
    }

    /// Clients that come before the worker goes on with the session do not get its slot.
    #[test]
    fn what_was_taken_has_its_slot_before_the_worker_has_it() {
        local(async {
            let mut fixture = Fixture::new(2);
            fixture.give(&["f", "f", "f"], |_| {});
            let snapshot = fixture.arriving.snapshot.load_full();
            let frontend = snapshot.frontends[0].as_ref().unwrap();
            let slots = || (snapshot.global.active.get(), frontend.live.active.get());
            let taken = async {
                while slots() != (2, 2) {
                    tokio::task::yield_now().await;
                }
            };
            timeout(Duration::from_secs(5), taken).await.unwrap();
            assert_eq!(fixture.answer(), "taken\nrefused=2");
            let order = fixture.orders.recv().await.unwrap();
            assert!(matches!(order, Order::Arrive { .. }));
            assert_eq!(slots(), (2, 2));
            drop(order);
            assert_eq!(slots(), (0, 0), "a worker that ends frees them");
        });
    }

    /// It has not got the answer, and never will.
    #[test]
    fn sessions_of_an_old_process_that_has_ended_are_taken() {
        local(async {
            let mut fixture = Fixture::new(9);
            fixture.give(&["f"], |old| {
                // As the kernel does at its end.
                old.close();
            });
            assert!(fixture.arrive().await);
        });
    }

    /// It relays them again, so nobody else may.
    #[test]
    fn sessions_that_the_old_process_has_taken_back_are_not_taken() {
        local(async {
            let mut fixture = Fixture::new(9);
            fixture.give(&["f"], |old| {
                old.stop_receiving();
                old.send("back", &[]).unwrap();
            });
            assert!(!fixture.arrive().await);
        });
    }

    #[test]
    fn incomplete_messages_are_not_answered() {
        local(async {
            for text in ["move\nsessions=2", "move", "move\nsessions=x"] {
                let mut fixture = Fixture::new(9);
                let (old, new) = Channel::pair().unwrap();
                old.send(text, &[]).unwrap();
                fixture.arriving.receive(Channel::from_fd(new).unwrap());
                assert!(!fixture.arrive().await, "{text}");
                assert!(old.receive().unwrap().is_none(), "{text}: closed");
            }
        });
    }

    #[test]
    fn a_process_that_stops_takes_no_more() {
        local(async {
            let mut fixture = Fixture::new(9);
            fixture.arriving.stop().await;
            fixture.give(&["f"], |_| {});
            assert!(!fixture.arrive().await);
            assert!(fixture.old.receive().unwrap().is_none(), "closed");
        });
    }
}
