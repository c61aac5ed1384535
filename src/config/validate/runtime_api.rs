//! `[runtime-api]`: the sockets for commands.

use super::collisions::Bound;
use super::once::once;
use crate::config::address;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{
    RuntimeApiLayer, RuntimeApiTable, RuntimeSocketLayer, RuntimeSocketTable,
};
use crate::config::model::{ApiLevel, BindAddress, RuntimeApi, RuntimeSocket};
use crate::config::read::ParsedFile;
use crate::config::scope::{Scope, Validator};
use crate::config::shapes::{Located, Short};
use std::collections::HashSet;
use std::ops::Range;

/// `[runtime-api]`; `None` when it is not written, or none of its sockets is valid.
pub(super) fn runtime_api(
    validator: &mut Validator<'_>,
    files: &[ParsedFile],
    bound: &mut Vec<Bound>,
) -> Option<RuntimeApi> {
    let (scope, table) = once(validator, files, "runtime-api", |file| &file.runtime_api)?;
    let api = RuntimeApi::from_layer(&RuntimeApiLayer::read(validator, scope, &table.value));
    let sockets = sockets(validator, scope, table, bound);
    (!sockets.is_empty()).then_some(RuntimeApi { sockets, ..api })
}

fn sockets(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    table: &Located<RuntimeApiTable>,
    bound: &mut Vec<Bound>,
) -> Vec<RuntimeSocket> {
    let (first, more) = (&table.value.first, &table.value.sockets);
    let mut all: Vec<(RuntimeSocketTable, &Range<usize>)> = Vec::new();
    if first.socket.is_some() || more.is_none() {
        all.push((first.clone(), &table.span));
    }
    for one in more.iter().flat_map(|list| &list.0) {
        let socket = match &one.value {
            Short::Short(address) => RuntimeSocketTable {
                socket: Some(Located {
                    value: address.clone(),
                    span: one.span.clone(),
                }),
                ..RuntimeSocketTable::default()
            },
            Short::Table(table) => table.clone(),
        };
        all.push((socket, &one.span));
    }
    let mut sockets: Vec<RuntimeSocket> = Vec::new();
    let mut known = HashSet::new();
    for (table, span) in all {
        let socket = self::socket(validator, scope, (&table, span));
        let Some(socket) = socket else { continue };
        if known.insert(socket.address.clone()) {
            let written = table.socket.as_ref();
            let place = written.map_or_else(|| scope.place(span), |it| scope.of(it));
            bound.push(Bound::of_socket(place, &socket));
            sockets.push(socket);
        } else {
            let message = format!("two sockets for commands at {}", socket.place());
            let diagnostic = Diagnostic::error("duplicate-address", message)
                .at(scope.place(span))
                .label("each needs an address of its own");
            validator.report.push(diagnostic);
        }
    }
    sockets
}

fn socket(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    (table, span): (&RuntimeSocketTable, &Range<usize>),
) -> Option<RuntimeSocket> {
    let layer = RuntimeSocketLayer::read(validator, scope, table);
    let Some(socket) = &table.socket else {
        let example = "socket = \"/run/rlb/admin.sock\"";
        validator.missing(scope, span, "[runtime-api]", example);
        return None;
    };
    let address = match address::runtime(&socket.value) {
        Ok(address) => address,
        Err(problem) => {
            let expected = "expected a path, or an address and a port";
            validator.problem(scope.of(socket), "address", expected, problem);
            return None;
        }
    };
    let default = match address {
        BindAddress::Unix(_) => ApiLevel::Admin,
        // Whoever reaches it may use it, as in HAProxy.
        BindAddress::Tcp(_) | BindAddress::Descriptor(_) => ApiLevel::Operator,
    };
    let level = layer.level.as_ref().map_or(default, |word| word.value);
    Some(RuntimeSocket {
        address,
        level,
        ..RuntimeSocket::from_layer(&layer)
    })
}
