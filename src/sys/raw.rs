//! The only unsafe code: socket options and queries that neither rustix nor socket2 has.
//!
//! Usable from any thread. Every unsafe block says why it is sound.
#![expect(
    unsafe_code,
    reason = "the one place for calls that have no safe wrapper"
)]

use socket2::SockAddr;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The fields of `TCP_INFO` that rlb uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpInfo {
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Bytes not sent yet, because the peer's window is closed or the path is congested.
    pub notsent_bytes: u32,
    /// Time since the peer last acknowledged anything.
    pub last_ack_recv: Duration,
    /// Retransmissions of the oldest segment since the last acknowledgement.
    pub retransmits: u8,
    /// Window probes sent and not answered.
    pub probes: u8,
}

/// `TCP_INFO` of a TCP socket.
///
/// # Errors
/// `EOPNOTSUPP` or `ENOPROTOOPT` for a socket that is not TCP.
pub fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    // SAFETY: tcp_info is plain integers; all zeroes is a value of it.
    let mut info: libc::tcp_info = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut len = socklen(size_of::<libc::tcp_info>());
    // SAFETY: the pointer and length describe `info`, which outlives the call; the kernel writes at
    // most `len` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(TcpInfo {
        unacked: info.tcpi_unacked,
        notsent_bytes: info.tcpi_notsent_bytes,
        last_ack_recv: Duration::from_millis(u64::from(info.tcpi_last_ack_recv)),
        retransmits: info.tcpi_retransmits,
        probes: info.tcpi_probes,
    })
}

/// Bytes written to a stream socket that the peer has not acknowledged yet (`SIOCOUTQ`).
///
/// # Errors
/// Those of `ioctl`; none is expected for a connected socket.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int through the pointer.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(bytes).unwrap_or(0))
}

/// Most groups of a process: the kernel's `NGROUPS_MAX`.
const GROUPS_MAX: usize = 65_536;

/// The supplementary groups of the peer process of a unix socket at the time of its connect (`SO_PEERGROUPS`,
/// since Linux 4.13).
///
/// # Errors
/// `ENOPROTOOPT` on older kernels; `ENODATA` for a socket that is not connected.
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<libc::gid_t>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut len = socklen(groups.len() * size_of::<libc::gid_t>());
        // SAFETY: the pointer and length describe `groups`, which outlives the call; the kernel
        // writes at most `len` bytes, whole numbers.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        let count = usize::try_from(len).unwrap_or(0) / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // There are more groups than fit; `len` tells how many.
        let more = error.raw_os_error() == Some(libc::ERANGE) && count > groups.len();
        if !more || count > GROUPS_MAX {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// The number of the process that has connected a unix socket to its peer, or listens there; 0: it has none in this pid
/// namespace.
///
/// # Errors
/// Those of `getsockopt`; none is expected of a unix socket.
pub fn peer_pid(socket: BorrowedFd<'_>) -> io::Result<libc::pid_t> {
    let nobody = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let option = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    Ok(get_option(socket, option, nobody)?.pid)
}

/// Bounds the kernel's pauses between retransmissions and between window probes of a TCP socket
/// (`TCP_RTO_MAX_MS`, since Linux 6.15).
///
/// # Errors
/// `ENOPROTOOPT` on older kernels.
pub fn set_rto_max(socket: BorrowedFd<'_>, most: Duration) -> io::Result<()> {
    /// Not in libc yet; `include/uapi/linux/tcp.h`.
    const TCP_RTO_MAX_MS: libc::c_int = 44;
    let millis = libc::c_int::try_from(most.as_millis()).unwrap_or(libc::c_int::MAX);
    set_option(socket, (libc::IPPROTO_TCP, TCP_RTO_MAX_MS), &millis)
}

/// A TCP option that is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpOption {
    /// `TCP_DEFER_ACCEPT`, in seconds; the kernel rounds up.
    DeferAccept,
    /// `TCP_FASTOPEN`: connections whose handshake is not complete; 0: it is off.
    FastOpen,
    /// `TCP_SAVE_SYN`: 1 keeps the SYN of each connection.
    SaveSyn,
}

impl TcpOption {
    fn number(self) -> libc::c_int {
        match self {
            Self::DeferAccept => libc::TCP_DEFER_ACCEPT,
            Self::FastOpen => libc::TCP_FASTOPEN,
            Self::SaveSyn => libc::TCP_SAVE_SYN,
        }
    }
}

/// Sets a TCP option.
///
/// # Errors
/// Those of `setsockopt`; `ENOPROTOOPT` where the kernel does not have it.
pub fn set_tcp_option(
    socket: BorrowedFd<'_>,
    option: TcpOption,
    value: libc::c_int,
) -> io::Result<()> {
    set_option(socket, (libc::IPPROTO_TCP, option.number()), &value)
}

