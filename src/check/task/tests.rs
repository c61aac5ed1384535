//! One check task on a real clock, against a listener that can stop answering.

use super::*;
use crate::state::test_config::check;
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::sync::mpsc::Receiver;
use tokio::task::LocalSet;

const HOUR: Duration = Duration::from_secs(3_600);

/// A listener with room for `backlog` + 1 connections that nobody accepts.
fn listener(backlog: i32) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).unwrap();
    socket.listen(backlog).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

struct Fixture {
    handle: Rc<CheckHandle>,
    live: Arc<ServerLive>,
    inbox: Receiver<ToControl>,
    stop: CancellationToken,
}

fn context(control: ControlHandle) -> Rc<CheckContext> {
    CheckContext::new(CheckParts {
        control,
        reserve: Arc::new(DescriptorReserve::new().unwrap()),
        global: Arc::new(GlobalLive::new(Instant::now(), 1)),
        token: Rc::new(WorkerToken::new(0)),
        snapshot: None,
    })
}

/// A task that checks `address` at once, and then once an hour.
fn started(address: SocketAddr) -> Fixture {
    let (control, inbox) = ControlHandle::new();
    let handle = CheckHandle::new(IntervalKind::Normal, Some(Target::Tcp(address)));
    let live = Arc::new(ServerLive::new(&Arc::default(), 1));
    let stop = CancellationToken::new();
    let server = CheckedServer {
        backend: BackendId::first(0),
        backend_name: "b".into(),
        name: "s1".into(),
        live: Arc::clone(&live),
        check: Check {
            interval: HOUR,
            timeout: Duration::from_millis(300),
            ..check()
        },
        source: None,
        socket: None,
        handle: Rc::clone(&handle),
    };
    let context = context(control);
    tokio::task::spawn_local(run(server, context, Instant::now(), stop.clone()));
    Fixture {
        handle,
        live,
        inbox,
        stop,
    }
}

impl Fixture {
    async fn verdict(&mut self) -> CheckStatus {
        let message = tokio::time::timeout(Duration::from_secs(10), self.inbox.recv()).await;
        match message.expect("a check ends in time") {
            Some(ToControl::Checked { report, .. }) => {
                // What control does with it.
                let status = report.status;
                self.live.check.store(report);
                status
            }
            other => panic!("{other:?}"),
        }
    }

