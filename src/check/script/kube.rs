//! What the answers of an API server of Kubernetes say beside their status.

use super::http::{self, Parsed};
use super::{Run, text};
use crate::config::script::Kube;

/// What is said of an API server that has answered, if its status says more than whether it is ready. `None` for other
/// checks.
pub(super) fn said(run: &Run<'_>) -> Option<String> {
    let kube = run.script.kube.as_ref()?;
    match run.code {
        code if Kube::is_unauthorized(code) && kube.has_credentials => Some(format!(
            "{code}: the certificate or the token of the check is not accepted"
        )),
        code if Kube::is_unauthorized(code) => Some(format!(
            "{code}: anonymous access is off, set crt or token-file"
        )),
        code if Kube::is_not_ready(code) => Some(not_ready(run)),
        _ => None,
    }
}

/// What in it is not ready: `/readyz` has a line for each part, `[-]etcd failed: reason withheld` for one that is not.
fn not_ready(run: &Run<'_>) -> String {
    let Parsed::Answer(answer) = http::parse(&run.input, run.bodiless, run.ended) else {
        return "not ready".to_owned();
    };
    let body = text::lossy(&answer.body);
    let parts = body.lines().filter_map(|line| line.strip_prefix("[-]"));
    let parts = parts.filter_map(|part| part.split(' ').next());
    let parts: Vec<&str> = parts.collect();
    if parts.is_empty() {
        format!("not ready: {}", text::lossy(answer.reason))
    } else {
        format!("not ready: {}", parts.join(", "))
    }
}

/// Whether an answer says that an API server is not ready, although its end has not come.
pub(super) fn says_enough(run: &Run<'_>) -> bool {
    run.script.kube.is_some()
        && match http::parse(&run.input, run.bodiless, run.ended) {
            Parsed::Answer(answer) => Kube::is_not_ready(answer.status),
            Parsed::Partial | Parsed::Invalid => false,
        }
}
