//! Binds that another bind covers. Pure but for the report.
//!
//! HAProxy listens on `*:80` and on `127.0.0.1:80` of one proxy, and the kernel gives each the clients of its address. They
//! fare the same where the binds say the same, so rlb needs only the wildcard. `[::]:80` takes those of IPv4 too, unless it
//! has `v6only`.

use super::choice::Choice;
use super::proxy::{Bind, Proxy};
use super::report::{Outcome, Report};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};

/// A port, the family of the address, and what else decides what becomes of a client.
type Service<'a> = (&'a str, bool, BTreeMap<&'static str, &'a str>);

/// Leaves out the binds that a wildcard covers.
pub(super) fn leave_out(proxy: &mut Proxy, report: &mut Report) {
    let mut wildcards: HashMap<Service<'_>, usize> = HashMap::new();
    for (index, bind) in proxy.binds.iter().enumerate() {
        if let Some((ip, service)) = service(bind)
            && ip.is_unspecified()
        {
            wildcards.entry(service).or_insert(index);
        }
    }
    let of_both = |(port, _, keys): Service<'_>| {
        let by = *wildcards.get(&(port, false, keys))?;
        let v6only = proxy.binds[by].keys.get("v6only");
        v6only.is_none_or(|v6only| v6only == "false").then_some(by)
    };
    let covered = |bind: &Bind| {
        let (ip, service) = service(bind)?;
        let by = wildcards.get(&service).filter(|_| !ip.is_unspecified());
        let by = by.copied();
        by.or_else(|| ip.is_ipv4().then(|| of_both(service))?)
    };
    let covered: Vec<Option<usize>> = proxy.binds.iter().map(covered).collect();
    for (index, by) in covered.iter().enumerate() {
        let Some(by) = *by else { continue };
        let is_v4 = !proxy.binds[index].address.starts_with('[');
        let wildcard = &mut proxy.binds[by];
        if is_v4 && wildcard.address.starts_with('[') {
            // The system may say otherwise where the bind says nothing.
            let keys = &mut wildcard.keys;
            keys.insert("v6only", "false".to_owned());
        }
        let text = format!("`{}` of this proxy takes its clients", wildcard.address);
        report.push(proxy.binds[index].at, "bind", Outcome::Changed, text);
    }
    let mut covered = covered.into_iter();
    proxy
        .binds
        .retain(|_| covered.next().is_none_or(|by| by.is_none()));
}

/// A port or a range of them, and the device and the namespace that they are in.
type Ports = (String, Option<String>, Option<String>);

/// Settles which of the binds of several proxies get the clients of a port.
pub(super) fn share_ports(proxies: &mut [Proxy], choices: &[Choice], report: &mut Report) {
    take_one_family(proxies, choices, report);
    tell_who_gets_clients(proxies, choices, report);
}

/// Gives a bind of `[::]` the clients of IPv6 alone where another bind takes those of IPv4 at its port: HAProxy listens
/// on both, and the kernel gives each the clients of its family.
fn take_one_family(proxies: &mut [Proxy], choices: &[Choice], report: &mut Report) {
    let is_open = |proxy: &Proxy| proxy.is_front() && !proxy.settings.disabled;
    // Those that are not carried over, too: their clients are not the other's.
    let open = proxies.iter().filter(|proxy| is_open(proxy));
    let binds = open.flat_map(|proxy| proxy.binds.iter().map(move |bind| (proxy, bind)));
    let of_v4 = binds.filter_map(|(proxy, bind)| Some((ports(bind, "*")?, proxy.what())));
    let of_v4: HashMap<Ports, String> = of_v4.collect();
    let carried = proxies.iter_mut().zip(choices);
    let carried = carried.filter(|(_, choice)| !matches!(choice, Choice::Dropped(_)));
    for (proxy, _) in carried.filter(|(proxy, _)| is_open(proxy)) {
        for bind in &mut proxy.binds {
            let takes_both = bind.keys.get("v6only").is_none_or(|only| only == "false");
            let other = ports(bind, "[::]").filter(|_| takes_both);
            let Some(other) = other.and_then(|ports| of_v4.get(&ports)) else {
                continue;
            };
            bind.keys.insert("v6only", "true".to_owned());
            let text = format!("{other} takes the clients of IPv4 at this port");
            report.push(bind.at, "bind", Outcome::Changed, text);
        }
    }
}

/// Says of the binds of one address that are not carried over which proxy gets their clients: one that listens on all
/// addresses of the port. That counts as traffic.
fn tell_who_gets_clients(proxies: &[Proxy], choices: &[Choice], report: &mut Report) {
    let open = proxies.iter().zip(choices);
    let open = open.filter(|(proxy, _)| proxy.is_front() && !proxy.settings.disabled);
    let (dropped, carried): (Vec<_>, Vec<_>) =
        open.partition(|(_, choice)| matches!(choice, Choice::Dropped(_)));
    let mut wildcards = HashMap::new();
    for (proxy, _) in &carried {
        for bind in &proxy.binds {
            let both = ports(bind, "[::]").filter(|_| !bind.keys.contains_key("v6only"));
            for ports in [ports(bind, "*"), both].into_iter().flatten() {
                wildcards.entry(ports).or_insert_with(|| proxy.what());
            }
        }
    }
    for bind in dropped.iter().flat_map(|(proxy, _)| &proxy.binds) {
        let Some((host, _)) = bind.address.rsplit_once(':') else {
            continue;
        };
        let other = ports(bind, host).and_then(|ports| wildcards.get(&ports));
        if let Some(other) = other.filter(|_| !host.starts_with('[')) {
            let text =
                format!("its clients come to {other} instead, which listens on all addresses");
            let entry = report.push(bind.at, "bind", Outcome::Dropped, text);
            report.entries[entry].traffic = true;
        }
    }
}

/// The ports of a bind whose host is `wildcard`.
fn ports(bind: &Bind, wildcard: &str) -> Option<Ports> {
    let (host, ports) = bind.address.rsplit_once(':')?;
    let host = if host == "0.0.0.0" { "*" } else { host };
    let key = |key| bind.keys.get(key).cloned();
    (host == wildcard && ports != "0")
        .then(|| (ports.to_owned(), key("interface"), key("namespace")))
}

/// The address of a bind of TCP with one port, and what it offers.
fn service(bind: &Bind) -> Option<(IpAddr, Service<'_>)> {
    let (host, port) = bind.address.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let ip: IpAddr = match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().ok()?.into(),
        None if host == "*" => [0, 0, 0, 0].into(),
        None => host.parse().ok()?,
    };
    if ip.to_canonical() != ip || port == "0" || port.contains('-') {
        return None;
    }
    let keys = bind.keys.iter();
    let keys = keys.filter(|(key, _)| !["name", "id", "v6only"].contains(key));
    let keys = keys.map(|(key, value)| (*key, value.as_str())).collect();
    Some((ip, (port, ip.is_ipv4(), keys)))
}
