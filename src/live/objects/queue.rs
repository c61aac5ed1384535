//! The queues of a backend: its sessions that wait for a slot on a server with `maxconn`. Any worker calls it, and the
//! control thread when servers have changed.
//!
//! A session waits for the first free slot of the backend, or of one server. Whoever frees a slot gives it to the session
//! that has waited longest, so that one session is woken for one slot.
//!
//! Invariant: while nobody holds the lock and no slot is being freed, no session waits for a server that has a free
//! slot for it. A slot is freed by lowering a gauge and then reading [`Queue::waiting`]; a session begins to wait by
//! raising `waiting` and then reading the gauges. Of the two, one sees the other.

use super::super::gauge::Gauge;
use super::super::sync::{Arc, Mutex, MutexGuard, Ordering::Relaxed, PoisonError};
use super::ServerLive;
use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// How many sessions a server may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotLimit {
    /// However few sessions the backend has (`minconn`).
    min: u32,
    /// When the backend has [`SlotLimit::full`] sessions or more (`maxconn`).
    max: u32,
    /// `fullconn`.
    full: u32,
    /// How much of it is in force: less than 100 during a slow start.
    percent: u32,
}

impl SlotLimit {
    /// No limit.
    pub const NONE: Self = Self {
        min: u32::MAX,
        max: u32::MAX,
        full: 0,
        percent: 100,
    };

    /// Of a server with these keys; 0: not set. As in HAProxy, a `minconn` above `maxconn` stands for both.
    pub fn new(maxconn: u32, minconn: u32, fullconn: u32) -> Self {
        if maxconn == 0 && minconn == 0 {
            return Self::NONE;
        }
        let max = maxconn.max(minconn);
        Self {
            min: if minconn == 0 { max } else { minconn },
            max,
            full: fullconn,
            percent: 100,
        }
    }

    /// With only so many percent of it in force, but at least one session.
    #[must_use]
    pub fn reduced(self, percent: u32) -> Self {
        if !self.exists() {
            return self;
        }
        Self { percent, ..self }
    }

    /// Whether there is one.
    pub fn exists(self) -> bool {
        self != Self::NONE
    }

    /// Whether it depends on how many sessions the backend has.
    fn is_dynamic(self) -> bool {
        self.min != self.max
    }

    /// The limit while the backend has this many sessions, those that wait included. HAProxy's `srv_dynamic_maxconn`.
    pub fn at(self, sessions: u32) -> u32 {
        let whole = self.whole_at(sessions);
        if self.percent == 100 {
            return whole;
        }
        let part = u64::from(whole) * u64::from(self.percent) / 100;
        u32::try_from(part).unwrap_or(whole).max(1)
    }

    fn whole_at(self, sessions: u32) -> u32 {
        if !self.is_dynamic() || sessions >= self.full {
            return self.max;
        }
        let share = u64::from(sessions) * u64::from(self.max) / u64::from(self.full);
        // Below `max`, because there are fewer sessions than `full`.
        u32::try_from(share).unwrap_or(self.max).max(self.min)
    }
}

/// A session's slot on a server. Dropping it frees the slot.
#[derive(Debug)]
pub struct Slot {
    server: Arc<ServerLive>,
    /// Whether it was freed already. A flag, because the hot path looks at the server.
    is_free: bool,
}

impl Slot {
    /// Counts a session on `server`, whatever its limit is.
    pub(in super::super) fn over_limit(server: &Arc<ServerLive>) -> Self {
        server.active.raise();
        Self::counted(server)
    }

    /// A slot on `server`, or `None`: it has as many sessions as it may have.
    pub(in super::super) fn below(server: &Arc<ServerLive>, limit: SlotLimit) -> Option<Self> {
        let most = limit.at(server.queue.sessions.get());
        server.active.raise_below(most)?;
        Some(Self::counted(server))
    }

    fn counted(server: &Arc<ServerLive>) -> Self {
        server.load_changed();
        Self {
            server: Arc::clone(server),
            is_free: false,
        }
    }

    /// The server. # Hot path
    pub fn live(&self) -> &Arc<ServerLive> {
        &self.server
    }

    /// Frees the slot, and gives it to nobody. For whoever has the lock of the queue.
    fn free(mut self) {
        self.release();
    }

    fn release(&mut self) {
        self.is_free = true;
        self.server.active.lower();
        self.server.load_changed();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.is_free {
            return;
        }
        self.release();
        let server = &self.server;
        if server.queue.waiting.get_in_order() != 0 {
            server.queue.give(server.uid);
        }
    }
}

