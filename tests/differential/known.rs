//! The differences from HAProxy that are meant, each documented in `docs/differences.md`.

use crate::differences::Difference;
use std::ops::RangeInclusive;

/// A version of HAProxy.
type Version = (u32, u32);

/// A difference that is expected.
struct Known {
    /// The configurations that show it. Each must.
    configurations: &'static [&'static str],
    /// Others that may show it too; a `*` stands for all.
    others: &'static [&'static str],
    /// The keys of the differences; a `*` stands for any text, and `<server>` for the name of a server.
    keys: &'static [&'static str],
    /// The subject of the row in `docs/differences.md`.
    subject: &'static str,
    /// The versions of HAProxy that differ.
    versions: RangeInclusive<Version>,
}

impl Known {
    /// Whether a configuration may show it.
    fn concerns(&self, name: &str) -> bool {
        let mut names = self.configurations.iter().chain(self.others);
        names.any(|it| ["*", name].contains(it))
    }
}

/// Before the first version that is the reference.
const OLD: RangeInclusive<Version> = (0, 0)..=(2, 9);

/// Every version.
const ALL: RangeInclusive<Version> = (0, 0)..=(u32::MAX, 0);

/// The list.
const KNOWN: &[Known] = &[
    Known {
        configurations: &["listen_plain"],
        others: &["*"],
        keys: &["client end ServerResets"],
        subject: "a server's reset",
        versions: ALL,
    },
    Known {
        configurations: &["listen_plain"],
        others: &[],
        keys: &["stat web/FRONTEND slim", "stat web/BACKEND slim"],
        subject: "`maxconn` when unset",
        versions: ALL,
    },
    Known {
        configurations: &["refused_redispatch"],
        others: &[],
        keys: &[
            "stat be/two stot",
            "stat be/two lbtot",
            "stat be/BACKEND lbtot",
        ],
        subject: "`stot`, `lbtot` of a server",
        versions: ALL,
    },
    Known {
        configurations: &["refused_redispatch", "dark_server"],
        others: &[],
        keys: &[
            "log retries",
            "stat */<server> connect",
            "stat */BACKEND connect",
            "stat */<server> wredis",
            "stat */BACKEND wredis",
        ],
        subject: "three failed connects in a row, without `observe layer4`",
        versions: ALL,
    },
    Known {
        configurations: &[
            "check_elsewhere",
            "log_raw",
            "log_rfc5424",
            "log_short",
            "server_down_and_up",
            "servers_disabled",
            "weights_at_run_time",
        ],
        others: &[],
        keys: &["client server", "log server", "log bytes"],
        subject: "order of `roundrobin` when a server comes up",
        versions: ALL,
    },
    Known {
        configurations: &["weights"],
        others: &[],
        keys: &["client server", "log server"],
        subject: "order of `roundrobin` with weights",
        versions: ALL,
    },
    Known {
        configurations: &[
            "all_down",
            "refused_alone",
            "refused_retries",
            "dark_server",
            "queue_abort",
            "queue_leave",
            "queue_timeout",
        ],
        // Of two clients HAProxy may have read nothing.
        others: &["refused_no_retries"],
        keys: &["stat */* bin", "stat */* reqbin"],
        subject: "bytes of a client that no server has taken",
        versions: ALL,
    },
    Known {
        configurations: &[
            "refused_alone",
            "refused_no_retries",
            "refused_retries",
            "dark_server",
        ],
        others: &[],
        keys: &[
            "stat */<server> stot",
            "stat */<server> lbtot",
            "stat */BACKEND lbtot",
        ],
        subject: "`stot`, `lbtot` of a server",
        versions: ALL,
    },
    Known {
        configurations: &["refused_retries"],
        others: &[],
        keys: &[
            "log retries",
            "stat */<server> connect",
            "stat */BACKEND connect",
            "stat */<server> wretr",
            "stat */BACKEND wretr",
        ],
        subject: "retry on the same server",
        versions: ALL,
    },
    Known {
        configurations: &["all_down", "dark_server_checked"],
        others: &[],
        keys: &["stat */<server> chkfail"],
        subject: "`chkfail` of a server whose first check fails",
        versions: (3, 1)..=(u32::MAX, 0),
    },
    Known {
        configurations: &["marked_down", "marked_up"],
        others: &[],
        keys: &["client end Idle"],
        subject: "a session that an operator, `on-marked-down` or `on-marked-up` ends",
        versions: ALL,
    },
    Known {
        configurations: &["marked_down", "marked_up"],
        others: &[],
        keys: &["log letters"],
        subject: "letters of a session that was ended",
        versions: OLD,
    },
    Known {
        configurations: &["weights_at_run_time"],
        others: &[],
        keys: &["answer"],
        subject: "answers of the runtime socket",
        versions: OLD,
    },
    Known {
        configurations: &["proxy_disabled"],
        others: &[],
        keys: &["stat rows"],
        subject: "rows of a `listen` that is `disabled`",
        versions: ALL,
    },
    Known {
        configurations: &["log_rfc5424"],
        others: &[],
        keys: &["log prefix", "log event"],
        subject: "host name in lines of RFC 5424",
        versions: ALL,
    },
    Known {
        configurations: &["log_short"],
        others: &[],
        keys: &["log prefix", "log client", "log event"],
        subject: "log formats `short`, `timed`, `iso`, `priority`, `local`",
        versions: ALL,
    },
    Known {
        configurations: &["leastconn"],
        others: &[],
        keys: &[
            "client server",
            "log server",
            "log counts",
            "stat */<server> *",
        ],
        subject: "`balance leastconn`: servers with the same load",
        versions: (3, 2)..=(u32::MAX, 0),
    },
    Known {
        configurations: &["queue_turns"],
        others: &[],
        keys: &["client server", "log server", "log counts"],
        subject: "order of `static-rr` after clients have waited",
        versions: ALL,
    },
    Known {
        configurations: &["queue_resets"],
        others: &[],
        keys: &["log letters"],
        subject: "a client that waits in a queue and resets",
        versions: ALL,
    },
    Known {
        configurations: &["queue_server_down"],
        others: &[],
        keys: &[
            "log retries",
            "stat web/BACKEND connect",
            "stat web/c connect",
            "stat web/c smax",
            "stat web/c stot",
        ],
        subject: "a session that waits in the queue of a server that goes down, with `option redispatch`",
        versions: (3, 1)..=(u32::MAX, 0),
    },
    Known {
        configurations: &["stats_page"],
        others: &[],
        keys: &["stat stats/* slim", "stat stats/BACKEND algo"],
        subject: "`slim` and `algo` of the statistics' own rows",
        versions: ALL,
    },
];

