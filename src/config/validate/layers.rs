//! Settings that are inherited key by key: health checks, keepalive, what servers share.
//!
//! A layer is what one table says; [`CheckLayer::over`] and its like put one on another, and
//! `finish` fills in rlb's defaults. Nearest to the server wins.

use super::scope::{Scope, Validator, Written, or_default};
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{
    CheckSetting, CheckWord, KeepaliveSetting, Located, Maybe, ServerDefaults, Short,
};
use crate::config::model::{Check, CheckKind, Keepalive};
use crate::config::units::{Problem, format_duration};
use std::net::IpAddr;
use std::time::Duration;

const CHECK_INTERVAL: Duration = Duration::from_secs(2);
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
const RISE: u32 = 2;
const FALL: u32 = 3;
/// Most checks in a row that `rise` and `fall` may ask for.
pub const RISE_FALL_MAX: i64 = 65_535;
/// Highest weight, as in HAProxy.
pub const WEIGHT_MAX: i64 = 256;
/// Longest keepalive time, in seconds (`MAX_TCP_KEEPIDLE` of Linux).
const KEEPALIVE_SECONDS_MAX: u64 = 32_767;
/// Most keepalive probes (`MAX_TCP_KEEPCNT` of Linux).
const KEEPALIVE_PROBES_MAX: i64 = 127;

/// What a `check` says.
#[derive(Debug, Clone, Default)]
pub(super) struct CheckLayer {
    on: Option<bool>,
    kind: Option<CheckKind>,
    interval: Option<Written<Duration>>,
    fast_interval: Option<Written<Duration>>,
    down_interval: Option<Written<Duration>>,
    rise: Option<u32>,
    fall: Option<u32>,
    timeout: Option<Written<Duration>>,
    port: Option<u16>,
    address: Option<IpAddr>,
}

impl CheckLayer {
    /// A layer that says nothing but `timeout = { check = … }`.
    pub(super) fn timeout(timeout: Option<Written<Duration>>) -> Self {
        Self {
            timeout,
            ..Self::default()
        }
    }

    pub(super) fn read(
        validator: &mut Validator<'_>,
        scope: Scope<'_>,
        check: &Maybe<CheckSetting>,
    ) -> Self {
        let Some(check) = check else {
            return Self::default();
        };
        let table = match &check.value {
            Short::Short(word) => {
                return Self {
                    on: Some(*word == CheckWord::On),
                    ..Self::default()
                };
            }
            Short::Table(table) => table,
        };
        let address = table.address.as_ref().and_then(|written| {
            let text = written.value.trim_matches(['[', ']']);
            let address = text.parse::<IpAddr>().ok();
            if address.is_none() {
                let problem = Problem {
                    message: format!("`{}` is not an IP address", written.value),
                    hint: None,
                };
                validator.problem(
                    scope.of(written),
                    "address",
                    "expected an address, without a port",
                    problem,
                );
            }
            address
        });
        let port = validator.number(scope, "port", &table.port, 1..=i64::from(u16::MAX));
        Self {
            on: Some(true),
            kind: table.kind.as_ref().map(|kind| kind.value.0),
            interval: validator.duration(scope, "interval", &table.interval),
            fast_interval: validator.duration(scope, "fast-interval", &table.fast_interval),
            down_interval: validator.duration(scope, "down-interval", &table.down_interval),
            rise: validator
                .number(scope, "rise", &table.rise, 1..=RISE_FALL_MAX)
                .map(|n| n.value),
            fall: validator
                .number(scope, "fall", &table.fall, 1..=RISE_FALL_MAX)
                .map(|n| n.value),
            timeout: validator.duration(scope, "check timeout", &table.timeout),
            port: port.and_then(|port| u16::try_from(port.value).ok()),
            address,
        }
    }

    /// This layer, on top of `base`.
    pub(super) fn over(self, base: &Self) -> Self {
        Self {
            on: self.on.or(base.on),
            kind: self.kind.or(base.kind),
            interval: self.interval.or_else(|| base.interval.clone()),
            fast_interval: self.fast_interval.or_else(|| base.fast_interval.clone()),
            down_interval: self.down_interval.or_else(|| base.down_interval.clone()),
            rise: self.rise.or(base.rise),
            fall: self.fall.or(base.fall),
            timeout: self.timeout.or_else(|| base.timeout.clone()),
            port: self.port.or(base.port),
            address: self.address.or(base.address),
        }
    }

