//! `check`: what is inherited key by key, the `[check.NAME]` tables, and the script that follows.

use super::check_tls;
use crate::config::choices::CheckWord;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{CHECK_INTERVAL, CHECK_TIMEOUT, CheckLayer, CheckSetting, CheckTable};
use crate::config::model::{Check, CheckKind, Script, SendProxy};
use crate::config::read::ParsedFile;
use crate::config::scope::{Scope, Validator, Written, or_default};
use crate::config::script::{
    Action, Expect, Kube, Misplaced, Pattern, Protocol, Request, Step, preset,
};
use crate::config::shapes::{Maybe, Short};
use crate::config::source::Place;
use crate::config::units::format_duration;
use crate::config::values::Unauthorized;
use crate::config::words;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The `[check.NAME]` tables by name.
#[derive(Debug, Default)]
pub(super) struct NamedChecks {
    all: HashMap<String, CheckLayer>,
    /// One of them, or its name, was removed: a reference cannot be checked.
    incomplete: bool,
}

/// All `[check.NAME]` tables of all files. Two with the same name are reported.
pub(super) fn named(validator: &mut Validator<'_>, files: &[ParsedFile]) -> Rc<NamedChecks> {
    let mut named = NamedChecks::default();
    let mut places: HashMap<&str, Place> = HashMap::new();
    for parsed in files {
        let scope = Scope {
            source: &parsed.source,
            removed: &parsed.removed,
        };
        named.incomplete |= scope.removed.names_below("check");
        let mut tables: Vec<_> = parsed.file.check.iter().collect();
        tables.sort_by_key(|(name, _)| name.span.start);
        for (name, table) in tables {
            let place = scope.of(name);
            if let Some(before) = places.get(name.value.as_str()) {
                let message = format!("check `{}` is already defined", name.value);
                let problem = Diagnostic::error("duplicate", message).at(place);
                validator.report.push(problem.also(before.clone(), "here"));
                continue;
            }
            places.insert(&name.value, place);
            let layer = CheckLayer::read(validator, scope, &table.value);
            if let Some(other) = &layer.named {
                let message = "`use` has no meaning in a table that others use";
                let problem = Diagnostic::error("no-meaning", message);
                validator.report.push(problem.at(other.place.clone()));
            }
            // What is wrong with it is said where it stands, also when nothing uses it.
            let made = script(validator, &layer, SendProxy::Off);
            if made
                .as_ref()
                .is_some_and(|it| it.has_tls() || it.kube.is_some())
            {
                check_tls::judge(validator, &layer, made.as_ref());
            }
            named.all.insert(name.value.clone(), layer);
        }
    }
    Rc::new(named)
}

/// The settings of `check`.
#[derive(Debug, Clone, Default)]
pub(super) struct CheckSettings {
    on: Option<bool>,
    keys: CheckLayer,
    named: Rc<NamedChecks>,
}

impl CheckSettings {
    /// Only the setting of `timeout = { check = … }`.
    pub(super) fn timeout(timeout: Option<Written<Duration>>) -> Self {
        Self {
            keys: CheckLayer {
                timeout,
                ..CheckLayer::default()
            },
            ..Self::default()
        }
    }

    /// No setting, below all others.
    pub(super) fn bottom(named: &Rc<NamedChecks>) -> Self {
        Self {
            named: Rc::clone(named),
            ..Self::default()
        }
    }

    pub(super) fn read(
        validator: &mut Validator<'_>,
        scope: Scope<'_>,
        check: &Maybe<CheckSetting>,
    ) -> Self {
        let Some(written) = check else {
            return Self::default();
        };
        match &written.value {
            Short::Short(word) => {
                let kind = match word {
                    CheckWord::Of(kind) => Some(Written {
                        value: Some(*kind),
                        place: scope.of(written),
                    }),
                    CheckWord::On | CheckWord::Off => None,
                };
                Self {
                    on: Some(*word != CheckWord::Off),
                    keys: CheckLayer {
                        kind,
                        ..CheckLayer::default()
                    },
                    ..Self::default()
                }
            }
            Short::Table(table) => Self {
                on: Some(true),
                keys: CheckLayer::read(validator, scope, table),
                ..Self::default()
            },
        }
    }

