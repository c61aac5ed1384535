//! Unix sockets: their addresses, the files that stand for them, and listening on one.
//!
//! Usable from any thread; no call here waits for another process.

use super::super::users;
use super::{Options, backlog};
use socket2::{Domain, SockAddr, Socket, Type};
use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(super) fn listen(path: &Path, options: &Options) -> io::Result<Socket> {
    let address = unix_address(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !is_abstract(path) => {
            remove_left_over(path, &address)?;
            socket.bind(&address)?;
        }
        result => result?,
    }
    let file = UnusedFile::of(path);
    set_mode(path, options)?;
    socket.listen(backlog(options.backlog))?;
    if let Some(file) = file {
        file.keep();
    }
    Ok(socket)
}

/// The file of a new unix socket that is not in use yet. Dropping it removes the file, if it is still there.
#[derive(Debug)]
pub struct UnusedFile {
    path: PathBuf,
    /// `None`: it is kept.
    id: Option<FileId>,
}

impl UnusedFile {
    /// The file at `path`, where a socket has been bound just now. `None`: it has none.
    pub fn of(path: &Path) -> Option<Self> {
        if is_abstract(path) {
            return None;
        }
        let id = file_id(path).ok()?;
        let path = path.to_owned();
        id.map(|id| Self { path, id: Some(id) })
    }

