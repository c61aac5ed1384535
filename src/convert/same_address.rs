//! Sockets of several lines at one address. HAProxy opens all of them (`SO_REUSEPORT`), and clients go where the kernel leads
//! them.
//!
//! - Of one path, also through a symbolic link, the last line has the clients: it takes the file.
//! - `*:80` beside `127.0.0.1:80`, or beside `*:80` of one interface: each gets its own; rlb's binds do so with `overlap`.
//! - Two of one address share the clients at random, which rlb does not do: the first has them all.
//!
//! A runtime socket of rlb's stands beside no bind.

use super::choice::Choice;
use super::proxy::{Bind, Proxy};
use super::report::{At, Outcome, Report};
use super::sections::Kind;
use super::socket::Socket;
use crate::config::BINDS_MAX;
use crate::config::address::{self as addresses, BindText};
use crate::config::model::BindAddress;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Leaves the last line of those that have one path. Those of proxies that are not carried over count too: in HAProxy
/// the others get none of their clients.
pub(super) fn take_paths(
    proxies: &mut [Proxy],
    sockets: &mut Vec<Socket>,
    real_path: &dyn Fn(&Path) -> PathBuf,
    report: &mut Report,
) {
    let mut last: HashMap<PathBuf, (At, usize)> = HashMap::new();
    let mut note = |path: &PathBuf, line| {
        let known = last.entry(path.clone()).or_insert(line);
        *known = line.max(*known);
    };
    let open = |proxy: &&mut Proxy| proxy.is_front() && !proxy.settings.disabled;
    let mut folders = Folders::default();
    let mut of_binds: Vec<Vec<Option<PathBuf>>> = Vec::new();
    for proxy in proxies.iter_mut().filter(open) {
        let mut real = |bind| Some(folders.real(&path(bind)?, real_path));
        let paths = proxy.binds.iter().map(&mut real);
        let paths: Vec<Option<PathBuf>> = paths.collect();
        for (number, (bind, path)) in proxy.binds.iter().zip(&paths).enumerate() {
            if let Some(path) = path {
                note(path, (bind.at, number));
            }
        }
        of_binds.push(paths);
    }
    let of_sockets = sockets.iter().enumerate().map(|(number, socket)| {
        let path = match &socket.address {
            BindAddress::Unix(path) if !addresses::is_abstract(path) => {
                folders.real(path, real_path)
            }
            _ => return None,
        };
        note(&path, (socket.at, number));
        Some(path)
    });
    let of_sockets: Vec<Option<PathBuf>> = of_sockets.collect();
    let is_last = |path: &Option<PathBuf>, line: (At, usize)| {
        path.as_ref().is_none_or(|path| last[path] == line)
    };
    let text = "a later line takes its path, as in HAProxy";
    let changed = Outcome::Changed;
    for (proxy, paths) in proxies.iter_mut().filter(open).zip(of_binds) {
        let mut all = paths.iter().enumerate();
        proxy.binds.retain(|bind| {
            let stays = all
                .next()
                .is_none_or(|(number, path)| is_last(path, (bind.at, number)));
            if !stays {
                report.push(bind.at, "bind", changed, text);
            }
            stays
        });
        // Its servers may be for others.
        if proxy.binds.is_empty() && !paths.is_empty() && proxy.kind == Kind::Listen {
            proxy.listens = false;
        }
    }
    let mut all = of_sockets.iter().enumerate();
    sockets.retain(|socket| {
        let stays = all
            .next()
            .is_none_or(|(number, path)| is_last(path, (socket.at, number)));
        if !stays {
            report.push(socket.at, "stats socket", changed, text);
        }
        stays
    });
}

/// The folders of paths, each without symbolic links. There may be a million paths.
#[derive(Default)]
struct Folders(HashMap<PathBuf, PathBuf>);

impl Folders {
    fn real(&mut self, path: &Path, real_path: &dyn Fn(&Path) -> PathBuf) -> PathBuf {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return path.to_owned();
        };
        if let Some(known) = self.0.get(folder) {
            return known.join(name);
        }
        if self.0.len() >= BINDS_MAX {
            return path.to_owned();
        }
        let real = real_path(path);
        let own = real.parent().unwrap_or(folder);
        self.0.insert(folder.to_owned(), own.to_owned());
        real
    }
}

/// The path of a bind that has one.
fn path(bind: &Bind) -> Option<PathBuf> {
    match read(bind)? {
        BindText::Unix(path) if !addresses::is_abstract(&path) => Some(path),
        _ => None,
    }
}

fn read(bind: &Bind) -> Option<BindText> {
    addresses::bind(&bind.address.replace("$${", "${")).ok()
}

fn tcp(bind: &Bind) -> Option<(IpAddr, RangeInclusive<u16>)> {
    match read(bind)? {
        BindText::Tcp(ip, ports) => Some((ip.to_canonical(), ports)),
        _ => None,
    }
}

