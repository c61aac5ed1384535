//! The data path: one thread per core, each with its own loop ([`reactor`]), listeners and sessions.
//!
//! A connection may be handed to another worker right after its accept ([`hand_off`]). Its session connects and
//! relays on one worker, which it leaves only at an upgrade, for another process ([`moving`]). Start reading at
//! [`session`].

mod accept;
mod client_watch;
mod connect;
pub mod connect_policy;
mod context;
pub mod hand_off;
mod header_rule;
pub mod moving;
mod notes;
pub mod order;
mod pending;
mod pending_guard;
mod proxy_header;
mod reactor;
mod relay;
pub(crate) mod server_connect;
mod session;
pub mod session_id;
mod session_stats;
pub mod sessions;
pub mod surplus;
mod unserved;

pub use accept::{Closing, ListenState, Listener, ListenerId};
pub use header_rule::HeaderRule;
pub use proxy_header::{Seen, look};

use crate::live::pulse::Pulse;
use crate::live::{Cause, GlobalLive, LogQueue, WorkerToken};
use crate::state::{ControlHandle, Frontend, FrontendId, Snapshot, clear};
use crate::sys::abort::AbortOnPanic;
use accept::{StopAccepting, Suspension};
use arc_swap::ArcSwap;
use context::WorkerContext;
use hand_off::HandOff;
use moving::{ArrivingSession, DetachFrom, Leaving, LeavingSession};
use order::{LeavingPart, Order};
use reactor::Reactor;
use relay::Relay;
use session::Session;
use session_stats::WorkerStats;
use std::collections::{HashMap, HashSet};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use unserved::Unserved;

/// What a worker is started with.
#[derive(Debug)]
pub struct Parts {
    /// Number of the worker and of its shards.
    pub index: usize,
    /// The current snapshot.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The counters of the process.
    pub global: Arc<GlobalLive>,
    /// Where session lines go.
    pub log: LogQueue,
    /// The control task.
    pub control: ControlHandle,
    /// Orders from the control task.
    pub orders: mpsc::Receiver<Order>,
    /// For handing connections to other workers and receiving them.
    pub hand_off: HandOff,
    /// Tells the watchdog, if there is one, that the worker runs.
    pub pulse: Option<Pulse>,
    /// What ends it.
    pub stops: Stops,
}

/// What ends the workers, in steps.
#[derive(Debug, Clone, Default)]
pub struct Stops {
    /// Accept no more; sessions go on until they end.
    pub drain: CancellationToken,
    /// End all sessions.
    pub kill: CancellationToken,
}

/// Starts a worker on a thread of its own. The thread ends when [`Stops::drain`] is cancelled and no
/// session is left, or [`Stops::kill`] is.
///
/// When the thread cannot be created. A worker that cannot go on ends the process by a panic; systemd starts it
/// again.
pub fn spawn(parts: Parts) -> io::Result<JoinHandle<()>> {
    let name = format!("worker-{}", parts.index);
    std::thread::Builder::new().name(name).spawn(move || {
        let _abort = AbortOnPanic;
        run(parts).expect("a worker cannot do without epoll");
    })
}

fn run(parts: Parts) -> io::Result<()> {
    let worker_stats = Rc::new(WorkerStats {
        token: WorkerToken::new(parts.index),
        global: Arc::clone(&parts.global),
        log: parts.log.clone(),
    });
    let relay = Relay::new(Rc::clone(&worker_stats))?;
    let reactor = Reactor::new(relay)?;
    reactor.block_on(serve(parts, worker_stats, &reactor))
}

/// Serves until the worker is to end.
async fn serve(parts: Parts, worker_stats: Rc<WorkerStats>, reactor: &Reactor) {
    let Parts {
        snapshot,
        control,
        mut orders,
        hand_off,
        pulse,
        stops,
        ..
    } = parts;
    if let Some(pulse) = pulse {
        // Ends with the tasks, and so with the worker.
        let timers = Rc::clone(&reactor.timers);
        reactor
            .tasks
            .spawn(pulse.beat(move |time| timers.sleep(time)));
    }
    let relay = &reactor.relay;
    let (peers, mut inbox) = (hand_off.peers, hand_off.inbox);
    let relations = (control, peers);
    let kill = stops.kill.clone();
    let worker = WorkerContext::new(worker_stats, reactor, relations, kill, snapshot);
    let worker = Rc::new(worker);
    let sessions = TaskTracker::new();
    let mut acceptors = Acceptors::new(Rc::clone(&worker), sessions.clone(), stops.clone());
    let open = acceptors.open.clone();
    open.close();
    let mut accepting = pin!(async {
        stops.drain.cancelled().await;
        open.wait().await;
        sessions.close();
    });
    let mut over = pin!(async {
        loop {
            sessions.wait().await;
            relay.empty().await;
            // A session that waits for a server may have come back from its way to another process.
            if sessions.is_empty() {
                return;
            }
        }
    });
    let mut stage = Stage::Accepting;
    loop {
        tokio::select! {
            Some(order) = orders.recv() => obey(order, &mut acceptors),
            handed = inbox.recv(), if stage != Stage::Ending => match handed {
                Some(accepted) => accept::begin(accepted, &worker, &sessions),
                None => stage = Stage::Ending,
            },
            () = &mut accepting, if stage == Stage::Accepting => {
                inbox.close();
                stage = Stage::TakingOver;
            }
            () = &mut over, if stage == Stage::Ending => return,
            () = stops.kill.cancelled() => {
                end_all(&worker, &sessions).await;
                return;
            }
        }
    }
}

