//! The simulation's sessions: the real steps 5 to 7, [`ServerConnect`], over connections that the
//! simulation answers.

use super::{Event, ID, Node, REFUSAL, Simulation, ms};
use crate::live::slot::{BackendSlot, Slot};
use crate::live::{FailureCause, WorkerToken};
use crate::state::{Backend, BackendId, OperState, Server};
use crate::sys::limits::Shortage;
use crate::worker::connect_policy::{AttemptSlot, ConnectFailure};
use crate::worker::server_connect::{Dialer, Next, QueueStay, ServerConnect};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// One session that connects, or is established.
#[derive(Debug)]
pub(super) struct Session {
    connect: ServerConnect<Connection>,
    begun: Instant,
    /// Servers that were asked, and when each was renewed last at that time.
    tried: Vec<(u64, u64)>,
    short: Vec<u64>,
    /// Number of the wait that it is in; 0 once it is established.
    pub(super) wake: u64,
    _slot: BackendSlot,
    /// On the server that has answered.
    server: Option<Slot>,
}

/// The number of a connection.
#[derive(Debug)]
struct Connection(u64);

/// Connects one session of the simulation.
struct SimulatedDialer<'a> {
    simulation: &'a mut Simulation,
    id: usize,
    begun: Instant,
    tried: &'a mut Vec<(u64, u64)>,
    short: &'a mut Vec<u64>,
}

impl Dialer for SimulatedDialer<'_> {
    type Connection = Connection;

    fn dial(&mut self, server: &Arc<Server>) -> io::Result<Connection> {
        assert!(
            server.status.oper != OperState::Stopped || self.simulation.backend().status.fail_open,
            "a DOWN server got a connection"
        );
        if !self.simulation.backend().limited {
            self.must_be_new(server);
        }
        let uid = server.live.uid;
        let simulation = &mut *self.simulation;
        if simulation.falls_short() {
            self.short.push(uid);
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        self.tried.push((uid, server.renewed));
        simulation.counter += 1;
        simulation.load.dials += 1;
        let number = simulation.counter;
        let position = simulation.servers.get(uid).expect("it is in the backend");
        let (now, id) = (simulation.now, self.id);
        match simulation.nodes[position.index].0 {
            Node::Up(latency) => simulation.at(now + latency, Event::Answer(id, number, true)),
            Node::Refusing => simulation.at(now + REFUSAL, Event::Answer(id, number, false)),
            Node::Dark => {}
        }
        Ok(Connection(number))
    }

    fn abort(&mut self, _: Connection) {}

    fn is_answered(&self, _: &Connection) -> bool {
        false
    }

    fn backend<T>(&self, _: BackendId, look: impl FnOnce(&Backend) -> T) -> Option<T> {
        self.simulation
            .snapshot
            .backend(ID)
            .map(|backend| look(backend))
    }

    fn suspect(&mut self, _: BackendId, server: &Server) {
        if let Some(position) = self.simulation.servers.get(server.live.uid) {
            self.simulation.checkers[position.index].wanted = true;
            self.simulation.schedule_check(position.index);
        }
    }

    fn observed(&mut self, server: &Server, errors: u32) -> bool {
        assert!(server.spec.observe, "it is not observed");
        let simulation = &mut *self.simulation;
        // Control has no room now and then.
        if simulation.random.u32(..4) == 0 {
            return false;
        }
        simulation.observed.push((server.live.uid, errors));
        let delay = Duration::from_micros(simulation.random.u64(..2_000));
        simulation.at(simulation.now + delay, Event::Turn);
        true
    }

    fn short_of(&mut self, _: Shortage, _: &Server) {}

    fn gave_up(&mut self, _: FailureCause, _: Option<&Server>) {}

    fn retry_denied(&mut self, backend: &Backend, _: u32) {
        assert!(backend.spec.retry_budget.is_some(), "it has no budget");
        self.simulation.load.denied += 1;
    }

    fn asks(&mut self, _: &Server, _: u32, _: bool) {}

    fn waited(&mut self, stay: QueueStay) {
        assert!(stay.time.unwrap_or_default() <= self.simulation.backend().spec.timeout_queue);
        self.simulation.waited += 1;
    }

    fn held(&mut self, _: Duration) {
        unreachable!("the backend of the simulation has no `timeout no-server`")
    }

    fn token(&self) -> &WorkerToken {
        &self.simulation.tokens[0]
    }
}

