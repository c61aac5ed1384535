//! The log thread as a whole: queue in, files and pipes out.

use super::tcplog::tests::record;
use super::*;
use crate::config::model::{Facility, LogFormat, LogSink, LogTarget, Severity};
use crate::live::LogQueue;
use std::path::Path;

fn start(sinks: &[(&Path, LogFormat, Severity)]) -> (LogQueue, Handle, Arc<GlobalLive>) {
    let global = Arc::new(GlobalLive::new(Instant::now(), 1));
    let (queue, receiver) = LogQueue::new(Arc::clone(&global));
    let targets = sinks
        .iter()
        .map(|(path, format, level)| LogTarget {
            sink: LogSink::File((*path).into()),
            format: *format,
            facility: Facility(16),
            level: *level,
        })
        .collect();
    let log = model::Log {
        tag: "rlb".into(),
        targets,
    };
    let handle = spawn(&log, Some("lb01"), receiver, Arc::clone(&global)).unwrap();
    (queue, handle, global)
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
    let (queue, handle, _global) = start(&[(&path, LogFormat::Raw, Severity::Info)]);
    for number in 0..5000 {
        queue.send(event(Severity::Info, &number.to_string()));
    }
    drop(queue);
    handle
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
