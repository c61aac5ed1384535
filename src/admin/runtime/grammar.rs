//! The table of commands: their words, who may use them, and their help. Pure.

use super::access::{LOGGED_CHARS_MAX, printable};
use crate::config::model::ApiLevel;
use std::fmt::Write;

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    AddServer,
    ClearCounters,
    ClearMaxima,
    ClearServerCounters,
    DelServer,
    Disable,
    DisableFrontend,
    DisableAgent,
    DisableHealth,
    Echo,
    Enable,
    EnableFrontend,
    EnableAgent,
    EnableHealth,
    GetWeight,
    Help,
    Operator,
    Prompt,
    PublishBackend,
    Quit,
    Reload,
    ReloadDryRun,
    ReloadResetOverrides,
    SetMaxconnFrontend,
    SetMaxconnGlobal,
    SetMaxconnServer,
    SetRateLimit,
    SetServer,
    SetSeverityOutput,
    SetTimeout,
    SetWeight,
    ShowActivity,
    ShowBackend,
    ShowCliLevel,
    ShowCliSockets,
    ShowConfig,
    ShowDefaultServer,
    ShowEnv,
    ShowErrors,
    ShowEvents,
    ShowFd,
    ShowInfo,
    ShowOverrides,
    ShowProc,
    ShowSchema,
    ShowServersConn,
    ShowServersState,
    ShowSess,
    ShowStartupLogs,
    ShowStat,
    ShowThreads,
    ShowVersion,
    ShutdownFrontend,
    ShutdownSession,
    ShutdownSessions,
    UnpublishBackend,
    Upgrade,
    User,
    Wait,
}

/// A command.
#[derive(Debug)]
pub(super) struct Entry {
    /// The words that it begins with.
    words: &'static [&'static str],
    /// The words with their arguments, as `help` shows them.
    usage: &'static str,
    text: &'static str,
    /// The lowest level that may use it.
    pub(super) level: ApiLevel,
    pub(super) verb: Verb,
}

const fn entry(
    (words, usage): (&'static [&'static str], &'static str),
    text: &'static str,
    level: ApiLevel,
    verb: Verb,
) -> Entry {
    Entry {
        words,
        usage,
        text,
        level,
        verb,
    }
}

use ApiLevel::{Admin, Operator, User};