    /// The check, with rlb's defaults; `None` when there is none.
    pub(super) fn finish(&self, validator: &mut Validator<'_>) -> Option<Check> {
        if self.on != Some(true) {
            return None;
        }
        let (interval, interval_at) = or_default(self.interval.as_ref(), CHECK_INTERVAL);
        let (timeout, timeout_at) = or_default(self.timeout.as_ref(), CHECK_TIMEOUT.min(interval));
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
        if let Some(fast) = self
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
        Some(Check {
            kind: self.kind.unwrap_or(CheckKind::Tcp),
            interval,
            fast_interval: or_default(self.fast_interval.as_ref(), interval).0,
            down_interval: or_default(self.down_interval.as_ref(), interval).0,
            rise: self.rise.unwrap_or(RISE),
            fall: self.fall.unwrap_or(FALL),
            timeout,
            port: self.port,
            address: self.address,
        })
    }
}

/// What a `keepalive` says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeepaliveLayer {
    on: Option<bool>,
    idle: Option<Duration>,
    interval: Option<Duration>,
    probes: Option<u32>,
}

impl KeepaliveLayer {
    pub(super) fn read(
        validator: &mut Validator<'_>,
        scope: Scope<'_>,
        keepalive: &Maybe<KeepaliveSetting>,
    ) -> Self {
        match keepalive.as_ref().map(|written| &written.value) {
            None => Self::default(),
            Some(Short::Short(on)) => Self {
                on: Some(*on),
                ..Self::default()
            },
            Some(Short::Table(table)) => {
                let mut seconds = |key, value| {
                    let written: Written<Duration> = validator.duration(scope, key, value)?;
                    let (whole, rest) = (written.value.as_secs(), written.value.subsec_nanos());
                    if rest == 0 && whole <= KEEPALIVE_SECONDS_MAX {
                        return Some(written.value);
                    }
                    let message = format!(
                        "keepalive {key} cannot be {}",
                        format_duration(written.value)
                    );
                    validator.report.push(
                        Diagnostic::error("out-of-range", message)
                            .at(written.place)
                            .label("expected whole seconds, 32767 at most"),
                    );
                    None
                };
                let idle = seconds("idle", &table.idle);
                let interval = seconds("interval", &table.interval);
                let probes =
                    validator.number(scope, "probes", &table.probes, 1..=KEEPALIVE_PROBES_MAX);
                Self {
                    on: Some(true),
                    idle,
                    interval,
                    probes: probes.map(|written| written.value),
                }
            }
        }
    }

    /// This layer, on top of `base`.
    pub(super) fn over(self, base: Self) -> Self {
        Self {
            on: self.on.or(base.on),
            idle: self.idle.or(base.idle),
            interval: self.interval.or(base.interval),
            probes: self.probes.or(base.probes),
        }
    }

    /// With rlb's defaults: on, unless someone said `false`.
    pub(super) fn finish(self) -> Option<Keepalive> {
        (self.on != Some(false)).then(|| Keepalive {
            idle: self.idle.unwrap_or(Duration::from_secs(10)),
            interval: self.interval.unwrap_or(Duration::from_secs(5)),
            probes: self.probes.unwrap_or(3),
        })
    }
}

/// What a `default-server`, or a server itself, says.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerLayer {
    pub(super) weight: Option<u32>,
    pub(super) backup: Option<bool>,
    pub(super) disabled: Option<bool>,
    pub(super) shutdown_on_down: Option<bool>,
    pub(super) shutdown_backup_on_up: Option<bool>,
    pub(super) check: CheckLayer,
}

impl ServerLayer {
    pub(super) fn read(
        validator: &mut Validator<'_>,
        scope: Scope<'_>,
        server: Option<&Located<ServerDefaults>>,
    ) -> Self {
        server.map_or_else(Self::default, |written| {
            Self::table(validator, scope, &written.value)
        })
    }

    pub(super) fn table(
        validator: &mut Validator<'_>,
        scope: Scope<'_>,
        table: &ServerDefaults,
    ) -> Self {
        Self {
            weight: validator
                .number(scope, "weight", &table.weight, 0..=WEIGHT_MAX)
                .map(|n| n.value),
            backup: table.backup.as_ref().map(|written| written.value),
            disabled: table.disabled.as_ref().map(|written| written.value),
            shutdown_on_down: table.on_marked_down.as_ref().map(|written| written.value.0),
            shutdown_backup_on_up: table.on_marked_up.as_ref().map(|written| written.value.0),
            check: CheckLayer::read(validator, scope, &table.check),
        }
    }

    /// This layer, on top of `base`; `check` apart, which has more layers in between.
    pub(super) fn over(self, base: &Self) -> Self {
        Self {
            weight: self.weight.or(base.weight),
            backup: self.backup.or(base.backup),
            disabled: self.disabled.or(base.disabled),
            shutdown_on_down: self.shutdown_on_down.or(base.shutdown_on_down),
            shutdown_backup_on_up: self.shutdown_backup_on_up.or(base.shutdown_backup_on_up),
            check: self.check,
        }
    }
}
