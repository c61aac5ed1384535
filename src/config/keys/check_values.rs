//! The kinds of values that only health checks have.

#![expect(
    clippy::ref_option,
    reason = "a key is handed on as it stands, written or not"
)]

use super::kinds::{Absent, Kind, Plain, Read, kind, parsed};
use crate::config::key::Key;
use crate::config::scope::{Scope, Validator, Written};
use crate::config::script::{Regex, StatusRanges, StepFormat, preset};
use crate::config::shapes::{Located, Maybe};
use crate::config::units::Problem;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most bytes of a text that is sent or expected.
const TEXT_MAX: usize = 8_192;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;

/// Headers of a request, in their order.
pub(super) type HeaderList = Arc<[(Arc<str>, StepFormat)]>;

kind! {
    /// Bytes, written as a text.
    Bytes: String => Arc<[u8]>, "string", default &'static str,
    show |it| it.escape_ascii().to_string(), text |it| format!("{it:?}"), make |it| it.as_bytes().into(),
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected a text"), bytes)
    }
}

kind! {
    /// Bytes, written as hexadecimal digits.
    Hex: String => Arc<[u8]>, "hexadecimal digits", default &'static str,
    show |it| it.escape_ascii().to_string(), text |it| format!("{it:?}"), make |it| it.as_bytes().into(),
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected hexadecimal digits"), hex)
    }
}

kind! {
    /// A regular expression.
    Expression: String => Regex, "regular expression", default Regex,
    show |it| it.text().to_owned(), text |it| it.text().to_owned(), make |it| it,
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected a regular expression"), Regex::parse)
    }
}

kind! {
    /// A format, of which a check makes a text.
    CheckFormat: String => StepFormat, "format", default StepFormat,
    show |it| it.to_string(), text |it| format!("\"{it}\""), make |it| it,
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected a format"), StepFormat::parse)
    }
}

kind! {
    /// Status codes of HTTP.
    Statuses: String => StatusRanges, "status codes", default StatusRanges,
    show |it| it.to_string(), text |it| format!("\"{it}\""), make |it| it,
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected status codes"), StatusRanges::parse)
    }
}

kind! {
    /// A word of HTTP: a method, or the name of a header.
    Token: String => Arc<str>, "word", default &'static str,
    show |it| it.to_string(), text |it| format!("{it:?}"), make Arc::from,
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected a word as GET"), token)
    }
}

kind! {
    /// What a request asks for.
    RequestTarget: String => Arc<str>, "path", default &'static str,
    show |it| it.to_string(), text |it| format!("{it:?}"), make Arc::from,
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected a path as \"/readyz\""), target)
    }
}

kind! {
    /// A version of HTTP.
    HttpVersion: String => Arc<str>, "version of HTTP", default &'static str,
    show |it| it.to_string(), text |it| format!("{it:?}"), make Arc::from,
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected \"HTTP/1.0\" or \"HTTP/1.1\""), version)
    }
}

kind! {
    /// The name of a user.
    UserName: String => Arc<str>, "name", default &'static str,
    show |it| it.to_string(), text |it| format!("{it:?}"), make Arc::from,
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected the name of a user"), user)
    }
}

kind! {
    /// What a client says to an SMTP server first.
    SmtpHello: String => Arc<str>, "string", default &'static str,
    show |it| it.to_string(), text |it| format!("{it:?}"), make Arc::from,
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected a greeting as \"HELO localhost\""), hello)
    }
}

kind! {
    /// Headers of a request.
    Headers: BTreeMap<Located<String>, Located<String>> => HeaderList, "table", default &'static str,
    show |it| it.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(", "),
    text ToOwned::to_owned, make |_| Arc::new([]),
    read |validator, scope, _, field| headers(validator, scope, field)
}

impl Absent for Bytes {}
impl Absent for Hex {}
impl Absent for Expression {}
impl Absent for CheckFormat {}
impl Absent for Statuses {}
impl Absent for Token {}
impl Absent for RequestTarget {}
impl Absent for HttpVersion {}
impl Absent for UserName {}
impl Absent for SmtpHello {}
impl Absent for Headers {}

