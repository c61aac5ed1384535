//! The keys of the steps of a health check, and the kind of `steps`.

use super::check_tls::{HostName, Protocols};
use super::check_values::{
    Bytes, CheckFormat, Expression, Headers, Hex, HttpVersion, RequestTarget, Statuses, Token,
};
use super::declare::prelude::*;
use super::kinds::{Absent, Ip, Number, Optional, Port, Switch, Text, Word};
use crate::config::choices::{ErrorStatusWord, HeaderMatchWord, OkStatusWord, TimeoutStatusWord};
use crate::config::diagnostic::Diagnostic;
use crate::config::key::Effect::HealthAnew;
use crate::config::key::PORT_BOUNDS;
use crate::config::script::{
    Action, Connect, Content, Expect, HeaderMatch, MatchMethod, Pattern, Regex, Request, STEPS_MAX,
    Step, Verdict,
};
use crate::config::shapes::{Located, Maybe};
use crate::config::source::Place;
use std::sync::Arc;

/// Most bytes that a step may wait for: all that are kept of an answer.
const MIN_RECV_MAX: i64 = 16_384;

keys! {
    /// A step of a health check. It has one of `connect`, `send…`, `expect-…`, or the keys of a request.
    table StepTable, "CheckStep", "a step";
    layer StepLayer;
    read {
        /// Connect, and end the connection before. Where no step does, a connection comes first.
        connect: Optional<Switch> = "no", haproxy: &["tcp-check connect", "http-check connect"],
            reload: HealthAnew;
        /// Port to connect to.
        port: Optional<Port> = "the check's", bounds: Some(PORT_BOUNDS), reload: HealthAnew;
        /// Address to connect to.
        address: Optional<Ip> = "the check's", reload: HealthAnew;
        /// Begin with the PROXY header that the check has, and speak TLS as it does.
        default: Optional<Switch> = "no", reload: HealthAnew;
        /// Begin with a PROXY header, of the server's version or of the first.
        send_proxy: Optional<Switch> = "no", reload: HealthAnew;
        /// End with FIN, also where checks end with RST.
        linger: Optional<Switch> = "no", reload: HealthAnew;
        /// Speak TLS, from the first byte on.
        tls: Optional<Switch> = "no", reload: HealthAnew;
        /// The server's name, which the connection asks for and its certificate must have.
        sni: Optional<HostName> = "none; with default the check's", example: Some("\"api.example.org\""),
            reload: HealthAnew;
        /// The protocols that the connection offers over TLS, separated by commas.
        alpn: Optional<Protocols> = "none; with default the check's", example: Some("\"http/1.1\""),
            reload: HealthAnew;
        /// Send this text.
        send: Optional<Bytes> = "nothing", haproxy: &["tcp-check send"], reload: HealthAnew;
        /// Send what a format makes.
        send_lf: Optional<CheckFormat> = "nothing", haproxy: &["tcp-check send-lf"],
            reload: HealthAnew;
        /// Send these bytes.
        send_binary: Optional<Hex> = "nothing", haproxy: &["tcp-check send-binary"],
            reload: HealthAnew;
        /// Send the bytes whose hexadecimal digits a format makes.
        send_binary_lf: Optional<CheckFormat> = "nothing",
            haproxy: &["tcp-check send-binary-lf"], reload: HealthAnew;
        /// Send a request of HTTP with this method.
        method: Optional<Token> = "OPTIONS", haproxy: &["http-check send"], reload: HealthAnew;
        /// Send a request for this.
        uri: Optional<RequestTarget> = "/", example: Some("\"/readyz\""), reload: HealthAnew;
        /// Send a request of this version.
        version: Optional<HttpVersion> = "HTTP/1.0", example: Some("\"HTTP/1.1\""),
            reload: HealthAnew;
        /// Send a request with these headers.
        headers: Optional<Headers> = "none", reload: HealthAnew;
        /// Send a request with this body.
        body: Optional<Text> = "none", reload: HealthAnew;
        /// Wait for an answer that has this text; of HTTP, its body.
        expect_string: Optional<Bytes> = "nothing",
            haproxy: &["tcp-check expect", "http-check expect"], reload: HealthAnew;
        /// Wait for an answer that this expression matches.
        expect_rstring: Optional<Expression> = "nothing", reload: HealthAnew;
        /// Wait for an answer that has these bytes.
        expect_binary: Optional<Hex> = "nothing", reload: HealthAnew;
        /// Wait for an answer whose bytes, as hexadecimal digits, this expression matches.
        expect_rbinary: Optional<Expression> = "nothing", reload: HealthAnew;
        /// Wait for an answer of HTTP with this status.
        expect_status: Optional<Statuses> = "nothing", example: Some("\"200\""),
            reload: HealthAnew;
        /// Wait for an answer of HTTP whose status this expression matches.
        expect_rstatus: Optional<Expression> = "nothing", reload: HealthAnew;
        /// Wait for an answer of HTTP with this header.
        expect_header: Optional<Token> = "nothing", example: Some("\"X-Role\""),
            reload: HealthAnew;
        /// What one of the values of that header is.
        header_value: Optional<Text> = "any", example: Some("\"primary\""), reload: HealthAnew;
        /// How they are compared: the same (`"str"`), begin, end, a part, or a regular expression.
        header_match: Optional<Word<HeaderMatchWord>> = "str", reload: HealthAnew;
        /// The check fails when the answer is so.
        not: Optional<Switch> = "no", reload: HealthAnew;
        /// Judge the answer once it has so many bytes; 0: its first part. Without it an answer that is not as expected
        /// may go on until the connection ends.
        min_recv: Optional<LeastBytes> = "none", bounds: Some((0, MIN_RECV_MAX)),
            reload: HealthAnew;
        /// The text of a check that ends well with this step.
        on_success: Optional<CheckFormat> = "none", reload: HealthAnew;
        /// The text of a check that fails at this step.
        on_error: Optional<CheckFormat> = "HAProxy's", reload: HealthAnew;
        /// The result of a check that ends well with this step.
        ok_status: Optional<Word<OkStatusWord>> = "L7OK", reload: HealthAnew;
        /// The result of a check that fails at this step.
        error_status: Optional<Word<ErrorStatusWord>> = "L7RSP or L7STS", reload: HealthAnew;
        /// The result of a check that gets no answer in time.
        tout_status: Optional<Word<TimeoutStatusWord>> = "L7TOUT", reload: HealthAnew;
        /// What a failure says of the step. A step with a comment alone has it for those behind it.
        comment: Optional<Text> = "none", haproxy: &["tcp-check comment", "http-check comment"],
            reload: HealthAnew;
    }
}

