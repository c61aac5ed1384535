//! How many file descriptors a configuration needs, and how many sessions fit into the limit. Pure: the limit
//! is an argument.
//!
//! Everything except sessions is counted first: threads, listening sockets, log files, health checks, the
//! statistics, and what is kept back. Pipes get an eighth of the limit at most.

use super::model::Config;

/// Descriptors that a session holds: one to the client, one to the server.
pub const SESSION_DESCRIPTORS: u64 = 2;

/// Most descriptors that are kept back from sessions when less is counted.
pub const RESERVED_DESCRIPTORS_MAX: u64 = 512;

/// Most pipes of one worker; each has two descriptors.
pub const PIPES_MAX: u32 = 16;

/// For the process: the three standard streams, the runtimes of the control, the admin and the checks thread, events, the
/// service manager, watched files, lookups of names, and files that a reload reads.
const PROCESS: u64 = 32;

/// Connections that a worker accepts, at most, while no slot is free.
pub const IN_HAND_MAX: u32 = 2;

/// For a worker thread, without its listening sockets: epoll instances, signals, wake-ups, a spare one,
/// connections that wait for a slot.
const WORKER: u64 = 8 + IN_HAND_MAX as u64;

/// For a log target: the file, and the file that replaces it after a rotation.
const LOG_TARGET: u64 = 2;

/// Kept back for health checks and the statistics (`sys::limits::RESERVE_MAX`).
const RESERVE: u64 = 16;

/// Clients of the statistics and of the runtime socket that descriptors are counted for.
const ADMIN_CLIENTS: u64 = 16;

/// Clients of the runtime sockets that are among them.
const API_CLIENTS: u64 = 10;

/// Health checks that may run at once under any limit.
const CHECKS_MIN: u64 = 16;

/// What fits into a descriptor limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Most sessions.
    pub maxconn: u32,
    /// Pipes of each worker.
    pub pipes: u32,
}

/// A descriptor limit that is too low for a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit of {nofile} file descriptors is too low: this configuration needs {needed} before \
     its first session (raise LimitNOFILE of the service, or use fewer `threads` or binds)"
)]
pub struct TooFewDescriptors {
    /// The limit.
    pub nofile: u64,
    /// Descriptors that are needed without sessions.
    pub needed: u64,
}

/// Health checks that may run at once under a limit of `nofile` descriptors.
pub fn checks_at_once(nofile: u64) -> u64 {
    (nofile / 4).max(CHECKS_MIN)
}

/// Descriptors that sessions never get under a limit of `nofile`, even when less is counted: a quarter of it,
/// at most [`RESERVED_DESCRIPTORS_MAX`].
pub fn reserved_descriptors(nofile: u64) -> u64 {
    (nofile / 4).min(RESERVED_DESCRIPTORS_MAX)
}

/// How many sessions and pipes of `config` fit into a limit of `nofile` descriptors.
///
/// # Errors
/// When not even one session fits.
pub fn capacity(config: &Config, nofile: u64) -> Result<Capacity, TooFewDescriptors> {
    let needed = needed(config, nofile);
    let maxconn = sessions(nofile, needed);
    if maxconn == 0 {
        return Err(TooFewDescriptors { nofile, needed });
    }
    Ok(Capacity {
        maxconn,
        pipes: pipes(config, nofile),
    })
}

/// Descriptors that are needed without sessions.
pub fn needed(config: &Config, nofile: u64) -> u64 {
    let pipes = u64::from(pipes(config, nofile)) * config.global.threads as u64;
    (counted(config, nofile) + 2 * pipes).max(reserved_descriptors(nofile))
}

/// Pipes of each worker.
fn pipes(config: &Config, nofile: u64) -> u32 {
    let share = nofile / 8 / (2 * config.global.threads as u64).max(1);
    u32::try_from(share).map_or(PIPES_MAX, |share| share.min(PIPES_MAX))
}

/// Descriptors that are needed without sessions and pipes.
fn counted(config: &Config, nofile: u64) -> u64 {
    let threads = config.global.threads as u64;
    let open = config.frontends.iter().filter(|it| !it.disabled);
    let binds: usize = open.map(|it| it.binds.len()).sum();
    let stats = config.stats.as_ref().map_or(0, |stats| stats.binds.len());
    let runtime = config.runtime_api.as_ref();
    let clients = runtime.map_or(0, |api| u64::from(api.maxconn).saturating_sub(API_CLIENTS));
    let runtime = runtime.map_or(0, |api| api.sockets.len());
    let servers = config.backends.iter().flat_map(|it| &it.servers);
    let checks = servers.filter(|server| server.check.is_some()).count() as u64;
    let logs = config.log.targets.len() as u64;
    PROCESS
        + WORKER * threads
        + binds as u64 * threads
        + (stats + runtime) as u64
        + LOG_TARGET * logs
        + checks.min(checks_at_once(nofile))
        + ADMIN_CLIENTS
        + clients
        + RESERVE
}

fn sessions(nofile: u64, other: u64) -> u32 {
    let left = nofile.saturating_sub(other) / SESSION_DESCRIPTORS;
    u32::try_from(left).unwrap_or(u32::MAX)
}
