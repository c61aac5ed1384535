//! Whether an answer is what a step waits for.

use super::http::{self, Answer, Parsed};
use super::{Run, is_http, kube, status, text};
use crate::config::script::{Expect, HeaderMatch, Kube, MatchMethod, Pattern, Step, Verdict};
use crate::live::CheckStatus;

/// What a step makes of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// The next step is due.
    Passed,
    /// More of the answer is needed.
    Wait,
    /// The check has failed.
    Failed(CheckStatus, String),
}

impl Run<'_> {
    /// Compares what has come so far with what `step` waits for.
    pub(super) fn judge(&mut self, step: &Step, expect: &Expect) -> Judged {
        if is_http(self.script, &expect.pattern) {
            return self.judge_http(step, expect);
        }
        let is_last = self.is_whole();
        let input = &*self.input;
        let least = match &expect.pattern {
            Pattern::String(bytes) | Pattern::Binary(bytes) => bytes.len(),
            _ => 0,
        };
        if !is_last && input.len() < least.max(minimum(expect)) {
            return Judged::Wait;
        }
        let found = match &expect.pattern {
            Pattern::String(bytes) | Pattern::Binary(bytes) => contains(input, bytes),
            Pattern::Regex(regex) => regex.is_match(input),
            Pattern::BinaryRegex(regex) => regex.is_match(text::hex(input).as_bytes()),
            Pattern::MysqlGreeting | Pattern::MysqlOk | Pattern::LdapBind => {
                return self.judge_packet(step, expect, is_last);
            }
            Pattern::Status(_) | Pattern::StatusRegex(_) | Pattern::Header(_) => false,
        };
        if !found && !is_last && expect.min_recv.is_none() {
            return Judged::Wait;
        }
        if found != expect.negated {
            return Judged::Passed;
        }
        self.note_code(expect);
        let status = status(expect.error.unwrap_or(Verdict::L7Response));
        Judged::Failed(status, self.mismatch(step, expect, found, ""))
    }

    /// The text of a failure; `reason`: what the answer itself says.
    fn mismatch(&self, step: &Step, expect: &Expect, found: bool, reason: &str) -> String {
        let said = if !reason.is_empty() {
            reason.to_owned()
        } else if let Some(format) = &expect.on_error {
            text::lossy(&self.format(format))
        } else {
            text::mismatch(self.script, step, expect, (found, self.input.is_empty()))
        };
        match &step.comment {
            Some(comment) => format!("{said} comment: {comment}"),
            None => said,
        }
    }

    fn judge_packet(&mut self, step: &Step, expect: &Expect, last: bool) -> Judged {
        if self.input.is_empty() {
            // As in HAProxy nothing is no answer.
            if !last {
                return Judged::Wait;
            }
            let info = self.mismatch(step, expect, false, "");
            return Judged::Failed(CheckStatus::L7Response, info);
        }
        let read = match expect.pattern {
            Pattern::LdapBind => ldap(&self.input),
            Pattern::MysqlOk => mysql(&self.input, mysql_length(&self.input)),
            _ => mysql(&self.input, Some(0)),
        };
        match read {
            Packet::Good => Judged::Passed,
            Packet::Short if !last => Judged::Wait,
            Packet::Short => {
                let info = self.mismatch(step, expect, false, "");
                Judged::Failed(CheckStatus::L7Response, info)
            }
            Packet::Foreign(said) => Judged::Failed(
                CheckStatus::L7Response,
                self.mismatch(step, expect, false, said),
            ),
            Packet::Refused(code, said) => {
                self.code = code;
                let info = self.mismatch(step, expect, false, &said);
                Judged::Failed(CheckStatus::L7Status, info)
            }
        }
    }

    fn judge_http(&mut self, step: &Step, expect: &Expect) -> Judged {
        let last = self.is_whole();
        let answer = match http::parse(&self.input, self.bodiless, self.ended) {
            Parsed::Partial if !last => return Judged::Wait,
            Parsed::Partial | Parsed::Invalid => return broken(),
            Parsed::Answer(answer) => answer,
        };
        let last = last || answer.is_complete;
        let of_kube = self.script.kube.is_some();
        if of_kube && Kube::is_not_ready(answer.status) && !last {
            // Its body says what is not.
            return Judged::Wait;
        }
        self.code = answer.status;
        if self.leaves() {
            return Judged::Passed;
        }
        let reason = || match &expect.on_error {
            None => kube::said(self).unwrap_or_else(|| text::lossy(answer.reason)),
            Some(_) => String::new(),
        };
        let (found, bad, reason) = match &expect.pattern {
            Pattern::Status(ranges) => (ranges.has(answer.status), Verdict::L7Status, reason()),
            Pattern::StatusRegex(regex) => {
                let digits = answer.status.to_string();
                (
                    regex.is_match(digits.as_bytes()),
                    Verdict::L7Status,
                    reason(),
                )
            }
            Pattern::Header(header) => (has_header(&answer, header), Verdict::L7Status, reason()),
            pattern => match in_body(pattern, expect, &answer, last) {
                Ok((found, reason)) => (found, Verdict::L7Response, reason.to_owned()),
                Err(judged) => return judged,
            },
        };
        if found != expect.negated {
            return Judged::Passed;
        }
        let status = status(expect.error.unwrap_or(bad));
        let info = self.mismatch(step, expect, false, &reason);
        Judged::Failed(status, info)
    }
}

