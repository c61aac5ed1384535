//! The keys of `source`: from where connections to servers come.

use super::declare::prelude::*;
use super::kinds::{Absent, Device, Kind, Optional, Plain, Raw, Read, Word};
use crate::config::address;
use crate::config::choices::UseSrcWord;
use crate::config::diagnostic::Diagnostic;
use crate::config::key::Effect::NextConnection;
use crate::config::key::Key;
use crate::config::shapes::{Expected, Located, Maybe, OneOrMany, Short};
use crate::config::values::{Source, SourceAddress};
use std::sync::Arc;

/// `source`: an address or a table, or a list of them.
pub type SourceSetting = OneOrMany<Short<String, SourceTable>>;

keys! {
    /// One source address.
    table SourceTable, "Source", "a source table";
    layer SourceLayer;
    raw {
        /// `"10.0.0.5"`, `"10.0.0.5:1024-65535"` with the ports that connections may have, or `"*"`, which the system
        /// chooses.
        address: Raw<Maybe<String>> = "\"*\"", kind: "address", haproxy: &["source"],
            reload: NextConnection;
    }
    read {
        /// Connect through this network device only (`SO_BINDTODEVICE`).
        interface: Optional<Device> = "any", haproxy: &["interface"], reload: NextConnection;
        /// Connect with the address of the client, with or without its port (`IP_TRANSPARENT`).
        usesrc: Optional<Word<UseSrcWord>> = "its own", haproxy: &["usesrc"],
            reload: NextConnection;
    }
}

impl Expected for SourceTable {
    const EXPECTED: &'static str =
        "an address as \"10.0.0.5\" or a table as { address = \"10.0.0.5\", interface = \"eth1\" }";
}

/// From where connections to a server come.
#[derive(Debug)]
pub struct SourceKind;

impl Kind for SourceKind {
    type Field = Option<SourceSetting>;
    type Default = &'static str;
    const WORD: &'static str = "address, table or list";

    fn default_text(default: &'static str) -> String {
        default.to_owned()
    }
}

impl Plain for SourceKind {
    type Value = Source;
    type Meant = Source;

    fn meant(value: Option<Source>, _: &'static str) -> Source {
        value.unwrap_or_else(|| Arc::new([]))
    }

    fn show(meant: &Source) -> String {
        let texts: Vec<String> = meant.iter().map(ToString::to_string).collect();
        texts.join(", ")
    }
}

impl Absent for SourceKind {}

impl Read for SourceKind {
    fn read(
        validator: &mut Validator<'_>,
        scope: Scope<'_>,
        key: &Key,
        field: &Option<SourceSetting>,
    ) -> Option<Written<Source>> {
        let written = field.as_ref()?;
        let Some(first) = written.0.first() else {
            let message = format!("{} is an empty list", key.label());
            validator
                .report
                .push(Diagnostic::error("value", message).hint("leave it out"));
            return None;
        };
        let place = scope.of(first);
        let all = written
            .0
            .iter()
            .map(|one| address_of(validator, scope, one));
        let all: Vec<Option<SourceAddress>> = all.collect();
        let value: Option<Source> = all.into_iter().collect();
        Some(Written {
            value: value?,
            place,
        })
    }
}

/// One of the addresses; `None` when it is not valid, which is reported.
fn address_of(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    written: &Located<Short<String, SourceTable>>,
) -> Option<SourceAddress> {
    let empty = SourceTable::default();
    let (text, table) = match &written.value {
        Short::Short(text) => (
            Some(Located {
                value: text.clone(),
                span: written.span.clone(),
            }),
            &empty,
        ),
        Short::Table(table) => (table.address.clone(), table),
    };
    let layer = SourceLayer::read(validator, scope, table);
    let (ip, ports) = match &text {
        None => (None, None),
        Some(text) => match address::source(&text.value) {
            Ok(read) => read,
            Err(problem) => {
                let expected = "expected an address of this machine";
                validator.problem(scope.of(text), "address", expected, problem);
                return None;
            }
        },
    };
    let place = layer.interface.as_ref().map(|it| &it.place);
    let place = place.or(layer.usesrc.as_ref().map(|it| &it.place));
    if let (false, Some(place)) = (validator.limits.net_admin, place) {
        validator.report.push(
            Diagnostic::warning(
                "capability",
                "rlb needs CAP_NET_ADMIN or CAP_NET_RAW for this",
            )
            .at(place.clone())
            .label("this process has neither: connections will fail")
            .hint("add `AmbientCapabilities=CAP_NET_ADMIN` and `CapabilityBoundingSet=CAP_NET_ADMIN` to the unit of the service"),
        );
    }
    Some(SourceAddress {
        ip,
        ports,
        interface: layer.interface.map(|it| it.value),
        usesrc: layer.usesrc.map(|it| it.value),
    })
}
