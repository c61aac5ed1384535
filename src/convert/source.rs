//! `source ADDRESS[:PORT[-PORT]] [usesrc client|clientip] [interface DEVICE]`, of a proxy and of a server.

use super::address::{self, Address, Use};
use super::context::Context;
use super::proxy::{Mark, Proxy};
use super::report::Outcome;
use super::sections::Statement;
use super::toml_string::quote;
use crate::config::address as addresses;
use crate::config::haproxy::Place;

/// A `source`, as it was read.
pub(super) struct Read {
    /// The value of the key `source`, if rlb can have it.
    pub(super) value: Option<String>,
    /// What rlb does not have of it.
    pub(super) mark: Option<Mark>,
    /// The index of its last word.
    pub(super) last: usize,
}

/// Reads the address at word `index` and what belongs to it.
pub(super) fn read(
    context: &mut Context<'_, '_>,
    statement: &Statement,
    (place, keyword): (Place, &str),
    index: usize,
) -> Read {
    let at = statement.at(index);
    let mut mark = None;
    let address = match own_address(context, statement, (place, keyword), index) {
        OwnAddress::Usable(address) => Some(address),
        OwnAddress::Unusable(found) => {
            mark = found;
            None
        }
        OwnAddress::InError => None,
    };
    let mut keys = Vec::new();
    let mut usable = address.is_some();
    let mut last = index;
    while let word @ ("usesrc" | "interface") = statement.word(last + 1) {
        let value = statement.word(last + 2);
        match (word, value) {
            (_, "") => {
                let text = format!("`{word}` needs a value");
                context.report.error(statement.at(last + 1), keyword, text);
                usable = false;
            }
            ("usesrc", "client" | "clientip") | ("interface", _) => {
                keys.push(format!("{word} = {}", quote(value)));
            }
            _ => {
                let row = context.index.find(place, "usesrc of another");
                mark = row.map(|row| context.mark(statement.at(last + 1), "usesrc", row));
                usable = false;
            }
        }
        last += 2;
    }
    let Some(address) = address.filter(|_| usable) else {
        return Read {
            value: None,
            mark,
            last,
        };
    };
    if keys.iter().any(|key| key.starts_with("usesrc")) {
        let text = "rlb needs CAP_NET_ADMIN for it, as HAProxy";
        context
            .report
            .push(at, "usesrc", Outcome::Information, text);
    }
    let value = if keys.is_empty() {
        quote(&address)
    } else {
        if address != "*" {
            keys.insert(0, format!("address = {}", quote(&address)));
        }
        format!("{{ {} }}", keys.join(", "))
    };
    Read {
        value: Some(value),
        mark,
        last,
    }
}

/// The statement `source` of a proxy.
pub(super) fn of_proxy(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    let read = read(context, statement, (Place::Proxy, "source"), 1);
    let after = read.last + 1;
    if statement.words.len() > after {
        let text = "only `usesrc` and `interface` can follow the address";
        return context.report.error(statement.at(after), "source", text);
    }
    proxy.settings.marks.extend(read.mark.map(|mark| Mark {
        front: false,
        ..mark
    }));
    if let Some(value) = read.value {
        context.kept(statement.at, "source");
        proxy.settings.keys.insert("source", value);
    }
}

/// What stands for an address behind `source`.
enum OwnAddress {
    /// As rlb writes it.
    Usable(String),
    /// Something that no connection of TCP can come from; what the table says of it.
    Unusable(Option<Mark>),
    /// What is wrong with it was reported.
    InError,
}

fn own_address(
    context: &mut Context<'_, '_>,
    statement: &Statement,
    (place, keyword): (Place, &str),
    index: usize,
) -> OwnAddress {
    let at = statement.at(index);
    let text = statement.word(index);
    if text.is_empty() {
        context.report.error(at, keyword, "an address is missing");
        return OwnAddress::InError;
    }
    let (host, port) = match address::parse_for(text, Use::Server) {
        Address::Host { host, port } => (host, port),
        Address::Unix(_) | Address::Abstract(_) | Address::Padded(_) => {
            let row = context.index.find(place, "usesrc of another");
            let mark = row.map(|row| context.mark(at, keyword, row));
            return OwnAddress::Unusable(mark);
        }
        Address::Descriptor(_) | Address::Unusable(_) => {
            let text = format!("no connection comes from `{text}`");
            context.report.error(at, keyword, text);
            return OwnAddress::InError;
        }
    };
    let host = host.trim_matches(['[', ']']);
    let ip = match host {
        "" | "*" => None,
        _ => {
            let Some(ip) = host.parse().ok().or_else(|| (context.resolve)(host)) else {
                let text = format!("the name `{host}` does not resolve");
                context.report.error(at, keyword, text);
                return OwnAddress::InError;
            };
            Some(ip).filter(|ip: &std::net::IpAddr| !ip.is_unspecified())
        }
    };
    let mut port = port.filter(|port| port != "0");
    let is_range = port.as_ref().is_some_and(|port| port.contains('-'));
    if is_range && place == Place::Proxy {
        let text = "HAProxy takes a range of ports in a server alone";
        context.report.error(at, keyword, text);
        return OwnAddress::InError;
    }
    // In a range HAProxy's port 0 leaves the port to the kernel.
    if let Some(last) = port.as_deref().and_then(|port| port.strip_prefix("0-")) {
        let text = format!("the ports are 1 to {last}: there is no port 0");
        context.report.push(at, keyword, Outcome::Changed, text);
        port = Some(format!("1-{last}"));
    }
    let address = match (ip, port) {
        (None, None) => "*".to_owned(),
        (None, Some(port)) => format!("*:{port}"),
        (Some(ip), None) => ip.to_string(),
        (Some(std::net::IpAddr::V6(ip)), Some(port)) => format!("[{ip}]:{port}"),
        (Some(ip), Some(port)) => format!("{ip}:{port}"),
    };
    match addresses::source(&address) {
        Ok(_) => OwnAddress::Usable(address),
        Err(problem) => {
            context.report.error(at, keyword, problem.message);
            OwnAddress::InError
        }
    }
}
