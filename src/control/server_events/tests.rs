//! Every line against HAProxy's own text.

use super::*;
use crate::config::model;
use crate::live::{CheckStatus, ServerLive};
use crate::state::Forced;
use crate::state::test_config::server;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn made(spec: model::Server) -> Server {
    let live = Arc::new(ServerLive::new(&Arc::default(), 1));
    Server::new(spec, live, Instant::now())
}

fn left(active: u32, backup: u32) -> Usable {
    Usable { active, backup }
}

/// The lines of a step from one status to the next, `usable` being left after it.
fn told(
    server: &mut Server,
    usable: Usable,
    check: Option<&CheckReport>,
    step: impl FnOnce(&mut ServerStatus),
) -> Vec<(Severity, String)> {
    let before = server.status.clone();
    step(&mut server.status);
    let event = ServerEvent {
        backend: "postgres",
        server,
        usable,
        check_is_logged: false,
        interface: Interface::Cli,
    };
    changed(&before, event, check)
        .into_iter()
        .map(|line| (line.severity, line.text))
        .collect()
}

fn refused() -> CheckReport {
    CheckReport {
        status: CheckStatus::L4Con,
        duration: Some(Duration::from_micros(400)),
        info: "ECONNREFUSED returned by OS (Connection refused) at initial connection step of \
               tcp-check"
            .into(),
        code: 0,
        in_progress: false,
    }
}

fn passed() -> CheckReport {
    CheckReport {
        status: CheckStatus::L4Ok,
        duration: Some(Duration::from_millis(1)),
        info: String::new(),
        code: 0,
        in_progress: false,
    }
}

// The expected texts are HAProxy's own, as recorded.

#[test]
fn down_and_up_by_checks() {
    let mut server = made(server("app-direct-node03"));
    let (rules, now) = (server.rules(), Instant::now());
    let lines = told(&mut server, left(2, 0), Some(&refused()), |status| {
        status.check_failed(rules, now);
    });
    assert_eq!(
        lines,
        [(
            Severity::Alert,
            "Server postgres/app-direct-node03 is DOWN, reason: Layer4 connection problem, info: \
         \"ECONNREFUSED returned by OS (Connection refused) at initial connection step of \
         tcp-check\", check duration: 0ms. 2 active and 0 backup servers left. 0 sessions active, \
         0 requeued, 0 remaining in queue."
                .into()
        )]
    );
    let lines = told(&mut server, left(2, 0), Some(&passed()), |status| {
        status.check_passed(rules, now);
    });
    assert_eq!(lines, [], "DOWN 1/2 is no change of state");
    let lines = told(&mut server, left(3, 0), Some(&passed()), |status| {
        status.check_passed(rules, now);
    });
    assert_eq!(lines, [(
        Severity::Notice,
        "Server postgres/app-direct-node03 is UP, reason: Layer4 check passed, check duration: \
         1ms. 3 active and 0 backup servers online. 0 sessions requeued, 0 total in queue."
            .into()
    )]);
}

#[test]
fn backups_and_drained_servers() {
    let mut spec = server("spare");
    spec.backup = true;
    let mut spare = made(spec);
    let (rules, now) = (spare.rules(), Instant::now());
    let lines = told(&mut spare, left(0, 1), Some(&refused()), |status| {
        status.check_failed(rules, now);
    });
    assert!(
        lines[0]
            .1
            .starts_with("Backup Server postgres/spare is DOWN, reason: ")
    );
    assert!(
        lines[0]
            .1
            .contains(". 0 active and 1 backup servers left. Running on backup. 0 ses")
    );
    let mut drained = made(server("n1"));
    told(&mut drained, left(1, 0), None, |status| {
        status.set_admin(AdminState::FDRAIN, rules, now);
    });
    let lines = told(&mut drained, left(1, 0), Some(&refused()), |status| {
        status.check_failed(rules, now);
    });
    assert_eq!(
        lines[0].0,
        Severity::Notice,
        "an operator was taking it out"
    );
}

