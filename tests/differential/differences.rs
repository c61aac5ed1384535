//! What differs between two runs.

use crate::harness::csv::{Csv, Row};
use crate::run::{Observation, Observed};
use crate::script::Kind;
use std::collections::BTreeMap;
use std::fmt::Display;

/// Columns of `show stat` that are not compared, and why.
const LEFT_OUT: &[(&str, &[&str])] = &[
    ("time since something", &["lastchg", "lastsess"]),
    (
        "rates: how many connections fall into one second",
        &["rate", "rate_max", "conn_rate", "conn_rate_max"],
    ),
    (
        "how long something took",
        &[
            "downtime",
            "check_duration",
            "qtime",
            "ctime",
            "rtime",
            "ttime",
            "qtime_max",
            "ctime_max",
            "rtime_max",
            "ttime_max",
        ],
    ),
    ("the process", &["pid"]),
    (
        "idle connections for later requests, which TCP has none of",
        &["need_conn_est"],
    ),
    (
        "HAProxy 3.5 leaves the text of the error out now and then; `check_status` is compared",
        &["last_chk"],
    ),
];

/// Columns that depend on how many clients there are at once.
const OF_A_CROWD: &[&str] = &["smax", "qmax"];

/// Observations that differ in the same way.
#[derive(Debug)]
pub(crate) struct Difference {
    /// What differs: `log letters`, `client end`, `stat BACKEND/SERVER COLUMN`.
    pub(crate) key: String,
    /// The first pair, HAProxy's before rlb's.
    first: String,
    count: usize,
}

impl Difference {
    /// For people.
    pub(crate) fn text(&self) -> String {
        format!("{} ({} times): {}", self.key, self.count, self.first)
    }
}

/// All differences, one for each key.
#[derive(Debug, Default)]
struct Differences(BTreeMap<String, Difference>);

impl Differences {
    fn compare(&mut self, key: &str, at: &str, theirs: impl Display, ours: impl Display) {
        let (theirs, ours) = (theirs.to_string(), ours.to_string());
        if theirs == ours {
            return;
        }
        let entry = self.0.entry(key.to_owned());
        let entry = entry.or_insert_with(|| Difference {
            key: key.to_owned(),
            first: format!("{at}: HAProxy {theirs:?}, rlb {ours:?}"),
            count: 0,
        });
        entry.count += 1;
    }
}

/// Lines of a run in which HAProxy may count one connection too many: it counts one before it accepts it, and after each
/// it tries to accept another, while another thread writes a line.
const ONE_MORE_MAX: usize = 3;

/// Whether HAProxy's line counts one connection more for the process and the frontend than rlb's.
fn counts_one_more(theirs: &Observation, ours: &Observation) -> bool {
    let counts = |it: &Observation| -> Option<Vec<u32>> {
        let mut parts = it.line.iter().flat_map(|line| &line.parts);
        let (_, counts) = parts.find(|(part, _)| *part == "counts")?;
        counts.split('/').map(|count| count.parse().ok()).collect()
    };
    let (Some(mut theirs), Some(ours)) = (counts(theirs), counts(ours)) else {
        return false;
    };
    for count in theirs.iter_mut().take(2) {
        *count = count.saturating_sub(1);
    }
    theirs == ours
}

/// Compares two runs of the same script.
pub(crate) fn between(theirs: &Observed, ours: &Observed) -> Vec<Difference> {
    let mut found = Differences::default();
    let pairs = || theirs.connections.iter().zip(&ours.connections);
    let chance = pairs().filter(|(theirs, ours)| counts_one_more(theirs, ours));
    let chance = chance.count() <= ONE_MORE_MAX;
    for (theirs, ours) in pairs() {
        connection(&mut found, theirs, ours, chance);
    }
    found.compare("log strays", "lines", theirs.strays, ours.strays);
    for ((command, theirs), (_, ours)) in theirs.answers.iter().zip(&ours.answers) {
        found.compare("answer", command, theirs, ours);
    }
    let (theirs_alone, ours_alone) = (
        alone(&theirs.events, &ours.events),
        alone(&ours.events, &theirs.events),
    );
    for at in 0..theirs_alone.len().max(ours_alone.len()) {
        let [theirs, ours] =
            [&theirs_alone, &ours_alone].map(|events| events.get(at).map_or("", String::as_str));
        found.compare("log event", &format!("event {at}"), theirs, ours);
    }
    rows(&mut found, &theirs.rows, &ours.rows, theirs.crowd);
    found.0.into_values().collect()
}

