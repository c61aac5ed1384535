//! What the fuzz targets do with their input: everything in rlb that parses text from outside. No input may
//! panic, and every assertion here holds for every input.
//!
//! `fuzz_targets/` runs each function under libFuzzer; `tests/corpora.rs` calls the same functions with
//! every file of the committed corpora.

#![allow(dead_code, reason = "a fuzz program has one target, the test has all")]

use rlb::check::script;
use rlb::config::format::{Escape, Given};
use rlb::config::model::{Config, Format, ProxyV2Options};
use rlb::config::script::Script;
use rlb::config::script::preset::{self, MysqlLogin};
use rlb::config::{Limits, Loader, address, units};
use rlb::convert::{Conversion, Input, Options, Outside, convert};
use rlb::live::GlobalLive;
use rlb::proto::proxy::{self, Parsed};
use rlb::state::{Origin, Snapshot};
use rlb::stats::servers_state;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A target: it takes any bytes.
pub(crate) type Target = fn(&[u8]);

/// All targets, by the name of their program and of their corpus.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("check_answer", check_answer),
    ("config_toml", config_toml),
    ("haproxy_cfg", haproxy_cfg),
    ("proxy_header", proxy_header),
    ("runtime_command", runtime_command),
    ("server_state", server_state),
    ("stats_request", stats_request),
    ("unit_string", unit_string),
];

/// They are the same for every input.
static SCRIPTS: OnceLock<Vec<(Script, bool)>> = OnceLock::new();

/// The first byte as the choice of a script, the others as the answer to its check. Whatever comes has a result, and of a
/// script that waits for more until the connection ends it is the same however the answer is cut into pieces.
pub(crate) fn check_answer(bytes: &[u8]) {
    let Some((choice, answer)) = bytes.split_first() else {
        return;
    };
    let scripts = SCRIPTS.get_or_init(check_scripts);
    let (script, patient) = &scripts[usize::from(*choice) % scripts.len()];
    let whole = script::exercise(script, answer, usize::MAX);
    assert!(whole.info.len() <= 127 && !whole.info.contains('\n'));
    for piece in [1, 7] {
        let cut = script::exercise(script, answer, piece);
        assert!(!patient || cut == whole, "{script}: {cut:?}, {whole:?}");
    }
}

/// Scripts of each kind, and whether none of their steps has `min-recv`.
fn check_scripts() -> Vec<(Script, bool)> {
    let text = "[[listen]]\nname = 'l'\nbind = '*:81'\nservers = [\n\
        { name = 's1', address = '10.0.0.1:1', check = 'http' },\n\
        { name = 's2', address = '10.0.0.1:1', check = { type = 'http', disable-on-404 = true, steps = [\n\
        { expect-rstatus = '^[24]' }, { expect-header = 'x', header-value = 'a', header-match = 'sub' },\n\
        { expect-rstring = 'a.*b' }, { expect-string = 'c', not = true } ] } },\n\
        { name = 's3', address = '10.0.0.1:1', check = { type = 'tcp', steps = [\n\
        { send = 'x' }, { expect-string = 'ab', not = true }, { expect-rbinary = '^61' },\n\
        { expect-binary = '00', on-error = '%[res.payload(2,9),cut_crlf]' } ] } },\n]\n";
    let config = load(text).expect("it is valid").0;
    let servers = config.backends[0].servers.iter();
    let own = servers.filter_map(|server| server.check.as_ref()?.script.as_deref().cloned());
    let own = own.zip([true, true, false]);
    let presets = [
        (preset::redis(), true),
        (preset::mysql(None, MysqlLogin::Since41), true),
        (preset::mysql(Some("u"), MysqlLogin::Since41), true),
        (preset::ldap(), false),
        (preset::postgres("u"), false),
        (preset::smtp("HELO a"), false),
        (preset::tls_hello(), false),
    ];
    own.chain(presets).collect()
}

