//! What a process has counted, as it is handed over with `go`, so that totals go on; and what it counts after that
//! while its sessions end.
//!
//! Text: the version in the first line, then a line for each object that has counted anything, its fields
//! separated by tabs: kind, name (of a server: backend and server), and `NAME=NUMBER` pairs. Tolerant both
//! ways: a reader ignores names, kinds and objects that it does not know, and takes what is missing for 0.
//!
//! Not handed over: gauges, rates of the running second, averages, and the time of the last session, which is in
//! the old process's clock.

use crate::live::counters::{COUNTERS, MAXIMA};
use crate::live::failures::{FailureCause, ShortageStep};
use crate::live::timing::millis;
use crate::live::{Counter, FrontendLive, GlobalTraffic, Shards, Traffic, WorkerToken};
use crate::state::{BackendId, Server, Snapshot, SnapshotBuilder};
use crate::sys::limits::Shortage;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The version of the text: a reader that knows another takes nothing.
const VERSION: &str = "1";

/// The name of the number of retries that were not made.
const DENIED: &str = "denied";

/// A counter of the process by its name.
type NamedCounter = (&'static str, fn(&GlobalTraffic) -> &Counter);

/// The counters of the process.
const GLOBAL: [NamedCounter; 4] = [
    ("conn_tot", |traffic| &traffic.conn_tot),
    ("bytes_out", |traffic| &traffic.bytes_out),
    ("spliced_out", |traffic| &traffic.spliced_out),
    ("paused", |traffic| &traffic.paused),
];

/// Counters of the process that several threads write.
fn shared(snapshot: &Snapshot) -> [(&'static str, &AtomicU64); 5] {
    let (global, reloads) = (&snapshot.global, &snapshot.global.reloads);
    [
        ("dropped_logs", &global.dropped_logs),
        ("reloads", &reloads.succeeded),
        ("reloads_failed", &reloads.failed),
        ("reloads_rolled_back", &reloads.rolled_back),
        ("rollbacks_failed", &reloads.rollbacks_failed),
    ]
}

/// What was counted up to `now`.
pub(in crate::control) fn write(snapshot: &Snapshot, now: Instant) -> String {
    let mut text = format!("{VERSION}\n");
    let global = GLOBAL.map(|(name, counter)| (name, snapshot.global.traffic.sum(counter)));
    let shared = shared(snapshot).map(|(name, count)| (name, count.load(Relaxed)));
    line(&mut text, &["process"], global.into_iter().chain(shared));
    for step in ShortageStep::ALL {
        let of = |traffic: &GlobalTraffic, what| traffic.shortages.of(step, what).get();
        let total = |what| snapshot.global.traffic.iter().map(|it| of(it, what)).sum();
        let counts = Shortage::ALL.map(|what| (what.name(), total(what)));
        line(&mut text, &["shortages", step.name()], counts.into_iter());
    }
    let frontends = snapshot.frontends.iter().flatten();
    let frontends = frontends.map(|frontend| ("frontend", &frontend.live));
    for (kind, live) in frontends.chain([("stats", &snapshot.stats_live)]) {
        let rates = [
            ("rate_max", &live.rate_max),
            ("conn_rate_max", &live.conn_rate_max),
        ];
        line(&mut text, &[kind, &live.name], of(&live.traffic, &rates));
    }
    for backend in snapshot.backends.iter().flatten() {
        let live = &backend.live;
        let down = [("downtime_ms", millis(backend.status.downtime(now)))];
        let counted = of(&live.traffic, &[("rate_max", &live.rate_max)]);
        line(&mut text, &["backend", &live.name], counted.chain(down));
        let total = |cause| live.failed_sessions.sum(|failed| failed.of(cause));
        let failed = FailureCause::ALL
            .into_iter()
            .map(|it| (it.name(), total(it)));
        line(&mut text, &["failed_sessions", &live.name], failed);
        let denied = [(DENIED, live.retries.denied())];
        line(&mut text, &["retries", &live.name], denied.into_iter());
        for server in &backend.servers {
            let live = &server.live;
            let down = [("downtime_ms", millis(server.status.downtime(now)))];
            let counted = of(&live.traffic, &[("rate_max", &live.rate_max)]);
            let names = ["server", &backend.live.name, &server.spec.name];
            line(&mut text, &names, counted.chain(down));
        }
    }
    text
}

fn of<'a>(
    traffic: &'a Shards<Traffic>,
    rates: &[(&'static str, &AtomicU32)],
) -> impl Iterator<Item = (&'static str, u64)> + use<'a> {
    let rates: Vec<_> = rates
        .iter()
        .map(|(name, rate)| (*name, u64::from(rate.load(Relaxed))))
        .collect();
    let counters = COUNTERS.map(|(name, counter)| (name, traffic.sum(counter)));
    let maxima = MAXIMA.map(|(name, maximum)| (name, u64::from(traffic.max(maximum))));
    counters.into_iter().chain(maxima).chain(rates)
}

/// Writes what is not 0; nothing where all is.
fn line<'a>(text: &mut String, names: &[&str], counted: impl Iterator<Item = (&'a str, u64)>) {
    let start = text.len();
    text.push_str(&names.join("\t"));
    let end = text.len();
    for (name, count) in counted.filter(|(_, count)| *count != 0) {
        let _ = write!(text, "\t{name}={count}");
    }
    let is_plain = names.iter().all(|name| !name.contains(['\t', '\n']));
    if text.len() == end || !is_plain {
        text.truncate(start);
    } else {
        text.push('\n');
    }
}

/// Numbers by their names.
type Counts<'a> = HashMap<&'a str, u64>;

/// The kind and the names of each object of a text, and what it has counted; `None`: another version.
fn parse(text: &str) -> Option<HashMap<Vec<&str>, Counts<'_>>> {
    let lines = text.strip_prefix(VERSION)?.strip_prefix('\n')?.lines();
    Some(lines.map(parse_line).collect())
}

fn parse_line(line: &str) -> (Vec<&str>, Counts<'_>) {
    let mut fields = line.split('\t');
    let kind = fields.next().unwrap_or_default();
    let names = match kind {
        "process" => 0,
        "server" => 2,
        _ => 1,
    };
    let key = std::iter::once(kind).chain(fields.by_ref().take(names));
    let key = key.collect();
    let pairs = fields.filter_map(|pair| {
        let (name, count) = pair.split_once('=')?;
        Some((name, count.parse().ok()?))
    });
    (key, pairs.collect())
}

/// What was counted between two texts of this version, in the same form; `None`: nothing. Of highest values that
/// have risen it has the new ones. It has no downtimes: after an upgrade the new process counts those.
pub(super) fn since(before: &str, now: &str) -> Option<String> {
    let before = parse(before)?;
    let mut text = format!("{VERSION}\n");
    let nothing = text.len();
    for (names, counts) in parse(now)? {
        let known = before.get(&names);
        let more = counts.iter().filter_map(|(name, now)| {
            let before = known.map_or(0, |known| count(known, name));
            match *name {
                "downtime_ms" => None,
                name if is_highest_value(name) => (*now > before).then_some((name, *now)),
                // An operator may have cleared it.
                name => Some((name, now.saturating_sub(before))),
            }
        });
        line(&mut text, &names, more);
    }
    (text.len() > nothing).then_some(text)
}

/// Texts of whole lines that together are `text`, each of at most `max` bytes if no line is longer.
pub(super) fn split(text: &str, max: usize) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for line in text.lines().skip(1) {
        match parts.last_mut() {
            Some(part) if part.len() + line.len() < max => {
                let _ = writeln!(part, "{line}");
            }
            _ => parts.push(format!("{VERSION}\n{line}\n")),
        }
    }
    parts
}

