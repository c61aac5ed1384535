//! `stats socket ADDRESS[,ADDRESS…] …` in `global`: sockets of `[runtime-api]`.
//!
//! Invariant: of a line that is in error nothing is written. Without one of its words more people could give commands,
//! or more of them. And nobody may do more than in HAProxy where two lines have one address.

use super::address::{self, Address, Use};
use super::bind;
use super::context::Context;
use super::lexer::Word;
use super::listen_address;
use super::proxy::Mark;
use super::report::{At, Outcome, Report};
use super::sections::Statement;
use super::toml_string::quote;
use super::units;
use crate::config::address::BindText;
use crate::config::haproxy::{Becomes, Place};
use crate::config::model::BindAddress;
use crate::config::{BINDS_MAX, address as addresses};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The keys of a socket, as rlb writes them.
type Keys = BTreeMap<&'static str, String>;

/// A socket of `[runtime-api]`.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) at: At,
    pub(super) keys: Keys,
    pub(super) address: BindAddress,
}

/// The levels of clients, from the one that may do least.
const LEVELS: [&str; 3] = ["user", "operator", "admin"];

/// Reads one line into the sockets. What it has that is not carried over.
pub(super) fn read(
    context: &mut Context<'_, '_>,
    (all, ids): (&mut Vec<Socket>, &mut HashSet<i64>),
    statement: &Statement,
) -> Vec<Mark> {
    let keyword = "stats socket";
    let Some(word) = statement.words.get(2) else {
        context
            .report
            .error(statement.at, keyword, "an address is missing");
        return Vec::new();
    };
    let errors = context.report.errors;
    let word = address::filled_in(word, context.environment);
    let entry = context.kept(statement.at, keyword);
    let (keys, mut marks) = words(context, statement, (&word, ids));
    let is_closed = !marks.is_empty();
    let mut sockets: Vec<Socket> = Vec::new();
    for piece in bind::pieces(&word) {
        for (address, text) in listen(context, &mut marks, statement, &piece) {
            if all.len() + sockets.len() >= BINDS_MAX {
                let text = format!("more than {BINDS_MAX} sockets for commands");
                context.report.error(statement.at(2), keyword, text);
                break;
            }
            sockets.push(Socket {
                at: statement.at,
                keys: with_level(&keys, quote(&text), &address),
                address,
            });
        }
        if all.len() + sockets.len() >= BINDS_MAX && context.report.errors > errors {
            break;
        }
    }
    let mut words = statement.words.iter().skip(3);
    if let Some(id) = words
        .position(|word| word.text == "id")
        .filter(|_| sockets.len() > 1)
    {
        let text = "it can only be used with a single address and port";
        context
            .report
            .error(statement.at(3 + id), "stats socket id", text);
    }
    let in_error = context.report.errors > errors;
    if in_error || is_closed {
        sockets.clear();
    }
    if sockets.is_empty() {
        let text = if in_error {
            "it is left out: something in it is in error"
        } else {
            "it is left out"
        };
        context.report.raise(entry, Outcome::Dropped, text, false);
    }
    all.extend(sockets);
    marks
}

/// The keys of the socket at `address`. Where the line says who may connect, or everybody may who reaches it, the level is
/// HAProxy's.
fn with_level(keys: &Keys, text: String, address: &BindAddress) -> Keys {
    let mut keys = keys.clone();
    let mut words = ["mode", "owner", "group"].iter();
    let is_unix = matches!(address, BindAddress::Unix(_));
    if !is_unix || words.any(|word| keys.contains_key(word)) {
        let level = keys.entry("level");
        level.or_insert_with(|| quote("operator"));
    }
    keys.insert("socket", text);
    keys
}

/// An address without `unix:`, where nothing else can be meant.
fn bare(address: String) -> String {
    match address.strip_prefix("unix:") {
        Some(path) if path.starts_with(['/', '@']) => path.to_owned(),
        _ => address,
    }
}

/// Whether `v6only` closes an address to clients.
fn is_v6_wildcard(text: &str) -> bool {
    let Address::Host { host, .. } = address::parse_for(text, Use::Bind) else {
        return false;
    };
    let host = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let ip = host.and_then(|host| host.parse::<Ipv6Addr>().ok());
    ip.is_some_and(|ip| ip.is_unspecified())
}

