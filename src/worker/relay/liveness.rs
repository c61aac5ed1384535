//! Whether a session goes on: idle timeouts, its age, and peers that have vanished.
//!
//! TCP keepalive finds a vanished peer that is idle or that only sends. It does not find one that is being
//! written to: keepalive does not run while data is in flight, and `TCP_USER_TIMEOUT` would also end the
//! connection to a live peer that does not read (window closed, probes answered). So for unacknowledged data
//! `TCP_INFO` decides: a peer is gone when nothing was acknowledged for [`SILENCE_MAX_MS`] and the kernel has
//! asked several times.

use super::age::Ages;
use super::conn::{Conn, Kind, Side, SideState};
use crate::config::model::Keepalive;
use crate::sys::raw::{self, TcpInfo};
use crate::sys::socket::keepalive;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::time::Duration;

/// After this silence a peer that data is being sent to is given up, ms. Longer than a network split of 12 s
/// and the longest pause between retransmissions after it. With the delay of a check it stays below the 35 s
/// that rlb promises.
const SILENCE_MAX_MS: u64 = 30_000;

/// Unanswered retransmissions or probes that are needed, too, before a silent peer is given up: the kernel must
/// have asked.
const UNANSWERED_MIN: u8 = 2;

/// Shortest pause between two checks of one side, ms.
const LOOK_AGAIN_MS: u64 = 2_000;

/// Age at which a session gets keepalive towards its server. Most sessions are over before, and save the cost.
const KEEPALIVE_AFTER_MS: u64 = 4_000;

/// Longest pause between two window probes to a peer that does not read: it bounds how long its death goes
/// unnoticed.
const PROBE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// The result of checking a session.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It goes on; check it again at this time (ms of the engine's clock).
    Next(u64),
    /// This side was silent for too long.
    Idle(Side),
    /// It is too old, and at a quiet moment, or so old that it ends without one.
    Old {
        /// It is at a quiet moment.
        is_quiet: bool,
    },
    /// The peer on this side has vanished; the other side is reset.
    Vanished(Side, io::Error),
}

/// Checks a session at `now`, ms of the engine's clock. `age` is the session's, in ms.
pub(super) fn look(conn: &mut Conn, age: u64, now: u64) -> Verdict {
    for side in Side::BOTH {
        if idle_deadline(conn, side).is_some_and(|deadline| now >= deadline) {
            return Verdict::Idle(side);
        }
    }
    if let Some(ages) = Ages::of(conn)
        && now >= ages.end(conn, now)
    {
        let is_quiet = now < ages.latest(now);
        return Verdict::Old { is_quiet };
    }
    if age >= KEEPALIVE_AFTER_MS {
        keep_server_alive(conn);
    }
    for side in Side::BOTH {
        if let Some(error) = check_acks(conn.side_mut(side), now) {
            return Verdict::Vanished(side, error);
        }
    }
    Verdict::Next(next_look(conn, age, now))
}

/// When the session is to be checked next.
pub(super) fn next_look(conn: &Conn, age: u64, now: u64) -> u64 {
    let idle = Side::BOTH
        .into_iter()
        .filter_map(|side| idle_deadline(conn, side))
        .min();
    let unacked = conn
        .sides
        .iter()
        .filter_map(|side| side.unacked_since)
        .min()
        .map(NonZeroU64::get);
    let keepalive =
        (!conn.side(Side::Server).kept_alive).then(|| now + KEEPALIVE_AFTER_MS.saturating_sub(age));
    let next = [
        idle,
        unacked.map(|since| (since + SILENCE_MAX_MS).max(now + 1)),
        keepalive,
    ]
    .into_iter()
    .flatten()
    .min()
    .unwrap_or(u64::MAX);
    // Not in the list: its cost there is every session's.
    match Ages::of(conn) {
        None => next,
        Some(ages) => next.min(ages.end(conn, now)),
    }
}

/// When bytes that were written at `since` and not acknowledged are checked.
pub(super) fn ack_due(since: u64) -> u64 {
    since + SILENCE_MAX_MS
}

/// When the silence of a side ends the session, ms of the engine's clock. `None`: it does not, as things are
/// now.
pub(super) fn idle_deadline(conn: &Conn, side: Side) -> Option<u64> {
    if !conn.is_timed(side) {
        return None;
    }
    conn.side(side).active.checked_add(conn.idle_timeout(side)?)
}

