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

/// Gives a bind of `[::]` the clients of IPv6 alone where another bind takes those of IPv4 at its port: HAProxy listens
/// on both, and the kernel gives each the clients of its family.
pub(super) fn take_one_family(proxies: &mut [Proxy], choices: &[Choice], report: &mut Report) {
    let is_open = |(proxy, choice): &(&Proxy, &Choice)| {
        let carried = !matches!(choice, Choice::Dropped(_));
        carried && proxy.is_front() && !proxy.settings.disabled
    };
    let open = proxies.iter().zip(choices).filter(is_open);
    let binds = open.flat_map(|(proxy, _)| proxy.binds.iter().map(move |bind| (proxy, bind)));
    let of_v4 = binds.filter_map(|(proxy, bind)| Some((ports(bind, "*")?, proxy.what())));
    let of_v4: HashMap<Ports, String> = of_v4.collect();
    let open = proxies.iter_mut().zip(choices);
    for (proxy, _) in open.filter(|(proxy, choice)| is_open(&(proxy, choice))) {
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