/// The events that are in `events` more often than in `others`. Servers are checked in no particular order.
fn alone(events: &[String], others: &[String]) -> Vec<String> {
    let mut others: Vec<String> = others.iter().map(|it| infoless(it)).collect();
    let mut alone = Vec::new();
    for event in events.iter().map(|it| infoless(it)) {
        match others.iter().position(|other| *other == event) {
            Some(at) => drop(others.swap_remove(at)),
            None => alone.push(event),
        }
    }
    alone
}

fn connection(found: &mut Differences, theirs: &Observation, ours: &Observation, chance: bool) {
    let (at, kind) = (&theirs.label, theirs.kind);
    let one_more = chance && counts_one_more(theirs, ours);
    found.compare("client server", at, &theirs.seen.server, &ours.seen.server);
    let bytes = |it: &Observation| format!("{} {}", it.seen.received, it.seen.intact);
    found.compare("client bytes", at, bytes(theirs), bytes(ours));
    let end = |it: &Observation| format!("{:?}", it.seen.end);
    found.compare(&format!("client end {kind:?}"), at, end(theirs), end(ours));
    match (&theirs.line, &ours.line) {
        (Some(theirs), Some(ours)) => {
            // HAProxy notices the end of such a client before or after its server has answered.
            let chance = kind == Kind::Null && theirs.has("letters", "CC");
            for ((part, theirs), (_, ours)) in theirs.parts.iter().zip(&ours.parts) {
                if chance && ["letters", "times"].contains(part) {
                    continue;
                }
                if one_more && *part == "counts" {
                    continue;
                }
                found.compare(&format!("log {part}"), at, theirs, ours);
            }
        }
        (theirs, ours) => {
            found.compare("log line", at, theirs.is_some(), ours.is_some());
        }
    }
}

fn rows(found: &mut Differences, theirs: &Csv, ours: &Csv, crowd: bool) {
    let names = |csv: &Csv| {
        let names = csv
            .rows()
            .map(|row| format!("{}/{}", row.text("pxname"), row.text("svname")));
        names.collect::<Vec<_>>()
    };
    found.compare(
        "stat rows",
        "names",
        names(theirs).join(" "),
        names(ours).join(" "),
    );
    let is_compared = |column: &str| {
        let left_out = LEFT_OUT
            .iter()
            .any(|(_, columns)| columns.contains(&column));
        let of_a_crowd = crowd && OF_A_CROWD.contains(&column);
        !left_out && !of_a_crowd
    };
    let columns: Vec<&String> = theirs
        .columns()
        .iter()
        .filter(|column| ours.columns().contains(column) && is_compared(column))
        .collect();
    for theirs in theirs.rows() {
        let (proxy, server) = (theirs.text("pxname"), theirs.text("svname"));
        let Some(ours) = ours.find(proxy, server) else {
            continue;
        };
        for column in &columns {
            let key = format!("stat {proxy}/{server} {column}");
            let value = |row: Row<'_>| value(row, column);
            found.compare(&key, "at the end", value(theirs), value(ours));
        }
    }
}

/// A value as it is compared.
fn value(row: Row<'_>, column: &str) -> String {
    match (column, row.text(column)) {
        // A session may begin before the one before it has ended.
        ("smax", "1" | "2" | "3") => "few".to_owned(),
        (_, text) => text.trim_start_matches("* ").to_owned(),
    }
}

/// An event without the text of an error, which HAProxy 3.5 leaves out now and then; the reason stays.
fn infoless(event: &str) -> String {
    let Some((before, rest)) = event.split_once(", info: \"") else {
        return event.to_owned();
    };
    let after = rest.split_once('"').map_or("", |(_, after)| after);
    format!("{before}{after}")
}
