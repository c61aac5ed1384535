//! The basis of the integration tests: the real binary, scripted peers, clients, network namespaces. Every wait
//! is for a condition and is in [`eventually`].

#![allow(clippy::print_stderr, reason = "a test says why it fails")]

pub(crate) mod beside;
pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod csv;
pub(crate) mod eventually;
pub(crate) mod load;
pub(crate) mod needs;
pub(crate) mod netns;
pub(crate) mod peer;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod program_file;
pub(crate) mod rlb;
pub(crate) mod runtime;
pub(crate) mod stalls;
pub(crate) mod syslog;
pub(crate) mod terminal;
pub(crate) mod webdriver;
