//! `add server` and `del server`. Admin thread; the texts are HAProxy's.
//!
//! As in HAProxy an added server begins in maintenance, its check begins with `enable health`, and `default-server`
//! does not apply to it.

use super::names::{self, NO_BACKEND, NO_SERVER};
use super::reply::Reply;
use super::{CommandContext, duration, set};
use crate::config::haproxy::{self, Place};
use crate::config::model::{
    Check, HashKey, InitState, OnError, SendProxy, Server, ServerAddress, ServerSocket, Source,
    SourceAddress, UseSrc,
};
use crate::config::own_tlv::OwnTlv;
use crate::config::{ERROR_LIMIT_MAX, address, units};
use crate::state::dynamic::CHOSEN;
use crate::state::{Backend, BackendId, RuntimeChange, Snapshot};
use std::sync::Arc;
use std::time::Duration;

/// The words that have a value.
const VALUES: [&str; 24] = [
    "weight",
    "priority",
    "hash-key",
    "id",
    "maxconn",
    "minconn",
    "maxqueue",
    "slowstart",
    "rise",
    "fall",
    "port",
    "addr",
    "inter",
    "fastinter",
    "downinter",
    "observe",
    "error-limit",
    "on-error",
    "on-marked-down",
    "on-marked-up",
    "proxy-v2-options",
    // HAProxy refuses these.
    "cc",
    "tcp-ut",
    "namespace",
];

/// The bounds of limits; 0: none.
const LIMITS: (u32, u32) = (0, 100_000_000);

const ATTACHED: &str = "Server still has connections attached to it, cannot remove it.\n";

/// `add server <backend>/<server> <address>[:<port>] [keywords]*`.
pub(super) async fn add(context: &CommandContext, args: &[&str]) -> Reply {
    let named = args.first().and_then(|name| name.split_once('/'));
    let Some((of, name)) = named.filter(|(_, name)| !name.is_empty()) else {
        return Reply::error("Require 'backend/server'.\n");
    };
    let read = || read(&context.shared.snapshot.load(), (of, name), &args[1..]);
    let (backend, spec) = match read() {
        Ok(read) => read,
        Err(problem) => return Reply::error(problem),
    };
    let change = RuntimeChange::AddServer(backend, Arc::new(spec));
    match set::change(context, change).await {
        Reply::Done => Reply::notice("New server registered.\n"),
        // Another change has come before: it is in the snapshot now.
        Reply::Error(text) if text == NO_SERVER => {
            Reply::error(read().err().unwrap_or_else(|| text.into_owned()))
        }
        other => other,
    }
}

/// The backend `of` and its new server `name`, or HAProxy's answer about what stands against it.
fn read(
    snapshot: &Snapshot,
    (of, name): (&str, &str),
    words: &[&str],
) -> Result<(BackendId, Server), String> {
    let backend = names::backend(snapshot, of).ok_or(NO_BACKEND)?;
    if backend.servers.iter().any(|one| *one.spec.name == *name) {
        return Err("Already exists a server with the same name in backend.\n".to_owned());
    }
    units::server_name(name).map_err(|problem| format!("{}.\n", problem.message))?;
    let spec = parse(backend, name, words).map_err(|text| text + "\n")?;
    Ok((backend.id, spec))
}

/// `del server <backend>/<server>`.
pub(super) async fn remove(context: &CommandContext, args: &[&str]) -> Reply {
    let found = names::server(&context.shared.snapshot.load(), args.first().copied());
    let server = match found {
        Ok((_, server)) => server,
        Err(problem) => return Reply::error(problem),
    };
    if !server.status.admin.is_maint() {
        return Reply::error("Only servers in maintenance mode can be deleted.\n");
    }
    if server.live.active.get() > 0 {
        return Reply::error(ATTACHED);
    }
    match set::change(context, RuntimeChange::RemoveServer(server.live.uid)).await {
        Reply::Done => Reply::info("Server deleted.\n"),
        Reply::Error(text) if text == NO_SERVER => Reply::error(ATTACHED),
        other => other,
    }
}

