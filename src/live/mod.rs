//! Counters: gauges, counters, rates, and the guards of gauges.
//!
//! Everything here survives a reload for as long as the name of its frontend, backend or server does. There are
//! two kinds of number, never mixed:
//!
//! - **Gauges decide** (maxconn, and how many sessions a server has). They are shared and exact, and change
//!   only in the constructor and drop of a guard ([`slot`], [`queue`]), so that they stay right after a panic, a kill and
//!   an early return.
//! - **Counters only inform.** Each worker writes its own shard with plain stores ([`sharded`]); readers add
//!   the shards up. No decision depends on a counter, but for [`retry_budget`], which needs no exact number.

pub mod accept_rate;
pub mod check_report;
pub mod connect_time;
pub mod counters;
mod failed_connects;
pub mod failures;
pub mod gauge;
pub mod load;
pub mod load_order;
pub mod log_queue;
pub mod objects;
pub mod old_processes;
pub mod pulse;
pub mod rate;
pub mod record;
pub mod reloads;
pub mod retry_budget;
pub mod server_socket;
pub mod sharded;
pub mod slot;
pub mod source;
pub mod source_failures;
mod sync;
pub mod termination;
pub mod timing;

pub use check_report::{CheckReport, CheckStatus, LastCheck};
pub use counters::Traffic;
pub use failures::{FailureCause, ServerName, ShortageStep};
pub use gauge::Gauge;
pub use load::Load;
pub use load_order::LoadOrder;
pub use log_queue::{LogEntry, LogQueue, LogSender, log_queue};
pub use objects::queue;
pub use objects::{BackendLive, FrontendLive, GlobalLive, GlobalTraffic, PIPES_MAX, ServerLive};
pub use old_processes::OldProcess;
pub use record::{EmbryonicRecord, SessionRecord};
pub use reloads::{LastReload, ReloadEnd, Reloads};
pub use retry_budget::RetryBudget;
pub use sharded::{Counter, Shards, WorkerToken};
pub use termination::{Cause, EndCounters, HeaderFailure, Phase, Termination};
