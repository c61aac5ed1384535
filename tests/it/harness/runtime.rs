//! A balancer with a runtime socket, and commands on it.

use super::client::TIMEOUT;
use super::config::Config;
use super::rlb::Rlb;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A balancer over `servers` with a runtime socket.
pub(crate) struct Fixture {
    pub(crate) rlb: Rlb,
    pub(crate) config: Config,
    dir: TempDir,
}

impl Fixture {
    /// Starts it; clients of the socket may do what `level` allows.
    pub(crate) fn new(config: Config, level: &str) -> Self {
        Self::with(config, level, "")
    }

    /// The same with further lines of `[runtime-api]`.
    pub(crate) fn with(config: Config, level: &str, lines: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("admin.sock");
        let table = format!(
            "[runtime-api]\nsocket = \"{}\"\nlevel = \"{level}\"\n{lines}",
            socket.display()
        );
        let config = config.table(&table);
        Self {
            rlb: Rlb::start(&config),
            config,
            dir,
        }
    }

    /// The path of the socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// The answer to a line.
    pub(crate) fn ask(&self, line: &str) -> String {
        ask(&self.socket(), line)
    }
}

/// The answer of a runtime socket to a line; also for HAProxy's.
pub(crate) fn ask(socket: &Path, line: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("the socket is there");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    writeln!(stream, "{line}").expect("sent");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("answered and closed");
    answer
}
