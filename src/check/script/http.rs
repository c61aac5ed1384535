//! An answer of HTTP/1: bytes → status, headers and what has come of the body. Pure, fuzzed.

use httparse::{EMPTY_HEADER, Header, Status};
use std::borrow::Cow;

/// Most headers of an answer, as in HAProxy.
pub const HEADERS_MAX: usize = 101;
/// Most interim answers (1xx) before the one that counts.
const INTERIM_MAX: usize = 16;

/// What bytes are.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// The head of an answer is not complete.
    Partial,
    /// They are no answer.
    Invalid,
    /// An answer, with what has come of its body.
    Answer(Answer<'a>),
}

/// An answer.
#[derive(Debug)]
pub struct Answer<'a> {
    /// `200`
    pub status: u16,
    /// `OK`; may be empty.
    pub reason: &'a [u8],
    /// In their order.
    pub headers: Vec<Header<'a>>,
    /// What has come of it.
    pub body: Cow<'a, [u8]>,
    /// Nothing more of it comes.
    pub is_complete: bool,
    /// What follows in the body is no chunk. The head stands all the same: the result of a check that waits for a status
    /// must not depend on whether the fault has come with the head.
    pub is_broken: bool,
}

/// Reads an answer. `bodiless`: it is one to `HEAD`; `ended`: nothing follows `input`.
pub fn parse(input: &[u8], bodiless: bool, ended: bool) -> Parsed<'_> {
    let mut rest = input;
    for _ in 0..INTERIM_MAX {
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(rest) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Parsed::Partial,
            Err(_) => return Parsed::Invalid,
        };
        let (Some(status), reason) = (response.code, response.reason.unwrap_or_default()) else {
            return Parsed::Invalid;
        };
        let headers = response.headers.to_vec();
        rest = &rest[length..];
        if status < 100 {
            return Parsed::Invalid;
        }
        if status < 200 && status != 101 {
            continue;
        }
        let empty = bodiless || [101, 204, 304].contains(&status);
        let Some(framing) = Framing::of(&headers, empty) else {
            return Parsed::Invalid;
        };
        let (body, end) = framing.read(rest);
        return Parsed::Answer(Answer {
            status,
            reason: reason.as_bytes(),
            headers,
            body,
            is_complete: end != End::More || ended,
            is_broken: end == End::Broken,
        });
    }
    Parsed::Invalid
}

/// What stands behind the part of a body that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// More of it.
    More,
    /// Nothing: it is whole.
    Whole,
    /// Something that is no chunk.
    Broken,
}

impl End {
    fn whole_if(is_whole: bool) -> Self {
        if is_whole { Self::Whole } else { Self::More }
    }
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    /// With the connection.
    Close,
}

impl Framing {
    /// `None`: the headers contradict each other.
    fn of(headers: &[Header<'_>], empty: bool) -> Option<Self> {
        if empty {
            return Some(Self::Length(0));
        }
        let values = |name: &'static str| {
            let named = headers.iter();
            let named = named.filter(move |header| header.name.eq_ignore_ascii_case(name));
            named.flat_map(|header| header.value.split(|byte| *byte == b','))
        };
        let mut codings = values("transfer-encoding").peekable();
        if codings.peek().is_some() {
            let last = codings.last().unwrap_or_default().trim_ascii();
            return Some(if last.eq_ignore_ascii_case(b"chunked") {
                Self::Chunked
            } else {
                Self::Close
            });
        }
        let mut length = None;
        for value in values("content-length") {
            let digits = std::str::from_utf8(value.trim_ascii()).ok()?;
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.parse().ok().filter(|_| is_number)?;
            if length.replace(number).is_some_and(|other| other != number) {
                return None;
            }
        }
        Some(length.map_or(Self::Close, Self::Length))
    }

    /// The part of the body in `input`.
    fn read(self, input: &[u8]) -> (Cow<'_, [u8]>, End) {
        match self {
            Self::Close => (input.into(), End::More),
            Self::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let body = &input[..length.min(input.len())];
                (body.into(), End::whole_if(input.len() >= length))
            }
            Self::Chunked => chunks(input),
        }
    }
}

/// The bytes of the chunks in `input`.
fn chunks(mut input: &[u8]) -> (Cow<'_, [u8]>, End) {
    let mut body = Vec::new();
    loop {
        let (at, length) = match httparse::parse_chunk_size(input) {
            Ok(Status::Complete(read)) => read,
            Ok(Status::Partial) => return (body.into(), End::More),
            Err(_) => return (body.into(), End::Broken),
        };
        if length == 0 {
            return (body.into(), End::Whole);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        input = &input[at..];
        if input.len() < length {
            body.extend_from_slice(input);
            return (body.into(), End::More);
        }
        let (chunk, rest) = input.split_at(length);
        body.extend_from_slice(chunk);
        input = match rest {
            [b'\r', b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return (body.into(), End::More),
            _ => return (body.into(), End::Broken),
        };
    }
}
