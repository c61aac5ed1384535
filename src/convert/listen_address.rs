//! What an address that rlb listens on needs beside its form: the folder of a relative path, and the address of a name.

use super::address::{self, Address, Use};
use super::context::Context;
use super::lexer::Word;
use super::report::{At, Outcome};
use crate::config::address as addresses;
use std::net::IpAddr;

/// The path of a unix socket that rlb opens, from the root on. HAProxy takes a relative one from the folder that it is
/// started in.
pub(super) fn in_folder(context: &mut Context<'_, '_>, place: (At, &str), word: Word) -> Word {
    let Address::Unix(path) = address::parse_for(&word.text, Use::Bind) else {
        return word;
    };
    let folder = context.folder.filter(|_| word.unset.is_none());
    let Some(folder) = folder.filter(|_| !path.is_empty() && !path.starts_with('/')) else {
        return word;
    };
    let path = format!("{}/{path}", folder.trim_end_matches('/'));
    let text = format!("it is `{path}`: the path is from the folder that this is started in");
    let (at, keyword) = place;
    context.report.push(at, keyword, Outcome::Changed, text);
    Word {
        text: format!("unix@{path}"),
        written: None,
        ..word
    }
}

/// The address that the name `host` in `text` stands for, as a host of rlb's. `None`: what is wrong with it is reported.
pub(super) fn of_name(
    context: &mut Context<'_, '_>,
    (at, keyword): (At, &str),
    text: &str,
    host: &str,
) -> Option<String> {
    // What cannot be a name is not asked for.
    if let Err(problem) = addresses::server(host) {
        context.report.error(at, keyword, problem.message);
        return None;
    }
    let Some(ip) = (context.resolve)(host) else {
        let text = format!("the name `{host}` does not resolve");
        context.report.error(at, keyword, text);
        return None;
    };
    let family = text.split_once('@').map_or("", |(family, _)| family);
    let family = family.rsplit('+').next().unwrap_or_default();
    if (family.ends_with('4') && ip.is_ipv6()) || (family.ends_with('6') && ip.is_ipv4()) {
        let text = format!("the name `{host}` is {ip}, which is not of the family `{family}@`");
        context.report.error(at, keyword, text);
        return None;
    }
    let text = format!("`{host}` is looked up now: it is {ip}");
    context.report.push(at, keyword, Outcome::Changed, text);
    Some(match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    })
}
