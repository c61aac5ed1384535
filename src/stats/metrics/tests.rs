//! The metrics against those of HAProxy, name by name, and the size of chunks.

use super::*;
use crate::live::{CheckStatus, LastReload, ReloadEnd};
use crate::stats::test_snapshot::{config, seed, snapshot};
use std::collections::BTreeMap;
use std::time::Duration;

/// `name type help` of every metric that HAProxy 3.5 wrote.
const THEIRS: &str = include_str!("../testdata/haproxy-3.5-metrics.txt");

/// Metrics that are left out, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    (
        "haproxy_process_current_zlib_memory",
        "rlb compresses nothing",
    ),
    ("haproxy_process_max_zlib_memory", "rlb compresses nothing"),
    (
        "haproxy_process_failed_resolutions",
        "not counted; `promtool` minds the name of a counter",
    ),
    (
        "haproxy_process_total_warnings",
        "not counted; `promtool` minds the name of a counter",
    ),
    (
        "haproxy_process_patterns_added_total",
        "rlb has no patterns; `promtool` minds the name",
    ),
    (
        "haproxy_process_patterns_freed_total",
        "rlb has no patterns; `promtool` minds the name",
    ),
    ("haproxy_resolver_", "rlb asks the system's resolver"),
];

fn metrics(snapshot: Snapshot, query: &str) -> Metrics {
    let snapshot = Arc::new(snapshot);
    let start = snapshot.global.start;
    Metrics::new(
        snapshot,
        Arc::new(Process::new(start)),
        Arc::new(Requests::default()),
        start + Duration::from_secs(10),
        (Select::of(query).unwrap(), true),
    )
}

fn whole(snapshot: Snapshot, query: &str) -> String {
    let mut metrics = metrics(snapshot, query);
    let mut text = String::new();
    loop {
        let chunk = metrics.chunk();
        if chunk.is_empty() {
            return text;
        }
        text.push_str(&chunk);
    }
}

fn families(text: &str) -> BTreeMap<&str, (&str, &str)> {
    let headers = |what| {
        text.lines()
            .filter_map(move |line: &str| line.strip_prefix(what)?.split_once(' '))
    };
    let types: BTreeMap<&str, &str> = headers("# TYPE ").collect();
    headers("# HELP ")
        .map(|(name, help)| (name, (types[name], help)))
        .collect()
}

/// A snapshot in which every metric has a value.
fn busy() -> Snapshot {
    let mut config = config(3);
    config.backends[0].servers[2].disabled = true;
    config.global.description = Some("app".into());
    config.global.node = Some("lb01".into());
    let snapshot = snapshot(&config);
    let server = &snapshot.backends[0].as_ref().unwrap().servers[0];
    server.live.check.store(crate::live::CheckReport {
        status: CheckStatus::L4Ok,
        duration: Some(Duration::from_millis(3)),
        ..Default::default()
    });
    snapshot
}

#[test]
fn every_metric_of_haproxy_is_there_or_left_out_for_a_reason() {
    let text = whole(busy(), "");
    let ours = families(&text);
    for line in THEIRS.lines() {
        let mut fields = line.splitn(3, ' ');
        let mut field = || fields.next().unwrap();
        let (name, kind, help) = (field(), field(), field());
        let left_out = LEFT_OUT.iter().any(|(part, _)| name.starts_with(part));
        assert_eq!(ours.contains_key(name), !left_out, "{name}");
        if !left_out {
            assert_eq!(ours[name], (kind, help), "{name}");
        }
    }
    let known = |name: &str| {
        THEIRS
            .lines()
            .any(|line| line.split(' ').next() == Some(name))
    };
    let unknown: Vec<_> = ours.keys().filter(|name| !known(name)).collect();
    assert!(
        unknown.iter().all(|name| name.starts_with("rlb_")),
        "{unknown:?}"
    );
    assert!(text.rfind("\nhaproxy_").unwrap() < text.find("# HELP rlb_").unwrap());
}

#[test]
fn samples_read_as_haproxys() {
    let text = whole(busy(), "");
    for line in [
        "haproxy_server_limit_sessions{proxy=\"postgres\",server=\"node1\"} NaN",
        "haproxy_server_status{proxy=\"postgres\",server=\"node1\",state=\"UP\"} 1",
        "haproxy_server_status{proxy=\"postgres\",server=\"node3\",state=\"MAINT\"} 1",
        "haproxy_server_check_status{proxy=\"postgres\",server=\"node1\",state=\"L4OK\"} 1",
        "haproxy_server_check_duration_seconds{proxy=\"postgres\",server=\"node1\"} 0.003",
        "haproxy_server_check_code{proxy=\"postgres\",server=\"node1\"} 0",
        "haproxy_server_last_session_seconds{proxy=\"postgres\",server=\"node1\"} -1",
        "haproxy_backend_active_servers{proxy=\"postgres\"} 2",
        "haproxy_backend_agg_server_status{proxy=\"postgres\",state=\"MAINT\"} 1",
        "haproxy_backend_agg_check_status{proxy=\"postgres\",state=\"L4OK\"} 1",
        "haproxy_frontend_status{proxy=\"postgres\",state=\"UP\"} 1",
        "haproxy_frontend_http_responses_total{proxy=\"stats\",code=\"2xx\"} 0",
        "haproxy_process_description{desc=\"app\"} 1",
        "haproxy_process_node{node=\"lb01\"} 1",
        "haproxy_process_uptime_seconds 10",
        "rlb_server_info{proxy=\"postgres\",server=\"node1\",address=\"127.0.0.1:9\"} 1",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
    }
    assert!(
        !text.contains("server=\"node3\",state=\"L4OK\""),
        "no check in maintenance"
    );
}

