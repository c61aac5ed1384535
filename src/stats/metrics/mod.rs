//! `/metrics`: the columns and the items of the process for Prometheus, written by the `prometheus` crate's
//! encoder from the same rows as every other format. Admin thread.
//!
//! Invariant: no more than [`ROWS_MAX`] rows of one metric are in memory at once, so that ten thousand servers
//! with a hundred metrics each take many short turns. A metric that continues in the next chunk does not repeat
//! its header.

mod families;
mod own;
mod select;
mod source;

pub use select::Select;

use super::columns::Value;
use super::info::{Facts, ITEMS, Item, Kind};
use super::process::Process;
use super::requests::Requests;
use super::row::{self, Row};
use super::rows::Rows;
use crate::state::Snapshot;
use families::{FAMILIES, Family};
use own::{RLB_METRICS, RlbMetric};
use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use std::sync::Arc;
use std::time::Instant;

/// Media type of the text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Most rows in one chunk.
const ROWS_MAX: usize = 64;
/// A chunk ends after this many bytes, at the end of a part of a metric.
const CHUNK: usize = 16 * 1024;

/// Most parts of metrics in one chunk, unless it is still empty.
const STEPS_MAX: usize = 64;

/// Sections of the text, in HAProxy's order; rlb's own metrics come last.
const PARTS: [Part; 5] = [
    Part::Process,
    Part::Rows(row::Kind::Frontend),
    Part::Rows(row::Kind::Backend),
    Part::Rows(row::Kind::Server),
    Part::Rlb,
];

#[derive(Debug, Clone, Copy)]
enum Part {
    Process,
    Rows(row::Kind),
    Rlb,
}

/// The text, chunk by chunk.
#[derive(Debug)]
pub struct Metrics {
    snapshot: Arc<Snapshot>,
    process: Arc<Process>,
    requests: Arc<Requests>,
    now: Instant,
    rows: Rows,
    select: Select,
    part: usize,
    /// The metric within the part.
    index: usize,
    /// Whether its first rows have been read.
    within: bool,
    /// Whether its header has been written.
    headed: bool,
}

impl Metrics {
    /// The metrics of `snapshot` that `select` asks for, as of `now`; addresses of servers only with `legends`.
    pub fn new(
        snapshot: Arc<Snapshot>,
        process: Arc<Process>,
        requests: Arc<Requests>,
        now: Instant,
        (select, legends): (Select, bool),
    ) -> Self {
        let rows = Rows::new(Arc::clone(&snapshot), Arc::clone(&requests), now);
        Self {
            rows: rows.filtered(select.filter()).with_legends(legends),
            snapshot,
            process,
            requests,
            now,
            select,
            part: 0,
            index: 0,
            within: false,
            headed: false,
        }
    }

