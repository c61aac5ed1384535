//! The tables at the top of the file.

use super::check::CheckTable;
use super::declare::prelude::*;
use super::kinds::Raw;
use super::process::{GlobalTable, LogTable, ReadinessTable, RuntimeApiTable, StatsTable};
use super::proxy::{BackendTable, DefaultsTable, FrontendTable, ListenTable};
use super::server::NodeTable;
use crate::config::shapes::{Located, Maybe, OneOrMany, Short};
use std::collections::BTreeMap;

/// Servers of a node group: name to host, or to a table.
pub type NodeGroup = BTreeMap<Located<String>, Located<Short<String, NodeTable>>>;

keys! {
    /// An rlb configuration file.
    table File, "rlb.toml", "the file";
    raw {
        /// Further files to read: a path or a pattern, or a list of them, relative to this file:
        /// `"conf.d/*.toml"`. Read after this file, each pattern in the order of the names.
        include: Raw<Option<OneOrMany<String>>> = "none", kind: "string or list";
        /// The process.
        global: Raw<Maybe<GlobalTable>> = "", haproxy: &["global"];
        /// Where lines in HAProxy's log format go. Without this table no session is logged.
        log: Raw<Maybe<LogTable>> = "", haproxy: &["log"];
        /// The statistics listener. Without this table there is none.
        stats: Raw<Maybe<StatsTable>> = "", haproxy: &["stats enable"];
        /// When this machine should receive traffic. Without this table: while it runs.
        readiness: Raw<Maybe<ReadinessTable>> = "";
        /// The sockets for commands. Without this table there is none.
        runtime_api: Raw<Maybe<RuntimeApiTable>> = "", haproxy: &["stats socket"];
        /// What every frontend and backend inherits, in included files too.
        defaults: Raw<Maybe<DefaultsTable>> = "", haproxy: &["defaults"];
        /// Named sets of hosts, so that several backends can use the same: [node-group.NAME] with
        /// lines server-name = `"host"`.
        node_group: Raw<BTreeMap<Located<String>, Located<NodeGroup>>> = "";
        /// Named checks, so that several backends can use the same: [check.NAME] with the keys of a check table.
        check: Raw<BTreeMap<Located<String>, Located<CheckTable>>> = "";
        /// Where clients connect to.
        frontend: Raw<Vec<Located<FrontendTable>>> = "", haproxy: &["frontend"];
        /// Servers, and how one is chosen.
        backend: Raw<Vec<Located<BackendTable>>> = "", haproxy: &["backend"];
        /// A frontend and its backend in one.
        listen: Raw<Vec<Located<ListenTable>>> = "", haproxy: &["listen"];
    }
}