/// In the order of `help`: by name, then those that concern the connection.
#[rustfmt::skip]
const TABLE: &[Entry] = &[
    entry((&["add", "server"], "add server <bk>/<srv>"), "create a new server", Admin, Verb::AddServer),
    // The usage of the three is that of the last.
    entry((&["clear", "counters", "all"], ""), "", Admin, Verb::ClearCounters),
    entry((&["clear", "counters", "server"], ""), "", Admin, Verb::ClearServerCounters),
    entry((&["clear", "counters"], "clear counters [all|server <bk>/<srv> [force]]"), "clear max statistics counters (or all, or one server's)", Operator, Verb::ClearMaxima),
    entry((&["del", "server"], "del server <bk>/<srv>"), "remove a server, which is in maintenance and has no sessions", Admin, Verb::DelServer),
    entry((&["disable", "agent"], "disable agent <bk>/<srv>"), "disable agent checks", Admin, Verb::DisableAgent),
    entry((&["disable", "frontend"], "disable frontend <frontend>"), "temporarily disable specific frontend", Admin, Verb::DisableFrontend),
    entry((&["disable", "health"], "disable health <bk>/<srv>"), "disable health checks", Admin, Verb::DisableHealth),
    entry((&["disable", "server"], "disable server <bk>/<srv>"), "set a server to maintenance", Admin, Verb::Disable),
    entry((&["echo"], "echo <text>"), "print text to the output", User, Verb::Echo),
    entry((&["enable", "agent"], "enable agent <bk>/<srv>"), "enable agent checks", Admin, Verb::EnableAgent),
    entry((&["enable", "frontend"], "enable frontend <frontend>"), "re-enable specific frontend", Admin, Verb::EnableFrontend),
    entry((&["enable", "health"], "enable health <bk>/<srv>"), "enable health checks", Admin, Verb::EnableHealth),
    entry((&["enable", "server"], "enable server <bk>/<srv>"), "set a server to ready", Admin, Verb::Enable),
    entry((&["get", "weight"], "get weight <bk>/<srv>"), "report a server's current weight", User, Verb::GetWeight),
    entry((&["operator"], "operator"), "lower the level of the current CLI session to operator", Operator, Verb::Operator),
    entry((&["publish", "backend"], "publish backend <backend>"), "mark backend as ready for traffic", Admin, Verb::PublishBackend),
    entry((&["reload", "dry-run"], "reload dry-run [json]"), "report what reading the configuration again would change", Admin, Verb::ReloadDryRun),
    entry((&["reload", "reset-overrides"], "reload reset-overrides"), "read the configuration again and drop what was set at run time", Admin, Verb::ReloadResetOverrides),
    entry((&["reload"], "reload"), "read the configuration again", Admin, Verb::Reload),
    entry((&["set", "maxconn", "frontend"], "set maxconn frontend <frontend> <value>"), "change a frontend's maxconn setting", Admin, Verb::SetMaxconnFrontend),
    entry((&["set", "maxconn", "global"], "set maxconn global <value>"), "change the per-process maxconn setting", Admin, Verb::SetMaxconnGlobal),
    entry((&["set", "maxconn", "server"], "set maxconn server <bk>/<srv>"), "change a server's maxconn setting", Admin, Verb::SetMaxconnServer),
    entry((&["set", "rate-limit"], "set rate-limit <setting> <value>"), "change a rate limiting value", Admin, Verb::SetRateLimit),
    entry((&["set", "server"], "set server <bk>/<srv> [opts]"), "change a server's state, weight, health, address or name", Admin, Verb::SetServer),
    entry((&["set", "severity-output"], "set severity-output [none|number|string]"), "set presence of severity level in feedback information", User, Verb::SetSeverityOutput),
    entry((&["set", "timeout"], "set timeout [cli] <delay>"), "change a timeout setting", User, Verb::SetTimeout),
    entry((&["set", "weight"], "set weight <bk>/<srv> <w>[%]"), "change a server's weight", Admin, Verb::SetWeight),
    entry((&["show", "activity"], "show activity"), "show per-thread activity stats", Operator, Verb::ShowActivity),
    entry((&["show", "backend"], "show backend"), "list backends in the current running config", User, Verb::ShowBackend),
    entry((&["show", "cli", "level"], "show cli level"), "display the level of the current CLI session", User, Verb::ShowCliLevel),
    entry((&["show", "cli", "sockets"], "show cli sockets"), "dump list of cli sockets", Operator, Verb::ShowCliSockets),
    entry((&["show", "config"], "show config"), "dump the configuration files in force, as they were read", Admin, Verb::ShowConfig),
    entry((&["show", "default-server"], "show default-server [<backend>]"), "list default-server instances in all or a single backend", User, Verb::ShowDefaultServer),
    entry((&["show", "env"], "show env [var]"), "dump environment variables known to the process", Admin, Verb::ShowEnv),
    entry((&["show", "errors"], "show errors [<px>] [request|response]"), "report last request and/or response errors for each proxy", User, Verb::ShowErrors),
    entry((&["show", "events"], "show events [<sink>] [-w] [-n] [-0]"), "show event sink state", User, Verb::ShowEvents),
    entry((&["show", "fd"], "show fd [num]"), "dump list of file descriptors in use or a specific one", Operator, Verb::ShowFd),
    entry((&["show", "info"], "show info [desc|json|typed|float]*"), "report information about the running process", User, Verb::ShowInfo),
    entry((&["show", "overrides"], "show overrides"), "list what was set at run time and the file says otherwise", User, Verb::ShowOverrides),
    entry((&["show", "proc"], "show proc"), "show processes status", User, Verb::ShowProc),
    entry((&["show", "schema", "json"], "show schema json"), "report schema used for stats", User, Verb::ShowSchema),
    entry((&["show", "servers", "conn"], "show servers conn [<backend>]"), "dump server connections status (all or for a single backend)", User, Verb::ShowServersConn),
    entry((&["show", "servers", "state"], "show servers state [<backend>]"), "dump volatile server information", User, Verb::ShowServersState),
    entry((&["show", "sess"], "show sess [help|<id>|all] [opts...]"), "report the list of current sessions or dump this exact session", Operator, Verb::ShowSess),
    entry((&["show", "startup-logs"], "show startup-logs"), "report logs emitted during the startup", Operator, Verb::ShowStartupLogs),
    entry((&["show", "stat"], "show stat [<id> <type> <sid>] [typed|json|up|no-maint]*"), "report counters for each proxy and server", User, Verb::ShowStat),
    entry((&["show", "threads"], "show threads"), "show the threads of the process", User, Verb::ShowThreads),
    entry((&["show", "version"], "show version"), "show version of the current process", User, Verb::ShowVersion),
    entry((&["shutdown", "frontend"], "shutdown frontend <frontend>"), "stop a specific frontend", Admin, Verb::ShutdownFrontend),
    entry((&["shutdown", "session"], "shutdown session [id]"), "kill a specific session", Admin, Verb::ShutdownSession),
    entry((&["shutdown", "sessions", "server"], "shutdown sessions server <bk>/<srv>"), "kill sessions on a server", Admin, Verb::ShutdownSessions),
    entry((&["unpublish", "backend"], "unpublish backend <backend>"), "remove backend for traffic processing", Admin, Verb::UnpublishBackend),
    entry((&["upgrade"], "upgrade"), "hand over to a new process of the program", Admin, Verb::Upgrade),
    entry((&["user"], "user"), "lower the level of the current CLI session to user", User, Verb::User),
    entry((&["wait"], "wait {-h|<delay_ms>} cond [args...]"), "wait the specified delay or condition (-h to see list)", Admin, Verb::Wait),
    entry((&["help"], "help [<command>]"), "list matching or all commands", User, Verb::Help),
    entry((&["prompt"], "prompt [help | n | i | p | timed ]*"), "toggle interactive mode with prompt", User, Verb::Prompt),
    entry((&["quit"], "quit"), "disconnect", User, Verb::Quit),
];

