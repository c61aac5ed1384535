//! What the integration tests stand on: the real binary, scripted peers, clients, a laboratory of
//! network namespaces. Every wait is a wait for a condition and lives in [`eventually`].

pub mod client;
pub mod config;
pub mod csv;
pub mod eventually;
pub mod netns;
pub mod peer;
pub mod process;
pub mod rlb;
pub mod syslog;
