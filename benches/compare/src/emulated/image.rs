//! An initramfs in memory: the "newc" format of cpio, as in the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
/// Fields are padded to this.
const ALIGNMENT: usize = 4;

/// The archive as it is built.
#[derive(Default)]
pub struct Image {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Image {
    /// Adds a folder and its parents.
    pub fn folder(&mut self, path: &str) {
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1);
        for end in ends.chain([path.len()]) {
            self.entry(&path[..end], FOLDER | 0o755, &[]);
        }
    }

    /// Adds a file, unless the path exists already.
    pub fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        if let Some((folder, _)) = path
            .rsplit_once('/')
            .filter(|(folder, _)| !folder.is_empty())
        {
            self.folder(folder);
        }
        self.entry(path, FILE | mode, &content);
    }

    /// Adds a program under a path, and the libraries that it loads under their own paths.
    pub fn program(&mut self, source: &Path, path: &Path) -> Result<()> {
        let content = fs::read(source).with_context(|| format!("no {}", source.display()))?;
        self.file(path.to_str().context("a path is no text")?, 0o755, content);
        // ldd fails for a static program and prints nothing to standard output.
        let ldd = Command::new("ldd").arg(source).output()?;
        for line in String::from_utf8(ldd.stdout)?.lines() {
            ensure!(!line.contains("not found"), "{}: {line}", source.display());
            let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) else {
                continue;
            };
            if !self.names.contains(library) && Path::new(library) != source {
                self.file(library, 0o755, fs::read(library)?);
            }
        }
        Ok(())
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("/TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        if !self.names.insert(path.to_owned()) {
            return;
        }
        let name = path.trim_start_matches('/');
        // inode, mode, uid, gid, links, time, size, four device numbers, name's size, checksum
        let (inode, size) = (self.names.len(), content.len());
        let header = [
            inode,
            mode as usize,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in header {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Image;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn busybox_reads_what_is_packed() {
        let mut image = Image::default();
        image.file("/etc/deep/file", 0o644, b"12345".to_vec());
        image.file("/etc/other", 0o644, Vec::new());
        let mut child = Command::new("/bin/busybox")
            .args(["cpio", "-t"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(&image.finish())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let names = String::from_utf8(output.stdout).unwrap();
        assert_eq!(names, "etc\netc/deep\netc/deep/file\netc/other\n");
    }
}
