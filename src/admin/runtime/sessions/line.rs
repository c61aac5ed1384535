//! The line of a session, as in HAProxy 3.0 (`cli_io_handler_dump_sess` in its `src/stream.c`).
//!
//! HAProxy's fields are in HAProxy's order. What a session of rlb does not have is 0: it has no task whose
//! calls could be counted, and no channels with flags or analysers. rlb's own fields follow.

use super::{engine, lasting, protocol, source};
use crate::worker::sessions::{SideView, View};
use std::fmt::Write;
use std::time::Instant;

/// HAProxy's `SC_ST_*`: connecting, established, closed.
const CONNECTING: u8 = 5;
const ESTABLISHED: u8 = 8;
const CLOSED: u8 = 10;

/// Appends the line of a session of worker `thread`.
pub(super) fn write(text: &mut String, view: &View, thread: usize, now: Instant) {
    let backend = view.backend.as_ref().map_or("<NONE>", |spec| &*spec.name);
    let server = view.server.as_ref().map_or("<none>", |spec| &*spec.name);
    let age = now.saturating_duration_since(view.accepted);
    let [client, behind] = match &view.sides {
        Some([client, server]) => [end(client), end(server)],
        None => [End::new(ESTABLISHED, view.client), End::new(CONNECTING, -1)],
    };
    let sides = view.sides.as_ref();
    let waiting = sides.map(|[client, server]| (server.pending_bytes, client.pending_bytes));
    let (requested, answered) = waiting.unwrap_or_default();
    let by = sides.map(|[client, server]| (client.spliced, server.spliced));
    let (up, down) = by.unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "{}: proto={} src={} fe={} be={backend} srv={server} ts=00 epoch=0 age={} \
         calls=0 rate=0 cpu=0 lat=0 ",
        view.id,
        protocol(view),
        source(view),
        view.frontend.spec.name,
        lasting(Some(age)),
    );
    let _ = write!(
        text,
        "rq[f=000000h,i={requested},an=00h,ax=] rp[f=000000h,i={answered},an=00h,ax=] \
         scf=[{},0h,fd={},rex={},wex={}] scb=[{},1h,fd={},rex={},wex={}] ",
        client.state,
        client.fd,
        client.rex,
        client.wex,
        behind.state,
        behind.fd,
        behind.rex,
        behind.wex,
    );
    let connecting = if sides.is_none() { view.left } else { None };
    let _ = writeln!(
        text,
        "exp={} rc={} c_exp={} thr={thread} bin={} bout={} rqby={} rpby={}",
        lasting(view.left),
        view.retries,
        lasting(connecting),
        view.bytes_in,
        view.bytes_out,
        engine(up),
        engine(down),
    );
}

/// One end of a session in the line.
struct End {
    state: u8,
    fd: i32,
    /// Time until its silence ends the session.
    rex: String,
    /// The same, while it has bytes to take.
    wex: String,
}

impl End {
    fn new(state: u8, fd: i32) -> Self {
        Self {
            state,
            fd,
            rex: String::new(),
            wex: String::new(),
        }
    }
}

fn end(side: &SideView) -> End {
    let left = lasting(side.left);
    End {
        state: if side.closed { CLOSED } else { ESTABLISHED },
        fd: side.fd,
        wex: if side.pending_bytes > 0 {
            left.clone()
        } else {
            String::new()
        },
        // Nothing more is read from a side that has ended.
        rex: if side.ended { String::new() } else { left },
    }
}
