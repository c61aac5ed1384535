//! Runs one command: checks the level, logs what needs the level admin, and writes the answer. Admin thread.

use super::access;
use super::grammar::{self, Verb};
use super::reply::{Reply, ReplyWriter, SeverityOutput};
use super::{
    CommandContext, DENIED, Sender, config, counters, duration, dynamic, events, inspect, maxconn,
    names, process, proxies, server, sessions, set, show, waiting,
};
use crate::config::model::ApiLevel;
use crate::live::counters::Clear;
use crate::state::AdminRequest;
use crate::stats::schema;
use std::io;
use std::time::Duration;

/// Runs one command and ends its reply. `false`: the connection is to end.
pub(super) async fn execute(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    sender: Sender<'_>,
    words: &[String],
) -> io::Result<bool> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let level = context.level(sender.peer).min(reply.level_max);
    if let Some((entry, args)) = grammar::find(&words) {
        if entry.level > level {
            reply.send(Reply::error(DENIED)).await?;
        } else if entry.verb == Verb::Quit {
            return Ok(false);
        } else if entry.level == ApiLevel::Admin {
            administer(context, reply, sender, (entry.verb, args, &words)).await?;
        } else {
            dispatch(context, reply, sender, (entry.verb, args, level)).await?;
        }
    } else if !words.is_empty() {
        let text = grammar::unknown(&words, level);
        reply.send(Reply::Info(text)).await?;
    }
    reply.end().await?;
    Ok(true)
}

/// Runs a command that needs the level admin: it may change something or show what is not for everybody. Logs it
/// before, and again when it failed.
async fn administer(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    sender: Sender<'_>,
    (verb, args, words): (Verb, &[&str], &[&str]),
) -> io::Result<()> {
    let command = access::printable(&words.join(" "), access::LOGGED_CHARS_MAX);
    let socket = context.path(sender.peer);
    access::log_command(socket, sender.peer, &command);
    let answer = match verb {
        Verb::SetServer => server::set_server(context, args).await,
        Verb::SetWeight => set::weight(context, args).await,
        Verb::Enable => set::state(context, args, AdminRequest::Ready).await,
        Verb::Disable => set::state(context, args, AdminRequest::Maint).await,
        Verb::ShutdownSession => sessions::shutdown(context, args).await,
        Verb::ShutdownSessions => set::shutdown_sessions(context, args).await,
        Verb::Reload => set::reload(context).await,
        Verb::Upgrade => set::upgrade(context).await,
        Verb::ClearCounters => counters::clear(context, Clear::All).await,
        Verb::ClearServerCounters => counters::clear_server(context, args).await,
        Verb::SetMaxconnFrontend => maxconn::frontend(context, args).await,
        Verb::AddServer => dynamic::add(context, args).await,
        Verb::DelServer => dynamic::remove(context, args).await,
        Verb::EnableHealth => server::check(context, args, true).await,
        Verb::DisableHealth => server::check(context, args, false).await,
        Verb::EnableAgent => agent(context, args, true),
        Verb::DisableAgent => agent(context, args, false),
        Verb::ReloadResetOverrides => set::reload_without_overrides(context).await,
        Verb::SetMaxconnServer => maxconn::server(context, args).await,
        Verb::SetMaxconnGlobal => maxconn::global(context, args).await,
        Verb::SetRateLimit => maxconn::rate_limit(context, args).await,
        Verb::DisableFrontend => proxies::disable(context, args).await,
        Verb::EnableFrontend => proxies::enable(context, args).await,
        Verb::ShutdownFrontend => proxies::shutdown(context, args).await,
        Verb::PublishBackend => proxies::publish(context, args, true).await,
        Verb::UnpublishBackend => proxies::publish(context, args, false).await,
        Verb::ReloadDryRun => {
            let compared = config::dry_run(context, args);
            sender.unless_gone(compared).await?
        }
        Verb::ShowConfig => sender.unless_gone(config::show(context)).await?,
        Verb::ShowEnv => show::environment(args),
        Verb::Wait => sender.unless_gone(waiting::wait(context, args)).await?,
        // `dispatch` runs those of the other levels.
        _ => Reply::Done,
    };
    if let Some(reason) = answer.failure() {
        let reason = access::printable(reason, access::LOGGED_CHARS_MAX);
        access::log_failure(socket, sender.peer, (&command, &reason));
    }
    reply.send(answer).await
}