impl crate::config::shapes::Expected for StepTable {
    const EXPECTED: &'static str = "a step as { send = \"PING\\r\\n\" }";
}

/// A number of bytes, of which 0 is one.
#[derive(Debug)]
pub struct LeastBytes;

impl Kind for LeastBytes {
    type Field = Maybe<i64>;
    type Default = u32;
    const WORD: &'static str = "number";

    fn default_text(default: u32) -> String {
        default.to_string()
    }
}

impl Plain for LeastBytes {
    type Value = u32;
    type Meant = u32;

    fn meant(value: Option<u32>, default: u32) -> u32 {
        value.unwrap_or(default)
    }

    fn show(meant: &u32) -> String {
        meant.to_string()
    }
}

impl Read for LeastBytes {
    fn read(
        validator: &mut Validator<'_>,
        scope: Scope<'_>,
        key: &Key,
        field: &Maybe<i64>,
    ) -> Option<Written<u32>> {
        <Number as Read>::read(validator, scope, key, field)
    }
}

impl Absent for LeastBytes {}

/// Steps, in their order.
pub(super) type Steps = Arc<[Step]>;

/// The steps of a check.
#[derive(Debug)]
pub struct StepList;

impl Kind for StepList {
    type Field = Maybe<Vec<Located<StepTable>>>;
    type Default = &'static str;
    const WORD: &'static str = "list of tables";

    fn default_text(default: &'static str) -> String {
        default.to_owned()
    }
}

impl Plain for StepList {
    type Value = Steps;
    type Meant = Steps;

    fn meant(value: Option<Steps>, _: &'static str) -> Steps {
        value.unwrap_or_else(|| Arc::new([]))
    }

    fn show(meant: &Steps) -> String {
        let steps: Vec<String> = meant.iter().map(ToString::to_string).collect();
        steps.join("; ")
    }
}

impl Absent for StepList {}

impl Read for StepList {
    fn read(
        validator: &mut Validator<'_>,
        scope: Scope<'_>,
        key: &Key,
        field: &Maybe<Vec<Located<StepTable>>>,
    ) -> Option<Written<Steps>> {
        let written = field.as_ref()?;
        let place = scope.of(written);
        let count = written.value.len();
        if count == 0 || count > STEPS_MAX {
            let message = format!("{} has {count} steps", key.label());
            let problem = Diagnostic::error("value", message).at(place);
            let label = format!("expected 1 to {STEPS_MAX}");
            validator.report.push(problem.label(label));
            return None;
        }
        let steps: Vec<Option<Step>> = written
            .value
            .iter()
            .zip(1..)
            .map(|(table, number)| step(validator, scope, table, number))
            .collect();
        let value: Option<Steps> = steps.into_iter().collect();
        Some(Written {
            value: value?,
            place,
        })
    }
}