/// The server that the words behind its name describe, or what is wrong with them.
pub(super) fn parse(backend: &Backend, name: &str, words: &[&str]) -> Result<Server, String> {
    let [written, rest @ ..] = words else {
        let text = "'server' expects <name> and <addr>[:<port>] as arguments.";
        return Err(text.to_owned());
    };
    let (address, mptcp) = address::without_mptcp(written);
    let address = address::haproxy_server(&address);
    let address = address.map_err(|problem| format!("{}.", problem.message))?;
    if let ServerAddress::Name(name, _) = &address {
        let text = format!("'{name}' is a name: a server that is added needs an address.");
        return Err(text);
    }
    let mut draft = Draft {
        server: Server {
            name: name.into(),
            id: CHOSEN,
            address,
            disabled: true,
            ..Server::default()
        },
        socket: ServerSocket {
            mptcp,
            ..ServerSocket::default()
        },
        ..Draft::default()
    };
    let mut rest = rest;
    while let [word, more @ ..] = rest {
        rest = more;
        if let Some(kind) = OwnTlv::haproxy_type(word) {
            let [value, more @ ..] = rest else {
                return Err(format!("'{word}' expects an argument."));
            };
            rest = more;
            draft.tlvs.push(named(OwnTlv::new(named(kind)?, value))?);
            continue;
        }
        match *word {
            "check" => draft.checked = true,
            "no-check" => draft.checked = false,
            "backup" => draft.server.backup = true,
            "no-backup" => draft.server.backup = false,
            // It begins in maintenance anyhow.
            "disabled" | "enabled" => {}
            "send-proxy" => draft.headers.0 = true,
            "send-proxy-v2" => draft.headers.1 = true,
            "no-send-proxy" => draft.headers.0 = false,
            "no-send-proxy-v2" => draft.headers.1 = false,
            "check-send-proxy" => draft.check_header = true,
            "no-check-send-proxy" => draft.check_header = false,
            "source" => {
                let (source, more) = source(rest)?;
                draft.server.source = Some(source);
                rest = more;
            }
            word if !VALUES.contains(&word) => return Err(unknown(word)),
            word => {
                let [value, more @ ..] = rest else {
                    return Err(format!("'{word}' expects an argument."));
                };
                rest = more;
                draft.set(backend, word, value)?;
            }
        }
    }
    if draft.server.backup && draft.server.priority > 0 {
        return Err("'priority' has no meaning for a backup server.".to_owned());
    }
    Ok(draft.finish(backend))
}

/// The words behind `source`, and what follows them.
fn source<'a, 'w>(words: &'w [&'a str]) -> Result<(Source, &'w [&'a str]), String> {
    let [address, rest @ ..] = words else {
        return Err("'source' expects an argument.".to_owned());
    };
    let (ip, ports) =
        address::source(address).map_err(|problem| format!("{}.", problem.message))?;
    let (mut usesrc, mut interface) = (None, None);
    let mut rest = rest;
    while let [word, more @ ..] = rest
        && ["usesrc", "interface"].contains(word)
    {
        let [value, more @ ..] = more else {
            return Err(format!("'{word}' expects an argument."));
        };
        rest = more;
        match (*word, *value) {
            ("interface", device) => interface = Some(device.into()),
            (_, "client") => usesrc = Some(UseSrc::Client),
            (_, "clientip") => usesrc = Some(UseSrc::ClientIp),
            (_, other) => return Err(format!("'usesrc {other}' is not supported.")),
        }
    }
    let source = SourceAddress {
        ip,
        ports,
        interface,
        usesrc,
    };
    Ok((Arc::new([source]), rest))
}

/// A server while its words are read.
#[derive(Debug, Default)]
struct Draft {
    server: Server,
    check: Check,
    checked: bool,
    /// Options of its sockets.
    socket: ServerSocket,
    /// Whether its connections begin with a PROXY header of version 1 and of version 2, which goes before the first.
    headers: (bool, bool),
    /// What a header of version 2 has beside what its options say.
    tlvs: Vec<OwnTlv>,
    /// Whether its checks begin with one wherever they go.
    check_header: bool,
    /// Intervals of its own while it goes down or comes up, and while it is down.
    fast: Option<Duration>,
    down: Option<Duration>,
}