#[test]
fn maintenance_and_drain_by_an_operator() {
    let mut server = made(server("app-direct-node01"));
    let (rules, now) = (server.rules(), Instant::now());
    let mut set = |admin, usable| {
        told(&mut server, usable, None, |status| {
            status.set_admin(admin, rules, now);
        })
    };
    let one = |severity, text: &str| vec![(severity, text.to_owned())];
    assert_eq!(
        set(AdminState::FMAINT, left(1, 0)),
        one(
            Severity::Alert,
            "Server postgres/app-direct-node01 is going DOWN for maintenance. 1 active and 0 \
             backup servers left. 0 sessions active, 0 requeued, 0 remaining in queue."
        )
    );
    assert_eq!(
        set(AdminState::READY, left(2, 0)),
        one(
            Severity::Notice,
            "Server postgres/app-direct-node01 is UP/READY (leaving forced maintenance)."
        )
    );
    assert_eq!(
        set(AdminState::FDRAIN, left(1, 0)),
        one(
            Severity::Notice,
            "Server postgres/app-direct-node01 enters drain state. 1 active and 0 backup servers \
             online. 0 sessions requeued, 0 total in queue."
        )
    );
    assert_eq!(
        set(AdminState::READY, left(2, 0)),
        one(
            Severity::Notice,
            "Server postgres/app-direct-node01 is UP (leaving forced drain)."
        )
    );
    let stopping = told(&mut server, left(1, 0), None, |status| {
        status.force(Forced::Stopping, rules, now);
    });
    assert_eq!(
        stopping,
        one(
            Severity::Notice,
            "Server postgres/app-direct-node01 is stopping, changed from CLI. 1 active and 0 \
             backup servers online. 0 sessions requeued, 0 total in queue."
        )
    );
    told(&mut server, left(1, 0), None, |status| {
        status.force(Forced::Down, rules, now);
    });
    let lines = told(&mut server, left(1, 0), None, |status| {
        status.set_admin(AdminState::FMAINT, rules, now);
    });
    assert_eq!(
        lines,
        one(
            Severity::Notice,
            "Server postgres/app-direct-node01 was DOWN and now enters maintenance."
        )
    );
}

#[test]
fn names_that_resolve_again() {
    let mut spec = server("n1");
    spec.address = model::ServerAddress::Name("db.example".into(), model::ServerPort::Fixed(1));
    spec.disabled = true;
    let mut server = made(spec);
    let (rules, now) = (server.rules(), Instant::now());
    let all = server.status.admin;
    let lines = told(&mut server, left(0, 0), None, |status| {
        status.set_admin(all.without(AdminState::RMAINT), rules, now);
    });
    let text = "Server postgres/n1 ('db.example') resolves again but remains in maintenance.";
    assert_eq!(lines, [(Severity::Notice, text.into())]);
    server.status = ServerStatus::initial(AdminState::RMAINT, rules, now);
    let lines = told(&mut server, left(1, 0), None, |status| {
        status.set_admin(AdminState::READY, rules, now);
    });
    let text = "Server postgres/n1 ('db.example') is UP/READY (resolves again).";
    assert_eq!(lines, [(Severity::Notice, text.into())]);
}

#[test]
fn every_step_of_the_counter() {
    let mut server = made(server("s1"));
    let (rules, now) = (server.rules(), Instant::now());
    server.status.check_passed(rules, now);
    server.status.check_failed(rules, now);
    let say = |server: &Server, report: &CheckReport| {
        let event = ServerEvent {
            backend: "b",
            server,
            usable: left(1, 0),
            check_is_logged: true,
            interface: Interface::Cli,
        };
        health_check(event, report).text
    };
    let text = say(&server, &refused());
    assert!(text.starts_with("Health check for server b/s1 failed, reason: Layer4 connection"));
    assert!(
        text.ends_with(", check duration: 0ms, status: 2/3 UP."),
        "{text}"
    );
    server.status.force(Forced::Down, rules, now);
    server.status.check_passed(rules, now);
    assert_eq!(
        say(&server, &passed()),
        "Health check for server b/s1 succeeded, reason: Layer4 check passed, check duration: \
         1ms, status: 1/2 DOWN."
    );
    server.status.check_passed(rules, now);
    server.weight = 0;
    assert!(say(&server, &passed()).ends_with("status: 3/3 DRAIN."));
}

#[test]
fn a_backend_without_servers() {
    let down = |least, listen, usable| {
        let spec = model::Backend {
            name: "kube".into(),
            min_servers: least,
            ..model::Backend::default()
        };
        let event = BackendEvent {
            spec: &spec,
            listen,
            servers: &[],
            usable,
        };
        let text = |up| event.turned(up).map(|line| (line.severity, line.text));
        (text(false).expect("a line"), text(true))
    };
    let (line, up) = down(1, false, left(0, 0));
    let text = "backend kube has no server available!".to_owned();
    assert_eq!((line, up), ((Severity::Emerg, text), None));
    let ((_, text), _) = down(1, true, left(0, 0));
    assert_eq!(text, "proxy kube has no server available!");
    let ((_, text), _) = down(3, false, left(1, 1));
    assert_eq!(
        text,
        "backend kube has no server available! 2 usable, min-servers 3."
    );
    let (_, up) = down(3, false, left(2, 1));
    let text = "backend kube is UP again: 3 servers usable, min-servers 3.".to_owned();
    assert_eq!(up, Some((Severity::Notice, text)));
}