/// What the keys of a step are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Comment,
    Connect,
    Send,
    Request,
    Expect,
    ExpectHeader,
}

impl Does {
    fn text(self) -> &'static str {
        match self {
            Self::Comment => "a comment",
            Self::Connect => "`connect`",
            Self::Send => "a step that sends",
            Self::Request => "a request",
            Self::Expect => "an expectation",
            Self::ExpectHeader => "`expect-header`",
        }
    }
}

/// Keys of a layer that are there, with what they are about.
macro_rules! present {
    ($layer:ident, $($does:ident: $($field:ident),+;)+) => {
        [$($((
            &StepTable::$field,
            Does::$does,
            $layer.$field.as_ref().map(|it| &it.place),
        ),)+)+]
    };
}

/// The step that a table is; `None`: it is not valid, which is reported.
fn step(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    table: &Located<StepTable>,
    number: u32,
) -> Option<Step> {
    let mut layer = StepLayer::read(validator, scope, &table.value);
    layer.connect = layer.connect.filter(|it| it.value);
    let place = scope.of(table);
    let does = kind(validator, &layer, &place)?;
    let action = match does {
        Does::Comment => Action::Comment,
        Does::Connect => {
            let connect = connect(&layer);
            let named = [
                (&StepTable::sni, &layer.sni),
                (&StepTable::alpn, &layer.alpn),
            ];
            for (key, written) in named {
                if let Some(written) = written
                    && !connect.tls
                    && !connect.default
                {
                    let message = format!("`{}` is for connections over TLS", key.name);
                    let problem = Diagnostic::error("no-meaning", message);
                    let problem = problem.at(written.place.clone());
                    validator.report.push(problem.hint("write `tls = true`"));
                    return None;
                }
            }
            Action::Connect(connect)
        }
        Does::Send => Action::Send(content(&layer)?),
        Does::Request => Action::Request(Arc::new(request(&layer))),
        Does::Expect | Does::ExpectHeader => {
            let pattern = pattern(validator, &layer)?;
            Action::Expect(Arc::new(expect(&layer, pattern)))
        }
    };
    Some(Step {
        number,
        comment: layer.comment.map(|it| it.value),
        action,
    })
}

/// What a step does. Reports keys that do not belong together.
fn kind(validator: &mut Validator<'_>, layer: &StepLayer, place: &Place) -> Option<Does> {
    let actions = present! { layer,
        Connect: connect;
        Send: send, send_lf, send_binary, send_binary_lf;
        Expect: expect_string, expect_rstring, expect_binary, expect_rbinary, expect_status, expect_rstatus;
        ExpectHeader: expect_header;
        Request: method, uri, version, headers, body;
    };
    let further = present! { layer,
        Connect: port, address, default, send_proxy, linger, tls, sni, alpn;
        Expect: not, min_recv, on_success, on_error, ok_status, error_status, tout_status;
        ExpectHeader: header_value, header_match;
    };
    let mut found: Option<(&Key, Does, &Place)> = None;
    for (key, does, written) in actions {
        let Some(written) = written else { continue };
        match found {
            None => found = Some((key, does, written)),
            Some((_, Does::Request, _)) if does == Does::Request => {}
            Some((first, _, at)) => {
                let message = format!("`{}` and `{}` are two steps", first.name, key.name);
                let problem = Diagnostic::error("no-meaning", message).at(written.clone());
                let problem = problem.also(at.clone(), "the other one");
                validator
                    .report
                    .push(problem.hint("write a table for each of them"));
                return None;
            }
        }
    }
    let does = match found {
        Some((_, does, _)) => does,
        None if layer.comment.is_some() => Does::Comment,
        None => {
            let problem = Diagnostic::error("missing-key", "the step does nothing")
                .at(place.clone())
                .label("expected `connect`, `send`, `expect-string`, `uri` or the like");
            validator.report.push(problem);
            return None;
        }
    };
    for (key, of, written) in further {
        let belongs = of == does || (of == Does::Expect && does == Does::ExpectHeader);
        let Some(written) = written.filter(|_| !belongs) else {
            continue;
        };
        let message = format!("`{}` belongs to {}", key.name, of.text());
        let problem = Diagnostic::error("no-meaning", message).at(written.clone());
        let label = format!("this step is {}", does.text());
        validator.report.push(problem.label(label));
        return None;
    }
    Some(does)
}

fn is_on(switch: Option<&Written<bool>>) -> bool {
    switch.is_some_and(|it| it.value)
}