fn is_highest_value(name: &str) -> bool {
    ["rate_max", "conn_rate_max"].contains(&name) || MAXIMA.iter().any(|(it, _)| *it == name)
}

/// Adds what the process before has counted to the shard of this thread. The snapshot that follows, where
/// servers or backends have been down; their downtime is part of it.
pub(in crate::control) fn add(
    text: &str,
    base: &Arc<Snapshot>,
    token: &WorkerToken,
    now: Instant,
) -> Option<Snapshot> {
    let counted = parse(text)?;
    if let Some(counts) = counted.get(&["process"][..]) {
        let mine = base.global.traffic.mine(token);
        for (name, counter) in GLOBAL {
            counter(mine).add(count(counts, name));
        }
        for (name, counter) in shared(base) {
            counter.fetch_add(count(counts, name), Relaxed);
        }
    }
    for step in ShortageStep::ALL {
        let Some(counts) = counted.get(&["shortages", step.name()][..]) else {
            continue;
        };
        let mine = &base.global.traffic.mine(token).shortages;
        for what in Shortage::ALL {
            mine.of(step, what).add(count(counts, what.name()));
        }
    }
    let frontends = base.frontends.iter().flatten();
    let frontends = frontends.map(|frontend| ("frontend", &frontend.live));
    for (kind, live) in frontends.chain([("stats", &base.stats_live)]) {
        if let Some(counts) = counted.get(&[kind, &live.name][..]) {
            add_frontend(live, counts, token);
        }
    }
    let mut builder = SnapshotBuilder::new(Arc::clone(base));
    for backend in base.backends.iter().flatten() {
        let live = &backend.live;
        if let Some(counts) = counted.get(&["backend", &live.name][..]) {
            add_traffic(live.traffic.mine(token), counts);
            see(&live.rate_max, count(counts, "rate_max"));
            builder.add_downtime(backend.id, downtime(counts));
        }
        if let Some(counts) = counted.get(&["failed_sessions", &live.name][..]) {
            let mine = live.failed_sessions.mine(token);
            for cause in FailureCause::ALL {
                mine.of(cause).add(count(counts, cause.name()));
            }
        }
        if let Some(counts) = counted.get(&["retries", &live.name][..]) {
            live.retries.add_denied(count(counts, DENIED));
        }
        for (index, server) in backend.servers.iter().enumerate() {
            let names = ["server", &backend.live.name, &server.spec.name];
            if let Some(counts) = counted.get(&names[..]) {
                add_server(
                    (&mut builder, backend.id, index),
                    server,
                    counts,
                    (token, now),
                );
            }
        }
    }
    builder.finish()
}

