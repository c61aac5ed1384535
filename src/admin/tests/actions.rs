//! POST to the page: the bounds of a request, and what follows it on a connection. What actions change is tested with
//! the whole program.

use super::*;
use crate::config::model::PageAdmin;
use crate::state::inbox::INBOX_MAX;

fn start_admin() -> Running {
    start_with(1, |stats| stats.page.admin = PageAdmin::Everyone)
}

/// A request with `lines` in its head. Each asks for nothing, so that no control task is needed.
fn post(target: &str, lines: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nhost: h:1\r\n{lines}\r\n{body}")
}

fn location(answer: &str) -> Option<&str> {
    let mut lines = answer.lines();
    lines.find_map(|line| line.strip_prefix("location: "))
}

/// The answer to a request on a connection of its own.
fn answer(running: &Running, target: &str, lines: &str, body: &str) -> String {
    let lines = format!("connection: close\r\n{lines}");
    ask(running, &post(target, &lines, body))
}

#[test]
fn a_result_is_a_redirection_to_the_same_view() {
    let running = start_admin();
    let nothing = answer(&running, "/;up;scope=a%20b", "content-length: 0\r\n", "");
    assert!(
        nothing.starts_with("HTTP/1.1 303 See Other\r\n"),
        "{nothing}"
    );
    assert_eq!(location(&nothing), Some("/;st=NONE;up;scope=a%20b"));
    for part in [
        "content-type: text/plain\r\n",
        "content-length: 0\r\n",
        "cache-control: no-cache\r\n",
        "x-content-type-options: nosniff\r\n",
    ] {
        assert!(nothing.contains(part), "{part}: {nothing}");
    }
    let page = get(&running, "/;st=NONE;up");
    assert!(page.contains("title=\"Remove this message\">[X]</a> Nothing has changed.</div>"));
    assert!(running.handle.stop(LONG));
}

/// No other site can have a visitor click on its check boxes; a page that is only looked at may be shown anywhere.
#[test]
fn a_page_with_check_boxes_is_framed_by_no_other_site() {
    let running = start_with(1, |stats| {
        stats.page.admin = PageAdmin::Everyone;
        stats.page.refresh = Some(Duration::from_secs(10));
    });
    let framed = "frame-ancestors 'self'";
    let (looked, changed) = (get(&running, "/"), get(&running, "/;norefresh"));
    assert!(looked.contains("refresh: 10\r\n") && !looked.contains(framed));
    assert!(!looked.contains("checkbox") && looked.contains("Change servers</a>"));
    assert!(!changed.contains("refresh: 10\r\n") && changed.contains(framed));
    assert!(changed.contains("checkbox") && !changed.contains("Change servers</a>"));
    assert!(running.handle.stop(LONG));
}

/// HAProxy asks for more bytes only when it has to; a body that is sent in chunks is read like one with a length.
#[test]
fn a_body_may_be_chunked_expected_or_absent() {
    let running = start_admin();
    let chunked = "transfer-encoding: chunked\r\n";
    let found = answer(&running, "/", chunked, "4\r\ns=a&\r\n3\r\nb=x\r\n0\r\n\r\n");
    assert_eq!(location(&found), Some("/;st=ERRP"), "an unknown backend");
    let none = answer(&running, "/", "", "");
    assert_eq!(location(&none), Some("/;st=NONE"));
    let old = ask(&running, "POST / HTTP/1.0\r\n\r\n");
    assert_eq!(location(&old), Some("/;st=NONE"), "{old}");
    let mut stream = connect(&running);
    let head = post(
        "/",
        "expect: 100-continue\r\nconnection: close\r\ncontent-length: 3\r\n",
        "",
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut first = [0; 25];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"b=x").unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(location(&rest), Some("/;st=ERRP"));
    // What is refused anyway is not asked for.
    let head = "expect: 100-continue\r\norigin: http://evil\r\ncontent-length: 3\r\n";
    let refused = ask(&running, &post("/", head, ""));
    assert!(refused.starts_with("HTTP/1.1 303 "), "{refused}");
    assert_eq!(location(&refused), Some("/;st=DENY"));
    assert!(running.handle.stop(LONG));
}

