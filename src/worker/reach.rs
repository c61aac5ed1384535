//! Steps 5 to 7: choosing a server, taking a place on it, connecting; again until one answers.
//!
//! The decisions are [`Plan`]'s; this file carries them out on sockets and counts what came of it.
//! Until a server has answered not a byte of the client is read, so another can always be tried.

use super::arrivals::Place;
use super::connect::Attempt;
use super::plan::{Defeat, Lane, Limits, Plan, Step};
use super::session::Desk;
use crate::balance::Turn;
use crate::live::slot::Slot;
use crate::live::{Cause, Phase, Termination, Traffic};
use crate::state::{Backend, BackendId, Server, ToControl};
use crate::sys::limits::is_local;
use crate::sys::raw::{self, Owned};
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A session's way to a server.
pub(super) struct Reach<'a> {
    desk: &'a Desk,
    place: &'a Place,
    client: &'a OwnedFd,
    backend: BackendId,
    turn: Turn,
    plan: Plan,
    lanes: [Option<Attempt>; 2],
    /// The server that was asked first.
    first: Option<u64>,
    /// The server that has refused last, until it is known whether another is asked instead.
    refused: Option<Arc<Server>>,
    /// Watches the client for a reset, from the first wait on that was in vain: most sessions are
    /// connected before that and do not pay for it.
    client_watch: Option<AsyncFd<Owned<BorrowedFd<'a>>>>,
}

/// What ended a wait.
enum Event {
    Answered(Lane),
    Failed(Lane, io::Error),
    TimeIsUp,
    ClientGone(io::Error),
    Ended,
}

impl<'a> Reach<'a> {
    /// Sets out for a server of `backend`.
    pub(super) fn new(place: &'a Place, client: &'a OwnedFd, backend: &Backend) -> Self {
        let limits = Limits {
            retries: backend.spec.retries,
            budget: backend.spec.timeout_connect,
            attempt: backend.spec.connect_attempt,
        };
        let plan = Plan::new(limits, Instant::now());
        place.expect_until(plan.deadline());
        Self {
            desk: &place.desk,
            place,
            client,
            backend: backend.id,
            turn: Turn::take(&backend.live.cursor),
            plan,
            lanes: [None, None],
            first: None,
            refused: None,
            client_watch: None,
        }
    }

    /// The attempt that a server has answered.
    pub(super) async fn server(mut self) -> Result<Attempt, Termination> {
        loop {
            match self.plan.step(Instant::now()) {
                Step::Start(lane) => self.start(lane),
                Step::GiveUp(defeat) => return Err(self.give_up(defeat)),
                Step::Wait(until) => match self.wait(until).await {
                    Event::Answered(lane) => {
                        if let Some(winner) = self.win(lane) {
                            return Ok(winner);
                        }
                    }
                    Event::Failed(lane, error) => self.failed(lane, &error),
                    Event::TimeIsUp => self.watch_client(),
                    Event::ClientGone(error) => {
                        return Err(Termination::because(Cause::Client, Phase::Connect, error));
                    }
                    Event::Ended => return Err(Termination::new(Cause::Killed, Phase::Connect)),
                },
            }
        }
    }

    /// Steps 5 and 6, and the beginning of 7.
    fn start(&mut self, lane: Lane) {
        if let Some(overtaken) = self.lanes[lane as usize].take() {
            self.leave(overtaken);
        }
        let Some(server) = self.select() else {
            return self.plan.exhausted();
        };
        let now = Instant::now();
        let usual = server.live.usual_connect();
        let again = self.plan.started(lane, server.live.uid, usual, now);
        self.first.get_or_insert(server.live.uid);
        self.each(&server, |traffic| {
            traffic.connect.add(1);
            if again {
                traffic.wretr.add(1);
            }
        });
        if let Some(refused) = self.refused.take()
            && refused.live.uid != server.live.uid
        {
            self.each(&refused, |traffic| traffic.wredis.add(1));
        }
        let slot = Slot::take(&server.live, &self.desk.books.token);
        let order = self.plan.retries();
        self.place.account(|account| {
            account.asked = Some(Arc::clone(&server.spec));
            account.retries = order;
        });
        match Attempt::begin(&server, slot, self.client, (now, &self.desk.relay)) {
            Ok(attempt) => self.lanes[lane as usize] = Some(attempt.numbered(order)),
            Err(error) => self.refused(lane, &server, &error),
        }
    }

    /// Step 5: the next server in the rotation that the plan accepts, suspected ones last.
    fn select(&self) -> Option<Arc<Server>> {
        self.desk.read(|snapshot| {
            // A backend that was removed meanwhile is one without servers.
            let backend = snapshot.backend(self.backend)?;
            let server = |index: u32| &backend.servers[index as usize];
            let accepts = |index| self.plan.accepts(server(index).live.uid);
            let trusted = |index| accepts(index) && !server(index).live.is_suspect();
            let chosen = backend
                .picker
                .pick(self.turn, trusted)
                .or_else(|| backend.picker.pick(self.turn, accepts))?;
            Some(Arc::clone(server(chosen)))
        })
    }

    async fn wait(&self, until: Instant) -> Event {
        let [a, b] = &self.lanes;
        tokio::select! {
            // First, so that what was to end does not go on because a server answers in that moment.
            biased;
            () = self.place.ended() => Event::Ended,
            result = answer(a.as_ref()) => event(Lane::A, result),
            result = answer(b.as_ref()) => event(Lane::B, result),
            error = reset(self.client_watch.as_ref()) => Event::ClientGone(error),
            () = tokio::time::sleep_until(until.into()) => Event::TimeIsUp,
        }
    }