impl SimulatedDialer<'_> {
    /// No server is asked twice before all that were there from the beginning have been asked, unless
    /// it has come up since.
    fn must_be_new(&self, server: &Server) {
        let asked = self.tried.iter().rev();
        let Some((_, last)) = asked.clone().find(|(uid, _)| *uid == server.live.uid) else {
            return;
        };
        if server.renewed > *last {
            return;
        }
        let tried = |uid: u64| asked.clone().any(|(other, _)| *other == uid);
        let backend = self.simulation.backend();
        for (since, other) in self.simulation.rotation.iter().zip(&backend.servers) {
            let from_the_beginning = since.is_some_and(|since| since <= self.begun);
            let uid = other.live.uid;
            assert!(
                !from_the_beginning || tried(uid) || self.short.contains(&uid),
                "{} was tried twice before {} was tried",
                server.spec.name,
                other.spec.name
            );
        }
    }
}

impl Simulation {
    pub(super) fn arrive(&mut self) {
        let backend = self.backend();
        self.sessions.push(Some(Session {
            connect: ServerConnect::new(&backend, |_| None, self.now),
            begun: self.now,
            tried: Vec::new(),
            short: Vec::new(),
            wake: 0,
            _slot: BackendSlot::take(&backend.live, &self.tokens[0]),
            server: None,
        }));
        self.step(self.sessions.len() - 1);
    }

