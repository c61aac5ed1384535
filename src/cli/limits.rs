//! What this machine can do, for the checks of a configuration.
//!
//! Read once by a sub-command before it loads a file; `config` itself never asks the system.

use crate::config::Limits;
use rustix::process::{Resource, getrlimit};

/// Reads the descriptor limit, `net.core.somaxconn` and the number of cores.
pub(super) fn of_this_machine() -> Limits {
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    Limits {
        // No limit at all is a limit that no configuration can exceed.
        nofile: Some(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)),
        somaxconn: somaxconn.and_then(|text| text.trim().parse().ok()),
        ..Limits::unknown()
    }
}
