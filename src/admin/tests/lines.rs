//! The lines of requests in the log.

use super::*;
use crate::live::SessionRecord;

/// A listener whose requests have lines.
fn logging() -> Running {
    start_with(3, |stats| stats.page.log = true)
}

/// The next line.
fn line(running: &Running) -> Box<SessionRecord> {
    match running.lines.recv_timeout(LONG) {
        Ok(LogEntry::Session(record)) => record,
        other => panic!("{other:?}"),
    }
}

/// Server, letters and bytes of the next line.
fn seen(running: &Running) -> (Option<String>, String, u64) {
    let record = line(running);
    let server = record.server.as_deref().map(str::to_owned);
    let letters = [record.cause.letter(), record.phase.letter()];
    (server, letters.iter().collect(), record.bytes_out)
}

#[test]
fn each_request_has_the_line_that_haproxy_writes() {
    let running = logging();
    for (target, server, letters) in [
        ("/", Some("<STATS>"), "LR"),
        ("/;csv", Some("<STATS>"), "LR"),
        ("/metrics", Some("<PROMEX>"), "LR"),
        ("*", None, "PR"),
    ] {
        let answer = get(&running, target);
        let expected = (
            server.map(str::to_owned),
            letters.to_owned(),
            answer.len() as u64,
        );
        assert_eq!(seen(&running), expected, "{target}");
    }
    let posted = ask(
        &running,
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nconnection: close\r\n\r\na=b",
    );
    let expected = Some("<STATS>".to_owned());
    assert_eq!(
        seen(&running),
        (expected, "LR".to_owned(), posted.len() as u64)
    );
    let record = {
        get(&running, "/");
        line(&running)
    };
    assert_eq!((&*record.frontend, &*record.backend), ("stats", "stats"));
    assert_eq!(record.wait, Some(Duration::ZERO));
    assert_eq!(record.connect, Some(Duration::ZERO));
    assert_eq!((record.active, record.frontend_active), (1, 1));
}

#[test]
fn requests_of_one_connection_have_a_line_each_at_once() {
    let running = logging();
    let mut stream = connect(&running);
    let mut sum = 0;
    for _ in 0..3 {
        stream
            .write_all(b"GET /;json-schema HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        let (server, letters, bytes) = seen(&running);
        assert_eq!(server.as_deref(), Some("<STATS>"));
        assert_eq!(letters, "LR");
        sum += bytes;
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all.len() as u64, sum);
}

#[test]
fn a_client_that_goes_or_sends_nonsense_has_a_line_too() {
    let running = logging();
    ask(&running, "nonsense\r\n\r\n");
    assert_eq!(seen(&running), (None, "PR".to_owned(), 0));
    let mut stream = connect(&running);
    stream.write_all(b"GET / HT").unwrap();
    drop(stream);
    assert_eq!(seen(&running), (None, "CR".to_owned(), 0));
}

#[test]
fn probes_and_a_listener_that_does_not_log_have_no_lines() {
    let running = logging();
    get(&running, "/healthz");
    get(&running, "/readyz");
    get(&running, "/metrics");
    assert_eq!(seen(&running).0.as_deref(), Some("<PROMEX>"));
    let silent = start(3, 200);
    get(&silent, "/");
    ask(&silent, "nonsense\r\n\r\n");
    assert!(silent.handle.stop(LONG));
    assert!(silent.lines.recv().is_err(), "no line");
}
