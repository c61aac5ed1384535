//! The interpreter alone: answers as bytes, results as HAProxy shows them. The texts were compared with HAProxy 3.5.

use super::*;
use crate::config::Limits;
use crate::config::script::preset::{self, MysqlLogin};
use proptest::prelude::*;
use std::sync::Arc;

/// The script of a check table.
fn script(table: &str) -> Arc<Script> {
    let text = format!(
        "[[listen]]\nname = 'l'\nbind = '*:81'\nservers = [{{ name = 's', address = '10.0.0.1:1' }}]\n\
         [listen.check]\n{table}"
    );
    let loader = crate::config::Loader {
        limits: Limits::unknown(),
        environment: &|_| None,
        disk: false,
    };
    let read = loader.load_text("t.toml", &text);
    let (config, _) = read.unwrap_or_else(|problems| panic!("{table}: {problems:#?}"));
    let check = config.backends[0].servers[0].check.clone();
    check.and_then(|check| check.script).expect("a script")
}

fn tcp(steps: &str) -> Arc<Script> {
    script(&format!("type = 'tcp'\nsteps = [{steps}]"))
}

fn http(keys: &str) -> Arc<Script> {
    script(&format!("type = 'http'\n{keys}"))
}

/// How the connection goes on behind an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    End,
    Reset,
    Silence,
}

/// The result when these bytes come, and then this; and what was sent.
fn run(script: &Script, answer: &[u8], then: Then) -> (Finding, Vec<Vec<u8>>) {
    let facts = Facts {
        backend: "be".into(),
        server: "s1".into(),
        is_up: true,
        state: Some("UP".into()),
        token: None,
    };
    let mut run = Run::new(script, &facts);
    let (mut rest, mut sent) = (answer, Vec::new());
    loop {
        match run.order() {
            Order::Connect(_) => {}
            Order::Send(bytes) => sent.push(bytes.into_owned()),
            Order::Receive(most) => {
                let (now, later) = rest.split_at(most.min(rest.len()));
                rest = later;
                match then {
                    _ if !now.is_empty() => run.received(now),
                    Then::End => run.ended(),
                    Then::Silence => return (run.timed_out(Phase::Connected), sent),
                    Then::Reset => {
                        let error = io::Error::from_raw_os_error(libc::ECONNRESET);
                        if let Some(finding) = run.failed(&error) {
                            return (finding, sent);
                        }
                    }
                }
            }
            Order::Done(finding) => return (finding, sent),
        }
    }
}

