//! The interpreter of what a check asks beyond a connection ([`crate::config::script`]).
//!
//! Pure: a [`Run`] says what is to be done next, and is told what has come of it; [`drive`] does it with sockets, on a
//! thread of its own ([`thread`]). Results and texts are HAProxy's. Invariants: of an answer no more than
//! [`BUFFER_MAX`](crate::config::script::BUFFER_MAX) bytes are kept; it does not depend on how an answer is cut into pieces
//! whether a step that waits for more (no `min-recv`) passes.

mod connection;
mod drive;
mod expect;
pub mod http;
mod kube;
mod request;
pub(super) mod state;
mod text;
pub(super) mod thread;
mod tls;

use super::words;
use crate::config::script::{
    Action, BUFFER_MAX, Connect, Content, Expect, Kube, Pattern, Protocol, Script, Step,
    StepFormat, Verdict,
};
use crate::live::CheckStatus;
use expect::Judged;
use std::borrow::Cow;
use std::io;

/// What is known of the server when a check begins.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The name of its backend.
    pub backend: String,
    /// Its own.
    pub server: String,
    /// It is not down.
    pub is_up: bool,
    /// What `send-state` says of it.
    pub state: Option<String>,
    /// The token that its request has.
    pub token: Option<String>,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// HAProxy's code.
    pub status: CheckStatus,
    /// The number that the answer had: a status of HTTP and the like.
    pub code: u16,
    /// More about it.
    pub info: String,
}

/// What a check waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The connection.
    Connecting,
    /// The handshake of TLS.
    Handshake,
    /// What its steps wait for.
    Connected,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Order<'a> {
    /// End the connection, if there is one, and make another.
    Connect(&'a Connect),
    /// Send this.
    Send(Cow<'a, [u8]>),
    /// Receive something, no more than so many bytes.
    Receive(usize),
    /// The check has ended.
    Done(Finding),
}

/// One check under way.
#[derive(Debug)]
pub struct Run<'a> {
    script: &'a Script,
    facts: &'a Facts,
    /// The step that is next.
    at: usize,
    /// The step that was done last.
    current: Option<&'a Step>,
    /// What has come since the last step that sends.
    input: Vec<u8>,
    /// Nothing more comes.
    ended: bool,
    must_read: bool,
    code: u16,
    /// The last request was `HEAD`.
    bodiless: bool,
}

impl<'a> Run<'a> {
    /// The check at its begin.
    pub fn new(script: &'a Script, facts: &'a Facts) -> Self {
        Self {
            script,
            facts,
            at: 0,
            current: None,
            input: Vec::new(),
            ended: false,
            must_read: true,
            code: 0,
            bodiless: false,
        }
    }