/// A text; an empty one is none.
fn text(written: Option<&Written<Arc<str>>>) -> Option<Arc<str>> {
    let text = written.map(|it| Arc::clone(&it.value));
    text.filter(|it| !it.is_empty())
}

fn connect(layer: &StepLayer) -> Connect {
    let address = layer.address.as_ref().map(|it| it.value);
    Connect {
        implicit: false,
        default: is_on(layer.default.as_ref()),
        port: layer.port.as_ref().map(|it| it.value),
        address: address.filter(|it| !it.is_unspecified()),
        send_proxy: is_on(layer.send_proxy.as_ref()),
        linger: is_on(layer.linger.as_ref()),
        tls: is_on(layer.tls.as_ref()),
        sni: text(layer.sni.as_ref()),
        host: None,
        alpn: text(layer.alpn.as_ref()),
    }
}

fn content(layer: &StepLayer) -> Option<Content> {
    let bytes = layer.send.as_ref().or(layer.send_binary.as_ref());
    if let Some(bytes) = bytes {
        return Some(Content::Bytes(Arc::clone(&bytes.value)));
    }
    if let Some(format) = &layer.send_lf {
        return Some(Content::Format(format.value.clone()));
    }
    let hex = layer.send_binary_lf.as_ref()?;
    Some(Content::Hex(hex.value.clone()))
}

fn request(layer: &StepLayer) -> Request {
    let default = Request::default();
    let or = |own: Option<&Written<Arc<str>>>, other| own.map_or(other, |it| Arc::clone(&it.value));
    Request {
        method: or(layer.method.as_ref(), default.method),
        uri: or(layer.uri.as_ref(), default.uri),
        version: or(layer.version.as_ref(), default.version),
        headers: layer
            .headers
            .as_ref()
            .map_or_else(Vec::new, |it| it.value.to_vec()),
        body: or(layer.body.as_ref(), default.body),
    }
}

fn pattern(validator: &mut Validator<'_>, layer: &StepLayer) -> Option<Pattern> {
    let bytes = |it: &Written<Arc<[u8]>>| Arc::clone(&it.value);
    let regex = |it: &Written<Regex>| it.value.clone();
    if let Some(name) = &layer.expect_header {
        let method = layer.header_match.as_ref();
        let method = method.map_or(MatchMethod::Same, |it| it.value);
        let value = match &layer.header_value {
            None => {
                if let Some(written) = &layer.header_match {
                    let message = "`header-match` has no meaning without `header-value`";
                    let problem = Diagnostic::error("no-meaning", message);
                    validator.report.push(problem.at(written.place.clone()));
                }
                None
            }
            Some(value) if method == MatchMethod::Regex => match Regex::parse(&value.value) {
                Ok(regex) => Some((method, Arc::clone(&value.value), Some(regex))),
                Err(problem) => {
                    let expected = "expected a regular expression";
                    validator.problem(value.place.clone(), "value", expected, problem);
                    return None;
                }
            },
            Some(value) => Some((method, Arc::clone(&value.value), None)),
        };
        return Some(Pattern::Header(HeaderMatch {
            name: Arc::clone(&name.value),
            value,
        }));
    }
    let patterns = [
        layer
            .expect_string
            .as_ref()
            .map(|it| Pattern::String(bytes(it))),
        layer
            .expect_binary
            .as_ref()
            .map(|it| Pattern::Binary(bytes(it))),
        layer
            .expect_rstring
            .as_ref()
            .map(|it| Pattern::Regex(regex(it))),
        layer
            .expect_rbinary
            .as_ref()
            .map(|it| Pattern::BinaryRegex(regex(it))),
        layer
            .expect_status
            .as_ref()
            .map(|it| Pattern::Status(it.value.clone())),
        layer
            .expect_rstatus
            .as_ref()
            .map(|it| Pattern::StatusRegex(regex(it))),
    ];
    patterns.into_iter().flatten().next()
}

fn expect(layer: &StepLayer, pattern: Pattern) -> Expect {
    let verdict = |word: Option<&Written<Verdict>>| word.map(|it| it.value);
    Expect {
        negated: is_on(layer.not.as_ref()),
        min_recv: layer.min_recv.as_ref().map(|it| it.value),
        on_success: layer.on_success.as_ref().map(|it| it.value.clone()),
        on_error: layer.on_error.as_ref().map(|it| it.value.clone()),
        ok: verdict(layer.ok_status.as_ref()).unwrap_or(Verdict::L7Ok),
        error: verdict(layer.error_status.as_ref()),
        timeout: verdict(layer.tout_status.as_ref()).unwrap_or(Verdict::L7Timeout),
        ..Expect::new(pattern)
    }
}
