//! Replaces server-state files. A thread of the pool.

use super::read::open;
use crate::state::{BackendId, Snapshot};
use crate::stats::servers_state;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind::NotFound;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A file, and the name of the backend whose servers are in it; `None`: all servers.
pub(super) type Target = (PathBuf, Option<Box<str>>);

/// What has come of a file.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) path: PathBuf,
    pub(super) result: io::Result<()>,
}

/// The files of a configuration with `wanted` backends.
pub(super) fn targets(snapshot: &Snapshot, wanted: impl Fn(BackendId) -> bool) -> Vec<Target> {
    let files = &snapshot.state_files;
    let backends = snapshot.backends.iter().flatten();
    let local = backends.filter(|backend| wanted(backend.id));
    let local = local.filter_map(|backend| {
        let path = files.local(&backend.spec)?;
        Some((path, Some(Box::from(&*backend.spec.name))))
    });
    let global = files.global().map(|path| (path, None));
    global.into_iter().chain(local).collect()
}

/// Writes them with the states of `snapshot`. `last`: the process ends, and does not wait for the disk.
pub(super) fn write(
    targets: Vec<Target>,
    snapshot: &Snapshot,
    (now, last): (Instant, bool),
) -> Vec<Written> {
    let one = |(path, only): Target| {
        let backends = snapshot.backends.iter().flatten().filter(|backend| {
            let name = &*backend.spec.name;
            only.as_deref().is_none_or(|only| only == name)
        });
        let text = servers_state::file(backends.map(|backend| &**backend), now);
        let result = replace(&path, &text, last);
        Written { path, result }
    };
    targets.into_iter().map(one).collect()
}

/// Replaces a file by one beside it. A link leads to the file that is replaced.
fn replace(path: &Path, text: &str, last: bool) -> io::Result<()> {
    let path = match fs::canonicalize(path) {
        Ok(path) => path,
        // A link that leads nowhere is replaced by nothing.
        Err(error) if error.kind() == NotFound && !path.is_symlink() => path.to_owned(),
        Err(error) => return Err(error),
    };
    may_be_replaced(&path)?;
    let mut next = path.clone().into_os_string();
    // An old process may be writing still.
    next.push(format!(".{}.new", std::process::id()));
    let next = PathBuf::from(next);
    let replaced = fill(&next, text, last).and_then(|()| fs::rename(&next, &path));
    if replaced.is_err() {
        // It may not be there.
        let _ = fs::remove_file(&next);
    }
    replaced
}

/// What has no states is somebody else's.
fn may_be_replaced(path: &Path) -> io::Result<()> {
    let mut begin = [0; 2];
    let length = match open(path) {
        Ok(mut file) => file.read(&mut begin)?,
        Err(error) if error.kind() == NotFound => 0,
        Err(error) => return Err(error),
    };
    if [&b""[..], b"1\n"].contains(&&begin[..length]) {
        return Ok(());
    }
    Err(io::Error::other("it is no server-state file"))
}

/// Makes the file. It is on the disk afterwards, so that no power failure leaves an empty one in the place of a full one;
/// `last`: soon.
fn fill(path: &Path, text: &str, last: bool) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o644);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    if last { Ok(()) } else { file.sync_data() }
}