/// Whether the body has the pattern, and what is said when that is wrong.
fn in_body(
    pattern: &Pattern,
    expect: &Expect,
    answer: &Answer<'_>,
    is_last: bool,
) -> Result<(bool, &'static str), Judged> {
    let body = &*answer.body;
    let or_own = |said| if expect.on_error.is_none() { said } else { "" };
    if body.is_empty() {
        if answer.is_broken {
            return Err(broken());
        }
        if !is_last {
            return Err(Judged::Wait);
        }
        // As in HAProxy it is a failure whether the pattern is negated or not.
        let said = or_own("HTTP content check could not find a response body");
        return Ok((expect.negated, said));
    }
    let (least, found) = match pattern {
        Pattern::String(bytes) | Pattern::Binary(bytes) => (bytes.len(), contains(body, bytes)),
        Pattern::Regex(regex) => (0, regex.is_match(body)),
        Pattern::BinaryRegex(regex) => (0, regex.is_match(text::hex(body).as_bytes())),
        _ => (0, false),
    };
    let short = body.len() < least.max(minimum(expect));
    if !is_last && (short || !found && expect.min_recv.is_none()) {
        return Err(Judged::Wait);
    }
    if answer.is_broken && !found {
        return Err(broken());
    }
    let said = if expect.negated {
        "HTTP check matched unwanted content"
    } else {
        "HTTP content check did not match"
    };
    Ok((found, or_own(said)))
}

/// As of an answer that is none.
fn broken() -> Judged {
    Judged::Failed(CheckStatus::L7Response, String::new())
}