/// The sockets of one address: what they are, and as rlb writes them. A range of ports is one socket for each.
fn listen(
    context: &mut Context<'_, '_>,
    marks: &mut Vec<Mark>,
    statement: &Statement,
    word: &Word,
) -> Vec<(BindAddress, String)> {
    let (at, keyword) = (statement.at(2), "stats socket");
    let word = &listen_address::in_folder(context, (at, keyword), word.clone());
    let parsed = address::parse_for(&word.text, Use::Bind);
    let rendered = address::render(&parsed);
    let (socket, written) = match &parsed {
        Address::Host { port: None, .. } => {
            let text = "a runtime socket has a path, or an address and a port";
            context.report.error(at, keyword, text);
            return Vec::new();
        }
        Address::Unusable(why) => {
            match context.index.find(Place::Socket, &word.text) {
                Some(row) => {
                    let mark = context.mark(statement.at, keyword, row);
                    marks.push(mark);
                }
                None => context.report.error(at, keyword, why.clone()),
            }
            return Vec::new();
        }
        Address::Host {
            host,
            port: Some(port),
        } if address::is_name(host) && !context.is_unset(at, keyword, word) => {
            let Some(ip) = listen_address::of_name(context, (at, keyword), &word.text, host) else {
                return Vec::new();
            };
            (format!("{ip}:{port}"), None)
        }
        _ => {
            let socket = bare(rendered.unwrap_or_default());
            let written = word.written.as_ref();
            let written = written.and_then(|_| address::content(word, context.environment));
            (socket, written.map(bare))
        }
    };
    if address::is_mptcp(&word.text) {
        let text = "commands are taken over TCP: a client of MPTCP falls back to it";
        context.report.push(at, keyword, Outcome::Changed, text);
    }
    match sockets(&socket, written) {
        Ok(sockets) => sockets,
        Err(problem) => {
            context.report.error(at, keyword, problem);
            Vec::new()
        }
    }
}

/// The sockets of an address of rlb's, which is written otherwise where a variable of the process is in it.
fn sockets(socket: &str, written: Option<String>) -> Result<Vec<(BindAddress, String)>, String> {
    let is_range = !socket.starts_with(['/', '@']) && !socket.starts_with("unix:");
    let range = is_range.then(|| addresses::bind(socket).ok()).flatten();
    let Some(BindText::Tcp(ip, ports)) = range else {
        let address = addresses::runtime(socket).map_err(|problem| problem.message)?;
        let text = written.unwrap_or_else(|| address::escaped(socket));
        return Ok(vec![(address, text)]);
    };
    if *ports.start() == 0 {
        return Err("HAProxy takes no port 0: write the port".to_owned());
    }
    if ports.start() == ports.end() {
        let text = written.unwrap_or_else(|| address::escaped(socket));
        let address = BindAddress::Tcp(SocketAddr::new(ip, *ports.start()));
        return Ok(vec![(address, text)]);
    }
    let range = format!(":{}-{}", ports.start(), ports.end());
    let host = written
        .as_deref()
        .and_then(|text| text.strip_suffix(&range));
    let host = host.map_or_else(|| host_of(ip), str::to_owned);
    let one = |port| {
        let address = BindAddress::Tcp(SocketAddr::new(ip, port));
        (address, format!("{host}:{port}"))
    };
    Ok(ports.map(one).collect())
}

fn host_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => "*".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// What the sockets at one TCP port are.
#[derive(Default)]
struct Port {
    /// The socket of each address.
    own: HashMap<IpAddr, usize>,
}

impl Port {
    /// The socket that takes the clients of `ip` when there is none for it alone. `[::]` takes those of IPv4 too.
    fn wildcard(&self, ip: IpAddr) -> Option<usize> {
        let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let of = |wildcard: IpAddr| self.own.get(&wildcard).copied();
        of(v6).or_else(|| ip.is_ipv4().then(|| of(v4)).flatten())
    }
}

/// Leaves one socket of those that take each other's clients. HAProxy opens all of them: the clients of a TCP address
/// go to the socket that has it alone, or to any of several; those of a path to the last line that has it. A socket
/// of rlb's that takes the clients of others has the level of the one that lets them do least.
pub(super) fn settle(sockets: &mut Vec<Socket>, report: &mut Report) {
    let mut ports: HashMap<u16, Port> = HashMap::new();
    let mut others: HashMap<BindAddress, usize> = HashMap::new();
    let mut covered_by: Vec<Option<usize>> = vec![None; sockets.len()];
    let mut refused: HashSet<At> = HashSet::new();
    for (index, socket) in sockets.iter().enumerate() {
        match &socket.address {
            BindAddress::Tcp(address) => {
                let port = ports.entry(address.port()).or_default();
                let ip = address.ip().to_canonical();
                covered_by[index] = Some(*port.own.entry(ip).or_insert(index));
            }
            other => {
                let Some(earlier) = others.insert(other.clone(), index) else {
                    continue;
                };
                if matches!(other, BindAddress::Unix(path) if !addresses::is_abstract(path)) {
                    covered_by[earlier] = Some(index);
                } else {
                    let text = "another line has this address: it is left out";
                    report.error(socket.at, "stats socket", text);
                    refused.insert(socket.at);
                }
            }
        }
    }
    for (index, socket) in sockets.iter().enumerate() {
        if let BindAddress::Tcp(address) = &socket.address {
            let port = ports.get(&address.port());
            let ip = address.ip().to_canonical();
            covered_by[index] = port
                .and_then(|port| port.wildcard(ip))
                .or(covered_by[index]);
        }
        covered_by[index] = covered_by[index].filter(|by| *by != index);
    }
    for (index, by) in covered_by.iter().enumerate() {
        if let Some(by) = *by {
            tell_covered(sockets, (index, by), report);
        }
    }
    let mut covered_by = covered_by.into_iter();
    sockets.retain(|socket| {
        let stays = covered_by.next().is_none_or(|by| by.is_none());
        stays && !refused.contains(&socket.at)
    });
}

