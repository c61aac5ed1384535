//! The table against recorded output of HAProxy: names, order, and which row has which value.

use super::*;
use crate::config::model;
use crate::live::CheckStatus;
use crate::state::{AdminState, Backend, Snapshot};
use crate::stats::Rows;
use crate::stats::test_snapshot::{config, rows, snapshot};
use std::sync::Arc;
use std::time::Duration;

const V35: &str = include_str!("../testdata/haproxy-3.5.csv");
const V26: &str = include_str!("../testdata/haproxy-2.6.csv");

/// Names of the columns that have a value in a recorded row, without those of modules.
fn recorded(csv: &'static str, proxy: &str, service: &str) -> Vec<&'static str> {
    let mut lines = csv.lines();
    let names = lines.next().unwrap().trim_start_matches("# ").split(',');
    let line = lines
        .find(|line| line.starts_with(&format!("{proxy},{service},")))
        .unwrap_or_else(|| panic!("no row {proxy},{service}"));
    names
        .zip(line.split(','))
        .take_while(|(name, _)| *name != "-")
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, _)| name)
        .collect()
}

/// Names of the columns that have a value in our row, among the first `columns`. Empty text counts as no value.
fn ours(rows: &mut Rows, service: &str, columns: usize) -> Vec<&'static str> {
    while let Some(row) = rows.next() {
        if row.service() == service {
            return COLUMNS[..columns]
                .iter()
                .filter(|column| match column.value(&row) {
                    Value::Absent => false,
                    Value::Text(text) => !text.is_empty(),
                    _ => true,
                })
                .map(|column| column.name)
                .collect();
        }
    }
    panic!("no row {service}");
}

/// A snapshot of the test configuration after `change` of its first server.
fn changed(change: impl FnOnce(&mut Server)) -> Snapshot {
    changed_spec(|_| {}, change)
}

fn changed_spec(
    spec: impl FnOnce(&mut model::Server),
    change: impl FnOnce(&mut Server),
) -> Snapshot {
    let mut config = config(3);
    spec(&mut config.backends[0].servers[0]);
    let mut snapshot = snapshot(&config);
    let mut backend = Backend::clone(snapshot.backends[0].as_ref().unwrap());
    change(Arc::make_mut(&mut backend.servers[0]));
    snapshot.backends[0] = Some(Arc::new(backend));
    snapshot
}

fn report(server: &Server, status: CheckStatus, info: &str) {
    server.live.check.store(CheckReport {
        status,
        duration: Some(Duration::from_millis(3)),
        info: info.into(),
        code: 0,
        in_progress: false,
    });
}

#[test]
fn names_and_order_are_haproxys() {
    let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
    for csv in [V35, V26] {
        let header = csv.lines().next().unwrap().trim_start_matches("# ");
        let theirs: Vec<&str> = header.split(',').take_while(|name| *name != "-").collect();
        assert_eq!(names[..theirs.len()], theirs);
    }
    assert_eq!(names.last(), Some(&"cache_hint_hits"));
}

#[test]
fn frontends_and_backends_have_what_haproxys_have() {
    for (csv, columns) in [(V35, 119), (V26, 103)] {
        let mut rows = rows(changed(|_| {}));
        let stats = ours(&mut rows, "FRONTEND", columns);
        assert_eq!(stats, recorded(csv, "stats", "FRONTEND"));
        rows.next().expect("the stats proxy's backend");
        let frontend = ours(&mut rows, "FRONTEND", columns);
        assert_eq!(frontend, recorded(csv, "postgres", "FRONTEND"));
        let backend = ours(&mut rows, "BACKEND", columns);
        assert_eq!(backend, recorded(csv, "postgres", "BACKEND"));
        assert_eq!(backend, recorded(csv, "kube-api", "BACKEND"));
    }
}