    /// The next metrics, or the next part of one; empty at the end.
    pub fn chunk(&mut self) -> String {
        let mut text = String::with_capacity(CHUNK + 4096);
        // Metrics without a value take time but no bytes.
        let mut steps = 0;
        while text.len() < CHUNK && (steps < STEPS_MAX || text.is_empty()) {
            steps += 1;
            let Some(part) = PARTS.get(self.part) else {
                break;
            };
            let more = match part {
                Part::Process => self.item(&mut text),
                Part::Rows(kind) => self.family(*kind, &mut text),
                Part::Rlb => self.own(&mut text),
            };
            if !more {
                self.part += 1;
                self.index = 0;
            }
        }
        text
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            snapshot: &self.snapshot,
            process: &self.process,
            requests: &self.requests,
            now: self.now,
        }
    }

    /// The next item of the process; `false` after the last.
    fn item(&mut self, text: &mut String) -> bool {
        let Some(item) = ITEMS.get(self.index) else {
            return false;
        };
        self.index += 1;
        let Some((metric, kind)) = item.metric else {
            return true;
        };
        let name = format!("haproxy_process_{metric}");
        if self.select.process() && self.select.wants(&name) {
            let sample = of_item(item, kind, &self.facts());
            write(
                text,
                &name,
                item.description,
                kind,
                sample.into_iter().collect(),
            );
        }
        true
    }

    /// The next part of the next metric of `kind`'s rows; `false` after the last.
    fn family(&mut self, kind: row::Kind, text: &mut String) -> bool {
        let Some(family) = FAMILIES.get(self.index) else {
            return false;
        };
        let name = format!("haproxy_{}_{}", scope(kind), family.name);
        if !family.is_of(kind) || !self.select.rows(kind) || !self.select.wants(&name) {
            self.index += 1;
            return true;
        }
        self.piece(kind, family, &name, text);
        true
    }

    /// The next of rlb's own metrics, or a part of it; `false` after the last.
    fn own(&mut self, text: &mut String) -> bool {
        let Some(own) = RLB_METRICS.get(self.index) else {
            return false;
        };
        match own {
            RlbMetric::Process(name, kind, help, value) => {
                self.index += 1;
                if self.select.process() && self.select.wants(name) {
                    let samples = value(&self.facts()).into_iter();
                    let samples = samples.map(|(labels, value)| metric(*kind, labels, value));
                    write(text, name, help, *kind, samples.collect());
                }
            }
            RlbMetric::Rows(name, kind, family) => {
                if self.select.rows(*kind) && self.select.wants(name) {
                    self.piece(*kind, family, name, text);
                } else {
                    self.index += 1;
                }
            }
        }
        true
    }

    /// The next rows of a metric; after the last, goes on to the next metric.
    fn piece(&mut self, kind: row::Kind, family: &Family, name: &str, text: &mut String) {
        if !self.within {
            self.rows.rewind(kind);
        }
        let mut samples = Vec::new();
        let mut rows = 0;
        let mut ended = true;
        while let Some(row) = self.rows.next() {
            of_row(family, &row, &mut samples);
            rows += 1;
            if rows == ROWS_MAX {
                ended = false;
                break;
            }
        }
        if !samples.is_empty() {
            let help = if self.headed { "" } else { family.help };
            write(text, name, help, family.kind, samples);
            self.headed = true;
        }
        self.within = !ended;
        if ended {
            self.headed = false;
            self.index += 1;
        }
    }
}

/// HAProxy's word for a kind of row in the names of metrics.
fn scope(kind: row::Kind) -> &'static str {
    match kind {
        row::Kind::Frontend => "frontend",
        row::Kind::Backend => "backend",
        row::Kind::Server => "server",
    }
}

/// Text becomes a label of a metric that is always 1; empty text gives no metric.
fn of_item(item: &Item, kind: Kind, facts: &Facts<'_>) -> Option<Metric> {
    match (item.value)(facts) {
        Value::Text(text) if text.is_empty() => None,
        Value::Text(text) => {
            let label = match item.name {
                "node" => "node",
                "description" => "desc",
                _ => "version",
            };
            Some(metric(kind, vec![pair(label, &text)], 1.0))
        }
        value => source::number(&value).map(|value| metric(kind, vec![], value)),
    }
}

fn of_row(family: &Family, row: &Row<'_>, samples: &mut Vec<Metric>) {
    family.source.samples(row, &mut |(label, value)| {
        let mut labels = vec![pair("proxy", row.proxy())];
        if row.kind() == row::Kind::Server {
            labels.push(pair("server", row.service()));
        }
        labels.extend(label.map(|(name, text)| pair(name, &text)));
        samples.push(metric(family.kind, labels, value));
    });
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn metric(kind: Kind, labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut metric = Metric::from_label(labels);
    match kind {
        Kind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
        Kind::Gauge => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
    }
    metric
}

/// Appends samples of one metric. Without `help` they continue samples before, without a header.
fn write(text: &mut String, name: &str, help: &str, kind: Kind, samples: Vec<Metric>) {
    if samples.is_empty() {
        return;
    }
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(match kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
    });
    family.set_metric(samples);
    let before = text.len();
    // Fails only for a metric without a name or a sample.
    let written = TextEncoder::new().encode_utf8(&[family], text);
    if written.is_err() {
        text.truncate(before);
    } else if help.is_empty() {
        let header = text[before..]
            .find('\n')
            .map_or(before, |end| before + end + 1);
        text.replace_range(before..header, "");
    }
}

#[cfg(test)]
mod tests;
