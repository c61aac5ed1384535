//! Commands that change something: each sends a message to the control task, and is answered when the change is
//! published. Replies are HAProxy's, byte for byte. Admin thread.

use super::CommandContext;
use super::names::{self, NO_SERVER};
use super::reply::Reply;
use crate::control::reload::{Answer, ReloadHandle};
use crate::state::{AdminRequest, Backend, RuntimeChange, Server, ToControl, overrides};
use std::sync::Arc;
use tokio::sync::oneshot;

/// The largest weight, HAProxy's `SRV_UWGHT_MAX`.
const WEIGHT_LARGEST: u32 = 256;
/// The answer when the control task has ended because the process stops.
pub(in crate::admin) const STOPPING: &str = "The process is stopping.\n";
pub(super) const NO_WEIGHT: &str = "Require <weight> or <weight%>.\n";
/// The answer for an algorithm whose weights stay as they are written: with other ones its clients would all move.
const FIXED: &str =
    "Backend is using a static LB algorithm and only accepts weights '0%' and '100%'.\n";
const RANGE: &str = "Absolute weight can only be between 0 and 256 inclusive.\n";

/// `enable server` and `disable server`.
pub(super) async fn state(context: &CommandContext, args: &[&str], to: AdminRequest) -> Reply {
    match find(context, args) {
        Ok((_, server)) => state_of(context, &server, to).await,
        Err(problem) => Reply::error(problem),
    }
}

/// `set weight <bk>/<srv> <w>`.
pub(super) async fn weight(context: &CommandContext, args: &[&str]) -> Reply {
    match (find(context, args), args.get(1)) {
        (Err(problem), _) => Reply::error(problem),
        (Ok(_), None) => Reply::error(NO_WEIGHT),
        (Ok(found), Some(weight)) => weight_of(context, &found, weight).await,
    }
}

/// `get weight <bk>/<srv>`.
pub(super) fn get_weight(context: &CommandContext, args: &[&str]) -> Reply {
    match names::server(&context.shared.snapshot.load(), args.first().copied()) {
        Ok((_, server)) => {
            let (now, initial) = (server.weight, server.spec.weight);
            Reply::Text(format!("{now} (initial {initial})\n"))
        }
        Err(problem) => Reply::error(problem),
    }
}

/// `shutdown sessions server <bk>/<srv>`.
pub(super) async fn shutdown_sessions(context: &CommandContext, args: &[&str]) -> Reply {
    match find(context, args) {
        Ok((_, server)) => {
            let server = server.live.uid;
            ask(context, |done| ToControl::KillSessions { server, done }).await
        }
        Err(problem) => Reply::error(problem),
    }
}

/// `reload`: as HAProxy's master, `Success=1` or `Success=0`, then what changed or why it was refused.
pub(super) async fn reload(context: &CommandContext) -> Reply {
    success(context.reload.reload().await)
}

/// `reload reset-overrides`: the same, and then everything that operators have set is as the file says.
pub(super) async fn reload_without_overrides(context: &CommandContext) -> Reply {
    let Some(mut answer) = context.reload.reload().await else {
        return success(None);
    };
    if answer.done {
        let set = || overrides::list(&context.shared.snapshot.load());
        let before = set().len();
        change(context, RuntimeChange::DropOverrides).await;
        let left = set();
        let dropped = before.saturating_sub(left.len());
        for one in left.iter().filter(|one| one.is_state_of_frontend()) {
            let line = format!("{} cannot listen again and stays disabled", one.object);
            answer.lines.push(line);
        }
        answer.lines.push(format!("overrides dropped: {dropped}"));
    }
    success(Some(answer))
}

/// `upgrade`: the same for a handover to a new process.
pub(super) async fn upgrade(context: &CommandContext) -> Reply {
    success(context.reload.upgrade().await)
}

/// The reply to a reload, an upgrade or a dry run.
pub(super) fn success(answer: Option<Answer>) -> Reply {
    let Some(answer) = answer else {
        return Reply::NotDone(format!("Success=0\n--\n{STOPPING}"));
    };
    let success = u8::from(answer.done);
    let text = format!("Success={success}\n--\n{}\n", answer.lines.join("\n"));
    if answer.done {
        Reply::Text(text)
    } else {
        Reply::NotDone(text)
    }
}

/// A server, and the backend that has it.
pub(super) type Found = (Arc<Backend>, Arc<Server>);

/// The server that the first argument names, to change it.
pub(super) fn find(context: &CommandContext, args: &[&str]) -> Result<Found, &'static str> {
    let snapshot = context.shared.snapshot.load();
    names::server_to_change(&snapshot, args.first().copied())
}

/// Has the control task make `change`.
pub(super) async fn change(context: &CommandContext, change: RuntimeChange) -> Reply {
    ask(context, |done| ToControl::Change { change, done }).await
}

pub(super) async fn state_of(context: &CommandContext, server: &Server, to: AdminRequest) -> Reply {
    let server = server.live.uid;
    ask(context, |done| ToControl::SetAdmin { server, to, done }).await
}

