//! The text of a script in a comparison of two configurations: HAProxy's words for its steps.

use super::{Action, Content, Expect, Pattern, Request, Script, Step, StepFormat};
use std::fmt::{self, Write};

impl fmt::Display for Script {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            if index > 0 {
                formatter.write_str("; ")?;
            }
            step.fmt(formatter)?;
        }
        if self.disable_on_404 {
            formatter.write_str("; disable-on-404")?;
        }
        if self.send_state {
            formatter.write_str("; send-state")?;
        }
        if let Some(token) = self.kube.as_ref().and_then(|kube| kube.token_file.as_ref()) {
            write!(formatter, "; token-file {token}")?;
        }
        self.tls.fmt(formatter)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Comment => formatter.write_str("comment")?,
            Action::Connect(connect) => {
                formatter.write_str("connect")?;
                if let Some(address) = connect.address {
                    write!(formatter, " addr {address}")?;
                }
                if let Some(port) = connect.port {
                    write!(formatter, " port {port}")?;
                }
                let words = [
                    (connect.default && !connect.implicit, " default"),
                    (connect.tls, " ssl"),
                    (connect.send_proxy, " send-proxy"),
                    (connect.linger, " linger"),
                ];
                for (_, word) in words.iter().filter(|(on, _)| *on) {
                    formatter.write_str(word)?;
                }
                let host = connect.host.as_ref().map(StepFormat::text);
                let named = [
                    ("sni", connect.sni.as_deref().or(host)),
                    ("alpn", connect.alpn.as_deref()),
                ];
                for (word, value) in named {
                    if let Some(value) = value {
                        write!(formatter, " {word} {value}")?;
                    }
                }
            }
            Action::Send(content) => match content {
                Content::Bytes(bytes) => write!(formatter, "send {}", bytes.escape_ascii())?,
                Content::Format(format) => write!(formatter, "send-lf {format}")?,
                Content::Hex(format) => write!(formatter, "send-binary-lf {format}")?,
            },
            Action::Request(request) => request.fmt(formatter)?,
            Action::Expect(expect) => expect.fmt(formatter)?,
        }
        match &self.comment {
            Some(comment) => write!(formatter, " comment {comment:?}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.method, self.uri, self.version)?;
        for (name, value) in &self.headers {
            write!(formatter, " hdr {name} {value:?}", value = value.text())?;
        }
        if !self.body.is_empty() {
            write!(formatter, " body {:?}", self.body)?;
        }
        Ok(())
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("expect ")?;
        if self.negated {
            formatter.write_char('!')?;
        }
        match &self.pattern {
            Pattern::String(bytes) => write!(formatter, "string {}", bytes.escape_ascii())?,
            Pattern::Binary(bytes) => write!(formatter, "binary {}", bytes.escape_ascii())?,
            Pattern::Regex(regex) => write!(formatter, "rstring {}", regex.text())?,
            Pattern::BinaryRegex(regex) => write!(formatter, "rbinary {}", regex.text())?,
            Pattern::Status(ranges) => write!(formatter, "status {ranges}")?,
            Pattern::StatusRegex(regex) => write!(formatter, "rstatus {}", regex.text())?,
            Pattern::Header(header) => {
                write!(formatter, "hdr {}", header.name)?;
                if let Some((method, value, _)) = &header.value {
                    write!(formatter, " value -m {} {value}", method.name())?;
                }
            }
            Pattern::MysqlGreeting => formatter.write_str("a greeting of MySQL")?,
            Pattern::MysqlOk => formatter.write_str("a login of MySQL")?,
            Pattern::LdapBind => formatter.write_str("a bind of LDAP")?,
        }
        if let Some(least) = self.min_recv {
            write!(formatter, " min-recv {least}")?;
        }
        for (word, format) in [
            ("on-success", &self.on_success),
            ("on-error", &self.on_error),
        ] {
            if let Some(format) = format {
                write!(formatter, " {word} {:?}", format.text())?;
            }
        }
        if self.ok != super::Verdict::L7Ok {
            write!(formatter, " ok-status {:?}", self.ok)?;
        }
        if let Some(error) = self.error {
            write!(formatter, " error-status {error:?}")?;
        }
        if self.timeout != super::Verdict::L7Timeout {
            write!(formatter, " tout-status {:?}", self.timeout)?;
        }
        Ok(())
    }
}
