//! Where the sessions of a frontend go.

use super::Backend;
use crate::config::model::NoServer;
use crate::state::BackendId;
use std::iter::successors;
use std::sync::Arc;

/// Where the sessions of a frontend go: to one backend, or to others while it has no usable server (`sorry-backend`). A
/// session keeps the route that its frontend had at the accept, and looks at the backends as they are when it needs one.
#[derive(Debug, Clone)]
pub struct Route {
    /// As it is in the snapshot of the frontend.
    backend: Arc<Backend>,
    /// Where they go while that has no usable server.
    sorry: Option<Box<Route>>,
}

impl Route {
    /// To `backend`; `find` finds the backend of a name.
    pub(in crate::state) fn new<'a>(
        backend: &Arc<Backend>,
        find: impl Fn(&str) -> Option<&'a Arc<Backend>>,
    ) -> Self {
        let next = |one: &&Arc<Backend>| find(one.spec.sorry_backend.as_deref()?);
        let mut chain: Vec<_> = successors(Some(backend), next).collect();
        let last = chain.pop().unwrap_or(backend);
        let end = Self {
            backend: Arc::clone(last),
            sorry: None,
        };
        chain.into_iter().rev().fold(end, |route, backend| Self {
            backend: Arc::clone(backend),
            sorry: Some(Box::new(route)),
        })
    }

    /// The backend that the frontend names.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// That one, and those that stand in for it, in their order.
    fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let routes = successors(Some(self), |route| route.sorry.as_deref());
        routes.map(|route| &route.backend)
    }

    /// The backend where a session goes that begins now: the first that has a usable server or waits for one, otherwise
    /// the last. Those that stand in are passed over where an operator has unpublished them.
    ///
    /// # Hot path: a load and a branch where no backend stands in.
    pub fn of_now(&self) -> &Arc<Backend> {
        if self.sorry.is_none() {
            return &self.backend;
        }
        let holds = |backend: &Arc<Backend>| !backend.spec.timeout_no_server.is_zero();
        let serves = |backend: &&Arc<Backend>| !backend.picker.is_empty() || holds(backend);
        let mut named = self.backends().filter(|one| self.may_use(one));
        let last = || self.backends().filter(|one| self.may_use(one)).last();
        named.find(serves).or_else(last).unwrap_or(&self.backend)
    }

    /// The backend where a session goes that has found no server in `backend`; `None`: it ends.
    pub fn instead_of(&self, backend: BackendId) -> Option<&Arc<Backend>> {
        let mut rest = self.backends().skip_while(|one| one.id != backend).skip(1);
        rest.find(|one| self.may_use(one))
    }

    /// The first backend that has a usable server.
    pub fn usable(&self) -> Option<&Arc<Backend>> {
        let mut named = self.backends().filter(|one| self.may_use(one));
        named.find(|one| !one.picker.is_empty())
    }

    /// Whether it leads to one of these backends, which are in ascending order.
    pub fn leads_to(&self, backends: &[BackendId]) -> bool {
        let mut own = self.backends();
        own.any(|one| backends.binary_search(&one.id).is_ok())
    }

    fn may_use(&self, backend: &Arc<Backend>) -> bool {
        backend.published || Arc::ptr_eq(backend, &self.backend)
    }

    /// Whether its frontends do not listen, because no session would find a server.
    pub fn is_closed(&self) -> bool {
        let mut usable = self.backends().filter(|one| self.may_use(one));
        self.backend.spec.no_server == NoServer::StopListening
            && usable.all(|one| one.picker.is_empty())
    }

    /// This route with the backends that `changed` knows replaced; `None` when it leads to none of them.
    pub fn with(&self, changed: &impl Fn(BackendId) -> Option<Arc<Backend>>) -> Option<Self> {
        let backend = changed(self.backend.id);
        let sorry = self.sorry.as_ref().and_then(|route| route.with(changed));
        if backend.is_none() && sorry.is_none() {
            return None;
        }
        Some(Self {
            backend: backend.unwrap_or_else(|| Arc::clone(&self.backend)),
            sorry: sorry.map(Box::new).or_else(|| self.sorry.clone()),
        })
    }

    /// Whether both lead to the same backends, unchanged.
    pub(in crate::state) fn is_same(&self, other: &Self) -> bool {
        let (one, other) = (self.backends(), other.backends());
        one.map(Arc::as_ptr).eq(other.map(Arc::as_ptr))
    }
}
