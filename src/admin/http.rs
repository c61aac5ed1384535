//! What the stats listener answers, by HAProxy's grammar of its statistics URI. Admin thread.
//!
//! Invariant: an answer is made piece by piece as the client takes it; a page of ten thousand
//! servers is never in memory as a whole.

use crate::stats::Csv;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What `/` says.
const INDEX: &str = "rlb statistics\n\n/;csv      all figures, as HAProxy's CSV\n/healthz   200 while the process runs\n";

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// `/`
    Index,
    /// `;csv`, anywhere.
    Csv,
    /// `/healthz`
    Health,
    /// No such page.
    Nothing,
    /// Neither GET nor HEAD.
    Refused,
}

impl Wanted {
    /// What `method` on `target` (path and query) asks for. As in HAProxy, whose URI is a prefix,
    /// options follow a `;` anywhere and unknown ones are ignored.
    pub(super) fn of(method: &Method, target: &str) -> Self {
        if method != Method::GET && method != Method::HEAD {
            return Self::Refused;
        }
        let mut options = target.split(';').skip(1);
        if options.any(|option| option.split(['?', '&', '#']).next() == Some("csv")) {
            return Self::Csv;
        }
        match target.split([';', '?']).next() {
            Some("/") => Self::Index,
            Some("/healthz") => Self::Health,
            _ => Self::Nothing,
        }
    }

    /// The answer; `csv` makes the figures if they are wanted. For `HEAD` without its body.
    pub(super) fn answer(self, method: &Method, csv: impl FnOnce() -> Csv) -> Response<Page> {
        let (status, page) = match self {
            Self::Index => (StatusCode::OK, Page::text(INDEX)),
            Self::Csv if method == Method::HEAD => (StatusCode::OK, Page::Done),
            Self::Csv => (StatusCode::OK, Page::Csv(Box::new(csv()))),
            Self::Health => (StatusCode::OK, Page::text("ok\n")),
            Self::Nothing => (StatusCode::NOT_FOUND, Page::text("not found\n")),
            Self::Refused => (
                StatusCode::METHOD_NOT_ALLOWED,
                Page::text("method not allowed\n"),
            ),
        };
        let mut response = Response::new(page);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if self == Self::Refused {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Page {
    /// A few bytes at once.
    Text(&'static str),
    /// The figures, chunk by chunk.
    Csv(Box<Csv>),
    /// Nothing (more).
    Done,
}

impl Page {
    fn text(text: &'static str) -> Self {
        Self::Text(text)
    }
}

impl Body for Page {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = match &mut *self {
            Self::Text(text) => {
                let text = Bytes::from_static(text.as_bytes());
                *self = Self::Done;
                text
            }
            Self::Csv(csv) => csv.chunk().into(),
            Self::Done => Bytes::new(),
        };
        if chunk.is_empty() {
            *self = Self::Done;
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
            Self::Csv(_) => SizeHint::default(),
            Self::Done => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_haproxys() {
        let wanted = |target| Wanted::of(&Method::GET, target);
        for target in [
            "/;csv",
            "/;csv;norefresh",
            "/;norefresh;csv",
            "/stats;csv",
            "/haproxy?stats;csv",
            "/;csv?x=1",
            "/;csv&scope=a",
        ] {
            assert_eq!(wanted(target), Wanted::Csv, "{target}");
        }
        for target in ["/", "/;norefresh", "/;up;norefresh", "/?x=;", "/;csvx"] {
            assert_eq!(wanted(target), Wanted::Index, "{target}");
        }
        assert_eq!(wanted("/healthz"), Wanted::Health);
        assert_eq!(wanted("/healthz?probe=1"), Wanted::Health);
        for target in [
            "/healthz/",
            "//",
            "/../",
            "/%2e%2e/etc/passwd",
            "/nosuch",
            "",
            "*",
            "/csv",
        ] {
            assert_eq!(wanted(target), Wanted::Nothing, "{target}");
        }
        assert_eq!(Wanted::of(&Method::POST, "/;csv"), Wanted::Refused);
        assert_eq!(Wanted::of(&Method::HEAD, "/;csv"), Wanted::Csv);
    }
}
