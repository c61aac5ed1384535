//! What was decided: frontends, backends and servers with their specification and status, as one immutable
//! [`Snapshot`].
//!
//! Only the control task makes snapshots; every thread reads them. They hold no paths of files to open and no
//! text to parse.

pub mod builder;
pub mod carry_over;
pub mod clear;
pub mod dynamic;
pub mod ids;
pub mod inbox;
pub mod overrides;
pub mod runtime_state;
pub mod server;
pub mod server_state;
pub mod snapshot;
mod standing;
pub mod status;

pub use builder::{BackendChange, SnapshotBuilder};
pub use carry_over::CarryOver;
pub use ids::{BackendId, FrontendId};
pub use inbox::{AdminRequest, ControlHandle, Interface, RuntimeChange, ToControl};
pub use runtime_state::RuntimeState;
pub use server::{Endpoint, Server, Usable};
pub use server_state::ServerState;
pub use snapshot::{
    Api, ApiAccess, Backend, Frontend, FrontendState, Origin, RateLimits, Route, Snapshot,
};
pub use status::{AdminState, Flaps, Forced, OperState, Rules, SHARES, ServerStatus};

#[cfg(test)]
pub(crate) mod test_config;
