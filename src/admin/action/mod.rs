//! Changes of servers on the page, HAProxy's `stats admin`: reads the form, has the control task make the changes, and
//! tells the result. Admin thread.
//!
//! Invariants: a change goes the way of a runtime command: a message to the control task, answered when it is published.
//! It is logged with the client and its user before it is made. One action is in progress at a time. A body is at most
//! [`BODY_BYTES_MAX`] long and comes within the time that a request's head has. An action that has begun is made for all
//! servers of its form, whatever becomes of its connection.

mod form;
mod origin;

use super::Shared;
use super::runtime::access::{LOGGED_CHARS_MAX, REFUSED_EVERY, printable};
use super::runtime::names;
use super::runtime::set::{STOPPING, not_made};
use crate::config::model::{Bind, Check, PageAdmin, StatsPage};
use crate::control::reload::ReloadHandle;
use crate::live::failures::Throttle;
use crate::state::{
    AdminRequest, AdminState, Backend, ControlHandle, Forced, Interface, RuntimeChange, Server,
    Snapshot, ToControl,
};
use crate::stats::page::ActionResult;
use form::{Action, Form};
use hyper::body::{Body, Bytes};
use hyper::header::HeaderMap;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

/// Longest body, HAProxy's buffer.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Why an action is refused on a page that changes nothing.
const NO_RIGHT: &str = "no right to change servers";

/// What actions need of the thread.
#[derive(Debug, Default)]
pub(super) struct Actions {
    /// `None` in tests.
    control: Option<(ControlHandle, ReloadHandle)>,
    /// Held while one is in progress, so that few changes wait for the control task.
    turn: Mutex<()>,
    /// Limits events about refused actions.
    refusals: Throttle,
}

impl Actions {
    /// Those that `control` makes.
    pub(super) fn new(control: Option<(ControlHandle, ReloadHandle)>) -> Self {
        Self {
            control,
            ..Self::default()
        }
    }
}

/// Who asks for an action.
#[derive(Debug)]
pub(super) struct Asker {
    /// `None` when it has gone already.
    pub(super) client: Option<SocketAddr>,
    /// Whose password it has, if the page asks for one.
    pub(super) user: Option<String>,
    /// It may change servers.
    pub(super) admin: bool,
    /// Where it was accepted.
    pub(super) bind: Rc<Bind>,
}

/// How a request for an action ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With a result, which the page shows; `true`: the whole request was read.
    Result(ActionResult, bool),
    /// The body did not come in time.
    Timeout,
    /// The client has gone, or the body is no valid HTTP.
    BadBody,
    /// Nothing was changed, because this process makes no changes any more.
    NotMade(String),
}

/// Whether `client` may change servers on `page`.
pub(super) fn is_admin(page: &StatsPage, client: Option<SocketAddr>) -> bool {
    match page.admin {
        PageAdmin::Nobody => false,
        PageAdmin::Localhost => {
            client.is_some_and(|client| client.ip().to_canonical().is_loopback())
        }
        PageAdmin::Everyone => true,
    }
}

/// Does what the form in `body` asks for; `whole` is called when the body was read.
pub(super) async fn perform(
    shared: &Rc<Shared>,
    asker: &Rc<Asker>,
    headers: &HeaderMap,
    body: impl Body<Data = Bytes>,
    whole: impl FnOnce(),
) -> Ended {
    let refused = if !asker.admin {
        Some(NO_RIGHT)
    } else if !origin::is_same(headers) {
        Some("request of another site")
    } else {
        None
    };
    if let Some(reason) = refused {
        log_refusal(shared, asker, reason);
        return Ended::Result(ActionResult::Denied, body.is_end_stream());
    }
    let body = match timeout(shared.timeouts.head, read(body)).await {
        Err(_) => return Ended::Timeout,
        Ok(Err(ended)) => return ended,
        Ok(Ok(body)) => body,
    };
    let form = match form::parse(&body) {
        Ok(form) => form,
        Err(reason) => {
            log_failure(asker, reason);
            return Ended::Result(ActionResult::BadParameter, true);
        }
    };
    whole();
    // A task of its own, because this one ends with its connection.
    let (task, asker) = (Rc::clone(shared), Rc::clone(asker));
    let made = shared.tracker.spawn_local(async move {
        let _turn = task.actions.turn.lock().await;
        match apply(&task, &asker, &form).await {
            Ok(result) => Ended::Result(result, true),
            Err(reason) => {
                log_failure(&asker, reason.trim_end());
                Ended::NotMade(reason)
            }
        }
    });
    // It fails only when the thread ends.
    made.await
        .unwrap_or_else(|_| Ended::NotMade(STOPPING.to_owned()))
}