    /// It is in use from now on.
    pub fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for UnusedFile {
    fn drop(&mut self) {
        let mine = self.id.is_some();
        if mine && file_id(&self.path).is_ok_and(|now| now == self.id) {
            // What cannot be removed is replaced the next time.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Gives the file of a unix socket the owner and the mode of `options`, if they have them.
///
/// # Errors
/// Those of `chown` and `chmod`; when there is no such user or group.
pub fn set_mode(path: &Path, options: &Options) -> io::Result<()> {
    if is_abstract(path) {
        return Ok(());
    }
    let (owner, group) = &options.owner;
    let owner = owner.as_deref().map(users::user).transpose()?;
    let group = group.as_deref().map(users::group).transpose()?;
    if owner.is_some() || group.is_some() {
        std::os::unix::fs::chown(path, owner, group)?;
    }
    if let Some(mode) = options.mode {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Begins an abstract name that is padded with zeros, as HAProxy writes it.
const PADDED: &[u8] = b"abns@";
/// The kernel's room for a path or an abstract name.
const ROOM: usize = 108;

/// The address of a unix socket: a path, an abstract name that begins with `@`, or one that begins with `abns@` and is
/// padded with zeros to the whole room, as HAProxy pads it.
///
/// # Errors
/// When the path is longer than the kernel allows (107 bytes).
pub fn unix_address(path: &Path) -> io::Result<SockAddr> {
    SockAddr::unix(system_path(path))
}

/// A unix address as the kernel wants it: an abstract name begins with a zero byte.
pub fn system_path(path: &Path) -> Cow<'_, Path> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    if !is_abstract(path) {
        return Cow::Borrowed(path);
    }
    let bytes = path.as_os_str().as_bytes();
    let name = match bytes.strip_prefix(PADDED) {
        Some(name) => {
            let mut padded = [&[0], name].concat();
            padded.resize(padded.len().max(ROOM), 0);
            padded
        }
        None => [&[0], &bytes[1..]].concat(),
    };
    Cow::Owned(std::ffi::OsString::from_vec(name).into())
}

/// Whether a unix address has no file.
pub fn is_abstract(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    bytes.starts_with(b"@") || bytes.starts_with(PADDED)
}

/// Removes the socket at `path` if no process listens on it, because a killed process leaves its socket file.
///
/// # Errors
/// `AddrInUse` when somebody listens on it; `AlreadyExists` when it is something other than a socket.
fn remove_left_over(path: &Path, address: &SockAddr) -> io::Result<()> {
    match file_id(path)? {
        // It was removed meanwhile.
        None => return Ok(()),
        Some(found) if !found.is_socket => {
            let text =
                "a file that is not a socket has this path; remove it or choose another path";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Some(_) if is_listened_on(address) => return Err(io::ErrorKind::AddrInUse.into()),
        Some(_) => {}
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether somebody listens on a unix address. Does not wait: a listener with a full queue answers `EAGAIN`.
pub fn is_listened_on(address: &SockAddr) -> bool {
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|probe| {
        probe.set_nonblocking(true)?;
        probe.connect(address)
    });
    !matches!(probe, Err(error) if matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
    ))
}

/// Identifies the file at a path; links are not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
    /// When it was made, where the file system knows: an inode's number is soon another file's.
    born: Option<SystemTime>,
    /// Whether it is a socket.
    pub is_socket: bool,
}

/// The file at `path`; `None`: there is none.
///
/// # Errors
/// Those of `lstat`, except that the file does not exist.
pub fn file_id(path: &Path) -> io::Result<Option<FileId>> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(FileId {
            device: found.dev(),
            inode: found.ino(),
            born: found.created().ok(),
            is_socket: found.file_type().is_socket(),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::options;
    use super::super::{Address, accept, listen};
    use super::*;
    use std::time::Duration;

    /// A reload that was refused left the files of its sockets behind.
    #[test]
    fn the_file_of_a_socket_that_is_not_used_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let address = Address::Unix(path.clone());
        let mut wrong = options(address.clone());
        wrong.owner = (Some("no-such-user".into()), None);
        listen(&wrong, 1).unwrap_err();
        assert!(!path.exists(), "it was bound and never listened");
        let socket = listen(&options(address.clone()), 1).unwrap();
        drop(UnusedFile::of(&path));
        assert!(!path.exists());
        drop(socket);
        let _socket = listen(&options(address), 1).unwrap();
        UnusedFile::of(&path).unwrap().keep();
        assert!(path.exists());
        let unused = UnusedFile::of(&path);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(unused);
        assert!(path.exists());
        assert!(UnusedFile::of(std::path::Path::new("@name")).is_none());
    }

    #[test]
    fn a_left_over_unix_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = listen(&options(Address::Unix(path.clone())), 1).unwrap();
        let error = listen(&options(Address::Unix(path.clone())), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(path.exists());
        assert_eq!(listen(&options(Address::Unix(path)), 2).unwrap().len(), 2);
    }

    /// Fault 12: the probe waited without end for a process that does not accept.
    #[test]
    fn a_listener_whose_queue_is_full_is_not_waited_for_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let address = unix_address(&path).unwrap();
        let full = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        full.bind(&address).unwrap();
        full.listen(0).unwrap();
        let mut waiting = Vec::new();
        loop {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            match client.connect(&address) {
                Ok(()) => waiting.push(client),
                Err(error) => break assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || done.send(listen(&options(Address::Unix(path)), 1).map(drop)));
        let answer = answer.recv_timeout(Duration::from_secs(10));
        let error = answer.expect("an answer at once").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    /// Fault 34: any file at the path of a unix socket was deleted.
    #[test]
    fn a_file_that_is_not_a_socket_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "precious").unwrap();
        let target = dir.path().join("target");
        // A socket that nobody listens on, behind a link.
        drop(listen(&options(Address::Unix(target.clone())), 1).unwrap());
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let directory = dir.path().join("directory");
        std::fs::create_dir(&directory).unwrap();
        for path in [&file, &link, &directory] {
            let error = listen(&options(Address::Unix(path.clone())), 1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{path:?}");
            assert!(error.to_string().contains("not a socket"), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
        assert_eq!(std::fs::read_link(&link).unwrap(), target);
        assert!(directory.is_dir());
    }

    #[test]
    fn a_padded_name_has_the_whole_room() {
        let address = unix_address(Path::new("abns@name")).unwrap();
        let name = address.as_abstract_namespace().unwrap();
        assert_eq!((name.len(), &name[..5]), (ROOM - 1, &b"name\0"[..]));
        let other = unix_address(Path::new("@name")).unwrap();
        assert_eq!(other.as_abstract_namespace(), Some(&b"name"[..]));
        assert!(is_abstract(Path::new("abns@name")));
    }

    #[test]
    fn an_abstract_name_has_no_file() {
        let name = format!("@rlb-test-{}", std::process::id());
        let shards = listen(&options(Address::Unix(name.clone().into())), 1).unwrap();
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        client
            .connect(&unix_address(Path::new(&name)).unwrap())
            .unwrap();
        assert!(accept(&shards[0]).is_ok());
    }
}
