//! HAProxy's words for errors of the system.

use std::io;

/// Of an error that has no other name.
pub(super) const OTHER: &str = "General socket error";

/// Whose error it is, and the system's text.
pub(super) fn of_error(error: &io::Error) -> String {
    if is_of_tls(error) {
        return "SSL fatal error".to_owned();
    }
    let code = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "ECONNREFUSED returned by OS",
        Some(libc::ECONNRESET) => "ECONNRESET returned by OS",
        // HAProxy has one text for both.
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => "ENETUNREACH returned by OS",
        Some(libc::EINVAL) => "EINVAL returned by OS",
        Some(libc::EPIPE) => "EPIPE returned by OS",
        _ => OTHER,
    };
    format!("{code} ({})", of_system(error))
}

/// The system's own text, without the number.
pub(super) fn of_system(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text
        .split_once(" (os error")
        .map(|(text, _)| text.to_owned());
    text.unwrap_or_else(|| error.to_string())
}

/// Whether what the other side says in TLS is the error.
fn is_of_tls(error: &io::Error) -> bool {
    let inner = error.get_ref();
    inner
        .and_then(|it| it.downcast_ref::<rustls::Error>())
        .is_some()
}