fn add_frontend(live: &FrontendLive, counts: &Counts<'_>, token: &WorkerToken) {
    add_traffic(live.traffic.mine(token), counts);
    see(&live.rate_max, count(counts, "rate_max"));
    see(&live.conn_rate_max, count(counts, "conn_rate_max"));
}

fn add_server(
    (builder, backend, index): (&mut SnapshotBuilder, BackendId, usize),
    server: &Server,
    counts: &Counts<'_>,
    (token, now): (&WorkerToken, Instant),
) {
    add_traffic(server.live.traffic.mine(token), counts);
    see(&server.live.rate_max, count(counts, "rate_max"));
    // What a server that is down has been down for so far is counted from its `since`, which went along
    // with its state.
    let running = server.status.downtime(now);
    let before = downtime(counts).saturating_sub(running);
    if !before.is_zero() {
        let mut next = server.clone();
        next.status.down_before += before;
        builder.replace(backend, index, next, now);
    }
}

fn add_traffic(mine: &Traffic, counts: &Counts<'_>) {
    for (name, counter) in COUNTERS {
        counter(mine).add(count(counts, name));
    }
    for (name, maximum) in MAXIMA {
        let seen = u32::try_from(count(counts, name)).unwrap_or(u32::MAX);
        maximum(mine).see(seen);
    }
}

fn see(max: &AtomicU32, seen: u64) {
    max.fetch_max(u32::try_from(seen).unwrap_or(u32::MAX), Relaxed);
}

fn count(counts: &Counts<'_>, name: &str) -> u64 {
    counts.get(name).copied().unwrap_or(0)
}

