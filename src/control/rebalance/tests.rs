//! Rebalancing without workers: a second is a call, and the tests end the sessions and have their clients come back.

use super::pace::Step;
use super::plan::{Target, is_within, movable, parts, targets};
use super::*;
use crate::config::model::{self, Balance, Config};
use crate::control::tests::Fixture;
use crate::live::queue::Slot;
use crate::live::{Shards, Traffic};
use crate::state::test_config::{backend, config, frontend, server};
use crate::state::{AdminRequest, CarryOver, Forced, Interface, RuntimeChange, ToControl};
use proptest::prelude::*;
use std::time::Instant;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

fn load(sessions: u32, weight: u32) -> Load {
    Load {
        sessions,
        weight: 16 * weight,
        most: u32::MAX,
    }
}

fn whole(targets: &[Target]) -> Vec<(u32, u32)> {
    targets.iter().map(|it| (it.least, it.most)).collect()
}

#[test]
fn shares_follow_the_weights_and_the_limits() {
    let even = [load(0, 1), load(0, 1), load(0, 1)];
    assert_eq!(whole(&targets(&even, 300)), [(100, 100); 3]);
    assert_eq!(whole(&targets(&even, 10)), [(3, 4); 3]);
    let weighted = [load(0, 1), load(0, 3), load(0, 0)];
    assert_eq!(
        whole(&targets(&weighted, 100)),
        [(25, 25), (75, 75), (0, 0)]
    );
    // What one may not have goes to the others, by their weights.
    let mut limited = [load(0, 1), load(0, 2), load(0, 3)];
    limited[2].most = 30;
    assert_eq!(
        whole(&targets(&limited, 120)),
        [(30, 30), (60, 60), (30, 30)]
    );
    for one in &mut limited {
        one.most = 10;
    }
    assert_eq!(
        whole(&targets(&limited, 120)),
        [(10, 10); 3],
        "all are full"
    );
    assert_eq!(
        whole(&targets(&[load(7, 0)], 7)),
        [(0, 0)],
        "none takes any"
    );
    assert_eq!(targets(&[], 7), []);
}

#[test]
fn no_more_may_end_than_others_lack() {
    let of = |loads: &[Load]| {
        let total = loads.iter().map(|it| u64::from(it.sessions)).sum();
        movable(loads, &targets(loads, total))
    };
    assert_eq!(of(&[load(150, 1), load(150, 1), load(0, 1)]), [50, 50, 0]);
    assert_eq!(of(&[load(4, 1), load(3, 1), load(3, 1)]), [0, 0, 0]);
    assert_eq!(of(&[load(2, 1), load(0, 1)]), [1, 0]);
    assert_eq!(of(&[load(30, 1)]), [0], "no other");
    assert_eq!(of(&[load(0, 1), load(8, 0)]), [0, 8], "of another tier");
    // The other one is full, or has room for ten more.
    let mut full = [load(90, 1), load(10, 1)];
    full[1].most = 10;
    assert_eq!(of(&full), [0, 0]);
    full[1].most = 20;
    assert_eq!(of(&full), [10, 0]);
    // Its limit was lowered: nobody takes what is too much.
    let mut lowered = [load(90, 1), load(10, 1)];
    (lowered[0].most, lowered[1].most) = (50, 10);
    assert_eq!(of(&lowered), [0, 0]);
}

#[test]
fn what_is_too_much_for_a_second_is_taken_from_all_alike() {
    assert_eq!(parts(&[60, 30, 10], 10), [6, 3, 1]);
    assert_eq!(parts(&[60, 30, 10], 1), [1, 0, 0]);
    assert_eq!(parts(&[5, 5], 3), [2, 1]);
    assert_eq!(parts(&[5, 0, 2], 7), [5, 0, 2]);
    assert_eq!(parts(&[u32::MAX, u32::MAX], 3).iter().sum::<u32>(), 3);
    assert_eq!(parts(&[0, 0], 3), [0, 0]);
}

