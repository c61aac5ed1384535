//! What a health check asks of a server beyond a connection: its steps, as plain data.
//!
//! HAProxy's `tcp-check` and `http-check` rules, and the checks that it has names for ([`preset`]), are all this one
//! type. Pure; [`crate::check::script`] runs it. An upgrade hands it over as JSON. Invariant: the first step connects.

pub mod format;
mod pattern;
pub mod preset;
mod text;
mod tls;

pub use format::{Part, StepFormat};
pub use pattern::{HeaderMatch, MatchMethod, Pattern, Regex, StatusRanges};
pub use tls::{SYSTEM_CA, Tls, TlsContext, TlsVersion};

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// Most steps of a check.
pub const STEPS_MAX: usize = 256;
/// Most bytes that a check sends in one step, and that it looks at: HAProxy's `tune.bufsize`.
pub const BUFFER_MAX: usize = 16_384;

/// Whose words a check's result has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// `option tcp-check`: its failures name the step.
    Tcp,
    /// `option httpchk`.
    Http,
    /// One of the checks that HAProxy has a name for.
    Preset,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Whose words its result has.
    pub protocol: Protocol,
    /// In their order. The first connects.
    pub steps: Arc<[Step]>,
    /// A server that is up and answers 404 gets no new sessions, and is not down.
    pub disable_on_404: bool,
    /// A request says what is known of the server.
    pub send_state: bool,
    /// The PROXY header of a connect step that asks for one is of version 2, as that of the server.
    pub proxy_v2: bool,
    /// What it sends when it has passed and the answer begins so: the service then knows that nothing follows.
    pub farewell: Option<Farewell>,
    /// How it speaks TLS.
    #[serde(default)]
    pub tls: Tls,
    /// It asks an API server of Kubernetes, whose answers mean more than their status.
    #[serde(default)]
    pub kube: Option<Arc<Kube>>,
}

/// What a check of an API server has beside its steps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kube {
    /// The file with the token that its request has.
    pub token_file: Option<Arc<str>>,
    /// It says who it is, by a token or a certificate.
    pub has_credentials: bool,
}

impl Kube {
    /// Whether a status says that the server lives and does not want to answer those who ask.
    pub fn is_unauthorized(status: u16) -> bool {
        status == 401 || status == 403
    }

    /// Whether it says that the server is not ready.
    pub fn is_not_ready(status: u16) -> bool {
        (500..600).contains(&status)
    }
}

/// The end of a connection, in the words of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    /// It is sent where the answer begins so.
    pub after: Arc<[u8]>,
    /// What is sent.
    pub bytes: Arc<[u8]>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// As failures name it, from 1; 0: the connection that no step asks for.
    pub number: u32,
    /// What a failure says of it.
    pub comment: Option<Arc<str>>,
    /// What it does.
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Nothing: its comment is that of the steps behind it. No [`Script`] has one.
    Comment,
    /// Connects, and ends the connection before.
    Connect(Connect),
    /// Sends.
    Send(Content),
    /// Sends a request of HTTP.
    Request(Arc<Request>),
    /// Waits for an answer.
    Expect(Arc<Expect>),
}

/// How a step connects.
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent switches, as in the file"
)]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// No step asks for it.
    pub implicit: bool,
    /// With the PROXY header that the check has.
    pub default: bool,
    /// Instead of the check's.
    pub port: Option<u16>,
    /// Instead of the check's.
    pub address: Option<IpAddr>,
    /// With a PROXY header, whatever the check has.
    pub send_proxy: bool,
    /// It ends with FIN, also where checks end with RST.
    pub linger: bool,
    /// It speaks TLS, whatever the check does.
    #[serde(default)]
    pub tls: bool,
    /// The server's name in its `ClientHello`.
    #[serde(default)]
    pub sni: Option<Arc<str>>,
    /// The same where it has none and the check has none: what this makes, without a port.
    #[serde(default)]
    pub host: Option<StepFormat>,
    /// The protocols in it, separated by commas.
    #[serde(default)]
    pub alpn: Option<Arc<str>>,
}

