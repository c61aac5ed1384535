//! The files that this program was loaded from: `-dL` lists them, `-dA` copies them into an archive that a debugger can
//! be given together with a core. A static program is one file.

use super::messages::text;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A block of an archive in the format of tar.
const BLOCK: usize = 512;
/// Most bytes of a name in a header.
const NAME_MAX: usize = 100;

/// The program, and the libraries that it is linked with.
///
/// # Errors
/// When the kernel does not tell.
pub(super) fn list() -> io::Result<Vec<PathBuf>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut found = Vec::new();
    for line in maps.lines() {
        // ADDRESSES RIGHTS OFFSET DEVICE INODE PATH
        let mut fields = line.split_ascii_whitespace();
        let rights = fields.nth(1).unwrap_or_default();
        let path = line.find('/').map(|at| PathBuf::from(&line[at..]));
        if let Some(path) = path.filter(|_| rights.contains('x'))
            && !found.contains(&path)
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// Why there is no archive, in HAProxy's words.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    /// It cannot be made.
    #[error("Cannot create output file to dump dependencies: {}.", text(.0))]
    Create(io::Error),
    /// It cannot be written, or a file not be read.
    #[error("Failed to write dependencies to output file: {}.", text(.0))]
    Write(io::Error),
}

/// Writes `files` into an archive at `path`.
///
/// # Errors
/// When one of them cannot be read, or the archive not be written.
pub(super) fn copy(files: &[PathBuf], path: &Path) -> Result<(), CopyError> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o700);
    let archive = options.open(path).map_err(CopyError::Create)?;
    write(files, archive).map_err(CopyError::Write)
}

fn write(files: &[PathBuf], archive: File) -> io::Result<()> {
    let mut archive = BufWriter::new(archive);
    for file in files {
        let mut source = File::open(file)?;
        let length = source.metadata()?.len();
        archive.write_all(&header(file, length)?)?;
        let copied = io::copy(&mut Read::by_ref(&mut source).take(length), &mut archive)?;
        let block = BLOCK as u64;
        let end = length.next_multiple_of(block);
        // A file that has become shorter is filled up.
        io::copy(&mut io::repeat(0).take(end - copied), &mut archive)?;
    }
    archive.write_all(&[0; 2 * BLOCK])?;
    archive.flush()
}

/// The header of a regular file.
fn header(file: &Path, length: u64) -> io::Result<[u8; BLOCK]> {
    let name = file.as_os_str().as_bytes();
    let name = name.strip_prefix(b"/").unwrap_or(name);
    if name.len() > NAME_MAX {
        let text = format!("`{}` is too long a name for the archive", file.display());
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, text));
    }
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, b"0000555\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{length:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    // The sum is that of a header with blanks in its place.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}