/// The value of a TCP option.
///
/// # Errors
/// Those of `getsockopt`; `ENOPROTOOPT` where the kernel does not have it.
pub fn tcp_option(socket: BorrowedFd<'_>, option: TcpOption) -> io::Result<libc::c_int> {
    get_option(socket, (libc::IPPROTO_TCP, option.number()), 0)
}

/// Has `bind` leave the port to `connect`, which knows the other address (`IP_BIND_ADDRESS_NO_PORT`).
///
/// # Errors
/// Those of `setsockopt`; `ENOPROTOOPT` before Linux 4.2.
pub fn leave_port_to_connect(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(
        socket,
        (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT),
        &1,
    )
}

/// A number that tells network namespaces apart (`SO_NETNS_COOKIE`, since Linux 5.14).
///
/// # Errors
/// `ENOPROTOOPT` on older kernels.
pub fn network_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    get_option(socket, (libc::SOL_SOCKET, libc::SO_NETNS_COOKIE), 0)
}

/// Longest key of [`set_md5_key`], in bytes.
const MD5_KEY_MAX: usize = 80;

/// `struct tcp_md5sig` of `include/uapi/linux/tcp.h`, which libc does not have.
#[repr(C)]
#[derive(Clone, Copy)]
struct Md5Key {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: libc::c_int,
    key: [u8; MD5_KEY_MAX],
}

/// Sets the key of RFC 2385 for the peers at an address (`TCP_MD5SIG`). An empty one deletes it.
///
/// # Errors
/// `InvalidInput` for a key of more than 80 bytes; `ENOENT` when there is none to delete; `ENOPROTOOPT` when the
/// kernel has no such thing.
pub fn set_md5_key(socket: BorrowedFd<'_>, address: &SockAddr, key: &[u8]) -> io::Result<()> {
    let length = u16::try_from(key.len()).unwrap_or(u16::MAX);
    let size = usize::try_from(address.len()).unwrap_or(usize::MAX);
    if key.len() > MD5_KEY_MAX || size > size_of::<libc::sockaddr_storage>() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: plain integers; all zeroes is a value of it.
    let mut value: Md5Key = unsafe { MaybeUninit::zeroed().assume_init() };
    value.key_len = length;
    value.key[..key.len()].copy_from_slice(key);
    // SAFETY: `address` has `size` bytes, which fit into the other one; the two do not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            (&raw mut value.address).cast::<u8>(),
            size,
        );
    }
    set_option(socket, (libc::IPPROTO_TCP, libc::TCP_MD5SIG), &value)
}

/// Plain data that the kernel reads and writes as options.
trait OptionValue: Copy {}
impl OptionValue for libc::c_int {}
impl OptionValue for u64 {}
impl OptionValue for Md5Key {}
impl OptionValue for libc::ucred {}

fn set_option<T: OptionValue>(
    socket: BorrowedFd<'_>,
    (level, option): (libc::c_int, libc::c_int),
    value: &T,
) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, plain data, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            socklen(size_of::<T>()),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn get_option<T: OptionValue>(
    socket: BorrowedFd<'_>,
    (level, option): (libc::c_int, libc::c_int),
    mut value: T,
) -> io::Result<T> {
    let mut len = socklen(size_of::<T>());
    // SAFETY: the pointer and length describe `value`, plain data, which outlives the call; the kernel writes at
    // most `len` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Binds a socket to the network interface of this index (`SO_BINDTOIFINDEX`, since Linux 5.1). The kernel does not
/// ask whether there is such an interface.
///
/// # Errors
/// `EPERM` when the socket is bound to an interface already and this process has no `CAP_NET_RAW`; `ENOPROTOOPT` on
/// older kernels.
pub fn bind_to_index(socket: BorrowedFd<'_>, index: libc::c_int) -> io::Result<()> {
    set_option(socket, (libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX), &index)
}

/// Has host names looked up in /etc/hosts and by DNS alone, whatever /etc/nsswitch.conf names.
///
/// A statically linked program calls it before its first look-up: the C library would load the modules of that
/// file, which are made for the C library of the host.
#[cfg(target_env = "gnu")]
pub fn look_hosts_up_without_modules() {
    unsafe extern "C" {
        fn __nss_configure_lookup(
            database: *const libc::c_char,
            services: *const libc::c_char,
        ) -> libc::c_int;
    }
    // SAFETY: both are strings that end with a zero byte and live as long as the program; glibc copies what it
    // keeps. It fails only for an unknown database and without memory; then the file holds.
    unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
}

/// Returns free heap memory to the system, which the allocator would keep. Takes milliseconds if there is much
/// of it.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer; the allocator locks its own data.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Size of a piece of memory from which on the allocator asks the system for it alone, and of free memory at the end of a
/// heap from which on it returns that: glibc's own values at the start.
#[cfg(target_env = "gnu")]
const HEAP_THRESHOLD: libc::c_int = 128 * 1024;

/// Has the allocator keep its thresholds. glibc raises them when large pieces are freed, as after a file was read: then a
/// thread's heap keeps up to 64 MB of free memory at its end, of which [`trim_heap`] takes none.
pub fn keep_heap_thresholds() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer; the allocator locks its own data.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, HEAP_THRESHOLD);
        libc::mallopt(libc::M_TRIM_THRESHOLD, HEAP_THRESHOLD);
    }
}

