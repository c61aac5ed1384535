//! What is decided: frontends, backends and servers with their specification and status, as one
//! immutable [`Snapshot`].
//!
//! Made by the control task alone (the one writer), read by every thread. Never holds file paths
//! to open or text to parse.

pub mod draft;
pub mod inbox;
pub mod remembered;
pub mod server;
pub mod snapshot;
pub mod status;
pub mod succession;

pub use draft::{BackendChange, Draft, Usable};
pub use inbox::{ControlHandle, ToControl, Wish};
pub use remembered::Remembered;
pub use server::{Endpoint, Server};
pub use snapshot::{Backend, BackendId, Frontend, FrontendId, Origin, Snapshot};
pub use status::{AdminState, Forced, OperState, Rules, ServerStatus};
pub use succession::Heir;

#[cfg(test)]
pub(crate) mod test_config;