    /// The attempt in `lane` has been answered: it is kept, the other is closed by a reset. `None`
    /// when its server has gone down meanwhile and ends its sessions then.
    fn win(&mut self, lane: Lane) -> Option<Attempt> {
        let winner = self.lanes[lane as usize].take()?;
        if winner.server.spec.shutdown_sessions_on_down && !self.is_usable(&winner.server) {
            let gone = io::Error::from_raw_os_error(libc::ECONNREFUSED);
            self.refused(lane, &Arc::clone(&winner.server), &gone);
            winner.abandon();
            return None;
        }
        winner
            .server
            .live
            .connect_succeeded(winner.started.elapsed());
        for loser in std::mem::take(&mut self.lanes).into_iter().flatten() {
            if loser.started < winner.started {
                self.leave(loser);
            } else {
                loser.abandon();
            }
        }
        self.each(&winner.server, |traffic| traffic.lbtot.add(1));
        let redispatched = self.first != Some(winner.server.live.uid);
        self.place.account(|account| {
            account.retries = winner.order;
            account.redispatched = redispatched;
        });
        Some(winner)
    }

    fn is_usable(&self, server: &Server) -> bool {
        self.desk.read(|snapshot| {
            snapshot.backend(self.backend).is_some_and(|backend| {
                let mut servers = backend.servers.iter();
                servers.any(|now| now.live.uid == server.live.uid && now.is_usable())
            })
        })
    }

    fn failed(&mut self, lane: Lane, error: &io::Error) {
        if let Some(attempt) = self.lanes[lane as usize].take() {
            self.refused(lane, &attempt.server, error);
        }
    }

    /// The server has refused, or something of ours ran out: the two are never confused.
    fn refused(&mut self, lane: Lane, server: &Arc<Server>, error: &io::Error) {
        let now = Instant::now();
        if is_local(error) {
            self.plan.fell_short(lane, now);
            return;
        }
        self.plan.refused(lane, now);
        self.blame(server);
        self.refused = Some(Arc::clone(server));
    }

    /// Another server is asked instead, this one not having answered.
    fn leave(&mut self, attempt: Attempt) {
        self.each(&attempt.server, |traffic| traffic.wredis.add(1));
        self.blame(&attempt.server);
        attempt.abandon();
    }

    fn blame(&self, server: &Server) {
        if server.live.connect_failed() {
            let check = ToControl::CheckNow {
                backend: self.backend,
                server: server.live.uid,
            };
            self.desk.control.hint(check);
        }
    }

    fn give_up(mut self, defeat: Defeat) -> Termination {
        let mut last = self.refused.take();
        for attempt in std::mem::take(&mut self.lanes).into_iter().flatten() {
            self.blame(&attempt.server);
            last = Some(Arc::clone(&attempt.server));
            attempt.abandon();
        }
        match &last {
            Some(server) => self.each(server, |traffic| traffic.econ.add(1)),
            None => self.on_backend(|traffic| traffic.econ.add(1)),
        }
        let redispatched = last.is_some_and(|server| self.first != Some(server.live.uid));
        self.place.account(|account| {
            account.retries = self.plan.retries();
            account.redispatched = redispatched;
        });
        match defeat {
            Defeat::NoServer | Defeat::Refused => Termination::new(Cause::Server, Phase::Connect),
            Defeat::Timeout => Termination::new(Cause::ServerTimeout, Phase::Connect),
            Defeat::Shortage => Termination::new(Cause::Resource, Phase::Connect),
        }
    }

    /// Runs `count` on the backend's and the server's shard.
    fn each(&self, server: &Server, count: impl Fn(&Traffic)) {
        self.on_backend(&count);
        count(server.live.traffic.mine(&self.desk.books.token));
    }

    fn on_backend(&self, count: impl Fn(&Traffic)) {
        self.place.account(|account| {
            if let Some(backend) = &account.backend {
                count(backend.slot.live().traffic.mine(&self.desk.books.token));
            }
        });
    }

    fn watch_client(&mut self) {
        if self.client_watch.is_none() {
            // Without the watch the client's reset is noticed when the relay begins.
            self.client_watch = raw::watch(Owned::new(self.client.as_fd()), Interest::ERROR).ok();
        }
    }
}

async fn answer(attempt: Option<&Attempt>) -> io::Result<()> {
    match attempt {
        Some(attempt) => attempt.answered().await,
        None => pending().await,
    }
}

fn event(lane: Lane, result: io::Result<()>) -> Event {
    match result {
        Ok(()) => Event::Answered(lane),
        Err(error) => Event::Failed(lane, error),
    }
}

/// Completes when the client's connection has failed.
async fn reset(watch: Option<&AsyncFd<Owned<BorrowedFd<'_>>>>) -> io::Error {
    let Some(watch) = watch else {
        return pending().await;
    };
    loop {
        let Ok(mut ready) = watch.ready(Interest::ERROR).await else {
            return pending().await;
        };
        match rustix::net::sockopt::socket_error(watch.get_ref().as_fd()) {
            Ok(Err(error)) | Err(error) => return error.into(),
            Ok(Ok(())) => ready.clear_ready(),
        }
    }
}
