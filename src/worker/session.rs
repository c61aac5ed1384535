//! One client connection from accept until the relay takes it. Runs on a worker.

use super::client_watch::ClientWatch;
use super::connect::{SocketDialer, is_self_connected};
use super::connect_policy::{AttemptSlot, ConnectFailure};
use super::context::WorkerContext;
use super::header_rule::HeaderRule;
use super::notes;
use super::pending::{Event, PendingSession};
use super::pending_guard::PendingGuard;
use super::proxy_header::{self, SessionEnd};
use super::relay::{Connecting, Established, Kind};
use super::server_connect::{Attempt, Next, ServerConnect};
use super::session_stats::SessionStats;
use super::unserved::{Progress, Resumed, Unserved, Wait};
use crate::balance::hash::Value;
use crate::config::model::{NoServer, Sample, SendProxy};
use crate::live::{Cause, Phase, Termination};
use crate::state::{Backend, FrontendId, Route};
use crate::sys::socket::{close_in_order, reset_when_closed};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio_util::task::TaskTracker;

/// How long a session connects before its client is watched. Most are connected earlier and save the cost of
/// the watch.
const WATCH_AFTER: Duration = Duration::from_millis(20);

/// What of a PROXY header the server's socket has not taken.
type Unsent = Option<Box<[u8]>>;

/// One client connection.
pub(super) struct Session {
    client: OwnedFd,
    kind: Kind,
    /// What its listener says of it, as that it begins with a PROXY header.
    header: Option<Arc<HeaderRule>>,
    /// It has done the steps before the fifth already. Boxed because few have.
    begun: Option<Box<Begun>>,
    /// The rest of its state until the relay takes it.
    pending: PendingGuard,
}

/// A session that goes on from step 5.
struct Begun {
    /// Where it was routed to.
    backend: Arc<Backend>,
    /// How it has waited in another process, if it comes from there.
    wait: Option<Wait>,
}

impl Session {
    /// Begins the session of a client, one of `sessions` of the worker: of a connection that step 1 has accepted, or one
    /// that has done the steps before the fifth already.
    pub(super) fn spawn(
        (worker, sessions): (&Rc<WorkerContext>, &TaskTracker),
        (client, kind, header): (OwnedFd, Kind, Option<Arc<HeaderRule>>),
        stats: Box<SessionStats>,
        resumed: Option<Box<Resumed>>,
    ) {
        let pending = PendingGuard::take(Rc::clone(worker), stats, client.as_raw_fd());
        let begun = resumed.map(|resumed| {
            let Resumed {
                backend,
                announced,
                progress,
                refused,
            } = *resumed;
            let wait = pending.with(|session| {
                session.announced = announced;
                session.refused = refused;
                match progress {
                    Progress::Here(connect) => {
                        session.connect = Some(Box::new(connect.without_connections()));
                        None
                    }
                    Progress::Elsewhere(wait) => Some(wait),
                }
            });
            Box::new(Begun { backend, wait })
        });
        let session = Self {
            client,
            kind,
            header,
            begun,
            pending,
        };
        worker
            .tasks
            .spawn(sessions.track_future(session.run_guarded()));
    }

    /// Runs the session until the relay takes it. A panic ends this session and no other.
    ///
    /// Boxed because the future is copied several times on its way to the task.
    fn run_guarded(self) -> impl Future<Output = ()> {
        let worker = Rc::clone(&self.pending.worker);
        let frontend = self.pending.with(|session| session.stats.frontend().id);
        guarded(worker, frontend, Box::pin(self.run_to_relay()))
    }

    /// Runs the session and hands it to the relay, or ends it.
    async fn run_to_relay(self) {
        match self.run().await {
            Ok((server, unsent)) => {
                let worker = Rc::clone(&self.pending.worker);
                worker.relay.adopt(Established {
                    client: (self.client, self.kind),
                    server,
                    stats: self.pending.leave(),
                    prefix: [None, unsent],
                });
            }
            Err(end) => self.end(&end),
        }
    }

