//! Sockets that were passed to the process by whoever started it: systemd's socket units, its
//! descriptor store, or anybody who follows the same protocol (`sd_listen_fds(3)`).
//!
//! Invariant: a descriptor is taken over at most once, and never one that this process has opened
//! itself. Called once by the composition root, before it opens anything.

use super::raw;
use socket2::Socket;
use std::io;
use std::os::fd::RawFd;

/// First descriptor that is passed (`SD_LISTEN_FDS_START`).
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

/// Takes over what was passed. Empty when nothing was, or it was meant for another process.
///
/// # Errors
/// When the environment names descriptors that were not passed.
pub fn receive() -> io::Result<Vec<PassedSocket>> {
    let names = names(std::process::id(), |name| std::env::var(name).ok());
    let mut received = Vec::new();
    for (fd, name) in (FIRST..).zip(names) {
        let socket = Socket::from(raw::adopt(fd)?);
        received.push(PassedSocket { name, socket });
    }
    Ok(received)
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
    fn the_number_has_a_bound() {
        let many = [("LISTEN_PID", "7"), ("LISTEN_FDS", "4000000000")];
        assert_eq!(with(&many).len(), RECEIVED_MAX);
    }

    #[test]
    fn what_we_have_opened_ourselves_is_not_taken_over() {
        use std::os::fd::AsRawFd;
        let ours = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(raw::adopt(ours.as_raw_fd()).is_err(), "closed on exec");
        assert!(raw::adopt(2).is_err(), "standard error has an owner");
        assert!(raw::adopt(i32::MAX).is_err(), "not open");
    }
}