proptest! {
    /// Whatever the servers have: none that gives has less than its share afterwards, none gets more than its share or its
    /// limit, and no part is more than it was.
    #[test]
    fn plans_are_kept_within_shares_and_limits(
        servers in prop::collection::vec((0u32..500, 0u32..5, 0u32..600), 0..8),
        most in 0u64..400,
    ) {
        let loads: Vec<Load> = servers
            .iter()
            .map(|(sessions, weight, most)| Load { most: *most, ..load(*sessions, *weight) })
            .collect();
        let total: u64 = loads.iter().map(|it| u64::from(it.sessions)).sum();
        let targets = targets(&loads, total);
        let shared: u64 = targets.iter().map(|it| u64::from(it.least)).sum();
        prop_assert!(shared <= total);
        let movable = movable(&loads, &targets);
        let lacking: u64 = loads.iter().zip(&targets).map(|(load, target)| u64::from(plan::lacks(load, *target))).sum();
        let sum = |parts: &[u32]| parts.iter().map(|it| u64::from(*it)).sum::<u64>();
        prop_assert!(sum(&movable) <= lacking);
        for ((load, target), ends) in loads.iter().zip(&targets).zip(&movable) {
            prop_assert!(target.most <= load.most);
            prop_assert!(*ends == 0 || load.sessions - ends >= target.most);
        }
        let parts = parts(&movable, most);
        prop_assert_eq!(sum(&parts), most.min(sum(&movable)));
        for (part, all) in parts.iter().zip(&movable) {
            prop_assert!(part <= all);
        }
    }

    /// The clients come back late, sessions are quiet now and then, servers have weights and limits: in no minute more end
    /// than may, no server is left with less than its share, and in the end all have theirs.
    #[test]
    fn seeds_converge_within_the_budget(seed: u64) {
        let mut clients = Clients::new(seed);
        let percent = clients.random.u32(1..=100);
        let most = |total: u64| (u64::from(percent) * total / 100).max(1);
        let total = clients.total();
        let mut pace = Pace::default();
        let mut ended = Vec::new();
        // One in a minute of up to 200 sessions takes hours.
        for _ in 0..30_000 {
            ended.push(u64::from(clients.second(&mut pace, percent)));
            let minute = &ended[ended.len().saturating_sub(60)..];
            prop_assert!(minute.iter().sum::<u64>() <= most(total), "{:?}", minute);
            if pace.is_idle() && ended.len() > 200 && clients.coming.is_empty() {
                break;
            }
        }
        prop_assert!(pace.is_idle(), "it never ends");
        let loads = &clients.loads;
        let targets = targets(loads, total);
        let helps = movable(loads, &targets).iter().any(|it| *it > 0);
        prop_assert!(!helps || is_within(loads, &targets, 20), "{:?} of {:?}", loads, targets);
    }
}

/// The clients of a backend that chooses by `leastconn`.
struct Clients {
    random: fastrand::Rng,
    loads: Vec<Load>,
    /// How many seconds it takes until those come back whose sessions have ended.
    coming: Vec<u32>,
    /// Most such seconds.
    late: u32,
    /// How many of a hundred sessions that may end are quiet.
    quiet: u32,
}