fn keep_server_alive(conn: &mut Conn) {
    let wanted = conn.stats.backend.as_ref().and_then(|on| on.spec.keepalive);
    let side = conn.side_mut(Side::Server);
    if side.kept_alive {
        return;
    }
    side.kept_alive = true;
    if let Some(Keepalive {
        idle,
        interval,
        probes,
    }) = wanted
    {
        // Fails only when the socket is gone, which an event tells.
        let _ =
            socket2::SockRef::from(&side.fd).set_tcp_keepalive(&keepalive(idle, interval, probes));
    }
}

/// Checks whether a side still acknowledges. The error with which it is given up, if it is.
fn check_acks(side: &mut SideState, now: u64) -> Option<io::Error> {
    let since = side.unacked_since?.get();
    if side.kind != Kind::Tcp || now < since + SILENCE_MAX_MS {
        return None;
    }
    // When its state cannot be read, the socket is gone; an event tells why.
    let info = raw::tcp_info(side.fd.as_fd()).ok()?;
    match assess(&info, now - since) {
        AckState::Arrived => side.unacked_since = None,
        AckState::Silent(silence) => {
            let next =
                (now + SILENCE_MAX_MS - silence.min(SILENCE_MAX_MS)).max(now + LOOK_AGAIN_MS);
            side.unacked_since = NonZeroU64::new(next - SILENCE_MAX_MS);
            if info.unacked == 0 {
                // Not supported before Linux 6.15, where the kernel's own pauses stay.
                let _ = raw::set_rto_max(side.fd.as_fd(), PROBE_PAUSE_MAX);
            }
        }
        AckState::Vanished => return Some(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
    }
    None
}

#[derive(Debug, PartialEq, Eq)]
enum AckState {
    /// All that was written was acknowledged.
    Arrived,
    /// Something is unacknowledged; nothing was acknowledged for this many ms.
    Silent(u64),
    /// The peer is gone.
    Vanished,
}

/// Decides from what the kernel knows. `waited`: ms since the first unacknowledged write.
fn assess(info: &TcpInfo, waited: u64) -> AckState {
    if info.unacked == 0 && info.notsent_bytes == 0 {
        return AckState::Arrived;
    }
    let last_ack = u64::try_from(info.last_ack_recv.as_millis()).unwrap_or(u64::MAX);
    let silence = last_ack.min(waited);
    let unanswered = info.retransmits.max(info.probes);
    if silence >= SILENCE_MAX_MS && unanswered >= UNANSWERED_MIN {
        AckState::Vanished
    } else {
        AckState::Silent(silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(unacked: u32, notsent: u32, last_ack_s: u64, asked: (u8, u8)) -> TcpInfo {
        TcpInfo {
            unacked,
            notsent_bytes: notsent,
            last_ack_recv: Duration::from_secs(last_ack_s),
            retransmits: asked.0,
            probes: asked.1,
        }
    }

    #[test]
    fn acknowledged_data_is_proof_whatever_the_silence() {
        assert_eq!(assess(&info(0, 0, 3600, (0, 0)), 40_000), AckState::Arrived);
    }

    #[test]
    fn unanswered_retransmissions_give_a_peer_up_after_the_silence_and_not_before() {
        assert_eq!(assess(&info(3, 0, 31, (7, 0)), 31_000), AckState::Vanished);
        assert_eq!(
            assess(&info(3, 0, 12, (5, 0)), 31_000),
            AckState::Silent(12_000)
        );
    }

    #[test]
    fn a_first_write_after_an_idle_hour_does_not_count_the_hour() {
        assert_eq!(
            assess(&info(1, 0, 3600, (2, 0)), 500),
            AckState::Silent(500)
        );
    }

    #[test]
    fn a_live_peer_that_does_not_read_is_kept_as_long_as_it_answers_probes() {
        // Between two probes that are a minute apart the last ACK is old, but none is missing.
        assert_eq!(
            assess(&info(0, 100_000, 59, (0, 0)), 120_000),
            AckState::Silent(59_000)
        );
        assert_eq!(
            assess(&info(0, 100_000, 59, (0, 1)), 120_000),
            AckState::Silent(59_000)
        );
        assert_eq!(
            assess(&info(0, 100_000, 59, (0, 3)), 120_000),
            AckState::Vanished
        );
    }
}