fn downtime(counts: &Counts<'_>) -> Duration {
    Duration::from_millis(count(counts, "downtime_ms"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::GlobalLive;
    use crate::state::Origin;
    use crate::state::test_config::{backend, config, frontend, server};

    fn start(names: &[&str], now: Instant) -> Arc<Snapshot> {
        let servers = names.iter().map(|name| server(name)).collect();
        let mut config = config(vec![backend("b", servers)]);
        config.frontends.push(frontend("f", 7));
        let origin = Origin {
            global: Arc::new(GlobalLive::new(now, 2)),
            maxconn: 100,
            shards: 2,
            now,
        };
        Arc::new(Snapshot::initial(&config, &origin))
    }

    /// Fault 26: after an upgrade all counters were 0.
    #[test]
    fn totals_go_on_and_add_up_over_two_upgrades() {
        let now = Instant::now() + Duration::from_secs(100);
        let token = WorkerToken::new(0);
        let first = start(&["s1", "s2"], now);
        let live = &first.backends[0].as_ref().unwrap().servers[1].live;
        for (index, (_, counter)) in (1..).zip(COUNTERS) {
            counter(live.traffic.mine(&token)).add(index);
        }
        for (index, (_, maximum)) in (1..).zip(MAXIMA) {
            maximum(live.traffic.mine(&token)).see(index);
        }
        let frontend = &first.frontends[0].as_ref().unwrap().live;
        frontend.traffic.mine(&token).conn_tot.add(5);
        frontend.conn_rate_max.store(9, Relaxed);
        first.global.traffic.mine(&token).conn_tot.add(6);
        first.global.reloads.succeeded.store(3, Relaxed);
        let dark = &first.backends[0].as_ref().unwrap().live.failed_sessions;
        dark.mine(&token).of(FailureCause::ALL[0]).add(8);
        let retries = |snapshot: &Snapshot| {
            let backend = snapshot.backends[0].as_ref().unwrap();
            backend.live.retries.denied()
        };
        first.backends[0]
            .as_ref()
            .unwrap()
            .live
            .retries
            .add_denied(4);
        let short = &first.global.traffic.mine(&token).shortages;
        short.of(ShortageStep::Check, Shortage::ALL[0]).add(2);
        let mut text = write(&first, now);
        let last = WorkerToken::new(1);
        for upgrade in 1..=2 {
            let next = start(&["s2", "s3"], now);
            assert!(add(&text, &next, &last, now).is_none(), "nothing was down");
            let live = &next.backends[0].as_ref().unwrap().servers[0].live;
            for (index, (name, counter)) in (1..).zip(COUNTERS) {
                assert_eq!(
                    live.traffic.sum(counter),
                    index,
                    "{name}, upgrade {upgrade}"
                );
            }
            for (index, (name, maximum)) in (1..).zip(MAXIMA) {
                assert_eq!(live.traffic.max(maximum), index, "{name}");
            }
            let frontend = &next.frontends[0].as_ref().unwrap().live;
            assert_eq!(frontend.traffic.sum(|traffic| &traffic.conn_tot), 5);
            assert_eq!(frontend.conn_rate_max.load(Relaxed), 9);
            assert_eq!(next.global.traffic.sum(|traffic| &traffic.conn_tot), 6);
            assert_eq!(next.global.reloads.succeeded.load(Relaxed), 3);
            let dark = &next.backends[0].as_ref().unwrap().live.failed_sessions;
            assert_eq!(dark.sum(|failed| failed.of(FailureCause::ALL[0])), 8);
            assert_eq!(retries(&next), 4);
            let short = &next.global.traffic.mine(&last).shortages;
            assert_eq!(short.of(ShortageStep::Check, Shortage::ALL[0]).get(), 2);
            text = write(&next, now);
        }
        assert!(text.len() < 500, "zeroes are not written: {text}");
    }

    /// What the old process counted after the hand-over was lost.
    #[test]
    fn what_is_counted_later_is_told_once() {
        let now = Instant::now() + Duration::from_secs(100);
        let token = WorkerToken::new(0);
        let first = start(&["s1", "s2"], now);
        let server = |snapshot: &Snapshot, index: usize| {
            Arc::clone(&snapshot.backends[0].as_ref().unwrap().servers[index].live)
        };
        let counted = |live: &crate::live::ServerLive, by: u64| {
            live.traffic.mine(&token).bin.add(by);
            live.traffic.mine(&token).stot.add(1);
            live.rate_max.store(9, Relaxed);
        };
        counted(&server(&first, 0), 10);
        let go = write(&first, now);
        assert_eq!(since(&go, &write(&first, now)), None);
        counted(&server(&first, 0), 5);
        counted(&server(&first, 1), 7);
        let later = write(&first, now);
        let more = since(&go, &later).expect("something");
        assert!(!more.contains("down"), "{more}");

        let next = start(&["s1", "s2"], now);
        let last = WorkerToken::new(1);
        for text in [&go, &more] {
            assert!(add(text, &next, &last, now).is_none());
        }
        for index in [0, 1] {
            let (old, new) = (server(&first, index), server(&next, index));
            for (name, counter) in COUNTERS {
                assert_eq!(new.traffic.sum(counter), old.traffic.sum(counter), "{name}");
            }
            assert_eq!(new.rate_max.load(Relaxed), 9);
        }
        // In parts it is the same.
        let parts = split(&later, 40);
        assert!(parts.len() > 1);
        let lines = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        let of_parts: Vec<String> = parts.iter().flat_map(|part| lines(part)).collect();
        assert_eq!(of_parts, lines(&later));
        assert!(parts.iter().all(|part| part.starts_with("1\n")));
        // What was cleared meanwhile takes nothing away.
        assert_eq!(since(&later, &go), None);
        assert_eq!(since("2\n", &go), None);
    }

    #[test]
    fn downtime_goes_on_and_is_not_counted_twice() {
        let now = Instant::now() + Duration::from_secs(100);
        let token = WorkerToken::new(1);
        let base = start(&["s1"], now);
        let text = "1\nserver\tb\ts1\tdowntime_ms=5000\nbackend\tb\tdowntime_ms=3000\n";
        let next = Arc::new(add(text, &base, &token, now).expect("a change"));
        let backend = next.backends[0].as_ref().unwrap();
        let server = &backend.servers[0].status;
        assert_eq!(server.downtime(now), Duration::from_secs(5));
        assert_eq!(backend.status.downtime(now), Duration::from_secs(3));
        assert!(
            add(text, &next, &token, now).is_some(),
            "the backend's adds up"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out_and_another_version_takes_nothing() {
        let now = Instant::now();
        let token = WorkerToken::new(1);
        let base = start(&["s1"], now);
        let text = "1\nserver\tb\ts1\tstot=4\tlater=9\tbin=x\tecon\n\
                    server\tb\tgone\tstot=1\nfuture\tb\tstot=7\n\n=\t=\nserver\tb\n";
        assert!(add(text, &base, &token, now).is_none());
        let live = &base.backends[0].as_ref().unwrap().servers[0].live;
        assert_eq!(live.traffic.sum(|traffic| &traffic.stot), 4);
        assert_eq!(live.traffic.sum(|traffic| &traffic.bin), 0);
        for other in [
            "2\nserver\tb\ts1\tstot=4\n",
            "",
            "1",
            "10\nserver\tb\ts1\tstot=4\n",
        ] {
            assert!(add(other, &base, &token, now).is_none());
        }
        assert_eq!(live.traffic.sum(|traffic| &traffic.stot), 4);
    }

    /// A counter that is added later is handed over too.
    #[test]
    fn every_counter_is_in_the_tables() {
        let all = format!("{:?}", Traffic::default());
        assert_eq!(all.matches(": Counter(").count(), COUNTERS.len());
        assert_eq!(all.matches(": Maximum(").count(), MAXIMA.len());
        let all = format!("{:?}", GlobalTraffic::default());
        let all = all.matches(": Counter(").count();
        assert_eq!(all, GLOBAL.len(), "shortages are in lists");
    }
}