    /// These settings over those of `base`. What is asked of the server is that of the nearest table with a `type` or a
    /// `use`, and what is written nearer than it.
    pub(super) fn over(self, base: &Self) -> Self {
        let below = if self.keys.asks() {
            base.keys.clone().without_question()
        } else {
            base.keys.clone()
        };
        Self {
            on: self.on.or(base.on),
            keys: self.keys.over(&below),
            named: Rc::clone(&base.named),
        }
    }

    /// The keys, with those of the table that `use` names.
    fn whole(&self, validator: &mut Validator<'_>) -> CheckLayer {
        let keys = self.keys.clone();
        let Some(name) = &self.keys.named else {
            return keys;
        };
        if let Some(named) = self.named.all.get(&*name.value) {
            return keys.over(named);
        }
        if !self.named.incomplete {
            let names = self.named.all.keys().map(String::as_str);
            let message = format!("there is no check `{}`", name.value);
            let near = words::did_you_mean(&name.value, names);
            let hint = near.unwrap_or_else(|| format!("define it: [check.{}]", name.value));
            let problem = Diagnostic::error("unknown-check", message).at(name.place.clone());
            validator.report.push(problem.hint(hint));
        }
        keys
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
        let keys = &self.whole(validator);
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
        let script = script(validator, keys, traffic);
        check_tls::judge(validator, keys, script.as_ref());
        Some(Check {
            header,
            script: script.map(Arc::new),
            interval,
            fast_interval: or_default(keys.fast_interval.as_ref(), interval).0,
            down_interval: or_default(keys.down_interval.as_ref(), interval).0,
            timeout,
            ..written
        })
    }
}

/// Keys of a check that some types have, with their places.
macro_rules! present {
    ($keys:ident, $($field:ident),+) => {
        [$((&CheckTable::$field, $keys.$field.as_ref().map(|it| it.place.clone())),)+]
    };
}

/// What is asked of the server beyond a connection. What is wrong with it is reported.
fn script(validator: &mut Validator<'_>, keys: &CheckLayer, traffic: SendProxy) -> Option<Script> {
    let kind = keys.kind.as_ref().and_then(|it| it.value);
    foreign(validator, keys, kind);
    let tls = check_tls::settings(keys, kind == Some(CheckKind::KubeApiserver));
    // What TLS is spoken for is a connection, as it is without.
    let connects = |protocol| Script::new(protocol, Vec::new()).ok().filter(|_| tls.on);
    let Some(kind) = kind else {
        return connects(Protocol::Preset).map(|made| Script { tls, ..made });
    };
    let made = match kind {
        CheckKind::Tcp => match &keys.steps {
            None => connects(Protocol::Tcp),
            Some(written) => steps(validator, Protocol::Tcp, written),
        },
        CheckKind::Http => of_http(validator, keys),
        CheckKind::KubeApiserver => Some(kube_apiserver(keys)),
        CheckKind::Redis => Some(preset::redis()),
        CheckKind::Ldap => Some(preset::ldap()),
        CheckKind::TlsHello => Some(preset::tls_hello()),
        CheckKind::Smtp => {
            let hello = keys.hello.as_ref();
            Some(preset::smtp(
                hello.map_or("HELO localhost", |it| &*it.value),
            ))
        }
        CheckKind::Mysql => {
            let login = keys.mysql_login.as_ref();
            let user = keys.user.as_ref().map(|it| &*it.value);
            let login = login.map(|it| it.value).unwrap_or_default();
            Some(preset::mysql(user, login))
        }
        CheckKind::Postgres => {
            let Some(user) = &keys.user else {
                let message = "a check with `type = \"postgres\"` needs a `user`";
                let problem = Diagnostic::error("missing-key", message);
                let at = keys.kind.as_ref().map(|it| it.place.clone());
                let problem = at.into_iter().fold(problem, Diagnostic::at);
                let hint = "write `user = \"rlb\"`: it needs no password and no rights";
                validator.report.push(problem.hint(hint));
                return None;
            };
            Some(preset::postgres(&user.value))
        }
    };
    made.map(|made| {
        let mut made = Script {
            proxy_v2: traffic == SendProxy::V2,
            disable_on_404: keys.disable_on_404.as_ref().is_some_and(|it| it.value),
            send_state: keys.send_state.as_ref().is_some_and(|it| it.value),
            ..made
        };
        check_tls::give(keys, tls, &mut made);
        made
    })
}

