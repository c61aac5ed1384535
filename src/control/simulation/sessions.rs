//! The simulator's sessions: steps 5 to 7 on the real plan, picker, suspicion and slots.

use super::{Event, Node, REFUSAL, Simulation, ms};
use crate::balance::RotationCursor;
use crate::live::slot::{BackendSlot, Slot};
use crate::state::{OperState, Server};
use crate::worker::connect_policy::{AttemptSlot, ConnectPolicy, Limits, Step};
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug)]
struct Attempt {
    server: Arc<Server>,
    number: u64,
    started: Instant,
    _slot: Slot,
}

/// One session on its way, or established.
#[derive(Debug)]
pub(super) struct Session {
    policy: ConnectPolicy,
    turn: RotationCursor,
    begun: Instant,
    attempts: [Option<Attempt>; 2],
    tried: Vec<u64>,
    short: Vec<u64>,
    /// Number of the wait that it is in; 0 once it is established.
    pub(super) wake: u64,
    _slot: BackendSlot,
}

impl Simulation {
    pub(super) fn arrive(&mut self) {
        let backend = self.backend();
        let limits = Limits {
            retries: backend.spec.retries,
            budget: backend.spec.timeout_connect,
            attempt: backend.spec.connect_attempt,
        };
        self.sessions.push(Some(Session {
            policy: ConnectPolicy::new(limits, self.now),
            turn: RotationCursor::take(&backend.live.cursor),
            begun: self.now,
            attempts: [None, None],
            tried: Vec::new(),
            short: Vec::new(),
            wake: 0,
            _slot: BackendSlot::take(&backend.live, &self.tokens[0]),
        }));
        self.step(self.sessions.len() - 1);
    }

    pub(super) fn step(&mut self, id: usize) {
        let mut session = self.sessions[id].take().expect("a session that goes on");
        loop {
            match session.policy.step(self.now) {
                Step::Start(slot) => self.start_attempt(id, &mut session, slot),
                Step::Wait(until) => {
                    self.counter += 1;
                    session.wake = self.counter;
                    self.at(until, Event::Wake(id, session.wake));
                    break;
                }
                Step::GiveUp(_) => {
                    self.must_be_hopeless(&session);
                    self.lost += 1;
                    for attempt in session.attempts.into_iter().flatten() {
                        self.blame(&attempt.server);
                    }
                    return;
                }
            }
        }
        self.sessions[id] = Some(session);
    }

    fn start_attempt(&mut self, id: usize, session: &mut Session, slot: AttemptSlot) {
        if let Some(overtaken) = session.attempts[slot as usize].take() {
            self.blame(&overtaken.server);
        }
        let backend = self.backend();
        let uid = |index: u32| backend.servers[index as usize].live.uid;
        let accepts = |index| session.policy.accepts(uid(index));
        let trusted = |i| accepts(i) && !backend.servers[i as usize].live.is_suspect();
        let picker = &backend.picker;
        let chosen = picker
            .pick(session.turn, trusted)
            .or_else(|| picker.pick(session.turn, accepts));
        let Some(index) = chosen.map(|index| index as usize) else {
            return session.policy.exhausted();
        };
        let server = Arc::clone(&backend.servers[index]);
        assert_ne!(
            server.status.oper,
            OperState::Stopped,
            "a DOWN server got a connection"
        );
        self.must_be_new(session, &server);
        let usual = server.live.usual_connect();
        session
            .policy
            .started(slot, server.live.uid, usual, self.now);
        if self.falls_short() {
            session.short.push(server.live.uid);
            return session.policy.local_error(slot, self.now);
        }
        session.tried.push(server.live.uid);
        self.counter += 1;
        let number = self.counter;
        match self.nodes[index].0 {
            Node::Up(latency) => self.at(self.now + latency, Event::Answer(id, number, true)),
            Node::Refusing => self.at(self.now + REFUSAL, Event::Answer(id, number, false)),
            Node::Dark => {}
        }
        session.attempts[slot as usize] = Some(Attempt {
            number,
            started: self.now,
            _slot: Slot::take(&server.live, &self.tokens[0]),
            server,
        });
    }

    pub(super) fn answer(&mut self, id: usize, number: u64, good: bool) {
        let Some(session) = &mut self.sessions[id] else {
            return;
        };
        let of = |attempt: &Option<Attempt>| attempt.as_ref().is_some_and(|f| f.number == number);
        let Some(slot) = [AttemptSlot::A, AttemptSlot::B]
            .into_iter()
            .find(|&slot| of(&session.attempts[slot as usize]))
        else {
            return;
        };
        let attempt = session.attempts[slot as usize].take().expect("just found");
        if !good {
            session.policy.refused(slot, self.now);
            self.blame(&attempt.server);
            return self.step(id);
        }
        let started = attempt.started;
        attempt.server.live.connect_succeeded(self.now - started);
        let other = session.attempts.iter_mut().find_map(Option::take);
        session.wake = 0;
        session.attempts[slot as usize] = Some(attempt);
        if let Some(other) = other
            && other.started < started
        {
            self.blame(&other.server);
        }
        self.served += 1;
        let stays = ms(self.random.u64(..500));
        self.at(self.now + stays, Event::Leave(id));
    }

    fn blame(&mut self, server: &Server) {
        if server.live.connect_failed()
            && let Some(at) = self.servers.get(server.live.uid)
        {
            self.checkers[at.index].wanted = true;
            self.schedule_check(at.index);
        }
    }

    /// No server is tried twice before all that were there from the beginning have been tried.
    fn must_be_new(&self, session: &Session, server: &Server) {
        if !session.tried.contains(&server.live.uid) {
            return;
        }
        let backend = self.backend();
        for (since, other) in self.rotation.iter().zip(&backend.servers) {
            let from_the_beginning = since.is_some_and(|since| since <= session.begun);
            let uid = &other.live.uid;
            assert!(
                !from_the_beginning || session.tried.contains(uid) || session.short.contains(uid),
                "{} was tried twice before {} was tried",
                server.spec.name,
                other.spec.name
            );
        }
    }

    /// A session gives up only if no server could have been reached all the while.
    fn must_be_hopeless(&self, session: &Session) {
        let begun = session.begun;
        let short = self.shortage || self.shortage_since >= begun;
        let attempts = self.backend().spec.retries as usize + 1;
        if short || self.nodes.len() > attempts {
            return;
        }
        for (index, (node, since)) in self.nodes.iter().enumerate() {
            let open = matches!(node, Node::Up(_)) && *since < begun;
            let offered = self.rotation[index].is_some_and(|since| since < begun);
            assert!(!(open && offered), "s{index} was there all the while");
        }
    }
}