impl Clients {
    fn of(loads: Vec<Load>) -> Self {
        Self {
            random: fastrand::Rng::with_seed(7),
            loads,
            coming: Vec::new(),
            late: 2,
            quiet: 100,
        }
    }

    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut server = |_| {
            let mut load = load(random.u32(..200), random.u32(..4));
            if random.u32(..4) == 0 {
                load.most = load.sessions + random.u32(..50);
            }
            load
        };
        let loads = (0..5).map(&mut server).collect();
        Self {
            late: random.u32(1..40),
            quiet: random.u32(30..=100),
            random,
            ..Self::of(loads)
        }
    }

    fn total(&self) -> u64 {
        let sessions = self.loads.iter().map(|it| u64::from(it.sessions));
        sessions.sum::<u64>() + self.coming.len() as u64
    }

    fn come_back(&mut self) {
        for seconds in std::mem::take(&mut self.coming) {
            let open = |load: &&mut Load| load.weight > 0 && load.sessions < load.most;
            let part = |load: &Load| u64::from(load.sessions + 1) * 10_000 / u64::from(load.weight);
            let servers = self.loads.iter_mut().filter(open);
            let least = servers.min_by_key(|load| part(load));
            match least.filter(|_| seconds == 0) {
                Some(load) => load.sessions += 1,
                None => self.coming.push(seconds.saturating_sub(1)),
            }
        }
    }

    /// How many sessions end in the next second.
    fn second(&mut self, pace: &mut Pace, percent: u32) -> u32 {
        self.come_back();
        let Step { parts, .. } = pace.second(&self.loads, percent, false);
        self.end(pace, &parts)
    }

    fn end(&mut self, pace: &mut Pace, parts: &[u32]) -> u32 {
        let total = self.loads.iter().map(|it| u64::from(it.sessions)).sum();
        let least = targets(&self.loads, total);
        let mut sum = 0;
        for (at, part) in parts.iter().enumerate().filter(|(_, part)| **part > 0) {
            assert!(
                self.loads[at].sessions - part >= least[at].most,
                "less than its share"
            );
            let quiet = (0..*part).filter(|_| self.random.u32(..100) < self.quiet);
            let ended = u32::try_from(quiet.count()).unwrap();
            pace.ended(*part, ended);
            self.loads[at].sessions -= ended;
            for _ in 0..ended {
                self.coming.push(self.random.u32(..self.late));
            }
            sum += ended;
        }
        sum
    }

    fn sessions(&self) -> Vec<u32> {
        self.loads.iter().map(|it| it.sessions).collect()
    }
}

/// A tenth of 300 sessions a minute, one every other second: from the fifth second on until the third server has 90.
#[test]
fn a_server_that_returns_gets_its_share() {
    let mut clients = Clients::of(vec![load(150, 1), load(150, 1), load(0, 1)]);
    let mut pace = Pace::default();
    let ended: Vec<u32> = (0..400).map(|_| clients.second(&mut pace, 10)).collect();
    assert_eq!(ended[..4], [0; 4]);
    assert!(ended.iter().all(|it| *it <= 1), "spread over the minute");
    let minute = ended.windows(60).map(|it| it.iter().sum::<u32>()).max();
    assert_eq!(minute, Some(30));
    let sum: u32 = ended.iter().sum();
    assert!((90..=94).contains(&sum), "{sum}");
    let last = ended.iter().rposition(|it| *it > 0).unwrap();
    assert!((180..=200).contains(&last), "{last}");
    let sessions = clients.sessions();
    assert_eq!(sessions.iter().sum::<u32>(), 300);
    assert!(
        sessions[2] >= 90 && sessions[0] <= 110 && sessions[1] <= 110,
        "{sessions:?}"
    );
    assert!(pace.is_idle());
}

/// Until clients are back their sessions seem to be gone, and the others' shares smaller.
#[test]
fn clients_that_come_back_late_have_no_more_sessions_ended() {
    let mut clients = Clients::of(vec![load(150, 1), load(150, 1), load(0, 1)]);
    clients.late = 50;
    let mut pace = Pace::default();
    let ended: u32 = (0..300).map(|_| clients.second(&mut pace, 100)).sum();
    // Whoever comes back goes to the third.
    assert!((90..=100).contains(&ended), "{ended}");
}

/// Half a session a minute is one in two minutes.
#[test]
fn a_share_of_less_than_one_session_adds_up() {
    let mut clients = Clients::of(vec![load(5, 1), load(0, 1)]);
    let mut pace = Pace::default();
    let ended: Vec<u32> = (0..400).map(|_| clients.second(&mut pace, 10)).collect();
    let at: Vec<usize> = (0..400).filter(|at| ended[*at] > 0).collect();
    assert_eq!(at, [123, 243]);
    assert_eq!(clients.sessions(), [3, 2]);
}

