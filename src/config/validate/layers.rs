//! Settings that are inherited key by key: health checks, keepalive, settings of servers.
//!
//! The values of one table are a layer, whose struct is made by its declaration. `over` puts one layer over
//! another: the value nearest to the server wins. `finish` fills in the defaults.

use super::check::CheckSettings;
use crate::config::keys::{KeepaliveLayer, KeepaliveSetting, ServerKeys, ServerLayer};
use crate::config::model::Keepalive;
use crate::config::scope::{Scope, Validator};
use crate::config::shapes::{Maybe, Short};

/// The settings of `keepalive`.
#[derive(Debug, Clone, Default)]
pub(super) struct KeepaliveSettings {
    on: Option<bool>,
    keys: KeepaliveLayer,
}

impl KeepaliveSettings {
    pub(super) fn read(
        validator: &mut Validator<'_>,
        scope: Scope<'_>,
        keepalive: &Maybe<KeepaliveSetting>,
    ) -> Self {
        match keepalive.as_ref().map(|written| &written.value) {
            None => Self::default(),
            Some(Short::Short(on)) => Self {
                on: Some(*on),
                keys: KeepaliveLayer::default(),
            },
            Some(Short::Table(table)) => Self {
                on: Some(true),
                keys: KeepaliveLayer::read(validator, scope, table),
            },
        }
    }

    /// These settings over those of `base`.
    pub(super) fn over(self, base: &Self) -> Self {
        Self {
            on: self.on.or(base.on),
            keys: self.keys.over(&base.keys),
        }
    }

    /// With rlb's defaults: on, unless `false` was written.
    pub(super) fn finish(&self) -> Option<Keepalive> {
        (self.on != Some(false)).then(|| Keepalive::from_layer(&self.keys))
    }
}

/// The settings of a `default-server` or a server.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerSettings {
    pub(super) keys: ServerLayer,
    pub(super) check: CheckSettings,
}

impl ServerSettings {
    pub(super) fn read(
        validator: &mut Validator<'_>,
        scope: Scope<'_>,
        table: &ServerKeys,
    ) -> Self {
        Self {
            keys: ServerLayer::read(validator, scope, table),
            check: CheckSettings::read(validator, scope, &table.check),
        }
    }

    /// These settings over those of `base`.
    pub(super) fn over(self, base: &Self) -> Self {
        Self {
            keys: self.keys.over(&base.keys),
            check: self.check.over(&base.check),
        }
    }
}