#[test]
fn the_stats_proxys_backend_is_that_of_a_listen_section() {
    let mut rows = rows(changed(|_| {}));
    let ours = ours(&mut rows, "BACKEND", 119);
    let mut expected = recorded(V35, "postgres", "BACKEND");
    // It has no servers that can be down and no algorithm, and it counts HTTP.
    expected.retain(|name| !["downtime", "algo"].contains(name));
    expected.extend([
        "hrsp_1xx",
        "hrsp_2xx",
        "hrsp_3xx",
        "hrsp_4xx",
        "hrsp_5xx",
        "hrsp_other",
    ]);
    expected.extend(["req_tot", "cache_lookups", "cache_hits", "cache_hint_hits"]);
    let place = |name: &&str| COLUMNS.iter().position(|column| column.name == *name);
    expected.sort_by_key(place);
    assert_eq!(ours, expected);
}

#[test]
fn servers_have_what_haproxys_have() {
    let up = || {
        changed(|server| {
            server.status.health = 4;
            report(server, CheckStatus::L4Ok, "");
        })
    };
    let down = || {
        changed(|server| {
            server
                .status
                .check_failed(server.rules(), server.status.since);
            report(server, CheckStatus::L4Con, "Connection refused");
        })
    };
    for (csv, columns) in [(V35, 119), (V26, 103)] {
        let row = ours(&mut rows(up()), "node1", columns);
        assert_eq!(row, recorded(csv, "postgres", "app-direct-node01"));
        let row = ours(&mut rows(down()), "node1", columns);
        assert_eq!(row, recorded(csv, "postgres", "app-direct-node03"));
    }
}

#[test]
fn servers_in_maintenance_drain_and_without_a_check_have_what_haproxys_have() {
    let maint = changed(|server| {
        let (rules, now) = (server.rules(), server.status.since);
        report(server, CheckStatus::L4Ok, "");
        server.status.set_admin(AdminState::FMAINT, rules, now);
    });
    let disabled = changed_spec(|spec| spec.disabled = true, |_| {});
    let drain = changed(|server| {
        server.status.admin = AdminState::FDRAIN;
        report(server, CheckStatus::L4Ok, "");
    });
    let unchecked = changed_spec(|spec| spec.check = None, |_| {});
    let backup = changed_spec(
        |spec| spec.backup = true,
        |server| report(server, CheckStatus::L4Ok, ""),
    );
    for (snapshot, service) in [
        (maint, "act-maint"),
        (disabled, "act-maint-cfg"),
        (drain, "act-drain"),
        (unchecked, "act-nocheck"),
        (backup, "bck-up"),
    ] {
        let row = ours(&mut rows(snapshot), "node1", 103);
        assert_eq!(row, recorded(V26, "states", service), "{service}");
    }
}

/// As in HAProxy the number is there where `observe` is, and such a check has taken no time.
#[test]
fn an_observed_server_has_a_number_more() {
    let snapshot = changed_spec(
        |spec| spec.observe = true,
        |server| {
            server.live.check.store(CheckReport {
                status: CheckStatus::HealthAnalyze,
                ..CheckReport::default()
            });
        },
    );
    let mut rows = rows(snapshot);
    let mut seen = Vec::new();
    while let Some(row) = rows.next() {
        let number = hanafail(&row);
        if number != Value::Absent {
            seen.push((row.service().to_owned(), number));
            assert_eq!(check_status(&row), Value::Text("HANA".into()));
            assert_eq!(check_duration(&row), Value::Number(0));
        }
    }
    assert_eq!(seen, [("node1".to_owned(), Value::Number(0))]);
}

#[test]
fn a_running_check_has_a_star() {
    let snapshot = changed(|server| {
        let report = CheckReport {
            status: CheckStatus::L4Ok,
            in_progress: true,
            ..CheckReport::default()
        };
        server.live.check.store(report);
    });
    let mut rows = rows(snapshot);
    while let Some(row) = rows.next() {
        if row.service() == "node1" {
            assert_eq!(check_status(&row), Value::Text("* L4OK".into()));
            assert_eq!(check_duration(&row), Value::Absent);
            return;
        }
    }
    panic!("no row node1");
}