/// A body that is too large is answered before it has come, and the answer arrives.
#[test]
fn a_body_that_is_too_large_is_answered() {
    let running = start_admin();
    for _ in 0..20 {
        for length in [16 * 1024 + 1, 100_000] {
            let body = "x".repeat(length);
            let lines = format!("content-length: {length}\r\n");
            let found = ask(&running, &post("/", &lines, &body));
            assert_eq!(location(&found), Some("/;st=EXCD"), "{length}");
            assert!(found.contains("connection: close\r\n"), "{found}");
        }
    }
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let lines = "transfer-encoding: chunked\r\n";
    let found = ask(&running, &post("/", lines, &chunk.repeat(2)));
    assert_eq!(location(&found), Some("/;st=EXCD"));
    let body = "x".repeat(16 * 1024);
    let lines = format!("content-length: {}\r\n", body.len());
    let found = answer(&running, "/", &lines, &body);
    assert_eq!(
        location(&found),
        Some("/;st=ERRP"),
        "one parameter, too long"
    );
    let promised = "content-length: 99999999999\r\nexpect: 100-continue\r\n";
    let found = ask(&running, &post("/", promised, ""));
    assert_eq!(location(&found), Some("/;st=EXCD"));
    assert!(running.handle.stop(LONG));
}

/// The body must come within the time for a head, also when its client goes on sending.
#[test]
fn a_slow_body_ends_in_time() {
    let running = start_admin();
    for trickles in [false, true] {
        let begun = Instant::now();
        let mut stream = connect(&running);
        let head = post("/", "content-length: 5000\r\n", "s=");
        stream.write_all(head.as_bytes()).unwrap();
        let pause = if trickles { STALL / 40 } else { LONG };
        stream.set_read_timeout(Some(pause)).unwrap();
        let mut answer = vec![0; 4096];
        let length = loop {
            match stream.read(&mut answer) {
                Ok(length) => break length,
                Err(_) if begun.elapsed() < LONG => stream.write_all(b"x").unwrap(),
                Err(error) => panic!("{error}"),
            }
        };
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        let took = begun.elapsed();
        assert!(took >= HEAD && took < LONG / 2, "{took:?}");
    }
    assert!(running.handle.stop(LONG));
}

/// One answer for each request, in order, on one connection.
#[test]
fn requests_behind_an_action_are_answered() {
    let running = start_admin();
    let (nothing, unknown) = (
        post("/", "content-length: 0\r\n", ""),
        post("/", "content-length: 3\r\n", "b=x"),
    );
    let get = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answers = ask(&running, &format!("{nothing}{unknown}{nothing}{get}"));
    let codes: Vec<&str> = answers
        .lines()
        .filter_map(|line| line.strip_prefix("location: /;st="))
        .collect();
    assert_eq!(codes, ["NONE", "ERRP", "NONE"], "{answers}");
    assert!(answers.ends_with("\r\n\r\nok\n"), "{answers}");
    let halves = ask_and_half_close(&running, &unknown);
    assert_eq!(location(&halves), Some("/;st=ERRP"), "{halves}");
    assert!(running.handle.stop(LONG));
}