/// How the clients of two sockets at one port are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// None of them could be a client of the other.
    Apart,
    /// By their address or device: the kernel leads each to the socket that has it alone.
    Divided,
    /// At random.
    Shared,
}

/// A socket for TCP.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    ip: IpAddr,
    device: Option<&'a str>,
    v6only: bool,
}

impl<'a> Place<'a> {
    fn of(bind: &'a Bind, ip: IpAddr) -> Self {
        let key = |key| bind.keys.get(key).map(String::as_str);
        Self {
            ip,
            device: key("interface"),
            v6only: key("v6only") == Some("true"),
        }
    }

    fn relation(&self, other: &Self) -> Relation {
        if let (Some(device), Some(other)) = (self.device, other.device)
            && device != other
        {
            return Relation::Apart;
        }
        if self.ip == other.ip {
            return if self.device == other.device {
                Relation::Shared
            } else {
                Relation::Divided
            };
        }
        let takes = |one: &Self, other: &Self| {
            let families = one.ip.is_ipv4() == other.ip.is_ipv4();
            one.ip.is_unspecified() && (families || one.ip.is_ipv6() && !one.v6only)
        };
        if takes(self, other) || takes(other, self) {
            Relation::Divided
        } else {
            Relation::Apart
        }
    }
}

/// Positions of a proxy and of a bind of it.
type Position = (usize, usize);

/// The sockets at one port of one network namespace.
#[derive(Default)]
struct Port<'a> {
    all: Vec<(Place<'a>, Position)>,
    /// Positions in `all` of those with a wildcard, and of the others by their addresses. Thousands may have a port.
    wildcards: Vec<usize>,
    own: HashMap<IpAddr, Vec<usize>>,
}

impl<'a> Port<'a> {
    /// Those that may meet `ip`.
    fn near(&self, ip: IpAddr) -> Vec<&(Place<'a>, Position)> {
        if ip.is_unspecified() {
            return self.all.iter().collect();
        }
        let own = self.own.get(&ip).into_iter().flatten();
        let near = own.chain(&self.wildcards);
        near.map(|index| &self.all[*index]).collect()
    }

    fn add(&mut self, place: Place<'a>, position: Position) {
        let same = if place.ip.is_unspecified() {
            &mut self.wildcards
        } else {
            self.own.entry(place.ip).or_default()
        };
        same.push(self.all.len());
        self.all.push((place, position));
    }
}

type Ports<'a> = HashMap<(u16, Option<&'a str>), Port<'a>>;

/// What is found out of the binds of all proxies.
#[derive(Default)]
struct Found {
    /// Those that get a part of the clients of others.
    divided: HashSet<Position>,
    /// The ports that others have already, and which.
    taken: HashMap<Position, BTreeMap<u16, Position>>,
}

/// Has the binds that are carried over listen beside each other, where the kernel divides their clients. Of those that
/// would share them the first one stays, and so does a bind beside a runtime socket.
pub(super) fn settle(
    proxies: &mut [Proxy],
    choices: &mut [Choice],
    (sockets, allow_degraded): (&mut Vec<Socket>, bool),
    report: &mut Report,
) {
    let (found, ports) = find(proxies, choices);
    leave_out_sockets(sockets, &ports, (proxies, allow_degraded), report);
    drop(ports);
    let named = proxies.iter().filter(|_| !found.taken.is_empty());
    let whats: Vec<String> = named.map(Proxy::what).collect();
    for (proxy, bind) in &found.divided {
        let keys = &mut proxies[*proxy].binds[*bind].keys;
        keys.insert("overlap", "true".to_owned());
    }
    let mut of_proxies: Vec<usize> = found.taken.keys().map(|(proxy, _)| *proxy).collect();
    of_proxies.sort_unstable();
    of_proxies.dedup();
    for index in of_proxies {
        let mut left: Vec<Bind> = Vec::new();
        let binds = proxies[index].binds.clone();
        for (number, bind) in binds.into_iter().enumerate() {
            let Some(taken) = found.taken.get(&(index, number)) else {
                left.push(bind);
                continue;
            };
            tell(proxies, (&whats, index, &bind), taken, report);
            left.extend(without(&bind, taken));
        }
        let proxy = &mut proxies[index];
        proxy.binds = left;
        if !proxy.binds.is_empty() {
            continue;
        }
        let text = "it listens nowhere: others have its addresses";
        if proxy.kind == Kind::Listen && choices[index] == Choice::Carried {
            // Its servers may be for others.
            proxy.listens = false;
            report.raise(proxy.entry, Outcome::Changed, text, false);
        } else {
            choices[index] = Choice::Dropped(text.to_owned());
            report.raise(proxy.entry, Outcome::Dropped, text, true);
        }
    }
}