fn within(text: &str) -> Result<(), Problem> {
    if text.len() > TEXT_MAX {
        return Err(Problem::new(format!("it is longer than {TEXT_MAX} bytes")));
    }
    if text.is_empty() {
        return Err(Problem::new("it is empty"));
    }
    Ok(())
}

fn bytes(text: &str) -> Result<Arc<[u8]>, Problem> {
    within(text)?;
    Ok(text.as_bytes().into())
}

fn hex(text: &str) -> Result<Arc<[u8]>, Problem> {
    within(text)?;
    let bad = || {
        let problem = Problem::new("it is no even number of hexadecimal digits");
        problem.hint("write two digits for each byte: \"50494e47\"")
    };
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err(bad());
    }
    let bytes = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).unwrap_or_default();
        let digits = pair.bytes().all(|byte| byte.is_ascii_hexdigit());
        u8::from_str_radix(pair, 16).ok().filter(|_| digits)
    });
    bytes.collect::<Option<Arc<[u8]>>>().ok_or_else(bad)
}

fn token(text: &str) -> Result<Arc<str>, Problem> {
    within(text)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.bytes().all(allowed) {
        Ok(text.into())
    } else {
        Err(Problem::new(format!(
            "`{text}` has characters that no word of HTTP has"
        )))
    }
}

fn target(text: &str) -> Result<Arc<str>, Problem> {
    within(text)?;
    if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        let problem = Problem::new("it has a space or a control character");
        return Err(problem.hint("write %20 for a space"));
    }
    Ok(text.into())
}

fn version(text: &str) -> Result<Arc<str>, Problem> {
    match text {
        "HTTP/1.0" | "HTTP/1.1" => Ok(text.into()),
        _ if text.contains(['\r', '\n']) => {
            let problem = Problem::new("headers cannot stand behind the version");
            Err(problem.hint("write `headers = { Host = \"www.example.org\" }`"))
        }
        _ => Err(Problem::new(format!("rlb does not speak `{text}`"))),
    }
}

fn user(text: &str) -> Result<Arc<str>, Problem> {
    within(text)?;
    if text.len() > preset::USER_MAX || text.contains(char::is_control) {
        let most = preset::USER_MAX;
        let message = format!("a user has at most {most} bytes, and no control characters");
        return Err(Problem::new(message));
    }
    Ok(text.into())
}

fn hello(text: &str) -> Result<Arc<str>, Problem> {
    within(text)?;
    let host = text.split_once(' ').filter(|(word, host)| {
        let plain = |byte: u8| byte.is_ascii_graphic();
        ["HELO", "EHLO"].contains(word) && !host.is_empty() && host.bytes().all(plain)
    });
    match host {
        Some(_) => Ok(text.into()),
        None => Err(Problem::new(format!("`{text}` is no greeting of SMTP"))
            .hint("write \"HELO\" or \"EHLO\" and the name of a host")),
    }
}

fn headers(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    field: &Maybe<BTreeMap<Located<String>, Located<String>>>,
) -> Option<Written<HeaderList>> {
    let written = field.as_ref()?;
    let place = scope.of(written);
    let mut all: Vec<_> = written.value.iter().collect();
    all.sort_by_key(|(name, _)| name.span.start);
    let mut value = Some(Vec::new());
    if all.len() > HEADERS_MAX {
        let problem = Problem::new(format!("it has more than {HEADERS_MAX} headers"));
        validator.problem(place, "value", "expected fewer", problem);
        return None;
    }
    for (name, text) in all {
        match header(&name.value, &text.value) {
            Ok(header) => {
                if let Some(value) = &mut value {
                    value.push(header);
                }
            }
            Err(problem) => {
                validator.problem(scope.of(text), "value", "expected a header", problem);
                value = None;
            }
        }
    }
    Some(Written {
        value: value?.into(),
        place,
    })
}

fn header(name: &str, value: &str) -> Result<(Arc<str>, StepFormat), Problem> {
    let name = token(name)?;
    if ["content-length", "transfer-encoding"]
        .iter()
        .any(|own| name.eq_ignore_ascii_case(own))
    {
        let problem = Problem::new(format!("`{name}` follows from the body"));
        return Err(problem.hint("leave it out"));
    }
    if value.contains(['\r', '\n', '\0']) {
        return Err(Problem::new("a header has one line"));
    }
    Ok((name, StepFormat::parse(value)?))
}
