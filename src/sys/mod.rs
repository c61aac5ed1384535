//! The operating system, small and boring. Usable from any thread; sees nothing of ours.

pub mod abort;
pub mod limits;
pub mod raw;
pub mod socket;