/// The command that `words` begin with, and its arguments.
pub(super) fn find<'a, 'b>(words: &'a [&'b str]) -> Option<(&'static Entry, &'a [&'b str])> {
    let entry = TABLE.iter().find(|entry| words.starts_with(entry.words))?;
    Some((entry, &words[entry.words.len()..]))
}

/// `help` for all commands, or for those that begin with `words`.
pub(super) fn help(words: &[&str], level: ApiLevel) -> String {
    let mut text = "The following commands are valid at this level:\n".to_owned();
    list(&mut text, level, |entry| {
        words
            .iter()
            .zip(entry.words)
            .all(|(one, other)| one == other)
    });
    text
}

/// The answer to an unknown command.
pub(super) fn unknown(words: &[&str], level: ApiLevel) -> String {
    let Some(first) = words.first() else {
        return String::new();
    };
    let alike = |entry: &Entry| entry.words[0] == *first;
    let mut text = format!(
        "Unknown command: '{}'",
        printable(&words.join(" "), LOGGED_CHARS_MAX)
    );
    if TABLE.iter().any(alike) {
        text.push_str(", but maybe one of the following ones is a better match:\n");
        list(&mut text, level, alike);
    } else {
        text.push_str(". Please enter one of the following commands only:\n");
        list(&mut text, level, |_| true);
    }
    text
}

fn list(text: &mut String, level: ApiLevel, wanted: impl Fn(&Entry) -> bool) {
    let listed = TABLE.iter().filter(|entry| !entry.usage.is_empty());
    let mine = listed.filter(|entry| entry.level <= level);
    for entry in mine.filter(|entry| wanted(entry)) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {:<40}: {}", entry.usage, entry.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_by_all_their_words() {
        let (entry, args) = find(&["show", "servers", "state", "be"]).unwrap();
        assert_eq!((entry.verb, args), (Verb::ShowServersState, &["be"][..]));
        assert!(find(&["show", "servers"]).is_none());
        assert!(find(&[]).is_none());
    }

    #[test]
    fn help_shows_what_the_level_allows() {
        let user = help(&[], ApiLevel::User);
        assert!(user.contains("  show info [desc|json|typed|float]*      : report information"));
        assert!(!user.contains("reload"));
        assert!(help(&[], ApiLevel::Admin).contains("reload"));
        assert_eq!(help(&["get"], ApiLevel::User).lines().count(), 2);
    }

    #[test]
    fn fault_40_unknown_commands_get_a_hint() {
        let text = unknown(&["show", "sta"], ApiLevel::User);
        let first = "Unknown command: 'show sta', but maybe one of the following ones is a \
                     better match:";
        assert_eq!(text.lines().next(), Some(first));
        assert!(!text.contains("help"));
        // Fault 40: a client's text reaches a terminal only without control characters.
        let text = unknown(&["no\0such\x1b[2J"], ApiLevel::User);
        assert!(
            text.starts_with("Unknown command: 'no\\x00such\\x1b[2J'."),
            "{text}"
        );
        let text = unknown(&["nosuch"], ApiLevel::User);
        assert!(
            text.starts_with("Unknown command: 'nosuch'. Please enter one"),
            "{text}"
        );
    }
}
