//! rlb's own metrics, which HAProxy does not have. They come after HAProxy's.

use super::families::Family;
use super::pair;
use super::source::Source;
use crate::live::source_failures::SourceFailure;
use crate::live::{Gauge, ReloadEnd, ShortageStep};
use crate::stats::columns::Value;
use crate::stats::info::{Facts, Kind};
use crate::stats::process::{Phase, resources};
use crate::stats::row;
use crate::sys::limits::Shortage;
use prometheus::proto::LabelPair;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Labels and value of each sample; empty when there is no value.
type Samples = Vec<(Vec<LabelPair>, f64)>;

/// A metric that only rlb has.
#[derive(Debug)]
pub(super) enum RlbMetric {
    /// Of the process: name, kind, help, value.
    Process(&'static str, Kind, &'static str, fn(&Facts<'_>) -> Samples),
    /// Of each row of a kind.
    Rows(&'static str, row::Kind, Family),
}

const REBALANCED: &str =
    "Sessions that were ended so that all servers have their shares again, where rebalance is set";

/// rlb's own metrics, in order.
pub(super) static RLB_METRICS: [RlbMetric; 24] = [
    RlbMetric::Process("rlb_build_info", Kind::Gauge, "Version of rlb", |_| {
        vec![(vec![pair("version", env!("CARGO_PKG_VERSION"))], 1.0)]
    }),
    RlbMetric::Process(
        "rlb_running",
        Kind::Gauge,
        "1 from the end of the start to the beginning of a stop, otherwise zero",
        |facts| {
            let running = facts.process.phase() == Phase::Ready;
            vec![(vec![], u8::from(running).into())]
        },
    ),
    RlbMetric::Process(
        "rlb_accept_pauses_total",
        Kind::Counter,
        "Times accepting paused because a limit was reached",
        |facts| {
            let pauses = facts.snapshot.global.traffic.sum(|traffic| &traffic.paused);
            plain(Value::Number(pauses))
        },
    ),
    RlbMetric::Process(
        "rlb_worker_sessions",
        Kind::Gauge,
        "Sessions of each worker now",
        |facts| {
            let sample = |(worker, sessions): (usize, &Gauge)| {
                let label = pair("worker", &worker.to_string());
                (vec![label], sessions.get().into())
            };
            let load = &facts.snapshot.global.load;
            load.workers().enumerate().map(sample).collect()
        },
    ),
    RlbMetric::Process(
        "rlb_reloads_total",
        Kind::Counter,
        "Reloads of the configuration, by how they ended; one that is taken back later counts twice",
        reloads,
    ),
    RlbMetric::Process(
        "rlb_last_reload_success",
        Kind::Gauge,
        "1 if the last reload took effect and was not to be taken back, otherwise zero; the start is the first",
        |facts| {
            let last = facts.snapshot.global.reloads.last.load();
            let good = last.as_ref().is_none_or(|it| it.end == ReloadEnd::Done);
            vec![(vec![], u8::from(good).into())]
        },
    ),
    RlbMetric::Process(
        "rlb_last_reload_timestamp_seconds",
        Kind::Gauge,
        "When the last reload ended, whatever became of it, in seconds since 1970; the start is the first",
        |facts| {
            let global = &facts.snapshot.global;
            let last = global.reloads.last.load();
            let after = last.as_ref().map_or(0, |it| global.millis(it.at) / 1000);
            plain(Value::Number(facts.process.started + after))
        },
    ),
    RlbMetric::Process(
        "rlb_old_processes",
        Kind::Gauge,
        "Processes before this one that still have sessions after an upgrade",
        |facts| {
            let old = facts.snapshot.global.old_processes.load();
            plain(Value::Number(old.len() as u64))
        },
    ),
    RlbMetric::Process(
        "rlb_old_process_sessions",
        Kind::Gauge,
        "Sessions of the processes before this one",
        |facts| {
            let old = facts.snapshot.global.old_processes.load();
            plain(Value::Number(old.iter().map(|it| it.sessions).sum()))
        },
    ),
    RlbMetric::Process(
        "rlb_resident_memory_bytes",
        Kind::Gauge,
        "Memory of the process that is in use",
        |_| plain(resources().0),
    ),
    RlbMetric::Process(
        "rlb_open_fds",
        Kind::Gauge,
        "Descriptors that are open",
        |_| plain(resources().1),
    ),
    RlbMetric::Process(
        "rlb_shortages_total",
        Kind::Counter,
        "Times that rlb could not have something of its own, by the step that wanted it and by what it was",
        shortages,
    ),
    RlbMetric::Process(
        "rlb_source_failures_total",
        Kind::Counter,
        "Times that a configured source address could not be used: its ports were used up, or it was refused",
        source_failures,
    ),
    RlbMetric::Rows(
        "rlb_backend_failed_sessions_total",
        row::Kind::Backend,
        Family::of_backends(
            Kind::Counter,
            Source::FailedSessions,
            "Sessions that got no server, by cause",
        ),
    ),
    RlbMetric::Rows(
        "rlb_backend_fail_open",
        row::Kind::Backend,
        Family::of_backends(
            Kind::Gauge,
            Source::FailOpen,
            "1 while too few servers are up for the checks to be believed, otherwise zero, where fail-open-below is set",
        ),
    ),
    RlbMetric::Rows(
        "rlb_backend_priority",
        row::Kind::Backend,
        Family::of_backends(
            Kind::Gauge,
            Source::Priority,
            "Highest priority of the servers that new sessions are shared among, where servers have several",
        ),
    ),
    RlbMetric::Rows(
        "rlb_backend_rebalanced_sessions_total",
        row::Kind::Backend,
        Family::of_backends(Kind::Counter, Source::Rebalanced, REBALANCED),
    ),
    RlbMetric::Rows(
        "rlb_server_rebalanced_sessions_total",
        row::Kind::Server,
        Family::of_servers(Kind::Counter, Source::Rebalanced, REBALANCED),
    ),
    RlbMetric::Rows(
        "rlb_backend_retries_denied_total",
        row::Kind::Backend,
        Family::of_backends(
            Kind::Counter,
            Source::RetriesDenied,
            "Times that no server was tried after the first, because retry-budget was used up, where it is set",
        ),
    ),
    RlbMetric::Rows(
        "rlb_server_info",
        row::Kind::Server,
        Family::of_servers(
            Kind::Gauge,
            Source::Address,
            "Address that connections to the server go to, as a label; always 1",
        ),
    ),
    RlbMetric::Rows(
        "rlb_server_held_down_seconds",
        row::Kind::Server,
        Family::of_servers(
            Kind::Gauge,
            Source::HeldDown,
            "How much longer the server is held down because it has gone down again and again, where hold-down is set",
        ),
    ),
    RlbMetric::Rows(
        "rlb_server_observed_errors_total",
        row::Kind::Server,
        Family::of_servers(
            Kind::Counter,
            Source::Column("hanafail"),
            "Times that as many connects in a row have failed as error-limit says, where observe is set",
        ),
    ),
    RlbMetric::Rows(
        "rlb_server_suspect",
        row::Kind::Server,
        Family::of_servers(
            Kind::Gauge,
            Source::Suspect,
            "1 while connects to the server fail and it is asked last, otherwise zero",
        ),
    ),
    RlbMetric::Rows(
        "rlb_server_usual_connect_seconds",
        row::Kind::Server,
        Family::of_servers(
            Kind::Gauge,
            Source::UsualConnect,
            "What a connect to the server usually takes",
        ),
    ),
];

/// Every result has a series from the start, so that the first failure is an increase.
fn reloads(facts: &Facts<'_>) -> Samples {
    let reloads = &facts.snapshot.global.reloads;
    let results = [
        ("success", &reloads.succeeded),
        ("failure", &reloads.failed),
        ("rollback", &reloads.rolled_back),
        ("rollback_failure", &reloads.rollbacks_failed),
    ];
    let sample = |(result, count): (&str, &AtomicU64)| {
        let value = super::source::number(&Value::Number(count.load(Relaxed)))?;
        Some((vec![pair("result", result)], value))
    };
    results.into_iter().filter_map(sample).collect()
}

/// Every step and cause has a series from the start, so that the first shortage is an increase.
fn shortages(facts: &Facts<'_>) -> Samples {
    let traffic = &facts.snapshot.global.traffic;
    let pairs = ShortageStep::ALL
        .into_iter()
        .flat_map(|step| Shortage::ALL.map(|shortage| (step, shortage)));
    let sample = |(step, shortage): (ShortageStep, Shortage)| {
        let times = traffic.sum(|shard| shard.shortages.of(step, shortage));
        let value = super::source::number(&Value::Number(times))?;
        let labels = vec![pair("step", step.name()), pair("cause", shortage.name())];
        Some((labels, value))
    };
    pairs.filter_map(sample).collect()
}

/// Every address of the configuration has a series from the start. The one that the system chooses is `*`.
fn source_failures(facts: &Facts<'_>) -> Samples {
    let backends = facts.snapshot.backends.iter().flatten();
    let sources = backends.flat_map(|backend| {
        let of_servers = backend
            .servers
            .iter()
            .filter_map(|it| it.spec.source.as_ref());
        of_servers.chain(&backend.spec.source)
    });
    let addresses: BTreeSet<Option<IpAddr>> =
        sources.flat_map(|all| all.iter().map(|it| it.ip)).collect();
    let counts = &facts.snapshot.global.source_failures;
    let sample = |(ip, failure): (Option<IpAddr>, SourceFailure)| {
        let value = super::source::number(&Value::Number(counts.of(ip, failure)))?;
        let address = ip.map_or_else(|| "*".to_owned(), |ip| ip.to_string());
        let labels = vec![pair("address", &address), pair("cause", failure.name())];
        Some((labels, value))
    };
    let pairs = addresses
        .into_iter()
        .flat_map(|ip| SourceFailure::ALL.map(|failure| (ip, failure)));
    pairs.filter_map(sample).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "made for this call")]
fn plain(value: Value<'_>) -> Samples {
    let value = super::source::number(&value);
    value.map(|value| (vec![], value)).into_iter().collect()
}