    /// The ten steps of a client connection. Start reading rlb here.
    ///
    /// The caller has done step 1, accept. Step 3 (inspect) does not exist yet.
    async fn run(&self) -> Result<(Connecting, Unsent), SessionEnd> {
        let mut backend = if let Some(begun) = &self.begun {
            Arc::clone(&begun.backend) // Steps 2 and 4 are done.
        } else {
            self.identify().await?; //                     2 who the client is
            self.route()? //                               4 where to: a backend
        };
        let (attempt, unsent) = loop {
            match self.connect(&backend).await {
                //        5 select, 6 reserve, 7 connect, 8 announce
                Ok(reached) => break reached,
                Err(end) => backend = self.route_on(&backend, end)?, //          4
            }
        };
        Ok((self.establish(attempt), unsent)) //           9 the relay moves the bytes
    } //                                                  10 finish, whenever it ends

    /// Step 2: the client's address came with the connection, unless the listener demands a PROXY header.
    async fn identify(&self) -> Result<(), SessionEnd> {
        let Some(rule) = &self.header else {
            return Ok(());
        };
        if rule.concerns(self.pending.with(|session| session.stats.peer)) {
            // Boxed, so that sessions without a header do not have its room in their futures.
            Box::pin(self.receive(rule)).await?;
        }
        if let Some(namespace) = &rule.namespace {
            self.pending.with(|session| {
                let announced = session.announced.get_or_insert_default();
                announced.namespace = Some(Arc::clone(namespace));
            });
        }
        Ok(())
    }

    /// Waits for the header of the client, and takes it into account.
    async fn receive(&self, rule: &HeaderRule) -> Result<(), SessionEnd> {
        let frontend =
            |session: &mut PendingSession| session.stats.frontend().spec.timeout_client_hs;
        let limit = self.pending.with(frontend);
        let announced = proxy_header::receive(&self.client, &self.pending, rule, limit).await?;
        let worker_stats = &self.pending.worker.worker_stats;
        self.pending.with(|session| {
            let addresses = announced.as_ref().and_then(|announced| announced.addresses);
            let source = addresses.map(|addresses| addresses.source);
            session.stats.announced(source, worker_stats);
            session.announced = announced.map(Box::new);
        });
        Ok(())
    }

    /// Step 4: the backend of the frontend that accepted the connection, even when a reload has changed or
    /// removed them meanwhile. As in HAProxy a `[[listen]]` uses its own backend even when an operator has
    /// unpublished it.
    fn route(&self) -> Result<Arc<Backend>, Termination> {
        let worker_stats = &self.pending.worker.worker_stats;
        self.pending.with(|session| {
            let frontend = session.stats.frontend();
            // A header may have taken its time.
            let now = self
                .header
                .as_ref()
                .and_then(|_| self.as_of_now(&frontend.route));
            let backend = now.as_ref().unwrap_or(&frontend.route).of_now();
            if !backend.published && backend.spec.id != frontend.spec.id {
                return Err(Termination::new(Cause::Server, Phase::Connect));
            }
            let backend = Arc::clone(backend);
            session.stats.enter_backend(&backend, worker_stats);
            notes::take(
                &mut session.stats,
                &self.client,
                session.announced.as_deref(),
            );
            Ok(backend)
        })
    }

    /// A route with its backends as they are now; `None`: as they were.
    fn as_of_now(&self, route: &Route) -> Option<Route> {
        let worker = &self.pending.worker;
        worker.read(|snapshot| route.with(&|id| snapshot.backend(id).cloned()))
    }

    /// Step 4 once more: the backend that stands in for `backend`, where the session has found no server, or that has a
    /// server now.
    fn route_on(&self, backend: &Backend, end: Unconnected) -> Result<Arc<Backend>, SessionEnd> {
        let worker_stats = &self.pending.worker.worker_stats;
        self.pending.with(|session| {
            let next = match end {
                Unconnected::Ends(end) => return Err(end),
                Unconnected::Elsewhere(next) => next,
                Unconnected::NoServer(end) => {
                    let route = &session.stats.frontend().route;
                    let now = self.as_of_now(route);
                    let next = now.as_ref().unwrap_or(route).instead_of(backend.id);
                    let next = next.filter(|_| end.cause != Cause::Killed).cloned();
                    next.ok_or(SessionEnd::NoServer(end))?
                }
            };
            session.connect = None;
            session.stats.enter_backend(&next, worker_stats);
            Ok(next)
        })
    }

