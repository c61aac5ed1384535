//! Binds that another bind of the same proxy covers. Pure but for the report.
//!
//! HAProxy listens on `*:80` and on `127.0.0.1:80` of one proxy, and the kernel gives each the clients of its address. They
//! fare the same where the binds say the same, so rlb needs only the wildcard.

use super::proxy::{Bind, Proxy};
use super::report::{Outcome, Report};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};

/// A port, the family of the address, and what else decides what becomes of a client.
type Service<'a> = (&'a str, bool, BTreeMap<&'static str, &'a str>);

/// Leaves out the binds that a wildcard covers.
pub(super) fn leave_out(proxy: &mut Proxy, report: &mut Report) {
    let mut wildcards: HashMap<Service<'_>, &str> = HashMap::new();
    for bind in &proxy.binds {
        if let Some((ip, service)) = service(bind)
            && ip.is_unspecified()
        {
            wildcards.entry(service).or_insert(&bind.address);
        }
    }
    let covered = |bind: &Bind| {
        let (ip, service) = service(bind)?;
        let by = wildcards.get(&service).filter(|_| !ip.is_unspecified());
        by.map(|by| (*by).to_owned())
    };
    let covered: Vec<Option<String>> = proxy.binds.iter().map(covered).collect();
    let mut covered = covered.into_iter();
    proxy.binds.retain(|bind| {
        let Some(Some(by)) = covered.next() else {
            return true;
        };
        let text = format!("`{by}` of this proxy takes its clients");
        report.push(bind.at, "bind", Outcome::Changed, text);
        false
    });
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
