//! What operators have set at run time, as text that the next process reads: a line for each setting, with the
//! file's value and the one in force.
//!
//! Pure. The fields of a line are separated by tabs. A reader leaves out lines whose kind or form it does not know,
//! and takes for the default what is missing in a server. A setting whose text has a tab or a line break (the path
//! of a unix socket can) is left out.

use super::source_text;
use crate::config::address;
use crate::config::model::{
    Check, CheckKind, HashKey, HoldDown, InitState, OnError, ProxyV2Options, Script, SendProxy,
    Server, ServerAddress, ServerSocket,
};
use crate::config::own_tlv::{OwnTlv, OwnTlvs};
use crate::state::server::by_name;
use crate::state::{Backend, FrontendState, RateLimits, Snapshot};
use std::fmt::Write;
use std::num::ParseIntError;
use std::sync::Arc;
use std::time::Duration;

/// The version of the text, its first line: a reader that knows another takes nothing.
const VERSION: &str = "1";

/// A setting, as it was read.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "operators have set few of them")]
pub(super) enum Setting {
    /// Most sessions of the process.
    Maxconn { file: u32, now: u32 },
    /// Most connections to the statistics.
    StatsMaxconn { file: u32, now: u32 },
    /// Most sessions of a frontend.
    FrontendMaxconn {
        frontend: Box<str>,
        file: Option<u32>,
        now: Option<u32>,
    },
    /// Most connections and most sessions that begin in a second.
    RateLimits { file: RateLimits, now: RateLimits },
    /// A frontend does not accept connections; no file says that of one that is started.
    FrontendState {
        frontend: Box<str>,
        now: FrontendState,
    },
    /// Frontends may not use a backend; no file says that.
    Unpublished { backend: Box<str> },
    /// Something of a server of a backend.
    Server {
        backend: Box<str>,
        server: Box<str>,
        setting: ServerSetting,
    },
}

/// What was set of a server.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ServerSetting {
    /// It was added, as this; or the file has it, under another name.
    Added {
        spec: Arc<Server>,
        name_in_file: Option<Arc<str>>,
    },
    /// It was removed; the file has it as this.
    Removed(Arc<Server>),
    /// Its address.
    Address {
        file: ServerAddress,
        now: ServerAddress,
    },
    /// Most sessions of it.
    Maxconn { file: u32, now: u32 },
    /// Its check.
    Check {
        file: Option<Check>,
        now: Option<Check>,
    },
}

/// Everything that operators have set, except for states and weights of servers: those are in
/// `show servers state`.
pub fn write(snapshot: &Snapshot) -> String {
    let mut text = format!("{VERSION}\n");
    if snapshot.maxconn != snapshot.hard_maxconn {
        let (file, now) = (snapshot.hard_maxconn, snapshot.maxconn);
        line(&mut text, &["maxconn", &file.to_string(), &now.to_string()]);
    }
    if let (Some(stats), Some(now)) = (&snapshot.stats, snapshot.stats_maxconn) {
        let file = stats.maxconn.to_string();
        line(&mut text, &["stats-maxconn", &file, &now.to_string()]);
    }
    let (file, now) = (snapshot.written_rate_limits, snapshot.rate_limits);
    if file != now {
        let [now, file] =
            [now, file].map(|it| [it.connections, it.sessions].map(|n| n.to_string()));
        line(
            &mut text,
            &["rate-limits", &now[0], &now[1], &file[0], &file[1]],
        );
    }
    for one in snapshot.frontends.iter().flatten() {
        if one.state != FrontendState::Open {
            let fields = ["frontend-state", &*one.spec.name, one.state.label()];
            line(&mut text, &fields);
        }
        if one.maxconn != one.spec.maxconn {
            let (file, now) = (limit(one.spec.maxconn), limit(one.maxconn));
            let fields = ["frontend-maxconn", &*one.spec.name, &file, &now];
            line(&mut text, &fields);
        }
    }
    for backend in snapshot.backends.iter().flatten() {
        of_backend(&mut text, backend);
    }
    text
}

