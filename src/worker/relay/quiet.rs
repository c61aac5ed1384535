//! The moment at which a session may end without harm: nobody may wait for an answer, nothing is to be delivered, and no
//! byte has come for a while. Pure but for [`has_unread`].

use super::conn::{Conn, SideState};

/// After so long without a byte a session is quiet, ms.
pub(super) const QUIET_MS: u64 = 1_000;

/// Since when the session is quiet, or from when on if nothing moves until then, ms of the engine's clock. `None`: not
/// before something else happens to it.
pub(super) fn quiet_from(conn: &Conn) -> Option<u64> {
    let owes = |side: &SideState| side.has_pending() || side.ended;
    if conn.client_spoke || conn.draining().is_some() || conn.sides.iter().any(owes) {
        return None;
    }
    let quiet = conn.sides.iter().map(|side| side.active + QUIET_MS);
    quiet.max()
}

/// Whether the kernel has bytes of either side that were not read yet: a request that has just come.
pub(super) fn has_unread(conn: &Conn) -> bool {
    // A socket that cannot be asked is gone, which an event tells.
    let unread = |side: &SideState| rustix::io::ioctl_fionread(&side.fd).map_or(true, |it| it > 0);
    conn.sides.iter().any(unread)
}
