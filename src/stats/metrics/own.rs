//! rlb's own metrics: what HAProxy has no name for. They come after HAProxy's.

use super::families::Family;
use super::pair;
use super::source::Source;
use crate::stats::columns::Value;
use crate::stats::info::{Facts, Kind};
use crate::stats::process::{Phase, resources};
use prometheus::proto::LabelPair;

/// Labels and value, where there is one.
type Sample = Option<(Vec<LabelPair>, f64)>;

/// A metric of rlb's own.
#[derive(Debug)]
pub(super) enum Own {
    /// Of the process: name, kind, help, value.
    Process(&'static str, Kind, &'static str, fn(&Facts<'_>) -> Sample),
    /// Of each server.
    Server(&'static str, Family),
}

/// They, in order.
pub(super) static OWN: [Own; 8] = [
    Own::Process("rlb_build_info", Kind::Gauge, "Version of rlb", |_| {
        Some((vec![pair("version", env!("CARGO_PKG_VERSION"))], 1.0))
    }),
    Own::Process(
        "rlb_running",
        Kind::Gauge,
        "1 from the end of the start to the beginning of a stop, otherwise zero",
        |facts| {
            let running = facts.process.phase() == Phase::Ready;
            Some((vec![], u8::from(running).into()))
        },
    ),
    Own::Process(
        "rlb_accept_pauses_total",
        Kind::Counter,
        "Times accepting paused because a limit was reached",
        |facts| {
            let pauses = facts.snapshot.global.traffic.sum(|traffic| &traffic.paused);
            resource(Value::Number(pauses))
        },
    ),
    Own::Process(
        "rlb_resident_memory_bytes",
        Kind::Gauge,
        "Memory of the process that is in use",
        |_| resource(resources().0),
    ),
    Own::Process(
        "rlb_open_fds",
        Kind::Gauge,
        "Descriptors that are open",
        |_| resource(resources().1),
    ),
    Own::Server(
        "rlb_server_info",
        Family::of_servers(
            Kind::Gauge,
            Source::Address,
            "Address that connections to the server go to, as a label; always 1",
        ),
    ),
    Own::Server(
        "rlb_server_suspect",
        Family::of_servers(
            Kind::Gauge,
            Source::Suspect,
            "1 while connects to the server fail and it is asked last, otherwise zero",
        ),
    ),
    Own::Server(
        "rlb_server_usual_connect_seconds",
        Family::of_servers(
            Kind::Gauge,
            Source::UsualConnect,
            "What a connect to the server usually takes",
        ),
    ),
];

#[expect(clippy::needless_pass_by_value, reason = "made for this call")]
fn resource(value: Value<'_>) -> Sample {
    super::source::number(&value).map(|value| (vec![], value))
}
