//! `clear counters`: each thread clears the counters that it writes. Admin thread, which writes those of the stats
//! proxy.

use super::reply::Reply;
use super::{CommandContext, names, set};
use crate::live::counters::Clear;
use crate::state::RuntimeChange;

/// `clear counters` and `clear counters all`.
pub(super) async fn clear(context: &CommandContext, what: Clear) -> Reply {
    let shared = &context.shared;
    let snapshot = shared.snapshot.load_full();
    let traffic = snapshot.stats_live.traffic.mine(&shared.token);
    shared.process.clear_maxima();
    if what == Clear::All {
        traffic.clear();
        shared.requests.clear();
    } else {
        traffic.clear_maxima();
        shared.requests.clear_maxima();
    }
    everywhere(context, what).await
}

/// `clear counters server <backend>/<server> [force]`.
pub(super) async fn clear_server(context: &CommandContext, args: &[&str]) -> Reply {
    let found = names::server_to_change(&context.shared.snapshot.load(), args.first().copied());
    let server = match found {
        Ok((_, server)) => server,
        Err(problem) => return Reply::error(problem),
    };
    match everywhere(context, Clear::Server(server.live.uid)).await {
        Reply::Done => Reply::notice("Server counters cleared.\n"),
        other => other,
    }
}

/// Has the workers and the control thread clear theirs.
async fn everywhere(context: &CommandContext, what: Clear) -> Reply {
    context.workers.clear_counters(what).await;
    set::change(context, RuntimeChange::ClearCounters(what)).await
}