fn of_backend(text: &mut String, backend: &Backend) {
    let of = &*backend.spec.name;
    if !backend.published {
        line(text, &["unpublished", of]);
    }
    let written = by_name(&backend.spec.servers);
    let mut missing = written.clone();
    for server in &backend.servers {
        let name = &*server.spec.name;
        // One that was added may have the name of a server of the file that was removed.
        if server.added.is_none() {
            missing.remove(name);
        }
        let file = server.added.as_deref();
        let Some(file) = file.or_else(|| written.get(name).copied()) else {
            continue;
        };
        if server.added.is_some() {
            let mut words = words(file);
            if let Some(name) = &server.name_in_file {
                // Writing to a string cannot fail.
                let _ = write!(words, " name-in-file={name}");
            }
            line(text, &["added", of, name, &address_text(file), &words]);
        }
        if file.address != server.spec.address {
            let (file, now) = (address_text(file), address_text(&server.spec));
            line(text, &["address", of, name, &file, &now]);
        }
        if file.maxconn != server.spec.maxconn {
            let (file, now) = (file.maxconn.to_string(), server.spec.maxconn.to_string());
            line(text, &["server-maxconn", of, name, &file, &now]);
        }
        // One that was added begins without its check.
        let begins_with = match server.added {
            Some(_) => &None,
            None => &file.check,
        };
        if *begins_with != server.spec.check {
            let check = |it: &Server| check_words(it.check.as_ref());
            let (file, now) = (check(file), check(&server.spec));
            line(text, &["check", of, name, &file, &now]);
        }
    }
    let file = backend.spec.servers.iter();
    for gone in file.filter(|one| missing.contains_key(&*one.name)) {
        let (name, address) = (&*gone.name, address_text(gone));
        line(text, &["removed", of, name, &address, &words(gone)]);
    }
}

/// Adds a line, unless a field has a separator in it.
fn line(text: &mut String, fields: &[&str]) {
    if fields.iter().all(|field| !field.contains(['\t', '\n'])) {
        text.push_str(&fields.join("\t"));
        text.push('\n');
    }
}

fn limit(limit: Option<u32>) -> String {
    limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string())
}

fn address_text(server: &Server) -> String {
    super::address(&server.address)
}

/// A server without its name and address: `NAME=VALUE` words.
fn words(server: &Server) -> String {
    // Names each field, so that a new one is not forgotten here.
    let Server {
        name: _,
        address: _,
        id,
        weight,
        hash_key,
        priority,
        backup,
        disabled,
        maxconn,
        minconn,
        maxqueue,
        slowstart,
        slowstart_at_start,
        init_state,
        shutdown_sessions_on_down,
        shutdown_backup_sessions_on_up,
        observe,
        error_limit,
        on_error,
        send_proxy,
        proxy_v2_options,
        proxy_v2_tlvs,
        check,
        source,
        socket,
        hold_down,
    } = server;
    let tlvs = proxy_v2_tlvs.as_deref().map_or_else(String::new, tlv_words);
    let (on_error, init_state) = (on_error.name(), init_state.name());
    let socket = socket.as_deref().map_or_else(String::new, socket_words);
    let (send_proxy, hash_key) = (send_proxy.name(), hash_key.name());
    let source = source.as_ref().map_or_else(String::new, source_text::write);
    let slowstart = slowstart.as_micros();
    let hold_down = hold_down.as_deref().map_or_else(String::new, hold_words);
    format!(
        "id={id} weight={weight} hash-key={hash_key} priority={priority} backup={backup} disabled={disabled} \
         maxconn={maxconn} minconn={minconn} maxqueue={maxqueue} \
         slowstart={slowstart} slowstart-at-start={slowstart_at_start} init-state={init_state} \
         shutdown-sessions-on-down={shutdown_sessions_on_down} \
         shutdown-backup-sessions-on-up={shutdown_backup_sessions_on_up} \
         observe={observe} error-limit={error_limit} on-error={on_error} \
         send-proxy={send_proxy} proxy-v2-options={proxy_v2_options}{tlvs}{source}{socket}{hold_down} {}",
        check_words(check.as_ref())
    )
}

/// ` proxy-v2-tlvs=HEX,…`: each TLV as in the file, in hexadecimal digits, because it may have spaces.
fn tlv_words(tlvs: &[OwnTlv]) -> String {
    let all: Vec<String> = tlvs.iter().map(|one| hex(&one.to_string())).collect();
    format!(" proxy-v2-tlvs={}", all.join(","))
}