/// The queues of a backend.
#[derive(Debug, Default)]
pub struct Queue {
    /// Sessions that wait, for whichever server.
    waiting: Gauge,
    /// Sessions of the backend, those that wait included (`scur`).
    sessions: Arc<Gauge>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The servers of the backend by their uids.
    servers: BTreeMap<u64, Place>,
    /// Sessions that take the first free slot, by the servers that they do not take: few combinations, however many
    /// sessions. None is empty.
    any: BTreeMap<Box<[u64]>, BTreeMap<Rank, Waiter>>,
    /// How many sessions are in `any`.
    any_waiting: u32,
    /// How many have got a slot from there so far.
    any_served: u32,
    /// How many sessions have begun to wait so far.
    begun: u64,
    /// Whether a limit depends on how many sessions there are.
    dynamic: bool,
}

/// A server, and the sessions that wait for it alone.
#[derive(Debug)]
struct Place {
    server: Arc<ServerLive>,
    /// Its position in the backend.
    index: u32,
    limit: SlotLimit,
    line: Line,
}

/// Sessions in the order in which they began to wait.
#[derive(Debug, Default)]
struct Line {
    waiters: BTreeMap<Rank, Waiter>,
    /// How many have got a slot from here so far.
    served: u32,
}

/// A session's place in the order. It keeps the place when it has to wait again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u64);

#[derive(Debug)]
struct Waiter {
    slot: oneshot::Sender<Granted>,
    /// How many had got a slot from there when it began to wait.
    served: u32,
}

/// Where a session waits.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Where {
    /// For any server but these, in ascending order.
    AnyBut(Box<[u64]>),
    /// For this server.
    Server(u64),
}

/// A server of the backend as it is now.
#[derive(Debug)]
pub struct Candidate {
    /// Its counters.
    pub server: Arc<ServerLive>,
    /// Its position in the backend.
    pub index: u32,
    /// How many sessions it may have.
    pub limit: SlotLimit,
}

/// What a session waits for.
#[derive(Debug)]
pub enum Wanted {
    /// The first free slot, but not of these servers.
    AnyBut(Box<[u64]>),
    /// A slot of this server.
    Server {
        /// Its [`ServerLive::uid`].
        uid: u64,
        /// Most sessions that may wait for it; 0: no limit (`maxqueue`).
        most: u32,
    },
}

/// As many sessions wait for the server as may (`maxqueue`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// A slot that a session has waited for.
#[derive(Debug)]
pub struct Granted {
    /// The slot.
    pub slot: Slot,
    /// The server's position in the backend.
    pub index: u32,
    /// How many sessions have got a slot there since it began to wait, itself counted (`srv_queue`, `backend_queue`).
    pub position: u32,
}

/// A session's place in a queue. Dropping it gives the place up, and passes a slot on that has just come.
#[derive(Debug)]
pub struct Ticket {
    queue: Arc<Queue>,
    waits: Where,
    rank: Rank,
    granted: oneshot::Receiver<Granted>,
}

impl Queue {
    /// Queues of a backend whose sessions are counted here.
    pub fn new(sessions: Arc<Gauge>) -> Self {
        Self {
            sessions,
            ..Self::default()
        }
    }

    /// Whether any session waits.
    pub fn is_waiting(&self) -> bool {
        self.waiting.get() != 0
    }

    /// Whether it knows the servers of its backend, because they have had limits.
    pub fn has_servers(&self) -> bool {
        !self.lock().servers.is_empty()
    }

    /// How many sessions wait, for whichever server.
    pub fn waiting(&self) -> u32 {
        self.waiting.get()
    }

    /// How many sessions wait for the first free slot (`qcur` of the backend).
    pub fn waiting_for_any(&self) -> u32 {
        self.lock().any_waiting
    }

