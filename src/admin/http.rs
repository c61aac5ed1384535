//! The answers of the stats listener. Admin thread.
//!
//! Invariant: an answer is made in chunks as the client takes them; a page of ten thousand servers is never in
//! memory as a whole.

use super::action::{Asker, Ended, is_admin};
use super::auth;
use super::ready::readiness;
use super::request_line::{AnswerEnd, Service};
use super::target::{Resource, parse};
use crate::config::model::{Bind, StatsPage};
use crate::state::Snapshot;
use crate::stats::metrics::CONTENT_TYPE as METRICS_TYPE;
use crate::stats::page::{ActionResult, View};
use crate::stats::{Metrics, Page, Process, Requests, Rows, Table, schema};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, LOCATION, REFRESH, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, StatusCode};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// The answer to a client without a password.
const UNAUTHORIZED: &str = "<!DOCTYPE html><html><body><h1>401 Unauthorized</h1>\n\
     The statistics are for those with a user name and a password.\n</body></html>\n";
/// The page runs no script and loads nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
     form-action 'self'; base-uri 'none'";
/// The same for a page with check boxes, which no other site may show: its visitors could be made to click there.
const POLICY_WITH_CHECKBOXES: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'self'";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain";
const JSON: &str = "application/json";

/// The data that answers are made from.
#[derive(Debug, Clone)]
pub(super) struct ResponseSources {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) process: Arc<Process>,
    pub(super) requests: Arc<Requests>,
    pub(super) now: Instant,
    /// `None` when it has gone already.
    pub(super) client: Option<SocketAddr>,
    /// Where it was accepted.
    pub(super) bind: Rc<Bind>,
}

/// What is to be done about a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// This is the answer, and what its line in the log names.
    Response(Response<ResponseBody>, Option<Service>),
    /// It asks for an action, whose result is the answer.
    Action(Box<ActionRequest>),
}

/// A request for an action.
#[derive(Debug)]
pub(super) struct ActionRequest {
    pub(super) asker: Rc<Asker>,
    view: View,
    guarded: bool,
}

/// The answer to `method` on `target`; for `HEAD` without its body.
pub(super) fn respond(
    sources: ResponseSources,
    method: &Method,
    target: &str,
    headers: &HeaderMap,
) -> Answer {
    let default = StatsPage::default();
    let snapshot = Arc::clone(&sources.snapshot);
    let own = snapshot.stats.as_ref();
    let own = own.and_then(|stats| stats.page_at(&sources.bind));
    let page = own.unwrap_or(&default);
    let (mut resource, mut view) = parse(method, target, page);
    if own.is_none() && resource.is_guarded() {
        // The connection is older than a reload that has removed the page together with its passwords.
        resource = Resource::NotFound;
    }
    view.admin = is_admin(page, sources.client);
    let user = if resource.is_guarded() {
        auth::user(&page.auth, headers)
    } else {
        Ok(None)
    };
    // Answers that need a password must not be cached.
    let guarded = resource.is_guarded() && !page.auth.is_empty();
    let refreshing = view.refreshing && resource.is_of_the_page();
    let service = Service::of(&resource);
    let mut response = match user {
        Err(auth::Unauthorized) => unauthorized(page),
        Ok(user) if resource == Resource::Action => {
            let asker = Asker {
                client: sources.client,
                user: user.map(str::to_owned),
                admin: view.admin,
                bind: Rc::clone(&sources.bind),
            };
            return Answer::Action(Box::new(ActionRequest {
                asker: Rc::new(asker),
                view,
                guarded,
            }));
        }
        Ok(_) => {
            let mut response = build(resource, view, sources);
            if let Some(refresh) = page.refresh.filter(|_| refreshing) {
                response
                    .headers_mut()
                    .insert(REFRESH, refresh.as_secs().into());
            }
            response
        }
    };
    finish(&mut response, guarded);
    if method == Method::HEAD {
        *response.body_mut() = BodySource::Done.into();
    }
    Answer::Response(response, service)
}

/// Sets the headers of every answer.
fn finish(response: &mut Response<ResponseBody>, guarded: bool) {
    let caching = if guarded { "no-store" } else { "no-cache" };
    set(response, CACHE_CONTROL, caching);
    set(response, X_CONTENT_TYPE_OPTIONS, "nosniff");
}

/// The answer to a request for an action that has ended: HAProxy's redirection to the page, which shows the result.
pub(super) fn acted(request: &ActionRequest, ended: Ended) -> Response<ResponseBody> {
    let (result, close) = match ended {
        Ended::Result(result, whole) => (Ok(result), !whole),
        Ended::NotMade(reason) => (Err((StatusCode::SERVICE_UNAVAILABLE, reason)), true),
        Ended::Timeout => {
            let text = "the request did not come in time\n".to_owned();
            (Err((StatusCode::REQUEST_TIMEOUT, text)), true)
        }
        Ended::BadBody => {
            let text = "bad request\n".to_owned();
            (Err((StatusCode::BAD_REQUEST, text)), true)
        }
    };
    let mut response = match result {
        Ok(result) => redirect(&request.view, result),
        Err((status, text)) => with_body(status, TEXT, ResponseBody::text(text)),
    };
    if close {
        set(&mut response, CONNECTION, "close");
    }
    finish(&mut response, request.guarded);
    response
}

