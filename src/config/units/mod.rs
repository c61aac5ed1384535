//! Parsers of strings: durations, file modes, names. Addresses are read in [`address`](super::address).
//!
//! Pure functions from text to a value or a [`Problem`]; used while a file is validated.

use std::sync::Arc;
use std::time::Duration;

/// Longest duration: a signed 32-bit number of milliseconds, as in HAProxy.
pub const DURATION_MAX: Duration = Duration::from_millis(i32::MAX as u64);
/// Shortest duration except zero, and the resolution of all timers.
pub const DURATION_MIN: Duration = Duration::from_millis(1);
/// Longest name of a proxy, listener or server, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The form of a duration, for "expected …".
pub const DURATION_EXPECTED: &str =
    "a duration in quotes with its unit, as \"500ms\", \"2s\", \"5m\" or \"1h\"";

/// Why a text is not valid, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub hint: Option<String>,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// `"2s"`, `"500ms"`, `"1h 30m"`; `"0s"` is allowed, a bare number is not.
pub fn duration(text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "duration `{trimmed}` has no unit, write \"{trimmed}s\" for seconds or \
             \"{trimmed}ms\" for milliseconds"
        ));
    }
    let value = humantime::parse_duration(trimmed)
        .map_err(|_| format!("`{text}` is not a duration, expected {DURATION_EXPECTED}"))?;
    if value > DURATION_MAX {
        return Err(format!(
            "`{text}` is too long, the longest duration is 24 days"
        ));
    }
    if !value.is_zero() && value < DURATION_MIN {
        return Err(format!(
            "`{text}` is too short, the shortest duration is 1 ms"
        ));
    }
    Ok(value)
}

/// A duration as [`duration`] reads it.
pub fn format_duration(value: Duration) -> String {
    humantime::format_duration(value).to_string()
}

/// A file mode in octal: `"0660"`.
pub fn mode(text: &str) -> Result<u32, Problem> {
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| octal && *mode <= 0o777)
        .ok_or_else(|| {
            Problem::new(format!("`{text}` is not a file mode")).hint("write it in octal: \"0660\"")
        })
}

/// Whether every proxy has a row of this name in the statistics.
pub fn is_row(name: &str) -> bool {
    ["FRONTEND", "BACKEND"].contains(&name)
}

/// Checks the name of a server.
///
/// # Errors
/// Those of [`name`], and a name for which [`is_row`] holds.
pub fn server_name(text: &str) -> Result<(), Problem> {
    if is_row(text) {
        return Err(Problem::new(format!(
            "`{text}` cannot be the name of a server"
        )));
    }
    name(text)
}

/// Checks the name of a proxy, listener or server: HAProxy's characters, which every output format can contain.
pub fn name(text: &str) -> Result<(), Problem> {
    if text.is_empty() {
        return Err(Problem::new("the name is empty"));
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(Problem::new(format!(
            "the name is longer than {NAME_BYTES_MAX} bytes"
        )));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    match text.chars().find(|c| !allowed(*c)) {
        None => Ok(()),
        Some(bad) => Err(
            Problem::new(format!("`{}` cannot stand in a name", bad.escape_debug()))
                .hint("names are made of letters, digits, `-`, `_`, `.` and `:`"),
        ),
    }
}

/// Reads the name of a network namespace: that of a file in the folder of `ip netns`.
///
/// # Errors
/// What is wrong with it.
pub fn namespace(text: &str) -> Result<Arc<str>, Problem> {
    let bad = |c: char| c == '/' || c == '\0' || c.is_whitespace();
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(bad) && !text.starts_with('.') {
        return Ok(text.into());
    }
    let problem = Problem::new(format!("`{text}` is not the name of a network namespace"));
    Err(problem.hint("`ip netns` lists them"))
}

/// Longest name of a congestion control algorithm (`TCP_CA_NAME_MAX` without the terminating zero).
const ALGORITHM_BYTES_MAX: usize = 15;

/// Reads the name of a congestion control algorithm.
///
/// # Errors
/// What is wrong with it.
pub fn algorithm(text: &str) -> Result<Arc<str>, Problem> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=ALGORITHM_BYTES_MAX).contains(&text.len()) && text.bytes().all(good) {
        return Ok(text.into());
    }
    let problem = Problem::new(format!("`{text}` is not the name of an algorithm"));
    Err(problem.hint("`sysctl net.ipv4.tcp_available_congestion_control` lists them"))
}

#[cfg(test)]
mod tests;