    /// Steps 5 to 8: [`ServerConnect`] with sockets.
    async fn connect(
        &self,
        backend: &Arc<Backend>,
    ) -> Result<(Attempt<Connecting>, Unsent), Unconnected> {
        let begun = Instant::now();
        self.begin_to_connect(backend, begun);
        let mut client = None;
        let mut watch_from = Some(begun + WATCH_AFTER);
        let mut left = None;
        loop {
            let until = match self.drive(|connect, dialer, now| connect.advance(dialer, now)) {
                Next::Wait(until) => until,
                Next::GiveUp(failure) => {
                    let end = no_server(failure, left);
                    return Err(match failure {
                        ConnectFailure::NoServer => Unconnected::NoServer(end),
                        _ => end.into(),
                    });
                }
            };
            let until = watch_from.map_or(until, |watch_from| until.min(watch_from));
            match self.wait(until, client.as_ref()).await {
                Waited::Event(Event::Answered(slot)) => {
                    if let Some(answered) = self.answered(slot) {
                        return Ok(answered);
                    }
                }
                Waited::Event(Event::Failed(slot, error)) => {
                    self.drive(|connect, dialer, now| connect.failed(slot, &error, dialer, now));
                }
                Waited::Event(Event::Granted(granted)) => {
                    self.drive(|connect, dialer, now| connect.granted(granted, dialer, now));
                }
                Waited::Event(Event::ServersChanged) => {
                    self.drive(|connect, dialer, now| connect.servers_changed(dialer, now));
                    if let Some(next) = self.usable_elsewhere(backend) {
                        self.drive(|connect, dialer, now| connect.cancel(dialer, now));
                        return Err(Unconnected::Elsewhere(next));
                    }
                }
                Waited::Event(Event::Leave(servers, cause)) => {
                    left = Some(cause);
                    self.drive(|connect, dialer, _| connect.leave_servers(&servers, dialer));
                }
                Waited::Event(Event::Depart) => {
                    if self.pending.with(PendingSession::waits_for_a_server) {
                        return Err(SessionEnd::Departs.into());
                    }
                }
                Waited::Event(Event::End(cause)) => return Err(self.cancel(cause).into()),
                Waited::ClientGone(error) => {
                    let end = self.cancel(Cause::Client);
                    return Err(Termination { error, ..end }.into());
                }
                // Tried once: without the watch the relay notices the client's end.
                Waited::Time if watch_from.take_if(|from| *from <= Instant::now()).is_some() => {
                    let relay = &self.pending.worker.relay;
                    client = ClientWatch::new(relay, &self.client, backend.spec.abortonclose).ok();
                }
                Waited::Time => {}
            }
        }
    }

    /// The backend of its route that has a usable server, while the session is held in `backend`, which has none.
    fn usable_elsewhere(&self, backend: &Backend) -> Option<Arc<Backend>> {
        self.pending.with(|session| {
            session
                .connect
                .as_ref()
                .filter(|connect| connect.is_held())?;
            let route = self.as_of_now(&session.stats.frontend().route)?;
            let next = route.usable()?;
            (next.id != backend.id).then(|| Arc::clone(next))
        })
    }

    /// Makes what connects, or takes it along if the session comes back.
    fn begin_to_connect(&self, backend: &Arc<Backend>, begun: Instant) {
        let comes_back = self.pending.with(|session| {
            if session.connect.is_some() {
                return true;
            }
            let client = session.stats.peer.map(|peer| peer.ip());
            let announced = session.announced.as_ref().and_then(|it| it.addresses);
            let announced = announced.map(|addresses| addresses.destination);
            let sample = |sample| sample_of((&self.client, announced), client, sample);
            let mut connect = Box::new(ServerConnect::new(backend, sample, begun));
            if let Some(Begun {
                backend: first,
                wait,
            }) = self.begun.as_deref()
                && Arc::ptr_eq(first, backend)
                && let Some(wait) = wait
            {
                connect.has_waited(wait);
            }
            session.connect = Some(connect);
            false
        });
        if comes_back {
            self.drive(|connect, dialer, now| connect.come_back(dialer, now));
        }
    }

