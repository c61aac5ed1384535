//! Gives a listening socket of another program, which this process takes over, the options that a new socket would
//! have: HAProxy sets more of them than rlb, and accepted connections inherit them.
//!
//! Control thread. Not set here, because they have no effect on a socket that is bound: `IP_FREEBIND`, `SO_REUSEADDR`. A
//! bind with another interface or another `v6only` does not take the socket over.

use super::namespace;
use super::raw::{self, TcpOption};
use super::socket::{self, Address, Options};
use rustix::process::{getegid, geteuid};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Mode bits of a new unix socket's file before the umask.
const NEW_FILE: u32 = 0o777;

/// Whether a bind may have the socket: it is plain TCP or a unix socket, of this network namespace. HAProxy can listen
/// in others (`namespace`) and for MPTCP.
pub fn can_be_taken_over(socket: &Socket) -> bool {
    if socket::is_unix(socket) {
        let address = socket.local_addr();
        // A path leads to it from everywhere.
        return namespace::has(None, socket)
            || address.is_ok_and(|address| address.as_pathname().is_some());
    }
    namespace::has(None, socket) && socket.protocol().is_ok_and(|it| it == Some(Protocol::TCP))
}

/// Does the same as [`socket::adjust`], and takes back what rlb does not set.
///
/// # Errors
/// The first of `setsockopt`, `listen`, `chown` and `chmod`. The others are called all the same.
pub fn adjust(socket: &Socket, options: &Options) -> io::Result<()> {
    let reset = match &options.address {
        Address::Unix(path) => reset_file(path, options),
        _ if socket::is_unix(socket) => Ok(()),
        _ => reset_tcp(socket),
    };
    socket::adjust(socket, options).and(reset)
}

fn reset_tcp(socket: &Socket) -> io::Result<()> {
    let domain = socket.domain()?;
    let new = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    let off = |option| match raw::tcp_option(socket.as_fd(), option) {
        // A kernel that does not have it.
        Ok(0) | Err(_) => Ok(()),
        Ok(_) => raw::set_tcp_option(socket.as_fd(), option, 0),
    };
    let transparent = match domain {
        Domain::IPV6 => socket.set_ip_transparent_v6(false),
        _ => socket.set_ip_transparent_v4(false),
    };
    let results = [
        // `defer-accept`: a client that waits for the server's first byte would wait for a second.
        off(TcpOption::DeferAccept),
        // `tfo`.
        off(TcpOption::FastOpen),
        // `tcp-ss`.
        off(TcpOption::SaveSyn),
        // `tcp-ut`.
        socket.set_tcp_user_timeout(None),
        // `option nolinger`.
        socket.set_linger(None),
        // `mss`: the kernel takes 0 for its own choice.
        socket.set_tcp_mss(0),
        // `option tcp-smart-accept`.
        socket.set_tcp_quickack(true),
        // `transparent`.
        transparent,
        // `cc`.
        reset_congestion_control(socket, &new),
        // `tcp-md5sig`, which has the address of the bind.
        socket
            .local_addr()
            .and_then(|address| delete_md5_key(socket, &address)),
    ];
    results.into_iter().collect()
}

fn reset_congestion_control(socket: &Socket, new: &Socket) -> io::Result<()> {
    let (theirs, default) = (socket.tcp_congestion()?, new.tcp_congestion()?);
    if theirs == default {
        return Ok(());
    }
    let name = default.split(|byte| *byte == 0).next();
    socket.set_tcp_congestion(name.unwrap_or_default())
}

fn delete_md5_key(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    match raw::set_md5_key(socket.as_fd(), address, b"") {
        Err(error) if is_missing(&error) => Ok(()),
        result => result,
    }
}

/// There is no such key, or the kernel knows none.
fn is_missing(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(
        errno,
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::NOPROTOOPT)
    )
}

