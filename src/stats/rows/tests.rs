//! Order of the rows, and the figures that are not plain counters.

use super::*;
use crate::config::model;
use crate::live::slot::{BackendSlot, Slot};
use crate::live::{BackendLive, WorkerToken};
use crate::state::test_config;
use crate::stats::test_snapshot::{config, rows, seed, snapshot};
use std::sync::atomic::Ordering::Relaxed;

fn names(mut rows: Rows) -> Vec<String> {
    let mut names = vec![];
    while let Some(row) = rows.next() {
        names.push(format!("{}/{}", row.proxy(), row.service()));
    }
    names
}

fn find<T>(mut rows: Rows, service: &str, look: impl FnOnce(&Row<'_>) -> T) -> T {
    while let Some(row) = rows.next() {
        if row.service() == service && !row.is_http() {
            return look(&row);
        }
    }
    panic!("no row {service}");
}

#[test]
fn the_stats_proxy_comes_first_and_a_listen_is_one_group() {
    assert_eq!(
        names(rows(seed(2))),
        [
            "stats/FRONTEND",
            "stats/BACKEND",
            "postgres/FRONTEND",
            "postgres/node1",
            "postgres/node2",
            "postgres/BACKEND",
        ]
    );
}

#[test]
fn sections_of_their_own_keep_the_files_order() {
    let mut config = config(0);
    config.stats = None;
    config.frontends[0].order = 5;
    let mut late = test_config::frontend("late", 9);
    late.order = 9;
    let mut off = test_config::frontend("off", 1);
    off.disabled = true;
    config.frontends.insert(0, late);
    config.frontends.push(off);
    let mut web = test_config::backend("web", vec![test_config::server("w1")]);
    web.order = 7;
    config.backends.push(web);
    assert_eq!(
        names(rows(snapshot(&config))),
        [
            "postgres/BACKEND", // order 1, no servers
            "postgres/FRONTEND",
            "web/w1",
            "web/BACKEND",
            "late/FRONTEND",
        ]
    );
}

#[test]
fn limits_and_ids() {
    let rows = || rows(seed(1));
    find(rows(), "FRONTEND", |row| {
        assert_eq!(row.session_limit(), Some(2000), "the process's");
    });
    find(rows(), "BACKEND", |row| {
        assert_eq!(row.session_limit(), Some(200));
    });
    find(rows(), "node1", |row| assert_eq!(row.session_limit(), None));
    find(rows(), "node1", |row| assert_eq!(row.ids(), (3, 1)));
    let mut all = rows();
    assert_eq!(all.next().unwrap().session_limit(), Some(200));
    assert_eq!(all.next().unwrap().session_limit(), Some(20));
}

#[test]
fn a_backends_weight_is_that_of_its_rotation() {
    let weigh = |change: fn(&mut model::Backend)| {
        let mut config = config(4);
        for (weight, server) in (1..).zip(&mut config.backends[0].servers) {
            server.weight = weight;
        }
        config.backends[0].servers[2].backup = true;
        config.backends[0].servers[3].backup = true;
        change(&mut config.backends[0]);
        find(rows(snapshot(&config)), "BACKEND", |row| {
            (row.weight(), row.usable())
        })
    };
    assert_eq!(weigh(|_| {}), (1 + 2, (2, 2)));
    let down = |backend: &mut model::Backend| {
        backend.servers[0].disabled = true;
        backend.servers[1].disabled = true;
    };
    assert_eq!(weigh(down), (3, (0, 2)), "the first backup alone");
    let all_backups = |backend: &mut model::Backend| {
        backend.servers[0].disabled = true;
        backend.servers[1].disabled = true;
        backend.allbackups = true;
    };
    assert_eq!(weigh(all_backups), (3 + 4, (0, 2)));
}

#[test]
fn sums_go_over_all_shards() {
    let snapshot = seed(1);
    let backend = snapshot.backends[0].clone().unwrap();
    let live: &Arc<BackendLive> = &backend.live;
    let (one, two) = (WorkerToken::new(0), WorkerToken::new(1));
    for (token, bytes) in [(&one, 10), (&two, 32)] {
        live.traffic.mine(token).bin.add(bytes);
        live.traffic.mine(token).rate.count(10);
        live.traffic.mine(token).ctime.add(bytes);
    }
    live.traffic.mine(&two).last_session.store(4_001, Relaxed);
    let _slots = (
        BackendSlot::take(live, &one),
        Slot::take(&backend.servers[0].live, &two),
    );
    find(rows(snapshot), "BACKEND", |row| {
        assert_eq!(row.bytes(), (42, 0));
        assert_eq!(row.rate(|traffic| &traffic.rate), 2);
        assert_eq!(row.rate_max(), 2);
        assert_eq!(row.average(|traffic| &traffic.ctime), 21);
        assert_eq!(row.last_session(), 6, "seconds before 10 s");
        assert_eq!((row.active(), row.max(|traffic| &traffic.smax)), (1, 1));
        assert_eq!(row.last_change(), 10);
        assert_eq!(row.downtime(), Some(0));
    });
    find(rows(seed(1)), "BACKEND", |row| {
        assert_eq!(row.last_session(), -1);
    });
}

#[test]
fn addresses_are_printed_as_haproxy_does() {
    let address = |address: model::ServerAddress| {
        let mut config = config(1);
        config.backends[0].servers[0].address = address;
        find(rows(snapshot(&config)), "node1", |row| {
            row.address().map(|text| text.to_string())
        })
    };
    let ip = |ip: &str, port| model::ServerAddress::Ip(ip.parse().unwrap(), port);
    let fixed = model::ServerPort::Fixed(5432);
    assert_eq!(address(ip("10.0.0.1", fixed)).unwrap(), "10.0.0.1:5432");
    assert_eq!(
        address(ip("2001:db8::1", fixed)).unwrap(),
        "[2001:db8::1]:5432"
    );
    let offset = model::ServerPort::FromClient(-10);
    assert_eq!(address(ip("10.0.0.1", offset)).unwrap(), "10.0.0.1:-10");
    assert_eq!(
        address(model::ServerAddress::Unix("/run/x".into())).unwrap(),
        "unix"
    );
    assert_eq!(
        address(model::ServerAddress::Name("db".into(), fixed)),
        None
    );
}