/// The bytes as a configuration file. Every problem has a position in the text and can be shown.
pub(crate) fn config_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let found = match load(text) {
        Ok((_, warnings)) => warnings,
        Err(problems) => problems,
    };
    for diagnostic in found {
        let place = diagnostic.place.as_ref();
        assert!(place.is_none_or(|place| place.span.end <= text.len()));
        let _ = (
            diagnostic.render(false),
            diagnostic.to_json(),
            diagnostic.line(),
        );
    }
}

/// The bytes as a configuration of HAProxy's, with and without what is weaker. What is converted
/// without an error and without a loss is a configuration of rlb's, unless nothing listens in it, and each
/// entry of the report has its place.
pub(crate) fn haproxy_cfg(bytes: &[u8]) {
    let input = [Input {
        name: "fuzz.cfg".to_owned(),
        bytes: bytes.to_owned(),
    }];
    let variable = |name: &str| (name == "A").then(|| "10.0.0.1".to_owned());
    let outside = Outside {
        variable: &variable,
        address: &|_| None,
        folder: None,
        real_path: &|path| path.to_owned(),
    };
    for allow_degraded in [false, true] {
        let options = Options {
            allow_degraded,
            haproxy_defaults: allow_degraded,
            ..Options::default()
        };
        let Conversion {
            toml,
            report,
            listens,
            ..
        } = convert(&input, options, outside);
        let lines = bytes.split(|byte| *byte == b'\n').count();
        for entry in &report.entries {
            assert!(entry.at.is_none_or(|at| (1..=lines).contains(&at.line)));
        }
        let _ = (report.text(true), report.to_json());
        let unset = report
            .entries
            .iter()
            .any(|entry| entry.text.contains("is not set here"));
        if !report.failed() && !report.changes_traffic() && !unset {
            let loader = Loader {
                limits: Limits::unknown(),
                environment: &variable,
                disk: false,
            };
            let problems = loader.load_text("fuzz.toml", &toml).err();
            let mut problems = problems.iter().flatten();
            // A file in which nothing listens is written so that a person can go on with it.
            assert!(
                problems.all(|it| it.code == "no-listener" && !listens),
                "{toml}"
            );
        }
    }
}

/// The bytes as the begin of a client's connection. A header that was read is read as the same when it is written
/// again, and what is refused is refused whatever follows.
pub(crate) fn proxy_header(bytes: &[u8]) {
    match proxy::parse(bytes) {
        Parsed::NeedMore(least) => assert!(least > bytes.len() && least <= proxy::HEADER_MAX),
        Parsed::Refused(problem) => {
            let more = [bytes, b"\r\nmore"].concat();
            assert_eq!(proxy::parse(&more), Parsed::Refused(problem));
        }
        Parsed::Done(header, length) => {
            assert!(length <= bytes.len());
            let same = Parsed::Done(header.clone(), length);
            assert_eq!(proxy::parse(&bytes[..length]), same);
            let others = header.tlvs.filter(|it| it.kind != proxy::tlv::CRC32C);
            let crc = length + 7 <= proxy::HEADER_MAX;
            let mut written = Vec::new();
            proxy::write_v2(&mut written, header.addresses, others.clone(), crc);
            let Parsed::Done(again, _) = proxy::parse(&written) else {
                panic!("{written:?} is not read");
            };
            assert_eq!(again.addresses, header.addresses);
            assert!(again.tlvs.take(others.clone().count()).eq(others.clone()));
            // With what rlb puts before them, they are the same as far as there is room.
            let own = [
                (proxy::tlv::UNIQUE_ID, &b"id"[..]),
                (proxy::tlv::NETNS, b"blue"),
            ];
            let own = own.map(|(kind, value)| proxy::Tlv { kind, value });
            let all = own.into_iter().chain(others.clone());
            let mut longer = Vec::new();
            proxy::write_v2(&mut longer, header.addresses, all, false);
            let Parsed::Done(again, _) = proxy::parse(&longer) else {
                panic!("{longer:?} is not read");
            };
            assert!(longer.len() <= proxy::HEADER_MAX);
            let mut again = again.tlvs;
            assert!(again.by_ref().take(2).eq(own));
            if length + 12 <= proxy::HEADER_MAX {
                assert!(again.eq(others));
            }
            let mut written = Vec::new();
            proxy::write_v1(&mut written, header.addresses);
            let Parsed::Done(again, _) = proxy::parse(&written) else {
                panic!("{written:?} is not read");
            };
            assert_eq!(again.addresses, header.addresses);
        }
    }
}

