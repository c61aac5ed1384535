//! A request of HTTP as bytes.

use crate::config::script::{Request, StepFormat};

/// Methods whose requests have no length if they have no body.
const BODILESS: [&str; 4] = ["OPTIONS", "GET", "HEAD", "DELETE"];

/// The request. `state`: what `send-state` says; `token`: who asks; `value`: what becomes of a format.
pub(super) fn bytes(
    request: &Request,
    (state, token): (Option<&str>, Option<&str>),
    value: impl Fn(&StepFormat) -> Vec<u8>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let line = format!("{} {} {}\r\n", request.method, request.uri, request.version);
    out.extend_from_slice(line.as_bytes());
    let mut header = |name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    let mut says_connection = false;
    for (name, format) in &request.headers {
        let value = value(format);
        // As in HAProxy an empty one is not sent.
        if !value.is_empty() {
            says_connection |= name.eq_ignore_ascii_case("connection");
            header(name, &value);
        }
    }
    if let Some(state) = state {
        header("X-Haproxy-Server-State", state.as_bytes());
    }
    if let Some(token) = token {
        header("Authorization", format!("Bearer {token}").as_bytes());
    }
    if !says_connection {
        header("Connection", b"close");
    }
    let body = request.body.as_bytes();
    if !body.is_empty() || !BODILESS.contains(&&*request.method) {
        header("Content-Length", body.len().to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out
}