    /// Begins to wait. `rank`: the session's place, if it has waited before. The second value says how many sessions wait
    /// now in that queue.
    ///
    /// # Errors
    /// When too many wait for that server.
    pub fn join(
        self: &Arc<Self>,
        wanted: Wanted,
        rank: Option<Rank>,
    ) -> Result<(Ticket, u32), Full> {
        let mut state = self.lock();
        let waits = match wanted {
            Wanted::AnyBut(mut not) => {
                not.sort_unstable();
                Where::AnyBut(not)
            }
            Wanted::Server { uid, most } => {
                let waiting = |place: &Place| place.line.waiters.len();
                let waiting = state.servers.get(&uid).map_or(0, waiting);
                if most != 0 && waiting >= most as usize {
                    return Err(Full);
                }
                Where::Server(uid)
            }
        };
        state.begun += 1;
        let rank = rank.unwrap_or(Rank(state.begun));
        let (slot, granted) = oneshot::channel();
        // Otherwise every server that it takes was full when one before began to wait.
        let looks = state.dynamic || !state.waits_for_any();
        let length = state.insert(&waits, rank, slot);
        if length > 0 {
            self.waiting.raise();
            match &waits {
                Where::Server(uid) => self.fill(&mut state, *uid),
                Where::AnyBut(not) if looks || !not.is_empty() || state.any.len() > 1 => {
                    for uid in state.with_room(not) {
                        self.fill(&mut state, uid);
                    }
                }
                Where::AnyBut(_) => {}
            }
        }
        let queue = Arc::clone(self);
        let ticket = Ticket {
            queue,
            waits,
            rank,
            granted,
        };
        Ok((ticket, length))
    }

    /// The servers that may be used now. Sessions that wait for others choose again.
    /// Control thread, whenever servers or limits have changed. `limited`: one of them has a limit.
    pub fn set_servers(&self, candidates: Vec<Candidate>, limited: bool) {
        let mut state = self.lock();
        state.dynamic = candidates.iter().any(|it| it.limit.is_dynamic());
        let mut before = mem::take(&mut state.servers);
        for Candidate {
            server,
            index,
            limit,
        } in candidates
        {
            let uid = server.uid;
            let line = before.remove(&uid).map(|place| place.line);
            let line = line.unwrap_or_default();
            let place = Place {
                server,
                index,
                limit,
                line,
            };
            state.servers.insert(uid, place);
        }
        let mut freed: Vec<Waiter> = Vec::new();
        for place in before.into_values() {
            place.server.queued.store(0, Relaxed);
            place.server.load_changed();
            freed.extend(place.line.waiters.into_values());
        }
        freed.extend(state.take_unserved());
        for _ in &freed {
            self.waiting.lower();
        }
        for uid in state.with_room(&[]) {
            self.fill(&mut state, uid);
        }
        if !limited {
            // Nobody waits any more.
            state.servers.clear();
        }
        drop(state);
        // Their sessions wake.
        drop(freed);
    }

    /// A slot of the server `uid` has become free.
    fn give(&self, uid: u64) {
        let mut state = self.lock();
        self.fill(&mut state, uid);
    }

    /// Gives the free slots of a server to those that have waited longest for them.
    fn fill(&self, state: &mut State, uid: u64) {
        let mut in_hand: Option<Slot> = None;
        while let Some((waits, rank)) = state.first_for(uid)
            && let Some(place) = state.servers.get(&uid)
            && let Some(slot) = in_hand
                .take()
                .or_else(|| Slot::below(&place.server, place.limit))
        {
            let index = place.index;
            let (waiter, position) = state.serve(&waits, rank);
            self.waiting.lower();
            let granted = Granted {
                slot,
                index,
                position,
            };
            // Otherwise it has just gone.
            if let Err(granted) = waiter.slot.send(granted) {
                in_hand = Some(granted.slot);
            }
        }
        if let Some(slot) = in_hand {
            slot.free();
        }
    }