/// The bytes as a line to the runtime socket.
pub(crate) fn runtime_command(bytes: &[u8]) {
    rlb::admin::runtime::exercise_line(bytes);
}

/// The bytes as the target of a request to the statistics page, and as the body of an action there.
pub(crate) fn stats_request(bytes: &[u8]) {
    rlb::admin::exercise_target(&String::from_utf8_lossy(bytes));
    rlb::admin::exercise_form(bytes);
}

/// The bytes as the server states of an earlier process. Applied to a snapshot and written again, they are read
/// as one line for each server.
pub(crate) fn server_state(bytes: &[u8]) {
    let now = Instant::now() + Duration::from_secs(3_600);
    let clock = (now, Duration::from_secs(7_200));
    let known = servers_state::read(&String::from_utf8_lossy(bytes), clock);
    let base = Arc::new(snapshot(now));
    let next = rlb::state::server_state::apply(&base, &known, now).map_or(base, Arc::new);
    let written = servers_state::for_next_process(&next, clock);
    let again = servers_state::read(&written, clock);
    assert_eq!(again.len(), 3, "{written}");
}

/// The bytes as each of the small languages inside strings. A duration that rlb has written is read as the same
/// duration.
pub(crate) fn unit_string(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(duration) = units::duration(&text) {
        assert!(duration <= units::DURATION_MAX);
        let written = units::format_duration(duration);
        assert_eq!(units::duration(&written), Ok(duration), "{written}");
    }
    let _ = address::bind(&text);
    let _ = address::server(&text);
    let _ = address::node(&text, 80);
    let _ = address::socket(&text);
    let _ = address::ip_alone(&text);
    let _ = address::log_sink(&text);
    let _ = units::mode(&text);
    let _ = ProxyV2Options::parse(&text);
    if let Ok(format) = Format::parse(&text) {
        assert_eq!(Format::parse(format.text()).as_ref(), Ok(&format));
        let given = |_| Given::Bytes(bytes.into());
        for most in [0, 10, 1000] {
            let escape = Escape::With('%');
            assert!(format.write(most, escape, given).len() <= most);
            assert!(
                format
                    .mandatory()
                    .write(most, Escape::None, |_| Given::Nothing)
                    .len()
                    <= most
            );
        }
    }
    if units::name(&text).is_ok() {
        assert!(text.len() <= units::NAME_BYTES_MAX);
    }
}

/// Loads a text as a file. An environment variable whose name begins with `A` has its name as its value; no
/// other variable is set.
fn load(text: &str) -> rlb::config::Loaded {
    let loader = Loader {
        limits: Limits {
            nofile: Some(20_000),
            somaxconn: Some(4096),
            cores: 2,
            net_admin: true,
        },
        environment: &|name| name.starts_with('A').then(|| name.to_owned()),
        disk: false,
    };
    loader.load_text("fuzz.toml", text)
}

/// A snapshot of one backend of three servers, of each kind of address.
fn snapshot(now: Instant) -> Snapshot {
    let text = "[[frontend]]\nname = 'fe'\nbind = '127.0.0.1:5432'\ndefault-backend = 'be'\n\
        [[backend]]\nname = 'be'\ncheck = 'tcp'\nservers = [\n\
        { name = 's1', address = '10.0.0.1:5432' },\n\
        { name = 's2', address = 'db.example:5432', backup = true },\n\
        { name = 's3', address = 'unix:/run/db.sock', disabled = true },\n]\n";
    let config: Config = load(text).expect("it is valid").0;
    let shards = 2;
    let origin = Origin {
        global: Arc::new(GlobalLive::new(now, shards)),
        maxconn: 1_000,
        shards,
        now,
    };
    Snapshot::initial(&config, &origin)
}
