//! How many words can stand behind a keyword, and which can be the first: what HAProxy refuses of it. Pure.
//!
//! A keyword stands here when HAProxy 2.6 and 3.5 both refuse more words, or fewer; what only one of them refuses is taken.

use super::sections::{Modifier, Statement};
use crate::config::haproxy::Place;

/// As many as there are.
const ANY: usize = usize::MAX;

/// The least and the most words behind each keyword, which is of one word or of two.
type Counts = (usize, usize, &'static str);

/// Statements of `global`.
const GLOBAL: [Counts; 6] = [
    (
        0,
        0,
        "busy-polling daemon h2-workaround-bogus-websocket-clients insecure-fork-wanted insecure-setuid-wanted \
         limited-quic no-memory-trimming noepoll nogetaddrinfo nopoll noreuseport nosplice pp2-never-send-local \
         prealloc-fd quick-exit quiet strict-limits zero-warning",
    ),
    (0, 1, "external-check master-worker set-dumpable"),
    (
        1,
        1,
        "ca-base chroot crt-base fd-hard-limit gid group key-base localpeer log-tag max-spread-checks maxcompcpuusage \
         maxcomprate maxconn maxconnrate maxpipes maxsessrate maxsslconn maxsslrate maxzlibmem nbthread node pidfile \
         spread-checks ssl-default-bind-ciphers ssl-default-bind-ciphersuites ssl-default-server-ciphers \
         ssl-default-server-ciphersuites ssl-server-verify thread-groups tune.bufsize tune.maxaccept tune.maxrewrite \
         tune.pipesize tune.ssl.default-dh-param uid ulimit-n user",
    ),
    (
        1,
        ANY,
        "close-spread-time default-path description grace hard-stop-after log server-state-base server-state-file \
         setcap ssl-default-bind-options ssl-default-server-options stats-file unsetenv",
    ),
    (2, 2, "h1-case-adjust"),
    (2, ANY, "cpu-map presetenv set-var setenv"),
];

/// Statements of proxies.
const PROXY: [Counts; 6] = [
    (0, 0, "disabled enabled"),
    (0, 1, "server-state-file-name"),
    (
        1,
        1,
        "backlog error-log-format fullconn http-reuse id log-format log-format-sd maxconn mode monitor-uri retries \
         unique-id-format",
    ),
    (
        1,
        ANY,
        "clitcpka-cnt clitcpka-idle clitcpka-intvl compression cookie description dispatch errorfiles filter guid hash-balance-factor \
         hash-preserve-affinity hash-type http-send-name-header load-server-state-from-file log log-tag \
         max-keep-alive-queue max-session-srv-conns persist redirect retry-on source srvtcpka-cnt srvtcpka-idle \
         srvtcpka-intvl stick unique-id-header",
    ),
    (2, 2, "external-check timeout"),
    (
        2,
        ANY,
        "errorfile errorloc errorloc302 errorloc303 rate-limit stick-table tcp-request",
    ),
];

/// Statements of proxies of which the first word behind the keyword is one of these.
const VALUES: [(&str, &str); 7] = [
    (
        "compression",
        "algo algo-req algo-res type type-req type-res direction minsize-req minsize-res offload",
    ),
    ("email-alert", "from level mailers myhostname to"),
    ("external-check", "command path"),
    ("http-reuse", "always aggressive never safe"),
    ("load-server-state-from-file", "global local none"),
    (
        "redirect",
        "code drop-query append-slash ignore-empty location prefix scheme set-cookie clear-cookie",
    ),
    ("stick", "match on store-request store-response"),
];

/// The words behind `option` that other words can follow.
const OPTIONS_WITH_WORDS: &str = "forwarded forwardfor http-restrict-req-hdr-names httpchk httplog httpslog mysql-check \
     originalto pgsql-check redispatch smtpchk tcplog";

/// Options that `no` and `default` cannot stand before.
const NOT_NEGATED: &str = "external-check forceclose forwardfor http-restrict-req-hdr-names http-tunnel httpchk \
     httplog httpslog ldap-check mysql-check originalto pgsql-check redis-check smtpchk spop-check ssl-hello-chk tcp-check \
     tcpka tcplog";

/// Options that `default` cannot stand before.
const WITHOUT_DEFAULT: &str = "http-keep-alive http-server-close httpclose";

fn is_one_of(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|known| known == word)
}

