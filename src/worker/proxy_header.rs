//! Step 2: reads the PROXY header with which a client's connection begins, where its listener demands one. Runs on a
//! worker.
//!
//! Invariant: exactly the header is taken out of the socket. It is looked at first (`MSG_PEEK`), and what follows stays
//! in the kernel, so that the relay can splice it.
//!
//! Kernel fact relied on: the event loop is told of each arrival, also while bytes that were only looked at are unread.

use super::header_rule::{Announced, HeaderRule};
use super::pending::Event;
use super::pending_guard::PendingGuard;
use super::relay::Watched;
use crate::live::{HeaderFailure, Phase, Termination};
use crate::proto::proxy::{self, Parsed};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::future::{Future, poll_fn};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// How much is looked at first. A header without many TLVs is shorter.
const LOOK: usize = 256;

/// How a session ends that the relay does not get.
#[derive(Debug)]
pub(super) enum SessionEnd {
    /// Its header did not come.
    NoHeader(HeaderFailure),
    /// No server of its backend is usable.
    NoServer(Termination),
    /// It waits for a server, and goes on in another process.
    Departs,
    /// Any other end.
    Terminated(Termination),
}

impl From<Termination> for SessionEnd {
    fn from(end: Termination) -> Self {
        Self::Terminated(end)
    }
}

/// What the first bytes of a client are.
#[derive(Debug)]
pub enum Seen {
    /// A header, which was taken.
    Header(Announced),
    /// None yet.
    Nothing,
    /// No header.
    Failed(HeaderFailure),
}

/// Waits for the header of `client`, for `limit` at most. `None`: the rule allows that there is none.
pub(super) async fn receive(
    client: &OwnedFd,
    pending: &PendingGuard,
    rule: &HeaderRule,
    limit: Duration,
) -> Result<Option<Announced>, SessionEnd> {
    let found = match look(client) {
        Seen::Nothing => wait(client, pending, limit).await?,
        found => found,
    };
    rule.judge(found).map_err(SessionEnd::NoHeader)
}

impl HeaderRule {
    /// What follows from the first bytes of a client, which were waited for. `None`: there is no header, and none is needed.
    ///
    /// # Errors
    /// Why the connection ends.
    pub fn judge(&self, found: Seen) -> Result<Option<Announced>, HeaderFailure> {
        match found {
            Seen::Header(announced) => Ok(Some(announced)),
            // It has sent something else, or not enough.
            Seen::Failed(
                HeaderFailure::Refused(proxy::Problem::NotAHeader)
                | HeaderFailure::Empty
                | HeaderFailure::Truncated,
            )
            | Seen::Nothing
                if !self.is_required() =>
            {
                Ok(None)
            }
            Seen::Failed(failure) => Err(failure),
            Seen::Nothing => Err(HeaderFailure::TimedOut),
        }
    }
}

/// Looks again whenever something arrives.
async fn wait(
    client: &OwnedFd,
    pending: &PendingGuard,
    limit: Duration,
) -> Result<Seen, SessionEnd> {
    let failed = |_| SessionEnd::NoHeader(HeaderFailure::Aborted);
    let watched = Watched::new(&pending.worker.relay, client.as_fd()).map_err(failed)?;
    let mut timer = pin!(pending.worker.timers.sleep(limit));
    poll_fn(|context| {
        if let Poll::Ready(Event::End(cause)) = pending.poll(context) {
            let end = Termination::new(cause, Phase::Request);
            return Poll::Ready(Err(SessionEnd::Terminated(end)));
        }
        // Behind bytes that were only looked at, the end of the client cannot be read.
        while let Poll::Ready(has_ended) = watched.poll_readable(context) {
            watched.clear_readable();
            match look(client) {
                Seen::Nothing if has_ended => {
                    return Poll::Ready(Ok(Seen::Failed(HeaderFailure::Truncated)));
                }
                Seen::Nothing => {}
                found => return Poll::Ready(Ok(found)),
            }
        }
        timer.as_mut().poll(context).map(|()| Ok(Seen::Nothing))
    })
    .await
}

/// Looks at the first bytes of `client`, and takes the header if it is whole.
pub fn look(client: &impl AsFd) -> Seen {
    let mut few = [0; LOOK];
    match look_into(client, &mut few) {
        Ok(seen) => seen,
        // The header is longer.
        Err(length) => look_into(client, &mut vec![0; length]).unwrap_or(Seen::Nothing),
    }
}

/// The same, into `buffer`. The error is the length that a buffer must have.
fn look_into(client: &impl AsFd, buffer: &mut [u8]) -> Result<Seen, usize> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let count = match recv(client, &mut *buffer, flags) {
        Ok((_, 0)) => return Ok(Seen::Failed(HeaderFailure::Empty)),
        Ok((_, count)) => count.min(buffer.len()),
        Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(Seen::Nothing),
        Err(_) => return Ok(Seen::Failed(HeaderFailure::Aborted)),
    };
    let (header, length) = match proxy::parse(&buffer[..count]) {
        Parsed::NeedMore(least) if least > buffer.len() => return Err(least),
        Parsed::NeedMore(_) => return Ok(Seen::Nothing),
        Parsed::Refused(problem) => return Ok(Seen::Failed(HeaderFailure::Refused(problem))),
        Parsed::Done(header, length) => (header, length),
    };
    let announced = Announced {
        addresses: header.addresses,
        tlvs: header.tlvs.bytes().into(),
        namespace: None,
    };
    // These bytes are there, so they come at once.
    match recv(client, &mut buffer[..length], RecvFlags::DONTWAIT) {
        Ok((_, taken)) if taken == length => Ok(Seen::Header(announced)),
        _ => Ok(Seen::Failed(HeaderFailure::Aborted)),
    }
}
