//! `accept-proxy` and `accept-proxy-from` of a bind.

use crate::config::address::{self, Network};
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::BindTable;
use crate::config::model::AcceptProxy;
use crate::config::scope::{Scope, Validator, Written};
use crate::config::source::Place;

/// The networks of `accept-proxy-from`. Reports what has no meaning or is not safe.
pub(super) fn read(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    table: &BindTable,
    accept: Option<&Written<AcceptProxy>>,
) -> Vec<Network> {
    let list = table.accept_proxy_from.as_ref();
    let mut networks = Vec::new();
    for one in list.iter().flat_map(|list| &list.0) {
        match address::network(&one.value) {
            Ok(network) => networks.push(network),
            Err(problem) => {
                let expected = "expected a network";
                validator.problem(scope.of(one), "address", expected, problem);
            }
        }
    }
    let first = list.and_then(|list| list.0.first());
    let listed_at = first.map(|one| scope.of(one));
    let on = accept.filter(|accept| accept.value != AcceptProxy::Off);
    let unix = table.address.as_ref().is_some_and(|address| {
        let text = address.value.as_str();
        text.starts_with("unix:") || text.starts_with("abns@")
    });
    match (on, listed_at) {
        (Some(_), Some(at)) if unix => {
            let message = "`accept-proxy-from` has no meaning for a unix socket";
            refuse(validator, "no-meaning", message.to_owned(), &at);
        }
        (None, Some(at)) => {
            let message = "`accept-proxy-from` has no meaning without `accept-proxy`";
            refuse(validator, "no-meaning", message.to_owned(), &at);
        }
        (Some(accept), None) if accept.value == AcceptProxy::Optional => {
            let message = "with an optional PROXY header every client could claim any address";
            let diagnostic = Diagnostic::error("missing-key", message)
                .at(accept.place.clone())
                .label("expected `accept-proxy-from` beside it")
                .hint("add `accept-proxy-from = [\"10.0.0.0/8\"]`, the networks of those who send one");
            validator.report.push(diagnostic);
        }
        _ => {}
    }
    networks
}

fn refuse(validator: &mut Validator<'_>, code: &'static str, message: String, place: &Place) {
    let diagnostic = Diagnostic::error(code, message).at(place.clone());
    validator.report.push(diagnostic);
}
