//! The checks that HAProxy has names for, as steps: what it sends and what it accepts.

use super::{
    Action, Connect, Content, Expect, Farewell, Kube, Misplaced, Pattern, Protocol, Regex, Request,
    Script, StatusRanges, Step, StepFormat, Verdict,
};
use std::sync::{Arc, LazyLock};

/// What a MySQL check says as a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MysqlLogin {
    /// As before 4.1.
    Before41,
    /// From 4.1 on.
    #[default]
    Since41,
    /// With the plugin `mysql_native_password`, as from 8.0 on.
    Since80,
}

/// Longest name of a user, in bytes.
pub const USER_MAX: usize = 128;

/// `SSLv3` in a `ClientHello`, its length and the random bytes up to the time.
const HELLO_BEGIN: &[u8] = &[
    0x16, 0x03, 0x00, 0x00, 0x79, 0x01, 0x00, 0x00, 0x75, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00,
];
/// The rest of its random bytes.
const HELLO_RANDOM: &[u8; 28] = b"HAPROXYSSLCHK\nHAPROXYSSLCHK\n";
/// Its 39 ciphers: these two ranges.
const HELLO_CIPHERS: [(u16, u16); 2] = [(0x01, 0x1b), (0x2f, 0x3a)];

/// The expressions that they need, each compiled once.
macro_rules! regexes {
    ($($name:ident = $text:literal;)+) => {
        $(static $name: LazyLock<Regex> = LazyLock::new(|| {
            Regex::parse($text).expect("the expressions of the presets are valid")
        });)+
    };
}

regexes! {
    TLS_RECORD = "^1[56]";
    SMTP_BANNER = "^[0-9]{3}[ \\r]";
    SMTP_READY = "^2[0-9]{2}[ \\r]";
    SMTP_HELLO = "^(2[0-9]{2}-[^\\r]*\\r\\n)*2[0-9]{2}[ \\r]";
    SMTP_BYE = "^2[0-9]{2}[- \\r]";
    POSTGRES_ERROR = "^E";
    POSTGRES_AUTH = "^52000000[A-Z0-9]{2}000000(00|02|03|04|05|06|07|09|0A)";
    LDAP_MESSAGE = "^30";
}

/// `option redis-check`.
pub fn redis() -> Script {
    made(vec![
        send(b"*1\r\n$4\r\nPING\r\n"),
        expect(Expect {
            error: Some(Verdict::L7Status),
            on_error: Some(StepFormat::line(0, false)),
            on_success: Some(StepFormat::plain("Redis server is ok")),
            ..Expect::new(Pattern::String(b"+PONG\r\n".as_slice().into()))
        }),
    ])
}

/// `option ssl-hello-chk`.
pub fn tls_hello() -> Script {
    let mut hello = HELLO_BEGIN.to_vec();
    hello.extend_from_slice(HELLO_RANDOM);
    // No session, and 78 bytes of ciphers.
    hello.extend_from_slice(&[0, 0, 78]);
    for (first, last) in HELLO_CIPHERS {
        hello.extend((first..=last).flat_map(u16::to_be_bytes));
    }
    // One method of compression: none.
    hello.extend_from_slice(&[1, 0]);
    made(vec![
        send(&hello),
        expect(Expect {
            min_recv: Some(5),
            ok: Verdict::L6Ok,
            error: Some(Verdict::L6Response),
            timeout: Verdict::L6Timeout,
            ..Expect::new(Pattern::BinaryRegex(TLS_RECORD.clone()))
        }),
    ])
}

/// `option smtpchk`; `hello` is as `HELO localhost`.
pub fn smtp(hello: &str) -> Script {
    let status = |regex: &Regex, least: Option<u32>| Expect {
        min_recv: least,
        error: Some(Verdict::L7Status),
        on_error: Some(StepFormat::line(4, true)),
        code: Some((0, 3)),
        ..Expect::new(Pattern::Regex(regex.clone()))
    };
    let said = |expected: Expect| Expect {
        on_success: Some(StepFormat::line(4, true)),
        ..expected
    };
    made(vec![
        linger(),
        expect(Expect {
            min_recv: Some(4),
            error: Some(Verdict::L7Response),
            on_error: Some(StepFormat::line(0, false)),
            ..Expect::new(Pattern::Regex(SMTP_BANNER.clone()))
        }),
        expect(status(&SMTP_READY, Some(4))),
        send(format!("{hello}\r\n").as_bytes()),
        expect(said(status(&SMTP_HELLO, None))),
        send(b"QUIT\r\n"),
        expect(said(status(&SMTP_BYE, Some(4)))),
    ])
}

