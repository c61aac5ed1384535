//! Statistics: one table of columns ([`columns`]), rows of a snapshot ([`rows`]), one table of the process's
//! items ([`info`]), and encoders: [`table`], [`page`], [`metrics`].
//!
//! Runs on the admin thread. Reads the snapshot and the counters and changes neither. Holds no more than one
//! chunk of text at a time, so that ten thousand servers take many short turns.

pub mod columns;
mod csv;
pub mod filter;
pub mod info;
mod json;
pub mod metrics;
pub mod page;
pub mod process;
pub mod requests;
pub mod row;
pub mod rows;
pub mod servers_conn;
pub mod servers_state;
pub mod table;
mod typed;

#[cfg(test)]
pub(crate) mod test_snapshot;

pub use filter::Filter;
pub use info::Facts;
pub use json::schema;
pub use metrics::Metrics;
pub use page::Page;
pub use process::{Phase, Process, Sampler};
pub use requests::Requests;
pub use row::Row;
pub use rows::Rows;
pub use table::{Format, Table};
