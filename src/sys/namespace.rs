//! Network namespaces by the names that `ip netns` gives them. Usable from any thread.
//!
//! A thread enters one for the time of a call and goes back. A socket stays in the namespace in which it was made. As
//! HAProxy needs, this needs `CAP_SYS_ADMIN`.

use super::raw;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// The folder of `ip netns`.
const FOLDER: &str = "/var/run/netns";

/// Calls `open` in the namespace `name`; `None`: in that of the process.
///
/// # Errors
/// Those of `open`, and those of `open` and `setns` for the namespace.
pub fn within<T>(name: Option<&str>, open: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(name) = name else { return open() };
    let here = File::open("/proc/thread-self/ns/net")?;
    let there = File::open(format!("{FOLDER}/{name}"))?;
    enter(&there)?;
    // Not before: a process that may not enter one may not go back either.
    let back = Back(here);
    let result = open();
    drop(back);
    result
}

fn enter(namespace: &File) -> io::Result<()> {
    let kind = Some(LinkNameSpaceType::Network);
    Ok(move_into_link_name_space(namespace.as_fd(), kind)?)
}

/// The namespace that the thread goes back to.
struct Back(File);

impl Drop for Back {
    fn drop(&mut self) {
        // Everything that the thread opens from now on would be in the wrong one.
        if enter(&self.0).is_err() {
            std::process::abort();
        }
    }
}

/// Whether `socket` is in the namespace `name`; `None`: in that of the process. A kernel that does not tell (before Linux
/// 5.14): yes.
pub fn has(name: Option<&str>, socket: &Socket) -> bool {
    let there = within(name, || Socket::new(Domain::UNIX, Type::STREAM, None));
    let Ok(there) = there else { return false };
    let cookie = |socket: &Socket| raw::network_cookie(socket.as_fd()).ok();
    cookie(&there) == cookie(socket)
}

/// Whether `name` is another namespace than that of `socket` by now. One that has no name any more is not: whoever is in
/// it still reaches the socket.
pub fn is_another(name: &str, socket: &Socket) -> bool {
    let there = within(Some(name), || Socket::new(Domain::UNIX, Type::STREAM, None));
    let cookie = |socket: &Socket| raw::network_cookie(socket.as_fd()).ok();
    let cookies = there
        .ok()
        .and_then(|there| cookie(&there))
        .zip(cookie(socket));
    cookies.is_some_and(|(there, here)| there != here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_does_not_exist_is_an_error() {
        let error = within(Some("no-such-namespace"), || Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        assert!(has(None, &socket));
        assert!(!has(Some("no-such-namespace"), &socket));
    }
}