/// Refuses keys that checks of this type do not have.
fn foreign(validator: &mut Validator<'_>, keys: &CheckLayer, kind: Option<CheckKind>) {
    let http = present!(
        keys,
        method,
        version,
        headers,
        body,
        expect_status,
        disable_on_404,
        send_state
    );
    let is = |kinds: &'static [CheckKind]| kind.is_some_and(|kind| kinds.contains(&kind));
    let with_user = is(&[CheckKind::Postgres, CheckKind::Mysql]);
    let with_steps = is(&[CheckKind::Tcp, CheckKind::Http]);
    let with_uri = is(&[CheckKind::Http, CheckKind::KubeApiserver]);
    let groups: [(&[_], bool, &str); 7] = [
        (
            &present!(keys, uri),
            with_uri,
            "\"http\" or \"kube-apiserver\"",
        ),
        (
            &present!(keys, token_file, unauthorized),
            is(&[CheckKind::KubeApiserver]),
            "\"kube-apiserver\"",
        ),
        (&http, is(&[CheckKind::Http]), "\"http\""),
        (&present!(keys, steps), with_steps, "\"tcp\" or \"http\""),
        (
            &present!(keys, user),
            with_user,
            "\"postgres\" or \"mysql\"",
        ),
        (
            &present!(keys, mysql_login),
            is(&[CheckKind::Mysql]),
            "\"mysql\"",
        ),
        (&present!(keys, hello), is(&[CheckKind::Smtp]), "\"smtp\""),
    ];
    for (present, allowed, types) in groups {
        for (key, place) in present {
            let Some(place) = place.clone().filter(|_| !allowed) else {
                continue;
            };
            let message = format!("`{}` is for checks with `type = {types}`", key.name);
            let problem = Diagnostic::error("no-meaning", message).at(place);
            let label = match kind {
                None => "the type of this check is \"connect\"".to_owned(),
                Some(kind) => format!("the type of this check is {:?}", kind.name()),
            };
            validator.report.push(problem.label(label));
        }
    }
}

/// The script of steps that are written.
fn steps(
    validator: &mut Validator<'_>,
    protocol: Protocol,
    written: &Written<Arc<[Step]>>,
) -> Option<Script> {
    for step in written.value.iter() {
        let foreign = match (&step.action, protocol) {
            (Action::Request(_), Protocol::Tcp) => "a request of HTTP",
            (Action::Send(_), Protocol::Http) => "`send`",
            (Action::Expect(expect), Protocol::Tcp)
                if matches!(
                    expect.pattern,
                    Pattern::Status(_) | Pattern::StatusRegex(_) | Pattern::Header(_)
                ) =>
            {
                "an expectation of HTTP"
            }
            (Action::Expect(expect), Protocol::Http)
                if matches!(expect.pattern, Pattern::Binary(_) | Pattern::BinaryRegex(_)) =>
            {
                "an expectation of bytes"
            }
            _ => continue,
        };
        let kind = if protocol == Protocol::Http {
            "http"
        } else {
            "tcp"
        };
        let message = format!("step {} is {foreign}", step.number);
        let problem = Diagnostic::error("no-meaning", message).at(written.place.clone());
        let label = format!("checks with `type = \"{kind}\"` do not have it");
        validator.report.push(problem.label(label));
        return None;
    }
    made(validator, protocol, written.value.to_vec(), &written.place)
}

