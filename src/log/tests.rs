//! The log thread as a whole: from the queue to files and pipes.

use super::tcplog::tests::record;
use super::*;
use crate::config::model::{LogFormat, LogSink, LogTarget, Severity};
use crate::live::LogQueue;
use std::path::Path;

fn start(sinks: &[(&Path, LogFormat, Severity)]) -> (LogQueue, Log, Arc<GlobalLive>) {
    let global = Arc::new(GlobalLive::new(Instant::now(), 1));
    let log = Log::start(&spec(sinks), Some("lb01"), &global).unwrap();
    (log.queue(), log, global)
}

fn spec(sinks: &[(&Path, LogFormat, Severity)]) -> model::Log {
    let targets = sinks.iter().map(|(path, format, level)| LogTarget {
        sink: LogSink::File((*path).into()),
        format: *format,
        level: *level,
        ..LogTarget::default()
    });
    model::Log {
        targets: targets.collect(),
        ..model::Log::default()
    }
}

fn event(severity: Severity, text: &str) -> LogEntry {
    LogEntry::Event {
        severity: severity as u8,
        text: text.into(),
    }
}

#[test]
fn every_target_gets_the_lines_of_its_level() {
    let dir = tempfile::tempdir().unwrap();
    let (all, events) = (dir.path().join("all"), dir.path().join("events"));
    let (queue, handle, global) = start(&[
        (&all, LogFormat::Raw, Severity::Info),
        (&events, LogFormat::Rfc3164, Severity::Notice),
    ]);
    queue.send(LogEntry::Session(Box::new(record())));
    queue.send(event(Severity::Alert, "Server b/s is DOWN."));
    assert!(handle.stop(Duration::from_secs(5)));
    let all = std::fs::read_to_string(all).unwrap();
    assert!(all.starts_with("127.0.0.1:47384 ["), "{all}");
    assert!(
        all.ends_with(" 19/9/8/3/0 0/0\nServer b/s is DOWN.\n"),
        "{all}"
    );
    let events = std::fs::read_to_string(events).unwrap();
    assert!(events.starts_with("<129>"), "{events}");
    let tail = format!(" rlb[{}]: Server b/s is DOWN.\n", std::process::id());
    assert!(events.ends_with(&tail), "{events}");
    assert_eq!(events.lines().count(), 1);
    assert_eq!(global.dropped_logs.load(Relaxed), 0);
}

#[test]
fn the_end_of_all_senders_writes_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (queue, log, _global) = start(&[(&path, LogFormat::Raw, Severity::Info)]);
    for number in 0..5000 {
        queue.send(event(Severity::Info, &number.to_string()));
    }
    queue.set_sender(None);
    let thread = log.thread().unwrap();
    thread
        .ended
        .recv_timeout(Duration::from_secs(10))
        .unwrap_err();
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written
            .lines()
            .map(|line| line.parse::<u32>().unwrap())
            .eq(0..5000)
    );
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_neither_senders_nor_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (pipe, file) = (dir.path().join("pipe"), dir.path().join("file"));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    // Keeps the pipe open, and never reads.
    let _held = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let (queue, handle, global) = start(&[
        (&pipe, LogFormat::Raw, Severity::Info),
        (&file, LogFormat::Raw, Severity::Info),
    ]);
    let line = "x".repeat(200);
    let begun = Instant::now();
    for _ in 0..5000 {
        queue.send(event(Severity::Info, &line));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "sending never waits"
    );
    let begun = Instant::now();
    assert!(handle.stop(Duration::from_millis(500)));
    assert!(begun.elapsed() < Duration::from_secs(2));
    let written = std::fs::read_to_string(file).unwrap().lines().count();
    assert_eq!(written, 5000, "the other target has them all");
    assert!(global.dropped_logs.load(Relaxed) > 4000);
}

const RAW: LogFormat = LogFormat::Raw;

/// Puts `next` in force, as a reload does.
fn change(log: &mut Log, next: &model::Log, node: &str) {
    let prepared = log.plan_change(next, Some(node)).open().unwrap();
    log.apply(prepared);
}

