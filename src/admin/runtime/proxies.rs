//! `disable`, `enable` and `shutdown frontend`, `publish` and `unpublish backend`. Admin thread; the texts are HAProxy's.

use super::CommandContext;
use super::names::{self, NO_BACKEND, NO_FRONTEND};
use super::reply::Reply;
use super::set;
use crate::state::{FrontendId, FrontendState, RuntimeChange};

/// The state of the frontend that a command names.
enum Found {
    /// One that an operator may change.
    Frontend(FrontendId, FrontendState),
    /// The proxy of the statistics.
    Stats,
}

fn find(context: &CommandContext, args: &[&str]) -> Result<Found, Reply> {
    let snapshot = context.shared.snapshot.load();
    let Some(name) = args.first() else {
        return Err(Reply::error("A frontend name is expected.\n"));
    };
    match names::frontend(&snapshot, name) {
        Some(frontend) => Ok(Found::Frontend(frontend.id, frontend.state())),
        None if names::is_stats(&snapshot, name) => Ok(Found::Stats),
        None => Err(Reply::error(NO_FRONTEND)),
    }
}

/// `disable frontend <frontend>`.
pub(super) async fn disable(context: &CommandContext, args: &[&str]) -> Reply {
    match find(context, args) {
        Err(problem) => problem,
        Ok(Found::Frontend(id, FrontendState::Open)) => {
            change(context, id, FrontendState::Paused).await
        }
        Ok(Found::Frontend(_, FrontendState::Paused)) => {
            Reply::notice("All sockets are already disabled.\n")
        }
        Ok(Found::Frontend(_, FrontendState::Stopped)) => {
            Reply::notice("Frontend was previously shut down, cannot disable.\n")
        }
        Ok(Found::Stats) => Reply::error(OF_STATS),
    }
}

/// `enable frontend <frontend>`.
pub(super) async fn enable(context: &CommandContext, args: &[&str]) -> Reply {
    let id = match find(context, args) {
        Err(problem) => return problem,
        Ok(Found::Frontend(id, FrontendState::Paused)) => id,
        Ok(Found::Frontend(_, FrontendState::Open) | Found::Stats) => {
            return Reply::notice("All sockets are already enabled.\n");
        }
        Ok(Found::Frontend(_, FrontendState::Stopped)) => {
            return Reply::error("Frontend was previously shut down, cannot enable.\n");
        }
    };
    let answer = change(context, id, FrontendState::Open).await;
    if answer.failure() != Some(names::NO_SERVER.trim_end()) {
        return answer;
    }
    Reply::error("Failed to resume frontend, check logs for precise cause (port conflict?).\n")
}

/// `shutdown frontend <frontend>`.
pub(super) async fn shutdown(context: &CommandContext, args: &[&str]) -> Reply {
    match find(context, args) {
        Err(problem) => problem,
        Ok(Found::Frontend(_, FrontendState::Stopped)) => {
            Reply::notice("Frontend was already shut down.\n")
        }
        Ok(Found::Frontend(id, _)) => change(context, id, FrontendState::Stopped).await,
        Ok(Found::Stats) => Reply::error(OF_STATS),
    }
}

/// Who is locked out of the statistics needs them.
const OF_STATS: &str = "The statistics cannot be disabled, only limited (set maxconn frontend).\n";

async fn change(context: &CommandContext, id: FrontendId, state: FrontendState) -> Reply {
    set::change(context, RuntimeChange::FrontendState(id, state)).await
}

/// `publish backend <backend>` and `unpublish backend <backend>`.
pub(super) async fn publish(context: &CommandContext, args: &[&str], publish: bool) -> Reply {
    let snapshot = context.shared.snapshot.load_full();
    let named = args
        .first()
        .and_then(|name| names::backend(&snapshot, name));
    let Some(backend) = named else {
        return Reply::error(NO_BACKEND);
    };
    let answer = set::change(context, RuntimeChange::Publish(backend.id, publish)).await;
    match answer {
        Reply::Done if publish => Reply::info("Backend published.\n"),
        Reply::Done => Reply::info("Backend unpublished.\n"),
        other => other,
    }
}
