//! HAProxy's framing: one line, commands separated by semicolons, words separated by blanks. A backslash
//! escapes the next character. Admin thread; everything except [`Lines`] is pure.

use super::LINE_BYTES_MAX;
use crate::sys::socket::is_hung_up;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{tcp, unix};
use tokio::time::sleep;

/// Bytes read at once.
const READ_BYTES: usize = 1024;
/// How often it is looked whether the client is there while a command runs.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The reading half of a client's connection.
pub(super) enum Input {
    Unix(unix::OwnedReadHalf),
    Tcp(tcp::OwnedReadHalf),
}

impl Input {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(half) => half.read(buffer).await,
            Self::Tcp(half) => half.read(buffer).await,
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Unix(half) => half.readable().await,
            Self::Tcp(half) => half.readable().await,
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(half) => half.try_read(buffer),
            Self::Tcp(half) => half.try_read(buffer),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(half) => half.as_ref().as_fd(),
            Self::Tcp(half) => half.as_ref().as_fd(),
        }
    }
}

/// The lines of a connection.
pub(super) struct Lines {
    input: Input,
    /// Bytes that were read and not used yet.
    waiting: Vec<u8>,
}

impl Lines {
    pub(super) fn new(input: Input) -> Self {
        Self {
            input,
            waiting: Vec::new(),
        }
    }

    /// Completes when the client has closed or reset its connection. A client that has only ended what it sends
    /// waits for its answers.
    pub(super) async fn gone(&self) {
        loop {
            sleep(LOOK_EVERY).await;
            if is_hung_up(self.input.as_fd()) {
                return;
            }
        }
    }

    /// Whether something is read behind the last line.
    pub(super) fn has_more(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Completes when the client has sent something, which is thrown away, when it has ended what it sends, and when it
    /// has gone.
    pub(super) async fn drained(&self) {
        loop {
            // What fails is found by whoever reads or writes next.
            let _ = self.input.readable().await;
            match self.drain() {
                Ok(0) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Throws away what the client has sent; how many bytes. An error: there will be no more.
    fn drain(&self) -> io::Result<usize> {
        let (mut buffer, mut length) = ([0; READ_BYTES], 0);
        while length < LINE_BYTES_MAX {
            match self.input.try_read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(length)
    }

    /// The next line without its end. `None` at the end of the stream: as in HAProxy an incomplete line is
    /// dropped, because its client may have been cut off.
    ///
    /// # Errors
    /// `InvalidData` for a line of more than [`LINE_BYTES_MAX`] bytes.
    pub(super) async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.waiting.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.waiting.drain(..=end).collect();
                return Ok(Some(text(&line)));
            }
            if self.waiting.len() > LINE_BYTES_MAX {
                let message = format!("A line is {LINE_BYTES_MAX} bytes long at most.");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            let mut buffer = [0; READ_BYTES];
            let length = self.input.read(&mut buffer).await?;
            if length == 0 {
                return Ok(None);
            }
            self.waiting.extend_from_slice(&buffer[..length]);
        }
    }
}

fn text(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.trim_end_matches(['\r', '\n']).to_owned()
}

/// The commands of a line. As in HAProxy an empty one is a command too, whose reply is an empty line.
pub(super) fn commands(line: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut escaped = false;
    for character in line.chars() {
        let last = all.len() - 1;
        if character == ';' && !escaped {
            all.push(String::new());
            continue;
        }
        all[last].push(character);
        escaped = character == '\\' && !escaped;
    }
    all
}

/// The words of a command, without escapes.
pub(super) fn words(command: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = command.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' => all.extend(word.take()),
            '\\' => {
                let taken = characters.next().unwrap_or('\\');
                word.get_or_insert_default().push(taken);
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    all.extend(word);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_separate_commands_and_blanks_words() {
        assert_eq!(commands("show info;show stat"), ["show info", "show stat"]);
        assert_eq!(commands("show info;"), ["show info", ""]);
        assert_eq!(commands(";;"), ["", "", ""]);
        assert_eq!(commands(""), [""]);
        assert_eq!(commands("a\\;b; c"), ["a\\;b", " c"]);
        assert_eq!(words("  set\tserver  b/s "), ["set", "server", "b/s"]);
        assert_eq!(words("a\\;b c\\ d \\\\"), ["a;b", "c d", "\\"]);
        assert!(words("   ").is_empty());
    }
}