    /// The session ends for a reason that no server caused.
    fn cancel(&self, cause: Cause) -> Termination {
        self.drive(|connect, dialer, now| {
            let phase = if connect.is_queued() && !connect.asks_a_server() {
                Phase::Queue
            } else {
                Phase::Connect
            };
            connect.cancel(dialer, now);
            Termination::new(cause, phase)
        })
    }

    /// A server has answered. `None`: the answer does not count, and another server is tried.
    ///
    /// Step 8 is here, because as in HAProxy a server that does not take its PROXY header has not answered.
    fn answered(&self, slot: AttemptSlot) -> Option<(Attempt<Connecting>, Unsent)> {
        self.drive(|connect, dialer, now| {
            if connect.may_be_self_connected(slot)
                && connect.connection(slot).is_some_and(is_self_connected)
            {
                let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
                connect.failed(slot, &refused, dialer, now);
                return None;
            }
            let mut unsent = None;
            if let Some(server) = connect.server(slot)
                && server.spec.send_proxy != SendProxy::Off
                && let Some(connection) = connect.connection(slot)
            {
                match dialer.announce(&server.spec, connection) {
                    Ok(rest) => unsent = rest,
                    Err(error) => {
                        connect.failed(slot, &error, dialer, now);
                        return None;
                    }
                }
            }
            let attempt = connect.answered(slot, dialer, now)?;
            Some((attempt, unsent))
        })
    }

