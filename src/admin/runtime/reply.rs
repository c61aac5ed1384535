//! The answers of the runtime socket, and how they are written. Admin thread.

use super::CLI_TIMEOUT;
use crate::config::model::ApiLevel;
use std::borrow::Cow;
use std::io;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::time::timeout;

/// A client has [`CLI_TIMEOUT`] to take this many bytes.
const CHUNK_BYTES: usize = 16 * 1024;

/// The answer to a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Done, without text.
    Done,
    /// Data, never marked with a severity.
    Text(String),
    /// Information, HAProxy's `LOG_INFO`.
    Info(String),
    /// The command failed, and why: HAProxy's `LOG_ERR`.
    Error(Cow<'static, str>),
    /// A reload or an upgrade failed: `Success=0`, and why.
    NotDone(String),
}

impl Reply {
    /// A failure.
    pub(super) fn error(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Error(text.into())
    }

    /// Why the command failed; `None` when it did not.
    pub(super) fn failure(&self) -> Option<&str> {
        match self {
            Self::Error(text) => Some(text.trim_end()),
            Self::NotDone(text) => Some(text.trim_end()),
            Self::Done | Self::Text(_) | Self::Info(_) => None,
        }
    }
}

/// The severity prefix of answers, HAProxy's `set severity-output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeverityOutput {
    /// None.
    None,
    /// `[3]: ` before an error, `[6]: ` before information.
    Number,
    /// `[err]: ` and `[info]: `.
    String,
}

impl SeverityOutput {
    /// Parses a client's word; the error is HAProxy's answer to an unknown one.
    pub(super) fn parse(word: Option<&str>) -> Result<Self, &'static str> {
        match word {
            Some("none") => Ok(Self::None),
            Some("number") => Ok(Self::Number),
            Some("string") => Ok(Self::String),
            _ => Err("one of 'none', 'number', 'string' is a required argument\n"),
        }
    }

    /// The prefix of an error or of information.
    fn mark(self, is_error: bool) -> &'static str {
        match (self, is_error) {
            (Self::None, _) => "",
            (Self::Number, true) => "[3]: ",
            (Self::Number, false) => "[6]: ",
            (Self::String, true) => "[err]: ",
            (Self::String, false) => "[info]: ",
        }
    }
}

/// Writes to one connection, with the client's settings.
pub(super) struct ReplyWriter {
    stream: OwnedWriteHalf,
    /// A prompt follows each reply, and another line is read.
    pub(super) interactive: bool,
    /// The highest level of this client, to which it has lowered itself.
    pub(super) level_max: ApiLevel,
    /// The severity prefix.
    pub(super) severity: SeverityOutput,
}

impl ReplyWriter {
    /// For a connection that was just accepted.
    pub(super) fn new(stream: OwnedWriteHalf) -> Self {
        Self {
            stream,
            interactive: false,
            level_max: ApiLevel::Admin,
            severity: SeverityOutput::None,
        }
    }

    /// Writes a reply with its prefix.
    ///
    /// # Errors
    /// Those of [`ReplyWriter::write`].
    pub(super) async fn send(&mut self, reply: Reply) -> io::Result<()> {
        let (is_error, text) = match reply {
            Reply::Done => return Ok(()),
            Reply::Text(text) | Reply::NotDone(text) => return self.write(&text).await,
            Reply::Info(text) => (false, Cow::Owned(text)),
            Reply::Error(text) => (true, text),
        };
        self.write(self.severity.mark(is_error)).await?;
        self.write(&text).await
    }

    /// Writes all of `text`.
    ///
    /// # Errors
    /// When the client has gone, or does not take a chunk within [`CLI_TIMEOUT`].
    pub(super) async fn write(&mut self, text: &str) -> io::Result<()> {
        for chunk in text.as_bytes().chunks(CHUNK_BYTES) {
            timeout(CLI_TIMEOUT, self.stream.write_all(chunk)).await??;
        }
        Ok(())
    }
}
