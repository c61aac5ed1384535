//! What people may have meant: near misses, and HAProxy's words for what rlb spells differently.
//!
//! Pure functions over constant tables.

/// The candidate that is most like `word`, if any is much like it.
pub(super) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // The beginning of a word is meant for the word.
    const PREFIX_BYTES_MIN: usize = 3;
    // Bounds the quadratic comparison; no candidate is nearly that long.
    const WORD_BYTES_MAX: usize = 300;
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let wanted = plain(word);
    let is_prefix =
        |candidate: &str| wanted.len() >= PREFIX_BYTES_MIN && candidate.starts_with(&wanted);
    candidates
        .into_iter()
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

/// Whether `word` is `candidate` but for one letter, capitals and underscores.
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

/// HAProxy's keywords that rlb does not have, or not as a key, in kebab-case, and what to write.
/// Consulted before a near miss is looked for. A keyword that rlb has as a key stands in the
/// declaration of that key.
const HAPROXY: &[(&str, &str)] = &[
    ("accept-proxy", "rlb reads no PROXY header yet"),
    ("acl", "rlb has no ACLs"),
    ("agent-check", "rlb has no agent checks yet"),
    ("backends", "write one `[[backend]]` for each"),
    (
        "bind-process",
        "rlb is one process: see `threads` in `[global]`",
    ),
    (
        "chroot",
        "the service manager confines rlb: see its unit file",
    ),
    ("cookie", "rlb balances TCP: it knows no cookies"),
    ("cpu-map", "rlb is one process: see `threads` in `[global]`"),
    ("crt", "rlb passes TLS through untouched: leave it out"),
    (
        "daemon",
        "rlb stays in the foreground: let the service manager start it",
    ),
    ("default-backends", "a frontend has one `default-backend`"),
    ("frontends", "write one `[[frontend]]` for each"),
    (
        "group",
        "the service manager sets the group: see its unit file",
    ),
    ("host", "in a server it is `address`, with the port"),
    ("http-keep-alive", "rlb balances TCP: it knows no HTTP"),
    ("http-request", "rlb balances TCP: it knows no HTTP"),
    ("listens", "write one `[[listen]]` for each"),
    ("log", "write a `[log]` table with a `[[log.target]]`"),
    (
        "maxqueue",
        "connections over the limit wait in the kernel's accept queue",
    ),
    (
        "minconn",
        "connections over the limit wait in the kernel's accept queue",
    ),
    (
        "mode",
        "rlb always works as HAProxy's `mode tcp`: leave it out",
    ),
    ("nbproc", "rlb is one process: see `threads` in `[global]`"),
    ("no-log", "leave `[log]` out to log no session"),
    (
        "observe",
        "rlb suspects a server whose connects fail by itself",
    ),
    (
        "option",
        "rlb writes each option as a key of its own: `dontlognull = true`",
    ),
    ("pidfile", "the service manager knows the process id"),
    (
        "queue",
        "connections over the limit wait in the kernel's accept queue",
    ),
    (
        "redispatch",
        "rlb always asks another server: see `retries`",
    ),
    ("send-proxy", "rlb sends no PROXY header yet"),
    ("send-proxy-v2", "rlb sends no PROXY header yet"),
    ("server", "it is `servers`, a list of tables"),
    ("slowstart", "rlb has no slow start yet"),
    ("source", "rlb lets the system choose the source address"),
    ("ssl", "rlb passes TLS through untouched: leave it out"),
    ("stats", "write a `[stats]` table"),
    ("stick-table", "rlb has no stick tables yet"),
    ("tcp-check", "it is `check = \"tcp\"`"),
    (
        "tcplog",
        "session lines are always in this format: write `[log]` with a target",
    ),
    ("tfo", "rlb has no TCP fast open"),
    (
        "timeout-queue",
        "connections over the limit wait in the kernel's accept queue",
    ),
    (
        "timeout-tunnel",
        "`client` and `server` hold for the whole session",
    ),
    ("timeouts", "it is `timeout`"),
    (
        "track",
        "rlb has no tracking yet: give the server a `check`",
    ),
    ("tunnel", "`client` and `server` hold for the whole session"),
    (
        "ulimit-n",
        "rlb raises the descriptor limit to the hard limit: see `LimitNOFILE` of its unit",
    ),
    ("use-backend", "a frontend has one `default-backend`"),
    (
        "user",
        "the service manager sets the user: see its unit file",
    ),
];

/// What rlb says for HAProxy's `key`, in any spelling.
pub(super) fn haproxy(key: &str) -> Option<&'static str> {
    let key = key.to_lowercase().replace(['_', '.', ' '], "-");
    HAPROXY
        .iter()
        .find(|(word, _)| *word == key)
        .map(|(_, instead)| *instead)
}

/// HAProxy's algorithms that this version does not have.
const ALGORITHMS: &[&str] = &[
    "static-rr",
    "leastconn",
    "first",
    "source",
    "uri",
    "url_param",
    "hdr",
    "random",
    "hash",
    "rdp-cookie",
    "log-hash",
    "sticky",
];

/// What rlb says for HAProxy's `value`.
pub(super) fn haproxy_value(value: &str) -> Option<String> {
    ALGORITHMS
        .contains(&value)
        .then(|| "this version of rlb has only `roundrobin`".to_owned())
}