/// What a server is shown with: `weight`, `uweight` and `throttle`.
fn weights(rows: &mut Rows, service: &str) -> [Value<'static>; 3] {
    while let Some(row) = rows.next() {
        if row.service() == service && row.proxy() == "postgres" {
            return ["weight", "uweight", "throttle"].map(|name| match named(name).value(&row) {
                Value::Number(number) => Value::Number(number),
                _ => Value::Absent,
            });
        }
    }
    panic!("no row {service}");
}

/// Weights of servers, with `weight` and `throttle` of HAProxy 2.6 and 3.5 in each second of their `slowstart`, as they were
/// recorded.
#[rustfmt::skip] // a table
const SLOW_STARTS: [(u32, &[(u64, u64)]); 3] = [
    (10, &[
        (1, 6), (1, 6), (2, 12), (2, 18), (3, 25), (4, 31), (4, 31), (4, 37), (5, 43), (5, 50),
        (6, 56), (6, 56), (7, 62), (7, 68), (8, 75), (9, 81), (9, 81), (9, 87), (10, 93), (10, 100),
    ]),
    (1, &[(1, 7), (1, 19), (1, 32), (1, 44), (1, 63), (1, 75), (1, 88)]),
    (256, &[
        (16, 6), (32, 12), (48, 18), (64, 25), (80, 31), (112, 43), (128, 50), (144, 56), (160, 62),
        (192, 75), (208, 81), (224, 87), (240, 93),
    ]),
];

/// The rows of a backend that chooses like this, of which the first server has been back for `second` seconds.
fn slow_start(
    (weight, all): (u32, u64),
    (second, admin): (u64, AdminState),
    balance: model::Balance,
) -> Rows {
    let slow = |spec: &mut model::Server| {
        spec.weight = weight;
        spec.slowstart = Duration::from_secs(all);
    };
    let mut snapshot = changed_spec(slow, |server| {
        let (rules, since) = (server.rules(), server.status.since);
        server.status.set_admin(AdminState::FMAINT, rules, since);
        server.status.set_admin(admin, rules, since);
        let now = since + Duration::from_secs(second);
        server.status.step(rules, now);
    });
    let mut backend = Backend::clone(snapshot.backends[0].as_ref().unwrap());
    Arc::make_mut(&mut backend.spec).balance = balance;
    snapshot.backends[0] = Some(Arc::new(backend));
    rows(snapshot)
}

#[test]
fn a_slow_start_is_shown_as_in_haproxy() {
    let number = |number: u64| Value::Number(number);
    for (weight, steps) in SLOW_STARTS {
        let server = (weight, steps.len() as u64);
        let whole = number(weight.into());
        let at = |second, balance| slow_start(server, (second, AdminState::READY), balance);
        for (second, &(in_force, throttle)) in (0..).zip(steps) {
            let mut rows = at(second, model::Balance::LeastConn);
            let expected = [number(in_force), whole.clone(), number(throttle)];
            assert_eq!(weights(&mut rows, "node1"), expected);
            let sum = number(in_force + 2);
            assert_eq!(weights(&mut rows, "BACKEND")[0], sum, "{second}");
        }
        // A map does not follow, and HAProxy says so.
        let mut rows = at(0, model::Balance::StaticRr);
        let expected = [whole.clone(), whole.clone(), number(100)];
        assert_eq!(weights(&mut rows, "node1"), expected);
        let drain = (0, AdminState::FDRAIN);
        let mut rows = slow_start(server, drain, model::Balance::RoundRobin);
        assert_eq!(weights(&mut rows, "node1")[2], Value::Absent, "drain");
        let mut rows = at(server.1, model::Balance::RoundRobin);
        let expected = [whole.clone(), whole, Value::Absent];
        assert_eq!(weights(&mut rows, "node1"), expected);
    }
}