/// How many bytes an answer must have before it is judged.
fn minimum(expect: &Expect) -> usize {
    let least = expect.min_recv.unwrap_or(0);
    usize::try_from(least).unwrap_or(usize::MAX)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

/// Whether a header has that name, and one of its values, between commas, is as expected.
fn has_header(answer: &Answer<'_>, wanted: &HeaderMatch) -> bool {
    let named = answer.headers.iter();
    let mut named = named.filter(|header| header.name.eq_ignore_ascii_case(&wanted.name));
    let Some((method, value, regex)) = &wanted.value else {
        return named.next().is_some();
    };
    let value = value.as_bytes();
    let mut values = named.flat_map(|header| header.value.split(|byte| *byte == b','));
    values.any(|one| {
        let one = one.trim_ascii();
        match method {
            MatchMethod::Same => one == value,
            MatchMethod::Begin => one.starts_with(value),
            MatchMethod::End => one.ends_with(value),
            MatchMethod::Within => contains(one, value),
            MatchMethod::Regex => regex.as_ref().is_some_and(|regex| regex.is_match(one)),
        }
    })
}

/// What a packet of a service is.
#[derive(Debug, PartialEq, Eq)]
enum Packet {
    Good,
    /// More is needed.
    Short,
    /// Of another protocol.
    Foreign(&'static str),
    /// The service says no: with this number, in these words.
    Refused(u16, String),
}

/// How many bytes the first packet of a MySQL server has, with its header.
fn mysql_length(input: &[u8]) -> Option<usize> {
    let [a, b, c, ..] = *input else {
        return None;
    };
    Some(usize::from(a) + (usize::from(b) << 8) + (usize::from(c) << 16) + 4)
}

/// The packet of a MySQL server that begins at this byte.
fn mysql(input: &[u8], at: Option<usize>) -> Packet {
    let Some(packet) = at.and_then(|at| input.get(at..)) else {
        return Packet::Short;
    };
    let Some(length) = mysql_length(packet) else {
        return Packet::Short;
    };
    if packet.len() < length || packet.len() < 5 {
        return Packet::Short;
    }
    if packet[4] == 0xff {
        let byte = |at: usize| packet.get(at).copied().unwrap_or(0);
        let said = packet.get(7..length).unwrap_or_default();
        return Packet::Refused(u16::from_le_bytes([byte(5), byte(6)]), text::lossy(said));
    }
    Packet::Good
}

/// The answer of an LDAP server to the bind of message 1 (RFC 4511).
fn ldap(input: &[u8]) -> Packet {
    const FOREIGN: Packet = Packet::Foreign("Not LDAPv3 protocol");
    const RFC: &str = "See RFC: http://tools.ietf.org/html/rfc4511#section-4.1.9";
    // A length of the long form has the number of its bytes first.
    let Some((length, message)) = ldap_length(input.get(1..).unwrap_or_default()) else {
        return Packet::Short;
    };
    let Some(length) = length else { return FOREIGN };
    if message.len() < length {
        return Packet::Short;
    }
    let Some(bind) = message.strip_prefix(&[0x02, 0x01, 0x01, 0x61]) else {
        return FOREIGN;
    };
    let Some((_, result)) = ldap_length(bind) else {
        return Packet::Short;
    };
    match *result {
        [0x0a, 0x01, 0, ..] => Packet::Good,
        [0x0a, 0x01, code, ..] => Packet::Refused(code.into(), RFC.to_owned()),
        [_, _, _, ..] => FOREIGN,
        _ => Packet::Short,
    }
}

/// The length that `input` begins with, and what follows it. `None`: it is cut off; the inner one: it is of a form that
/// no server uses.
fn ldap_length(input: &[u8]) -> Option<(Option<usize>, &[u8])> {
    let (first, rest) = input.split_first()?;
    if first & 0x80 == 0 {
        return Some((Some(usize::from(*first)), rest));
    }
    let bytes = usize::from(first & 0x7f);
    let (digits, rest) = rest.split_at_checked(bytes)?;
    let length = match *digits {
        [a, b] => Some(usize::from(u16::from_be_bytes([a, b]))),
        [a, b, c, d] => usize::try_from(u32::from_be_bytes([a, b, c, d])).ok(),
        _ => None,
    };
    Some((length, rest))
}

/// What a service says of itself that has passed.
pub(super) fn said<'a>(pattern: &Pattern, input: &'a [u8]) -> &'a str {
    match pattern {
        Pattern::LdapBind => "Success",
        Pattern::MysqlGreeting | Pattern::MysqlOk => {
            let length = mysql_length(input).unwrap_or(0);
            let packet = &input[..length.min(input.len())];
            let version = packet.get(5..).unwrap_or_default();
            let version = version.split(|byte| *byte == 0).next().unwrap_or_default();
            std::str::from_utf8(version).unwrap_or_default()
        }
        _ => "",
    }
}