#[test]
fn reloads_are_counted_by_their_end() {
    let started = |text: &str| -> u64 {
        let name = "\nrlb_last_reload_timestamp_seconds ";
        let value = &text[text.find(name).expect("there") + name.len()..];
        let value = value.lines().next().unwrap();
        value.parse().expect("whole seconds")
    };
    let has = |text: &str, line: &str| assert!(text.contains(&format!("\n{line}\n")), "{text}");
    let snapshot = busy();
    let start = snapshot.global.start;
    let before = whole(snapshot, "scope=global");
    for result in ["success", "failure", "rollback", "rollback_failure"] {
        has(
            &before,
            &format!("rlb_reloads_total{{result=\"{result}\"}} 0"),
        );
    }
    has(&before, "rlb_last_reload_success 1");
    let reloaded = |ends: &[ReloadEnd]| {
        let mut snapshot = busy();
        // The clock of this process started with the other's.
        let global = crate::live::GlobalLive::new(start, 2);
        for &end in ends {
            let (at, lines) = (start + Duration::from_secs(7), vec![]);
            global.reloads.ended(LastReload { end, at, lines });
        }
        snapshot.global = Arc::new(global);
        whole(snapshot, "scope=global")
    };
    let after = reloaded(&[ReloadEnd::Refused, ReloadEnd::Done, ReloadEnd::Done]);
    has(&after, "rlb_reloads_total{result=\"success\"} 2");
    has(&after, "rlb_reloads_total{result=\"failure\"} 1");
    has(&after, "rlb_last_reload_success 1");
    let passed = started(&after) - started(&before);
    assert!((6..=8).contains(&passed), "{passed}");
    let back = reloaded(&[ReloadEnd::Done, ReloadEnd::RolledBack]);
    has(&back, "rlb_reloads_total{result=\"rollback\"} 1");
    has(&back, "rlb_last_reload_success 0");
    let stuck = reloaded(&[ReloadEnd::Done, ReloadEnd::RollbackFailed]);
    has(&stuck, "rlb_reloads_total{result=\"rollback_failure\"} 1");
    has(&stuck, "rlb_reloads_total{result=\"rollback\"} 0");
    has(&stuck, "rlb_last_reload_success 0");
    has(
        &reloaded(&[ReloadEnd::Refused]),
        "rlb_last_reload_success 0",
    );
}

#[test]
fn a_url_may_select_metrics() {
    let text = whole(
        busy(),
        "scope=server&no-maint&metrics=-haproxy_server_check_status",
    );
    assert!(text.contains("haproxy_server_status") && !text.contains("haproxy_process_"));
    assert!(!text.contains("node3") && !text.contains("haproxy_server_check_status"));
    let one = whole(
        busy(),
        "metrics=haproxy_server_current_sessions,haproxy_process_nbthread",
    );
    assert_eq!(families(&one).len(), 2, "{one}");
}

#[test]
fn many_servers_are_bounded_chunks_and_one_header_each() {
    let mut metrics = metrics(seed(2000), "scope=server");
    let (mut samples, mut headers) = (0, 0);
    loop {
        let chunk = metrics.chunk();
        if chunk.is_empty() {
            break;
        }
        assert!(chunk.len() < 256 * 1024, "{}", chunk.len());
        samples += chunk.matches("\nhaproxy_server_status{").count();
        samples += usize::from(chunk.starts_with("haproxy_server_status{"));
        headers += chunk.matches("# TYPE haproxy_server_status ").count();
    }
    assert_eq!((samples, headers), (5 * 2000, 1));
}

/// Rows of other proxies are in no metric, rlb's own neither.
#[test]
fn a_scope_leaves_only_its_proxies() {
    let snapshot = busy();
    let all = whole(busy(), "");
    let only: Vec<Arc<str>> = vec![Arc::clone(
        &snapshot.backends[0].as_ref().unwrap().spec.name,
    )];
    let start = snapshot.global.start;
    let mut metrics = Metrics::new(
        Arc::new(snapshot),
        Arc::new(Process::new(start)),
        Arc::new(Requests::default()),
        start + Duration::from_secs(10),
        (Select::of("").unwrap().within(&only), true),
    );
    let chunks = std::iter::from_fn(|| Some(metrics.chunk()).filter(|it| !it.is_empty()));
    let text: String = chunks.collect();
    let others = |text: &str| {
        let own = format!("proxy=\"{}\"", only[0]);
        let lines = text.lines().filter(|line| line.contains("proxy=\""));
        lines.filter(|line| !line.contains(&own)).count()
    };
    assert!(others(&all) > 0, "{all}");
    assert_eq!(others(&text), 0, "{text}");
    assert!(text.contains("haproxy_server_") && text.contains("haproxy_process_"));
}
