//! The limits of this machine, against which a configuration is checked.
//!
//! A sub-command reads them once before it loads a file; `config` itself reads nothing from the system.

use crate::config::Limits;
use rustix::process::{Resource, getrlimit};

/// Reads the descriptor limit, `net.core.somaxconn` and the number of cores.
pub(super) fn of_this_machine() -> Limits {
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    Limits {
        // No limit is a limit that no configuration can exceed.
        nofile: Some(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)),
        somaxconn: somaxconn.and_then(|text| text.trim().parse().ok()),
        net_admin: crate::sys::limits::has_net_admin(),
        ..Limits::unknown()
    }
}
