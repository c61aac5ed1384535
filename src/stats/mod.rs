//! Statistics: one table of columns ([`columns`]), rows over a snapshot ([`rows`]), and encoders.
//!
//! Runs on the admin thread. Reads the snapshot and what is counted, changes neither, and never
//! holds more than one row's text at a time: ten thousand servers are ten thousand short turns.

pub mod columns;
pub mod csv;
pub mod requests;
pub mod rows;

#[cfg(test)]
pub(crate) mod test_snapshot;

pub use csv::Csv;
pub use requests::Requests;
pub use rows::{Row, Rows};