/// Gives the file of a unix socket the mode and the owner of a new one, where `options` say nothing.
fn reset_file(path: &Path, options: &Options) -> io::Result<()> {
    if socket::is_abstract(path) {
        return Ok(());
    }
    let found = fs::metadata(path)?;
    let (owner, group) = &options.owner;
    let (user, its_group) = (geteuid().as_raw(), group_of_new(path)?);
    let user = (owner.is_none() && found.uid() != user).then_some(user);
    let group = (group.is_none() && found.gid() != its_group).then_some(its_group);
    if user.is_some() || group.is_some() {
        std::os::unix::fs::chown(path, user, group)?;
    }
    let mode = NEW_FILE & !umask()?;
    if options.mode.is_none() && found.mode() & 0o7777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The group of a new file at `path`.
fn group_of_new(path: &Path) -> io::Result<u32> {
    const SET_GROUP_ID: u32 = 0o2000;
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    let folder = fs::metadata(folder.unwrap_or(Path::new(".")))?;
    let inherited = folder.mode() & SET_GROUP_ID != 0;
    Ok(if inherited {
        folder.gid()
    } else {
        getegid().as_raw()
    })
}

/// The umask of this process. The system call changes it, so the file of the kernel is read (since Linux 4.7).
fn umask() -> io::Result<u32> {
    let status = fs::read_to_string("/proc/self/status")?;
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = umask.and_then(|text| u32::from_str_radix(text.trim(), 8).ok());
    umask.ok_or_else(|| io::Error::other("/proc/self/status has no umask"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::time::{Duration, Instant};

    fn options(address: Address) -> Options {
        Options {
            address,
            backlog: 16,
            v6only: None,
            interface: None,
            freebind: false,
            tcp: socket::TcpOptions::default(),
            namespace: None,
            mptcp: false,
            mode: None,
            owner: (None, None),
            keepalive: None,
            listens: true,
            join: false,
        }
    }

    fn listen(address: SocketAddr) -> Socket {
        let address = Address::Tcp(address);
        socket::listen(&options(address), 1).unwrap().remove(0)
    }

    /// Clients of protocols in which the server speaks first waited for a second after `-sf`.
    #[test]
    fn what_haproxy_sets_and_rlb_does_not_is_taken_back() {
        for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            let socket = listen(SocketAddr::new(ip, 0));
            let numbers = [
                TcpOption::DeferAccept,
                TcpOption::FastOpen,
                TcpOption::SaveSyn,
            ];
            let number = |option| raw::tcp_option(socket.as_fd(), option).unwrap();
            let new = [
                format!("{:?}", socket.tcp_congestion().unwrap()),
                format!("{:?}", socket.tcp_mss().unwrap()),
            ];
            for option in numbers {
                raw::set_tcp_option(socket.as_fd(), option, 1).unwrap();
                assert_ne!(number(option), 0, "{option:?}");
            }
            socket
                .set_tcp_user_timeout(Some(Duration::from_secs(7)))
                .unwrap();
            socket.set_linger(Some(Duration::ZERO)).unwrap();
            socket.set_tcp_mss(600).unwrap();
            socket.set_tcp_quickack(false).unwrap();
            // The kernel always has it.
            socket.set_tcp_congestion(b"reno").unwrap();
            let address = socket.local_addr().unwrap();
            let has_key = raw::set_md5_key(socket.as_fd(), &address, b"key").is_ok();
            let there = address.as_socket().unwrap();
            adjust(&socket, &options(Address::Tcp(there))).unwrap();
            for option in numbers {
                assert_eq!(number(option), 0, "{option:?}");
            }
            assert_eq!(socket.tcp_user_timeout().unwrap(), None);
            assert_eq!(socket.linger().unwrap(), None);
            assert!(socket.tcp_quickack().unwrap());
            let after = [
                format!("{:?}", socket.tcp_congestion().unwrap()),
                format!("{:?}", socket.tcp_mss().unwrap()),
            ];
            assert_eq!(after, new);
            let deleted = raw::set_md5_key(socket.as_fd(), &address, b"");
            assert!(!has_key || is_missing(&deleted.unwrap_err()));

            let _client = std::net::TcpStream::connect(there).unwrap();
            let deadline = Instant::now() + Duration::from_millis(500);
            while socket::accept(&socket).is_err() {
                assert!(Instant::now() < deadline, "the kernel waits for data");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn an_mptcp_socket_is_not_taken_over() {
        let tcp = listen(SocketAddr::from(([127, 0, 0, 1], 0)));
        assert!(can_be_taken_over(&tcp));
        // The kernel may be without it.
        let Ok(mptcp) = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)) else {
            return;
        };
        assert!(!can_be_taken_over(&mptcp));
    }

    /// The mode that the file of the old process said was kept.
    #[test]
    fn the_file_of_a_unix_socket_gets_the_mode_of_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let open = |path: &Path| {
            let address = Address::Unix(path.to_owned());
            socket::listen(&options(address), 1).unwrap().remove(0)
        };
        let (socket, _other) = (open(&old), open(&new));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode();
        for configured in [None, Some(0o640)] {
            fs::set_permissions(&old, fs::Permissions::from_mode(0o666)).unwrap();
            let options = Options {
                mode: configured,
                ..options(Address::Unix(old.clone()))
            };
            adjust(&socket, &options).unwrap();
            let expected = configured.unwrap_or(mode(&new) & 0o777);
            assert_eq!(mode(&old) & 0o7777, expected);
        }
    }
}