    /// What is to be done next. The answer to it is [`Run::received`], [`Run::ended`] or [`Run::failed`]; after a
    /// connection was made, or everything was sent, there is none.
    pub fn order(&mut self) -> Order<'a> {
        let script = self.script;
        while let Some(step) = script.steps.get(self.at) {
            self.current = Some(step);
            self.code = 0;
            match &step.action {
                Action::Comment => self.at += 1,
                Action::Connect(connect) => {
                    self.at += 1;
                    self.input.clear();
                    (self.ended, self.must_read) = (false, true);
                    return Order::Connect(connect);
                }
                Action::Send(content) => {
                    self.at += 1;
                    self.begin_send();
                    let Some(bytes) = self.content(content) else {
                        let text = "failed to build log-format string";
                        return self.cannot_send(text, step);
                    };
                    if bytes.len() >= BUFFER_MAX {
                        let length = bytes.len();
                        let text =
                            format!("string too large ({length}) for buffer size ({BUFFER_MAX})");
                        return self.cannot_send(&text, step);
                    }
                    if !bytes.is_empty() {
                        return Order::Send(bytes);
                    }
                }
                Action::Request(request) => {
                    self.at += 1;
                    self.begin_send();
                    self.bodiless = &*request.method == "HEAD";
                    let state = self.facts.state.as_deref();
                    let state = state.filter(|_| script.send_state);
                    let value = |format: &StepFormat| self.format(format);
                    let token = self.facts.token.as_deref();
                    let bytes = request::bytes(request, (state, token), value);
                    if bytes.len() >= BUFFER_MAX {
                        let text = "failed to build HTTP request";
                        return self.cannot_send(text, step);
                    }
                    return Order::Send(bytes.into());
                }
                Action::Expect(expect) => {
                    if self.must_read && !self.is_whole() {
                        return Order::Receive(BUFFER_MAX - self.input.len());
                    }
                    self.must_read = false;
                    match self.judge(step, expect) {
                        Judged::Passed => self.at += 1,
                        Judged::Wait if !self.is_whole() => {
                            self.at = expect.resume;
                            self.must_read = true;
                        }
                        Judged::Wait => {
                            let status = CheckStatus::L7Response;
                            return Order::Done(self.finding(status, String::new()));
                        }
                        Judged::Failed(status, info) => {
                            return Order::Done(self.finding(status, info));
                        }
                    }
                }
            }
        }
        Order::Done(self.conclude())
    }

    /// These bytes have come.
    pub fn received(&mut self, bytes: &[u8]) {
        let room = BUFFER_MAX - self.input.len();
        self.input
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.must_read = false;
    }

    /// The server has ended the connection.
    pub fn ended(&mut self) {
        self.ended = true;
        self.must_read = false;
    }

    /// The connection has failed. `None`: what has come is judged as it stands.
    pub fn failed(&mut self, error: &io::Error) -> Option<Finding> {
        let waits = self
            .current
            .is_some_and(|step| matches!(step.action, Action::Expect(_)));
        if waits && !self.input.is_empty() {
            self.ended();
            return None;
        }
        let info = format!("{}{}", words::of_error(error), self.place());
        Some(self.finding(CheckStatus::SocketError, info))
    }

    /// The connection could not be made, for this reason if there is one.
    pub fn not_connected(&self, status: CheckStatus, said: &str) -> Finding {
        self.finding(status, format!("{said}{}", self.place()))
    }

    /// The time is over.
    pub fn timed_out(&mut self, phase: Phase) -> Finding {
        if phase == Phase::Connected && kube::says_enough(self) {
            self.ended();
            if let Order::Done(finding) = self.order() {
                return finding;
            }
        }
        let status = match self.current.map(|step| &step.action) {
            _ if phase == Phase::Connecting => CheckStatus::L4Timeout,
            _ if phase == Phase::Handshake => CheckStatus::L6Timeout,
            Some(Action::Expect(expect)) => status(expect.timeout),
            _ => CheckStatus::L7Timeout,
        };
        self.finding(status, self.place())
    }

    /// What is sent before a connection ends that has passed.
    pub fn farewell(&self) -> Option<&'a [u8]> {
        let farewell = self.script.farewell.as_ref()?;
        let is_due = self.input.starts_with(&farewell.after);
        is_due.then_some(&*farewell.bytes)
    }

    fn begin_send(&mut self) {
        self.input.clear();
        self.must_read = true;
    }

    fn is_whole(&self) -> bool {
        self.ended || self.input.len() >= BUFFER_MAX
    }

    fn cannot_send(&self, why: &str, step: &Step) -> Order<'a> {
        let text = format!("tcp-check send : {why} at step {}", step.number);
        Order::Done(self.finding(CheckStatus::L7Response, text))
    }

    fn content(&self, content: &'a Content) -> Option<Cow<'a, [u8]>> {
        match content {
            Content::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
            Content::Format(format) => Some(self.format(format).into()),
            Content::Hex(format) => unhex(&self.format(format)).map(Cow::Owned),
        }
    }

    fn format(&self, format: &StepFormat) -> Vec<u8> {
        text::format(format, self.facts, &self.input)
    }

    /// All steps have passed.
    fn conclude(&mut self) -> Finding {
        let leaves = self.leaves();
        let Some(step) = self.current else {
            return self.finding(CheckStatus::L7Ok, text::PASSED.to_owned());
        };
        match &step.action {
            Action::Expect(_) if leaves => {
                let said = kube::said(self).unwrap_or_default();
                self.finding(CheckStatus::L7OkConditional, said)
            }
            Action::Expect(expect) => {
                let info = match (&expect.on_success, self.script.protocol) {
                    (Some(format), _) => text::lossy(&self.format(format)),
                    (None, Protocol::Tcp) => text::PASSED.to_owned(),
                    (None, Protocol::Http) => kube::said(self).unwrap_or_default(),
                    (None, Protocol::Preset) => {
                        expect::said(&expect.pattern, &self.input).to_owned()
                    }
                };
                self.note_code(expect);
                self.finding(status(expect.ok), info)
            }
            Action::Connect(connect) => {
                let status = if self.script.speaks_tls(connect) {
                    CheckStatus::L6Ok
                } else {
                    CheckStatus::L4Ok
                };
                let said = if connect.implicit { "" } else { text::PASSED };
                self.finding(status, said.to_owned())
            }
            _ => self.finding(CheckStatus::L7Ok, text::PASSED.to_owned()),
        }
    }

    /// Whether a server that is up has said that it should get no new sessions.
    fn leaves(&self) -> bool {
        let is_404 = self.script.disable_on_404 && self.code == 404;
        let not_ready = self.script.kube.is_some() && Kube::is_not_ready(self.code);
        self.facts.is_up && (is_404 || not_ready)
    }

    /// Takes the number out of the answer that the step says is there.
    fn note_code(&mut self, expect: &Expect) {
        if let Some((first, length)) = expect.code {
            let digits = self.input.get(first..).unwrap_or_default();
            let digits = &digits[..digits.len().min(length)];
            let digits = std::str::from_utf8(digits).unwrap_or_default();
            self.code = digits.parse().unwrap_or(0);
        }
    }

    fn finding(&self, status: CheckStatus, info: String) -> Finding {
        Finding {
            status,
            code: if status.has_code() { self.code } else { 0 },
            info: text::shortened(info),
        }
    }

    /// Where it was, as failures say it.
    fn place(&self) -> String {
        match (self.script.protocol, self.current) {
            (Protocol::Tcp, Some(step)) => text::place(step),
            _ => String::new(),
        }
    }
}