fn made(
    validator: &mut Validator<'_>,
    protocol: Protocol,
    steps: Vec<Step>,
    place: &Place,
) -> Option<Script> {
    let why = match Script::new(protocol, steps) {
        Ok(script) => return Some(script),
        Err(why) => why,
    };
    let (message, hint) = match why {
        Misplaced::LateConnect => (
            "the first step does not connect, and a later one does",
            "write { connect = true } first",
        ),
        Misplaced::LateRequest => (
            "a second request has no connection",
            "write { connect = true } before it",
        ),
        Misplaced::NoRequest => (
            "a step waits for an answer, and no request is before it",
            "write { uri = \"/\" } before it",
        ),
        Misplaced::NoExpectation => (
            "a request ends with the next connection, and nothing waits for its answer",
            "write { expect-status = \"200\" } behind it",
        ),
    };
    let problem = Diagnostic::error("steps", message).at(place.clone());
    validator.report.push(problem.hint(hint));
    None
}

/// The script of a check of HTTP: its request, in the place where the steps need it, and what it waits for.
fn of_http(validator: &mut Validator<'_>, keys: &CheckLayer) -> Option<Script> {
    let written = keys.steps.as_ref();
    let own = written.map_or(&[][..], |it| &it.value);
    let asks = own
        .iter()
        .any(|step| matches!(step.action, Action::Request(_)));
    if asks {
        let of_table = present!(keys, method, uri, version, headers, body);
        let mut of_table = of_table.into_iter();
        let found = of_table.find_map(|(key, place)| Some((key, place?)));
        if let Some((key, place)) = found {
            let message = format!("`{}` is for checks whose steps have no request", key.name);
            let problem = Diagnostic::error("no-meaning", message).at(place);
            let hint = "write it in the step that has the request";
            validator.report.push(problem.hint(hint));
        }
    }
    // HAProxy numbers the rules, not what `option httpchk` says.
    let mut all = own.to_vec();
    if !asks {
        // As in HAProxy it stands before the first rule, or behind it where that connects.
        let first = all.iter().position(|step| step.action != Action::Comment);
        let connects = |at: &usize| matches!(all[*at].action, Action::Connect(_));
        let at = first.filter(connects).map_or(0, |at| at + 1);
        let number = all.get(at).map_or(1, |step| step.number);
        let step = Step {
            number,
            comment: None,
            action: Action::Request(Arc::new(request(keys))),
        };
        all.insert(at, step);
    }
    if let Some(status) = &keys.expect_status {
        let number = own.last().map_or(1, |step| step.number + 1);
        let expect = Expect::new(Pattern::Status(status.value.clone()));
        all.push(Step {
            number,
            comment: None,
            action: Action::Expect(Arc::new(expect)),
        });
    }
    match written {
        Some(written) => {
            let written = Written {
                value: all.into(),
                place: written.place.clone(),
            };
            steps(validator, Protocol::Http, &written)
        }
        None => Script::new(Protocol::Http, all).ok(),
    }
}

fn request(keys: &CheckLayer) -> Request {
    let default = Request::default();
    let or = |own: Option<&Written<Arc<str>>>, other| own.map_or(other, |it| Arc::clone(&it.value));
    Request {
        method: or(keys.method.as_ref(), default.method),
        uri: or(keys.uri.as_ref(), default.uri),
        version: or(keys.version.as_ref(), default.version),
        headers: keys
            .headers
            .as_ref()
            .map_or_else(Vec::new, |it| it.value.to_vec()),
        body: or(keys.body.as_ref(), default.body),
    }
}

/// The script of a check of an API server.
fn kube_apiserver(keys: &CheckLayer) -> Script {
    let token_file = check_tls::text(&keys.token_file);
    let kube = Kube {
        has_credentials: token_file.is_some() || check_tls::text(&keys.crt).is_some(),
        token_file,
    };
    let uri = keys.uri.as_ref();
    let uri = uri.map_or_else(|| "/readyz".into(), |it| Arc::clone(&it.value));
    let unauthorized = keys.unauthorized.as_ref();
    let is_up = unauthorized.is_none_or(|it| it.value == Unauthorized::Up);
    preset::kube_apiserver(&uri, kube, is_up)
}