/// The status, the code where it is shown, and the text.
fn shown(script: &Script, answer: &[u8], then: Then) -> String {
    let (Finding { status, code, info }, _) = run(script, answer, then);
    let code = if status.has_code() {
        format!(" {code}")
    } else {
        String::new()
    };
    format!("{}{code} |{info}", status.code())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn answers_of_tcp_in_haproxys_words() {
    use Then::{End, Reset, Silence};
    let pong = b"+PONG\r\n".as_slice();
    let asks = "{ send = \"PING\\r\\n\" }";
    let cases = [
        (
            "{ connect = true }, PING, { expect-string = '+PONG' }",
            pong,
            Silence,
            "L7OK 0 |(tcp-check)",
        ),
        (
            "PING, { comment = 'ping' }, { expect-string = '+PANG' }",
            pong,
            Silence,
            "L7TOUT | at step 3 of tcp-check (expect string '+PANG') comment: 'ping'",
        ),
        (
            "PING, { expect-string = 'PONG', not = true }",
            pong,
            Silence,
            "L7RSP |TCPCHK matched unwanted content 'PONG' at step 2",
        ),
        (
            "PING, { expect-string = 'PONG' }",
            b"",
            End,
            "L7RSP |TCPCHK got an empty response at step 2",
        ),
        (
            "PING, { expect-rstring = 'PONG', comment = 'nothing' }",
            b"",
            Reset,
            "SOCKERR |ECONNRESET returned by OS (Connection reset by peer) at step 2 of tcp-check \
             (expect regex) comment: 'nothing'",
        ),
        (
            "{ connect = true }, PING",
            b"",
            Silence,
            "L7OK 0 |(tcp-check)",
        ),
        ("{ connect = true }", b"", Silence, "L4OK |(tcp-check)"),
        (
            "{ send-binary = '50494e47' }, { expect-rbinary = '^2B504F' }",
            pong,
            Silence,
            "L7OK 0 |(tcp-check)",
        ),
        (
            "PING, { expect-binary = '2B504e', on-error = 'oops', comment = 'cc' }",
            pong,
            Silence,
            "L7TOUT | at step 2 of tcp-check (expect binary '2B504E') comment: 'cc'",
        ),
        (
            "PING, { expect-binary = '2B504e', on-error = 'oops', comment = 'cc' }",
            pong,
            End,
            "L7RSP |oops comment: cc",
        ),
        (
            "PING, { expect-string = 'PONG', on-success = 'fine', ok-status = 'L6OK' }",
            pong,
            Silence,
            "L6OK |fine",
        ),
        (
            "PING, { expect-string = 'PONX', error-status = 'L7STS', min-recv = 0 }",
            pong,
            Silence,
            "L7STS 0 |TCPCHK did not match content 'PONX' at step 2",
        ),
        (
            "PING, { expect-string = 'PONX', tout-status = 'L6TOUT' }",
            b"",
            Silence,
            "L6TOUT | at step 2 of tcp-check (expect string 'PONX')",
        ),
        (
            "{ expect-string = 'hi' }, { expect-string = 'hu' }",
            b"hi there",
            Silence,
            "L7TOUT | at step 2 of tcp-check (expect string 'hu')",
        ),
        (
            "{ connect = true }, { expect-binary = '00ff' }",
            b"",
            Reset,
            "SOCKERR |ECONNRESET returned by OS (Connection reset by peer) at step 2 of tcp-check \
             (expect binary '00FF')",
        ),
        (
            "PING, { expect-string = 'x', error-status = 'L7OKC' }",
            pong,
            End,
            "L7OKC 0 |TCPCHK did not match content 'x' at step 2",
        ),
        (
            "{ send-lf = '%[be_name]/%[srv_name]' }, { expect-string = 'x', on-error = 'got %[res.payload(1,4)]' }",
            pong,
            End,
            "L7RSP |got PONG",
        ),
        // What came before a reset is judged.
        (
            "PING, { expect-string = '+PONG' }",
            pong,
            Reset,
            "L7OK 0 |(tcp-check)",
        ),
        (
            "PING, { expect-string = 'x' }",
            pong,
            Reset,
            "L7RSP |TCPCHK did not match content 'x' at step 2",
        ),
    ];
    for (steps, answer, then, expected) in cases {
        let script = tcp(&steps.replace("PING", asks));
        assert_eq!(shown(&script, answer, then), expected, "{steps}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn answers_of_http_in_haproxys_words() {
    use Then::{End, Reset, Silence};
    let ok = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok".as_slice();
    let busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nbad".as_slice();
    let gone = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".as_slice();
    let chunks =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".as_slice();
    let broken =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n+\r\n".as_slice();
    let long = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc".as_slice();
    let role =
        b"HTTP/1.1 200 OK\r\nX-Role: x, primary\r\nContent-Length: 5\r\n\r\nhello".as_slice();
    let body = |pattern: &str| format!("steps = [{{ expect-string = '{pattern}' }}]");
    let header = |rest: &str| format!("steps = [{{ expect-header = 'x-role'{rest} }}]");
    let (no, nobody) = (
        "L7RSP |HTTP content check did not match",
        "L7RSP |HTTP content check could not find a response body",
    );
    let cases = [
        (String::new(), ok, Silence, "L7OK 200 |"),
        (
            String::new(),
            busy,
            Silence,
            "L7STS 503 |Service Unavailable",
        ),
        (String::new(), b"garbage\r\n\r\n", Silence, "L7RSP |"),
        (
            String::new(),
            b"HTTP/1.1 2xx OK\r\n\r\n",
            Silence,
            "L7RSP |",
        ),
        (String::new(), b"", End, "L7RSP |"),
        (
            String::new(),
            b"",
            Reset,
            "SOCKERR |ECONNRESET returned by OS (Connection reset by peer)",
        ),
        (String::new(), b"", Silence, "L7TOUT |"),
        (
            String::new(),
            b"HTTP/1.1 200 OK\r\nContent-Le",
            Silence,
            "L7TOUT |",
        ),
        (
            String::new(),
            b"HTTP/1.1 200 OK\r\nContent-Le",
            End,
            "L7RSP |",
        ),
        (String::new(), gone, Silence, "L7STS 404 |Not Found"),
        (String::new(), long, Silence, "L7OK 200 |"),
        ("disable-on-404 = true".into(), gone, Silence, "L7OKC 404 |"),
        (body("abc"), chunks, Silence, "L7OK 200 |"),
        (body("abd"), chunks, Silence, no),
        (String::new(), broken, Silence, "L7OK 200 |"),
        (body("abc"), broken, Silence, "L7OK 200 |"),
        (body("abd"), broken, Silence, "L7RSP |"),
        (body("abd"), long, Silence, "L7TOUT |"),
        (body("abd"), gone, Silence, nobody),
        (
            "steps = [{ expect-string = 'abc', not = true }]".into(),
            chunks,
            Silence,
            "L7RSP |HTTP check matched unwanted content",
        ),
        (
            "steps = [{ expect-rstatus = '^4', comment = 'why' }]".into(),
            chunks,
            Silence,
            "L7STS 200 |OK comment: why",
        ),
        (
            "expect-status = '201,203-205'".into(),
            chunks,
            Silence,
            "L7STS 200 |OK",
        ),
        (
            "uri = '/x'\nsteps = [{ comment = 'hello' }, { expect-string = 'nope' }]".into(),
            ok,
            Silence,
            "L7RSP |HTTP content check did not match comment: hello",
        ),
        (
            header(", header-value = 'primary'"),
            role,
            Silence,
            "L7OK 200 |",
        ),
        (
            header(", header-value = 'stand', header-match = 'beg'"),
            role,
            Silence,
            "L7STS 200 |OK",
        ),
        (
            header(", header-value = '^p.*y$', header-match = 'reg'"),
            role,
            Silence,
            "L7OK 200 |",
        ),
        (header(""), role, Silence, "L7OK 200 |"),
        (header(", not = true"), role, Silence, "L7STS 200 |OK"),
        // An interim answer is none.
        (
            String::new(),
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            Silence,
            "L7OK 204 |",
        ),
        // One without a reason.
        (
            "expect-status = '204'".into(),
            b"HTTP/1.1 200 \r\n\r\n",
            End,
            "L7STS 200 |TCPCHK did not match content(status codes) at step 1",
        ),
    ];
    for (keys, answer, then, expected) in cases {
        assert_eq!(
            shown(&http(&keys), answer, then),
            expected,
            "{keys} {}",
            answer.escape_ascii()
        );
    }
}

#[test]
fn a_server_that_is_down_is_not_up_because_it_answers_404() {
    let script = http("disable-on-404 = true");
    let facts = Facts::default();
    let mut run = Run::new(&script, &facts);
    let finding = loop {
        match run.order() {
            Order::Connect(_) | Order::Send(_) => {}
            Order::Receive(_) => run.received(b"HTTP/1.1 404 Not Found\r\n\r\n"),
            Order::Done(finding) => break finding,
        }
    };
    assert_eq!((finding.status, finding.code), (CheckStatus::L7Status, 404));
}

#[test]
fn requests_of_http() {
    let sent = |keys: &str| {
        let (_, sent) = run(&http(keys), b"", Then::End);
        String::from_utf8(sent.concat()).unwrap()
    };
    assert_eq!(sent(""), "OPTIONS / HTTP/1.0\r\nConnection: close\r\n\r\n");
    assert_eq!(
        sent(
            "method = 'POST'\nuri = '/x'\nversion = 'HTTP/1.1'\nheaders = { Host = '%[srv_name]', B = 'b' }\n\
             body = 'hi'\nsend-state = true"
        ),
        "POST /x HTTP/1.1\r\nHost: s1\r\nB: b\r\nX-Haproxy-Server-State: UP\r\nConnection: close\r\n\
         Content-Length: 2\r\n\r\nhi"
    );
    let two = "steps = [{ connect = true }, { uri = '/a' }, { expect-status = '200' }, { connect = true, port = 8 }, \
               { uri = '/b', headers = { Connection = 'keep-alive' } }]";
    let (finding, sent) = run(&http(two), b"HTTP/1.1 200 OK\r\n\r\n", Then::End);
    assert_eq!(
        finding.status,
        CheckStatus::L7Response,
        "nothing came for the second"
    );
    assert_eq!(
        sent[1],
        b"OPTIONS /b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn presets_in_haproxys_words() {
    use Then::{End, Silence};
    let greeting = b"J\0\0\0\x0a5.7.44-log\0".to_vec();
    let greeting = [greeting, vec![b'x'; 62]].concat();
    let logged_in = [&greeting[..], b"\x07\0\0\x02\0\0\0\x02\0\0\0"].concat();
    let bind = |code: u8| {
        let begin = [0x30, 0x0c, 0x02, 0x01, 0x01, 0x61, 0x07, 0x0a, 0x01, code];
        [&begin[..], &[0x04, 0, 0x04, 0]].concat()
    };
    let rfc = "See RFC: http://tools.ietf.org/html/rfc4511#section-4.1.9";
    let user = Some("u");
    let since = MysqlLogin::Since41;
    let cases: [(Script, &[u8], Then, &str); 22] = [
        (
            preset::redis(),
            b"+PONG\r\n",
            Silence,
            "L7OK 0 |Redis server is ok",
        ),
        (preset::redis(), b"-ERR nope\r\nmore", Silence, "L7TOUT |"),
        (
            preset::redis(),
            b"-ERR nope\r\nmore",
            End,
            "L7STS 0 |-ERR nope",
        ),
        (
            preset::postgres("u"),
            b"E\0\0\0\x20SFATAL\0Mno such user\0\0",
            Silence,
            "L7RSP |FATAL",
        ),
        (
            preset::postgres("u"),
            b"R\0\0\0\x08\0\0\0\0",
            Silence,
            "L7OK 0 |PostgreSQL server is ok",
        ),
        (
            preset::postgres("u"),
            b"R\0\0\0\x0c\0\0\0\x05abcd",
            Silence,
            "L7OK 0 |PostgreSQL server is ok",
        ),
        (preset::postgres("u"), b"+PONG\r\n", Silence, "L7TOUT |"),
        (
            preset::postgres("u"),
            b"+PONG\r\nmore",
            Silence,
            "L7STS 0 |PostgreSQL unknown error",
        ),
        (
            preset::postgres("u"),
            b"",
            End,
            "L7STS 0 |PostgreSQL unknown error",
        ),
        (
            preset::mysql(None, since),
            &greeting,
            Silence,
            "L7OK 0 |5.7.44-log",
        ),
        (
            preset::mysql(user, since),
            b"\x11\0\0\0\xff\x10\x04#08004Too many",
            Silence,
            "L7STS 1040 |#08004Too many",
        ),
        (preset::mysql(user, since), &greeting, Silence, "L7TOUT |"),
        (
            preset::mysql(user, since),
            &logged_in,
            Silence,
            "L7OK 0 |5.7.44-log",
        ),
        (preset::mysql(user, since), b"\xff", End, "L7RSP |"),
        (preset::ldap(), &bind(0), Silence, "L7OK 0 |Success"),
        (
            preset::ldap(),
            &bind(49),
            Silence,
            &format!("L7STS 49 |{rfc}"),
        ),
        (preset::ldap(), b"+PONG\r\n", Silence, "L7TOUT |"),
        (preset::ldap(), b"0123456789abcdef", Silence, "L7TOUT |"),
        (preset::ldap(), b"0123456789abcdef", End, "L7RSP |"),
        (
            preset::tls_hello(),
            b"\x15\x03\0\0\x02\x02\x28",
            Silence,
            "L6OK |",
        ),
        (preset::tls_hello(), b"+PONG\r\n", Silence, "L6RSP |"),
        (preset::tls_hello(), b"", Silence, "L6TOUT |"),
    ];
    for (script, answer, then, expected) in cases {
        let (script, answer) = (&script, answer);
        assert_eq!(
            shown(script, answer, then),
            expected,
            "{script} {}",
            answer.escape_ascii()
        );
    }
}

#[test]
fn a_conversation_of_smtp() {
    let script = preset::smtp("EHLO me");
    let facts = Facts::default();
    let talk = |answers: &[&str]| {
        let mut run = Run::new(&script, &facts);
        let mut answers = answers.iter();
        loop {
            match run.order() {
                Order::Connect(_) | Order::Send(_) => {}
                Order::Receive(_) => match answers.next() {
                    Some(answer) => run.received(answer.as_bytes()),
                    None => break run.timed_out(Phase::Connected),
                },
                Order::Done(finding) => break finding,
            }
        }
    };
    let said = |answers: &[&str]| {
        let finding = talk(answers);
        (finding.status, finding.code, finding.info)
    };
    assert_eq!(
        said(&["220 mx\r\n", "250-mx\r\n", "250 OK\r\n", "221 bye\r\n"]),
        (CheckStatus::L7Ok, 221, "bye".into())
    );
    assert_eq!(
        said(&["421 too busy\r\n"]),
        (CheckStatus::L7Status, 421, "too busy".into())
    );
    assert_eq!(said(&["250"]), (CheckStatus::L7Timeout, 0, String::new()));
}

#[test]
fn what_is_said_of_a_server_fits_on_a_line() {
    let script = tcp("{ send = 'x' }, { expect-string = 'y', on-error = '%[res.payload(0,0)]' }");
    let answer = [&b"a\nb\x1b"[..], &[b'c'; 300]].concat();
    let (finding, _) = run(&script, &answer, Then::End);
    assert_eq!(finding.info.len(), 127);
    assert!(finding.info.starts_with("a?b?ccc"), "{}", finding.info);
    let (finding, _) = run(&script, "é".repeat(100).as_bytes(), Then::End);
    assert_eq!(finding.info.chars().count(), 63);
}

#[test]
fn no_more_is_kept_of_an_answer_than_fits() {
    let script = tcp("{ send = 'x' }, { expect-string = 'y' }");
    let answer = vec![b'a'; 3 * BUFFER_MAX];
    let expected = "L7RSP |TCPCHK did not match content 'y' at step 2";
    assert_eq!(shown(&script, &answer, Then::Silence), expected);
    let head = b"HTTP/1.1 200 OK\r\n\r\n";
    let answer = [&head[..], &answer].concat();
    let script = http("steps = [{ expect-string = 'y' }]");
    let expected = "L7RSP |HTTP content check did not match";
    assert_eq!(shown(&script, &answer, Then::Silence), expected);
}

#[test]
fn an_end_of_postgresql_is_sent_where_no_password_is_asked_for() {
    let script = preset::postgres("u");
    let facts = Facts::default();
    let farewell = |answer: &[u8]| {
        let mut run = Run::new(&script, &facts);
        while !matches!(run.order(), Order::Receive(_)) {}
        run.received(answer);
        assert!(matches!(run.order(), Order::Done(_)));
        run.farewell().map(<[u8]>::to_vec)
    };
    assert_eq!(
        farewell(b"R\0\0\0\x08\0\0\0\0").as_deref(),
        Some(&b"X\0\0\0\x04"[..])
    );
    assert_eq!(farewell(b"R\0\0\0\x08\0\0\0\x03"), None);
}

/// Scripts that wait for more until the connection ends.
fn patient() -> Vec<Arc<Script>> {
    vec![
        tcp("{ send = 'x' }, { expect-string = 'ab' }"),
        tcp("{ send = 'x' }, { expect-rstring = 'a.*b' }, { expect-string = 'c' }"),
        tcp("{ send = 'x' }, { expect-binary = '6162' }"),
        http(""),
        http("steps = [{ expect-string = 'ab' }]"),
        http("steps = [{ expect-status = '200' }, { expect-header = 'X', header-value = 'a' }]"),
        Arc::new(preset::redis()),
        Arc::new(preset::mysql(Some("u"), MysqlLogin::Since41)),
        Arc::new(preset::mysql(None, MysqlLogin::Since41)),
    ]
}

/// Bytes that resemble an answer of HTTP.
fn answer() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(&b"HTTP/1.1 200 OK\r\n"[..]),
        Just(&b"HTTP/1.0 503 No\r\n"[..]),
        Just(&b"HTTP/1.1 100 Continue\r\n\r\n"[..]),
        Just(&b"Content-Length: 3\r\n"[..]),
        Just(&b"Transfer-Encoding: chunked\r\n"[..]),
        Just(&b"X: a, b\r\n"[..]),
        Just(&b"\r\n"[..]),
        Just(&b"2\r\nab\r\n"[..]),
        Just(&b"0\r\n\r\n"[..]),
        Just(&b"abc"[..]),
        Just(&b"+PONG\r\n"[..]),
        Just(&b"\x05\0\0\0\x0a5.7\0"[..]),
        Just(&b"\x01\0\0\x02\0"[..]),
    ];
    proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    /// The result is the same however the answer is cut into pieces.
    #[test]
    fn an_answer_may_come_in_any_pieces(bytes in answer(), piece in 1..20_usize) {
        for script in patient() {
            let whole = exercise(&script, &bytes, usize::MAX);
            prop_assert_eq!(&exercise(&script, &bytes, 1), &whole, "{}", script);
            prop_assert_eq!(&exercise(&script, &bytes, piece), &whole, "{}", script);
        }
    }

    /// Any bytes have a result.
    #[test]
    fn any_bytes_have_a_result(bytes in proptest::collection::vec(any::<u8>(), 0..200), piece in 1..20_usize) {
        let more = [
            Arc::new(preset::ldap()),
            Arc::new(preset::tls_hello()),
            Arc::new(preset::postgres("u")),
            Arc::new(preset::smtp("HELO a")),
        ];
        for script in patient().iter().chain(&more) {
            let finding = exercise(script, &bytes, piece);
            prop_assert!(finding.info.len() <= 127);
        }
    }
}

/// What an API server's answers mean; those of one that is down mean no more than that it stays down.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn answers_of_an_api_server() {
    let not_ready = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 105\r\n\r\n[+]ping ok\n[-]etcd failed: reason \
                      withheld\n[-]poststarthook/rbac failed: reason withheld\nreadyz check failed\n"
        .as_slice();
    let half = &not_ready[..90];
    let refused = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".as_slice();
    let cases = [
        (
            "",
            b"HTTP/1.0 200 OK\r\n\r\nok".as_slice(),
            "L7OK 200 |",
            "",
        ),
        (
            "",
            not_ready,
            "L7OKC 500 |not ready: etcd, poststarthook/rbac",
            "L7STS 500 |not ready: etcd, poststarthook/rbac",
        ),
        (
            "",
            half,
            "L7OKC 500 |not ready: etcd",
            "L7STS 500 |not ready: etcd",
        ),
        (
            "",
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            "L7OKC 503 |not ready: Service Unavailable",
            "L7STS 503 |not ready: Service Unavailable",
        ),
        (
            "",
            refused,
            "L7OK 403 |403: anonymous access is off, set crt or token-file",
            "",
        ),
        (
            "crt = '/c'",
            refused,
            "L7OK 403 |403: the certificate or the token of the check is not accepted",
            "",
        ),
        (
            "unauthorized = 'down'",
            refused,
            "L7STS 403 |403: anonymous access is off, set crt or token-file",
            "",
        ),
        (
            "",
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "L7STS 404 |Not Found",
            "",
        ),
    ];
    for (keys, answer, expected, when_down) in cases {
        let script = script(&format!("type = 'kube-apiserver'\n{keys}"));
        assert!(script.has_tls());
        assert_eq!(shown(&script, answer, Then::Silence), expected, "{keys}");
        let down = Facts {
            token: Some("t0k".into()),
            ..Facts::default()
        };
        let mut run = Run::new(&script, &down);
        let finding = loop {
            match run.order() {
                Order::Connect(_) => {}
                Order::Send(bytes) => {
                    let request = "GET /readyz HTTP/1.0\r\nUser-Agent: rlb\r\nAuthorization: Bearer t0k\r\n\
                                   Connection: close\r\n\r\n";
                    assert_eq!(String::from_utf8_lossy(&bytes), request);
                }
                Order::Receive(_) => run.received(answer),
                Order::Done(finding) => break finding,
            }
            if answer == half && !run.input.is_empty() {
                break run.timed_out(Phase::Connected);
            }
        };
        let Finding { status, code, info } = finding;
        if !when_down.is_empty() {
            assert_eq!(format!("{} {code} |{info}", status.code()), when_down);
        }
    }
}
