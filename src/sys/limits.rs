//! The descriptor limit, and descriptors that are kept back.

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Descriptors that a [`DescriptorReserve`] holds: enough for the stats connections that are accepted and the
/// checks that are started in one turn of their loops.
pub const RESERVE_MAX: usize = 16;

/// Raises the soft descriptor limit to the hard one and returns it.
///
/// # Errors
/// When the kernel refuses; it does so only if the hard limit was lowered meanwhile.
pub fn raise_nofile() -> io::Result<u32> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        )?;
    }
    Ok(nofile())
}

/// Whether this process has `CAP_NET_ADMIN` or `CAP_NET_RAW`: either lets it use addresses of others. `true` when that
/// cannot be told.
pub fn has_net_admin() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    let own = capabilities(None);
    let either = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
    own.map_or(true, |own| own.effective.intersects(either))
}

/// The current soft descriptor limit.
pub fn nofile() -> u32 {
    getrlimit(Resource::Nofile)
        .current
        .map_or(u32::MAX, |limit| u32::try_from(limit).unwrap_or(u32::MAX))
}

/// What this process or machine ran short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// All source ports towards an address are in use, or this machine has no source address for
    /// it.
    SourcePorts,
    /// The process has reached its descriptor limit.
    Descriptors,
    /// The machine has reached its limit of open files.
    OpenFiles,
    /// Memory, or network buffers.
    Memory,
    /// `fs.epoll.max_user_watches` is reached.
    EpollWatches,
    /// The configured source address, its device or the client's address cannot be used.
    SourceAddress,
    /// The socket cannot be opened as it is configured: in a network namespace, or for MPTCP.
    Socket,
}

/// Why a socket cannot be opened as it is configured.
#[derive(Debug)]
pub struct RefusedSocket {
    /// What was tried, in words: `enter the namespace blue`.
    pub what: String,
    /// The system's error.
    pub error: io::Error,
}

impl std::fmt::Display for RefusedSocket {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "cannot {}: {}", self.what, self.error)
    }
}

impl std::error::Error for RefusedSocket {}

/// Why a source address cannot be used: no fault of the server's.
#[derive(Debug)]
pub struct SourceRefused {
    /// What was tried, in words: `bind to 10.0.0.5`.
    pub step: String,
    /// The system's error.
    pub error: io::Error,
}

impl std::fmt::Display for SourceRefused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "cannot {}: {}", self.step, self.error)
    }
}

impl std::error::Error for SourceRefused {}

impl Shortage {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 7] = [
        Self::SourcePorts,
        Self::Descriptors,
        Self::OpenFiles,
        Self::Memory,
        Self::EpollWatches,
        Self::SourceAddress,
        Self::Socket,
    ];

    /// The shortage that `error` reports, if it reports one.
    pub fn of(error: &io::Error) -> Option<Self> {
        let Some(code) = error.raw_os_error() else {
            let inner = error.get_ref()?;
            if inner.is::<SourceRefused>() {
                return Some(Self::SourceAddress);
            }
            return inner.is::<RefusedSocket>().then_some(Self::Socket);
        };
        match code {
            // connect(2) returns either of them.
            libc::EADDRNOTAVAIL | libc::EAGAIN => Some(Self::SourcePorts),
            libc::EMFILE => Some(Self::Descriptors),
            libc::ENFILE => Some(Self::OpenFiles),
            libc::ENOBUFS | libc::ENOMEM => Some(Self::Memory),
            libc::ENOSPC => Some(Self::EpollWatches),
            _ => None,
        }
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::SourcePorts => "source_ports",
            Self::Descriptors => "descriptors",
            Self::OpenFiles => "open_files",
            Self::Memory => "memory",
            Self::EpollWatches => "epoll_watches",
            Self::SourceAddress => "source_address",
            Self::Socket => "socket",
        }
    }

    /// The text of an event.
    pub fn description(self) -> &'static str {
        match self {
            Self::SourcePorts => "no free source ports",
            Self::Descriptors => "no free descriptors",
            Self::OpenFiles => "no free open files on this machine",
            Self::Memory => "no free memory",
            Self::EpollWatches => "no free epoll watches",
            Self::SourceAddress => "source address cannot be used",
            Self::Socket => "no socket with the options of the server",
        }
    }

    /// What an operator can do about it.
    pub fn cure(self) -> &'static str {
        match self {
            Self::SourcePorts => {
                "widen net.ipv4.ip_local_port_range, or give the backend more addresses"
            }
            Self::Descriptors => "raise LimitNOFILE of the service, or lower maxconn",
            Self::OpenFiles => "raise fs.file-max",
            Self::Memory => "lower maxconn, or raise net.ipv4.tcp_mem or the memory limit",
            Self::EpollWatches => "raise fs.epoll.max_user_watches",
            Self::SourceAddress => {
                "see the event `source address refused`: the address must be one of this machine, and `usesrc` and \
                 `interface` need CAP_NET_ADMIN"
            }
            Self::Socket => {
                "see the event `socket option refused`: `namespace` needs CAP_SYS_ADMIN and a namespace of that name, \
                 `mptcp` needs net.mptcp.enabled"
            }
        }
    }
}

