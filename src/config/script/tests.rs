//! The order of steps, and the small languages in them.

use super::*;

fn step(number: u32, action: Action) -> Step {
    Step {
        number,
        comment: None,
        action,
    }
}

fn comment(number: u32, text: &str) -> Step {
    Step {
        comment: Some(text.into()),
        ..step(number, Action::Comment)
    }
}

fn send(number: u32) -> Step {
    step(number, Action::Send(Content::Bytes(b"x".as_slice().into())))
}

fn connect(number: u32) -> Step {
    step(number, Action::Connect(Connect::default()))
}

fn expect(number: u32, negated: bool) -> Step {
    let expect = Expect {
        negated,
        ..Expect::new(Pattern::String(b"x".as_slice().into()))
    };
    step(number, Action::Expect(Arc::new(expect)))
}

fn request(number: u32) -> Step {
    step(number, Action::Request(Arc::default()))
}

/// The numbers of the steps, and their comments.
fn shape(script: &Script) -> Vec<(u32, Option<&str>)> {
    let steps = script.steps.iter();
    steps
        .map(|step| (step.number, step.comment.as_deref()))
        .collect()
}

#[test]
fn a_connection_comes_first_also_where_no_step_asks_for_it() {
    let script = Script::new(Protocol::Tcp, vec![comment(1, "c"), send(2)]).unwrap();
    assert_eq!(shape(&script), [(0, None), (2, Some("c"))]);
    let script = Script::new(Protocol::Tcp, vec![comment(1, "c"), connect(2), send(3)]).unwrap();
    assert_eq!(shape(&script), [(2, Some("c")), (3, None)]);
    let late = Script::new(Protocol::Tcp, vec![send(1), connect(2)]);
    assert_eq!(late, Err(Misplaced::LateConnect));
    assert_eq!(
        shape(&Script::new(Protocol::Tcp, vec![]).unwrap()),
        [(0, None)]
    );
}

/// As in HAProxy a comment is for all that send, or all that wait, behind it.
#[test]
fn a_comment_is_for_the_steps_behind_it() {
    let own = Step {
        comment: Some("own".into()),
        ..expect(4, false)
    };
    let steps = vec![
        send(1),
        comment(2, "a"),
        expect(3, false),
        own,
        expect(5, true),
        send(6),
    ];
    let script = Script::new(Protocol::Tcp, steps).unwrap();
    let a = Some("a");
    let said = [
        (0, None),
        (1, None),
        (3, a),
        (4, Some("own")),
        (5, a),
        (6, None),
    ];
    assert_eq!(shape(&script), said);
}

#[test]
fn a_request_is_expected_to_succeed_where_nothing_says_otherwise() {
    let script = Script::new(Protocol::Http, vec![request(1)]).unwrap();
    assert_eq!(shape(&script), [(0, None), (1, None), (2, None)]);
    assert_eq!(
        script.to_string(),
        "connect; OPTIONS / HTTP/1.0; expect status 200-399"
    );
    let wrong = |steps| Script::new(Protocol::Http, steps).unwrap_err();
    assert_eq!(wrong(vec![expect(1, false)]), Misplaced::NoRequest);
    assert_eq!(
        wrong(vec![request(1), expect(2, false), request(3)]),
        Misplaced::LateRequest
    );
    assert_eq!(
        wrong(vec![connect(1), request(2), connect(3)]),
        Misplaced::NoExpectation
    );
    let two = vec![
        connect(1),
        request(2),
        expect(3, false),
        connect(4),
        request(5),
    ];
    assert_eq!(Script::new(Protocol::Http, two).unwrap().steps.len(), 6);
}

#[test]
fn more_of_an_answer_is_compared_from_the_first_negated_step_on() {
    let steps = vec![
        expect(1, false),
        expect(2, true),
        expect(3, false),
        send(4),
        expect(5, false),
    ];
    let script = Script::new(Protocol::Tcp, steps).unwrap();
    let resume = script.steps.iter().filter_map(|step| match &step.action {
        Action::Expect(expect) => Some(expect.resume),
        _ => None,
    });
    assert_eq!(resume.collect::<Vec<_>>(), [1, 2, 2, 5]);
}

