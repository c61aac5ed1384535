//! The result of an action on the page: HAProxy's code for it, and its message.

/// What became of an action on the page (`;st=CODE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionResult {
    /// It was done for all servers.
    Done,
    /// There was nothing to do.
    Nothing,
    /// It was done for some servers.
    Part,
    /// The action, the backend or the servers are not known.
    BadParameter,
    /// The request is too large.
    TooLarge,
    /// Whoever asks may not change servers, or another site has made the browser ask.
    Denied,
    /// Another method; HAProxy's alone.
    Invalid,
    /// Another code.
    Unknown,
}

/// What the page says of a result.
#[derive(Debug)]
pub(super) struct Message {
    /// The colour, by the class of a row.
    pub(super) class: &'static str,
    /// HAProxy's sentences.
    pub(super) lines: &'static [&'static str],
    /// Possible reasons.
    pub(super) reasons: &'static [&'static str],
}

impl ActionResult {
    /// All, in HAProxy's order.
    const ALL: [Self; 8] = [
        Self::Denied,
        Self::Done,
        Self::BadParameter,
        Self::TooLarge,
        Self::Nothing,
        Self::Part,
        Self::Unknown,
        Self::Invalid,
    ];

    /// HAProxy's code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Done => "DONE",
            Self::Nothing => "NONE",
            Self::Part => "PART",
            Self::BadParameter => "ERRP",
            Self::TooLarge => "EXCD",
            Self::Denied => "DENY",
            Self::Invalid => "IVAL",
            Self::Unknown => "UNKN",
        }
    }

    /// The result that the text behind `st=` begins with. `None`: the text is shorter than a code, and HAProxy ignores
    /// it.
    pub fn parse(text: &str) -> Option<Self> {
        let code = text.as_bytes().get(..4)?;
        let known = Self::ALL.into_iter();
        let mut known = known.filter(|one| one.code().as_bytes() == code);
        Some(known.next().unwrap_or(Self::Unknown))
    }

    /// HAProxy's message.
    pub(super) fn message(self) -> Message {
        let (class, lines): (_, &[&str]) = match self {
            Self::Done => ("active_up", &["Action processed successfully."]),
            Self::Nothing => ("active_going_down", &["Nothing has changed."]),
            Self::Part => (
                "active_going_down",
                &[
                    "Action partially processed.",
                    "Some server names are probably unknown or ambiguous (duplicated names in the backend).",
                ],
            ),
            Self::BadParameter => (
                "active_down",
                &["Action not processed because of invalid parameters."],
            ),
            Self::TooLarge => (
                "active_down",
                &[
                    "Action not processed : the buffer couldn't store all the data.",
                    "You should retry with less servers at a time.",
                ],
            ),
            Self::Denied => ("active_down", &["Action denied."]),
            Self::Invalid => (
                "active_down",
                &["Invalid requests (unsupported method or chunked encoded request)."],
            ),
            Self::Unknown => ("active_no_check", &["Unexpected result."]),
        };
        let reasons: &[&str] = match self {
            Self::BadParameter => &[
                "The action is maybe unknown.",
                "Invalid key parameter (empty or too long).",
                "The backend name is probably unknown or ambiguous (duplicated names).",
                "Some server names are probably unknown or ambiguous (duplicated names in the backend).",
            ],
            _ => &[],
        };
        Message {
            class,
            lines,
            reasons,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_by_haproxy() {
        for result in ActionResult::ALL {
            assert_eq!(ActionResult::parse(result.code()), Some(result));
        }
        for (text, expected) in [
            ("DONEx", Some(ActionResult::Done)),
            ("FOOBAR", Some(ActionResult::Unknown)),
            ("done", Some(ActionResult::Unknown)),
            ("äöü", Some(ActionResult::Unknown)),
            ("FOO", None),
            ("", None),
        ] {
            assert_eq!(ActionResult::parse(text), expected, "{text}");
        }
    }
}
