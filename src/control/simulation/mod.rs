//! A simulation of seeded faults around the real decisions: tests only.
//!
//! A discrete-event simulator with a clock of its own. Nodes stop answering, refuse, fail for a moment and come back,
//! and the machine runs out of descriptors now and then. Checks use the real schedule, status machine and batches;
//! sessions use the real connect policy, rotation, suspicion and slots. After every step the invariants are checked; a
//! failure names its seed.

mod sessions;

mod tests;

use super::batch::{Batch, Outcome};
use super::rates;
use super::server_index::ServerIndex;
use crate::balance::PickInput;
use crate::check::schedule::{Due, Grid, IntervalKind, first_start};
use crate::config::model::{self, Check};
use crate::live::{CheckReport, CheckStatus, GlobalLive, WorkerToken};
use crate::state::test_config::{backend, check, config, server};
use crate::state::{Backend, BackendId, Origin, SHARES, Server, Snapshot};
use sessions::Session;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const ID: BackendId = BackendId::first(0);
const REFUSAL: Duration = Duration::from_micros(200);
/// Faults happen until then.
const FAULTS: Duration = Duration::from_secs(20);
/// No server is held down for longer.
const HELD_MAX: Duration = Duration::from_secs(1);
/// Sessions begin until then.
const ARRIVALS: Duration = Duration::from_secs(30);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// How a node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Up(Duration),
    Refusing,
    Dark,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Node(usize, Node),
    Shortage(bool),
    /// A check is due; an event with an older number belongs to a schedule that has been replaced.
    CheckDue(usize, u64, Option<Due>),
    CheckEnd(usize, CheckStatus, Duration),
    /// Control takes its turn.
    Turn,
    /// A second of slow starts may be over.
    Second,
    Arrive,
    /// A second of the window of retries is over.
    Attempts,
    /// A session's wait is over.
    Wake(usize, u64),
    /// An attempt has been answered (`true`) or refused.
    Answer(usize, u64, bool),
    Leave(usize),
}

#[derive(Debug)]
struct Checker {
    grid: Grid,
    in_flight: bool,
    wanted: bool,
    schedule: u64,
}

/// What a seed makes of a simulation.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
struct Faults {
    nodes: bool,
    shortages: bool,
    limits: Limits,
    /// Servers have priorities, and the backend the keys about them, about fail-open and the least number.
    tiers: bool,
    /// The backend's.
    retry_budget: Option<u32>,
    /// Servers have `observe`, `on-error = "mark-down"` and `hold-down`.
    ejections: bool,
}

/// How many sessions servers may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limits {
    None,
    /// They have `maxconn`.
    Maxconn,
    /// They have `slowstart` too.
    SlowStart,
}

/// The sessions that come, and what became of them.
struct Load {
    /// Time between two of them, in microseconds.
    pace: Range<u64>,
    /// How often servers were asked.
    dials: u32,
    /// How often one was not asked because the budget of retries was used up.
    denied: u32,
    /// How long those have connected that were served.
    connect_times: Vec<Duration>,
}

impl Load {
    fn new() -> Self {
        Self {
            pace: 1_000..60_000,
            dials: 0,
            denied: 0,
            connect_times: Vec::new(),
        }
    }
}

/// The server at `index`.
fn spec(index: usize, check: &Check, limits: Limits, random: &mut fastrand::Rng) -> model::Server {
    let mut spec = server(&format!("s{index}"));
    spec.check = Some(check.clone());
    spec.weight = random.u32(1..=3);
    if limits != Limits::None {
        spec.maxconn = random.u32(1..=4);
    }
    if limits == Limits::SlowStart {
        spec.slowstart = ms(random.u64(0..5_000));
    }
    spec.backup = index > 0 && random.u32(..8) == 0;
    spec
}

/// Gives servers the keys of ejections.
fn with_ejections(backend: &mut model::Backend, random: &mut fastrand::Rng) {
    for server in &mut backend.servers {
        server.observe = true;
        server.error_limit = random.u32(2..=6);
        server.on_error = model::OnError::MarkDown;
        server.hold_down = Some(Arc::new(model::HoldDown {
            base: ms(random.u64(50..500)),
            max: HELD_MAX,
            window: ms(random.u64(1_000..5_000)),
        }));
    }
    backend.max_ejected = random.u32(0..=100);
}