/// Sessions that are not quiet are asked for again, and what was not ended may end later, but not at once.
#[test]
fn busy_sessions_are_waited_for() {
    let mut clients = Clients::of(vec![load(100, 1), load(0, 1)]);
    clients.quiet = 0;
    let mut pace = Pace::default();
    for _ in 0..100 {
        assert_eq!(clients.second(&mut pace, 60), 0);
    }
    clients.quiet = 100;
    let ended: Vec<u32> = (0..60).map(|_| clients.second(&mut pace, 60)).collect();
    assert_eq!(ended[..3], [2, 1, 1]);
    let sum: u32 = ended.iter().sum();
    assert!(sum <= 60 && clients.sessions()[1] >= 45, "{sum}");
}

/// What chance does is left alone, and what is mended is mended well.
#[test]
fn it_begins_beyond_a_fifth_and_ends_within_a_tenth() {
    let turns = |loads: &[Load], is_growing: bool| {
        let mut pace = Pace::default();
        let seconds = (0..20).filter_map(|_| pace.second(loads, 10, is_growing).turn);
        seconds.collect::<Vec<_>>()
    };
    assert_eq!(turns(&[load(119, 1), load(81, 1)], false), []);
    let begins = Turn::Begins {
        server: 1,
        share: 100,
        total: 200,
    };
    assert_eq!(turns(&[load(121, 1), load(79, 1)], false), [begins]);
    let mut pace = Pace::default();
    let mut turn = |one, other, is_growing| {
        let loads = [load(one, 1), load(other, 1)];
        let seconds = (0..6).filter_map(|_| pace.second(&loads, 10, is_growing).turn);
        seconds.last()
    };
    assert_eq!(turn(121, 79, false), Some(begins));
    assert_eq!(turn(111, 89, false), None);
    assert_eq!(turn(110, 90, true), None, "a slow start goes on");
    let even = Turn::Ends {
        sessions: 0,
        even: true,
    };
    assert_eq!(turn(110, 90, false), Some(even));
    assert_eq!(turn(119, 81, false), None);
    assert_eq!(turn(121, 79, false), Some(begins));
    let mut ends = pace.second(&[load(121, 1)], 10, false).turn;
    assert_eq!(ends, Some(even), "the other one is gone");
    for _ in 0..6 {
        ends = pace.second(&[load(121, 1), load(79, 1)], 10, false).turn;
    }
    assert_eq!(ends, None);
    let ends = pace.second(&[], 0, false).turn;
    let off = Turn::Ends {
        sessions: 0,
        even: false,
    };
    assert_eq!(ends, Some(off));
}

// With control.

fn unchecked(name: &str) -> model::Server {
    model::Server {
        check: None,
        ..server(name)
    }
}

/// Two servers whose sessions may all be ended in a minute, or so many percent.
fn two(percent: u32) -> Config {
    let mut backend = backend("b", vec![unchecked("s1"), unchecked("s2")]);
    backend.rebalance = percent;
    backend.balance = Balance::LeastConn;
    let mut config = config(vec![backend]);
    config.frontends = vec![frontend("f", 1)];
    config
}

/// A control task whose seconds are called, and the sessions that its backend's servers have.
struct Service {
    fixture: Fixture,
    control: Control,
    slots: Vec<Vec<Slot>>,
    token: WorkerToken,
}

impl Service {
    fn new(config: &Config, sessions: &[usize]) -> Self {
        let mut fixture = Fixture::new(config);
        let control = fixture.control.take().unwrap();
        let mut service = Self {
            fixture,
            control,
            slots: sessions.iter().map(|_| Vec::new()).collect(),
            token: WorkerToken::new(0),
        };
        for (at, sessions) in sessions.iter().enumerate() {
            for _ in 0..*sessions {
                service.begin(at);
            }
        }
        service
    }

    fn begin(&mut self, at: usize) {
        let live = Arc::clone(&self.fixture.server(at).live);
        self.slots[at].push(Slot::take(&live, &self.token));
    }

    fn surplus(&mut self) -> Option<Arc<Surplus>> {
        match self.fixture.orders[0].try_recv().ok()? {
            Order::EndSurplus(surplus) => Some(surplus),
            other => panic!("{other:?}"),
        }
    }