/// The whole body.
async fn read(body: impl Body<Data = Bytes>) -> Result<Vec<u8>, Ended> {
    let too_large = || Ended::Result(ActionResult::TooLarge, false);
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut body = pin!(body);
    let mut whole = Vec::new();
    while let Some(frame) = next(body.as_mut()).await {
        let frame = frame.map_err(|_| Ended::BadBody)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if whole.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}

async fn next<B: Body>(
    mut body: Pin<&mut B>,
) -> Option<Result<hyper::body::Frame<B::Data>, B::Error>> {
    std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await
}

/// Has the control task change the servers.
///
/// # Errors
/// Why nothing was changed, as text for people.
async fn apply(shared: &Shared, asker: &Asker, form: &Form) -> Result<ActionResult, String> {
    let snapshot = shared.snapshot.load_full();
    // A reload may have changed it while the body came.
    let page = snapshot.stats.as_ref();
    let page = page.and_then(|stats| stats.page_at(&asker.bind));
    let page = page.filter(|page| is_admin(page, asker.client));
    let Some(page) = page else {
        log_refusal(shared, asker, NO_RIGHT);
        return Ok(ActionResult::Denied);
    };
    let Wanted { backend, action } = match wanted(&snapshot, page, form) {
        Ok(Some(wanted)) => wanted,
        Ok(None) => return Ok(ActionResult::Nothing),
        Err((result, reason)) => {
            log_failure(asker, &reason);
            return Ok(result);
        }
    };
    let Some((control, reload)) = &shared.actions.control else {
        return Err(STOPPING.to_owned());
    };
    let servers = backend.iter().flat_map(|backend| &backend.servers);
    let servers: HashMap<&str, &Arc<Server>> =
        servers.map(|server| (&*server.spec.name, server)).collect();
    log_action(asker, form, |name| servers.contains_key(name));
    let mut counts = Counts::default();
    let mut answers = Vec::new();
    for name in &form.servers {
        let Some(server) = servers.get(name.as_str()) else {
            counts.missing += 1;
            continue;
        };
        let written = backend.as_ref().and_then(|it| it.written(server));
        let check = written.and_then(|written| written.check.as_ref());
        match change(action, server, check) {
            Change::None => {}
            Change::Already => counts.done += 1,
            Change::Made(message) => {
                let (done, answer) = oneshot::channel();
                // When it is not taken, nobody answers.
                control.report(message(done)).await;
                answers.push(answer);
            }
        }
    }
    for answer in answers {
        match answer.await {
            Ok(true) => counts.done += 1,
            // A reload has removed it meanwhile.
            Ok(false) => counts.missing += 1,
            Err(_) => counts.lost += 1,
        }
    }
    if counts.lost > 0 && counts.done == 0 {
        return Err(not_made(reload));
    }
    let result = counts.result();
    if ![ActionResult::Done, ActionResult::Nothing].contains(&result) {
        log_failure(asker, &counts.text());
    }
    Ok(result)
}

/// What is to be done.
struct Wanted {
    /// `None`: the statistics' own, which has no servers.
    backend: Option<Arc<Backend>>,
    action: Action,
}

/// What the form asks for; `None`: nothing.
///
/// # Errors
/// The result, and the reason.
fn wanted(
    snapshot: &Snapshot,
    page: &StatsPage,
    form: &Form,
) -> Result<Option<Wanted>, (ActionResult, String)> {
    let backend = form.backend.as_ref().map(|name| {
        backend(snapshot, page, name).map_err(|result| (result, format!("no backend {name}")))
    });
    let backend = backend.transpose()?;
    let action = form.action.as_ref().map(|(action, word)| {
        let reason = || (ActionResult::BadParameter, format!("no action {word}"));
        action.ok_or_else(reason)
    });
    let action = action.transpose()?;
    let both = backend.zip(action).filter(|_| !form.servers.is_empty());
    Ok(both.map(|(backend, action)| Wanted { backend, action }))
}

/// How many servers an action has reached.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    done: usize,
    missing: usize,
    /// The process makes no changes any more.
    lost: usize,
}

impl Counts {
    /// HAProxy's result.
    fn result(self) -> ActionResult {
        let failed = self.missing + self.lost;
        match (self.done, failed) {
            (0, 0) => ActionResult::Nothing,
            (0, _) => ActionResult::BadParameter,
            (_, 0) => ActionResult::Done,
            _ => ActionResult::Part,
        }
    }

    /// For events.
    fn text(self) -> String {
        let Self {
            done,
            missing,
            lost,
        } = self;
        format!("servers changed: {done}, unknown: {missing}, not changed: {lost}")
    }
}

/// The backend that a form names; `None`: the statistics' own, which has no servers. In a page with a `scope` only
/// those of it may be changed, and nothing is told about others.
fn backend(
    snapshot: &Snapshot,
    page: &StatsPage,
    name: &str,
) -> Result<Option<Arc<Backend>>, ActionResult> {
    let found = names::backend(snapshot, name);
    let own = names::is_stats(snapshot, name);
    let stats = snapshot.stats.as_ref();
    let scope = &page.scope;
    let shown = |name: &str| scope.is_empty() || scope.iter().any(|one| **one == *name);
    match (found, stats) {
        (Some(backend), _) if shown(&backend.spec.name) => Ok(Some(Arc::clone(backend))),
        (None, Some(stats)) if own && shown(&stats.name) => Ok(None),
        _ if scope.is_empty() => Err(ActionResult::BadParameter),
        _ => Err(ActionResult::Denied),
    }
}