/// Gives the backend and its servers the keys of tiers.
fn with_tiers(backend: &mut model::Backend, random: &mut fastrand::Rng) {
    for server in backend.servers.iter_mut().filter(|server| !server.backup) {
        server.priority = random.u8(..3);
    }
    backend.allbackups = random.bool();
    backend.spill_below = random.u32(..=100);
    backend.fail_open_below = random.u32(..4) * 25;
    backend.min_servers = random.u32(1..=2);
}

/// Gives the backend the keys that `faults` asks for.
fn with_keys(backend: &mut model::Backend, faults: Faults, random: &mut fastrand::Rng) {
    if faults.limits != Limits::None {
        backend.timeout_queue = ms(random.u64(50..3_000));
    }
    backend.retry_budget = faults.retry_budget;
    if faults.ejections {
        with_ejections(backend, random);
    }
    if faults.tiers {
        with_tiers(backend, random);
    }
}

struct Simulation {
    random: fastrand::Rng,
    start: Instant,
    now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    counter: u64,
    snapshot: Arc<Snapshot>,
    servers: ServerIndex,
    tokens: [WorkerToken; 2],
    check: Check,
    nodes: Vec<(Node, Instant)>,
    /// Since when each server is in the rotation.
    rotation: Vec<Option<Instant>>,
    checkers: Vec<Checker>,
    inbox: Vec<(u64, CheckReport)>,
    /// Errors in a row that sessions have seen.
    observed: Vec<(u64, u32)>,
    sessions: Vec<Option<Session>>,
    shortage: bool,
    shortage_since: Instant,
    /// Sessions that may wait in a queue.
    queued: BTreeSet<usize>,
    load: Load,
    served: u32,
    lost: u32,
    /// Sessions that have waited in a queue, and those that have for too long.
    waited: u32,
    late: u32,
    /// Seconds of slow starts.
    slowed: u32,
    refused_here: u32,
    /// Turns of control in which the backend has failed open, or had too few servers.
    failed_open: u32,
    too_few: u32,
    /// In how many of them servers were out because of errors that sessions have seen.
    ejected: u32,
}