/// What a step sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// These bytes.
    Bytes(Arc<[u8]>),
    /// What a format makes.
    Format(StepFormat),
    /// The bytes that what a format makes has the hexadecimal digits of.
    Hex(StepFormat),
}

/// A request of HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// `OPTIONS` if nobody has said otherwise.
    pub method: Arc<str>,
    /// `/`.
    pub uri: Arc<str>,
    /// `HTTP/1.0`.
    pub version: Arc<str>,
    /// In their order, without `Content-Length`.
    pub headers: Vec<(Arc<str>, StepFormat)>,
    /// May be empty.
    pub body: Arc<str>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            method: "OPTIONS".into(),
            uri: "/".into(),
            version: "HTTP/1.0".into(),
            headers: Vec::new(),
            body: "".into(),
        }
    }
}

/// What a step waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expect {
    /// What the answer is compared with.
    pub pattern: Pattern,
    /// It must not be there.
    pub negated: bool,
    /// `None`: an answer without it may go on until the connection ends. Otherwise the first answer of so many bytes is
    /// judged.
    pub min_recv: Option<u32>,
    /// The text of a check that ends with it.
    pub on_success: Option<StepFormat>,
    /// The text of one that fails here.
    pub on_error: Option<StepFormat>,
    /// The result of a check that ends with it.
    pub ok: Verdict,
    /// The result of one that fails here; `None`: that of the pattern.
    pub error: Option<Verdict>,
    /// The result when no answer comes in time.
    pub timeout: Verdict,
    /// Where the answer has a number: the first byte, and how many.
    pub code: Option<(usize, usize)>,
    /// Where the comparison goes on when more of an answer has come: the first step of those before this one that must
    /// not be there, or this one.
    pub resume: usize,
}

impl Expect {
    /// A step that waits for `pattern`, with nothing else said.
    pub fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            negated: false,
            min_recv: None,
            on_success: None,
            on_error: None,
            ok: Verdict::L7Ok,
            error: None,
            timeout: Verdict::L7Timeout,
            code: None,
            resume: 0,
        }
    }
}

/// A result that a step may name: HAProxy's codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// `L4OK`
    L4Ok,
    /// `L6OK`
    L6Ok,
    /// `L7OK`
    L7Ok,
    /// `L7OKC`
    L7OkConditional,
    /// `L4CON`
    L4Con,
    /// `L6RSP`
    L6Response,
    /// `L7RSP`
    L7Response,
    /// `L7STS`
    L7Status,
    /// `L4TOUT`
    L4Timeout,
    /// `L6TOUT`
    L6Timeout,
    /// `L7TOUT`
    L7Timeout,
}

/// Why steps cannot be a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misplaced {
    /// A connect step behind one that sends or waits, while the first step does not connect.
    LateConnect,
    /// A request behind an expectation, on a connection that has had its request.
    LateRequest,
    /// An expectation of an answer that no request asks for.
    NoRequest,
    /// A connect step behind a request whose answer nothing waits for.
    NoExpectation,
}