/// What an action changes on a server.
enum Change {
    /// Nothing, and HAProxy does not count it.
    None,
    /// Nothing, and HAProxy counts it as done.
    Already,
    /// This message to the control task makes it.
    Made(Box<dyn FnOnce(oneshot::Sender<bool>) -> ToControl>),
}

impl Change {
    fn admin(server: u64, to: AdminRequest) -> Self {
        Self::Made(Box::new(move |done| ToControl::SetAdmin {
            server,
            to,
            done,
        }))
    }

    fn force(server: u64, to: Forced) -> Self {
        Self::other(RuntimeChange::Health(server, to, Interface::Web))
    }

    fn other(change: RuntimeChange) -> Self {
        Self::Made(Box::new(move |done| ToControl::Change { change, done }))
    }
}

/// What `action` changes on `server`, whose check in the file is `check`.
fn change(action: Action, server: &Server, check: Option<&Check>) -> Change {
    let (admin, uid) = (server.status.admin, server.live.uid);
    match action {
        Action::Ready => Change::admin(uid, AdminRequest::Ready),
        Action::Drain => Change::admin(uid, AdminRequest::Drain),
        Action::Maint => Change::admin(uid, AdminRequest::Maint),
        Action::Disable if !admin.has(AdminState::FMAINT) => {
            Change::admin(uid, AdminRequest::AddMaint)
        }
        Action::Enable if admin.has(AdminState::FMAINT) => {
            Change::admin(uid, AdminRequest::EndMaint)
        }
        Action::Stop if !admin.has(AdminState::FDRAIN) => {
            Change::admin(uid, AdminRequest::AddDrain)
        }
        Action::Start if admin.has(AdminState::FDRAIN) => {
            Change::admin(uid, AdminRequest::EndDrain)
        }
        Action::DisableChecks if check.is_some() => Change::other(RuntimeChange::Check(uid, None)),
        Action::EnableChecks if check.is_some() && server.spec.check.is_some() => Change::Already,
        Action::EnableChecks if check.is_some() => {
            Change::other(RuntimeChange::Check(uid, check.cloned()))
        }
        Action::ForceUp => Change::force(uid, Forced::Up),
        Action::ForceNolb => Change::force(uid, Forced::Stopping),
        Action::ForceDown => Change::force(uid, Forced::Down),
        Action::Shutdown => Change::Made(Box::new(move |done| ToControl::KillSessions {
            server: uid,
            done,
        })),
        Action::Disable
        | Action::Enable
        | Action::Stop
        | Action::Start
        | Action::DisableChecks
        | Action::EnableChecks
        | Action::Agent => Change::None,
    }
}

/// Logs that servers are about to be changed: all of those that exist, in several events when they are many.
fn log_action(asker: &Asker, form: &Form, exists: impl Fn(&str) -> bool) {
    let (client, user) = asker.fields();
    let backend = form.backend.as_deref().unwrap_or_default();
    let action = form.action.as_ref().map(|(_, word)| word.as_str());
    let backend = printable(backend, LOGGED_CHARS_MAX);
    let mut names = form.servers.iter().filter(|name| exists(name)).peekable();
    loop {
        let mut servers = names.next().cloned().unwrap_or_default();
        while let Some(name) = names.next_if(|name| servers.len() + name.len() < LOGGED_CHARS_MAX) {
            servers.push(' ');
            servers.push_str(name);
        }
        tracing::info!(client, user, backend, action, servers, "page action");
        if names.peek().is_none() {
            break;
        }
    }
}

/// Logs that an action failed, or was done for some servers only.
fn log_failure(asker: &Asker, reason: &str) {
    let (client, user) = asker.fields();
    let reason = printable(reason, LOGGED_CHARS_MAX);
    tracing::warn!(client, user, reason, "page action failed");
}

/// Logs that an action is refused.
fn log_refusal(shared: &Shared, asker: &Asker, reason: &str) {
    let second = u64::from(shared.second());
    if let Some(unlogged) = shared.actions.refusals.allow(second, REFUSED_EVERY) {
        let (client, user) = asker.fields();
        tracing::warn!(client, user, reason, unlogged, "page action refused");
    }
}

impl Asker {
    /// Who it is, for events.
    fn fields(
        &self,
    ) -> (
        Option<tracing::field::DisplayValue<SocketAddr>>,
        Option<&str>,
    ) {
        let client = self.client.map(tracing::field::display);
        (client, self.user.as_deref())
    }
}

/// Parses `body` like the page. For fuzzing: it must not panic.
#[doc(hidden)]
pub(super) fn exercise(body: &[u8]) {
    if let Ok(form) = form::parse(body) {
        let servers: usize = form.servers.iter().map(String::len).sum();
        // A byte that is not UTF-8 becomes three.
        assert!(servers <= 3 * body.len());
        assert!(
            form.action
                .is_none_or(|(_, word)| word.len() <= 3 * body.len())
        );
    }
}

#[cfg(test)]
mod tests;
