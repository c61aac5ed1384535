//! The validated configuration, with all defaults and references resolved.
//!
//! [`crate::config::load`] makes it, everyone reads it, nobody changes it. It has no sockets, atomics or shared
//! counters; those are in `state` and `live`. Two values are equal exactly when they mean the same, which the
//! comparison of a reload depends on. The tables are declared in [`crate::config::keys`] together with their
//! keys.

pub use super::address::Network;
pub use super::format::Format;
pub use super::hash_on::{HashOn, Sample};
pub use super::keys::meant::{
    Backend, Bind, Check, Frontend, FurtherPage, Global, Keepalive, Log, LogTarget, Readiness,
    RuntimeApi, RuntimeSocket, Server, Stats, StatsPage,
};
pub use super::script::Script;
pub use super::state_files::StateFiles;
pub use super::values::{
    AcceptProxy, ApiLevel, BackendIndex, Balance, BindAddress, CheckKind, Credentials, Facility,
    HashFunction, HashKey, HashType, HoldDown, InitState, LogFormat, LogSink, NoServer, OnError,
    PageAdmin, PreserveAffinity, ProxyId, ProxyV2Options, SendProxy, ServerAddress, ServerPort,
    ServerSocket, Severity, Source, SourceAddress, StatesFrom, UseSrc,
};

/// A whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[global]`.
    pub global: Global,
    /// `[log]`.
    pub log: Log,
    /// `[runtime-api]`; `None` without the table: no socket for commands.
    pub runtime_api: Option<RuntimeApi>,
    /// `[stats]`; `None` without the table: no stats listener.
    pub stats: Option<Stats>,
    /// Frontends, and the frontend halves of `[[listen]]`, in file order.
    pub frontends: Vec<Frontend>,
    /// Backends, and the backend halves of `[[listen]]`, in file order.
    pub backends: Vec<Backend>,
}