pub(super) async fn weight_of(
    context: &CommandContext,
    (backend, server): &Found,
    text: &str,
) -> Reply {
    let (spec, written) = (&backend.spec, server.spec.weight);
    let weight = match parse_weight(text, written) {
        Ok(weight) => weight,
        Err(problem) => return Reply::error(problem),
    };
    if weight != 0 && weight != written && spec.balance.is_static(spec.hash_type) {
        return Reply::error(FIXED);
    }
    let server = server.live.uid;
    ask(context, |done| ToControl::SetWeight {
        server,
        weight,
        done,
    })
    .await
}

/// Parses a weight as HAProxy does (`server_parse_weight_change_request` in its `src/server.c`): a number, or a
/// percentage of `initial` that gives the largest weight at most.
pub(super) fn parse_weight(text: &str, initial: u32) -> Result<u32, &'static str> {
    if text.is_empty() {
        return Err(NO_WEIGHT);
    }
    let Some((number, rest)) = leading_number(text) else {
        return Err("Empty weight string empty or preceded by garbage\n");
    };
    if rest == "%" {
        let Ok(percent) = u64::try_from(number) else {
            return Err("Relative weight must be positive.\n");
        };
        let weight = percent.saturating_mul(u64::from(initial)) / 100;
        return Ok(u32::try_from(weight).map_or(WEIGHT_LARGEST, |it| it.min(WEIGHT_LARGEST)));
    }
    match u32::try_from(number) {
        Ok(weight) if weight <= WEIGHT_LARGEST && rest.is_empty() => Ok(weight),
        Ok(weight) if weight <= WEIGHT_LARGEST => Err("Trailing garbage in weight string\n"),
        _ => Err(RANGE),
    }
}

/// The number that `text` begins with, and the rest, as C's `strtol`, with numbers that are too large. `None`:
/// it begins with no number.
pub(super) fn leading_number(text: &str) -> Option<(i64, &str)> {
    let text = text.trim_start_matches(|it: char| it.is_ascii_whitespace() || it == '\x0b');
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let end = digits.find(|it: char| !it.is_ascii_digit());
    let (number, rest) = digits.split_at(end.unwrap_or(digits.len()));
    if number.is_empty() {
        return None;
    }
    // A number that does not fit becomes the largest one.
    let number: i64 = number.parse().unwrap_or(i64::MAX);
    Some((sign * number, rest))
}

/// Sends a message to control and waits until it is done. As in HAProxy a success has no text.
async fn ask(
    context: &CommandContext,
    message: impl FnOnce(oneshot::Sender<bool>) -> ToControl,
) -> Reply {
    let (done, answer) = oneshot::channel();
    if !context.control.report(message(done)).await {
        return Reply::error(not_made(&context.reload));
    }
    match answer.await {
        Ok(true) => Reply::Done,
        // A reload has removed it meanwhile.
        Ok(false) => Reply::error(NO_SERVER),
        Err(_) => Reply::error(not_made(&context.reload)),
    }
}

/// The answer when the control task makes no change any more.
pub(in crate::admin) fn not_made(reload: &ReloadHandle) -> String {
    match reload.new_process() {
        Some(pid) => format!(
            "Process {pid} has taken over from this one. Nothing was changed: ask again, it answers.\n"
        ),
        None => STOPPING.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 46: each answer here is that of HAProxy 3.5.
    #[test]
    fn fault_46_weights_are_read_as_haproxy_does() {
        let garbage = Err("Trailing garbage in weight string\n");
        let empty = Err("Empty weight string empty or preceded by garbage\n");
        for (text, initial, expected) in [
            ("50", 1, Ok(50)),
            ("0", 1, Ok(0)),
            ("-0", 1, Ok(0)),
            ("+5", 1, Ok(5)),
            (" 5", 1, Ok(5)),
            ("256", 1, Ok(256)),
            ("257", 1, Err(RANGE)),
            ("-1", 1, Err(RANGE)),
            ("300x", 1, Err(RANGE)),
            ("-5x", 1, Err(RANGE)),
            ("99999999999999999999", 1, Err(RANGE)),
            ("50%", 10, Ok(5)),
            ("+50%", 10, Ok(5)),
            ("50%", 1, Ok(0)),
            ("300%", 1, Ok(3)),
            ("300%", 100, Ok(256)),
            ("99999999999999999999%", 1, Ok(256)),
            ("-5%", 1, Err("Relative weight must be positive.\n")),
            ("", 1, Err("Require <weight> or <weight%>.\n")),
            ("x", 1, empty),
            ("%", 1, empty),
            ("+-5", 1, empty),
            ("5x", 1, garbage),
            ("5%%", 1, garbage),
            ("50%x", 1, garbage),
            ("0x10", 1, garbage),
        ] {
            assert_eq!(parse_weight(text, initial), expected, "{text} of {initial}");
        }
    }
}