    /// The next second. Clients come back at once, to the server with the fewest sessions.
    async fn second(&mut self) -> usize {
        self.control.rebalance().await;
        let Some(surplus) = self.surplus() else {
            return 0;
        };
        let mut ended = 0;
        for at in 0..self.slots.len() {
            let uid = self.fixture.server(at).live.uid;
            while surplus.claim(uid) {
                self.slots[at].pop();
                ended += 1;
            }
        }
        for _ in 0..ended {
            let least = (0..self.slots.len()).min_by_key(|at| self.slots[*at].len());
            self.begin(least.unwrap());
        }
        ended
    }

    async fn seconds(&mut self, count: usize) -> usize {
        let mut ended = 0;
        for _ in 0..count {
            ended += self.second().await;
        }
        ended
    }

    /// A reload, after which this many percent may end in a minute.
    fn reload(&mut self, percent: u32) {
        let before = self.fixture.snapshot.load_full();
        let carry = CarryOver {
            maxconn: 100,
            shards: 2,
            addresses: &HashMap::new(),
            now: Instant::now(),
        };
        let next = before.next_snapshot(&two(percent), &carry);
        self.fixture.snapshot.store(Arc::new(next));
    }

    async fn tell(&mut self, message: ToControl) {
        let local = LocalSet::new();
        local.run_until(self.control.turn(&mut vec![message])).await;
        while self.fixture.orders[0].try_recv().is_ok() {}
    }

    fn counted(&self) -> [u64; 3] {
        let backend = self.fixture.backend();
        let of = |live: &Shards<Traffic>| live.sum(|it| &it.rebalanced);
        let servers = [0, 1].map(|at| of(&backend.servers[at].live.traffic));
        [of(&backend.live.traffic), servers[0], servers[1]]
    }
}

/// What it ends is counted on the server and its backend, and two lines tell of it.
#[tokio::test]
async fn it_is_counted_and_logged() {
    let mut service = Service::new(&two(100), &[60, 0]);
    let ended = service.seconds(60).await;
    assert_eq!(ended, 27);
    assert_eq!(service.slots[1].len(), 27);
    assert_eq!(service.counted(), [27, 27, 0]);
    let lines: Vec<String> = service
        .fixture
        .logged()
        .into_iter()
        .map(|it| it.1)
        .collect();
    assert_eq!(
        lines,
        [
            "backend b rebalances: server s2 has 0 sessions, its share of 60 is 30. Up to 100 % end in a minute.",
            "backend b has rebalanced: 27 sessions ended, all shares are within 10 %.",
        ]
    );
}

#[tokio::test]
async fn it_is_off_unless_it_is_set() {
    let mut service = Service::new(&two(0), &[60, 0]);
    assert_eq!(service.seconds(20).await, 0);
    assert!(service.control.rebalances.backends.is_empty());
    service.reload(100);
    assert!(service.seconds(20).await > 0);
}

/// A session that would not come back, or not to another server, goes on.
#[tokio::test]
async fn nothing_is_ended_that_would_not_come_back() {
    let nobody_listens = |config: &mut Config| config.frontends[0].disabled = true;
    let no_frontend = |config: &mut Config| config.frontends.clear();
    let fails_open = |config: &mut Config| config.backends[0].fail_open_below = 100;
    let full = |config: &mut Config| {
        let limited = |it: &mut model::Server| it.maxconn = 1;
        config.backends[0].servers.iter_mut().for_each(limited);
    };
    let gone = |config: &mut Config| config.backends[0].servers[1].disabled = true;
    let weightless = |config: &mut Config| config.backends[0].servers[1].weight = 0;
    let changes: [&dyn Fn(&mut Config); 6] = [
        &nobody_listens,
        &no_frontend,
        &fails_open,
        &full,
        &gone,
        &weightless,
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut config = two(100);
        change(&mut config);
        let mut service = Service::new(&config, &[60, 1]);
        if service.fixture.backend().spec.fail_open_below > 0 {
            let (done, _answer) = oneshot::channel();
            let server = service.fixture.server(1).live.uid;
            let change = RuntimeChange::Health(server, Forced::Down, Interface::Cli);
            let message = ToControl::Change { change, done };
            service.tell(message).await;
            assert!(service.fixture.backend().status.fail_open);
            service.fixture.logged();
        }
        assert_eq!(service.seconds(30).await, 0, "{number}");
        assert!(service.fixture.logged().is_empty(), "{number}");
    }
}