/// A text in hexadecimal digits, because it may have spaces.
fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut digits, byte| {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// Reads what [`hex`] has written.
fn unhex(digits: &str) -> Option<String> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = pairs.map(byte).collect();
    String::from_utf8(bytes?).ok()
}

/// Reads what [`tlv_words`] has written behind the `=`.
fn tlvs_of(text: &str) -> Option<OwnTlvs> {
    let one = |digits: &str| OwnTlv::parse(&unhex(digits)?).ok();
    text.split(',').map(one).collect()
}

/// The options of a server's sockets as words, each after a space; the time in microseconds.
fn socket_words(socket: &ServerSocket) -> String {
    let ServerSocket {
        cc,
        tcp_ut,
        namespace,
        mptcp,
    } = socket;
    let mut text = String::new();
    if let Some(cc) = cc {
        let _ = write!(text, " cc={cc}");
    }
    if let Some(tcp_ut) = tcp_ut {
        let _ = write!(text, " tcp-ut={}", tcp_ut.as_micros());
    }
    if let Some(namespace) = namespace {
        let _ = write!(text, " namespace={namespace}");
    }
    if *mptcp {
        text.push_str(" mptcp=true");
    }
    text
}

/// How long a server is held down, as words, each after a space; the times in microseconds.
fn hold_words(hold_down: &HoldDown) -> String {
    let HoldDown { base, max, window } = *hold_down;
    let [base, max, window] = [base, max, window].map(|it| it.as_micros());
    format!(" hold-down={base} hold-down-max={max} flap-window={window}")
}

/// The same from its words; `None`: it is not held down.
fn read_hold(words: &str) -> Option<Arc<HoldDown>> {
    let time = |wanted: &str| {
        let (_, value) = pairs(words).find(|(name, _)| *name == wanted)?;
        value.parse().ok().map(Duration::from_micros)
    };
    Some(Arc::new(HoldDown {
        base: time("hold-down")?,
        max: time("hold-down-max")?,
        window: time("flap-window")?,
    }))
}

/// The options of a server's sockets from its words.
fn read_socket(words: &str) -> Option<ServerSocket> {
    let mut socket = ServerSocket::default();
    for (name, value) in pairs(words) {
        match name {
            "cc" => socket.cc = Some(value.into()),
            "tcp-ut" => socket.tcp_ut = Some(Duration::from_micros(value.parse().ok()?)),
            "namespace" => socket.namespace = Some(value.into()),
            "mptcp" => socket.mptcp = value.parse().ok()?,
            _ => {}
        }
    }
    Some(socket)
}

/// A check as words; times in microseconds.
fn check_words(check: Option<&Check>) -> String {
    let Some(check) = check else {
        return "check=false".to_owned();
    };
    let Check {
        kind,
        interval,
        fast_interval,
        down_interval,
        timeout,
        rise,
        fall,
        port,
        address,
        header,
        script,
    } = check;
    let [interval, fast, down, timeout] =
        [interval, fast_interval, down_interval, timeout].map(Duration::as_micros);
    let mut text = format!(
        "check=true interval={interval} fast={fast} down={down} timeout={timeout} rise={rise} fall={fall}"
    );
    // Writing to a string cannot fail.
    if let Some(kind) = kind {
        let _ = write!(text, " type={}", kind.name());
    }
    if let Some(script) = script {
        // It has nothing that JSON does not have.
        let json = serde_json::to_string(&**script).unwrap_or_default();
        let _ = write!(text, " script={}", hex(&json));
    }
    if let Some(port) = port {
        let _ = write!(text, " port={port}");
    }
    if let Some(address) = address {
        let _ = write!(text, " check-address={address}");
    }
    if *header != SendProxy::Off {
        let _ = write!(text, " check-send-proxy={}", header.name());
    }
    text
}

/// The settings of a text; none of another version's.
pub(super) fn read(text: &str) -> Vec<Setting> {
    let lines = text.strip_prefix(VERSION);
    let lines = lines.and_then(|rest| rest.strip_prefix('\n'));
    lines
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            setting(&fields)
        })
        .collect()
}

