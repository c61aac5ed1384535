//! Control with real checks against real listeners on loopback, and what the outside sees of it.

use super::*;
use crate::balance::Picker;
use crate::config::model::{
    Balance, Check, Config, OnError, Server as Spec, ServerAddress, ServerPort,
};
use crate::live::log_queue::LogEntry;
use crate::live::{CheckReport, CheckStatus, Counter, GlobalLive, Traffic};
use crate::state::test_config::{backend, check, config, frontend, server, server_at};
use crate::state::{
    AdminRequest, AdminState, Backend, BackendId, OperState, Origin, Server, SnapshotBuilder,
};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use tokio::task::LocalSet;

const DEADLINE: Duration = Duration::from_secs(10);

/// Everything around a control task.
pub(super) struct Fixture {
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    handle: ControlHandle,
    log: std::sync::mpsc::Receiver<LogEntry>,
    pub(super) orders: Vec<mpsc::Receiver<Order>>,
    stop: CancellationToken,
    pub(super) control: Option<Control>,
}

impl Fixture {
    pub(super) fn new(config: &Config) -> Self {
        let now = Instant::now();
        let global = Arc::new(GlobalLive::new(now, 2));
        let origin = Origin {
            global: Arc::clone(&global),
            maxconn: 100,
            shards: 2,
            now,
        };
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::initial(config, &origin)));
        let (handle, inbox) = ControlHandle::new();
        let (queue, log) = LogQueue::new(global);
        let (workers, orders) = Workers::new(1);
        let control = Control::new(Parts {
            snapshot: Arc::clone(&snapshot),
            handle: handle.clone(),
            inbox,
            log: queue,
            workers,
            token: Rc::new(WorkerToken::new(1)),
            reserve: Arc::new(DescriptorReserve::new().unwrap()),
        });
        Self {
            snapshot,
            handle,
            log,
            orders,
            stop: CancellationToken::new(),
            control: Some(control),
        }
    }

    /// Starts the control task on the local set that this is called in.
    fn start(&mut self) {
        let control = self.control.take().unwrap();
        tokio::task::spawn_local(control.run(self.stop.clone()));
    }

    pub(super) fn backend(&self) -> Arc<Backend> {
        Arc::clone(self.snapshot.load().backend(BackendId::first(0)).unwrap())
    }

    pub(super) fn server(&self, index: usize) -> Arc<Server> {
        Arc::clone(&self.backend().servers[index])
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            let labels: Vec<_> = self
                .backend()
                .servers
                .iter()
                .map(|s| s.status_label().into_owned())
                .collect();
            assert!(Instant::now() < deadline, "never: {what}; {labels:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn until_label(&self, index: usize, label: &str) {
        self.until(label, |fixture| {
            fixture.server(index).status_label() == label
        })
        .await;
    }

    /// Ten connects of sessions to the server have failed in a row.
    fn tell_of_errors(&self, index: usize) {
        let server = self.server(index).live.uid;
        let told = ToControl::Observed { server, errors: 10 };
        assert!(self.handle.offer(told));
    }

    /// They have counted for the server's health so many times.
    async fn until_errors_counted(&self, index: usize, times: u64) {
        let live = Arc::clone(&self.server(index).live);
        self.until("counted", |_| live.traffic.sum(|t| &t.hanafail) == times)
            .await;
    }

    pub(super) fn logged(&self) -> Vec<(u8, String)> {
        self.log
            .try_iter()
            .map(|entry| match entry {
                LogEntry::Event { severity, text } => (severity, text.into_string()),
                LogEntry::Session(_) | LogEntry::Embryonic(_) => panic!("control logs no sessions"),
            })
            .collect()
    }
}

/// Checks as fast as a test wants them.
fn quick() -> Check {
    let interval = Duration::from_millis(20);
    Check {
        interval,
        fast_interval: interval,
        down_interval: interval,
        ..check()
    }
}

