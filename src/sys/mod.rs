//! Calls of the operating system. Usable from any thread; imports no other module of rlb.

pub mod abort;
pub mod accept;
pub mod channel;
pub mod getsocks;
pub mod haproxy_master;
pub mod identity;
pub mod launcher;
pub mod limits;
pub mod listen_fds;
pub mod namespace;
pub mod raw;
pub mod replaced;
pub mod reset;
pub mod service_manager;
pub mod socket;
pub mod users;
