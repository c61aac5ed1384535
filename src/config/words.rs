//! Suggestions for unknown words: the most similar known word, and for HAProxy's keywords what to write
//! instead.
//!
//! Pure functions over constant tables.

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

/// The sections of a HAProxy configuration.
const HAPROXY_SECTIONS: &[&str] = &[
    "backend",
    "cache",
    "crt-store",
    "defaults",
    "fcgi-app",
    "frontend",
    "global",
    "http-errors",
    "listen",
    "log-forward",
    "mailers",
    "peers",
    "program",
    "resolvers",
    "ring",
    "traces",
    "userlist",
];

/// The hint for a HAProxy configuration.
pub(super) const HAPROXY_FILE: &str = "\
rlb reads TOML: write it anew, nearly every word stays the same
         listen postgres                  [[listen]]
             bind *:5432                  name = \"postgres\"
             balance roundrobin           bind = \"*:5432\"
             timeout connect 5s           timeout = { connect = \"5s\" }
             server n1 10.0.0.1:5432 check   check = true
                                          servers = [{ name = \"n1\", address = \"10.0.0.1:5432\" }]
       `rlb check` says of each of HAProxy's keywords what it is called here; every key is in
       docs/configuration.md and config/reference.toml, what differs in docs/differences.md";

/// Whether a file is a HAProxy configuration: it begins with one of its sections or conditions.
pub(super) fn is_haproxy_file(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    let mut words = first.unwrap_or_default().split_whitespace();
    let Some(word) = words.next() else {
        return false;
    };
    let equals = words.next().is_some_and(|second| second.starts_with('='));
    let condition = [".if", ".notice", ".diag", ".warning"].contains(&word);
    condition || (HAPROXY_SECTIONS.contains(&word) && !equals)
}

/// HAProxy's keywords that rlb does not have, or not as a key, in kebab-case, and what to write. Used before
/// similar words are searched. A keyword that rlb has as a key is in the declaration of that key.
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
    (
        "stats",
        "`stats socket` is `[runtime-api]` with a `socket`, the page is `[stats]` with a `bind`",
    ),
    (
        "stats-admin",
        "change servers over the runtime socket: `[runtime-api]`",
    ),
    ("stats-enable", "write a `[stats]` table with a `bind`"),
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

/// Other keywords of HAProxy without a counterpart in rlb.
const HAPROXY_ONLY: &[&str] = &[
    "agent-addr",
    "agent-inter",
    "agent-port",
    "agent-send",
    "alpn",
    "appsession",
    "ca-base",
    "ca-file",
    "capture",
    "ciphers",
    "ciphersuites",
    "clear",
    "compression",
    "crl-file",
    "crt-base",
    "crt-list",
    "declare",
    "defer-accept",
    "dispatch",
    "email-alert",
    "errorfile",
    "errorfiles",
    "errorloc",
    "errorloc302",
    "errorloc303",
    "external-check",
    "filter",
    "force-persist",
    "forwardfor",
    "fullsni",
    "guid",
    "hash-balance-factor",
    "hash-preserve-affinity",
    "hash-type",
    "http-after-response",
    "http-check",
    "http-error",
    "http-response",
    "http-reuse",
    "http-send-name-header",
    "httpchk",
    "httpclose",
    "httplog",
    "id-hash",
    "ignore-persist",
    "init-addr",
    "init-state",
    "insecure-fork-wanted",
    "issuers-chain-path",
    "load-balance",
    "load-server-state-from-file",
    "localpeer",
    "log-format",
    "log-format-sd",
    "log-proto",
    "log-send-hostname",
    "log-steps",
    "log-tag",
    "lua-load",
    "master-worker",
    "max-mem",
    "maxcompcpuusage",
    "maxcomprate",
    "maxconnrate",
    "maxpipes",
    "maxsessrate",
    "maxsslconn",
    "maxsslrate",
    "maxzlibmem",
    "monitor-net",
    "monitor-uri",
    "namespace",
    "npn",
    "numa-cpu-mapping",
    "nice",
    "no-check",
    "option-httpchk",
    "peers",
    "persist",
    "pool-conn-name",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "presetenv",
    "process",
    "profiling",
    "proto",
    "quiet",
    "rate-limit",
    "rdp-cookie",
    "redirect",
    "resetenv",
    "resolve-net",
    "resolve-opts",
    "resolve-prefer",
    "resolvers",
    "server-state-base",
    "server-state-file",
    "server-state-file-name",
    "server-template",
    "set-dumpable",
    "set-var",
    "setenv",
    "severity-output",
    "sni",
    "socks4",
    "spread-checks",
    "ssl-default-bind-ciphers",
    "ssl-default-bind-options",
    "ssl-default-server-ciphers",
    "ssl-default-server-options",
    "ssl-max-ver",
    "ssl-min-ver",
    "stick",
    "strict-limits",
    "tcp-request",
    "tcp-response",
    "tcp-ut",
    "thread-groups",
    "transparent",
    "tune",
    "unique-id-format",
    "unique-id-header",
    "unsetenv",
    "use-fcgi-app",
    "use-server",
    "userlist",
    "verify",
    "verifyhost",
    "wait",
    "ws",
];

/// Prefixes of HAProxy's keywords without a counterpart in rlb.
const HAPROXY_FAMILIES: &[&str] = &[
    "tune-",
    "ssl-",
    "http-",
    "spoe-",
    "lua-",
    "stick-",
    "51degrees-",
];

/// What rlb says for HAProxy's `key`, in any spelling.
pub(super) fn haproxy(key: &str) -> Option<&'static str> {
    let key = key.to_lowercase().replace(['_', '.', ' '], "-");
    HAPROXY
        .iter()
        .find(|(word, _)| *word == key)
        .map(|(_, instead)| *instead)
}

/// Whether `key`, in any spelling, is a keyword of HAProxy's that has no counterpart in rlb.
pub(super) fn haproxy_only(key: &str) -> bool {
    let key = key.to_lowercase().replace(['_', '.', ' '], "-");
    HAPROXY_ONLY.contains(&&*key)
        || HAPROXY_FAMILIES
            .iter()
            .any(|family| key.starts_with(family))
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