/// `option pgsql-check user USER`. A server that asks for no password is told that nothing follows.
pub fn postgres(user: &str) -> Script {
    let mut startup = Vec::new();
    let length = u32::try_from(15 + user.len()).unwrap_or(u32::MAX);
    startup.extend_from_slice(&length.to_be_bytes());
    startup.extend_from_slice(&[0, 3, 0, 0]);
    startup.extend_from_slice(b"user\0");
    startup.extend_from_slice(user.as_bytes());
    startup.extend_from_slice(&[0, 0]);
    let script = made(vec![
        linger(),
        send(&startup),
        expect(Expect {
            negated: true,
            min_recv: Some(5),
            error: Some(Verdict::L7Response),
            on_error: Some(StepFormat::answer(6)),
            ..Expect::new(Pattern::Regex(POSTGRES_ERROR.clone()))
        }),
        expect(Expect {
            min_recv: Some(9),
            error: Some(Verdict::L7Status),
            on_success: Some(StepFormat::plain("PostgreSQL server is ok")),
            on_error: Some(StepFormat::plain("PostgreSQL unknown error")),
            ..Expect::new(Pattern::BinaryRegex(POSTGRES_AUTH.clone()))
        }),
    ]);
    Script {
        farewell: Some(Farewell {
            after: b"R\0\0\0\x08\0\0\0\0".as_slice().into(),
            bytes: b"X\0\0\0\x04".as_slice().into(),
        }),
        ..script
    }
}

/// `option mysql-check`, with a user or without.
pub fn mysql(user: Option<&str>, login: MysqlLogin) -> Script {
    let mut steps = vec![linger()];
    steps.extend(user.map(|user| send(&mysql_login(user, login))));
    steps.push(expect(Expect::new(Pattern::MysqlGreeting)));
    if user.is_some() {
        steps.push(expect(Expect::new(Pattern::MysqlOk)));
    }
    made(steps)
}

/// A login without a password, and that nothing follows.
fn mysql_login(user: &str, login: MysqlLogin) -> Vec<u8> {
    let mut packet = Vec::new();
    match login {
        MysqlLogin::Before41 => packet.extend_from_slice(&[0, 0x80, 0, 0, 1]),
        MysqlLogin::Since41 | MysqlLogin::Since80 => {
            let plugins = if login == MysqlLogin::Since80 { 8 } else { 0 };
            packet.extend_from_slice(&[0, 0x82, plugins, 0, 0, 0x80, 0, 1, 0x21]);
            packet.extend_from_slice(&[0; 23]);
        }
    }
    packet.extend_from_slice(user.as_bytes());
    packet.extend_from_slice(&[0, 0]);
    if login == MysqlLogin::Since80 {
        packet.extend_from_slice(b"mysql_native_password\0");
    }
    let length = u32::try_from(packet.len())
        .unwrap_or(u32::MAX)
        .to_le_bytes();
    let mut out = length[..3].to_vec();
    out.push(1);
    out.extend(packet);
    // COM_QUIT.
    out.extend_from_slice(&[1, 0, 0, 0, 1]);
    out
}

/// `option ldap-check`: an anonymous bind.
pub fn ldap() -> Script {
    made(vec![
        send(&[
            0x30, 0x0c, 0x02, 0x01, 0x01, 0x60, 0x07, 0x02, 0x01, 0x03, 0x04, 0x00, 0x80, 0x00,
        ]),
        expect(Expect {
            min_recv: Some(14),
            on_error: Some(StepFormat::plain("Not LDAPv3 protocol")),
            ..Expect::new(Pattern::BinaryRegex(LDAP_MESSAGE.clone()))
        }),
        expect(Expect::new(Pattern::LdapBind)),
    ])
}

/// `GET` of `uri` at an API server of Kubernetes. `unauthorized_is_up`: those who live and do not want to answer are up.
pub fn kube_apiserver(uri: &Arc<str>, kube: Kube, unauthorized_is_up: bool) -> Script {
    let statuses = if unauthorized_is_up {
        "200,401,403"
    } else {
        "200"
    };
    let statuses = StatusRanges::parse(statuses).expect("the statuses are valid");
    let request = Request {
        method: "GET".into(),
        uri: Arc::clone(uri),
        headers: vec![("User-Agent".into(), StepFormat::plain("rlb"))],
        ..Request::default()
    };
    Script {
        protocol: Protocol::Http,
        kube: Some(Arc::new(kube)),
        ..made(vec![
            Action::Request(Arc::new(request)),
            expect(Expect::new(Pattern::Status(statuses))),
        ])
    }
}

fn linger() -> Action {
    Action::Connect(Connect {
        default: true,
        linger: true,
        ..Connect::default()
    })
}

fn send(bytes: &[u8]) -> Action {
    Action::Send(Content::Bytes(bytes.into()))
}

fn expect(expect: Expect) -> Action {
    Action::Expect(Arc::new(expect))
}

fn made(actions: Vec<Action>) -> Script {
    let steps = actions.into_iter().zip(1..);
    let steps = steps.map(|(action, number)| Step {
        number,
        comment: None,
        action,
    });
    let script: Result<Script, Misplaced> = Script::new(Protocol::Preset, steps.collect());
    script.expect("the steps of the presets are in order")
}
