//! Formats, dropped events, and bursts that nobody reads.

use super::*;
use std::path::Path;

fn emitted(style: Style, path: &Path, emit: impl FnOnce()) -> String {
    let log = EventLog::new(Output::new(Destination::File(path.into())), style);
    let subscriber = subscriber(log.clone(), LevelFilter::INFO);
    tracing::subscriber::with_default(subscriber, emit);
    log.flush(Duration::from_secs(1));
    std::fs::read_to_string(path).unwrap_or_default()
}

fn listening() {
    tracing::info!(proxy = "app", address = %"127.0.0.1:41234", "listening");
    tracing::debug!("not wanted");
}

#[test]
fn json_is_one_flat_object_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let text = emitted(Style::Json, &dir.path().join("log"), listening);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["message"], "listening");
    assert_eq!(value["proxy"], "app");
    assert_eq!(value["address"], "127.0.0.1:41234");
    assert_eq!(value["level"], "INFO");
    let time: Timestamp = value["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(Timestamp::now().duration_since(time).as_secs() < 60);
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn the_journal_gets_priorities_and_no_time() {
    let dir = tempfile::tempdir().unwrap();
    let text = emitted(Style::Journal, &dir.path().join("log"), || {
        listening();
        tracing::error!(code = 5, "broken");
    });
    assert_eq!(
        text,
        "<6>listening proxy=\"app\" address=127.0.0.1:41234\n<3>broken code=5\n"
    );
}

#[test]
fn people_get_local_time_and_a_level() {
    let dir = tempfile::tempdir().unwrap();
    let plain = Style::Plain { ansi: false };
    let text = emitted(plain, &dir.path().join("log"), listening);
    let (time, rest) = text.split_at("2026-11-22 06:51:57.996".len());
    assert!(
        jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S%.3f", time).is_ok(),
        "{time}"
    );
    assert_eq!(
        rest,
        "  INFO listening proxy=\"app\" address=127.0.0.1:41234\n"
    );
}

/// Fault 29: fields for programs, and text that is not longer for them.
#[test]
fn fault_29_text_has_the_words_alone_and_json_the_fields_too() {
    let dir = tempfile::tempdir().unwrap();
    let emit = || {
        let lasted_ms = None::<u64>;
        tracing::info!(target: IN_WORDS, backend = "b", lasted_ms, "{} is UP.", "Server b/s");
    };
    let text = emitted(Style::Journal, &dir.path().join("text"), emit);
    assert_eq!(text, "<6>Server b/s is UP.\n");
    let json = emitted(Style::Json, &dir.path().join("json"), emit);
    let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
    json.as_object_mut().unwrap().remove("timestamp");
    let expected = serde_json::json!({
        "level": "INFO", "message": "Server b/s is UP.", "backend": "b"
    });
    assert_eq!(json, expected);
}

#[test]
fn dropped_events_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let text = emitted(Style::Json, &path, || {});
    assert_eq!(text, "");
    let log = EventLog::new(Output::new(Destination::File(path.clone())), Style::Json);
    log.state().lost = 3;
    log.line(b"{}\n");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines = text.lines();
    let told: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!((&told["lost"], &told["level"]), (&3.into(), &"WARN".into()));
    assert_eq!(lines.next(), Some("{}"));
}

#[test]
fn an_event_does_not_wait_for_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let _held = File::options().read(true).write(true).open(&path).unwrap();
    let log = EventLog::new(Output::new(Destination::File(path)), Style::Journal);
    let begun = Instant::now();
    for _ in 0..20_000 {
        log.line(b"<6>0123456789012345678901234567890123456789\n");
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(log.state().lost > 10_000);
}

#[test]
fn a_burst_is_written_to_its_end_without_another_event() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    const TICK: Timespec = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let mut pipe = File::options()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(&path)
        .unwrap();
    let log = EventLog::new(Output::new(Destination::File(path)), Style::Journal);
    log.drain().unwrap();
    // More than the pipe and the buffer hold, and then nothing more.
    for _ in 0..5_000 {
        log.line(b"<6>0123456789012345678901234567890123456789\n");
    }
    let mut read = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    let deadline = Instant::now() + Duration::from_secs(10);
    while !read.windows(5).any(|window| window == b"lost=") {
        assert!(Instant::now() < deadline, "only {} bytes came", read.len());
        match pipe.read(&mut chunk) {
            Ok(length) => read.extend_from_slice(&chunk[..length]),
            Err(_) => drop(poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&TICK))),
        }
    }
    assert!(read.ends_with(b"\n"));
}

#[test]
fn another_stream_is_not_the_journal() {
    assert!(!is_journal(None));
    assert!(!is_journal(Some("0:0")));
    assert!(!is_journal(Some("junk")));
}