fn quick_at(name: &str, address: SocketAddr) -> Spec {
    Spec {
        check: Some(quick()),
        ..server_at(name, address)
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    listen_at(Ipv4Addr::LOCALHOST)
}

/// An address of one test's own lets it close and open a port that nobody else can come to have.
fn listen_at(ip: Ipv4Addr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn a_server_goes_down_and_comes_back_and_everybody_is_told() {
    let (listener, address) = listen_at(Ipv4Addr::new(127, 0, 99, 1));
    let mut spec = quick_at("s1", address);
    spec.shutdown_sessions_on_down = true;
    spec.shutdown_backup_sessions_on_up = true;
    let mut spare = quick_at("s2", listen().1);
    spare.check = None;
    spare.backup = true;
    let mut config = config(vec![backend("b", vec![spec, spare])]);
    config.frontends.push(frontend("b", 7));
    let local = LocalSet::new();
    let mut fixture = Fixture::new(&config);
    local
        .run_until(async {
            fixture.start();
            fixture.until_label(0, "UP").await;
            assert_eq!(fixture.logged(), [], "UP 1/3 to UP is no change of state");
            drop(listener);
            fixture.until_label(0, "DOWN").await;
            everybody_knows_it_is_down(&mut fixture).await;
            let _listener = TcpListener::bind(address).unwrap();
            fixture.until_label(0, "UP").await;
            let ended = fixture.server(1).live.uid;
            workers_are_told(&mut fixture, ended, Cause::Up).await;
            let logged = fixture.logged();
            assert!(
                logged[0]
                    .1
                    .starts_with("Server b/s1 is UP, reason: Layer4 check passed")
            );
            fixture.stop.cancel();
        })
        .await;
    tokio::time::timeout(DEADLINE, local)
        .await
        .expect("control and its checks end");
}

/// Workers end the sessions of this server, and those that connect choose again.
async fn workers_are_told(fixture: &mut Fixture, server: u64, why: Cause) {
    let order = fixture.orders[0].recv().await.unwrap();
    let Order::EndSessions { servers, cause } = order else {
        panic!("{order:?}")
    };
    assert!(servers.contains(server));
    assert_eq!(cause, why);
    let order = fixture.orders[0].recv().await.unwrap();
    assert!(matches!(order, Order::ServersChanged(_)), "{order:?}");
}

/// The first of two servers has gone down, the second is its backup.
async fn everybody_knows_it_is_down(fixture: &mut Fixture) {
    let server = fixture.server(0);
    let traffic = &server.live.traffic;
    assert_eq!(
        (traffic.sum(|t| &t.chkfail), traffic.sum(|t| &t.chkdown)),
        (3, 1)
    );
    assert_eq!(server.live.check.load().status, CheckStatus::L4Con);
    let ended = server.live.uid;
    workers_are_told(fixture, ended, Cause::Down).await;
    let logged = fixture.logged();
    assert_eq!((logged.len(), logged[0].0), (1, 1));
    assert!(
        logged[0]
            .1
            .contains("0 active and 1 backup servers left. Running on backup.")
    );
    let backend = fixture.backend();
    let turn = &crate::balance::PickInput::take(&backend.live.cursor);
    let mut picked = Vec::new();
    backend.picker.pick(
        turn,
        |_| 0,
        |index| {
            picked.push(index);
            false
        },
    );
    assert_eq!(picked, [1], "only the backup is left to be picked");
}

#[tokio::test]
async fn a_backend_that_loses_its_last_server_says_so() {
    let config = config(vec![backend(
        "b",
        vec![quick_at("s1", listen_at(Ipv4Addr::new(127, 0, 99, 2)).1)],
    )]);
    LocalSet::new()
        .run_until(async {
            let mut fixture = Fixture::new(&config);
            fixture.start();
            fixture.until_label(0, "DOWN").await;
            let backend = fixture.backend();
            assert!(!backend.status.up && backend.picker.is_empty());
            assert_eq!(backend.live.traffic.sum(|t| &t.chkdown), 1);
            let logged = fixture.logged();
            assert_eq!(logged[1], (0, "backend b has no server available!".into()));
        })
        .await;
}

#[tokio::test]
async fn every_move_of_the_counter_is_logged_when_asked_for() {
    let (_listener, address) = listen();
    let mut one = backend("b", vec![quick_at("s1", address)]);
    one.log_health_checks = true;
    LocalSet::new()
        .run_until(async {
            let mut fixture = Fixture::new(&config(vec![one]));
            fixture.start();
            fixture.until_label(0, "UP").await;
            let logged = fixture.logged();
            assert_eq!(logged.len(), 1);
            assert!(
                logged[0]
                    .1
                    .starts_with("Health check for server b/s1 succeeded, reason: ")
            );
            assert!(logged[0].1.ends_with("status: 3/3 UP."), "{logged:?}");
        })
        .await;
}

#[tokio::test]
async fn a_suspicion_is_checked_at_once() {
    let (_listener, address) = listen();
    let mut spec = server_at("s1", address);
    spec.check = Some(Check {
        interval: Duration::from_secs(3_600),
        fast_interval: Duration::from_secs(3_600),
        down_interval: Duration::from_secs(3_600),
        ..check()
    });
    LocalSet::new()
        .run_until(async {
            let mut fixture = Fixture::new(&config(vec![backend("b", vec![spec])]));
            fixture.start();
            fixture.until_label(0, "UP").await;
            let live = Arc::clone(&fixture.server(0).live);
            while !live.connect_failed() {}
            assert!(live.is_suspect());
            let (backend, server) = (BackendId::first(0), live.uid);
            fixture.handle.hint(ToControl::CheckNow { backend, server });
            fixture
                .until("trusted again, an hour before the next check", |_| {
                    !live.is_suspect()
                })
                .await;
        })
        .await;
}

/// A server whose errors count, with a counter that the first check has filled.
fn observed(on_error: OnError, address: SocketAddr) -> Spec {
    let hour = Duration::from_secs(3_600);
    Spec {
        observe: true,
        on_error,
        check: Some(Check {
            interval: hour,
            fast_interval: hour,
            down_interval: hour,
            ..check()
        }),
        ..server_at("s1", address)
    }
}

#[tokio::test]
async fn errors_of_sessions_take_a_server_down_and_a_check_brings_it_up() {
    let (_listener, address) = listen();
    let spec = observed(OnError::MarkDown, address);
    LocalSet::new()
        .run_until(async {
            let mut fixture = Fixture::new(&config(vec![backend("b", vec![spec])]));
            fixture.start();
            fixture.until_label(0, "UP").await;
            let live = Arc::clone(&fixture.server(0).live);
            fixture.tell_of_errors(0);
            fixture.until_label(0, "DOWN").await;
            let count = |counter: fn(&Traffic) -> &Counter| live.traffic.sum(counter);
            assert_eq!(count(|t| &t.hanafail), 1);
            assert_eq!((count(|t| &t.chkfail), count(|t| &t.chkdown)), (1, 1));
            let logged = fixture.logged();
            let reason = "Server b/s1 is DOWN, reason: Health analyze, info: \"Detected 10 \
                          consecutive errors, last one was: L4 unsuccessful connection\". 0 active";
            assert!(logged[0].1.starts_with(reason), "{logged:?}");
            let report = live.check.load();
            assert_eq!(
                (report.status, report.duration),
                (CheckStatus::HealthAnalyze, None)
            );
            assert!(!live.is_suspect());
            for _ in 0..fixture.server(0).rules().rise {
                let report = CheckReport {
                    status: CheckStatus::L4Ok,
                    ..CheckReport::default()
                };
                let backend = BackendId::first(0);
                assert_eq!(live.connect_error(2), None);
                let passed = ToControl::Checked {
                    backend,
                    server: live.uid,
                    report,
                };
                assert!(fixture.handle.report(passed).await);
                fixture
                    .until("the errors begin again", |_| fixture.handle.is_idle())
                    .await;
            }
            fixture.until_label(0, "UP").await;
            assert_eq!(live.connect_error(2), None, "a check has passed");
        })
        .await;
}

/// As many as `max-ejected` says; a server that a check has found down too does not count.
#[tokio::test]
async fn errors_of_sessions_leave_servers_to_a_backend() {
    let (_listener, address) = listen();
    let named = |name: &str| Spec {
        name: name.into(),
        ..observed(OnError::MarkDown, address)
    };
    let mut one = backend("b", vec![named("s1"), named("s2"), named("s3")]);
    one.max_ejected = 50;
    LocalSet::new()
        .run_until(async {
            let mut fixture = Fixture::new(&config(vec![one]));
            fixture.start();
            for index in 0..3 {
                fixture.until_label(index, "UP").await;
            }
            fixture.tell_of_errors(0);
            fixture.until_label(0, "DOWN").await;
            fixture.tell_of_errors(1);
            fixture.until_errors_counted(1, 1).await;
            assert_eq!(fixture.server(1).status_label(), "UP");
            let refused = ToControl::Checked {
                backend: BackendId::first(0),
                server: fixture.server(0).live.uid,
                report: CheckReport {
                    status: CheckStatus::L4Con,
                    ..CheckReport::default()
                },
            };
            assert!(fixture.handle.report(refused).await);
            fixture.tell_of_errors(1);
            fixture.until_label(1, "DOWN").await;
        })
        .await;
}

/// Servers in maintenance are none of those of which so many may be taken down.
#[tokio::test]
async fn servers_in_maintenance_do_not_count_for_max_ejected() {
    let (_listener, address) = listen();
    let named = |name: &str| Spec {
        name: name.into(),
        ..observed(OnError::MarkDown, address)
    };
    let disabled = Spec {
        disabled: true,
        ..named("s3")
    };
    let mut one = backend("b", vec![named("s1"), named("s2"), disabled]);
    // One of three may go, and none of two.
    one.max_ejected = 34;
    LocalSet::new()
        .run_until(async {
            let mut fixture = Fixture::new(&config(vec![one]));
            fixture.start();
            for index in 0..2 {
                fixture.until_label(index, "UP").await;
            }
            fixture.tell_of_errors(0);
            fixture.until_errors_counted(0, 1).await;
            assert_eq!(fixture.server(0).status_label(), "UP");
        })
        .await;
}

/// Errors bring the next check also where they change nothing: here the server may not be taken down.
#[tokio::test]
async fn errors_bring_the_next_check_whatever_they_are() {
    let (listener, address) = listen_at(Ipv4Addr::new(127, 0, 99, 7));
    let mut spec = observed(OnError::MarkDown, address);
    spec.check.as_mut().unwrap().fast_interval = Duration::from_millis(20);
    let mut one = backend("b", vec![spec]);
    one.max_ejected = 0;
    LocalSet::new()
        .run_until(async {
            let mut fixture = Fixture::new(&config(vec![one]));
            fixture.start();
            fixture.until_label(0, "UP").await;
            drop(listener);
            let live = Arc::clone(&fixture.server(0).live);
            fixture.tell_of_errors(0);
            fixture
                .until("a check, an hour before its time", |_| {
                    live.check.status() == CheckStatus::L4Con
                })
                .await;
        })
        .await;
}

/// A check that passes begins the errors again, also one that connects elsewhere and says nothing about suspicion.
#[tokio::test]
async fn a_check_of_another_port_begins_the_errors_again() {
    let (_listener, address) = listen();
    let mut spec = observed(OnError::MarkDown, SocketAddr::from((address.ip(), 1)));
    spec.check.as_mut().unwrap().port = Some(address.port());
    LocalSet::new()
        .run_until(async {
            let mut fixture = Fixture::new(&config(vec![backend("b", vec![spec])]));
            fixture.start();
            fixture.until_label(0, "UP").await;
            let live = Arc::clone(&fixture.server(0).live);
            assert_eq!(live.connect_error(2), None);
            let passed = ToControl::Checked {
                backend: BackendId::first(0),
                server: live.uid,
                report: CheckReport {
                    status: CheckStatus::L4Ok,
                    ..CheckReport::default()
                },
            };
            assert!(fixture.handle.report(passed).await);
            fixture
                .until("the report is read", |_| fixture.handle.is_idle())
                .await;
            assert_eq!(live.connect_error(2), None, "a check has passed");
        })
        .await;
}

#[tokio::test]
async fn errors_that_ask_for_a_check_alone_change_no_state_and_none_counts_in_maintenance() {
    let (_listener, address) = listen();
    let mut disabled = observed(OnError::MarkDown, address);
    disabled.name = "s2".into();
    disabled.disabled = true;
    let spec = observed(OnError::FastInter, address);
    LocalSet::new()
        .run_until(async {
            let mut fixture = Fixture::new(&config(vec![backend("b", vec![spec, disabled])]));
            fixture.start();
            fixture.until_label(0, "UP").await;
            for index in 0..2 {
                let live = Arc::clone(&fixture.server(index).live);
                let before = (fixture.server(index).status.clone(), live.check.status());
                fixture.tell_of_errors(index);
                fixture.until_errors_counted(index, 1).await;
                let after = (fixture.server(index).status.clone(), live.check.status());
                assert_eq!(after, before);
            }
            assert_eq!(fixture.logged(), []);
        })
        .await;
}

#[tokio::test]
async fn a_verdict_from_before_maintenance_tells_nothing() {
    let mut disabled = server("s1");
    disabled.disabled = true;
    LocalSet::new()
        .run_until(async {
            let mut fixture = Fixture::new(&config(vec![backend("b", vec![disabled])]));
            fixture.start();
            let (backend, server) = (BackendId::first(0), fixture.server(0).live.uid);
            let report = CheckReport {
                status: CheckStatus::L4Ok,
                ..CheckReport::default()
            };
            fixture
                .handle
                .report(ToControl::Checked {
                    backend,
                    server,
                    report,
                })
                .await;
            fixture
                .handle
                .report(ToControl::CheckNow { backend, server: 0 })
                .await;
            fixture
                .until("both are read", |fixture| fixture.handle.is_idle())
                .await;
            assert_eq!(fixture.server(0).status_label(), "MAINT");
            assert_eq!(fixture.logged(), []);
        })
        .await;
}

#[tokio::test]
async fn names_resolve_before_the_start_or_stay_in_maintenance() {
    let (_listener, address) = listen();
    let named = |name: &str, host: &str| {
        let mut spec = quick_at(name, address);
        spec.address = ServerAddress::Name(host.into(), ServerPort::Fixed(address.port()));
        spec
    };
    let servers = vec![
        named("s1", "localhost"),
        named("s2", "no-such-host.invalid"),
    ];
    LocalSet::new()
        .run_until(async {
            let mut fixture = Fixture::new(&config(vec![backend("b", servers)]));
            let begun = Instant::now();
            fixture.control.as_mut().unwrap().resolve_names().await;
            assert!(begun.elapsed() < resolve::START_MAX + Duration::from_millis(500));
            assert!(fixture.server(0).is_usable());
            assert_eq!(fixture.server(1).status_label(), "MAINT (resolution)");
            assert_eq!(fixture.logged(), [], "nothing has happened yet");
            fixture.start();
            // What the lookup of the second name would say, had it an address.
            let found = ToControl::Resolved {
                name: "no-such-host.invalid".into(),
                addresses: vec![address.ip()],
            };
            fixture.handle.report(found).await;
            fixture.until_label(1, "UP").await;
            let texts: Vec<String> = fixture.logged().into_iter().map(|line| line.1).collect();
            assert_eq!(
                texts,
                [
                    "Server b/s2 ('no-such-host.invalid') is UP/READY (resolves again).",
                    "Server b/s2 administratively READY thanks to valid DNS answer.",
                ]
            );
        })
        .await;
}

#[tokio::test]
async fn an_unchecked_suspect_is_trusted_again_in_time() {
    let mut spec = server("s1");
    spec.check = None;
    let mut fixture = Fixture::new(&config(vec![backend("b", vec![spec])]));
    let mut control = fixture.control.take().unwrap();
    let live = Arc::clone(&fixture.server(0).live);
    while !live.connect_failed() {}
    let now = Instant::now();
    control.suspected(live.uid, now);
    control.suspected(live.uid, now);
    assert_eq!(control.suspects.len(), 1);
    control.tick().await;
    assert!(live.is_suspect());
    let (_, since) = control.suspects.values_mut().next().unwrap();
    *since = now.checked_sub(SUSPECT_TTL).unwrap();
    control.tick().await;
    assert!(!live.is_suspect() && control.suspects.is_empty());
}

/// A server in a slow start gets its turns step by step, its `maxconn` grows, and its end is logged.
#[tokio::test]
async fn a_slow_start_goes_on_with_the_seconds() {
    let mut spec = Spec {
        check: None,
        maxconn: 50,
        ..server("s1")
    };
    let other = Spec {
        name: "s2".into(),
        ..spec.clone()
    };
    spec.slowstart = Duration::from_secs(4);
    let mut fixture = Fixture::new(&config(vec![backend("b", vec![spec, other])]));
    let mut control = fixture.control.take().unwrap();
    let uid = fixture.server(0).live.uid;
    let local = LocalSet::new();
    for to in [AdminRequest::Maint, AdminRequest::Ready] {
        let (done, _answer) = tokio::sync::oneshot::channel();
        let message = ToControl::SetAdmin {
            server: uid,
            to,
            done,
        };
        let mut messages = vec![message];
        local.run_until(control.turn(&mut messages)).await;
    }
    let since = fixture.server(0).status.since;
    let seen = |fixture: &Fixture| {
        let backend = fixture.backend();
        let Picker::RoundRobin(rotation) = &backend.picker else {
            panic!("round robin");
        };
        let turns = rotation.slots();
        let of_first = turns.iter().filter(|it| **it == 0).count();
        let limit = fixture.server(0).slot_limit(backend.spec.fullconn).at(0);
        (of_first, turns.len(), limit)
    };
    let mut steps = vec![seen(&fixture)];
    for millis in [999, 1_500, 2_000, 3_999, 4_001] {
        let now = since + Duration::from_millis(millis);
        let base = fixture.snapshot.load_full();
        local.run_until(control.warm_up(base, now)).await;
        steps.push(seen(&fixture));
    }
    // 1, 5, 9, 13 and all 16 sixteenths beside 16.
    let expected = [
        (1, 17, 1),
        (1, 17, 1),
        (5, 21, 12),
        (9, 25, 25),
        (13, 29, 37),
        (1, 2, 50),
    ];
    assert_eq!(steps, expected);
    let server = fixture.server(0);
    assert_eq!(server.status.oper, OperState::Running);
    let mut lines = Vec::new();
    while let Ok(LogEntry::Event { text, .. }) = fixture.log.try_recv() {
        lines.push(text);
    }
    let last = "Server b/s1 is UP. 2 active and 0 backup servers online. \
                0 sessions requeued, 0 total in queue.";
    assert_eq!(lines.last().map(|text| &**text), Some(last));
    assert_eq!(lines.len(), 3, "{lines:?}");
    // Nothing is left to do.
    let before = fixture.snapshot.load_full();
    local.run_until(control.tick()).await;
    assert!(Arc::ptr_eq(&before, &fixture.snapshot.load_full()));
}

/// What is not in force during a slow start grows nevertheless: a weight or a limit that is set later is that of its time.
/// With `static-rr` the limit alone grows.
#[tokio::test]
async fn what_is_set_during_a_slow_start_is_that_of_its_time() {
    let slow = Spec {
        check: None,
        slowstart: Duration::from_secs(10),
        ..server("s1")
    };
    let weightless = Spec {
        weight: 0,
        ..slow.clone()
    };
    let limited = Spec {
        maxconn: 50,
        ..slow.clone()
    };
    let mut fixed = backend("f", vec![slow, limited]);
    fixed.servers[1].name = "s2".into();
    fixed.balance = Balance::StaticRr;
    let turning = backend("r", vec![weightless]);
    let mut fixture = Fixture::new(&config(vec![fixed, turning]));
    let control = fixture.control.as_mut().unwrap();
    let server = |snapshot: &Snapshot, backend: usize, index: usize| {
        let backend = snapshot.backends[backend].as_ref().unwrap();
        let server = Arc::clone(&backend.servers[index]);
        let limit = server.slot_limit(backend.spec.fullconn).at(0);
        let eweight = server.eweight(&backend.spec);
        (server, eweight, limit)
    };
    let places = [(0, 0), (0, 1), (1, 0)];
    let now = Instant::now();
    let mut builder = SnapshotBuilder::new(fixture.snapshot.load_full());
    for (backend, index) in places {
        let (one, ..) = server(&fixture.snapshot.load(), backend, index);
        let mut one = Server::clone(&one);
        let rules = one.rules();
        for admin in [AdminState::FMAINT, AdminState::READY] {
            one.status.set_admin(admin, rules, now);
        }
        let id = fixture.snapshot.load().backends[backend]
            .as_ref()
            .unwrap()
            .id;
        builder.replace(id, index, one, now);
    }
    control.publish(&Arc::new(builder.finish().unwrap()));
    let base = fixture.snapshot.load_full();
    let at = now + Duration::from_millis(6_200);
    let warmed = control.warm_up(Arc::clone(&base), at);
    LocalSet::new().run_until(warmed).await;
    let warm = fixture.snapshot.load_full();
    assert_eq!(server(&warm, 0, 1).2, 30, "60 percent of 50");
    assert!(Arc::ptr_eq(&server(&base, 1, 0).0, &server(&warm, 1, 0).0));

    let [unlimited, weightless] = [(0, 0), (1, 0)].map(|(backend, index)| {
        let (one, ..) = server(&warm, backend, index);
        one.live.uid
    });
    let mut batch = Batch::new(warm, &control.servers, &control.parts.token, at);
    assert!(batch.set_weight(weightless, 100));
    assert!(batch.change_runtime(&RuntimeChange::ServerMaxconn(unlimited, 20)));
    let (set, _) = batch.finish();
    let set = set.unwrap();
    // 10 of 16 sixteenths, and 60 percent.
    assert_eq!(server(&set, 1, 0).1, 1_000);
    assert_eq!(server(&set, 0, 0).2, 12);
}

fn named(name: &str, host: &str) -> Spec {
    let mut spec = server(name);
    spec.check = None;
    spec.address = ServerAddress::Name(host.into(), ServerPort::Fixed(9));
    spec
}

fn resolved(name: &str, address: Ipv4Addr) -> ToControl {
    ToControl::Resolved {
        name: name.into(),
        addresses: vec![address.into()],
    }
}

/// A commit of `config`, prepared before anything of `addresses` was known.
fn commit_of(config: Config) -> Commit {
    let mut inherited = inherited::Inherited::receive(
        &config,
        crate::sys::service_manager::ServiceManager::none(),
        None,
    );
    let (table, _) = listeners::Listeners::open(&config, 100, &mut inherited).unwrap();
    let snapshot = Fixture::new(&config).snapshot.load_full();
    let reopen = listeners::Reopen::All;
    Commit {
        listeners: table.prepare(&config, (100, &reopen), &snapshot).unwrap(),
        config: Arc::new(config),
        maxconn: 100,
        addresses: std::collections::HashMap::new(),
        done: tokio::sync::oneshot::channel().0,
    }
}

/// Fault 11: a new server stayed in maintenance when its name resolved in the middle of the reload that
/// brought it.
#[tokio::test]
async fn a_name_that_resolves_in_the_middle_of_a_reload_is_the_new_servers_too() {
    const HOST: &str = "no-such-host.invalid";
    LocalSet::new()
        .run_until(async {
            let mut fixture = Fixture::new(&config(vec![backend("b", vec![named("s1", HOST)])]));
            let mut control = fixture.control.take().unwrap();
            control.resolve_names().await;
            assert!(!fixture.server(0).is_usable());
            let both = vec![named("s1", HOST), named("s2", HOST)];
            let commit = commit_of(config(vec![backend("b", both)]));
            let found = resolved(HOST, Ipv4Addr::LOCALHOST);
            fixture.handle.report(found).await;
            Box::pin(control.commit(commit, &mut Vec::new())).await;
            assert!(
                fixture.server(0).is_usable(),
                "it was told before the commit"
            );
            assert!(
                fixture.server(1).is_usable(),
                "and the new one is at the same place"
            );
        })
        .await;
}

/// Fault 38: a name was never looked up again.
#[tokio::test]
async fn a_name_that_leads_elsewhere_is_found_by_a_reload_and_by_the_end_of_maintenance() {
    const OLD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 99);
    LocalSet::new()
        .run_until(async {
            let spec = || config(vec![backend("b", vec![named("s1", "localhost")])]);
            let mut fixture = Fixture::new(&spec());
            let mut control = fixture.control.take().unwrap();
            control.start_turn(resolved("localhost", OLD));
            let committer = control.committer.clone();
            tokio::task::spawn_local(control.run(fixture.stop.clone()));
            let is_at_old = |fixture: &Fixture| {
                let server = fixture.server(0);
                assert!(server.is_usable());
                matches!(server.endpoint, Some(crate::state::Endpoint::Ip(ip, _)) if ip == OLD)
            };
            assert!(is_at_old(&fixture));
            committer.send(commit_of(spec())).await.unwrap();
            fixture
                .until("a reload", |fixture| !is_at_old(fixture))
                .await;
            let said: Vec<String> = fixture.logged().into_iter().map(|line| line.1).collect();
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(
                said[0].starts_with("b/s1: IP changed from '127.0.0.99' to '"),
                "{said:?}"
            );

            let found = resolved("localhost", OLD);
            fixture.handle.report(found).await;
            fixture.until("the old address", is_at_old).await;
            for to in [AdminRequest::Maint, AdminRequest::Ready] {
                let (done, answer) = tokio::sync::oneshot::channel();
                let server = fixture.server(0).live.uid;
                fixture
                    .handle
                    .report(ToControl::SetAdmin { server, to, done })
                    .await;
                assert!(answer.await.unwrap());
            }
            fixture
                .until("maintenance", |fixture| {
                    let server = fixture.server(0);
                    !matches!(server.endpoint, Some(crate::state::Endpoint::Ip(ip, _)) if ip == OLD)
                })
                .await;
        })
        .await;
}
