//! Suggestions for unknown words: the most similar known word, and for HAProxy's keywords what to write
//! instead.
//!
//! Pure functions over constant tables.

use super::haproxy;

/// The candidate that is most similar to `word`, if any is similar enough.
pub(super) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A prefix may stand for the whole word.
    const PREFIX_BYTES_MIN: usize = 3;
    // Bounds the quadratic comparison; no candidate is nearly as long.
    const WORD_BYTES_MAX: usize = 300;
    const CANDIDATES_MAX: usize = 2000;
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let wanted = plain(word);
    let is_prefix =
        |candidate: &str| wanted.len() >= PREFIX_BYTES_MIN && candidate.starts_with(&wanted);
    candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&wanted, &plain(candidate)),
                candidate,
            )
        })
        .filter(|(distance, candidate)| {
            let longest = wanted.chars().count().max(candidate.chars().count());
            // A third of the letters may be wrong, at most three.
            *distance <= (longest / 3).clamp(1, 3) || is_prefix(candidate)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Whether `word` differs from `candidate` by at most one letter, capitals and underscores aside.
pub(super) fn is_clear(word: &str, candidate: &str) -> bool {
    strsim::damerau_levenshtein(&plain(word), &plain(candidate)) <= 1
}

fn plain(text: &str) -> String {
    text.to_lowercase().replace(['_', ' '], "-")
}

/// "did you mean `x`?".
pub(super) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    closest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// The hint for a HAProxy configuration.
pub(super) const HAPROXY_FILE: &str = "\
rlb reads TOML: `rlb convert haproxy.cfg > rlb.toml` makes it, and says of each statement what became of it; nearly every
       word stays the same
         listen postgres                  [[listen]]
             bind *:5432                  name = \"postgres\"
             balance roundrobin           bind = \"*:5432\"
             timeout connect 5s           timeout = { connect = \"5s\" }
             server n1 10.0.0.1:5432 check   check = true
                                          servers = [{ name = \"n1\", address = \"10.0.0.1:5432\" }]
       docs/from-haproxy.md has what becomes of every word, docs/differences.md what differs";

/// Whether a file is a HAProxy configuration: it begins with one of its sections or conditions.
pub(super) fn is_haproxy_file(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}');
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    let mut words = first.unwrap_or_default().split_whitespace();
    let Some(word) = words.next() else {
        return false;
    };
    let equals = words.next().is_some_and(|second| second.starts_with('='));
    let condition = [".if", ".notice", ".diag", ".warning"].contains(&word);
    condition || (haproxy::is_section(word) && !equals)
}

/// Words that are neither rlb's nor HAProxy's, in kebab-case, and what to write.
const OTHERS: &[(&str, &str)] = &[
    ("backends", "write one `[[backend]]` for each"),
    ("default-backends", "a frontend has one `default-backend`"),
    ("frontends", "write one `[[frontend]]` for each"),
    ("host", "in a server it is `address`, with the port"),
    ("listens", "write one `[[listen]]` for each"),
    ("no-log", "leave `[log]` out to log no session"),
    (
        "option",
        "rlb writes each option as a key of its own: `dontlognull = true`",
    ),
    ("send-proxy-v2", "it is `send-proxy = \"v2\"`"),
    ("tcp-check", "it is `check = \"tcp\"`"),
    (
        "timeouts",
        "it is `timeout`, a key of [defaults], [[frontend]], [[backend]] and [[listen]]",
    ),
    ("tunnel", "`client` and `server` hold for the whole session"),
    (
        "queue",
        "connections over the limit wait in the kernel's accept queue",
    ),
];

/// What to write for `key`, in any spelling, when it is a usual mistake or a word of HAProxy's that
/// has become more than one key.
pub(super) fn instead(key: &str) -> Option<&'static str> {
    let plain = key.to_lowercase().replace(['_', '.', ' '], "-");
    let other = OTHERS.iter().find(|(word, _)| *word == plain);
    other
        .map(|(_, instead)| *instead)
        .or_else(|| haproxy::several_keys(key))
}

/// HAProxy's algorithms that this version does not have.
const ALGORITHMS: &[&str] = &[
    "uri",
    "url_param",
    "hdr",
    "rdp-cookie",
    "log-hash",
    "sticky",
];

/// What rlb says for HAProxy's `value`.
pub(super) fn haproxy_value(value: &str) -> Option<String> {
    if value == "layer7" {
        let text = "rlb does not read what sessions say: `layer4` is what it can observe";
        return Some(text.to_owned());
    }
    ALGORITHMS
        .contains(&value)
        .then(|| "this version of rlb has `roundrobin`, `static-rr`, `leastconn`, `first`, `random`, `source` and `hash`".to_owned())
}