#[test]
fn formats_are_read() {
    let parts = |text| StepFormat::parse(text).unwrap().parts().to_vec();
    let answer = Part::Answer {
        first: 4,
        length: 0,
        trimmed: true,
        line: true,
    };
    assert_eq!(
        parts("a %% %[srv_name]%[res.payload(4,0),ltrim(' '),cut_crlf]"),
        [Part::Bytes(b"a % ".as_slice().into()), Part::Server, answer]
    );
    assert_eq!(parts(""), []);
    for bad in [
        "%",
        "%ci",
        "%[src]",
        "%[res.payload(1)]",
        "%[res.payload(1,2),x]",
        "%[be_name",
    ] {
        assert!(StepFormat::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn status_codes_are_read() {
    let ranges = StatusRanges::parse("200,300-399").unwrap();
    let all = [199, 200, 201, 300, 399, 400].map(|status| ranges.has(status));
    assert_eq!(all, [false, true, false, true, true, false]);
    assert_eq!(ranges.to_string(), "200,300-399");
    for bad in ["", "20", "1000", "200-", "300-200", "200,,201", "abc"] {
        assert!(StatusRanges::parse(bad).is_err(), "{bad}");
    }
}

/// The bytes are those that HAProxy sends.
#[test]
fn presets_send_what_haproxy_sends() {
    let sent = |script: &Script| {
        let bytes = script.steps.iter().filter_map(|step| match &step.action {
            Action::Send(Content::Bytes(bytes)) => Some(bytes.to_vec()),
            _ => None,
        });
        bytes.collect::<Vec<_>>()
    };
    assert_eq!(
        sent(&preset::postgres("ab")),
        [b"\0\0\0\x11\0\x03\0\0user\0ab\0\0".to_vec()]
    );
    assert_eq!(
        sent(&preset::mysql(Some("ab"), preset::MysqlLogin::Before41)),
        [b"\x09\0\0\x01\0\x80\0\0\x01ab\0\0\x01\0\0\0\x01".to_vec()]
    );
    let since = &sent(&preset::mysql(Some("ab"), preset::MysqlLogin::Since41))[0];
    assert_eq!((since[0], since.len()), (36, 4 + 36 + 5));
    let plugin = &sent(&preset::mysql(Some("ab"), preset::MysqlLogin::Since80))[0];
    assert_eq!((plugin[0], plugin.len()), (58, 4 + 58 + 5));
    let hello = &sent(&preset::tls_hello())[0];
    assert_eq!((hello.len(), usize::from(hello[4])), (126, 121));
    assert_eq!(
        sent(&preset::smtp("EHLO a")),
        [b"EHLO a\r\n".to_vec(), b"QUIT\r\n".to_vec()]
    );
}

/// An older process hands over scripts that say nothing of TLS.
#[test]
fn a_script_of_before_tls_is_read() {
    let script = preset::redis();
    let mut json = serde_json::to_value(&script).unwrap();
    let table = json.as_object_mut().unwrap();
    assert!(table.remove("tls").is_some());
    let connect = &mut table["steps"][0]["action"]["Connect"];
    for key in ["tls", "sni", "host", "alpn"] {
        assert!(connect.as_object_mut().unwrap().remove(key).is_some());
    }
    assert_eq!(serde_json::from_value::<Script>(json).unwrap(), script);
    let secure = Script {
        tls: Tls {
            on: true,
            sni: Some("a".into()),
            ..Tls::default()
        },
        ..script
    };
    let json = serde_json::to_string(&secure).unwrap();
    assert_eq!(serde_json::from_str::<Script>(&json).unwrap(), secure);
    assert!(secure.has_tls() && secure.to_string().ends_with("; check-ssl; check-sni a"));
}
