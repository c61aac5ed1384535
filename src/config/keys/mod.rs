//! Every key of the configuration, declared once.
//!
//! A declaration has a key's name, type, bounds, default, inheritance, documentation, HAProxy's name for it and
//! the effect of a reload ([`Key`](crate::config::key::Key)). From it are made: the struct that reads the file,
//! the JSON schema and the manual page, the values for `validate`, the field of the model, the comparison of
//! two configurations, and the hints about unknown keys. Tests check that `config/reference.toml` and
//! docs/configuration.md have every key.
//!
//! Plain data and code, usable from any thread. `declare` has the macro and explains the declarations, `kinds`
//! has the types of values.

mod bind;
mod check;
mod check_tls;
mod check_values;
mod declare;
mod file;
mod kinds;
mod process;
mod proxy;
mod server;
mod source;
mod step;
mod tlvs;

pub use bind::{BACKLOG_MAX, BindTable, Binds, MSS_BOUNDS};
pub use check::{CheckSetting, CheckTable, RISE_FALL_MAX};
pub use declare::{Listed, Table};
pub use file::{File, NodeGroup};
pub use kinds::{Kind, Plain};
pub use process::{
    API_MAXCONN_MAX, FurtherPageTable, GlobalTable, LogTable, LogTargetTable, ReadinessTable,
    RuntimeApiTable, RuntimeSocketTable, StatsPageKeys, StatsTable, THREADS_MAX,
};
pub use proxy::{
    BackendKeys, BackendTable, ClientTimeouts, DRAWS_MAX, DefaultsTable, FACTOR_MAX, FrontendKeys,
    FrontendTable, KeepaliveSetting, KeepaliveTable, ListenTable, ListenerKeys, ProxyKeys, RETRIES,
    RETRIES_MAX, ServerTimeouts, ServersKeys, TimeoutTable,
};
pub use server::{ERROR_LIMIT_MAX, NodeTable, ServerKeys, ServerTable, WEIGHT_MAX};
pub use source::{SourceSetting, SourceTable};
use std::sync::LazyLock;
pub use step::StepTable;

pub(super) use bind::BindLayer;
pub(super) use check::{CHECK_INTERVAL, CHECK_TIMEOUT, CheckLayer};
pub(super) use kinds::prime_from;
pub(super) use process::{
    GlobalLayer, LogLayer, LogTargetLayer, ReadinessLayer, RuntimeApiLayer, RuntimeSocketLayer,
    StatsLayer, StatsPageLayer,
};
pub(super) use proxy::{
    BackendLayer, CLIENT_HS, CONNECT, CONNECT_ATTEMPT, ClientTimeoutLayer, FrontendLayer, IDLE,
    KeepaliveLayer, ListenerLayer, ProxyLayer, ServerTimeoutLayer, ServersLayer, TABLE_MAX,
};
pub(super) use server::{
    FLAP_WINDOW, HOLD_DOWN_MAX, NOWHERE, NodeOwnLayer, ServerLayer, ServerOwnLayer,
};

/// The structs of the model.
pub(super) mod meant {
    pub use super::bind::Bind;
    pub use super::check::Check;
    pub use super::process::{
        FurtherPage, Global, Log, LogTarget, Readiness, RuntimeApi, RuntimeSocket, Stats, StatsPage,
    };
    pub use super::proxy::{Backend, Frontend, Keepalive};
    pub use super::server::Server;
}

/// A table of the file, and the keys that it may have.
#[derive(Debug, Clone)]
pub struct TableKeys {
    /// Name of its definition in the JSON schema.
    pub schema: &'static str,
    /// Its name in messages and documents: `[global]`, `a server`.
    pub place: &'static str,
    /// Its keys, those of its groups included.
    pub keys: Vec<Listed>,
}

/// Every table of the file, those at the top first. A hint about a key names the tables with that key in this
/// order.
pub fn tables() -> &'static [TableKeys] {
    /// They are the same for the life of the process.
    static TABLES: LazyLock<Vec<TableKeys>> = LazyLock::new(all_tables);
    &TABLES
}

fn all_tables() -> Vec<TableKeys> {
    fn of<T: Table>() -> TableKeys {
        let mut keys = Vec::new();
        T::list(&mut keys, "");
        TableKeys {
            schema: T::SCHEMA,
            place: T::PLACE,
            keys,
        }
    }
    vec![
        of::<GlobalTable>(),
        of::<LogTable>(),
        of::<LogTargetTable>(),
        of::<StatsTable>(),
        of::<FurtherPageTable>(),
        of::<ReadinessTable>(),
        of::<RuntimeApiTable>(),
        of::<RuntimeSocketTable>(),
        of::<FrontendTable>(),
        of::<BackendTable>(),
        of::<ListenTable>(),
        of::<DefaultsTable>(),
        of::<ServerTable>(),
        of::<BindTable>(),
        of::<CheckTable>(),
        of::<StepTable>(),
        of::<TimeoutTable>(),
        of::<KeepaliveTable>(),
        of::<SourceTable>(),
        of::<ServerKeys>(),
        of::<NodeTable>(),
        of::<ClientTimeouts>(),
        of::<ServerTimeouts>(),
    ]
}