fn written(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn lines_go_to_the_targets_in_force_when_sent() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (old, new, kept) = (path("old"), path("new"), path("kept"));
    let info = Severity::Info;
    let (queue, mut log, global) = start(&[(&old, RAW, info), (&kept, RAW, info)]);
    for number in 0..3000 {
        queue.send(event(info, &format!("before {number}")));
    }
    // In another order, and with a higher level.
    let next = spec(&[(&kept, RAW, Severity::Notice), (&new, RAW, info)]);
    change(&mut log, &next, "lb01");
    assert!(new.exists(), "opened before it is in force");
    for number in 0..3000 {
        queue.send(event(info, &format!("after {number}")));
    }
    queue.send(event(Severity::Alert, "loud"));
    assert!(log.stop(Duration::from_secs(5)));
    let (old, new, kept) = (written(&old), written(&new), written(&kept));
    assert_eq!(
        (old.lines().count(), old.matches("before").count()),
        (3000, 3000)
    );
    assert_eq!(
        (new.lines().count(), new.matches("after").count()),
        (3001, 3000)
    );
    assert_eq!(kept.lines().count(), 3001);
    assert!(kept.ends_with("before 2999\nloud\n"), "in order");
    assert_eq!(global.dropped_logs.load(Relaxed), 0);
}

#[test]
fn a_target_that_stays_keeps_its_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (queue, mut log, _global) = start(&[(&path, LogFormat::Rfc5424, Severity::Info)]);
    queue.send(event(Severity::Info, "one"));
    let begun = Instant::now();
    while written(&path).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    // Its name could not be opened any more.
    let moved = dir.path().join("moved");
    std::fs::rename(&path, &moved).unwrap();
    std::fs::create_dir(&path).unwrap();
    let next = spec(&[(&path, LogFormat::Rfc5424, Severity::Info)]);
    change(&mut log, &next, "lb02");
    queue.send(event(Severity::Info, "two"));
    assert!(log.stop(Duration::from_secs(5)));
    let lines = written(&moved);
    let hosts: Vec<&str> = lines
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    assert_eq!(hosts, ["lb01", "lb02"], "{lines}");
}

#[test]
fn a_file_that_cannot_be_opened_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (queue, mut log, _global) = start(&[(&path, RAW, Severity::Info)]);
    let nowhere = dir.path().join("nosuch/log");
    let next = spec(&[(&nowhere, RAW, Severity::Info)]);
    let why = log.plan_change(&next, None).open().unwrap_err();
    let wanted = format!("log: cannot open file:{}: No such file", nowhere.display());
    assert!(why.len() == 1 && why[0].starts_with(&wanted), "{why:?}");
    queue.send(event(Severity::Info, "as before"));
    assert!(log.stop(Duration::from_secs(5)));
    assert_eq!(written(&path), "as before\n");
}

#[test]
fn targets_come_where_there_were_none_and_go_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (queue, mut log, _global) = start(&[]);
    assert!(!queue.is_on());
    let some = spec(&[(&path, RAW, Severity::Info)]);
    change(&mut log, &some, "lb01");
    assert!(queue.is_on());
    queue.send(event(Severity::Info, "one"));
    change(&mut log, &spec(&[]), "lb01");
    assert!(!queue.is_on());
    change(&mut log, &some, "lb01");
    queue.send(event(Severity::Info, "two"));
    // Both the thread that has ended and the current one have written everything.
    assert!(log.stop(Duration::from_secs(5)));
    let mut lines: Vec<String> = written(&path).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["one", "two"]);
}

#[test]
fn changes_that_a_thread_has_not_made_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: usize| dir.path().join(name.to_string());
    let (queue, mut log, _global) = start(&[(&path(0), RAW, Severity::Info)]);
    // A sender in the middle of a line keeps the old queue open.
    let held = queue.hold();
    for name in 1..=CHANGES_MAX {
        change(
            &mut log,
            &spec(&[(&path(name), RAW, Severity::Info)]),
            "lb01",
        );
    }
    let one_more = spec(&[(&path(0), RAW, Severity::Info)]);
    assert!(log.plan_change(&one_more, Some("lb01")).open().is_err());
    drop(held);
    queue.send(event(Severity::Info, "last"));
    assert!(log.stop(Duration::from_secs(5)));
    assert_eq!(written(&path(CHANGES_MAX)), "last\n");
}
