//! The admin thread: the stats listener.
use std::sync::Arc;
/// x
pub struct H;
impl H {
    /// x
    pub fn stop(self) {}
}
/// x
pub fn spawn(
    _l: Vec<std::net::TcpListener>,
    _s: Arc<arc_swap::ArcSwap<crate::state::Snapshot>>,
    _p: Arc<crate::sys::limits::Spare>,
) -> std::io::Result<H> {
    Ok(H)
}
