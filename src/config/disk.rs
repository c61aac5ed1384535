//! Reads the files of a configuration. Only this part of `config` opens them.
//!
//! Invariant: nothing here waits for another process. Reading a FIFO, a device or a socket could block for
//! ever, so only regular files are read; they are opened with `O_NONBLOCK`, because some regular files of /proc
//! block too. The only exception is a pipe on the command line of `rlb check`, which has [`PIPE_MAX`].

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use std::fs::{File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long reading a pipe to its end may take.
pub(super) const PIPE_MAX: Duration = Duration::from_millis(1500);

/// The path of a file that may not exist yet, without symbolic links in its folder. The path itself, where the folder
/// cannot be looked at.
pub fn real_path(path: &Path) -> PathBuf {
    let (folder, name) = (path.parent(), path.file_name());
    let folder = folder.and_then(|folder| std::fs::canonicalize(folder).ok());
    match (folder, name) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

/// The text of a regular file of at most `max` bytes, or why it cannot be read.
pub(super) fn text(path: &Path, max: u64) -> Result<String, String> {
    bytes(path, max, &mut 0).and_then(utf8)
}

/// The content of a regular file of at most `max` bytes, or why it cannot be read. Adds to `cost` the bytes that it
/// has read, whatever the result is.
pub(super) fn bytes(path: &Path, max: u64, cost: &mut u64) -> Result<Vec<u8>, String> {
    // Opening a device may already have an effect.
    let kind = std::fs::metadata(path).map_err(|error| error.to_string())?;
    regular(kind.file_type())?;
    let file = open(path).map_err(|error| error.to_string())?;
    // Another file may have this name now.
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    regular(metadata.file_type())?;
    if metadata.len() > max {
        return Err(too_large(max));
    }
    let mut bytes = Vec::new();
    let read = file.take(max + 1).read_to_end(&mut bytes);
    *cost += bytes.len() as u64;
    read.map_err(|error| error.to_string())?;
    not_larger(bytes, max)
}

/// The same for a file that may be a pipe: `rlb check <(command)`, `rlb check /dev/stdin`.
pub(super) fn bytes_or_pipe(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    let is_pipe = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    if !is_pipe {
        return bytes(path, max, &mut 0);
    }
    let bytes = open(path).and_then(|file| read_pipe(file, max));
    not_larger(bytes.map_err(|error| error.to_string())?, max)
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

fn read_pipe(mut pipe: File, max: u64) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PIPE_MAX;
    let late = || {
        let message = format!("it is a pipe, and its end did not come within {PIPE_MAX:?}");
        io::Error::new(ErrorKind::TimedOut, message)
    };
    let mut bytes = Vec::new();
    while bytes.len() as u64 <= max {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        // Before a writer has opened the pipe, a read would return 0 as at its end.
        let mut waiting = [PollFd::new(&pipe, PollFlags::IN)];
        if left.is_zero() || poll(&mut waiting, Some(&timeout))? == 0 {
            return Err(late());
        }
        let mut chunk = [0; 4096];
        match pipe.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Refuses everything except a regular file.
fn regular(kind: FileType) -> Result<(), String> {
    let other = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(format!("it is {other}, not a regular file"))
}

fn too_large(max: u64) -> String {
    format!("it is larger than {max} bytes")
}

fn not_larger(bytes: Vec<u8>, max: u64) -> Result<Vec<u8>, String> {
    if bytes.len() as u64 > max {
        Err(too_large(max))
    } else {
        Ok(bytes)
    }
}

/// Bytes as text, or where they are none.
pub(super) fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid]
            .split(|byte| *byte == b'\n')
            .count();
        format!("it is not UTF-8 in line {line}")
    })
}