/// Compares each bind with those before it.
fn find<'a>(proxies: &'a [Proxy], choices: &[Choice]) -> (Found, Ports<'a>) {
    let (mut found, mut ports) = (Found::default(), Ports::new());
    let mut count = 0;
    let open = |proxy: &Proxy| proxy.is_front() && !proxy.settings.disabled;
    for (index, proxy) in proxies.iter().enumerate() {
        if matches!(choices[index], Choice::Dropped(_)) || !open(proxy) {
            continue;
        }
        for (number, bind) in proxy.binds.iter().enumerate() {
            let Some((ip, range)) = tcp(bind) else {
                continue;
            };
            count += range.len();
            if count > BINDS_MAX {
                // Nothing is written then.
                return (found, ports);
            }
            let place = Place::of(bind, ip);
            let namespace = bind.keys.get("namespace").map(String::as_str);
            for port in range.filter(|port| *port != 0) {
                let there = ports.entry((port, namespace)).or_default();
                let near = there.near(ip);
                let of = |relation| {
                    let mut near = near.iter();
                    near.find(|(other, _)| other.relation(&place) == relation)
                };
                if let Some((_, other)) = of(Relation::Shared) {
                    let taken = found.taken.entry((index, number)).or_default();
                    taken.insert(port, *other);
                    continue;
                }
                if of(Relation::Divided).is_some() {
                    found.divided.insert((index, number));
                }
                there.add(place, (index, number));
            }
        }
    }
    (found, ports)
}

/// Leaves out the runtime sockets at addresses of binds.
fn leave_out_sockets(
    sockets: &mut Vec<Socket>,
    ports: &Ports<'_>,
    (proxies, allow_degraded): (&[Proxy], bool),
    report: &mut Report,
) {
    sockets.retain(|socket| {
        let BindAddress::Tcp(address) = socket.address else {
            return true;
        };
        let place = Place {
            ip: address.ip().to_canonical(),
            device: None,
            v6only: false,
        };
        let near = ports.get(&(address.port(), None));
        let near = near.map(|port| port.near(place.ip)).unwrap_or_default();
        let mut near = near.into_iter();
        let Some((_, (proxy, _))) =
            near.find(|(other, _)| other.relation(&place) != Relation::Apart)
        else {
            return true;
        };
        let what = proxies[*proxy].what();
        let text = format!("it is left out: {what} listens at its address, too");
        let entry = report.push(socket.at, "stats socket", Outcome::Unsupported, text);
        report.entries[entry].traffic = !allow_degraded;
        false
    });
}

/// Says who has the ports `taken` of a bind.
fn tell(
    proxies: &[Proxy],
    (whats, index, bind): (&[String], usize, &Bind),
    taken: &BTreeMap<u16, Position>,
    report: &mut Report,
) {
    let mut told = HashSet::new();
    for (proxy, number) in taken.values() {
        let other = &proxies[*proxy].binds;
        let other = other.get(*number);
        let same = *proxy == index && other.is_some_and(|other| offers(other) == offers(bind));
        if !told.insert((*proxy, same)) {
            continue;
        }
        if same {
            let text = "it listens there already: rlb has one listener for it";
            report.push(bind.at, "bind", Outcome::Changed, text);
            continue;
        }
        let what = match other {
            Some(other) if *proxy == index => format!("the bind in line {}", other.at.line),
            _ => whats[*proxy].clone(),
        };
        let text = format!(
            "{what} has its address, too, and HAProxy gives each of the two a share of the clients: \
             they all come to that one"
        );
        let entry = report.push(bind.at, "bind", Outcome::Unsupported, text);
        report.entries[entry].traffic = true;
    }
}

/// What clients get of a bind.
fn offers(bind: &Bind) -> BTreeMap<&'static str, &str> {
    let keys = bind.keys.iter();
    let keys = keys.filter(|(key, _)| !["name", "id", "overlap"].contains(key));
    keys.map(|(key, value)| (*key, value.as_str())).collect()
}

/// A bind without some of its ports.
fn without(bind: &Bind, taken: &BTreeMap<u16, Position>) -> Vec<Bind> {
    let (Some((_, ports)), Some((host, _))) = (tcp(bind), bind.address.rsplit_once(':')) else {
        return Vec::new();
    };
    let mut left: Vec<(u16, u16)> = Vec::new();
    for port in ports.filter(|port| !taken.contains_key(port)) {
        match left.last_mut() {
            Some((_, last)) if *last + 1 == port => *last = port,
            _ => left.push((port, port)),
        }
    }
    let one = |(index, (first, last)): (usize, (u16, u16))| {
        let mut keys = bind.keys.clone();
        if index > 0 {
            keys.remove("name");
        }
        let ports = if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        };
        Bind {
            address: format!("{host}:{ports}"),
            keys,
            ..*bind
        }
    };
    left.into_iter().enumerate().map(one).collect()
}