impl Draft {
    /// A word of [`VALUES`] with its value.
    fn set(&mut self, backend: &Backend, word: &str, value: &str) -> Result<(), String> {
        match word {
            "weight" => self.server.weight = number(word, value, (0, 256))?,
            "priority" => {
                let priority = number(word, value, (0, u8::MAX.into()))?;
                self.server.priority = u8::try_from(priority).unwrap_or(u8::MAX);
            }
            "hash-key" => {
                let key = HashKey::of_name(value);
                let problem = "'hash-key' has to be 'id', 'id32', 'addr', or 'addr-port'.";
                self.server.hash_key = key.ok_or_else(|| problem.to_owned())?;
            }
            "id" => self.server.id = own_id(backend, value)?,
            "maxconn" => self.server.maxconn = number(word, value, LIMITS)?,
            "minconn" => self.server.minconn = number(word, value, LIMITS)?,
            "maxqueue" => self.server.maxqueue = number(word, value, LIMITS)?,
            "slowstart" => self.server.slowstart = span_or_zero(word, value)?,
            "rise" => self.check.rise = number(word, value, (1, 65_535))?,
            "fall" => self.check.fall = number(word, value, (1, 65_535))?,
            "port" => {
                let port = number(word, value, (1, 65_535))?;
                self.check.port = u16::try_from(port).ok();
            }
            "addr" => {
                let ip = address::ip_alone(value);
                self.check.address = Some(ip.map_err(|_| format!("invalid addr '{value}'"))?);
            }
            "observe" => self.server.observe = observed(value)?,
            "error-limit" => {
                let most = u32::try_from(ERROR_LIMIT_MAX).unwrap_or(u32::MAX);
                self.server.error_limit = number(word, value, (1, most))?;
            }
            "on-error" => {
                let on_error = OnError::of_name(value);
                self.server.on_error = on_error.ok_or_else(|| {
                    let all = "'fastinter', 'fail-check', 'sudden-death' or 'mark-down'";
                    format!("'on-error' expects one of {all} but got '{value}'")
                })?;
            }
            "init-state" => {
                let state = InitState::of_name(value);
                self.server.init_state = state.ok_or_else(|| {
                    let all = "'none', 'fully-up', 'up', 'down', or 'fully-down'";
                    format!("'init-state' expects one of {all} but got '{value}'")
                })?;
            }
            "on-marked-down" => {
                let text = "shutdown-sessions";
                self.server.shutdown_sessions_on_down = only(word, value, text)?;
            }
            "on-marked-up" => {
                let text = "shutdown-backup-sessions";
                self.server.shutdown_backup_sessions_on_up = only(word, value, text)?;
            }
            "proxy-v2-options" => self.v2_options(value)?,
            "cc" => self.socket.cc = Some(named(units::algorithm(value))?),
            "namespace" => self.socket.namespace = Some(named(units::namespace(value))?),
            "tcp-ut" => {
                let span = span_or_zero(word, value)?;
                self.socket.tcp_ut = (!span.is_zero()).then_some(span);
            }
            "fastinter" => self.fast = Some(span(word, value)?),
            "downinter" => self.down = Some(span(word, value)?),
            _ => self.check.interval = span(word, value)?,
        }
        Ok(())
    }

    /// What its header has, separated by commas. As in HAProxy an option without a header does nothing.
    fn v2_options(&mut self, value: &str) -> Result<(), String> {
        for option in value.split(',') {
            // Where the client's header has an authority it is passed on anyhow.
            if self.server.proxy_v2_options.add(option) || option == "authority" {
                continue;
            }
            let word = format!("proxy-v2-options {option}");
            let known = haproxy::Index::shared().find(Place::Server, &word);
            return Err(match known.filter(|_| !option.is_empty()) {
                Some(words) => format!("'{option}' is not supported: {}.", words.say),
                None => format!("'{option}' : proxy v2 option not implemented."),
            });
        }
        Ok(())
    }