fn setting(fields: &[&str]) -> Option<Setting> {
    Some(match fields {
        ["maxconn", file, now] => Setting::Maxconn {
            file: file.parse().ok()?,
            now: now.parse().ok()?,
        },
        ["stats-maxconn", file, now] => Setting::StatsMaxconn {
            file: file.parse().ok()?,
            now: now.parse().ok()?,
        },
        ["frontend-maxconn", frontend, file, now] => Setting::FrontendMaxconn {
            frontend: (*frontend).into(),
            file: read_limit(file).ok()?,
            now: read_limit(now).ok()?,
        },
        // Earlier versions had no limits in the file.
        ["rate-limits", now @ ..] if now.len() == 2 => Setting::RateLimits {
            file: RateLimits::default(),
            now: read_rates(now)?,
        },
        ["rate-limits", both @ ..] if both.len() == 4 => Setting::RateLimits {
            file: read_rates(&both[2..])?,
            now: read_rates(&both[..2])?,
        },
        ["frontend-state", frontend, now] => Setting::FrontendState {
            frontend: (*frontend).into(),
            now: FrontendState::of_label(now)?,
        },
        ["unpublished", backend] => Setting::Unpublished {
            backend: (*backend).into(),
        },
        [kind, backend, server, file, now] => Setting::Server {
            backend: (*backend).into(),
            server: (*server).into(),
            setting: server_setting(kind, server, (file, now))?,
        },
        _ => return None,
    })
}

fn server_setting(kind: &str, name: &str, (file, now): (&str, &str)) -> Option<ServerSetting> {
    let address = |text| address::server(text).ok();
    let server = || {
        let address = address(file)?;
        read_server(name, address, now).map(Arc::new)
    };
    Some(match kind {
        "added" => ServerSetting::Added {
            spec: server()?,
            name_in_file: pairs(now)
                .find(|(name, _)| *name == "name-in-file")
                .map(|(_, name)| name.into()),
        },
        "removed" => ServerSetting::Removed(server()?),
        "address" => ServerSetting::Address {
            file: address(file)?,
            now: address(now)?,
        },
        "server-maxconn" => ServerSetting::Maxconn {
            file: file.parse().ok()?,
            now: now.parse().ok()?,
        },
        "check" => ServerSetting::Check {
            file: read_check(file).ok()?,
            now: read_check(now).ok()?,
        },
        _ => return None,
    })
}

fn read_rates(fields: &[&str]) -> Option<RateLimits> {
    let [connections, sessions] = fields else {
        return None;
    };
    Some(RateLimits {
        connections: connections.parse().ok()?,
        sessions: sessions.parse().ok()?,
    })
}

fn read_limit(text: &str) -> Result<Option<u32>, ParseIntError> {
    if text == "none" {
        return Ok(None);
    }
    text.parse().map(Some)
}

/// The words of a line by their names.
fn pairs(words: &str) -> impl Iterator<Item = (&str, &str)> {
    words.split(' ').filter_map(|word| word.split_once('='))
}

fn read_server(name: &str, address: ServerAddress, words: &str) -> Option<Server> {
    let socket = read_socket(words)?;
    let mut server = Server {
        name: name.into(),
        address,
        check: read_check(words).ok()?,
        socket: (socket != ServerSocket::default()).then(|| Arc::new(socket)),
        hold_down: read_hold(words),
        ..Server::default()
    };
    for (name, value) in pairs(words) {
        match name {
            "id" => server.id = value.parse().ok()?,
            "weight" => server.weight = value.parse().ok()?,
            "priority" => server.priority = value.parse().ok()?,
            "backup" => server.backup = value.parse().ok()?,
            "disabled" => server.disabled = value.parse().ok()?,
            "source" => server.source = Some(source_text::read(value)?),
            "maxconn" => server.maxconn = value.parse().ok()?,
            "minconn" => server.minconn = value.parse().ok()?,
            "maxqueue" => server.maxqueue = value.parse().ok()?,
            "slowstart" => server.slowstart = Duration::from_micros(value.parse().ok()?),
            "slowstart-at-start" => server.slowstart_at_start = value.parse().ok()?,
            "init-state" => server.init_state = InitState::of_name(value)?,
            "shutdown-sessions-on-down" => server.shutdown_sessions_on_down = value.parse().ok()?,
            "shutdown-backup-sessions-on-up" => {
                server.shutdown_backup_sessions_on_up = value.parse().ok()?;
            }
            "observe" => server.observe = value.parse().ok()?,
            "error-limit" => server.error_limit = value.parse().ok()?,
            "on-error" => server.on_error = OnError::of_name(value)?,
            "hash-key" => server.hash_key = HashKey::of_name(value)?,
            "send-proxy" => server.send_proxy = SendProxy::of_name(value)?,
            "proxy-v2-options" => server.proxy_v2_options = ProxyV2Options::parse(value)?,
            "proxy-v2-tlvs" => server.proxy_v2_tlvs = Some(tlvs_of(value)?),
            // As an earlier version wrote it.
            "proxy-v2-crc32c" if value == "true" => {
                server.proxy_v2_options.add("crc32c");
            }
            _ => {}
        }
    }
    Some(server)
}