    /// Runs a step of the session's [`ServerConnect`].
    fn drive<T>(
        &self,
        step: impl FnOnce(&mut ServerConnect<Connecting>, &mut SocketDialer<'_>, Instant) -> T,
    ) -> T {
        self.pending.with(|session| {
            let connect = session.connect.as_mut();
            let connect = connect.expect("it is there from step 4 to the end");
            let mut dialer = SocketDialer {
                worker: &self.pending.worker,
                client: &self.client,
                announced: session.announced.as_deref(),
                stats: &mut session.stats,
            };
            step(connect, &mut dialer, Instant::now())
        })
    }

    /// Waits for the first event.
    async fn wait(&self, until: Instant, client: Option<&ClientWatch<'_>>) -> Waited {
        let mut timer = pin!(self.pending.worker.timers.sleep_until(until));
        poll_fn(|context| {
            if let Poll::Ready(event) = self.pending.poll(context) {
                return Poll::Ready(Waited::Event(event));
            }
            if let Some(client) = client
                && let Poll::Ready(error) = client.poll_gone(context)
            {
                return Poll::Ready(Waited::ClientGone(error));
            }
            timer.as_mut().poll(context).map(|()| Waited::Time)
        })
        .await
    }

    /// A server has answered: counts the session on it.
    fn establish(&self, attempt: Attempt<Connecting>) -> Connecting {
        let worker_stats = &self.pending.worker.worker_stats;
        let Attempt {
            server,
            slot,
            connection,
            ..
        } = attempt;
        self.pending
            .with(|session| session.stats.enter_server(&server, slot, worker_stats));
        connection
    }

    /// The session gives its place in the queue up, to go on in another process or to come back.
    fn depart(self) {
        self.drive(|connect, dialer, _| connect.give_up_place(dialer));
        let worker = Rc::clone(&self.pending.worker);
        let PendingSession {
            stats,
            announced,
            refused,
            connect,
            ..
        } = self.pending.leave_with_record();
        let connect = connect.expect("it is there from step 4 to the end");
        worker.relay.lasts_for_one_more();
        worker.unserved.put(Unserved {
            client: self.client,
            kind: self.kind,
            stats,
            resumed: Resumed {
                backend: Arc::clone(connect.routed_to()),
                announced,
                progress: Progress::Here(Box::new(connect.without_connections())),
                refused,
            },
        });
    }

    /// The session ends without a server: the client gets an orderly end, or a reset where the backend says so. One whose
    /// header did not come gets a reset if it has sent anything, as from HAProxy.
    fn end(self, end: &SessionEnd) {
        let worker = Rc::clone(&self.pending.worker);
        let worker_stats = &worker.worker_stats;
        match (end, &self.header) {
            (SessionEnd::NoHeader(failure), Some(rule)) => {
                drop(self.client);
                let stats = self.pending.leave();
                stats.finish_embryonic(&rule.listener, *failure, worker_stats);
            }
            (SessionEnd::NoHeader(_), None) => {}
            (SessionEnd::Departs, _) => self.depart(),
            (SessionEnd::NoServer(end), _) => {
                let stats = self.pending.leave();
                let backend = stats.backend.as_ref();
                if backend.is_some_and(|it| it.spec.no_server == NoServer::Reset) {
                    reset_when_closed(&self.client);
                    drop(self.client);
                } else {
                    close_in_order(self.client);
                }
                stats.finish(end, worker_stats);
            }
            (SessionEnd::Terminated(end), _) => {
                close_in_order(self.client);
                self.pending.leave().finish(end, worker_stats);
            }
        }
    }
}

/// What an algorithm hashes of a session of `peer`, whose connection is `client`. `announced`: the destination in its PROXY
/// header. `None`: it has no addresses.
fn sample_of(
    (client, announced): (&OwnedFd, Option<SocketAddr>),
    peer: Option<IpAddr>,
    sample: Sample,
) -> Option<Value> {
    if sample == Sample::Source {
        return peer.map(Value::Address);
    }
    let own = || SocketAddr::try_from(rustix::net::getsockname(client).ok()?).ok();
    let local = announced.or_else(own)?;
    Some(match sample {
        Sample::DestinationPort => Value::Number(local.port().into()),
        Sample::Source | Sample::Destination => Value::Address(local.ip()),
    })
}

/// Why a session has reached no server in a backend.
enum Unconnected {
    /// No server of the backend is usable.
    NoServer(Termination),
    /// It was held there, and another backend of its route has a usable server now.
    Elsewhere(Arc<Backend>),
    /// The session ends.
    Ends(SessionEnd),
}

impl<E: Into<SessionEnd>> From<E> for Unconnected {
    fn from(end: E) -> Self {
        Self::Ends(end.into())
    }
}

/// What [`Session::wait`] waits for.
enum Waited {
    Event(Event),
    ClientGone(Option<io::Error>),
    Time,
}

/// How a session ends that no server has answered. `left`: why it was ordered to leave the servers that it had
/// tried, if it was.
fn no_server(failure: ConnectFailure, left: Option<Cause>) -> Termination {
    let phase = match failure {
        ConnectFailure::QueueTimeout | ConnectFailure::QueueFull => Phase::Queue,
        _ => Phase::Connect,
    };
    let cause = match failure {
        ConnectFailure::NoServer => left.unwrap_or(Cause::Server),
        ConnectFailure::Refused | ConnectFailure::QueueFull => Cause::Server,
        ConnectFailure::Timeout | ConnectFailure::QueueTimeout => Cause::ServerTimeout,
        ConnectFailure::Shortage => Cause::Resource,
    };
    Termination::new(cause, phase)
}

/// Runs a session's future, so that a panic ends only this session.
async fn guarded(
    worker: Rc<WorkerContext>,
    frontend: FrontendId,
    mut life: Pin<Box<impl Future<Output = ()>>>,
) {
    let survived =
        poll_fn(
            |context| match catch_unwind(AssertUnwindSafe(|| life.as_mut().poll(context))) {
                Ok(poll) => poll.map(|()| true),
                Err(_) => Poll::Ready(false),
            },
        );
    if !survived.await {
        tracing::error!("a session has ended by an internal error");
        worker.read(|snapshot| {
            if let Some(frontend) = snapshot.frontend(frontend) {
                frontend
                    .live
                    .traffic
                    .mine(&worker.worker_stats.token)
                    .eint
                    .add(1);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_of_a_session_is_small() {
        fn size<S, F>(_: impl Fn(S) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(Session::run_guarded) <= 128);
    }
}