/// Ends all sessions: those in the relay, those that are connecting, and those that entered the relay
/// meanwhile.
async fn end_all(worker: &WorkerContext, sessions: &TaskTracker) {
    worker.relay.end_all(Cause::Killed);
    worker.pending.end_all();
    for session in worker.unserved.take(usize::MAX) {
        session.kill(&worker.worker_stats);
    }
    sessions.close();
    sessions.wait().await;
    worker.relay.end_all(Cause::Killed);
}

/// The stages of a worker's stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It accepts connections.
    Accepting,
    /// It accepts no more; connections that other workers have handed off are still taken.
    TakingOver,
    /// No connection comes any more: it waits for its sessions to end.
    Ending,
}

fn obey(order: Order, acceptors: &mut Acceptors) {
    let worker = &acceptors.worker;
    match order {
        Order::EndSessions { servers, cause } => {
            worker.relay.end_sessions(&servers, cause);
            worker.pending.end_on(&servers, cause);
        }
        Order::EndSurplus(surplus) => worker.relay.end_surplus(&surplus),
        Order::ServersChanged(backends) => worker.pending.servers_changed(&backends),
        Order::List {
            from,
            wanted,
            reply,
        } => {
            let page = if from.relayed {
                worker.relay.page(from.place, &wanted)
            } else {
                worker.pending.page(from.place, &wanted)
            };
            // The one who asked may have gone.
            let _ = reply.try_send(page);
        }
        Order::EndSession { id, reply } => {
            let killed = Cause::Killed;
            let found = worker.pending.end(id) || worker.relay.end_session(id, killed);
            let _ = reply.try_send(found);
        }
        Order::Detach { from, most, reply } => acceptors.detach(from, most, &reply),
        Order::Decided {
            count,
            back,
            refused,
        } => {
            let back = back.take().unwrap_or_default();
            acceptors.decided(count, back, refused);
        }
        Order::Resume => {
            let unserved = worker.unserved.take(usize::MAX);
            let count = unserved.len();
            let back = unserved.into_iter().map(LeavingSession::unserved).collect();
            acceptors.decided(count, back, (0, 0));
        }
        Order::Arrive { sessions, pauses } => {
            let sessions = sessions.take().unwrap_or_default();
            // For a log event only.
            let _ = pauses.try_send(acceptors.arrive(sessions));
        }
        Order::Identity { step, reply } => {
            // Whoever has sent it may be gone.
            let _ = reply.try_send(step.take());
        }
        Order::ClearCounters { what, reply } => {
            let token = &worker.worker_stats.token;
            worker.read(|snapshot| clear::counters(snapshot, what, token));
            // The one who asked may have gone.
            let _ = reply.try_send(());
        }
        Order::Open(listener) => acceptors.open(listener),
        Order::FollowFrontend { id, reply } => acceptors.follow(id, &reply),
        Order::HandedOver { left, reply } => {
            acceptors.handed_over(&left);
            // The one who asked may have gone.
            let _ = reply.try_send(());
        }
        Order::Close { id, frontend, how } => acceptors.close(id, frontend, how),
    }
}

/// The listeners that this worker accepts from.
struct Acceptors {
    worker: Rc<WorkerContext>,
    sessions: TaskTracker,
    stops: Stops,
    open: TaskTracker,
    listeners: HashMap<ListenerId, OpenListener>,
}

/// A listener that this worker accepts from.
struct OpenListener {
    frontend: FrontendId,
    /// What ends accepting.
    stop: StopAccepting,
    /// Of each of its sockets.
    suspensions: Vec<Rc<Suspension>>,
}

impl Acceptors {
    fn new(worker: Rc<WorkerContext>, sessions: TaskTracker, stops: Stops) -> Self {
        Self {
            worker,
            sessions,
            stops,
            open: TaskTracker::new(),
            listeners: HashMap::new(),
        }
    }

