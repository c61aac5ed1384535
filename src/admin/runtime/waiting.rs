//! `wait`: answers after a time, or as soon as a server can be removed. Admin thread.

use super::reply::Reply;
use super::{CommandContext, duration, names};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

const USAGE: &str = "\
Usage: wait {-h|<duration>} [condition [args...]]
  - '-h' displays this help
  - <duration> is the maximum wait time, optionally suffixed by the unit among
    'us', 'ms', 's', 'm', 'h', and 'd'. ; the default unit is milliseconds.
  - <condition> indicates what to wait for, no longer than the specified
    duration. Supported conditions are:
    - <none> : by default, just sleep for the specified duration.
    - srv-removable <px>/<sv> : wait for this server to become removable.
";

/// The time is over, or the condition holds.
const DONE: &str = "Done.\n";

/// How often the condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// `wait <duration> [srv-removable <backend>/<server>]`.
pub(super) async fn wait(context: &CommandContext, args: &[&str]) -> Reply {
    let Some(text) = args.first() else {
        return Reply::error("Expects a duration in milliseconds.\n");
    };
    if *text == "-h" {
        return Reply::error(USAGE);
    }
    let Some(limit) = duration::parse(text, Duration::from_millis(1)).filter(|it| !it.is_zero())
    else {
        return Reply::error("Invalid duration.\n");
    };
    let end = Instant::now() + limit;
    match args.get(1..).unwrap_or_default() {
        [] => {
            let stop = context.shared.stop.clone();
            match stop.run_until_cancelled(sleep_until(end)).await {
                Some(()) => Reply::info(DONE),
                None => Reply::error("Interrupted.\n"),
            }
        }
        ["srv-removable"] => Reply::error("Missing server name (<backend>/<server>).\n"),
        ["srv-removable", server, ..] => until_removable(context, server, end).await,
        _ => Reply::error(USAGE),
    }
}

async fn until_removable(context: &CommandContext, server: &str, end: Instant) -> Reply {
    loop {
        let found = removable(context, server);
        match found {
            Ok(()) => return Reply::info(DONE),
            Err(Obstacle::Lasting(text)) => return Reply::error(format!("Failed. {text}\n")),
            Err(Obstacle::Sessions) if context.shared.stop.is_cancelled() => {
                return Reply::error("Interrupted.\n");
            }
            Err(Obstacle::Sessions) if Instant::now() >= end => {
                let text = "Server still has connections attached to it, cannot remove it.";
                return Reply::error(format!("Failed. {text}\n"));
            }
            Err(Obstacle::Sessions) => {}
        }
        sleep_until(end.min(Instant::now() + LOOK_EVERY)).await;
    }
}

/// Why a server cannot be removed.
enum Obstacle {
    /// Waiting does not help.
    Lasting(&'static str),
    /// It has sessions.
    Sessions,
}

fn removable(context: &CommandContext, name: &str) -> Result<(), Obstacle> {
    let found = names::server(&context.shared.snapshot.load(), Some(name));
    let (_, server) = found.map_err(|text| Obstacle::Lasting(text.trim_end()))?;
    if !server.status.admin.is_maint() {
        let text = "Only servers in maintenance mode can be deleted.";
        return Err(Obstacle::Lasting(text));
    }
    if server.live.active.get() > 0 {
        return Err(Obstacle::Sessions);
    }
    Ok(())
}
