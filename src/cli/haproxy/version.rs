//! What `-v` and `-vv` print, and the usage. `Version:` of `show info` has the same number.

use super::arguments::Version;
use crate::convert;
use crate::stats::info::{RELEASED, VERSION};

/// Number of the HAProxy whose words and answers rlb has, as three and as two numbers.
const LEVEL: (&str, &str) = ("3.0.0", "3.0");

/// The text of a version.
pub(super) fn text(version: Version) -> String {
    match version {
        Version::Lines => lines(),
        Version::Features => format!("{}{}", lines(), features()),
        Version::Number => format!("{VERSION}\n"),
        Version::ShortNumber => format!("{}\n", LEVEL.0),
        Version::Branch => format!("{}\n", LEVEL.1),
    }
}

fn lines() -> String {
    let own = env!("CARGO_PKG_VERSION");
    let mut text = format!("HAProxy version {VERSION} {RELEASED} - rlb {own} under this name\n");
    text.push_str("Status: HAProxy's mode tcp, in Rust.\n");
    let system = rustix::system::uname();
    let [name, release, version, machine] = [
        system.sysname(),
        system.release(),
        system.version(),
        system.machine(),
    ]
    .map(|text| text.to_string_lossy().into_owned());
    text + &format!("Running on: {name} {release} {version} {machine}\n")
}

fn features() -> String {
    let features: Vec<String> = convert::FEATURES
        .iter()
        .map(|feature| format!("+{feature}"))
        .collect();
    format!(
        "\nFeature list : {}\n\n\
         Available polling systems :\n      epoll : pref=300,  test result OK\n\
         Total: 1 (1 usable), will use epoll.\n\n\
         Available multiplexer protocols :\n  <default> : mode=TCP   side=FE|BE  mux=PASS  flags=\n\n\
         Available services : prometheus-exporter\nAvailable filters :\n",
        features.join(" ")
    )
}

/// The usage of the program that was started as `name`.
pub(super) fn usage(name: &str) -> String {
    format!(
        "Usage : {name} [-f <cfgfile|cfgdir>]* [ -vdVD ] [ -n <maxconn> ] [ -N <maxpconn> ]\n        \
         [ -p <pidfile> ] [ -C <dir> ] [-- <cfgfile>*]\n{OPTIONS}\n"
    )
}

const OPTIONS: &str = "        \
-v displays version ; -vv shows features ; -vq/-vqs/-vqb only the version, a short one, the branch.
        -f reads a file, or the .cfg files of a directory in the order of their names.
        -c check mode : only checks the files and exits ; -cc evaluates a condition and exits.
        -d stays in the foreground and tells more ; -db only stays in the foreground.
        -V verbose mode (disables quiet mode) ; -q quiet mode : a start says nothing.
        -D goes into the background ; -C changes to <dir> before reading files.
        -W, -Ws SIGUSR2 and SIGHUP reload ; -Ws stays in the foreground.
        -n sets the maximum total # of connections ; -N the default one of each frontend.
        -p writes the process id to this file (with -D, -W or -Ws).
        -S <bind>[,<bind options>...] opens a runtime socket (with -W or -Ws).
        -sf/-st [pid ]* takes over from old processes, which finish or end at once.
        -x <unix_socket> takes over the listening sockets of the process that listens there.
        -dW fails if there is any warning ; -dD tells of everything that is not as in HAProxy.
        -m, -L, -4 and other -d switches are accepted and have no effect.
        --allow-degraded, --http=drop, --haproxy-defaults as of `rlb convert`.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_agree() {
        assert!(VERSION.starts_with(LEVEL.0) && LEVEL.0.starts_with(LEVEL.1));
        let first = text(Version::Lines);
        let words: Vec<&str> = first.split(' ').take(4).collect();
        assert_eq!(words[..3], ["HAProxy", "version", VERSION]);
        assert_eq!(words[3].len(), "2026/01/31".len());
        assert!(text(Version::Features).starts_with(&first));
    }
}