/// The status that a step names.
fn status(verdict: Verdict) -> CheckStatus {
    match verdict {
        Verdict::L4Ok => CheckStatus::L4Ok,
        Verdict::L6Ok => CheckStatus::L6Ok,
        Verdict::L7Ok => CheckStatus::L7Ok,
        Verdict::L7OkConditional => CheckStatus::L7OkConditional,
        Verdict::L4Con => CheckStatus::L4Con,
        Verdict::L6Response => CheckStatus::L6Response,
        Verdict::L7Response => CheckStatus::L7Response,
        Verdict::L7Status => CheckStatus::L7Status,
        Verdict::L4Timeout => CheckStatus::L4Timeout,
        Verdict::L6Timeout => CheckStatus::L6Timeout,
        Verdict::L7Timeout => CheckStatus::L7Timeout,
    }
}

/// The bytes that these hexadecimal digits are; `None`: they are none.
fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = digits
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .copied()
        .collect();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.chunks(2).map(|pair| match *pair {
        [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

/// Whether a pattern is about answers of HTTP.
fn is_http(script: &Script, pattern: &Pattern) -> bool {
    script.protocol == Protocol::Http
        || matches!(
            pattern,
            Pattern::Status(_) | Pattern::StatusRegex(_) | Pattern::Header(_)
        )
}

/// What the fuzz target does: a script over `bytes` as the answer, in pieces of `piece` bytes. Its result.
pub fn exercise(script: &Script, bytes: &[u8], piece: usize) -> Finding {
    let facts = Facts {
        is_up: true,
        ..Facts::default()
    };
    let mut run = Run::new(script, &facts);
    let mut rest = bytes;
    loop {
        match run.order() {
            Order::Connect(_) | Order::Send(_) => {}
            Order::Receive(most) if !rest.is_empty() => {
                let (now, later) = rest.split_at(piece.clamp(1, most.max(1)).min(rest.len()));
                run.received(now);
                rest = later;
            }
            Order::Receive(_) => run.ended(),
            Order::Done(finding) => return finding,
        }
    }
}

#[cfg(test)]
mod tests;
