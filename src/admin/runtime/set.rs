//! Commands that change something: each becomes a message to the control task, and is answered when
//! the change is published. Replies are HAProxy's, to the letter. Admin thread.

use super::CommandContext;
use crate::config::WEIGHT_MAX;
use crate::control::reload::Answer;
use crate::state::{AdminRequest, Server, ToControl};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Said when the control task has ended: the process stops.
const STOPPING: &str = "The process is stopping.\n";
const NO_SERVER: &str = "No such server.\n";
const RANGE: &str = "Absolute weight can only be between 0 and 256 inclusive.\n";

/// `set server <bk>/<srv> state|weight …`.
pub(super) async fn server(context: &CommandContext, args: &[&str]) -> String {
    let found = match find(context, args) {
        Ok(server) => server,
        Err(problem) => return problem.to_owned(),
    };
    match args.get(1..).unwrap_or_default() {
        ["state", wish, ..] => match *wish {
            "ready" => state_of(context, &found, AdminRequest::Ready).await,
            "drain" => state_of(context, &found, AdminRequest::Drain).await,
            "maint" => state_of(context, &found, AdminRequest::Maint).await,
            _ => EXPECTED.to_owned(),
        },
        ["state"] => EXPECTED.to_owned(),
        ["weight", weight, ..] => weight_of(context, &found, weight).await,
        ["weight"] => "Require <weight> or <weight%>.\n".to_owned(),
        _ => "usage: set server <backend>/<server> state | weight\n".to_owned(),
    }
}

const EXPECTED: &str = "'set server <srv> state' expects 'ready', 'drain' and 'maint'.\n";

/// `enable server` and `disable server`.
pub(super) async fn state(context: &CommandContext, args: &[&str], to: AdminRequest) -> String {
    match find(context, args) {
        Ok(server) => state_of(context, &server, to).await,
        Err(problem) => problem.to_owned(),
    }
}

/// `set weight <bk>/<srv> <w>`.
pub(super) async fn weight(context: &CommandContext, args: &[&str]) -> String {
    match (find(context, args), args.get(1)) {
        (Err(problem), _) => problem.to_owned(),
        (Ok(_), None) => "Require <weight> or <weight%>.\n".to_owned(),
        (Ok(server), Some(weight)) => weight_of(context, &server, weight).await,
    }
}

/// `get weight <bk>/<srv>`.
pub(super) fn get_weight(context: &CommandContext, args: &[&str]) -> String {
    match find(context, args) {
        Ok(server) => format!("{} (initial {})\n", server.weight, server.spec.weight),
        Err(problem) => problem.to_owned(),
    }
}

/// `shutdown sessions server <bk>/<srv>`.
pub(super) async fn shutdown_sessions(context: &CommandContext, args: &[&str]) -> String {
    match find(context, args) {
        Ok(server) => {
            let server = server.live.uid;
            ask(context, |done| ToControl::KillSessions { server, done }).await
        }
        Err(problem) => problem.to_owned(),
    }
}

/// `reload`: as HAProxy's master, `Success=1` or `Success=0`, then what changed or why not.
pub(super) async fn reload(context: &CommandContext) -> String {
    success(context.reload.reload().await)
}

/// `upgrade`: the same of handing over to a new process.
pub(super) async fn upgrade(context: &CommandContext) -> String {
    success(context.reload.upgrade().await)
}

fn success(answer: Option<Answer>) -> String {
    let Some(answer) = answer else {
        return format!("Success=0\n--\n{STOPPING}");
    };
    let success = u8::from(answer.done);
    format!("Success={success}\n--\n{}\n", answer.lines.join("\n"))
}

/// The server that the first argument names.
fn find(context: &CommandContext, args: &[&str]) -> Result<Arc<Server>, &'static str> {
    let (backend, server) = args
        .first()
        .and_then(|name| name.split_once('/'))
        .ok_or("Require 'backend/server'.\n")?;
    let snapshot = context.shared.snapshot.load();
    let mut backends = snapshot.backends.iter().flatten();
    let backend = backends
        .find(|one| *one.spec.name == *backend)
        .ok_or("No such backend.\n")?;
    let mut servers = backend.servers.iter();
    servers
        .find(|one| *one.spec.name == *server)
        .map(Arc::clone)
        .ok_or(NO_SERVER)
}

async fn state_of(context: &CommandContext, server: &Server, to: AdminRequest) -> String {
    let server = server.live.uid;
    ask(context, |done| ToControl::SetAdmin { server, to, done }).await
}

async fn weight_of(context: &CommandContext, server: &Server, text: &str) -> String {
    let weight = match parse_weight(text, server.spec.weight) {
        Ok(weight) => weight,
        Err(problem) => return problem.to_owned(),
    };
    let server = server.live.uid;
    ask(context, |done| ToControl::SetWeight {
        server,
        weight,
        done,
    })
    .await
}

/// `50`, or `50%` of `initial`.
pub(super) fn parse_weight(text: &str, initial: u32) -> Result<u32, &'static str> {
    let (digits, percent) = match text.strip_suffix('%') {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    if digits.is_empty()
        || !digits.starts_with(|first: char| first.is_ascii_digit() || first == '-')
    {
        return Err("Empty weight string empty or preceded by garbage\n");
    }
    let Ok(number) = digits.parse::<i64>() else {
        return Err("Trailing garbage in weight string\n");
    };
    let weight = if percent {
        if number < 0 {
            return Err("Relative weight must be positive.\n");
        }
        number.saturating_mul(i64::from(initial)) / 100
    } else {
        number
    };
    let weight = (0..=WEIGHT_MAX).contains(&weight).then_some(weight);
    weight
        .and_then(|weight| u32::try_from(weight).ok())
        .ok_or(RANGE)
}

/// Sends a message to control and waits until it is done. HAProxy says nothing to a success.
async fn ask(
    context: &CommandContext,
    message: impl FnOnce(oneshot::Sender<bool>) -> ToControl,
) -> String {
    let (done, answer) = oneshot::channel();
    if !context.control.report(message(done)).await {
        return STOPPING.to_owned();
    }
    match answer.await {
        Ok(true) => String::new(),
        // A reload has removed it meanwhile.
        Ok(false) => NO_SERVER.to_owned(),
        Err(_) => STOPPING.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_as_haproxy_does() {
        assert_eq!(parse_weight("50", 1), Ok(50));
        assert_eq!(parse_weight("0", 1), Ok(0));
        assert_eq!(parse_weight("256", 1), Ok(256));
        assert_eq!(parse_weight("257", 1), Err(RANGE));
        assert_eq!(parse_weight("-1", 1), Err(RANGE));
        assert_eq!(parse_weight("50%", 10), Ok(5));
        assert_eq!(parse_weight("50%", 1), Ok(0));
        assert_eq!(parse_weight("1000%", 100), Err(RANGE));
        assert!(parse_weight("-5%", 1).unwrap_err().starts_with("Relative"));
        assert!(parse_weight("", 1).unwrap_err().starts_with("Empty"));
        assert!(parse_weight("x", 1).unwrap_err().starts_with("Empty"));
        assert!(parse_weight("5x", 1).unwrap_err().starts_with("Trailing"));
    }
}