/// Runs a command of the other levels, which changes maxima or the connection's settings at most.
async fn dispatch(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    sender: Sender<'_>,
    (verb, args, level): (Verb, &[&str], ApiLevel),
) -> io::Result<()> {
    let peer = sender.peer;
    let answer = match verb {
        Verb::Help => Reply::Info(grammar::help(args, level)),
        Verb::Operator => {
            reply.level_max = level.min(ApiLevel::Operator);
            Reply::Done
        }
        Verb::User => {
            reply.level_max = ApiLevel::User;
            Reply::Done
        }
        Verb::Prompt => prompt(reply, args),
        Verb::ClearMaxima => counters::clear(context, Clear::Maxima).await,
        Verb::SetTimeout => set_timeout(reply, args),
        Verb::SetSeverityOutput => match SeverityOutput::parse(args.first().copied()) {
            Ok(severity) => {
                reply.severity = severity;
                Reply::Done
            }
            Err(problem) => Reply::error(problem),
        },
        Verb::GetWeight => set::get_weight(context, args),
        Verb::ShowBackend => Reply::Text(show::backends(context)),
        Verb::ShowCliLevel => Reply::Info(format!("{}\n", level.name())),
        Verb::Echo => Reply::Text(args.join(" ") + "\n"),
        Verb::ShowActivity => inspect::activity(context),
        Verb::ShowThreads => inspect::threads(context),
        Verb::ShowEvents => return events::show(context, reply, sender, (args, level)).await,
        Verb::ShowDefaultServer => inspect::default_server(context, args),
        Verb::ShowStartupLogs => Reply::Text(context.recent.of_start()),
        Verb::ShowFd => return inspect::descriptors(context, reply, args).await,
        Verb::ShowOverrides => Reply::Text(show::overrides(context)),
        Verb::ShowCliSockets => Reply::Text(show::sockets(context, peer)),
        Verb::ShowErrors => show::errors(context, args),
        Verb::ShowProc => Reply::Text(process::show(context)),
        Verb::ShowSchema => Reply::Text(schema()),
        Verb::ShowInfo => show::info(context, args),
        Verb::ShowVersion => Reply::Info(show::version()),
        Verb::ShowStat => return show::stat(context, reply, peer, args).await,
        Verb::ShowSess => return sessions::show(context, reply, args).await,
        Verb::ShowServersConn => return show::servers_conn(context, reply, args).await,
        Verb::ShowServersState => return show::servers_state(context, reply, args).await,
        // `execute` handles quit; `administer` runs what needs the level admin.
        _ => Reply::Done,
    };
    reply.send(answer).await
}

/// `set timeout cli <delay>`: for this connection, in seconds without a unit.
fn set_timeout(reply: &mut ReplyWriter, args: &[&str]) -> Reply {
    let delay = match args {
        ["cli", delay, ..] => *delay,
        ["cli"] => return Reply::error("Expects an integer value.\n"),
        _ => return Reply::error("'set timeout' only supports 'cli'.\n"),
    };
    match duration::parse(delay, Duration::from_secs(1)) {
        Some(timeout) if timeout >= Duration::from_millis(1) => {
            reply.own_timeout = Some(timeout);
            Reply::Done
        }
        _ => Reply::error("Invalid timeout value.\n"),
    }
}

/// `enable agent` and `disable agent`: no server has an agent.
fn agent(context: &CommandContext, args: &[&str], enable: bool) -> Reply {
    match names::server_to_change(&context.shared.snapshot.load(), args.first().copied()) {
        Err(problem) => Reply::error(problem),
        Ok(_) if enable => {
            Reply::error("Agent was not configured on this server, cannot enable.\n")
        }
        Ok(_) => Reply::Done,
    }
}

/// The answer to `prompt` with an unknown option.
const PROMPT_USAGE: &str = "\
Usage: prompt [help | n | i | p | timed]*
Changes the default prompt and interactive mode. Available options:
  help    display this help
  n       set to single-command mode (no prompt, single command)
  i       set to interactive mode only (no prompt, multi-command)
  p       set to prompt+interactive mode (prompt + multi-command)
  timed   toggle displaying the current date in the prompt
Without any argument, toggles between n/i->p, p->n.
";

/// `prompt [help|n|i|p|timed]*`.
fn prompt(reply: &mut ReplyWriter, args: &[&str]) -> Reply {
    let modes = if args.is_empty() {
        &[if reply.prompt { "n" } else { "p" }][..]
    } else {
        args
    };
    for mode in modes {
        match *mode {
            "n" => (reply.interactive, reply.prompt) = (false, false),
            "i" => (reply.interactive, reply.prompt) = (true, false),
            "p" => (reply.interactive, reply.prompt) = (true, true),
            "timed" => {
                (reply.interactive, reply.prompt) = (true, true);
                reply.timed = !reply.timed;
            }
            _ => return Reply::error(PROMPT_USAGE),
        }
    }
    Reply::Done
}
