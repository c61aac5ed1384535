//! rlb, a TCP (layer 4) load balancer. This file is the map; ARCHITECTURE.md is the guide.
//!
//! A module imports only from those above it (checked by `tests/tidy.rs`), and its folder tells
//! which thread runs it.

#[cfg(not(target_os = "linux"))]
compile_error!("rlb stands on epoll, splice and TCP_INFO: Linux only");

// Plain data and code, usable from any thread.
pub mod balance;
pub mod config;
pub mod live;
pub mod state;
pub mod sys;

// Each on a thread of its own.
pub mod admin;
pub mod check;
pub mod control;
pub mod log;
pub mod stats;
pub mod worker;

// The program around them.
pub mod app;
pub mod cli;
pub mod demo;