    /// Takes a session out that has got no slot. `None`: it has one, or has to choose again.
    fn leave(&self, ticket: &Ticket) -> Option<u32> {
        let mut state = self.lock();
        let (waiter, served) = state.remove(&ticket.waits, ticket.rank)?;
        self.waiting.lower();
        Some(served.wrapping_sub(waiter.served) + 1)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn waits_for_any(&self) -> bool {
        self.any_waiting > 0
    }

    /// Whether there is a server but these.
    fn serves(&self, not: &[u64]) -> bool {
        self.servers.keys().any(|uid| !not.contains(uid))
    }

    /// Takes out the sessions that take none of the servers.
    fn take_unserved(&mut self) -> Vec<Waiter> {
        let lines = mem::take(&mut self.any).into_iter();
        let (any, unserved): (BTreeMap<_, _>, BTreeMap<_, _>) =
            lines.partition(|(not, _)| self.serves(not));
        self.any = any;
        let waiters = unserved.into_values().flat_map(BTreeMap::into_values);
        let waiters: Vec<Waiter> = waiters.collect();
        self.any_waiting -= number(waiters.len());
        waiters
    }

    /// Puts a session into its line. Returns how many wait there now; 0: the servers that it takes have left the backend
    /// meanwhile, and it chooses again.
    fn insert(&mut self, waits: &Where, rank: Rank, slot: oneshot::Sender<Granted>) -> u32 {
        match waits {
            Where::AnyBut(not) => {
                if !self.serves(not) {
                    return 0;
                }
                let served = self.any_served;
                let waiters = self.any.entry(not.clone()).or_default();
                waiters.insert(rank, Waiter { slot, served });
                self.any_waiting += 1;
                self.any_waiting
            }
            Where::Server(uid) => {
                let Some(place) = self.servers.get_mut(uid) else {
                    return 0;
                };
                let served = place.line.served;
                place.line.waiters.insert(rank, Waiter { slot, served });
                place.show_waiting()
            }
        }
    }

    /// Takes a session out, if it is there, and says how many have got a slot there so far.
    fn remove(&mut self, waits: &Where, rank: Rank) -> Option<(Waiter, u32)> {
        match waits {
            Where::AnyBut(not) => {
                let waiters = self.any.get_mut(not)?;
                let waiter = waiters.remove(&rank)?;
                if waiters.is_empty() {
                    self.any.remove(not);
                }
                self.any_waiting -= 1;
                Some((waiter, self.any_served))
            }
            Where::Server(uid) => {
                let place = self.servers.get_mut(uid)?;
                let waiter = place.line.waiters.remove(&rank)?;
                place.show_waiting();
                Some((waiter, place.line.served))
            }
        }
    }

    /// The session that has waited longest for this server: where it waits, and its place.
    fn first_for(&self, uid: u64) -> Option<(Where, Rank)> {
        let own = self.servers.get(&uid)?.line.waiters.keys().next();
        let any = self.any.iter().filter(|(not, _)| !not.contains(&uid));
        let any = any.filter_map(|(not, waiters)| Some((waiters.keys().next()?, not)));
        match (own, any.min()) {
            (Some(own), Some((rank, _))) if own < rank => Some((Where::Server(uid), *own)),
            (_, Some((rank, not))) => Some((Where::AnyBut(not.clone()), *rank)),
            (Some(own), None) => Some((Where::Server(uid), *own)),
            (None, None) => None,
        }
    }

    /// Takes out a session that gets a slot, and says how many sessions have got one there since it began to wait.
    fn serve(&mut self, waits: &Where, rank: Rank) -> (Waiter, u32) {
        let served = match waits {
            Where::AnyBut(_) => Some(&mut self.any_served),
            Where::Server(uid) => self.servers.get_mut(uid).map(|it| &mut it.line.served),
        };
        if let Some(served) = served {
            *served = served.wrapping_add(1);
        }
        let (waiter, served) = self.remove(waits, rank).expect("it was just found there");
        let position = served.wrapping_sub(waiter.served);
        (waiter, position)
    }

    /// The servers, but for these, that have a free slot.
    fn with_room(&self, not: &[u64]) -> Vec<u64> {
        let servers = self.servers.iter();
        let servers = servers.filter(|(uid, place)| !not.contains(uid) && place.has_room());
        servers.map(|(uid, _)| *uid).collect()
    }
}

impl Place {
    fn has_room(&self) -> bool {
        let sessions = self.server.queue.sessions.get();
        self.server.active.get_in_order() < self.limit.at(sessions)
    }

    /// Shows how many sessions wait for the server, and returns it.
    fn show_waiting(&self) -> u32 {
        let waiting = number(self.line.waiters.len());
        self.server.queued.store(waiting, Relaxed);
        self.server.load_changed();
        waiting
    }
}

impl Ticket {
    /// The session's place in the order.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// Whether it waits for one server.
    pub fn is_for_one_server(&self) -> bool {
        matches!(self.waits, Where::Server(_))
    }

    /// The slot, once it comes. `None`: the session has to choose again, because the servers have changed.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Granted>> {
        Pin::new(&mut self.granted).poll(context).map(Result::ok)
    }

    /// Gives the place up, and says how many sessions have got a slot there since the session began to wait, itself
    /// counted.
    pub fn leave(self) -> u32 {
        // A slot that has just come is passed on.
        self.queue.leave(&self).unwrap_or(1)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.queue.leave(self);
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
