//! How often a source address could not be used, and why. Written on failures only, by workers and by the control thread.

use crate::sys::limits::SourceRefused;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Why an address could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceFailure {
    /// All its ports are in use towards a server.
    UsedUp,
    /// It is not an address of this machine, or this process may not use it.
    Refused,
}

impl SourceFailure {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::UsedUp, Self::Refused];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::UsedUp => "used_up",
            Self::Refused => "refused",
        }
    }

    /// What `error` says of the address; `None`: it is of the server, or of another shortage.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE | libc::EAGAIN) => Some(Self::UsedUp),
            Some(_) => None,
            None => refusal(error).map(|_| Self::Refused),
        }
    }
}

pub(super) fn refusal(error: &io::Error) -> Option<&SourceRefused> {
    error.get_ref()?.downcast_ref()
}

/// How often each address could not be used. Written on failures only.
#[derive(Debug, Default)]
pub struct SourceFailures(Mutex<BTreeMap<(Option<IpAddr>, SourceFailure), u64>>);

impl SourceFailures {
    /// How often `address` had this failure; `None`: the one that the system chooses.
    pub fn of(&self, address: Option<IpAddr>, failure: SourceFailure) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&(address, failure)).copied().unwrap_or(0)
    }

    pub(super) fn count(&self, address: Option<IpAddr>, failure: SourceFailure) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((address, failure)).or_default() += 1;
    }
}
