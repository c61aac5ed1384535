//! The descriptor limit, and descriptors kept back from it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::io;
use std::sync::Mutex;

/// Descriptors that a [`DescriptorReserve`] holds: enough for every stats connection that is being accepted
/// and every check that is being opened in one turn of their loops.
pub const RESERVE_MAX: usize = 16;

/// Raises the soft descriptor limit to the hard one and returns it.
///
/// # Errors
/// When the kernel refuses, which it does only for a hard limit that has just been lowered.
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

/// The descriptor limit in force now.
pub fn nofile() -> u32 {
    getrlimit(Resource::Nofile)
        .current
        .map_or(u32::MAX, |limit| u32::try_from(limit).unwrap_or(u32::MAX))
}

/// Something of this process or machine that was not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// All source ports towards an address are in use, or this machine has no source address for
    /// it.
    SourcePorts,
    /// The process has as many descriptors as it may have.
    Descriptors,
    /// The machine has as many open files as it may have.
    OpenFiles,
    /// Memory, or buffers of the network.
    Memory,
    /// `fs.epoll.max_user_watches` is reached.
    EpollWatches,
}

impl Shortage {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 5] = [
        Self::SourcePorts,
        Self::Descriptors,
        Self::OpenFiles,
        Self::Memory,
        Self::EpollWatches,
    ];

    /// What `error` says is missing; `None`: it says nothing of the kind.
    pub fn of(error: &io::Error) -> Option<Self> {
        match error.raw_os_error()? {
            // connect(2) has both for it.
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
        }
    }

    /// What is missing, as the beginning of an event.
    pub fn description(self) -> &'static str {
        match self {
            Self::SourcePorts => "no free source ports",
            Self::Descriptors => "no free descriptors",
            Self::OpenFiles => "no free open files on this machine",
            Self::Memory => "no free memory",
            Self::EpollWatches => "no free epoll watches",
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
        }
    }
}

/// Whether `error` says that this process or machine is short of something. Such errors never
/// count against a server: they would be the same for every other.
pub fn is_local(error: &io::Error) -> bool {
    Shortage::of(error).is_some()
}

/// Whether `error` says that no descriptor is left.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Descriptors kept back for checks and the stats listener, so that both go on working when
/// traffic has used up all others.
#[derive(Debug)]
pub struct DescriptorReserve(Mutex<Vec<File>>);

impl DescriptorReserve {
    /// Takes the descriptors.
    ///
    /// # Errors
    /// When not even these can be had.
    pub fn new() -> io::Result<Self> {
        let held = (0..RESERVE_MAX)
            .map(|_| File::open("/dev/null"))
            .collect::<io::Result<_>>()?;
        Ok(Self(Mutex::new(held)))
    }

    /// Runs `open`; when no descriptor is left, makes room and runs it again.
    ///
    /// Room is made above the soft limit first, where the hard one allows it: nobody else can take
    /// that place but in the instant itself, and it is there again when the descriptor is closed.
    /// Otherwise a descriptor that was kept back is given to the system; others may be quicker to
    /// take it, hence the loop.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn with<T>(&self, mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut result = open();
        if !matches!(&result, Err(error) if is_out_of_descriptors(error)) {
            return result;
        }
        let mut held = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(above) = above_the_limit(&mut open) {
            result = above;
        }
        while matches!(&result, Err(error) if is_out_of_descriptors(error)) && held.pop().is_some()
        {
            result = open();
        }
        result
    }

    /// Takes back what was given away, as far as that is possible now. Called about once a second.
    pub fn refill(&self) {
        let mut held = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        while held.len() < RESERVE_MAX {
            let Ok(file) = File::open("/dev/null") else {
                return;
            };
            held.push(file);
        }
    }
}

/// Runs `open` while the soft limit is higher by [`RESERVE_MAX`], as far as the hard one allows.
/// `None`: it allows nothing. Called under the lock of [`DescriptorReserve`], so that nobody mistakes the raised
/// limit for the one to return to.
fn above_the_limit<T>(open: &mut impl FnMut() -> io::Result<T>) -> Option<io::Result<T>> {
    let before = getrlimit(Resource::Nofile);
    let soft = before.current?;
    let wanted = soft.saturating_add(RESERVE_MAX as u64);
    let current = before.maximum.map_or(wanted, |hard| wanted.min(hard));
    if current <= soft {
        return None;
    }
    let raised = Rlimit {
        current: Some(current),
        ..before
    };
    setrlimit(Resource::Nofile, raised).ok()?;
    let result = open();
    // Lowering one's own soft limit is always allowed.
    let _ = setrlimit(Resource::Nofile, before);
    Some(result)
}
