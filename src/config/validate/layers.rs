//! Settings that are inherited key by key: health checks, keepalive, settings of servers.
//!
//! The values of one table are a layer, whose struct is made by its declaration. `over` puts one layer over
//! another: the value nearest to the server wins. `finish` fills in the defaults.

use crate::config::choices::CheckWord;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{
    CHECK_INTERVAL, CHECK_TIMEOUT, CheckLayer, CheckSetting, KeepaliveLayer, KeepaliveSetting,
    ServerKeys, ServerLayer,
};
use crate::config::model::{Check, CheckKind, Keepalive, SendProxy};
use crate::config::scope::{Scope, Validator, Written, or_default};
use crate::config::shapes::{Maybe, Short};
use crate::config::units::format_duration;
use std::time::Duration;

/// The settings of `check`.
#[derive(Debug, Clone, Default)]
pub(super) struct CheckSettings {
    on: Option<bool>,
    keys: CheckLayer,
}

impl CheckSettings {
    /// Only the setting of `timeout = { check = … }`.
    pub(super) fn timeout(timeout: Option<Written<Duration>>) -> Self {
        Self {
            on: None,
            keys: CheckLayer {
                timeout,
                ..CheckLayer::default()
            },
        }
    }

    pub(super) fn read(
        validator: &mut Validator<'_>,
        scope: Scope<'_>,
        check: &Maybe<CheckSetting>,
    ) -> Self {
        match check.as_ref().map(|written| &written.value) {
            None => Self::default(),
            Some(Short::Short(word)) => Self {
                on: Some(*word != CheckWord::Off),
                keys: CheckLayer {
                    kind: check
                        .as_ref()
                        .filter(|_| *word == CheckWord::Tcp)
                        .map(|written| Written {
                            value: Some(CheckKind::Tcp),
                            place: scope.of(written),
                        }),
                    ..CheckLayer::default()
                },
            },
            Some(Short::Table(table)) => Self {
                on: Some(true),
                keys: CheckLayer::read(validator, scope, table),
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

    /// The check with rlb's defaults; `None` when there is none.
    ///
    /// `traffic`: the PROXY header of its server's connections.
    pub(super) fn finish(
        &self,
        validator: &mut Validator<'_>,
        traffic: SendProxy,
    ) -> Option<Check> {
        if self.on != Some(true) {
            return None;
        }
        let keys = &self.keys;
        let (interval, interval_at) = or_default(keys.interval.as_ref(), CHECK_INTERVAL);
        let (timeout, timeout_at) = or_default(keys.timeout.as_ref(), CHECK_TIMEOUT.min(interval));
        if timeout > interval
            && let Some(place) = timeout_at
        {
            let message = format!(
                "the check timeout of {} is longer than the interval of {}",
                format_duration(timeout),
                format_duration(interval)
            );
            let mut diagnostic = Diagnostic::error("timeouts", message)
                .at(place.clone())
                .label("expected at most the interval")
                .hint("one check must be over before the next begins");
            if let Some(place) = interval_at {
                diagnostic = diagnostic.also(place.clone(), "the interval");
            }
            validator.report.push(diagnostic);
        }
        if let Some(fast) = keys
            .fast_interval
            .as_ref()
            .filter(|fast| fast.value > interval)
        {
            let message = format!(
                "fast-interval of {} is longer than the interval of {}",
                format_duration(fast.value),
                format_duration(interval)
            );
            validator.report.push(
                Diagnostic::warning("timeouts", message)
                    .at(fast.place.clone())
                    .label("a change would be confirmed late"),
            );
        }
        let written = Check::from_layer(keys);
        let elsewhere = written.port.is_some() || written.address.is_some();
        let header = traffic.of_check(keys.send_proxy.as_ref().map(|it| it.value), elsewhere);
        Some(Check {
            header,
            interval,
            fast_interval: or_default(keys.fast_interval.as_ref(), interval).0,
            down_interval: or_default(keys.down_interval.as_ref(), interval).0,
            timeout,
            ..written
        })
    }
}

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