/// What is left of the differences of a configuration: those that are not known, and the known ones that were
/// not found.
pub(crate) fn left_over(name: &str, version: Version, found: Vec<Difference>) -> Vec<String> {
    let expected: Vec<&Known> = KNOWN
        .iter()
        .filter(|known| known.versions.contains(&version))
        .filter(|known| known.concerns(name))
        .collect();
    // Those that the configuration need not show count as seen.
    let mut seen: Vec<bool> = expected
        .iter()
        .map(|known| !known.configurations.contains(&name))
        .collect();
    let mut left = Vec::new();
    for difference in found {
        let mut known = false;
        for (expected, seen) in expected.iter().zip(&mut seen) {
            let matches = expected.keys.iter().any(|key| fits(key, &difference.key));
            *seen |= matches;
            known |= matches;
        }
        if !known {
            left.push(difference.text());
        }
    }
    let missing = expected.iter().zip(seen).filter(|(_, seen)| !seen);
    left.extend(
        missing.map(|(known, _)| format!("no difference: {} ({:?})", known.subject, known.keys)),
    );
    left
}

/// Whether a text fits a pattern in which `*` stands for any text and `<server>` for the name of a server.
fn fits(pattern: &str, text: &str) -> bool {
    if pattern.contains("<server>") {
        let of_a_server = !["/FRONTEND ", "/BACKEND "]
            .iter()
            .any(|row| text.contains(row));
        return of_a_server && fits(&pattern.replace("<server>", "*"), text);
    }
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == text;
    };
    text.strip_prefix(before).is_some_and(|rest| {
        (0..=rest.len()).any(|at| rest.is_char_boundary(at) && fits(after, &rest[at..]))
    })
}

#[test]
fn every_known_difference_is_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/differences.md");
    let text = std::fs::read_to_string(path).expect("the page");
    for known in KNOWN {
        let row = format!("\n| {} |", known.subject);
        assert!(text.contains(&row), "no row {:?}", known.subject);
        for name in known.configurations {
            assert!(
                crate::CONFIGURATIONS.contains(name),
                "no configuration {name}"
            );
        }
    }
}

#[test]
fn a_star_stands_for_any_text() {
    assert!(fits("stat */s1 lbtot", "stat be/s1 lbtot"));
    assert!(fits("log *", "log letters") && fits("log line", "log line"));
    assert!(!fits("stat */s1 lbtot", "stat be/s2 lbtot") && !fits("log", "log line"));
    assert!(fits("stat */<server> stot", "stat be/s1 stot"));
    assert!(!fits("stat */<server> stot", "stat be/BACKEND stot"));
}