impl Script {
    /// The steps that connect.
    pub fn connects(&self) -> impl Iterator<Item = &Connect> + Clone {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Connect(connect) => Some(connect),
            _ => None,
        })
    }

    /// Whether this connection of it speaks TLS.
    pub fn speaks_tls(&self, connect: &Connect) -> bool {
        connect.tls || (connect.default && self.tls.on)
    }

    /// Whether any does.
    pub fn has_tls(&self) -> bool {
        self.connects().any(|connect| self.speaks_tls(connect))
    }

    /// The script of these steps, with what HAProxy adds to them: a connection, and the expectation of a status.
    ///
    /// # Errors
    /// When a step cannot be where it is.
    pub fn new(protocol: Protocol, mut steps: Vec<Step>) -> Result<Self, Misplaced> {
        match protocol {
            Protocol::Http => ordered(&steps)?,
            Protocol::Tcp | Protocol::Preset => first_connects(&steps)?,
        }
        let last = steps.iter().rfind(|step| step.action != Action::Comment);
        if let Some(Step {
            number,
            action: Action::Request(_),
            ..
        }) = last
        {
            let number = number + 1;
            let expect = Expect::new(Pattern::Status(StatusRanges::success()));
            steps.push(Step {
                number,
                comment: None,
                action: Action::Expect(Arc::new(expect)),
            });
        }
        let first = steps.iter().find(|step| step.action != Action::Comment);
        if !first.is_some_and(|step| matches!(step.action, Action::Connect(_))) {
            let connect = Connect {
                implicit: true,
                default: true,
                ..Connect::default()
            };
            steps.insert(
                0,
                Step {
                    number: 0,
                    comment: None,
                    action: Action::Connect(connect),
                },
            );
        }
        let mut steps = commented(steps);
        resume_at(&mut steps);
        Ok(Self {
            protocol,
            steps: steps.into(),
            disable_on_404: false,
            send_state: false,
            proxy_v2: false,
            farewell: None,
            tls: Tls::default(),
            kube: None,
        })
    }
}

/// Where one step of a TCP check connects, the first one does.
fn first_connects(steps: &[Step]) -> Result<(), Misplaced> {
    let mut connects = steps
        .iter()
        .filter(|step| step.action != Action::Comment)
        .map(|step| matches!(step.action, Action::Connect(_)));
    match connects.next() {
        Some(false) if connects.any(|it| it) => Err(Misplaced::LateConnect),
        _ => Ok(()),
    }
}

/// A connection of HTTP has one request, and answers are expected behind it.
fn ordered(steps: &[Step]) -> Result<(), Misplaced> {
    first_connects(steps)?;
    let (mut asked, mut judged) = (false, false);
    for step in steps {
        match &step.action {
            Action::Connect(_) if asked && !judged => return Err(Misplaced::NoExpectation),
            Action::Connect(_) => (asked, judged) = (false, false),
            Action::Request(_) if asked => return Err(Misplaced::LateRequest),
            Action::Request(_) => asked = true,
            Action::Expect(_) if !asked => return Err(Misplaced::NoRequest),
            Action::Expect(_) => judged = true,
            Action::Comment | Action::Send(_) => {}
        }
    }
    Ok(())
}

/// Gives the comments of steps that are nothing else to the steps behind them: to a connection, or to all that send or all
/// that wait, up to the next of another kind.
fn commented(steps: Vec<Step>) -> Vec<Step> {
    let kind = |action: &Action| match action {
        Action::Comment => 0,
        Action::Connect(_) => 1,
        Action::Send(_) | Action::Request(_) => 2,
        Action::Expect(_) => 3,
    };
    let (mut comment, mut last) = (None, 0);
    let mut out = Vec::with_capacity(steps.len());
    for mut step in steps {
        let this = kind(&step.action);
        if this != last && last != 0 {
            comment = None;
        }
        last = this;
        if this == 0 {
            comment = step.comment;
            continue;
        }
        if step.comment.is_none() {
            step.comment.clone_from(&comment);
        }
        if this == 1 {
            comment = None;
        }
        out.push(step);
    }
    out
}

fn resume_at(steps: &mut [Step]) {
    let mut first_negated = None;
    for (index, step) in steps.iter_mut().enumerate() {
        let Action::Expect(expect) = &mut step.action else {
            first_negated = None;
            continue;
        };
        let resume = first_negated.unwrap_or(index);
        if expect.negated && first_negated.is_none() {
            first_negated = Some(index);
        }
        if expect.resume != resume {
            Arc::make_mut(expect).resume = resume;
        }
    }
}

#[cfg(test)]
mod tests;