impl Simulation {
    fn new(seed: u64, faults: Faults) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = random.usize(2..=5);
        let interval = ms(random.u64(200..1_500));
        let check = Check {
            interval,
            fast_interval: interval / random.u32(1..=2),
            down_interval: interval,
            rise: random.u32(1..=3),
            fall: random.u32(1..=3),
            timeout: interval.min(ms(1_000)),
            ..check()
        };
        let servers = (0..count).map(|index| spec(index, &check, faults.limits, &mut random));
        let mut backend = backend("b", servers.collect());
        backend.retries = random.u32(1..=5);
        with_keys(&mut backend, faults, &mut random);
        let config = config(vec![backend]);
        let start = Instant::now();
        let origin = Origin {
            global: Arc::new(GlobalLive::new(start, 2)),
            maxconn: 1_000_000,
            shards: 2,
            now: start,
        };
        let snapshot = Arc::new(Snapshot::initial(&config, &origin));
        snapshot.begin_queues();
        let total = u32::try_from(count).unwrap();
        let mut simulation = Self {
            start,
            now: start,
            events: BTreeMap::new(),
            counter: 0,
            servers: ServerIndex::of(&snapshot, &CancellationToken::new()),
            snapshot,
            tokens: [WorkerToken::new(0), WorkerToken::new(1)],
            check,
            nodes: vec![(Node::Up(ms(1)), start); count],
            rotation: vec![None; count],
            checkers: (0..total)
                .map(|index| Checker {
                    grid: Grid::new(start, start + first_start(index, total), random.u64(..)),
                    in_flight: false,
                    wanted: false,
                    schedule: 0,
                })
                .collect(),
            inbox: Vec::new(),
            observed: Vec::new(),
            sessions: Vec::new(),
            shortage: false,
            shortage_since: start,
            queued: BTreeSet::new(),
            load: Load::new(),
            served: 0,
            lost: 0,
            waited: 0,
            late: 0,
            slowed: 0,
            refused_here: 0,
            failed_open: 0,
            too_few: 0,
            ejected: 0,
            random,
        };
        simulation.plan_events(faults);
        simulation
    }

    fn plan_events(&mut self, faults: Faults) {
        let horizon = u64::try_from(FAULTS.as_millis()).unwrap();
        let end = self.start + FAULTS;
        for index in 0..self.nodes.len() {
            self.schedule_check(index);
            for _ in 0..if faults.nodes { 8 } else { 0 } {
                let at = self.start + ms(self.random.u64(..horizon));
                let node = match self.random.u32(..5) {
                    0 => Node::Dark,
                    1 => Node::Refusing,
                    2 => Node::Up(ms(self.random.u64(200..2_000))),
                    _ => Node::Up(ms(self.random.u64(..20))),
                };
                self.at(at, Event::Node(index, node));
                if self.random.bool() {
                    let back = at + ms(self.random.u64(1..300));
                    self.at(back.min(end), Event::Node(index, Node::Up(ms(1))));
                }
            }
            self.at(end, Event::Node(index, Node::Up(ms(1))));
        }
        for _ in 0..if faults.shortages { 6 } else { 0 } {
            let at = self.start + ms(self.random.u64(..horizon));
            self.at(at, Event::Shortage(true));
            let over = at + ms(self.random.u64(1..800));
            self.at(over.min(end), Event::Shortage(false));
        }
        self.at(end, Event::Shortage(false));
        self.at(self.start, Event::Arrive);
        if faults.limits == Limits::SlowStart {
            self.at(self.start + ms(1_000), Event::Second);
        }
        if faults.retry_budget.is_some() {
            self.at(self.start + ms(1_000), Event::Attempts);
        }
        self.note_rotation();
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.counter += 1;
        self.events.insert((at, self.counter), event);
    }

    fn backend(&self) -> Arc<Backend> {
        Arc::clone(self.snapshot.backend(ID).unwrap())
    }

    /// Runs until `end`.
    fn run(&mut self, end: Instant) {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= end
        {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.happen(event);
            self.serve_granted();
            self.must_use_every_slot();
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Node(index, node) => {
                if self.nodes[index].0 != node {
                    self.nodes[index] = (node, self.now);
                }
            }
            Event::Shortage(on) => {
                self.shortage = on;
                self.shortage_since = self.now;
            }
            Event::CheckDue(index, schedule, due) => self.check_due(index, schedule, due),
            Event::CheckEnd(index, status, took) => self.check_end(index, status, took),
            Event::Turn => self.turn(),
            Event::Second => self.second(),
            Event::Arrive => {
                self.arrive();
                let next =
                    self.now + Duration::from_micros(self.random.u64(self.load.pace.clone()));
                if next < self.start + ARRIVALS {
                    self.at(next, Event::Arrive);
                }
            }
            Event::Attempts => {
                let second = self.now.duration_since(self.start).as_secs();
                rates::note_attempts(&self.snapshot, second);
                self.at(self.now + ms(1_000), Event::Attempts);
            }
            Event::Wake(session, wake) => {
                let due = self.sessions[session].as_ref().map(|session| session.wake);
                if due == Some(wake) {
                    self.step(session);
                }
            }
            Event::Answer(session, number, good) => self.answer(session, number, good),
            Event::Leave(session) => self.sessions[session] = None,
        }
    }

    // Checks, as the check task runs them.

    fn schedule_check(&mut self, index: usize) {
        let server = Arc::clone(&self.backend().servers[index]);
        let checker = &mut self.checkers[index];
        if checker.in_flight {
            return;
        }
        checker.schedule += 1;
        let schedule = checker.schedule;
        let interval_kind = IntervalKind::of(&server.status, server.rules());
        let interval = interval_kind
            .interval(&self.check)
            .expect("no maintenance here");
        let due = checker.grid.due(interval, self.now);
        let (at, due) = if checker.wanted {
            (self.now, None)
        } else {
            (due.at, Some(due))
        };
        self.at(at, Event::CheckDue(index, schedule, due));
    }

    fn check_due(&mut self, index: usize, schedule: u64, due: Option<Due>) {
        let checker = &mut self.checkers[index];
        if checker.schedule != schedule {
            return;
        }
        assert!(!checker.in_flight, "two checks of one server at once");
        checker.wanted = false;
        if let Some(due) = due {
            checker.grid.start(due);
        }
        if self.falls_short() {
            return self.schedule_check(index);
        }
        self.checkers[index].in_flight = true;
        let (took, status) = match self.nodes[index].0 {
            Node::Up(latency) if latency < self.check.timeout => (latency, CheckStatus::L4Ok),
            Node::Refusing => (REFUSAL, CheckStatus::L4Con),
            _ => (self.check.timeout, CheckStatus::L4Timeout),
        };
        self.at(self.now + took, Event::CheckEnd(index, status, took));
    }

    fn check_end(&mut self, index: usize, status: CheckStatus, took: Duration) {
        let checker = &mut self.checkers[index];
        checker.in_flight = false;
        checker.wanted &= status == CheckStatus::L4Ok;
        let report = CheckReport {
            status,
            duration: Some(took),
            ..CheckReport::default()
        };
        let live = Arc::clone(&self.backend().servers[index].live);
        let handle = self
            .servers
            .check_handle(live.uid)
            .expect("every server is checked");
        if status != CheckStatus::L4Ok || !handle.passed_again(&live, took) {
            handle.verdict_sent();
            self.inbox.push((live.uid, report));
            let delay = Duration::from_micros(self.random.u64(..2_000));
            self.at(self.now + delay, Event::Turn);
        }
        self.schedule_check(index);
    }

    fn turn(&mut self) {
        let base = Arc::clone(&self.snapshot);
        let mut batch = Batch::new(base, &self.servers, &self.tokens[1], self.now);
        for (uid, report) in self.inbox.drain(..) {
            batch.checked(uid, &report);
        }
        for (uid, errors) in self.observed.drain(..) {
            batch.observed(uid, errors);
        }
        let (snapshot, outcome) = batch.finish();
        self.follow(snapshot, &outcome);
    }

    fn second(&mut self) {
        let base = Arc::clone(&self.snapshot);
        let mut batch = Batch::new(base, &self.servers, &self.tokens[1], self.now);
        for server in &self.backend().servers {
            let shares = server.status.shares(server.rules());
            self.slowed += u32::from(shares < SHARES);
            batch.warm_up(server.live.uid);
        }
        let (snapshot, outcome) = batch.finish();
        self.follow(snapshot, &outcome);
        self.at(self.now + ms(1_000), Event::Second);
    }

    fn follow(&mut self, snapshot: Option<Snapshot>, outcome: &Outcome) {
        if let Some(snapshot) = snapshot {
            let base = std::mem::replace(&mut self.snapshot, Arc::new(snapshot));
            self.snapshot.update_queues(&base);
            self.serve_granted();
            self.note_rotation();
            let backend = self.backend();
            self.failed_open += u32::from(backend.status.fail_open);
            self.too_few += u32::from(!backend.status.up && !backend.usable().is_empty());
            let ejected = backend.servers.iter().filter(|it| it.status.ejected);
            self.ejected += u32::try_from(ejected.count()).unwrap_or(0);
            for index in 0..self.nodes.len() {
                self.schedule_check(index);
            }
            if !outcome.backends_changed.is_empty() {
                self.tell_servers_changed();
            }
        }
    }

    fn note_rotation(&mut self) {
        let backend = self.backend();
        let mut now_in = vec![false; backend.servers.len()];
        let turn = &PickInput::take(&Arc::default());
        backend.picker.pick(
            turn,
            |_| 0,
            |index| {
                now_in[index as usize] = true;
                false
            },
        );
        for (since, is_in) in self.rotation.iter_mut().zip(now_in) {
            *since = is_in.then(|| since.unwrap_or(self.now));
        }
    }

    /// Whether opening a socket fails on this machine now. That must not count against the server.
    fn falls_short(&mut self) -> bool {
        let short = self.shortage && self.random.u32(..4) > 0;
        self.refused_here += u32::from(short);
        short
    }
}