/// Words that say nothing about a check, or something that cannot be read.
#[derive(Debug)]
struct NoCheckWords;

/// The check of the words; `None`: there is none.
fn read_check(words: &str) -> Result<Option<Check>, NoCheckWords> {
    let mut pairs = pairs(words);
    match pairs.find(|(name, _)| *name == "check") {
        None => Err(NoCheckWords),
        Some((_, "true")) => read_check_values(pairs).map(Some).ok_or(NoCheckWords),
        Some(_) => Ok(None),
    }
}

fn read_check_values<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Check> {
    let time = |value: &str| value.parse().ok().map(Duration::from_micros);
    let mut check = Check::default();
    for (name, value) in pairs {
        match name {
            "interval" => check.interval = time(value)?,
            "fast" => check.fast_interval = time(value)?,
            "down" => check.down_interval = time(value)?,
            "timeout" => check.timeout = time(value)?,
            "rise" => check.rise = value.parse().ok()?,
            "fall" => check.fall = value.parse().ok()?,
            "port" => check.port = Some(value.parse().ok()?),
            "check-address" => check.address = Some(value.parse().ok()?),
            "check-send-proxy" => check.header = SendProxy::of_name(value)?,
            "type" => {
                let mut all = CheckKind::ALL.into_iter();
                check.kind = all.find(|kind| kind.name() == value);
            }
            "script" => {
                let script: Script = serde_json::from_str(&unhex(value)?).ok()?;
                check.script = Some(Arc::new(script));
            }
            _ => {}
        }
    }
    Some(check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::test_config;
    use std::net::IpAddr;

    fn check() -> Check {
        Check {
            kind: Some(CheckKind::Tcp),
            interval: Duration::from_millis(1500),
            fast_interval: Duration::from_millis(20),
            down_interval: Duration::from_secs(9),
            timeout: Duration::from_millis(700),
            rise: 4,
            fall: 5,
            port: Some(81),
            address: Some(IpAddr::from([127, 0, 0, 9])),
            header: SendProxy::V2,
            script: None,
        }
    }

    /// Scripts with each kind of step.
    fn scripts() -> Vec<Arc<Script>> {
        let steps = "[check.a]\ntype = 'tcp'\nsteps = [\n{ connect = true, port = 81, address = '::1', linger = true },\n\
            { send = \"a b\\r\\n\" }, { send-lf = '%[srv_name] %%' }, { send-binary = '00ff' },\n\
            { expect-rstring = '^a b', not = true, min-recv = 4, comment = 'why' },\n\
            { expect-binary = '00', on-error = '%[res.payload(1,2)]', ok-status = 'L6OK' },\n]\n\
            [check.b]\ntype = 'http'\nuri = '/x'\nheaders = { Host = 'a b' }\ndisable-on-404 = true\nsteps = [\n\
            { expect-status = '200,300-399' }, { expect-header = 'X', header-value = 'y', header-match = 'reg' },\n]\n";
        let backend = |index: usize, check: &str| {
            format!(
                "[[listen]]\nname = 'l{index}'\nbind = '*:{}'\nservers = [{{ name = 's', address = '10.0.0.1:1' }}]\n\
                 check = {check}\n",
                81 + index
            )
        };
        let checks = [
            "{ use = 'a' }",
            "{ use = 'b' }",
            "{ type = 'postgres', user = 'u' }",
            "{ type = 'mysql', user = 'u' }",
            "'smtp'",
            "'ldap'",
            "'redis'",
            "'tls-hello'",
        ];
        let backends = checks.iter().enumerate();
        let backends: String = backends
            .map(|(index, check)| backend(index, check))
            .collect();
        let loader = crate::config::Loader {
            limits: crate::config::Limits::unknown(),
            environment: &|_| None,
            disk: false,
        };
        let read = loader.load_text("t.toml", &format!("{steps}{backends}"));
        let (config, _) = read.unwrap_or_else(|problems| panic!("{problems:#?}"));
        let servers = config.backends.iter().flat_map(|it| &it.servers);
        let checks = servers.filter_map(|it| it.check.as_ref());
        checks.filter_map(|it| it.script.clone()).collect()
    }

    #[test]
    fn a_check_that_asks_more_is_read_as_it_was_written() {
        let scripts = scripts();
        assert_eq!(scripts.len(), 8);
        for script in scripts {
            let check = Check {
                kind: Some(CheckKind::Http),
                script: Some(script),
                ..check()
            };
            let words = check_words(Some(&check));
            assert_eq!(read_check(&words).ok(), Some(Some(check)), "{words}");
        }
    }

    /// A key that is not written would be lost over an upgrade.
    #[test]
    fn a_server_is_read_as_it_was_written() {
        let server = Server {
            id: 7,
            weight: 9,
            hash_key: HashKey::AddrPort,
            priority: 3,
            backup: true,
            disabled: true,
            slowstart: Duration::from_millis(1500),
            slowstart_at_start: true,
            init_state: InitState::FullyDown,
            shutdown_sessions_on_down: true,
            shutdown_backup_sessions_on_up: true,
            observe: true,
            error_limit: 4,
            on_error: OnError::SuddenDeath,
            send_proxy: SendProxy::V1,
            proxy_v2_options: ProxyV2Options::parse("crc32c,unique-id").unwrap(),
            proxy_v2_tlvs: Some(
                ["0xE1=%[src] a,b", "2=", "0xE2=ü"]
                    .map(|text| OwnTlv::parse(text).unwrap())
                    .into(),
            ),
            maxconn: 5,
            minconn: 3,
            maxqueue: 4,
            check: Some(check()),
            socket: Some(Arc::new(ServerSocket {
                cc: Some("bbr".into()),
                tcp_ut: Some(Duration::from_micros(1_500)),
                namespace: Some("other".into()),
                mptcp: true,
            })),
            hold_down: Some(Arc::new(HoldDown {
                base: Duration::from_micros(1_500),
                max: Duration::from_secs(9),
                window: Duration::from_secs(8),
            })),
            ..test_config::server("s1")
        };
        for server in [server, test_config::server("s1"), Server::default()] {
            let (name, address) = (&*server.name, server.address.clone());
            let read = read_server(name, address, &words(&server));
            assert_eq!(read, Some(server.clone()), "{}", words(&server));
        }
    }

    #[test]
    fn addresses_of_every_form_are_read_as_they_were_written() {
        for text in [
            "10.0.0.1:5432",
            "[::1]:80",
            "10.0.0.1:+0",
            "10.0.0.1:-5",
            "db.example:+1000",
            "unix:/run/a b",
            "unix:@name",
        ] {
            let address = address::server(text).unwrap();
            assert_eq!(super::super::address(&address), text);
        }
    }

    #[test]
    fn what_is_not_known_is_left_out_and_what_is_missing_is_the_default() {
        let text = "1\nmaxconn\t100\t9\nfuture\tb\ts\tx\ty\nmaxconn\tx\t9\n\
            check\tb\ts1\tcheck=false\tcheck=true later=1 rise=7\n";
        let read_back = read(text);
        let maxconn = Setting::Maxconn { file: 100, now: 9 };
        assert_eq!(read_back[0], maxconn);
        let Setting::Server { setting, .. } = &read_back[1] else {
            panic!("{read_back:?}");
        };
        let now = Check {
            rise: 7,
            ..Check::default()
        };
        let expected = ServerSetting::Check {
            file: None,
            now: Some(now),
        };
        assert_eq!(*setting, expected);
        assert_eq!(read_back.len(), 2);
        assert!(read("2\nmaxconn\t100\t9\n").is_empty());
        assert!(read("").is_empty());
    }
}