/// Says that the socket `by` takes the clients of the socket `index`, and gives it the level that lets them do least.
fn tell_covered(sockets: &mut [Socket], (index, by): (usize, usize), report: &mut Report) {
    let at = sockets[index].at;
    let place = sockets[by].keys.get("socket").cloned().unwrap_or_default();
    let place = place.trim_matches('"');
    let text = match &sockets[by].address {
        BindAddress::Tcp(_) => {
            let level = |socket: &Socket| socket.keys.get("level").cloned().unwrap_or_default();
            let rank = |level: &String| LEVELS.iter().position(|word| quote(word) == *level);
            let levels = [level(&sockets[index]), level(&sockets[by])];
            let least = levels.into_iter().min_by_key(rank).unwrap_or_default();
            let text = format!("the socket at `{place}` takes its clients, with the level {least}");
            sockets[by].keys.insert("level", least);
            text.replace('"', "`")
        }
        _ => "a later line takes its path, as in HAProxy".to_owned(),
    };
    report.push(at, "stats socket", Outcome::Changed, text);
}

/// What stands behind the addresses, and what closes them to clients that rlb would let in.
fn words(
    context: &mut Context<'_, '_>,
    statement: &Statement,
    (addresses, ids): (&Word, &mut HashSet<i64>),
) -> (Keys, Vec<Mark>) {
    let (mut keys, mut closed) = (Keys::new(), Vec::new());
    let mut index = 3;
    while index < statement.words.len() {
        let (name, value) = (statement.word(index), statement.word(index + 1));
        let at = statement.at(index);
        let keyword = format!("stats socket {name}");
        let row = context.index.find(Place::Socket, name);
        let is_flag = bind::is_flag(name);
        let known = row.is_some() || ["mode", "level"].contains(&name);
        if known && !is_flag && value.is_empty() {
            context.report.error(at, keyword, "a value is missing");
            break;
        }
        match name {
            "mode" => match units::file_mode(value) {
                Ok(mode) => {
                    keys.remove("mode");
                    keys.extend(mode.map(|mode| ("mode", quote(&mode))));
                }
                Err(problem) => context.report.error(at, keyword, problem),
            },
            "user" | "uid" => drop(keys.insert("owner", quote(value))),
            "group" | "gid" => drop(keys.insert("group", quote(value))),
            "level" if LEVELS.contains(&value) => {
                keys.insert("level", quote(value));
            }
            "level" => {
                let text = format!("HAProxy has no level `{value}`");
                context.report.error(at, keyword, text);
            }
            _ => {
                let Some(row) = row else {
                    context.unknown(at, Place::Socket, &keyword);
                    break;
                };
                let mark = context.mark(at, &keyword, row);
                if name == "id" {
                    number(context, statement, index + 1, ids);
                }
                let mut pieces = addresses.text.split(',');
                let has_effect = name != "v6only" || pieces.any(is_v6_wildcard);
                if row.becomes == Becomes::NeedsAllowDegraded && has_effect {
                    closed.push(mark);
                }
            }
        }
        index += if is_flag { 1 } else { 2 };
    }
    (keys, closed)
}

/// The number of a runtime socket, which no other one may have.
fn number(
    context: &mut Context<'_, '_>,
    statement: &Statement,
    index: usize,
    ids: &mut HashSet<i64>,
) {
    let Some(number) = context.number(statement, index) else {
        return;
    };
    let text = if number <= 0 {
        "it has to be greater than 0"
    } else if !ids.insert(number) {
        "another runtime socket has this number"
    } else {
        return;
    };
    context
        .report
        .error(statement.at(index), "stats socket id", text);
}
