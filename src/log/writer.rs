//! One `[[log.target]]`: filters by level, formats a line, and gives it to its sink. Runs on the log thread.
//!
//! Invariant: a line is at most [`LINE_MAX`] bytes long and contains no control character except its end, so
//! that logged text cannot forge a second line.

use super::datagram::Datagram;
use super::output::{Destination, LINE_MAX, Losses, Output};
use super::syslog::Header;
use crate::config::model::{LogSink, LogTarget, Severity};
use crate::live::log_queue::SeverityCode;
use jiff::Zoned;
use std::fmt::Write;
use std::time::Instant;

/// A configured target.
#[derive(Debug)]
pub(super) struct Target {
    /// Its name in messages, as in the configuration.
    pub(super) name: String,
    level: SeverityCode,
    header: Header,
    sink: Sink,
    line: String,
}

#[derive(Debug)]
enum Sink {
    Stream(Output),
    Datagram(Datagram),
}

impl Target {
    /// The target `spec`; its lines begin with `header`.
    ///
    /// # Errors
    /// When a unix socket's path is too long for an address.
    pub(super) fn new(spec: &LogTarget, header: Header) -> std::io::Result<Self> {
        let sink = match &spec.sink {
            LogSink::Stdout => Sink::Stream(Output::new(Destination::Stdout)),
            LogSink::Stderr => Sink::Stream(Output::new(Destination::Stderr)),
            LogSink::File(path) => Sink::Stream(Output::new(Destination::File(path.clone()))),
            LogSink::Unix(path) => Sink::Datagram(Datagram::unix(path)?),
            LogSink::Udp(address) => Sink::Datagram(Datagram::udp(*address)),
        };
        Ok(Self {
            name: spec.sink.to_string(),
            level: spec.level as SeverityCode,
            header,
            sink,
            line: String::new(),
        })
    }

    /// Opens it before the first line.
    ///
    /// # Errors
    /// When a file cannot be opened. A syslog socket that cannot be connected now only causes a warning.
    pub(super) fn open(&mut self) -> std::io::Result<()> {
        match &mut self.sink {
            Sink::Stream(output) => output.open(),
            Sink::Datagram(datagram) => {
                if let Err(error) = datagram.open() {
                    tracing::warn!(target = self.name, %error, "log target cannot be used yet");
                }
                Ok(())
            }
        }
    }

    /// Sets the level and the header from now on.
    pub(super) fn set_level_and_header(&mut self, level: Severity, header: Header) {
        self.level = level as SeverityCode;
        self.header = header;
    }

    /// Whether lines of `severity` are written.
    pub(super) fn takes(&self, severity: SeverityCode) -> bool {
        severity <= self.level
    }

    /// Writes one line, or drops it.
    pub(super) fn write(&mut self, severity: SeverityCode, now: &Zoned, text: &str) {
        self.line.clear();
        self.header.write(&mut self.line, severity, now);
        push_printable(&mut self.line, text);
        truncate(&mut self.line, LINE_MAX - 1);
        self.line.push('\n');
        match &mut self.sink {
            Sink::Stream(output) => output.push(self.line.as_bytes(), true),
            Sink::Datagram(datagram) => datagram.push(self.line.as_bytes()),
        }
    }

    /// Writes what can be written without waiting. `true`: nothing is left.
    pub(super) fn flush(&mut self) -> bool {
        match &mut self.sink {
            Sink::Stream(output) => output.flush(),
            Sink::Datagram(datagram) => {
                datagram.flush();
                true
            }
        }
    }

    /// Writes what is left until `deadline`, then drops and counts the rest.
    pub(super) fn finish(&mut self, deadline: Instant) {
        match &mut self.sink {
            Sink::Stream(output) => {
                if !output.flush_until(deadline) {
                    output.abandon();
                }
            }
            Sink::Datagram(datagram) => datagram.finish(),
        }
    }

    /// What was dropped since the last call.
    pub(super) fn losses(&mut self) -> Losses {
        match &mut self.sink {
            Sink::Stream(output) => output.losses(),
            Sink::Datagram(datagram) => datagram.losses(),
        }
    }
}

/// Appends `text`, with control characters as HAProxy writes them: `#0A`.
fn push_printable(line: &mut String, text: &str) {
    // A control character is below the space, or DEL, or its encoding begins with this byte. The loop checks
    // all bytes without a branch, so that the compiler can vectorise it.
    let suspect = |byte: u8| byte < b' ' || byte == 0x7F || byte == 0xC2;
    if !text.bytes().fold(false, |any, byte| any | suspect(byte)) {
        line.push_str(text);
        return;
    }
    for character in text.chars() {
        if character.is_control() {
            // Writing to a string cannot fail.
            let _ = write!(line, "#{:02X}", u32::from(character));
        } else {
            line.push(character);
        }
    }
}

/// Cuts `line` to at most `length` bytes, at a character boundary.
fn truncate(line: &mut String, length: usize) {
    if line.len() > length {
        let end = (0..=length).rev().find(|end| line.is_char_boundary(*end));
        line.truncate(end.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::LogFormat;

    fn target(path: &std::path::Path, format: LogFormat, level: Severity) -> Target {
        let spec = LogTarget {
            sink: LogSink::File(path.into()),
            format,
            level,
            ..LogTarget::default()
        };
        let header = Header::new(spec.format, spec.facility, &"rlb".into(), "lb01");
        Target::new(&spec, header).unwrap()
    }

    #[test]
    fn levels_filter_by_severity() {
        let target = target("/dev/null".as_ref(), LogFormat::Raw, Severity::Notice);
        assert!(target.takes(Severity::Alert as u8) && target.takes(Severity::Notice as u8));
        assert!(!target.takes(Severity::Info as u8));
    }

    #[test]
    fn a_line_is_one_line_and_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut target = target(&path, LogFormat::Rfc3164, Severity::Info);
        let now = "2026-11-22T06:51:57+00:00[UTC]".parse().unwrap();
        target.write(1, &now, "a\nb\t\u{e9}");
        target.write(6, &now, &"\u{e9}".repeat(LINE_MAX));
        target.finish(Instant::now() + std::time::Duration::from_secs(5));
        let written = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = written.lines().collect();
        let pid = std::process::id();
        assert_eq!(
            lines[0],
            format!("<129>Nov 22 06:51:57 rlb[{pid}]: a#0Ab#09\u{e9}")
        );
        assert_eq!(lines.len(), 2);
        assert!(lines[1].len() >= LINE_MAX - 2 && lines[1].len() < LINE_MAX);
    }
}