/// Takes the program's code out of the resident memory of this process. Most of it was for the start. What is called from
/// now on is mapped again, from the page cache.
///
/// # Errors
/// When `/proc/self/maps` cannot be read, or the kernel refuses.
pub fn release_code() -> io::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let here = release_code as fn() -> io::Result<()> as usize;
    let lines = maps.lines().filter(|line| line.contains(" r-xp "));
    let mut code = lines.filter_map(|line| range(line.split(' ').next()?));
    let Some(code) = code.find(|code| code.contains(&here)) else {
        return Ok(());
    };
    let start = std::ptr::with_exposed_provenance_mut(code.start);
    // SAFETY: nothing can have written to a private mapping of a file that can only be read and run. So the kernel maps the
    // same bytes again when they are needed.
    done(unsafe { libc::madvise(start, code.len(), libc::MADV_DONTNEED) })
}

/// The range of addresses at the beginning of a line of `/proc/PID/maps`.
fn range(text: &str) -> Option<Range<usize>> {
    let (start, end) = text.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(address(start)?..address(end)?)
}

/// Has this thread, and those that it starts, receive all signals. Whoever has started the program may have blocked
/// them, and they stay blocked over an exec.
pub fn unblock_signals() {
    // SAFETY: the set is plain data that `sigemptyset` fills and that outlives both calls; the old mask is not asked for.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Leaves this process without supplementary groups, all of its threads.
///
/// # Errors
/// `EPERM` without `CAP_SETGID`.
pub fn clear_groups() -> io::Result<()> {
    // SAFETY: with a count of 0 the list is not read.
    done(unsafe { libc::setgroups(0, std::ptr::null()) })
}

/// Sets the group of this process, of all of its threads.
///
/// # Errors
/// `EPERM` without `CAP_SETGID`.
pub fn set_group(group: libc::gid_t) -> io::Result<()> {
    // SAFETY: takes no pointer.
    done(unsafe { libc::setgid(group) })
}

/// Sets the user of this process, of all of its threads.
///
/// # Errors
/// `EPERM` without `CAP_SETUID`.
pub fn set_user(user: libc::uid_t) -> io::Result<()> {
    // SAFETY: takes no pointer.
    done(unsafe { libc::setuid(user) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Ends this process by a signal, as if the program did not handle it. Returns only where the kernel does not end it so:
/// the first process of a pid namespace, and a signal that is blocked.
pub fn end_by(signal: rustix::process::Signal) {
    let number = signal.as_raw();
    // SAFETY: sets a disposition and sends a signal; takes no pointer. Its default action runs no code of this program.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
        libc::raise(number);
    }
}

/// Takes over a descriptor that came through exec (`LISTEN_FDS`), and sets close-on-exec.
///
/// # Errors
/// `EBADF` when it is not open; `InvalidInput` when it belongs to this process already.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: reads the flags of a descriptor, whatever it is; takes no pointer.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // The standard library, tokio, rustix and socket2 open everything with close-on-exec, so a descriptor with
    // the flag has an owner in this process.
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: sets the flags of a descriptor that is open; takes no pointer.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open and came through exec, so nothing in this process owns it; the flag that was just set
    // prevents a second call from adopting it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Watches a descriptor in the current thread's tokio runtime.
///
/// # Errors
/// Those of `epoll_ctl`; `EPERM` for a plain file.
pub fn watch<T: AsFd>(fd: Owned<T>, interest: Interest) -> io::Result<AsyncFd<Owned<T>>> {
    // SAFETY: `Owned` keeps the same descriptor open as long as it exists, because it never gives out its value
    // mutably, and the registration owns it.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

/// An owner whose descriptor cannot be replaced while it is watched.
#[derive(Debug)]
pub struct Owned<T>(T);

impl<T: AsFd> Owned<T> {
    /// Wraps it.
    pub fn new(owner: T) -> Self {
        Self(owner)
    }

    /// The owner, no longer watched.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsFd> AsFd for Owned<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<T: AsFd> AsRawFd for Owned<T> {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

fn socklen(size: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(size).expect("the size of a small struct")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_new_connection_has_nothing_unacknowledged_and_read_data_is_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let info = tcp_info(client.as_fd()).unwrap();
        assert_eq!((info.unacked, info.notsent_bytes, info.probes), (0, 0, 0));
        client.write_all(b"hello").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(unacknowledged(client.as_fd()).unwrap(), 0);
        assert!(tcp_info(client.as_fd()).unwrap().last_ack_recv < Duration::from_secs(5));
    }

    #[test]
    fn a_socket_that_is_not_tcp_has_no_tcp_info() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(tcp_info(one.as_fd()).is_err());
    }
}
