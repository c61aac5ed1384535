//! A session in HAProxy's large format, with the fields that rlb has. The format differs between versions of
//! HAProxy and is read by people only; the field names are HAProxy's.

use super::{engine, lasting, protocol, source};
use crate::worker::sessions::{SideView, View};
use jiff::Zoned;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Instant;

/// Appends a session of worker `thread`.
pub(super) fn write(text: &mut String, view: &View, thread: usize, now: Instant) {
    let age = now.saturating_duration_since(view.accepted);
    let local = |side: usize| view.sides.as_ref().and_then(|sides| sides[side].local);
    let remote = |side: usize| view.sides.as_ref().and_then(|sides| sides[side].remote);
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{}: [{}] id={} proto={} source={}",
        view.id,
        date(age),
        view.id.number(),
        protocol(view),
        source(view),
    );
    let connecting = view.left.filter(|_| view.sides.is_none());
    let _ = writeln!(
        text,
        "  conn_retries={}, conn_exp={}",
        view.retries,
        connecting.map_or_else(|| "<NEVER>".to_owned(), |left| lasting(Some(left))),
    );
    let frontend = &view.frontend.spec;
    let _ = writeln!(
        text,
        "  frontend={} (id={} mode=tcp){}",
        frontend.name,
        frontend.id,
        address(local(0)),
    );
    let _ = match &view.backend {
        Some(spec) => writeln!(
            text,
            "  backend={} (id={} mode=tcp){}",
            spec.name,
            spec.id,
            address(local(1)),
        ),
        None => writeln!(text, "  backend=<NONE> (id=-1 mode=-)"),
    };
    let _ = match &view.server {
        Some(spec) => writeln!(
            text,
            "  server={} (id={}){}",
            spec.name,
            spec.id,
            address(remote(1)),
        ),
        None => writeln!(text, "  server=<none> (id=-1)"),
    };
    let _ = writeln!(
        text,
        "  thread={thread} age={} exp={}",
        lasting(Some(age)),
        view.left
            .map_or_else(|| "<NEVER>".to_owned(), |left| lasting(Some(left))),
    );
    let Some([client, server]) = &view.sides else {
        let _ = writeln!(text, "  scf state=EST fd={}", view.client);
        let _ = writeln!(text, "  scb state=CON");
        return;
    };
    side(text, "scf", client);
    side(text, "scb", server);
    let request = (view.bytes_in, client.spliced, server.pending_bytes);
    direction(text, "req", request);
    let response = (view.bytes_out, server.spliced, client.pending_bytes);
    direction(text, "res", response);
}

/// When it was accepted: `23/Nov/2026:06:52:04.310144`, local time.
fn date(age: std::time::Duration) -> String {
    let now = Zoned::now();
    let accepted = now.checked_sub(age).unwrap_or(now);
    accepted.strftime("%d/%b/%Y:%H:%M:%S.%6f").to_string()
}

fn address(address: Option<SocketAddr>) -> String {
    address.map_or_else(String::new, |address| {
        format!(" addr={}:{}", address.ip(), address.port())
    })
}

fn side(text: &mut String, name: &str, side: &SideView) {
    let state = if side.closed { "CLO" } else { "EST" };
    let facts = [
        (side.ended, " fin-received"),
        (side.shut, " fin-sent"),
        (side.kept_alive, " keepalive"),
    ];
    let facts = facts.into_iter().filter(|(holds, _)| *holds);
    let facts: String = facts.map(|(_, word)| word).collect();
    let left = lasting(side.left);
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "  {name} state={state} fd={} rex={left}{facts}",
        side.fd
    );
}

/// The bytes so far, how they are moved, and how many wait to be taken.
fn direction(text: &mut String, name: &str, (bytes, spliced, waiting): (u64, bool, usize)) {
    let by = engine(spliced);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  {name} bytes={bytes} pending={waiting} by={by}");
}
