//! `set maxconn` and `set rate-limit`: the most sessions of the process, of a frontend and of a server, and the most connections that are
//! accepted in a second. Admin thread.

use super::CommandContext;
use super::names::{self, NO_FRONTEND};
use super::reply::Reply;
use super::set::{self, leading_number};
use crate::state::RuntimeChange;

pub(super) const NO_NUMBER: &str = "Expects an integer value.\n";
pub(super) const OUT_OF_RANGE: &str = "Value out of range.\n";

/// The number that `text` begins with, as C's `atoi`; 0 if there is none. `None`: it is negative.
pub(super) fn number(text: &str) -> Option<u32> {
    let number = leading_number(text).map_or(0, |(number, _)| number);
    u32::try_from(number.clamp(-1, i64::from(u32::MAX))).ok()
}

/// `set maxconn frontend <frontend> <value>`. The column `slim` follows. As in HAProxy 0 lets nothing in, and so does a
/// word that is no number.
pub(super) async fn frontend(context: &CommandContext, args: &[&str]) -> Reply {
    let snapshot = context.shared.snapshot.load_full();
    let Some(name) = args.first() else {
        return Reply::error("A frontend name is expected.\n");
    };
    let frontend = names::frontend(&snapshot, name).map(|it| it.id);
    if frontend.is_none() && !names::is_stats(&snapshot, name) {
        return Reply::error(NO_FRONTEND);
    }
    let Some(value) = args.get(1) else {
        return Reply::error("Integer value expected.\n");
    };
    let Some(maxconn) = number(value) else {
        return Reply::error(OUT_OF_RANGE);
    };
    let change = match frontend {
        Some(id) => RuntimeChange::FrontendMaxconn(id, maxconn),
        None => RuntimeChange::StatsMaxconn(maxconn),
    };
    set::change(context, change).await
}

/// `set maxconn global <value>`; 0 is what the process began with, and no value is above it.
pub(super) async fn global(context: &CommandContext, args: &[&str]) -> Reply {
    let Some(value) = args.first() else {
        return Reply::error(NO_NUMBER);
    };
    let hard = context.shared.snapshot.load().hard_maxconn;
    match number(value) {
        Some(0) => set::change(context, RuntimeChange::Maxconn(hard)).await,
        Some(maxconn) if maxconn <= hard => {
            set::change(context, RuntimeChange::Maxconn(maxconn)).await
        }
        _ => Reply::error(OUT_OF_RANGE),
    }
}

/// `set maxconn server <backend>/<server> <value>`; 0: no limit. The column `slim` follows.
pub(super) async fn server(context: &CommandContext, args: &[&str]) -> Reply {
    let found = names::server(&context.shared.snapshot.load(), args.first().copied());
    let server = match found {
        Ok((_, server)) => server,
        Err(problem) => return Reply::error(problem),
    };
    let Some(value) = args.get(1) else {
        return Reply::error("Require <maxconn>.\n");
    };
    match leading_number(value) {
        None => Reply::error("maxconn string empty or preceded by garbage\n"),
        Some((_, rest)) if !rest.is_empty() => Reply::error("Trailing garbage in maxconn string\n"),
        Some((number, _)) => match u32::try_from(number) {
            Ok(maxconn) => {
                set::change(
                    context,
                    RuntimeChange::ServerMaxconn(server.live.uid, maxconn),
                )
                .await
            }
            // HAProxy takes a negative number for one above four billion.
            Err(_) => Reply::error(OUT_OF_RANGE),
        },
    }
}

const RATE_USAGE: &str = "\
'set rate-limit' only supports :
   - 'connections global' to set the per-process maximum connection rate
   - 'sessions global' to set the per-process maximum session rate
";

/// `set rate-limit connections|sessions global <value>`; 0: no limit.
pub(super) async fn rate_limit(context: &CommandContext, args: &[&str]) -> Reply {
    let (change, value): (fn(u32) -> RuntimeChange, _) = match *args {
        ["connections", "global", ref rest @ ..] => (RuntimeChange::ConnectionRate, rest.first()),
        ["sessions", "global", ref rest @ ..] => (RuntimeChange::SessionRate, rest.first()),
        _ => return Reply::error(RATE_USAGE),
    };
    let Some(value) = value else {
        return Reply::error(NO_NUMBER);
    };
    match number(value) {
        Some(limit) => set::change(context, change(limit)).await,
        None => Reply::error(OUT_OF_RANGE),
    }
}
