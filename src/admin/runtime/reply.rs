//! The answers of the runtime socket, and how they are written. Admin thread.

use crate::config::model::ApiLevel;
use std::borrow::Cow;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// A client has the timeout to take this many bytes.
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
    /// A result that a person may want to see, HAProxy's `LOG_NOTICE`.
    Notice(Cow<'static, str>),
    /// A result that may not be what was wanted, HAProxy's `LOG_WARNING`.
    Warning(Cow<'static, str>),
    /// The command failed, and why: HAProxy's `LOG_ERR`.
    Error(Cow<'static, str>),
    /// A reload or an upgrade failed: `Success=0`, and why.
    NotDone(String),
}

impl Reply {
    /// A result that a person may want to see.
    pub(super) fn notice(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Notice(text.into())
    }

    /// Information.
    pub(super) fn info(text: impl Into<String>) -> Self {
        Self::Info(text.into())
    }

    /// A result that may not be what was wanted.
    pub(super) fn warning(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Warning(text.into())
    }

    /// A failure.
    pub(super) fn error(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Error(text.into())
    }

    /// Why the command failed; `None` when it did not.
    pub(super) fn failure(&self) -> Option<&str> {
        match self {
            Self::Error(text) => Some(text.trim_end()),
            Self::NotDone(text) => Some(text.trim_end()),
            _ => None,
        }
    }
}

/// The severity prefix of answers, HAProxy's `set severity-output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeverityOutput {
    /// None.
    None,
    /// `[3]: ` before an error, `[4]: ` before a warning, `[5]: ` before a notice, `[6]: ` before information.
    Number,
    /// `[err]: `, `[warning]: `, `[notice]: ` and `[info]: `.
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

    /// The word of `set severity-output`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Number => "number",
            Self::String => "string",
        }
    }

    /// The prefix of an answer of this level of syslog(3).
    fn mark(self, level: Level) -> String {
        match self {
            Self::None => String::new(),
            Self::Number => format!("[{}]: ", level as u8),
            Self::String => format!("[{}]: ", level.name()),
        }
    }
}

/// How severe an answer is, as in syslog(3).
#[derive(Debug, Clone, Copy)]
enum Level {
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "err",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
        }
    }
}

/// Writes to one connection, with the client's settings.
pub(super) struct ReplyWriter {
    stream: Box<dyn AsyncWrite + Unpin>,
    /// Longest silence of the client, and longest time that it may take for a chunk.
    pub(super) timeout: Duration,
    /// The same, when the client has set it.
    pub(super) own_timeout: Option<Duration>,
    /// Another line is read after each.
    pub(super) interactive: bool,
    /// A prompt follows each reply.
    pub(super) prompt: bool,
    /// The prompt shows how long the process has run.
    pub(super) timed: bool,
    /// The highest level of this client, to which it has lowered itself.
    pub(super) level_max: ApiLevel,
    /// The severity prefix.
    pub(super) severity: SeverityOutput,
}

impl ReplyWriter {
    /// For a connection that was just accepted.
    pub(super) fn new(stream: Box<dyn AsyncWrite + Unpin>, timeout: Duration) -> Self {
        Self {
            stream,
            timeout,
            own_timeout: None,
            interactive: false,
            prompt: false,
            timed: false,
            level_max: ApiLevel::Admin,
            severity: SeverityOutput::None,
        }
    }

    /// Writes a reply with its prefix.
    ///
    /// # Errors
    /// Those of [`ReplyWriter::write`].
    pub(super) async fn send(&mut self, reply: Reply) -> io::Result<()> {
        let (level, text) = match reply {
            Reply::Done => return Ok(()),
            Reply::Text(text) | Reply::NotDone(text) => return self.write(&text).await,
            Reply::Info(text) => (Level::Info, Cow::Owned(text)),
            Reply::Notice(text) => (Level::Notice, text),
            Reply::Warning(text) => (Level::Warning, text),
            Reply::Error(text) => (Level::Error, text),
        };
        self.write(&self.severity.mark(level)).await?;
        self.write(&text).await
    }

    /// Ends the reply to a command: an empty line.
    ///
    /// # Errors
    /// Those of [`ReplyWriter::write`].
    pub(super) async fn end(&mut self) -> io::Result<()> {
        self.write("\n").await
    }

    /// Writes the prompt after the last reply to a line, if there is one. `seconds`: how long the process has run.
    ///
    /// # Errors
    /// Those of [`ReplyWriter::write`].
    pub(super) async fn write_prompt(&mut self, seconds: u32) -> io::Result<()> {
        let prompt = self.prompt_text(seconds);
        self.write(&prompt).await
    }

    fn prompt_text(&self, seconds: u32) -> String {
        match (self.prompt, self.timed) {
            (false, _) => String::new(),
            (true, false) => "> ".to_owned(),
            (true, true) => format!("[{}]> ", uptime(seconds)),
        }
    }

    /// Writes all of `text`.
    ///
    /// # Errors
    /// When the client has gone, or does not take a chunk within the timeout.
    pub(super) async fn write(&mut self, text: &str) -> io::Result<()> {
        self.write_bytes(text.as_bytes()).await
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As [`ReplyWriter::write`].
    pub(super) async fn write_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(CHUNK_BYTES) {
            timeout(self.timeout, self.stream.write_all(chunk)).await??;
        }
        Ok(())
    }
}

/// How long the process has run: days, hours, minutes and seconds.
fn uptime(seconds: u32) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    format!("{days}:{hours:02}:{minutes:02}:{seconds:02}")
}
