//! The port at which a server is checked.

use super::address::{self, Address};
use super::context::Context;
use super::lexer::Word;
use super::proxy::Proxy;

/// Refuses the servers that are checked and have no port to be checked at, in no rule either.
pub(super) fn settle(context: &mut Context<'_, '_>, proxy: &mut Proxy) {
    if proxy.settings.connects_with_ports() {
        return;
    }
    proxy.servers.retain(|server| {
        if server.needs_port {
            let text = "it is checked, and has no port to be checked at";
            context.report.error(server.at, "server", text);
        }
        !server.needs_port
    });
}

/// A server's address. HAProxy's port 0 is none: the client's port decides.
pub(super) fn without_port_0(word: Word) -> Word {
    let Address::Host {
        port: Some(port), ..
    } = address::parse(&word.text)
    else {
        return word;
    };
    if !port.bytes().all(|byte| byte == b'0') {
        return word;
    }
    let end = format!(":{port}");
    let bare = |text: &str| text.strip_suffix(&*end).map(str::to_owned);
    Word {
        text: bare(&word.text).unwrap_or_default(),
        written: word.written.as_deref().and_then(bare),
        ..word
    }
}

/// Whether the client's port decides the server's.
pub(super) fn is_portless(word: &Word) -> bool {
    let Address::Host { port, .. } = address::parse(&word.text) else {
        return false;
    };
    word.unset.is_none() && port.is_none_or(|port| port.starts_with(['+', '-']))
}