/// What is wrong with the words of a statement by the tables, or with its `no`, and at which word.
pub(super) fn refused(place: Place, statement: &Statement) -> Option<(usize, String)> {
    let (first, second) = (statement.word(0), statement.word(1));
    let behind = statement.words.len() - 1;
    if first == "option" && place == Place::Proxy {
        return option(statement, second);
    }
    let rows: &[Counts] = match place {
        Place::Global => &GLOBAL,
        _ => &PROXY,
    };
    let mut rows = rows.iter();
    let (least, most, _) = rows.find(|(_, _, words)| is_one_of(words, first))?;
    // `no log` is whole.
    let least = if statement.modifier == Modifier::None {
        *least
    } else {
        0
    };
    if behind < least {
        return Some((behind, "a value is missing".to_owned()));
    }
    let values = VALUES.iter().find(|(word, _)| *word == first);
    let values = values.filter(|_| place == Place::Proxy && behind > 0);
    if values.is_some_and(|(_, values)| !is_one_of(values, second)) {
        return Some((1, format!("HAProxy has no `{second}` behind `{first}`")));
    }
    let most = match (first, second) {
        ("log", "global") => 1,
        _ => *most,
    };
    (behind > most).then(|| too_many(statement, most + 1))
}

fn option(statement: &Statement, name: &str) -> Option<(usize, String)> {
    if name.is_empty() {
        return Some((0, "the name of an option is missing".to_owned()));
    }
    let negated = statement.modifier != Modifier::None;
    let by_default = statement.modifier == Modifier::Default;
    if negated && (is_one_of(NOT_NEGATED, name) || (by_default && is_one_of(WITHOUT_DEFAULT, name)))
    {
        let word = if by_default { "default" } else { "no" };
        return Some((1, format!("HAProxy has no `{word}` for this option")));
    }
    let with_words = is_one_of(OPTIONS_WITH_WORDS, name);
    (statement.words.len() > 2 && !with_words).then(|| too_many(statement, 2))
}

fn too_many(statement: &Statement, word: usize) -> (usize, String) {
    (
        word,
        format!("`{}` is not expected here", statement.word(word)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::lexer::Word;
    use crate::convert::report::At;

    fn said(place: Place, text: &str) -> Option<usize> {
        let (modifier, text) = match text.split_once(' ') {
            Some(("no", rest)) => (Modifier::No, rest),
            Some(("default", rest)) => (Modifier::Default, rest),
            _ => (Modifier::None, text),
        };
        let words = text.split(' ').map(|word| Word::plain(word, 1)).collect();
        let at = At {
            file: 0,
            line: 1,
            column: 1,
        };
        let statement = Statement {
            at,
            modifier,
            words,
        };
        refused(place, &statement).map(|(word, _)| word)
    }

    #[test]
    fn words_that_are_too_many_or_too_few_are_found() {
        for (text, word) in [
            ("maxconn 5", None),
            ("maxconn", Some(0)),
            ("maxconn 5 6", Some(2)),
            ("timeout client 5s", None),
            ("timeout client", Some(1)),
            ("log global", None),
            ("log global local0", Some(2)),
            ("log 127.0.0.1 local0 info", None),
            ("no log", None),
            ("option", Some(0)),
            ("option tcpka x", Some(2)),
            ("option httpchk GET /", None),
            ("no option tcpka", Some(1)),
            ("no option dontlognull", None),
            ("default option httpclose", Some(1)),
            ("no option httpclose", None),
            ("http-reuse safe", None),
            ("http-reuse foo", Some(1)),
            ("compression offload", None),
            ("no option forwarded", None),
            ("anything at all", None),
        ] {
            assert_eq!(said(Place::Proxy, text), word, "{text}");
        }
        for (text, word) in [
            ("daemon", None),
            ("daemon x", Some(1)),
            ("setenv A", Some(1)),
            ("setenv A b", None),
            ("chroot", Some(0)),
            ("redirect foo", None),
        ] {
            assert_eq!(said(Place::Global, text), word, "{text}");
        }
    }

    /// Two rows for one word would hide each other.
    #[test]
    fn each_word_stands_in_one_row() {
        for rows in [&GLOBAL[..], &PROXY[..]] {
            let words = rows
                .iter()
                .flat_map(|(_, _, words)| words.split_whitespace());
            let mut words: Vec<&str> = words.collect();
            let count = words.len();
            words.sort_unstable();
            words.dedup();
            assert_eq!(words.len(), count);
        }
    }
}