#[test]
fn other_sites_and_those_without_the_right_are_refused() {
    let running = start_admin();
    for (lines, code) in [
        ("origin: http://h:1\r\n", "NONE"),
        ("referer: http://h:1/;norefresh\r\n", "NONE"),
        ("origin: http://h:2\r\n", "DENY"),
        ("origin: null\r\n", "DENY"),
        ("referer: http://evil/\r\n", "DENY"),
        ("sec-fetch-site: cross-site\r\n", "DENY"),
    ] {
        let found = answer(&running, "/", &format!("content-length: 0\r\n{lines}"), "");
        assert_eq!(location(&found), Some(&*format!("/;st={code}")), "{lines}");
    }
    assert!(running.handle.stop(LONG));
    for (admin, code) in [(PageAdmin::Nobody, "DENY"), (PageAdmin::Localhost, "NONE")] {
        let running = start_with(1, |stats| {
            stats.page.admin = admin;
            stats.page.uri = "/haproxy?stats".into();
            stats.page.auth = vec![crate::config::model::Credentials("a:b".into())];
        });
        let lines = "content-length: 0\r\n";
        let without = answer(&running, "/haproxy?stats", lines, "");
        assert!(without.starts_with("HTTP/1.1 401 "), "{without}");
        let with = format!("{lines}authorization: Basic YTpi\r\n");
        let found = answer(&running, "/haproxy?stats;norefresh", &with, "");
        let expected = format!("/haproxy?stats;st={code}");
        assert_eq!(location(&found), Some(&*expected));
        assert!(found.contains("cache-control: no-store\r\n"), "{found}");
        let elsewhere = answer(&running, "/", &with, "");
        assert!(elsewhere.starts_with("HTTP/1.1 405 "), "{elsewhere}");
        assert!(running.handle.stop(LONG));
    }
}

/// A process that makes no changes any more says so, because a result of HAProxy's would be read as one of the action.
#[test]
fn what_cannot_be_changed_any_more_is_no_result() {
    let mut running = start_admin();
    running.requests.close();
    for (body, location_of, status) in [
        ("s=node1&action=maint&b=postgres", None, "503"),
        ("s=node9&action=boom&b=postgres", Some("/;st=ERRP"), "303"),
    ] {
        let lines = format!("content-length: {}\r\n", body.len());
        let found = answer(&running, "/", &lines, body);
        assert!(found.starts_with(&format!("HTTP/1.1 {status} ")), "{found}");
        assert_eq!(location(&found), location_of, "{found}");
    }
    let body = "s=node1&action=maint&b=postgres";
    let lines = format!("content-length: {}\r\n", body.len());
    let found = ask(&running, &post("/", &lines, body));
    assert!(found.contains("connection: close\r\n"), "{found}");
    assert!(found.ends_with("The process is stopping.\n"), "{found}");
    assert!(running.handle.stop(LONG));
}

/// The connection counted as idle while the control task did not answer: another one took its place, and the action ended
/// half made.
#[test]
fn an_action_is_made_for_all_servers_when_its_connection_is_closed_for_another() {
    let servers = u32::try_from(INBOX_MAX).unwrap() + 100;
    let mut running = start_with(servers, |stats| {
        stats.page.admin = PageAdmin::Everyone;
        stats.maxconn = 1;
    });
    let names: Vec<String> = (1..=servers)
        .map(|number| format!("s=node{number}"))
        .collect();
    let body = format!("{}&action=maint&b=postgres", names.join("&"));
    let mut asking = connect(&running);
    let length = format!("content-length: {}\r\n", body.len());
    asking
        .write_all(post("/", &length, &body).as_bytes())
        .unwrap();
    eventually("the control task is asked", || {
        running.requests.len() == INBOX_MAX
    });
    assert!(get(&running, "/healthz").ends_with("ok\n"));
    let mut answer = String::new();
    asking.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "", "its connection has given way");
    let (begun, mut asked) = (Instant::now(), 0);
    while asked < servers {
        assert!(begun.elapsed() < LONG, "{asked} of {servers}");
        match running.requests.try_recv() {
            Ok(ToControl::SetAdmin { done, .. }) => {
                asked += 1;
                assert!(done.send(true).is_ok(), "it waits for its answers");
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => std::thread::yield_now(),
        }
    }
    assert!(running.handle.stop(LONG));
}
