//! What is decided: frontends, backends and servers with their specification and status, as one
//! immutable [`Snapshot`].
//!
//! Made by the control task alone (the one writer), read by every thread. Never holds file paths
//! to open or text to parse.

pub mod inbox;
pub mod server;
pub mod snapshot;
pub mod status;

pub use inbox::{ControlHandle, ToControl};
pub use server::Server;
pub use snapshot::{Backend, BackendId, Frontend, Snapshot};
pub use status::{AdminState, OperState, ServerStatus};