/// Fault 29: what a program is told of a server that goes down, and of one that comes up.
#[test]
fn fault_29_events_of_servers_have_fields() {
    let mut server = made(server("n1"));
    let rules = server.rules();
    let before = server.status.clone();
    let later = before.since + Duration::from_secs(90);
    server.status.check_failed(rules, later);
    let event = ServerEvent {
        backend: "postgres",
        server: &server,
        usable: left(2, 1),
        check_is_logged: false,
        interface: Interface::Cli,
    };
    let [down] = changed(&before, event, Some(&refused()))
        .try_into()
        .unwrap();
    assert!(!down.planned);
    let info = "ECONNREFUSED returned by OS (Connection refused) at initial connection step of \
                tcp-check";
    let expected = Fields {
        backend: "postgres".into(),
        server: Some("n1".into()),
        status: Some("DOWN".into()),
        status_before: Some("UP 1/3".into()),
        lasted: Some(Duration::from_secs(90)),
        reason: Some("Layer4 connection problem"),
        check_status: Some("L4CON"),
        check_info: Some(info.into()),
        check_duration: Some(Duration::from_micros(400)),
        sessions: Some(0),
        active_servers: Some(2),
        backup_servers: Some(1),
        ..Fields::default()
    };
    assert_eq!(down.fields, expected);
}

/// Fault 29: maintenance that an operator has asked for is planned, in HAProxy's severity.
#[test]
fn fault_29_maintenance_by_an_operator_is_planned() {
    let mut server = made(server("n1"));
    let (rules, now) = (server.rules(), Instant::now());
    let before = server.status.clone();
    server.status.set_admin(AdminState::FMAINT, rules, now);
    let event = ServerEvent {
        backend: "postgres",
        server: &server,
        usable: left(0, 0),
        check_is_logged: false,
        interface: Interface::Cli,
    };
    let [line] = changed(&before, event, None).try_into().unwrap();
    assert_eq!((line.severity, line.planned), (Severity::Alert, true));
    assert_eq!(line.fields.reason, Some("runtime command"));
    assert_eq!(line.fields.status.as_deref(), Some("MAINT"));
}

/// Fault 49: with `log-health-checks` the line of the check has the reason, this one does not.
#[test]
fn fault_49_the_reason_of_a_logged_check_is_not_repeated() {
    let mut server = made(server("n1"));
    let (rules, now) = (server.rules(), Instant::now());
    let before = server.status.clone();
    server.status.check_failed(rules, now);
    let event = ServerEvent {
        backend: "postgres",
        server: &server,
        usable: left(2, 0),
        check_is_logged: true,
        interface: Interface::Cli,
    };
    let lines = changed(&before, event, Some(&refused()));
    assert_eq!(
        lines[0].text,
        "Server postgres/n1 is DOWN. 2 active and 0 backup servers left. 0 sessions active, 0 \
         requeued, 0 remaining in queue."
    );
}

/// HAProxy says twice that the server is up, the second time without a cause.
#[test]
fn the_end_of_a_slow_start_is_told() {
    let mut server = made(model::Server {
        slowstart: Duration::from_secs(5),
        ..server("s1")
    });
    let (rules, now) = (server.rules(), Instant::now());
    let status = &mut server.status;
    status.set_admin(AdminState::FMAINT, rules, now);
    let lines = told(&mut server, left(4, 0), None, |status| {
        status.set_admin(AdminState::READY, rules, now);
    });
    let text = "Server postgres/s1 is UP/READY (leaving forced maintenance).";
    assert_eq!(lines, [(Severity::Notice, text.to_owned())]);
    let lines = told(&mut server, left(4, 0), None, |status| {
        status.step(rules, now + Duration::from_secs(4));
    });
    assert_eq!(lines, []);
    let before = server.status.clone();
    let lines = told(&mut server, left(4, 0), None, |status| {
        status.step(rules, now + Duration::from_secs(5));
    });
    let text = "Server postgres/s1 is UP. 4 active and 0 backup servers online. \
                0 sessions requeued, 0 total in queue.";
    assert_eq!(lines, [(Severity::Notice, text.to_owned())]);
    let event = ServerEvent {
        backend: "postgres",
        server: &server,
        usable: left(4, 0),
        check_is_logged: false,
        interface: Interface::Cli,
    };
    let fields = Fields::of_change(&before, event, None);
    assert_eq!(fields.reason, Some("end of slow start"));
}