/// Whether `error` reports a shortage of this process or machine. Such errors never count against a server,
/// because they would be the same for every server.
pub fn is_local(error: &io::Error) -> bool {
    Shortage::of(error).is_some()
}

/// Whether `error` reports that no descriptor is left.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// The error when no descriptor is left.
pub fn out_of_descriptors() -> io::Error {
    io::Error::from_raw_os_error(libc::EMFILE)
}

/// Descriptors that are kept back for checks and the stats listener, so that both work when traffic uses all
/// others.
///
/// While one is lent, [`DescriptorReserve::lent`] is set and workers open no descriptor, so that a descriptor
/// that was closed for a check is opened by that check.
#[derive(Debug)]
pub struct DescriptorReserve {
    held: Mutex<Vec<OwnedFd>>,
    lent: Arc<AtomicBool>,
}

impl DescriptorReserve {
    /// Opens the descriptors.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub fn new() -> io::Result<Self> {
        let held = (0..RESERVE_MAX).map(|_| placeholder());
        Ok(Self {
            held: Mutex::new(held.collect::<io::Result<_>>()?),
            lent: Arc::default(),
        })
    }

    /// Set while descriptors are lent.
    pub fn lent(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.lent)
    }

    /// Runs `open`. When no descriptor is left, closes one that was kept back and runs it again. It loops,
    /// because a thread that has not seen the flag yet may take the descriptor first.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn with<T>(&self, mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut result = open();
        if !matches!(&result, Err(error) if is_out_of_descriptors(error)) {
            return result;
        }
        let mut held = self.held();
        self.lent.store(true, Relaxed);
        while matches!(&result, Err(error) if is_out_of_descriptors(error)) && held.pop().is_some()
        {
            result = open();
        }
        result
    }

    /// Opens what was lent again, as far as possible now. Called about once a second.
    pub fn refill(&self) {
        let mut held = self.held();
        while held.len() < RESERVE_MAX {
            let Ok(descriptor) = placeholder() else {
                return;
            };
            held.push(descriptor);
        }
        self.lent.store(false, Relaxed);
    }

    fn held(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A descriptor that refers to no file.
fn placeholder() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lent_is_set_until_the_descriptor_is_back() {
        let reserve = DescriptorReserve::new().unwrap();
        let lent = reserve.lent();
        assert!(reserve.with(|| Ok(())).is_ok());
        assert!(!lent.load(Relaxed), "there was a descriptor");
        let mut tries = 0;
        let opened = reserve.with(|| {
            tries += 1;
            if tries < 3 {
                Err(out_of_descriptors())
            } else {
                Ok(())
            }
        });
        assert!(opened.is_ok() && lent.load(Relaxed));
        assert_eq!(reserve.held().len(), RESERVE_MAX - 2);
        reserve.refill();
        assert_eq!(reserve.held().len(), RESERVE_MAX);
        assert!(!lent.load(Relaxed));
        assert!(reserve.with(|| Err::<(), _>(out_of_descriptors())).is_err());
        assert!(reserve.held().is_empty());
    }
}