    fn open(&mut self, listener: Listener) {
        // A worker may have several sockets of one listener; its id ends all of them.
        let open = self.listeners.entry(listener.id);
        let open = open.or_insert_with(|| OpenListener {
            frontend: listener.frontend,
            stop: StopAccepting::new(&self.stops),
            suspensions: Vec::new(),
        });
        let suspension = Rc::new(Suspension::default());
        open.suspensions.push(Rc::clone(&suspension));
        let worker = Rc::clone(&self.worker);
        let ends = (open.stop.clone(), suspension);
        let acceptor = accept::run(listener, worker, self.sessions.clone(), ends);
        let tasks = Rc::clone(&self.worker.tasks);
        tasks.spawn(self.open.track_future(async {
            if let Err(error) = acceptor.await {
                tracing::error!(%error, "a listening socket cannot be watched");
            }
        }));
    }

    /// Takes up to `most` sessions out: those of the relay first, so that they have their servers' slots in the other
    /// process before those that wait for one.
    fn detach(&self, from: DetachFrom, most: usize, reply: &mpsc::Sender<LeavingPart>) {
        let worker = &self.worker;
        let mut sessions = Vec::new();
        // While others of their backend wait in its queues, those of the relay stay. The ones that depart leave the
        // queues by themselves, before the next order.
        let next = if worker.pending.depart((from.round, from.pass)) > 0 {
            Some(from.place)
        } else {
            let part = worker.relay.detach(from, most);
            let relayed = part.sessions.into_iter();
            sessions.extend(relayed.map(LeavingSession::relayed));
            part.next.or_else(|| {
                let unserved = worker.unserved.take(most - sessions.len()).into_iter();
                sessions.extend(unserved.map(LeavingSession::unserved));
                let is_over = worker.unserved.is_empty();
                (!is_over).then_some(DetachFrom::BEHIND_THE_RELAY)
            })
        };
        let count = sessions.len();
        if let Err(unsent) = reply.try_send(LeavingPart { sessions, next }) {
            // The one who asked has gone.
            self.decided(count, unsent.into_inner().sessions, (from.round, from.pass));
        }
    }

    /// What became of `count` sessions that were taken out: those in `back` were refused in this round and pass, and go
    /// on here.
    fn decided(&self, count: usize, back: Vec<LeavingSession>, refused: (u32, u32)) {
        let mut relayed = Vec::new();
        for session in back {
            match session.what {
                Leaving::Relayed(session) => relayed.push(session),
                Leaving::Unserved(mut session) => {
                    session.resumed.refused = refused;
                    self.resume(session);
                }
            }
        }
        self.worker.relay.decided(count, relayed, refused.0);
    }

    /// Goes on with a session that waits for a server.
    fn resume(&self, session: Unserved) {
        let Unserved {
            client,
            kind,
            stats,
            resumed,
        } = session;
        let client = (client, kind, None);
        let resumed = Some(Box::new(resumed));
        Session::spawn((&self.worker, &self.sessions), client, stats, resumed);
    }

    /// Goes on with sessions of another process. For how long each was in neither.
    fn arrive(&self, sessions: Vec<ArrivingSession>) -> Vec<Duration> {
        let worker = &self.worker;
        let mut pauses = Vec::with_capacity(sessions.len());
        for session in sessions {
            pauses.push(session.pause());
            let end = session.end();
            let id = worker.pending.number(worker.peers.position());
            match session.leaving(id, &worker.worker_stats) {
                Leaving::Relayed(session) => worker.relay.attach(session),
                Leaving::Unserved(session) => self.resume(session),
            }
            if let Some(cause) = end {
                worker.relay.end_session(id, cause);
            }
        }
        pauses
    }

    /// A frontend may have begun or ceased to accept connections.
    fn follow(&self, id: FrontendId, reply: &mpsc::Sender<bool>) {
        let listens = self
            .worker
            .read(|snapshot| snapshot.frontend(id).map(|it| it.listens()));
        let Some(listens) = listens else {
            return;
        };
        let its = self.listeners.values().filter(|one| one.frontend == id);
        for suspension in its.flat_map(|one| &one.suspensions) {
            suspension.follow(listens, Some(reply.clone()));
        }
    }

    /// Another process accepts what is queued, except at the listeners in `left`.
    fn handed_over(&self, left: &HashSet<ListenerId>) {
        for (id, open) in &self.listeners {
            open.stop.handed_over(left.contains(id));
        }
    }

    fn close(&mut self, id: ListenerId, frontend: Option<Arc<Frontend>>, how: Closing) {
        if let Some(open) = self.listeners.remove(&id) {
            open.stop.now(frontend, how);
        }
    }
}
