//! How a check speaks TLS, and whether the files are there that it needs for that.

use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{CheckLayer, CheckTable};
use crate::config::scope::{Validator, Written};
use crate::config::script::{
    Action, Connect, Protocol, SYSTEM_CA, Script, Step, StepFormat, Tls, TlsContext, TlsVersion,
};
use crate::config::source::Place;
use crate::config::tls::{self, TlsFile};
use crate::config::values::Verify;
use std::sync::Arc;

/// What the keys say of TLS. `default`: whether it is spoken when they do not say it.
pub(super) fn settings(keys: &CheckLayer, default: bool) -> Tls {
    let version = |it: &Option<Written<TlsVersion>>| it.as_ref().map(|it| it.value);
    let verify = keys.verify.as_ref();
    Tls {
        on: keys.tls.as_ref().map_or(default, |it| it.value),
        sni: text(&keys.sni),
        alpn: text(&keys.alpn),
        context: Arc::new(TlsContext {
            verify_none: verify.is_some_and(|it| it.value == Verify::None),
            verifyhost: text(&keys.verifyhost),
            ca_file: text(&keys.ca_file).filter(|path| &**path != SYSTEM_CA),
            crl_file: text(&keys.crl_file),
            crt: text(&keys.crt),
            key: text(&keys.key),
            // What holds without a word of it is no difference.
            least: version(&keys.ssl_min_ver).filter(|it| *it != TlsVersion::V12),
            most: version(&keys.ssl_max_ver).filter(|it| *it != TlsVersion::V13),
        }),
    }
}

/// A text; an empty one is none.
pub(super) fn text(written: &Option<Written<Arc<str>>>) -> Option<Arc<str>> {
    let text = written.as_ref().map(|it| Arc::clone(&it.value));
    text.filter(|it| !it.is_empty())
}

/// Gives a script what its check says of TLS.
pub(super) fn give(keys: &CheckLayer, tls: Tls, script: &mut Script) {
    script.tls = tls;
    let is_auto = keys.sni_auto.as_ref().is_none_or(|it| it.value);
    if script.protocol != Protocol::Http || !script.tls.on || script.tls.sni.is_some() || !is_auto {
        return;
    }
    let Some(host) = host(&script.steps) else {
        return;
    };
    let mut steps = script.steps.to_vec();
    // As in HAProxy: where a step connects, it says what it asks for.
    if let Some(Step {
        action: Action::Connect(connect @ Connect { implicit: true, .. }),
        ..
    }) = steps.first_mut()
    {
        connect.host = Some(host);
        script.steps = steps.into();
    }
}

/// The header `Host` of the first request.
fn host(steps: &[Step]) -> Option<StepFormat> {
    let requests = steps.iter().find_map(|step| match &step.action {
        Action::Request(request) => Some(request),
        _ => None,
    });
    let mut headers = requests?.headers.iter();
    let found = headers.find(|(name, _)| name.eq_ignore_ascii_case("host"));
    found.map(|(_, value)| value.clone())
}

/// Reports keys about TLS that contradict each other, those of a check that speaks none, and files that are not as they
/// should be.
pub(super) fn judge(validator: &mut Validator<'_>, keys: &CheckLayer, script: Option<&Script>) {
    let tls = script.map(|script| &script.tls);
    let speaks = script.is_some_and(Script::has_tls);
    token(validator, keys, script);
    if !speaks {
        unused(validator, keys);
        return;
    }
    let (Some(tls), Some(place)) = (tls, place(keys)) else {
        return;
    };
    let context = &tls.context;
    if let (Some(least), Some(most)) = (&keys.ssl_min_ver, &keys.ssl_max_ver)
        && least.value > most.value
    {
        let message = "ssl-min-ver is newer than ssl-max-ver";
        let problem = Diagnostic::error("value", message).at(least.place.clone());
        validator
            .report
            .push(problem.also(most.place.clone(), "ssl-max-ver"));
    }
    if let Some(key) = keys
        .key
        .as_ref()
        .filter(|_| context.crt.is_none() && context.key.is_some())
    {
        let problem = Diagnostic::error("no-meaning", "`key` has no meaning without `crt`");
        validator.report.push(problem.at(key.place.clone()));
        return;
    }
    if !validator.disk || !validator.tls.insert(Arc::clone(context)) {
        return;
    }
    let Err(problem) = tls::client(context) else {
        return;
    };
    let written = match problem.file {
        TlsFile::Ca => &keys.ca_file,
        TlsFile::Crl => &keys.crl_file,
        TlsFile::Crt => &keys.crt,
        TlsFile::Key => &keys.key,
    };
    let path = problem.path.display();
    let message = format!("cannot use `{path}`: {}", problem.message);
    let at = written.as_ref().map_or(place, |it| it.place.clone());
    validator
        .report
        .push(Diagnostic::error("tls-file", message).at(at));
}

/// Reports a token that would be sent to anyone, and one that is not there.
fn token(validator: &mut Validator<'_>, keys: &CheckLayer, script: Option<&Script>) {
    let of_kube = script.filter(|script| script.kube.is_some());
    let token = keys.token_file.as_ref().filter(|it| !it.value.is_empty());
    let (Some(token), Some(script)) = (token, of_kube) else {
        return;
    };
    let verify = keys.verify.as_ref().filter(|it| it.value == Verify::None);
    if verify.is_some() || !script.has_tls() {
        let message = "the token would be sent to anyone who answers";
        let problem = Diagnostic::error("no-meaning", message).at(token.place.clone());
        let hint = "leave out `verify = \"none\"` and `tls = false`, and write `ca-file`";
        validator.report.push(problem.hint(hint));
        return;
    }
    let read = validator.disk.then(|| tls::token(&token.value));
    if let Some(Err(why)) = read {
        let message = format!("cannot use `{}`: {why}", token.value);
        let problem = Diagnostic::error("tls-file", message);
        validator.report.push(problem.at(token.place.clone()));
    }
}

/// Where it is said that TLS is spoken.
fn place(keys: &CheckLayer) -> Option<Place> {
    let switch = keys.tls.as_ref().map(|it| &it.place);
    let steps = keys.steps.as_ref().map(|it| &it.place);
    let kind = keys.kind.as_ref().map(|it| &it.place);
    switch.or(steps).or(kind).cloned()
}

/// Reports keys that have no meaning, because nothing is said of TLS. Those under a `tls = false` were inherited.
fn unused(validator: &mut Validator<'_>, keys: &CheckLayer) {
    macro_rules! present {
        ($($field:ident),+) => {
            [$((&CheckTable::$field, keys.$field.as_ref().map(|it| &it.place)),)+]
        };
    }
    if keys.tls.is_some() {
        return;
    }
    let all = present!(
        sni,
        sni_auto,
        alpn,
        verify,
        verifyhost,
        ca_file,
        crl_file,
        crt,
        key,
        ssl_min_ver,
        ssl_max_ver
    );
    for (key, place) in all {
        if let Some(place) = place {
            let message = format!("`{}` is for checks over TLS", key.name);
            let problem = Diagnostic::error("no-meaning", message).at(place.clone());
            validator.report.push(problem.hint("write `tls = true`"));
        }
    }
}
