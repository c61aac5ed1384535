//! The PROXY header with which a connection to the statistics begins, where its bind says so. Admin thread.
//!
//! As at a frontend, a connection is a session once its header has come. It waits for it as long as for the head of a
//! request.

use super::Shared;
use crate::config::model::Bind;
use crate::live::{EmbryonicRecord, HeaderFailure, LogEntry};
use crate::worker::{HeaderRule, Seen, look};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What the connections of `peer` to `bind` begin with by the newest file; `None`: with their own bytes.
pub(super) fn rule(
    shared: &Shared,
    bind: &Bind,
    peer: Option<SocketAddr>,
) -> Option<Arc<HeaderRule>> {
    let snapshot = shared.snapshot.load();
    let bind = snapshot.stats.as_ref()?.bind_like(bind)?;
    HeaderRule::of(bind).filter(|rule| rule.concerns(peer))
}

/// Waits for the header, and returns the client that it names; `None`: it names none, or may be missing.
///
/// # Errors
/// Why the connection ends.
pub(super) async fn receive(
    stream: &TcpStream,
    rule: &HeaderRule,
    limit: Duration,
) -> Result<Option<SocketAddr>, HeaderFailure> {
    let found = tokio::time::timeout(limit, first(stream)).await;
    let announced = rule.judge(found.unwrap_or(Seen::Nothing))?;
    let addresses = announced.and_then(|announced| announced.addresses);
    Ok(addresses.map(|addresses| addresses.source))
}

/// Looks whenever something arrives.
async fn first(stream: &TcpStream) -> Seen {
    loop {
        let Ok(ready) = stream.ready(Interest::READABLE).await else {
            return Seen::Failed(HeaderFailure::Aborted);
        };
        let looked = stream.try_io(Interest::READABLE, || match look(stream) {
            Seen::Nothing => Err(io::ErrorKind::WouldBlock.into()),
            found => Ok(found),
        });
        match looked {
            Ok(found) => return found,
            // Behind bytes that were only looked at, the end of the client cannot be read.
            Err(_) if ready.is_read_closed() => return Seen::Failed(HeaderFailure::Truncated),
            Err(_) => {}
        }
    }
}

/// Logs a connection that has ended before its header has come, where requests are logged.
pub(super) fn tell(
    shared: &Shared,
    (bind, peer): (&Bind, Option<SocketAddr>),
    failure: HeaderFailure,
) {
    if !shared.logs_requests(bind) {
        return;
    }
    let snapshot = shared.snapshot.load();
    shared.log.send_with(|| {
        LogEntry::Embryonic(Box::new(EmbryonicRecord {
            client: peer,
            accepted: super::request_line::wall_clock(),
            frontend: Arc::clone(&snapshot.stats_live.name),
            listener: Arc::clone(&bind.name),
            failure,
        }))
    });
}