    /// Runs a step of a session's real code.
    fn drive<T>(
        &mut self,
        id: usize,
        session: &mut Session,
        step: impl FnOnce(&mut ServerConnect<Connection>, &mut SimulatedDialer<'_>, Instant) -> T,
    ) -> T {
        let now = self.now;
        let mut dialer = SimulatedDialer {
            simulation: self,
            id,
            begun: session.begun,
            tried: &mut session.tried,
            short: &mut session.short,
        };
        step(&mut session.connect, &mut dialer, now)
    }

    pub(super) fn step(&mut self, id: usize) {
        let mut session = self.sessions[id].take().expect("a session that goes on");
        match self.drive(id, &mut session, |connect, dialer, now| {
            connect.advance(dialer, now)
        }) {
            Next::Wait(until) => {
                self.must_not_be_hopeless(&session);
                self.counter += 1;
                session.wake = self.counter;
                self.at(until, Event::Wake(id, session.wake));
                if session.connect.is_queued() {
                    self.queued.insert(id);
                }
                self.sessions[id] = Some(session);
            }
            Next::GiveUp(ConnectFailure::QueueTimeout) => self.late += 1,
            Next::GiveUp(_) => {
                self.must_be_hopeless(&session);
                self.lost += 1;
            }
        }
    }

    /// A connection was answered, or refused.
    pub(super) fn answer(&mut self, id: usize, number: u64, good: bool) {
        let Some(mut session) = self.sessions[id].take() else {
            return;
        };
        let slot = AttemptSlot::BOTH.into_iter().find(|&slot| {
            let connection = session.connect.connection(slot);
            connection.is_some_and(|connection| connection.0 == number)
        });
        let Some(slot) = slot else {
            // It was closed before.
            self.sessions[id] = Some(session);
            return;
        };
        if good {
            let answered = self.drive(id, &mut session, |connect, dialer, now| {
                connect.answered(slot, dialer, now)
            });
            session.server = answered.map(|attempt| attempt.slot);
        } else {
            self.drive(id, &mut session, |connect, dialer, now| {
                let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
                connect.failed(slot, &refused, dialer, now);
            });
        }
        let established = session.server.is_some();
        self.sessions[id] = Some(session);
        if !established {
            return self.step(id);
        }
        self.sessions[id].as_mut().expect("just put there").wake = 0;
        self.served += 1;
        let begun = self.sessions[id].as_ref().map_or(self.now, |it| it.begun);
        self.load.connect_times.push(self.now - begun);
        let stays = ms(self.random.u64(..500));
        self.at(self.now + stays, Event::Leave(id));
    }

    /// Slots have come that sessions wait for, or they have to choose again.
    pub(super) fn serve_granted(&mut self) {
        let mut after = 0;
        while let Some(&id) = self.queued.range(after..).next() {
            after = id + 1;
            let mut context = Context::from_waker(Waker::noop());
            let session = self.sessions[id].as_mut();
            let Some(session) = session.filter(|session| session.connect.is_queued()) else {
                self.queued.remove(&id);
                continue;
            };
            let Poll::Ready(granted) = session.connect.poll_granted(&mut context) else {
                continue;
            };
            let mut session = self.sessions[id].take().expect("just seen");
            self.drive(id, &mut session, |connect, dialer, now| {
                connect.granted(granted, dialer, now);
            });
            self.sessions[id] = Some(session);
            self.step(id);
            // A slot that it has given up may have come to another one.
            after = 0;
        }
    }

    /// No server has more sessions than it may have, and nobody waits for one that has a slot.
    pub(super) fn must_use_every_slot(&self) {
        let backend = self.backend();
        if !backend.limited {
            return;
        }
        let waiting = self.queued.iter();
        let waiting = waiting.filter_map(|id| self.sessions[*id].as_ref());
        let waiting: Vec<&Session> = waiting.filter(|it| it.connect.is_queued()).collect();
        for (index, server) in backend.servers.iter().enumerate() {
            let (active, most) = (server.live.active.get(), server.spec.maxconn);
            assert!(active <= most, "{active} of {most}");
            // Less in a slow start, in which sessions from before it may be more.
            let most = server.slot_limit(backend.spec.fullconn).at(0);
            let in_use = self.rotation[index].is_some();
            let takes_it = |session: &&Session| !session.connect.has_tried(server.live.uid);
            let waits = waiting.iter().any(takes_it);
            assert!(
                active >= most || !in_use || !waits,
                "one waits for s{index}"
            );
        }
    }

    /// Servers have come up or gone down: every session that connects is told.
    pub(super) fn tell_servers_changed(&mut self) {
        for id in 0..self.sessions.len() {
            let connecting = |session: &Session| session.server.is_none();
            if !self.sessions[id].as_ref().is_some_and(connecting) {
                continue;
            }
            let mut session = self.sessions[id].take().expect("just seen");
            self.drive(id, &mut session, |connect, dialer, now| {
                connect.servers_changed(dialer, now);
            });
            self.sessions[id] = Some(session);
            self.step(id);
        }
    }

    /// Fault 5: nobody waits while no server is usable.
    fn must_not_be_hopeless(&self, session: &Session) {
        let backend = self.backend();
        // A server that is asked may answer yet when there are too few.
        let asks = AttemptSlot::BOTH.into_iter().any(|slot| {
            let server = session.connect.server(slot);
            let now = server.and_then(|one| backend.server(0, one.live.uid));
            now.is_some_and(|now| now.is_usable())
        });
        assert!(
            !backend.picker.is_empty() || !session.short.is_empty() || asks,
            "a session waits although no server is usable"
        );
    }

    /// A session gives up only if no server could have been reached all the while, and none has come UP early
    /// enough since the session began.
    fn must_be_hopeless(&self, session: &Session) {
        let begun = session.begun;
        let short = self.shortage || self.shortage_since >= begun;
        let attempts = self.backend().spec.retries as usize + 1;
        // Where servers have limits, one that is full is not tried. Nor is any where no retry is left.
        if short || self.backend().limited || self.backend().spec.retry_budget.is_some() {
            return;
        }
        for (index, (node, since)) in self.nodes.iter().enumerate() {
            // Of more than two servers a slow one makes room for the next.
            let in_time = if self.nodes.len() == 2 {
                ms(4_000)
            } else {
                ms(250)
            };
            let answers = matches!(node, Node::Up(latency) if *latency < in_time);
            let open = answers && *since < begun;
            let few = self.nodes.len() <= attempts;
            let offered = self.rotation[index].is_some_and(|since| since < begun);
            assert!(
                !(few && open && offered),
                "s{index} was there all the while"
            );
            let came_up = self.rotation[index].is_some_and(|since| {
                begun < since && since + in_time < self.now && self.nodes[index].1 <= since
            });
            assert!(!(answers && came_up), "s{index} has come UP meanwhile");
        }
    }
}