    fn finish(self, backend: &Backend) -> Server {
        let send_proxy = match self.headers {
            (_, true) => SendProxy::V2,
            (true, false) => SendProxy::V1,
            (false, false) => SendProxy::Off,
        };
        let mut check = self.check;
        let elsewhere = check.port.is_some() || check.address.is_some();
        check.header = send_proxy.of_check(self.check_header.then_some(true), elsewhere);
        check.fast_interval = self.fast.unwrap_or(check.interval);
        check.down_interval = self.down.unwrap_or(check.interval);
        check.timeout = check.timeout.min(check.interval);
        // As in HAProxy it is asked what the others are asked.
        let mut others = backend.spec.servers.iter();
        if let Some(asked) = others.find_map(|other| other.check.as_ref()) {
            check.kind = asked.kind;
            check.script.clone_from(&asked.script);
        }
        let is_unix = matches!(self.server.address, ServerAddress::Unix(_));
        let socket = Some(self.socket).filter(|socket| *socket != ServerSocket::default());
        Server {
            check: self.checked.then_some(check),
            send_proxy,
            proxy_v2_tlvs: (!self.tlvs.is_empty()).then(|| self.tlvs.into()),
            // As in a file of HAProxy's, they are for TCP.
            socket: socket.filter(|_| !is_unix).map(Arc::new),
            ..self.server
        }
    }
}

/// What is wrong with a word that rlb does not take, and for one of HAProxy's why.
fn unknown(word: &str) -> String {
    match haproxy::Index::shared().find(Place::Server, word) {
        Some(words) => format!("'{word}' is not supported: {}.", words.say),
        None => format!("unknown keyword '{word}'."),
    }
}

/// Whether `value` is the only one that `word` has.
fn only(word: &str, value: &str, text: &str) -> Result<bool, String> {
    if value == text {
        return Ok(true);
    }
    Err(format!("'{word}' expects '{text}' but got '{value}'."))
}

fn named<T>(read: Result<T, units::Problem>) -> Result<T, String> {
    read.map_err(|problem| format!("{}.", problem.message))
}

fn number(word: &str, value: &str, (least, most): (u32, u32)) -> Result<u32, String> {
    let number = value.parse().ok();
    let within = number.filter(|number| (least..=most).contains(number));
    within
        .ok_or_else(|| format!("'{word}' expects a number from {least} to {most}, not '{value}'."))
}

fn span(word: &str, value: &str) -> Result<Duration, String> {
    let span = span_or_zero(word, value)?;
    if span.is_zero() {
        return Err(format!("'{word}' expects a duration, not '{value}'."));
    }
    Ok(span)
}

fn span_or_zero(word: &str, value: &str) -> Result<Duration, String> {
    let span = duration::parse(value, Duration::from_millis(1));
    span.ok_or_else(|| format!("'{word}' expects a duration, not '{value}'."))
}

/// Whether failed connects count for the health.
fn observed(value: &str) -> Result<bool, String> {
    match value {
        "none" => Ok(false),
        "layer4" => Ok(true),
        "layer7" => Err("'layer7' can only be used in http proxies.".to_owned()),
        _ => Err(format!(
            "'observe' expects one of 'none', 'layer4', 'layer7' but got '{value}'"
        )),
    }
}

