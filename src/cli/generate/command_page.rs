//! The manual page rlb(8), made from the definitions of the command line.

use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};
use std::io;

/// Sections that no definition has: title, and paragraphs of a term and its meaning.
const SECTIONS: &[(&str, &[(&str, &str)])] = &[
    (
        "EXIT STATUS",
        &[
            ("0", "Success; for `check`: the configuration can be used."),
            ("1", "A failure at run time."),
            ("2", "The command line is wrong."),
            ("78", "The configuration is not valid (EX_CONFIG)."),
        ],
    ),
    (
        "SIGNALS",
        &[
            ("SIGHUP", "Reload the configuration."),
            (
                "SIGTERM",
                "Stop: no new sessions; those that run may end, for as long as hard-stop-after says. \
                 A second one stops at once.",
            ),
            ("SIGINT", "Stop at once."),
            ("SIGUSR1", "Stop as SIGTERM does."),
            (
                "SIGUSR2",
                "Hand over to a new process of the installed program, as `upgrade` does. Sessions \
                 move to it; those that cannot go on in the old one, for as long as \
                 upgrade-stop-after says.",
            ),
        ],
    ),
    (
        "UNDER THE NAME HAPROXY",
        &[
            (
                "haproxy -f FILE…",
                "A program that is started by this name understands HAProxy's command line and \
                 signals, and runs HAProxy's files: -c, -cc, -D, -W, -Ws, -db, -d, -q, -V, -v, -vv, \
                 -p, -n, -N, -C, -S, -sf, -st, -x, -dW, -dD; -m, -L, -4 and other -d switches have \
                 no effect. docs/from-haproxy.md has what each does.",
            ),
            ("SIGTERM, SIGINT", "Stop at once."),
            ("SIGUSR1", "Stop when the sessions that run have ended."),
            (
                "SIGHUP, SIGUSR2",
                "Reload, with -W or -Ws. Without, SIGHUP logs the state of the servers.",
            ),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            (
                "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID",
                "Where the service manager listens, and how often it wants a sign of life.",
            ),
            (
                "LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID",
                "Listening sockets that were passed; they are used where the configuration has their \
                 addresses, and closed otherwise.",
            ),
            (
                "RLB_HANDOVER",
                "Set by a running rlb for the process that takes over from it; not to be set by hand.",
            ),
            (
                "RLB_BACKGROUND",
                "Set under the name haproxy for the process in the background (-D); not to be set by \
                 hand.",
            ),
            ("NO_COLOR", "Not empty: no colours."),
        ],
    ),
    (
        "FILES",
        &[
            ("/etc/rlb/rlb.toml", "The configuration, see rlb.toml(5)."),
            ("/run/rlb/admin.sock", "The runtime socket."),
            ("/var/log/rlb/", "For log targets that are files."),
        ],
    ),
    ("SEE ALSO", &[("rlb.toml(5), systemd.service(5)", "")]),
];

/// The page.
pub(super) fn page(mut command: Command) -> io::Result<Vec<u8>> {
    command.build();
    let man = Man::new(command.clone())
        .section("8")
        .manual("rlb")
        .date("");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        // Clap adds a command for help.
        if sub.get_name() != "help" {
            sub_command(&mut roff, sub);
        }
    }
    for (title, entries) in SECTIONS {
        roff.control("SH", [*title]);
        for (term, meaning) in *entries {
            if !meaning.is_empty() {
                roff.control("TP", []);
            }
            roff.text([bold(*term)]);
            roff.text([roman(*meaning)]);
        }
    }
    roff.to_writer(&mut page)?;
    Ok(page)
}

fn sub_command(roff: &mut Roff, command: &Command) {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    roff.control("SS", [usage]);
    if let Some(about) = command.get_about() {
        roff.text([roman(format!("{about}."))]);
    }
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        if arg.get_id() != "help" && arg.get_id() != "version" {
            argument(roff, arg);
        }
    }
}

fn argument(roff: &mut Roff, arg: &Arg) {
    let mut names = Vec::new();
    if let Some(short) = arg.get_short() {
        names.extend([bold(format!("-{short}")), roman(", ")]);
    }
    if let Some(long) = arg.get_long() {
        names.push(bold(format!("--{long}")));
    } else {
        names.truncate(1);
    }
    if arg.get_action().takes_values() {
        let values = arg.get_value_names().unwrap_or_default();
        let values: Vec<&str> = values.iter().map(clap::builder::Str::as_str).collect();
        if !names.is_empty() {
            names.push(roman(" "));
        }
        names.push(italic(values.join(" ")));
    }
    roff.control("TP", []);
    roff.text(names);
    roff.text([roman(meaning(arg))]);
}

/// Help, possible values and default.
fn meaning(arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    text.push('.');
    if !arg.get_action().takes_values() {
        return text;
    }
    let possible: Vec<String> = arg
        .get_possible_values()
        .iter()
        .map(|value| match value.get_help() {
            Some(help) => format!("{} ({help})", value.get_name()),
            None => value.get_name().to_owned(),
        })
        .collect();
    if !possible.is_empty() {
        text.extend([" One of: ", &possible.join(", "), "."]);
    }
    let defaults: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    if !defaults.is_empty() {
        text.extend([" Default: ", &defaults.join(" "), "."]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::super::Cli;
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_and_option_is_on_the_page_but_for_hidden_ones() {
        let page = String::from_utf8(page(Cli::command()).unwrap()).unwrap();
        let plain = page.replace('\\', "");
        for sub in Cli::command().get_subcommands() {
            let name = format!(".SS \"rlb {}", sub.get_name());
            assert_eq!(plain.contains(&name), !sub.is_hide_set(), "{name}");
            for long in sub.get_arguments().filter_map(Arg::get_long) {
                assert!(plain.contains(&format!("--{long}")), "{name} --{long}");
            }
        }
        assert!(plain.contains("Default: /etc/rlb/rlb.toml."));
        assert!(plain.contains("json (One JSON object a line)"));
    }
}