fn redirect(view: &View, result: ActionResult) -> Response<ResponseBody> {
    let mut response = with_body(StatusCode::SEE_OTHER, TEXT, BodySource::Done);
    // The configured path is of visible ASCII characters, and the view encodes the others.
    if let Ok(location) = HeaderValue::from_str(&view.with_result(result)) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn build(resource: Resource, view: View, sources: ResponseSources) -> Response<ResponseBody> {
    let ResponseSources {
        snapshot,
        process,
        requests,
        now,
        client: _,
        bind: _,
    } = sources;
    match resource {
        Resource::Page => {
            let policy = if view.has_checkboxes() {
                POLICY_WITH_CHECKBOXES
            } else {
                POLICY
            };
            let page = Page::new(snapshot, process, requests, now, view);
            let mut response = with_body(StatusCode::OK, HTML, BodySource::Page(Box::new(page)));
            set(&mut response, CONTENT_SECURITY_POLICY, policy);
            response
        }
        Resource::Table(format) => {
            let rows = Rows::new(snapshot, requests, now)
                .filtered(view.filter)
                .with_legends(view.legends);
            let kind = if format == crate::stats::Format::Json {
                JSON
            } else {
                TEXT
            };
            let table = Table::new(format, rows);
            with_body(StatusCode::OK, kind, BodySource::Table(Box::new(table)))
        }
        Resource::Schema => with_body(StatusCode::OK, JSON, ResponseBody::text(schema())),
        Resource::Metrics(select) => {
            let metrics = Metrics::new(snapshot, process, requests, now, (select, view.legends));
            let answer = BodySource::Metrics(Box::new(metrics));
            with_body(StatusCode::OK, METRICS_TYPE, answer)
        }
        Resource::Health => with_body(StatusCode::OK, TEXT, ResponseBody::text("ok\n")),
        Resource::Ready => match readiness(process.phase(), &snapshot) {
            Ok(()) => with_body(StatusCode::OK, TEXT, ResponseBody::text("ready\n")),
            Err(why) => with_body(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                ResponseBody::text(why),
            ),
        },
        Resource::BadRequest => with_body(
            StatusCode::BAD_REQUEST,
            TEXT,
            ResponseBody::text("bad request\n"),
        ),
        Resource::NotFound => with_body(
            StatusCode::NOT_FOUND,
            TEXT,
            ResponseBody::text("not found\n"),
        ),
        // An action is not answered here.
        Resource::MethodNotAllowed | Resource::Action => {
            let words = ResponseBody::text("method not allowed\n");
            let mut response = with_body(StatusCode::METHOD_NOT_ALLOWED, TEXT, words);
            set(&mut response, ALLOW, "GET, HEAD");
            response
        }
    }
}

fn unauthorized(page: &StatsPage) -> Response<ResponseBody> {
    let words = ResponseBody::text(UNAUTHORIZED);
    let mut response = with_body(StatusCode::UNAUTHORIZED, HTML, words);
    let asks = format!("Basic realm=\"{}\"", page.realm);
    // The configuration refuses a realm with other than ASCII characters.
    if let Ok(value) = HeaderValue::from_str(&asks) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

fn with_body(
    status: StatusCode,
    kind: &'static str,
    answer: impl Into<ResponseBody>,
) -> Response<ResponseBody> {
    let mut response = Response::new(answer.into());
    *response.status_mut() = status;
    set(&mut response, CONTENT_TYPE, kind);
    response
}

fn set(response: &mut Response<ResponseBody>, name: HeaderName, value: &'static str) {
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct ResponseBody {
    source: BodySource,
    /// Dropped with the body, when hyper has taken all of it.
    end: Option<AnswerEnd>,
    /// A chunk was made in this turn; the next one is made after other connections had their turn.
    chunk_made: bool,
}

#[derive(Debug)]
enum BodySource {
    /// A short text.
    Text(Bytes),
    /// The page, chunk by chunk.
    Page(Box<Page>),
    /// All rows, chunk by chunk.
    Table(Box<Table>),
    /// The metrics, chunk by chunk.
    Metrics(Box<Metrics>),
    /// Nothing, or nothing more.
    Done,
}

impl From<BodySource> for ResponseBody {
    fn from(source: BodySource) -> Self {
        Self {
            source,
            end: None,
            chunk_made: false,
        }
    }
}

impl ResponseBody {
    fn text(text: impl Into<Bytes>) -> Self {
        BodySource::Text(text.into()).into()
    }

    /// `end` is dropped when hyper has taken the whole answer.
    pub(super) fn ends(&mut self, end: AnswerEnd) {
        self.end = Some(end);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // One chunk per turn, so that a hundred clients with large pages do not delay a health check.
        if std::mem::take(&mut self.chunk_made) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let chunk = match &mut self.source {
            BodySource::Text(text) => {
                let text = std::mem::take(text);
                self.source = BodySource::Done;
                return Poll::Ready(Some(Ok(Frame::data(text))));
            }
            BodySource::Page(page) => page.chunk(),
            BodySource::Table(table) => table.chunk(),
            BodySource::Metrics(metrics) => metrics.chunk(),
            BodySource::Done => String::new(),
        };
        if chunk.is_empty() {
            self.source = BodySource::Done;
            return Poll::Ready(None);
        }
        self.chunk_made = true;
        Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, BodySource::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            BodySource::Text(text) => SizeHint::with_exact(text.len() as u64),
            BodySource::Page(_) | BodySource::Table(_) | BodySource::Metrics(_) => {
                SizeHint::default()
            }
            BodySource::Done => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::test_snapshot::{rows, seed};
    use std::task::Waker;

    #[test]
    fn a_body_lets_other_tasks_run_after_each_chunk() {
        let table = Table::new(crate::stats::Format::Csv, rows(seed(1000)));
        let mut answer = ResponseBody::from(BodySource::Table(Box::new(table)));
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
