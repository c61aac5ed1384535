//! rlb, a TCP (layer 4) load balancer. ARCHITECTURE.md describes its modules and their order.
//!
//! The folder of a module determines the thread that runs it. `tests/tidy.rs` checks which modules one may
//! import.
//! `convert` is beside the layers: it sees `config` alone.

#[cfg(not(target_os = "linux"))]
compile_error!("rlb needs epoll, splice and TCP_INFO: Linux only");

// Plain data and code, usable from any thread.
pub mod balance;
pub mod config;
pub mod live;
pub mod proto;
pub mod state;
pub mod sys;

// Code of one thread each.
pub mod admin;
pub mod check;
pub mod control;
pub mod log;
pub mod stats;
pub mod worker;

// The program.
pub mod app;
pub mod cli;
pub mod convert;
pub mod demo;