    async fn until_in_progress(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.live.check.load().in_progress {
            assert!(Instant::now() < deadline, "no check begins");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn check_now_checks_at_once_unless_a_check_in_flight_answers_it() {
    let (_listener, address) = listener(0);
    let _filler = std::net::TcpStream::connect(address).unwrap();
    LocalSet::new()
        .run_until(async {
            let mut fixture = started(address);
            fixture.until_in_progress().await;
            fixture.handle.check_now();
            assert_eq!(fixture.verdict().await, CheckStatus::L4Timeout);
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let report = fixture.live.check.load();
            assert!(!report.in_progress, "the failure is enough");
            fixture.handle.check_now();
            assert_eq!(
                fixture.verdict().await,
                CheckStatus::L4Timeout,
                "an hour early"
            );
            fixture.stop.cancel();
        })
        .await;
}

#[tokio::test]
async fn control_hears_only_what_may_change_something() {
    let (_listener, address) = listener(16);
    LocalSet::new()
        .run_until(async {
            let mut fixture = started(address);
            assert_eq!(fixture.verdict().await, CheckStatus::L4Ok);
            fixture.handle.check_now();
            assert_eq!(
                fixture.verdict().await,
                CheckStatus::L4Ok,
                "control has not taken in the first one"
            );
            fixture.handle.verdict_received();
            fixture.handle.verdict_received();
            for _ in 0..5 {
                let known = CheckReport {
                    duration: Some(HOUR),
                    ..fixture.live.check.load()
                };
                fixture.live.check.store(known);
                while fixture.live.connect_failed() || !fixture.live.is_suspect() {}
                fixture.handle.check_now();
                let deadline = Instant::now() + Duration::from_secs(10);
                while fixture.live.check.load().duration == Some(HOUR) {
                    assert!(Instant::now() < deadline, "no check ends");
                    tokio::task::yield_now().await;
                }
                assert!(!fixture.live.is_suspect());
                assert!(!fixture.live.check.load().in_progress);
            }
            assert!(
                fixture.inbox.try_recv().is_err(),
                "nothing changed, no message"
            );
            fixture.handle.set_interval_kind(IntervalKind::Fast);
            fixture.handle.check_now();
            assert_eq!(
                fixture.verdict().await,
                CheckStatus::L4Ok,
                "it may bring the server up"
            );
            fixture.stop.cancel();
        })
        .await;
}

#[tokio::test]
async fn nothing_is_checked_while_paused_and_check_now_is_kept() {
    let (_listener, address) = listener(16);
    LocalSet::new()
        .run_until(async {
            let mut fixture = started(address);
            assert_eq!(fixture.verdict().await, CheckStatus::L4Ok);
            fixture.handle.set_interval_kind(IntervalKind::Paused);
            fixture.handle.check_now();
            for _ in 0..100 {
                tokio::task::yield_now().await;
                assert!(!fixture.live.check.load().in_progress);
            }
            fixture.handle.set_interval_kind(IntervalKind::Fast);
            assert_eq!(fixture.verdict().await, CheckStatus::L4Ok);
            fixture.stop.cancel();
        })
        .await;
}

#[tokio::test]
async fn a_task_ends_with_control() {
    let (_listener, address) = listener(16);
    LocalSet::new()
        .run_until(async {
            let (control, inbox) = ControlHandle::new();
            drop(inbox);
            let server = CheckedServer {
                backend: BackendId::first(0),
                backend_name: "b".into(),
                name: "s1".into(),
                live: Arc::new(ServerLive::new(&Arc::default(), 1)),
                check: check(),
                source: None,
                socket: None,
                handle: CheckHandle::new(IntervalKind::Normal, Some(Target::Tcp(address))),
            };
            let context = context(control);
            let task = run(server, context, Instant::now(), CancellationToken::new());
            let ended = tokio::time::timeout(Duration::from_secs(10), task).await;
            ended.expect("control has ended");
        })
        .await;
}

/// Fault 14: every suspicion asked for a check of its own, 1,168 of them in 2 s.
#[tokio::test]
async fn suspicion_asks_for_one_check_in_a_fast_interval() {
    let (_listener, address) = listener(16);
    let handle = CheckHandle::new(IntervalKind::Normal, Some(Target::Tcp(address)));
    let check = Check {
        interval: HOUR,
        fast_interval: Duration::from_secs(60),
        ..check()
    };
    let now = Instant::now();
    assert_eq!(handle.extra_due(&check, now), None);
    handle.check_suspect();
    assert_eq!(
        handle.extra_due(&check, now),
        Some(now),
        "the first at once"
    );
    let mut grid = Grid::new(now, now, 1);
    let first = grid.due(HOUR, now);
    grid.start(first);
    handle.due(&mut grid, &check).await;
    let started = handle.suspicion_checked.get().unwrap();
    for _ in 0..1_000 {
        handle.check_suspect();
    }
    let next = handle.extra_due(&check, Instant::now());
    assert_eq!(next, Some(started + check.fast_interval));
    handle.check_now();
    assert!(
        handle.extra_due(&check, started).unwrap() <= Instant::now(),
        "an operator waits not"
    );
}

#[tokio::test]
async fn errors_bring_the_next_check_within_the_fast_interval() {
    let (_listener, address) = listener(16);
    let handle = CheckHandle::new(IntervalKind::Normal, Some(Target::Tcp(address)));
    let check = Check {
        interval: HOUR,
        fast_interval: Duration::from_secs(60),
        ..check()
    };
    let now = Instant::now();
    handle.check_soon(now);
    let soon = now + check.fast_interval;
    assert_eq!(handle.extra_due(&check, now), Some(soon));
    handle.check_soon(now + Duration::from_secs(1));
    assert_eq!(
        handle.extra_due(&check, now),
        Some(soon),
        "the first counts"
    );
    handle.set_interval_kind(IntervalKind::Down);
    assert_eq!(handle.extra_due(&check, now), None);
    handle.set_interval_kind(IntervalKind::Held);
    handle.check_now();
    handle.check_soon(now);
    assert!(
        handle.extra_due(&check, now).unwrap() < soon,
        "an operator waits not"
    );
}

/// As in HAProxy, wherever the check connects to.
#[test]
fn a_check_that_passes_again_begins_the_errors_again() {
    let handle = CheckHandle::new(IntervalKind::Normal, None);
    handle.set_asks_traffic_target(false);
    let live = ServerLive::new(&Arc::default(), 1);
    live.check.store(CheckReport {
        status: CheckStatus::L4Ok,
        duration: Some(Duration::ZERO),
        info: String::new(),
        code: 0,
        in_progress: false,
    });
    assert_eq!(live.connect_error(2), None);
    assert!(handle.passed_again(&live, Duration::ZERO));
    assert_eq!(live.connect_error(2), None);
    assert_eq!(live.connect_error(2), Some(2));
}

/// Fault 14: a passed check of another port cleared the suspicion, so that every client paid for it.
#[test]
fn a_check_that_asks_elsewhere_clears_no_suspicion() {
    let handle = CheckHandle::new(IntervalKind::Normal, None);
    let live = ServerLive::new(&Arc::default(), 1);
    live.check.store(CheckReport {
        status: CheckStatus::L4Ok,
        duration: Some(Duration::ZERO),
        info: String::new(),
        code: 0,
        in_progress: false,
    });
    while live.connect_failed() || !live.is_suspect() {}
    handle.set_asks_traffic_target(false);
    assert!(handle.passed_again(&live, Duration::ZERO));
    assert!(live.is_suspect());
    handle.set_asks_traffic_target(true);
    assert!(handle.passed_again(&live, Duration::ZERO));
    assert!(!live.is_suspect());
}
