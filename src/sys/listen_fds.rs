//! Sockets that the starting process passed to this one: systemd's socket units, its descriptor store, or
//! another program with the same protocol (`sd_listen_fds(3)`).
//!
//! Invariant: a descriptor is taken over at most once, and never one that this process has opened itself.
//! Called once by the composition root, before it opens anything.

use super::raw;
use socket2::Socket;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether another program than rlb and its service manager's store has sockets that this process listens on.
static OTHERS: AtomicBool = AtomicBool::new(false);

/// Tells the next process of an upgrade the same.
pub const OTHERS_VARIABLE: &str = "RLB_SOCKETS_OF_OTHERS";

/// Notes that another program (a socket unit) has opened sockets that this process listens on.
pub fn note_others() {
    OTHERS.store(true, Relaxed);
}

/// Whether another program may have the listening sockets of this process: an option that is set to take a socket out of
/// use would hold for that program, too.
pub fn others_have_them() -> bool {
    OTHERS.load(Relaxed) || std::env::var_os(OTHERS_VARIABLE).is_some()
}

/// The first passed descriptor (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// Most sockets that are taken over; as many as `FileDescriptorStoreMax=` of the unit.
pub const RECEIVED_MAX: usize = 4096;

/// A socket that was passed.
#[derive(Debug)]
pub struct PassedSocket {
    /// Its name (`FDNAME=`, `FileDescriptorName=`); `unknown` when there are no names.
    pub name: String,
    /// The socket; it may be of any kind.
    pub socket: Socket,
}

/// The passed descriptors.
#[derive(Debug, Default)]
pub struct Passed {
    /// The sockets that could be taken over.
    pub sockets: Vec<PassedSocket>,
    /// Passed descriptors that could not be taken over, with the reason.
    pub refused: Vec<(RawFd, io::Error)>,
}

/// Takes over what was passed. Empty when nothing was passed, or it was meant for another process.
pub fn receive() -> Passed {
    let names = names(std::process::id(), |name| std::env::var(name).ok());
    take(FIRST, names)
}

/// Takes over the descriptors from `first` on, one per name. A failure does not affect the others.
fn take(first: RawFd, names: Vec<String>) -> Passed {
    let mut passed = Passed::default();
    for (fd, name) in (first..).zip(names) {
        match raw::adopt(fd) {
            Ok(socket) => passed.sockets.push(PassedSocket {
                name,
                socket: Socket::from(socket),
            }),
            Err(error) => passed.refused.push((fd, error)),
        }
    }
    passed
}

/// The names of the passed descriptors, in their order.
fn names(pid: u32, environment: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let number = |name: &str| environment(name)?.parse::<usize>().ok();
    if number("LISTEN_PID") != usize::try_from(pid).ok() {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or(0).min(RECEIVED_MAX);
    let names = environment("LISTEN_FDNAMES").unwrap_or_default();
    let given = names.split(':').filter(|name| !name.is_empty());
    given
        .chain(std::iter::repeat("unknown"))
        .take(count)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Vec<String> {
        names(7, |wanted| {
            let found = pairs.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_is_taken_that_is_meant_for_another_process() {
        assert!(with(&[]).is_empty());
        assert!(with(&[("LISTEN_FDS", "2")]).is_empty());
        assert!(with(&[("LISTEN_PID", "8"), ("LISTEN_FDS", "2")]).is_empty());
        assert!(with(&[("LISTEN_PID", "7"), ("LISTEN_FDS", "-1")]).is_empty());
    }

    #[test]
    fn names_come_in_order_and_may_be_missing() {
        let two = [("LISTEN_PID", "7"), ("LISTEN_FDS", "2")];
        assert_eq!(with(&two), ["unknown", "unknown"]);
        assert_eq!(
            with(&[two[0], two[1], ("LISTEN_FDNAMES", "a:b")]),
            ["a", "b"]
        );
        assert_eq!(
            with(&[two[0], two[1], ("LISTEN_FDNAMES", "a")]),
            ["a", "unknown"]
        );
    }

    #[test]
    fn the_number_is_bounded() {
        let many = [("LISTEN_PID", "7"), ("LISTEN_FDS", "4000000000")];
        assert_eq!(with(&many).len(), RECEIVED_MAX);
    }

    /// Fault 23: one missing descriptor made all others be dropped.
    #[test]
    fn a_descriptor_that_is_not_there_leaves_the_others() {
        use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
        use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // Two with a gap between them, far from descriptors that other tests open meanwhile.
        let at = |fd: RawFd| {
            let copy = fcntl_dupfd_cloexec(listener.as_fd(), fd).unwrap();
            fcntl_setfd(&copy, FdFlags::empty()).unwrap();
            copy.into_raw_fd()
        };
        let first = at(700);
        assert_eq!((first, at(first + 2)), (700, 702));
        let passed = take(first, vec!["a".into(), "b".into(), "c".into()]);
        let names: Vec<&str> = passed.sockets.iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(passed.sockets[1].socket.as_raw_fd(), 702);
        assert_eq!(passed.refused.len(), 1);
        assert_eq!(passed.refused[0].0, 701);
    }

    #[test]
    fn what_we_have_opened_ourselves_is_not_taken_over() {
        use std::os::fd::AsRawFd;
        let ours = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(raw::adopt(ours.as_raw_fd()).is_err(), "closed on exec");
        assert!(raw::adopt(2).is_err(), "standard error is in use");
        assert!(raw::adopt(i32::MAX).is_err(), "not open");
    }
}