/// The sessions that were ended in the last minute are known after a reload that switches it off, and one that switches it
/// on again.
#[tokio::test]
async fn a_reload_does_not_renew_the_budget() {
    let mut service = Service::new(&two(10), &[200, 0]);
    let mut ended = Vec::new();
    for second in 0..120 {
        match second % 20 {
            10 => service.reload(0),
            12 => service.reload(10),
            _ => {}
        }
        ended.push(service.second().await);
    }
    let minute = ended.windows(60).map(|it| it.iter().sum::<usize>()).max();
    assert!(minute > Some(2) && minute <= Some(20), "{minute:?}");
    service.reload(0);
    service.seconds(1).await;
    assert_eq!(service.control.rebalances.backends.len(), 1);
    service.seconds(70).await;
    assert!(service.control.rebalances.backends.is_empty());
    let lines = service.fixture.logged();
    let text = "backend b rebalances no longer: ";
    assert!(
        lines.iter().any(|(_, line)| line.starts_with(text)),
        "{lines:?}"
    );
}

/// What was told to the workers ends at once when the process stops, or hands over.
#[tokio::test]
async fn a_process_that_leaves_ends_nothing() {
    for message in [|| ToControl::Stopping, || ToControl::HandedOver] {
        let mut service = Service::new(&two(100), &[60, 0]);
        let mut surplus = None;
        for _ in 0..8 {
            service.control.rebalance().await;
            surplus = service.surplus().or(surplus);
        }
        let surplus = surplus.expect("it has begun");
        let uid = service.fixture.server(0).live.uid;
        assert!(surplus.claim(uid));
        service.reload(50);
        service.tell(message()).await;
        assert!(!surplus.claim(uid));
        assert_eq!(service.counted(), [1, 1, 0], "what has ended counts");
        assert_eq!(service.seconds(20).await, 0);
    }
}

/// Tiers, backups, drained servers: those of a tier that is not in use and backups are to have none, and one that an
/// operator drains keeps its own.
#[tokio::test]
async fn which_servers_have_shares() {
    let mut servers: Vec<model::Server> = ["a", "b", "c", "d", "e", "f"].map(unchecked).into();
    servers[1].weight = 3;
    servers[2].priority = 1;
    servers[3].backup = true;
    servers[4].disabled = true;
    servers[0].maxconn = 40;
    let mut backend = backend("b", servers);
    backend.rebalance = 10;
    let mut service = Service::new(&config(vec![backend]), &[1, 2, 3, 4, 5, 6]);
    let (done, _answer) = oneshot::channel();
    let message = ToControl::SetAdmin {
        server: service.fixture.server(5).live.uid,
        to: AdminRequest::Drain,
        done,
    };
    service.tell(message).await;
    let shares = |service: &Service| {
        let backend = service.fixture.backend();
        let shared = shared(&backend);
        let share = |(server, load): &(&Arc<Server>, Load)| {
            (
                server.spec.name.to_string(),
                load.sessions,
                load.weight,
                load.most,
            )
        };
        shared.iter().map(share).collect::<Vec<_>>()
    };
    let share = |name: &str, sessions, weight, most| (name.to_owned(), sessions, weight, most);
    let mut expected = vec![
        share("a", 1, 16, 40),
        share("b", 2, 48, u32::MAX),
        share("c", 3, 0, u32::MAX),
        share("d", 4, 0, u32::MAX),
    ];
    assert_eq!(shares(&service), expected);
    // One that is suspected is asked last.
    let suspect = Arc::clone(&service.fixture.server(1).live);
    while !suspect.connect_failed() {}
    expected.remove(1);
    assert_eq!(shares(&service), expected);
}
