//! The operating system, small and boring. Usable from any thread; sees nothing of ours.

pub mod abort;
pub mod channel;
pub mod limits;
pub mod listen_fds;
pub mod raw;
pub mod service_manager;
pub mod socket;
