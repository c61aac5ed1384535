//! The answers of the stats listener. Admin thread.
//!
//! Invariant: an answer is made piece by piece as the client takes it; a page of ten thousand
//! servers is never in memory as a whole.

use super::auth::admits;
use super::ready::readiness;
use super::target::{Wanted, parse};
use crate::config::model::StatsPage;
use crate::state::Snapshot;
use crate::stats::metrics::CONTENT_TYPE as METRICS_TYPE;
use crate::stats::page::View;
use crate::stats::{Metrics, Page, Process, Requests, Rows, Table, schema};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, REFRESH, WWW_AUTHENTICATE,
};
use hyper::{Method, Response, StatusCode};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// What a client without a password is told.
const UNAUTHORIZED: &str = "<!DOCTYPE html><html><body><h1>401 Unauthorized</h1>\n\
     The statistics are for those with a user name and a password.\n</body></html>\n";
/// The page runs nothing and loads nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
     form-action 'self'; base-uri 'none'";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain";
const JSON: &str = "application/json";

/// What answers are made of.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) process: Arc<Process>,
    pub(super) requests: Arc<Requests>,
    pub(super) now: Instant,
}

/// The answer to `method` on `target`; for `HEAD` without its body.
pub(super) fn answer(
    sources: Sources,
    method: &Method,
    target: &str,
    headers: &HeaderMap,
) -> Response<Answer> {
    let default = StatsPage::default();
    let snapshot = Arc::clone(&sources.snapshot);
    let page = snapshot
        .stats
        .as_ref()
        .map_or(&default, |stats| &stats.page);
    let (mut wanted, view) = parse(method, target, page);
    if snapshot.stats.is_none() && wanted.is_guarded() {
        // A connection that is older than the reload that has taken the page away, and with it
        // what was to be asked of whoever wants to see it.
        wanted = Wanted::Nothing;
    }
    let refreshing = view.refreshing && wanted.is_of_the_page();
    let mut response = if wanted.is_guarded() && !admits(&page.auth, headers) {
        unauthorized(page)
    } else {
        let refresh = page.refresh.filter(|_| refreshing);
        let mut response = of(wanted, view, sources);
        if let Some(refresh) = refresh {
            response
                .headers_mut()
                .insert(REFRESH, refresh.as_secs().into());
        }
        response
    };
    set(&mut response, CACHE_CONTROL, "no-cache");
    if method == Method::HEAD {
        *response.body_mut() = Content::Done.into();
    }
    response
}

fn of(wanted: Wanted, view: View, sources: Sources) -> Response<Answer> {
    let Sources {
        snapshot,
        process,
        requests,
        now,
    } = sources;
    match wanted {
        Wanted::Page => {
            let page = Page::new(snapshot, process, requests, now, view);
            let mut response = made(StatusCode::OK, HTML, Content::Page(Box::new(page)));
            set(&mut response, CONTENT_SECURITY_POLICY, POLICY);
            response
        }
        Wanted::Table(format) => {
            let rows = Rows::new(snapshot, requests, now).filtered(view.filter);
            let kind = if format == crate::stats::Format::Json {
                JSON
            } else {
                TEXT
            };
            let table = Table::new(format, rows);
            made(StatusCode::OK, kind, Content::Table(Box::new(table)))
        }
        Wanted::Schema => made(StatusCode::OK, JSON, Answer::text(schema())),
        Wanted::Metrics(select) => {
            let metrics = Metrics::new(snapshot, process, requests, now, select);
            let answer = Content::Metrics(Box::new(metrics));
            made(StatusCode::OK, METRICS_TYPE, answer)
        }
        Wanted::Health => made(StatusCode::OK, TEXT, Answer::text("ok\n")),
        Wanted::Ready => match readiness(process.phase(), &snapshot) {
            Ok(()) => made(StatusCode::OK, TEXT, Answer::text("ready\n")),
            Err(why) => made(StatusCode::SERVICE_UNAVAILABLE, TEXT, Answer::text(why)),
        },
        Wanted::Nothing => made(StatusCode::NOT_FOUND, TEXT, Answer::text("not found\n")),
        Wanted::Refused => {
            let words = Answer::text("method not allowed\n");
            let mut response = made(StatusCode::METHOD_NOT_ALLOWED, TEXT, words);
            set(&mut response, ALLOW, "GET, HEAD");
            response
        }
    }
}

fn unauthorized(page: &StatsPage) -> Response<Answer> {
    let words = Answer::text(UNAUTHORIZED);
    let mut response = made(StatusCode::UNAUTHORIZED, HTML, words);
    let asks = format!("Basic realm=\"{}\"", page.realm);
    // A realm of other than ASCII letters is refused where the configuration is read.
    if let Ok(value) = HeaderValue::from_str(&asks) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

fn made(status: StatusCode, kind: &'static str, answer: impl Into<Answer>) -> Response<Answer> {
    let mut response = Response::new(answer.into());
    *response.status_mut() = status;
    set(&mut response, CONTENT_TYPE, kind);
    response
}

fn set(response: &mut Response<Answer>, name: HeaderName, value: &'static str) {
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    content: Content,
    /// A chunk was made in this turn: others come first before the next is.
    made: bool,
}

#[derive(Debug)]
enum Content {
    /// A few bytes at once.
    Text(Bytes),
    /// The page, chunk by chunk.
    Page(Box<Page>),
    /// All rows, chunk by chunk.
    Table(Box<Table>),
    /// The metrics, chunk by chunk.
    Metrics(Box<Metrics>),
    /// Nothing (more).
    Done,
}

impl From<Content> for Answer {
    fn from(content: Content) -> Self {
        Self {
            content,
            made: false,
        }
    }
}

impl Answer {
    fn text(text: impl Into<Bytes>) -> Self {
        Content::Text(text.into()).into()
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // A chunk a turn: a hundred clients with pages of their own do not hold up a health check.
        if std::mem::take(&mut self.made) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let chunk = match &mut self.content {
            Content::Text(text) => {
                let text = std::mem::take(text);
                self.content = Content::Done;
                return Poll::Ready(Some(Ok(Frame::data(text))));
            }
            Content::Page(page) => page.chunk(),
            Content::Table(table) => table.chunk(),
            Content::Metrics(metrics) => metrics.chunk(),
            Content::Done => String::new(),
        };
        if chunk.is_empty() {
            self.content = Content::Done;
            return Poll::Ready(None);
        }
        self.made = true;
        Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Text(text) => SizeHint::with_exact(text.len() as u64),
            Content::Page(_) | Content::Table(_) | Content::Metrics(_) => SizeHint::default(),
            Content::Done => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::test_snapshot::{rows, seed};
    use std::task::Waker;

    #[test]
    fn a_body_lets_others_come_first_after_each_chunk() {
        let table = Table::new(crate::stats::Format::Csv, rows(seed(1000)));
        let mut answer = Answer::from(Content::Table(Box::new(table)));
        let mut context = Context::from_waker(Waker::noop());
        let mut turns = 0;
        loop {
            match Pin::new(&mut answer).poll_frame(&mut context) {
                Poll::Ready(Some(Ok(_))) => turns += 1,
                Poll::Ready(Some(Err(never))) => match never {},
                Poll::Ready(None) => break,
                Poll::Pending => panic!("twice in a row"),
            }
            assert!(Pin::new(&mut answer).poll_frame(&mut context).is_pending());
        }
        assert!(turns > 5, "{turns}");
    }
}