fn own_id(backend: &Backend, value: &str) -> Result<u32, String> {
    let id = number("id", value, (1, 2_147_483_647))?;
    if backend.servers.iter().any(|one| one.spec.id == id) {
        return Err(format!("another server has the id {id}."));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::ServerPort;
    use crate::stats::test_snapshot::seed;
    use std::net::Ipv6Addr;

    #[test]
    fn a_source_has_words_of_its_own() {
        let snapshot = seed(2);
        let backend = snapshot.backends[0].as_ref().unwrap();
        let source = "10.0.0.5:1000-2000 usesrc clientip interface eth1";
        let line = format!("127.0.0.1:80 source {source} weight 3");
        let words: Vec<&str> = line.split_whitespace().collect();
        let server = parse(backend, "n1", &words).unwrap();
        assert_eq!(server.weight, 3);
        assert_eq!(server.source.unwrap()[0].to_string(), source);
        for (line, text) in [
            ("127.0.0.1:80 source", "'source' expects an argument."),
            (
                "127.0.0.1:80 source 10.0.0.5 usesrc hdr_ip(x)",
                "'usesrc hdr_ip(x)' is not supported.",
            ),
        ] {
            let words: Vec<&str> = line.split_whitespace().collect();
            let found = parse(backend, "n1", &words).map(|server| server.id);
            assert_eq!(found, Err(text.to_owned()));
        }
    }

    #[test]
    fn sessions_of_an_added_server_may_count_for_its_health() {
        let snapshot = seed(2);
        let backend = snapshot.backends[0].as_ref().unwrap();
        let read = |words: &str| {
            let words: Vec<&str> = words.split_whitespace().collect();
            parse(backend, "n1", &[&["127.0.0.1:80"], &*words].concat())
        };
        let server = read("check observe layer4 error-limit 4 on-error mark-down").unwrap();
        assert_eq!(server.error_limit(), Some(4));
        assert_eq!(server.on_error, OnError::MarkDown);
        let unchecked = read("observe layer4").unwrap();
        assert_eq!(unchecked.error_limit(), None);
        for (words, text) in [
            (
                "observe layer7",
                "'layer7' can only be used in http proxies.",
            ),
            (
                "observe all",
                "'observe' expects one of 'none', 'layer4', 'layer7' but got 'all'",
            ),
            (
                "error-limit 0",
                "'error-limit' expects a number from 1 to 2147483647, not '0'.",
            ),
            (
                "on-error down",
                "'on-error' expects one of 'fastinter', 'fail-check', 'sudden-death' or 'mark-down' but got 'down'",
            ),
        ] {
            let found = read(words).map(|server| server.id);
            assert_eq!(found, Err(text.to_owned()), "{words}");
        }
    }

    /// The texts are those of HAProxy 3.5, which refuses `cc`, `tcp-ut` and `namespace` here.
    #[test]
    fn an_added_server_may_have_headers_and_options_of_sockets() {
        let snapshot = seed(2);
        let backend = snapshot.backends[0].as_ref().unwrap();
        let read = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            parse(backend, "n1", &words)
        };
        let server = |words: &str| read(&format!("127.0.0.1:80 {words}")).unwrap();
        for (words, header, of_check) in [
            ("check send-proxy", SendProxy::V1, SendProxy::V1),
            (
                "check send-proxy-v2 send-proxy",
                SendProxy::V2,
                SendProxy::V2,
            ),
            (
                "check send-proxy no-send-proxy",
                SendProxy::Off,
                SendProxy::Off,
            ),
            ("check send-proxy-v2 port 81", SendProxy::V2, SendProxy::Off),
            (
                "check send-proxy-v2 port 81 check-send-proxy",
                SendProxy::V2,
                SendProxy::V2,
            ),
            ("check check-send-proxy", SendProxy::Off, SendProxy::V1),
        ] {
            let server = server(words);
            let check = server.check.unwrap().header;
            assert_eq!((server.send_proxy, check), (header, of_check), "{words}");
        }
        let options = "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority";
        let options = server(options).proxy_v2_options;
        assert!(options.crc32c() && options.unique_id());
        let marked =
            server("on-marked-down shutdown-sessions on-marked-up shutdown-backup-sessions");
        assert!(marked.shutdown_sessions_on_down && marked.shutdown_backup_sessions_on_up);
        let socket = server("cc reno tcp-ut 3s namespace blue").socket.unwrap();
        let expected = ServerSocket {
            cc: Some("reno".into()),
            tcp_ut: Some(Duration::from_secs(3)),
            namespace: Some("blue".into()),
            mptcp: false,
        };
        assert_eq!(*socket, expected);
        assert!(read("mptcp4@127.0.0.1:80").unwrap().socket.unwrap().mptcp);
        assert_eq!(server("tcp-ut 0").socket, None);
        assert_eq!(read("/run/a.sock cc reno").unwrap().socket, None);
        for (words, text) in [
            (
                "on-marked-down x",
                "'on-marked-down' expects 'shutdown-sessions' but got 'x'.",
            ),
            (
                "on-marked-up x",
                "'on-marked-up' expects 'shutdown-backup-sessions' but got 'x'.",
            ),
            (
                "proxy-v2-options bogus",
                "'bogus' : proxy v2 option not implemented.",
            ),
            ("cc /", "`/` is not the name of an algorithm."),
            ("tcp-ut x", "'tcp-ut' expects a duration, not 'x'."),
        ] {
            let found = read(&format!("127.0.0.1:80 {words}")).map(|server| server.id);
            assert_eq!(found, Err(text.to_owned()), "{words}");
        }
        let ssl = read("127.0.0.1:80 proxy-v2-options ssl").map(|server| server.id);
        assert!(ssl.unwrap_err().starts_with("'ssl' is not supported: "));
    }

    #[test]
    fn a_priority_is_no_word_of_haproxys_and_is_taken() {
        let snapshot = seed(2);
        let backend = snapshot.backends[0].as_ref().unwrap();
        let read = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            parse(backend, "n1", &words).map(|server| (server.priority, server.backup))
        };
        assert_eq!(read("127.0.0.1:80 priority 255"), Ok((255, false)));
        assert_eq!(read("127.0.0.1:80 priority 0 backup"), Ok((0, true)));
        let text = "'priority' expects a number from 0 to 255, not '256'.";
        assert_eq!(read("127.0.0.1:80 priority 256"), Err(text.to_owned()));
        let text = "'priority' has no meaning for a backup server.";
        assert_eq!(read("127.0.0.1:80 backup priority 1"), Err(text.to_owned()));
    }

    #[test]
    fn the_words_of_a_server_are_haproxys() {
        let snapshot = seed(2);
        let backend = snapshot.backends[0].as_ref().unwrap();
        let read = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            parse(backend, "n1", &words)
        };
        let server = read("127.0.0.1:80 weight 5 check inter 500 fall 2 port 81 backup").unwrap();
        assert_eq!((server.id, server.weight, server.backup), (CHOSEN, 5, true));
        let check = server.check.unwrap();
        assert_eq!((check.fall, check.port), (2, Some(81)));
        assert_eq!(check.interval, Duration::from_millis(500));
        assert_eq!(check.fast_interval, check.interval);
        assert!(check.timeout <= check.interval);
        assert!(read("127.0.0.1:80 inter 5s").unwrap().check.is_none());
        for (word, time) in [("5s", 5_000), ("1500", 1_500), ("0", 0)] {
            let server = read(&format!("127.0.0.1:80 slowstart {word}")).unwrap();
            assert_eq!(server.slowstart, Duration::from_millis(time));
        }
        for (address, expected) in [
            ("/run/a.sock", ServerAddress::Unix("/run/a.sock".into())),
            (
                "unix@/run/a.sock",
                ServerAddress::Unix("/run/a.sock".into()),
            ),
            ("abnsz@name", ServerAddress::Unix("@name".into())),
            (
                "::1:80",
                ServerAddress::Ip(Ipv6Addr::LOCALHOST.into(), ServerPort::Fixed(80)),
            ),
            (
                "[::1]:80",
                ServerAddress::Ip(Ipv6Addr::LOCALHOST.into(), ServerPort::Fixed(80)),
            ),
            (
                "ipv4@127.0.0.1:80",
                ServerAddress::Ip([127, 0, 0, 1].into(), ServerPort::Fixed(80)),
            ),
        ] {
            assert_eq!(read(address).unwrap().address, expected, "{address}");
        }
        for (line, text) in [
            (
                "",
                "'server' expects <name> and <addr>[:<port>] as arguments.",
            ),
            ("127.0.0.1:80 bogus", "unknown keyword 'bogus'."),
            ("127.0.0.1:80 bogus 1", "unknown keyword 'bogus'."),
            (
                "127.0.0.1:80 slowstart fast",
                "'slowstart' expects a duration, not 'fast'.",
            ),
            (
                "sockpair@4",
                "`sockpair@` is not a form of address that rlb knows.",
            ),
            ("127.0.0.1:80 weight", "'weight' expects an argument."),
            (
                "127.0.0.1:80 weight 300",
                "'weight' expects a number from 0 to 256, not '300'.",
            ),
            ("127.0.0.1:80 id 2", "another server has the id 2."),
            (
                "db.example:80",
                "'db.example' is a name: a server that is added needs an address.",
            ),
        ] {
            let found = read(line).map(|server| server.id);
            assert_eq!(found, Err(text.to_owned()), "{line}");
        }
    }
}
