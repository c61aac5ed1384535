//! The body of a POST to the page: HAProxy's form of an action on servers. Pure.
//!
//! `s` names a server and may come several times, `b` the backend (its name, or `#` and its number), `action` what is to
//! be done. As in HAProxy the last `b` and the last `action` count, parameters may have any order, others are ignored,
//! and the type of the body is not looked at. Unlike there, nothing is done when a part of the body cannot be read.

use std::collections::HashSet;

/// Longest parameter with its name, as in HAProxy.
const PARAMETER_BYTES_MAX: usize = 2047;

/// What is done to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Ready,
    Drain,
    Maint,
    /// Ends its sessions.
    Shutdown,
    DisableChecks,
    EnableChecks,
    ForceUp,
    ForceNolb,
    ForceDown,
    /// Of an agent; no server has one.
    Agent,
    /// Of old versions: maintenance, if it is not set.
    Disable,
    /// Of old versions: ends maintenance, and leaves a drain.
    Enable,
    /// Of old versions: drain, beside maintenance.
    Stop,
    /// Of old versions: ends a drain.
    Start,
}

impl Action {
    /// By HAProxy's words.
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "ready" => Self::Ready,
            "drain" => Self::Drain,
            "maint" => Self::Maint,
            "shutdown" => Self::Shutdown,
            "dhlth" => Self::DisableChecks,
            "ehlth" => Self::EnableChecks,
            "hrunn" => Self::ForceUp,
            "hnolb" => Self::ForceNolb,
            "hdown" => Self::ForceDown,
            "dagent" | "eagent" | "arunn" | "adown" => Self::Agent,
            "disable" => Self::Disable,
            "enable" => Self::Enable,
            "stop" => Self::Stop,
            "start" => Self::Start,
            _ => return None,
        })
    }
}

/// What a body asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// The backend, as it was written.
    pub(super) backend: Option<String>,
    /// The action, and the word for it; an unknown word is no action.
    pub(super) action: Option<(Option<Action>, String)>,
    /// The servers, each once, in their order.
    pub(super) servers: Vec<String>,
}

/// The form in `body`.
///
/// # Errors
/// Which part cannot be read.
pub(super) fn parse(body: &[u8]) -> Result<Form, &'static str> {
    let mut form = Form::default();
    let mut known = HashSet::new();
    for parameter in body.split(|byte| *byte == b'&') {
        if parameter.len() > PARAMETER_BYTES_MAX {
            return Err("a parameter is too long");
        }
        let end = parameter.iter().position(|byte| *byte == b'=');
        let (name, value) = parameter.split_at(end.unwrap_or(parameter.len()));
        let value = decoded(value.get(1..).unwrap_or_default())?;
        match decoded(name)?.as_str() {
            "b" => form.backend = Some(value),
            "action" => form.action = Some((Action::parse(&value), value)),
            "s" if known.insert(value.clone()) => form.servers.push(value),
            _ => {}
        }
    }
    Ok(form)
}

/// The text behind `+` and `%41`. Bytes that are not UTF-8 become U+FFFD, which no name has.
fn decoded(encoded: &[u8]) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                let both = digit().zip(digit());
                let (high, low) = both.ok_or("a `%` is not followed by two hexadecimal digits")?;
                u8::try_from(high * 16 + low).unwrap_or_default()
            }
            other => *other,
        });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(backend: &str, action: &str, servers: &[&str]) -> Form {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Form {
            backend: some(backend),
            action: some(action).map(|word| (Action::parse(&word), word)),
            servers: servers.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn a_browsers_form_is_read_in_any_order() {
        for (body, expected) in [
            (
                "s=s1&s=s2&action=maint&b=%23be",
                form("#be", "maint", &["s1", "s2"]),
            ),
            ("b=be&action=drain&s=s1", form("be", "drain", &["s1"])),
            ("s=a+b%2Bc%26%3d&b=b%C3%A9", form("bé", "", &["a b+c&="])),
            ("s=x&s=y&s=x&s", form("", "", &["x", "y", ""])),
            ("action=ready&action=drain&b=1&b=2", form("2", "drain", &[])),
            ("x=1&%73=n&S=m&s=%ff", form("", "", &["n", "\u{fffd}"])),
            ("&&s=a=b&", form("", "", &["a=b"])),
            ("hello", Form::default()),
            ("", Form::default()),
        ] {
            assert_eq!(parse(body.as_bytes()), Ok(expected), "{body}");
        }
    }

    #[test]
    fn all_words_of_haproxy_are_actions() {
        let words = "ready drain maint shutdown dhlth ehlth hrunn hnolb hdown dagent eagent arunn adown disable \
                     enable stop start";
        for word in words.split_whitespace() {
            assert!(Action::parse(word).is_some(), "{word}");
        }
        for word in ["", "READY", "boom", "ready "] {
            let body = format!("action={word}");
            let form = parse(body.as_bytes()).unwrap();
            assert_eq!(form.action, Some((None, word.to_owned())));
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for body in [
            "s=%",
            "s=%4",
            "s=%zz",
            "s=%+1",
            "%=",
            "s=a&s=%g0&b=x",
            "s=%-1",
        ] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
        let long = |length: usize| format!("s={}", "x".repeat(length - 2));
        assert!(parse(long(PARAMETER_BYTES_MAX).as_bytes()).is_ok());
        assert!(parse(long(PARAMETER_BYTES_MAX + 1).as_bytes()).is_err());
    }
}
