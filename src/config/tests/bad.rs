//! Bad files: every problem of each, with line, column and text.

use super::{diagnostics, limits, load, load_with};
use crate::config::{Limits, Loader, Severity};

/// A valid configuration around the text of a case.
const TAIL: &str = "
[[frontend]]
name = 'f'
bind = '*:80'
default-backend = 'b'
[[backend]]
name = 'b'
servers = [{ name = 's', address = '10.0.0.1:80' }]
";

const DOCS: &str = include_str!("../../../docs/configuration.md");

/// One problem: line, column, part of the message or hint.
type Expected = (usize, usize, &'static str);

/// `text` must have exactly these problems, in this order.
#[track_caller]
fn check(text: &str, expected: &[Expected]) {
    let found = diagnostics(load(text));
    let shown: Vec<String> = found.iter().map(|d| d.render(false)).collect();
    let shown = shown.join("\n\n");
    assert_eq!(
        found.len(),
        expected.len(),
        "number of problems in\n{text}\n{shown}"
    );
    for (diagnostic, (line, column, part)) in found.iter().zip(expected) {
        let start = diagnostic.place.as_ref().expect("a place").start();
        assert_eq!(
            (start.line, start.column),
            (*line, *column),
            "place of `{part}` in\n{shown}"
        );
        let code = format!("`{}`", diagnostic.code);
        assert!(
            DOCS.contains(&code),
            "{code} is not in docs/configuration.md"
        );
        assert!(
            diagnostic.render(false).contains(part),
            "`{part}` in\n{shown}"
        );
    }
}

/// The same, for text before the frame.
#[track_caller]
fn before(text: &str, expected: &[Expected]) {
    check(&format!("{text}{TAIL}"), expected);
}

/// In rustc's format.
#[test]
fn a_problem_as_people_see_it() {
    let found = diagnostics(load("[defaults]\ntimeout = { conect = '1s' } # é\n"));
    let expected = "\
error[unknown-key]: unknown key `conect`
 --> test.toml:2:13
  |
2 | timeout = { conect = '1s' } # é
  |             ^^^^^^ not a key of this table
  |
help: did you mean `connect`?";
    assert_eq!(found[0].render(false), expected);
    assert_eq!(
        found[0].line(),
        "test.toml:2:13: error: unknown key `conect`"
    );
}

/// The documented object, always with every key.
#[test]
fn a_problem_as_scripts_see_it() {
    let found = diagnostics(load("[[listen]]\nbind = '*:é'\n"));
    let expected = serde_json::json!({
        "severity": "error",
        "code": "address",
        "message": "`é` is not a port",
        "label": "expected \"ADDRESS:PORT\"",
        "hint": "a port is a number",
        "path": "listen[0].bind",
        "file": "test.toml",
        "line": 2,
        "column": 8,
        "end": { "line": 2, "column": 13 },
        "related": null,
    });
    let json: Vec<_> = found
        .iter()
        .map(crate::config::Diagnostic::to_json)
        .collect();
    assert!(json.contains(&expected), "{json:#?}");
}

#[test]
fn frame_is_valid() {
    check(TAIL, &[]);
}

#[test]
fn syntax() {
    before(
        "[global]\nmaxconn =\nthreads = 2x",
        &[(2, 10, "the value is missing"), (3, 11, "not a value")],
    );
    before(
        "[global]\nnode = 'a'\nnode = 'b'",
        &[(3, 1, "duplicate key")],
    );
    // A section with an unclosed bracket is skipped, the rest is still checked.
    before(
        "[global\nthreads = 1\n[defaults]\nretires = 3",
        &[(1, 8, "unclosed table"), (4, 1, "did you mean `retries`?")],
    );
    before(
        "[stats]\nbind = ['*:81'\n[defaults]\nretires = 3",
        &[(3, 1, "missing comma"), (4, 1, "did you mean `retries`?")],
    );
    check(
        "[[frontend]]\nname = 'a'\nbind = ['*:80'",
        &[(3, 15, "unclosed array")],
    );
}

#[test]
fn unknown_keys() {
    before(
        "[global]\nmaxcon = 1\nnbthread = 2\ncolour = 'red'",
        &[
            (2, 1, "did you mean `maxconn`?"),
            (3, 1, "it is `threads`"),
            (4, 1, "known here: `allow-no-listener`"),
        ],
    );
    before(
        "[defaults]\ntimeout-client = '1s'\ntimeout = { conect = '1s' }",
        &[
            (2, 1, "timeout = { client = \"60s\" }"),
            (3, 13, "did you mean `connect`?"),
        ],
    );
    before("[globl]\nthreads = 1", &[(1, 2, "did you mean `global`?")]);
    before(
        "[defaults]\nservers = []",
        &[(2, 1, "`servers` is a key of [[backend]]")],
    );
    // Keys of the table around.
    before(
        "[stats]\nbind = '127.0.0.1:81'\n[[stats.page]]\nbind = '127.0.0.1:82'\nmaxconn = 3\nname = 'x'\nurii = '/'\n\
         [runtime-api]\nsocket = '/run/x'\nsockets = [{ socket = '/run/y', timeout = '5s' }]",
        &[
            (5, 1, "`maxconn` is a key of [stats]"),
            (6, 1, "`name` is a key of [stats]"),
            (7, 1, "did you mean `uri`?"),
            (10, 33, "`timeout` is a key of [runtime-api]"),
        ],
    );
    // Fault 30: HAProxy's name for a key of another table, in a table with a key of that name.
    check(
        "[[listen]]\nname = 'l'\nbind = '*:80'\n\
         default-server = { addr = '10.0.0.2' }\nservers = [{ name = 's', addr = '10.0.0.1:80' }]",
        &[
            (4, 20, "in a `check` table it is `address`"),
            (5, 26, "it is `address` here"),
        ],
    );
    check(
        "[[listen]]\nname = 'l'\nbind = { address = '*:80', adress = 'x' }\nmode = 'tcp'\n\
         check = { inter = '2s' }\nserver = [{ name = 's', address = '10.0.0.1:80', wieght = 3 }]",
        &[
            (3, 28, "did you mean `address`?"),
            (4, 1, "leave it out"),
            (5, 11, "it is `interval`"),
            (6, 1, "it is `servers`"),
            (6, 50, "did you mean `weight`?"),
        ],
    );
}

#[test]
fn a_misspelt_key_is_not_also_missing() {
    check(
        "[[frontend]]\nname = 'f'\nbnd = '*:80'\ndefault_backend = 'b'\n\
         [[backend]]\nnam = 'b'\nservers = [{ nme = 's', addres = '10.0.0.1:80' }]",
        &[
            (3, 1, "did you mean `bind`?"),
            (4, 1, "did you mean `default-backend`?"),
            (6, 1, "did you mean `name`?"),
            (7, 14, "did you mean `name`?"),
            (7, 25, "did you mean `address`?"),
        ],
    );
}

/// The values under a misspelt key are checked, too.
#[test]
fn a_misspelt_key_hides_nothing() {
    check(
        "[[fronted]]\nname = 'f'\nbnd = '*:70000'\ndefault_backend = 'c'\nmaxcon = -1\n\
         [[backend]]\nname = 'b'\nchek = { inteval = '1' }\nservers = []",
        &[
            (1, 3, "did you mean `frontend`?"),
            (3, 1, "did you mean `bind`?"),
            (3, 7, "port 70000 is out of range"),
            (4, 1, "did you mean `default-backend`?"),
            (4, 19, "there is no backend `c`"),
            (5, 1, "did you mean `maxconn`?"),
            (5, 10, "maxconn -1 is out of range"),
            (6, 1, "backend `b` has no server"),
            (8, 1, "did you mean `check`?"),
            (8, 10, "did you mean `interval`?"),
            (8, 20, "write \"1s\" for seconds"),
        ],
    );
}

/// A backend that stands in has servers of its own at the end, and is used as one that a frontend names.
#[test]
fn backends_stand_in_for_each_other() {
    let frontend = "[[frontend]]\nname = 'f'\nbind = '*:80'\ndefault-backend = 'a'\n";
    let backend = |name: &str, sorry: &str| {
        format!(
            "[[backend]]\nname = '{name}'\nservers = [{{ name = 's', address = '10.0.0.1:80' }}]\n\
             sorry-backend = '{sorry}'\n"
        )
    };
    let last = "[[backend]]\nname = 'd'\nservers = [{ name = 's', address = '10.0.0.1:80' }]\n";
    let chain = [backend("a", "b"), backend("b", "d")].concat();
    check(&[frontend, &chain, last].concat(), &[]);
    let wrong = [
        backend("a", "b"),
        backend("b", "a"),
        backend("c", "c"),
        backend("e", "dd"),
    ];
    check(
        &[frontend, &wrong.concat(), last].concat(),
        &[
            (
                12,
                17,
                "the `sorry-backend` of backend `b` leads back to it",
            ),
            (14, 8, "nothing leads to backend `c`"),
            (
                16,
                17,
                "the `sorry-backend` of backend `c` leads back to it",
            ),
            (18, 8, "nothing leads to backend `e`"),
            (20, 17, "did you mean `d`?"),
            (22, 8, "nothing leads to backend `d`"),
        ],
    );
}

#[test]
fn wrong_types() {
    before(
        "[global]\nthreads = '2'\nhard-stop-after = 30\nnode = 5",
        &[
            (2, 11, "write 2, without quotes"),
            (3, 19, "write \"30s\" for seconds or \"30ms\""),
            (4, 8, "expected a string in quotes"),
        ],
    );
    before("[[global]]\nthreads = 1", &[(1, 1, "write [global]")]);
    check("[frontend]\nname = 'f'", &[(1, 1, "write [[frontend]]")]);
    before(
        "[defaults]\ncheck = 3\nkeepalive = '10s'\ndontlognull = 'yes'",
        &[
            (2, 9, "a boolean, a type as \"tcp\", or a table"),
            (3, 13, "a boolean or a table"),
            (4, 15, "expected a boolean"),
        ],
    );
    check(
        "[log]\ntarget = '/dev/log'\n[[listen]]\nname = 'l'\nbind = '*:81'\n\
         servers = ['10.0.0.1:80']\n[[listen]]\nname = 'm'\nbind = '*:82'\n\
         servers = '10.0.0.1:80'\n[[listen]]\nname = 'n'\nbind = '*:83'\n\
         servers = [{ name = 's', address = '10.0.0.1:80', check = ['x'] }]",
        &[
            (2, 10, "write [[log.target]] and `to = \"unix:/dev/log\"`"),
            (6, 12, "write { name = \"s1\", address = '10.0.0.1:80' }"),
            (
                10,
                11,
                "write servers = [{ name = \"s1\", address = '10.0.0.1:80' }]",
            ),
            (14, 59, "a boolean, a type as \"tcp\", or a table"),
        ],
    );
    before("[stats]\nbind = 80", &[(2, 8, "an address as \"*:80\"")]);
    before(
        "[defaults]\ncheck = 'tpc'",
        &[(2, 9, "a boolean, a type as \"tcp\"")],
    );
}

#[test]
fn words() {
    before(
        "[defaults]\nbalance = 'roundrobbin'\n[log]\n[[log.target]]\nto = 'stdout'\n\
            level = 'warn'\nfacility = 'local8'\nformat = 'rfc3614'",
        &[
            (2, 11, "did you mean `roundrobin`?"),
            (6, 9, "did you mean `warning`?"),
            (7, 12, "unknown value `local8`"),
            (8, 10, "did you mean `rfc3164`?"),
        ],
    );
    before(
        "[defaults]\nbalance = 'uri'",
        &[(2, 11, "this version of rlb has `roundrobin`")],
    );
    before(
        "[defaults]\ndefault-server = { observe = 'layer7' }",
        &[(2, 30, "`layer4` is what it can observe")],
    );
    before(
        "[defaults]\ndefault-server = { on-marked-down = 'shutdown' }",
        &[(2, 37, "did you mean `shutdown-sessions`?")],
    );
}

#[test]
fn durations() {
    before(
        "[defaults]\ntimeout = { client = '60', server = '1 parsec', connect = '0s' }",
        &[
            (2, 22, "write \"60s\" for seconds"),
            (2, 37, "is not a duration"),
            (2, 59, "cannot be zero"),
        ],
    );
    before(
        "[global]\nhard-stop-after = '40 days'",
        &[(2, 19, "24 days")],
    );
    before(
        "[defaults]\nkeepalive = { idle = '500ms', interval = '10h', probes = 200 }",
        &[
            (2, 22, "expected whole seconds"),
            (2, 42, "32767 at most"),
            (2, 58, "expected 1 to 127"),
        ],
    );
}

#[test]
fn numbers() {
    before(
        "[global]\nthreads = 0\nmaxconn = 0\n[defaults]\nretries = -1\nmaxconn = 99999999999",
        &[
            (2, 11, "expected 1 to 1024"),
            (3, 11, "leave it out"),
            (5, 11, "retries -1 is out of range"),
            (6, 11, "out of range"),
        ],
    );
    check(
        "[[listen]]\nname = 'l'\nid = 0\nbind = '*:80'\nbacklog = 0\n\
         check = { rise = 0, fall = 0, port = 65536 }\n\
         servers = [{ name = 's', id = 0, address = '10.0.0.1:80', weight = 257 }]",
        &[
            (3, 6, "id 0 is out of range"),
            (5, 11, "backlog 0"),
            (6, 18, "rise 0"),
            (6, 28, "fall 0"),
            (6, 38, "port 65536"),
            (7, 31, "id 0"),
            (7, 68, "expected 0 to 256"),
        ],
    );
}

#[test]
fn addresses() {
    check(
        "[[listen]]\nname = 'l'\nbind = ['*:70000', '80', 'localhost:80', '::1:80', '*:90-80', \
         '/run/x', 'unix:x', '*:x']\n\
         servers = [\n { name = 'a', address = '10.0.0.300:80' },\n\
         { name = 'b', address = '*:80' },\n{ name = 'c', address = '0.0.0.0:80' },\n\
         { name = 'd', address = 'a b:80' },\n{ name = 'e', address = '::1' },\n\
         { name = 'f', address = 'http://x/' },\n{ name = 'g', address = 'x:0' },\n\
         { name = 'h', address = 'x:99999' },\n]",
        &[
            (3, 9, "port 70000 is out of range"),
            (3, 20, "write \"*:80\""),
            (3, 26, "write \"127.0.0.1:80\""),
            (3, 42, "without brackets"),
            (3, 52, "write 80-90"),
            (3, 63, "write \"unix:/run/x\""),
            (3, 73, "is not an absolute path"),
            (3, 83, "is not a port"),
            (5, 26, "is neither an IPv4 address nor a host name"),
            (6, 25, "`*` is not a server's address"),
            (7, 25, "is not a server's address"),
            (8, 25, "is neither an address nor a host name"),
            (9, 25, "write \"[::1]\""),
            (10, 25, "without scheme and path"),
            (11, 25, "port 0"),
            (12, 25, "ports end at 65535"),
        ],
    );
}

#[test]
fn log_targets() {
    before(
        "[log]\n[[log.target]]\nto = 'syslog'\n[[log.target]]\nto = '/dev/log'\n\
            [[log.target]]\nformat = 'raw'\n[[log.target]]\nto = 'udp:localhost:514'\n\
            [[log.target]]\nto = 'file:rlb.log'",
        &[
            (3, 6, "is not a log target"),
            (5, 6, "write \"unix:/dev/log\" for a socket"),
            (6, 1, "the log target has no `to`"),
            (9, 6, "is not an IP address and port"),
            (11, 6, "is not an absolute path"),
        ],
    );
    before("[log]\ntag = 'x'", &[(1, 1, "[log] has no target")]);
}

#[test]
fn what_is_missing() {
    check(
        "[[frontend]]\n[[backend]]\n[[listen]]\n[stats]",
        &[
            (1, 1, "this frontend has no `name`"),
            (1, 1, "this frontend has no `default-backend`"),
            (1, 1, "this frontend has no `bind`"),
            (2, 1, "this backend has no `name`"),
            (2, 1, "this backend has no server"),
            (3, 1, "this listen has no `name`"),
            (3, 1, "this listen has no server"),
            (3, 1, "this listen has no `bind`"),
            (4, 1, "[stats] has no `bind`"),
        ],
    );
    check(
        "[[listen]]\nname = 'l'\nbind = [{ name = 'x' }]\nservers = [{ weight = 1 }]",
        &[
            (3, 9, "the bind has no `address`"),
            (4, 12, "the server has no `name`"),
            (4, 12, "the server has no `address`"),
        ],
    );
}

#[test]
fn names_and_ids() {
    check(
        "[stats]\nbind = '127.0.0.1:1'\n\
         [[frontend]]\nname = 'a b'\nid = 5\nbind = [{ address = '*:2', name = 'x', id = 3 }, \
         { address = '*:3', name = 'x', id = 3 }]\ndefault-backend = 'b'\n\
         [[backend]]\nname = 'b'\nid = 5\nservers = [{ name = 's', id = 1, address = 'a:1' }, \
         { name = 's', id = 1, address = 'b:1' }]\n\
         [[backend]]\nname = 'b'\nservers = [{ name = 's', address = 'a:1' }]\n\
         [[listen]]\nname = 'stats'\nbind = '*:4'\nservers = [{ name = 's', address = 'a:1' }]",
        &[
            (4, 8, "cannot stand in a name"),
            (6, 76, "bind name `x` is used twice"),
            (6, 86, "bind id 3 is used twice"),
            (10, 6, "id 5 is used twice"),
            (11, 62, "server `s` is already defined in backend `b`"),
            (11, 72, "server id 1 is used twice"),
            (13, 8, "backend `b` is already defined in test.toml:9"),
            (13, 8, "nothing leads to backend `b`"),
            (16, 8, "`stats` is the name of the statistics"),
        ],
    );
}

#[test]
fn ids_of_a_port_range_count_on() {
    check(
        "[[listen]]\nname = 'l'\nservers = [{ name = 's', address = 'a:1' }]\nbind = [\n\
         { address = '*:80-82', id = 2 },\n{ address = '*:90', id = 4 },\n]",
        &[(6, 26, "bind id 4 is used twice")],
    );
}

#[test]
fn references() {
    check(
        "[node-group.kube]\nn1 = '10.0.0.1:80'\nn2 = { weight = 2 }\n\
         [[frontend]]\nname = 'f'\nbind = '*:80'\ndefault-backend = 'postgress'\n\
         [[backend]]\nname = 'postgres'\nnodes = 'kub'\n\
         [[backend]]\nname = 'q'\nport = 80\nservers = [{ name = 's', address = 'a:1' }]\n\
         [[backend]]\nname = 'r'\nnodes = 'kube'\nport = 80",
        &[
            (2, 6, "has a port"),
            (3, 6, "the node has no `host`"),
            (7, 19, "did you mean `postgres`?"),
            (10, 9, "has `nodes` but no `port`"),
            (10, 9, "did you mean `kube`?"),
            (13, 8, "`port` has no meaning without `nodes`"),
        ],
    );
}

#[test]
fn timeouts() {
    before(
        "[defaults]\ntimeout = { connect = '100ms', connect-attempt = '200ms', client = '5s', \
         client-fin = '10s', server = '5s', server-fin = '10s' }",
        &[
            (2, 50, "longer than timeout connect of 100ms"),
            (2, 87, "timeout client of 5s"),
            (2, 122, "timeout server of 5s"),
        ],
    );
    before(
        "[defaults]\ntimeout = { client = '0s', server = '0s' }",
        &[
            (2, 22, "timeout client is switched off"),
            (2, 37, "timeout server is switched off"),
        ],
    );
    before(
        "[defaults]\ntimeout = { client = '60s' }",
        &[(2, 22, "differ much: client 1m, server 1h")],
    );
    before(
        "[defaults]\ntimeout = { client = '60s', server = '10m' }",
        &[],
    );
    before(
        "[defaults]\ncheck = { interval = '1s', timeout = '2s', fast-interval = '3s' }",
        &[
            (2, 38, "is longer than the interval"),
            (2, 60, "fast-interval of 3s is longer"),
        ],
    );
}

#[test]
fn ports_that_servers_need() {
    check(
        "[[listen]]\nname = 'l'\nbind = 'unix:/run/l'\ncheck = true\nservers = [\n\
         { name = 'a', address = '10.0.0.1' },\n\
         { name = 'b', address = '10.0.0.1', check = { port = 80 } },\n\
         { name = 'c', address = 'host:+10', check = false },\n\
         { name = 'd', address = 'unix:/run/d', check = { port = 80 } },\n\
         { name = 'e', address = '10.0.0.1', check = { type = 'tcp', steps = [{ connect = true, port = 80 }] } },\n\
         { name = 'f', address = '10.0.0.1', check = { type = 'tcp', steps = [{ connect = true, port = 80 }, { connect = true }] } },\n\
         ]",
        &[
            (1, 1, "listens on a unix socket"),
            (6, 25, "server `a` is checked but has no port"),
            (9, 25, "only half of a TCP address"),
            (11, 25, "server `f` is checked but has no port"),
        ],
    );
}

#[test]
fn keys_without_a_meaning() {
    check(
        "[stats]\nbind = 'unix:/run/s'\n\
         [[listen]]\nname = 'l'\nbind = [\n\
         { address = '*:80', mode = '0600', v6only = true },\n\
         { address = 'unix:/run/l', v6only = true, interface = 'lo', freebind = true },\n\
         { address = 'unix:@l', mode = '600' },\n\
         { address = 'unix:/run/m', mode = '888' },\n\
         { address = '*:81', interface = 'a name that is too long' },\n]\n\
         servers = [{ name = 's', address = 'a:1' }]",
        &[
            (2, 8, "[stats] listens on TCP only"),
            (6, 28, "`mode` has no meaning for a TCP address"),
            (6, 45, "`v6only` has no meaning for an IPv4 address"),
            (7, 37, "`v6only` has no meaning for a unix socket"),
            (7, 55, "`interface` has no meaning"),
            (7, 72, "`freebind` has no meaning"),
            (8, 31, "an abstract socket"),
            (9, 35, "is not a file mode"),
            (10, 33, "is not the name of a network device"),
        ],
    );
}

#[test]
fn options_of_sockets() {
    check(
        "[[listen]]\nname = 'l'\nbind = [\n\
         { address = 'unix:/run/l', transparent = true, namespace = 'a', mptcp = true, cc = 'bbr' },\n\
         { address = 'unix:/run/m', defer-accept = true, tfo = true, mss = 1400, tcp-ut = '3s' },\n\
         { address = '*:81', mss = 87 },\n\
         { address = '*:82', mss = 32768 },\n\
         { address = '*:83', cc = 'a name that is too long' },\n\
         { address = '*:84', namespace = '../etc' },\n\
         { address = '*:85', tcp-ut = '0s' },\n\
         ]\n\
         servers = [\n\
         { name = 's1', address = 'unix:/run/s', cc = 'bbr', namespace = 'a', mptcp = true },\n\
         { name = 's2', address = 'a:1', cc = ' ', tcp-ut = '25d' },\n\
         ]\n\
         default-server = { tcp-ut = '3s' }",
        &[
            (4, 42, "`transparent` has no meaning for a unix socket"),
            (4, 60, "`namespace` has no meaning for a unix socket"),
            (4, 73, "`mptcp` has no meaning for a unix socket"),
            (4, 84, "`cc` has no meaning for a unix socket"),
            (5, 43, "`defer-accept` has no meaning for a unix socket"),
            (5, 55, "`tfo` has no meaning for a unix socket"),
            (5, 67, "`mss` has no meaning for a unix socket"),
            (5, 82, "`tcp-ut` has no meaning for a unix socket"),
            (6, 27, "mss 87 is out of range"),
            (7, 27, "mss 32768 is out of range"),
            (8, 26, "is not the name of an algorithm"),
            (9, 33, "is not the name of a network namespace"),
            (10, 30, "tcp-ut cannot be zero"),
            (13, 46, "`cc` has no meaning for a unix socket"),
            (13, 65, "`namespace` has no meaning for a unix socket"),
            (13, 78, "`mptcp` has no meaning for a unix socket"),
            (14, 38, "is not the name of an algorithm"),
            (14, 52, "is too long"),
        ],
    );
}

/// Binds of two frontends, and whether they collide.
#[test]
fn collisions() {
    let v6 = "{ address = '[::]:80', v6only = true }";
    let lo = "{ address = '*:80', interface = 'lo' }";
    let eth = "{ address = '*:80', interface = 'eth0' }";
    let wide = "{ address = '*:80', overlap = true }";
    let narrow = "{ address = '127.0.0.1:80', overlap = true }";
    for (one, other, collide) in [
        (wide, "'127.0.0.1:80'", false),
        ("'127.0.0.1:80'", wide, false),
        ("'*:80'", narrow, false),
        (wide, "'*:80'", true),
        (wide, wide, true),
        (narrow, "'127.0.0.1:80'", true),
        (narrow, "'[::ffff:127.0.0.1]:80'", true),
        (wide, "'[::]:80'", false),
        (wide, lo, false),
        (
            lo,
            "{ address = '*:80', interface = 'lo', overlap = true }",
            true,
        ),
        (
            "'*:70-90'",
            "{ address = '127.0.0.1:85-95', overlap = true }",
            false,
        ),
        ("'*:80'", "'*:80'", true),
        ("'*:80'", "'*:81'", false),
        ("'*:80'", "'127.0.0.1:80'", true),
        ("'127.0.0.1:80'", "'127.0.0.2:80'", false),
        ("'*:0'", "'*:0'", false),
        ("'*:80'", "'[::]:80'", true),
        ("'10.0.0.1:80'", "'[::]:80'", true),
        ("'*:80'", v6, false),
        ("'[::1]:80'", v6, true),
        ("'*:80'", "'[::1]:80'", false),
        ("'10.0.0.1:80'", "'[::ffff:10.0.0.1]:80'", true),
        ("'*:70-90'", "'127.0.0.1:85-95'", true),
        ("'*:70-79'", "'*:80-90'", false),
        ("'*:80'", "{ address = '*:80', namespace = 'blue' }", false),
        ("'*:80'", "{ address = '*:80', mptcp = true }", true),
        (lo, eth, false),
        (lo, "'*:80'", true),
        ("'unix:/run/x'", "'unix:/run/x'", true),
        ("'unix:/run/x'", "'unix:/run/y'", false),
    ] {
        let text = format!(
            "[[frontend]]\nname = 'f'\nbind = {one}\ndefault-backend = 'b'\n\
             [[frontend]]\nname = 'g'\nbind = {other}\ndefault-backend = 'b'\n\
             [[backend]]\nname = 'b'\nservers = [{{ name = 's', address = 'a:1' }}]"
        );
        let found = diagnostics(load(&text));
        assert_eq!(
            found.len(),
            usize::from(collide),
            "{one} and {other}: {found:?}"
        );
        if let Some(problem) = found.first() {
            assert_eq!(problem.code, "bind-collision");
            assert_eq!(problem.place.as_ref().expect("a place").start().line, 7);
        }
    }
    // A frontend that is disabled collides with nothing.
    let off = format!(
        "[[frontend]]\nname = 'g'\ndisabled = true\nbind = '*:80'\ndefault-backend = 'b'{TAIL}"
    );
    check(&off, &[]);
}

/// Two paths that lead to one file.
#[test]
fn one_file_by_two_paths_collides() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().display();
    std::os::unix::fs::symlink(".", format!("{folder}/link")).expect("a link");
    for (path, disk, errors) in [
        ("link/a.sock", true, 1),
        ("link/a.sock", false, 0),
        ("link/b.sock", true, 0),
        ("none/a.sock", true, 0),
    ] {
        let text = format!(
            "[[listen]]\nname = 'l'\nbind = 'unix:{folder}/a.sock'\nservers = []\n\
             [[listen]]\nname = 'm'\nbind = 'unix:{folder}/{path}'\nservers = []"
        );
        let loader = Loader {
            limits: limits(),
            environment: &|_| None,
            disk,
        };
        let found = diagnostics(loader.load_text("rlb.toml", &text));
        let found: Vec<_> = found
            .iter()
            .filter(|it| it.code == "bind-collision")
            .collect();
        assert_eq!(found.len(), errors, "{path}: {found:?}");
        let hint = found.first().and_then(|it| it.hint.as_deref());
        assert!(hint.is_none_or(|it| it.contains("leads to the same file")));
    }
}

/// A socket for commands beside a bind of a frontend, of the statistics, and another socket for commands.
#[test]
fn sockets_for_commands_collide_with_every_other_listener() {
    for (socket, other, collide) in [
        ("127.0.0.1:90", "127.0.0.1:90", true),
        ("127.0.0.1:90", "*:90", true),
        ("*:90", "127.0.0.1:90", true),
        ("*:90", "[::]:90", true),
        ("[::ffff:127.0.0.1]:90", "127.0.0.1:90", true),
        ("127.0.0.1:90", "127.0.0.2:90", false),
        ("127.0.0.1:90", "127.0.0.1:91", false),
        ("/run/x", "unix:/run/x", true),
        ("/run/x", "unix:/run/y", false),
        ("@x", "unix:@x", true),
        ("abns@x", "abns@x", true),
        ("@x", "unix:/run/x", false),
        ("fd@3", "fd@3", true),
        ("fd@3", "fd@4", false),
    ] {
        let command = other.strip_prefix("unix:").unwrap_or(other);
        let frontend = format!("[[listen]]\nname = 'l'\nbind = '{other}'\nservers = []\n");
        let page = format!("[stats]\nbind = '{other}'\n");
        let is_tcp = other.contains(':') && !other.starts_with("unix");
        let pages = is_tcp.then_some((page, 4));
        let second = format!("sockets = ['{command}']\n");
        let overlapping = format!(
            "[[listen]]\nname = 'l'\nbind = {{ address = '{other}', overlap = true }}\nservers = []\n"
        );
        let overlapping = is_tcp.then_some((overlapping, 5));
        let pages = pages.into_iter().chain(overlapping);
        for (more, line) in [(frontend, 5), (second, 3)].into_iter().chain(pages) {
            let text = format!("[runtime-api]\nsocket = '{socket}'\n{more}{TAIL}");
            let found = diagnostics(load(&text));
            let found = found.iter().filter(|it| it.severity == Severity::Error);
            let found: Vec<_> = found.collect();
            assert_eq!(found.len(), usize::from(collide), "{text}: {found:?}");
            if let Some(problem) = found.first() {
                let codes = ["bind-collision", "duplicate-address"];
                assert!(codes.contains(&problem.code), "{text}: {problem:?}");
                assert_eq!(problem.place.as_ref().expect("a place").start().line, line);
            }
        }
    }
}

/// Words of HAProxy's that are keys of rlb's elsewhere.
#[test]
fn the_hint_of_a_key_in_the_wrong_table_names_the_right_one() {
    let text = format!(
        "[[listen]]\nname = 'l'\nbind = '*:81'\nlevel = 'admin'\n\
         servers = [{{ name = 'a', address = 'a:80', level = 'admin', accept-proxy = true }}]{TAIL}"
    );
    let found = diagnostics(load(&text));
    let hints: Vec<&str> = found.iter().filter_map(|it| it.hint.as_deref()).collect();
    let level = "`level` is a key of [[log.target]], [runtime-api], a socket table";
    assert_eq!(hints[..2], [level; 2], "{hints:?}");
    assert!(
        hints[2].starts_with("`accept-proxy` is a key of a bind table"),
        "{hints:?}"
    );
}

/// HAProxy says nothing, and it has no effect.
#[test]
fn observe_without_a_check() {
    let servers = |observe: &str, check: bool| {
        format!(
            "[[listen]]\nname = 'l'\nbind = '*:81'\ndefault-server = {{ observe = 'layer4' }}\n\
             servers = [\n{{ name = 'a', address = 'a:80', check = false }},\n\
             {{ name = 'b', address = 'b:80', check = {check}{observe} }},\n\
             {{ name = 'c', address = 'c:80', check = false }},\n]{TAIL}"
        )
    };
    check(
        &servers(", observe = 'layer4'", false),
        &[
            (4, 30, "no server of listen `l` is checked"),
            (7, 58, "server `b` is not checked"),
        ],
    );
    check(&servers(", observe = 'layer4'", true), &[]);
    check(&servers("", true), &[]);
}

#[test]
fn servers_that_are_held_down() {
    let servers = |keys: &str, own: &str| {
        format!(
            "[[listen]]\nname = 'l'\nbind = '*:81'\ndefault-server = {{ {keys} }}\n\
             servers = [{{ name = 'a', address = 'a:80'{own} }}]{TAIL}"
        )
    };
    let checked = ", check = true";
    check(
        &servers("hold-down = '10s', hold-down-max = '9s'", checked),
        &[(4, 32, "hold-down of 10s is longer than hold-down-max of 9s")],
    );
    check(
        &servers("hold-down = '10m'", checked),
        &[(
            4,
            32,
            "hold-down of 10m is longer than hold-down-max of 5m (the default)",
        )],
    );
    check(
        &servers("hold-down = '10s'", ""),
        &[(4, 32, "no server of listen `l` is checked")],
    );
    check(
        &servers("hold-down = '10s'", ", check = true, hold-down-max = '1m'"),
        &[],
    );
    check(
        &servers("hold-down-max = '1s'", ", check = true, hold-down = '0s'"),
        &[],
    );
    check(
        &servers("flap-window = '0s'", checked),
        &[(4, 34, "flap-window cannot be zero")],
    );
}

#[test]
fn limits_of_the_machine() {
    let small = Limits {
        nofile: Some(1000),
        somaxconn: Some(128),
        cores: 2,
        net_admin: true,
    };
    let text = format!(
        "[global]\nmaxconn = 500\nthreads = 2\n[[frontend]]\nname = 'g'\nmaxconn = 300\n\
         bind = [{{ address = '*:81' }}]\ndefault-backend = 'b'\n[[frontend]]\nname = 'h'\n\
         backlog = 200\nbind = '*:82'\ndefault-backend = 'b'{TAIL}"
    );
    let found = diagnostics(load_with(&text, small));
    let lines: Vec<(usize, Severity)> = found
        .iter()
        .map(|d| (d.place.as_ref().expect("a place").start().line, d.severity))
        .collect();
    let warning = Severity::Warning;
    assert_eq!(
        lines,
        [(2, warning), (2, warning), (6, warning), (11, warning)],
        "{found:#?}"
    );
    assert!(
        found
            .iter()
            .any(|d| d.message.contains("needs 1250 file descriptors")),
        "{found:?}"
    );
    assert!(diagnostics(load_with(&text, limits())).is_empty());
}

#[test]
fn references_to_the_environment() {
    before(
        "[global]\nnode = '${UNSET}'\ndescription = 'x ${file:/etc/passwd} ${open'",
        &[
            (2, 9, "environment variable `UNSET` is not set"),
            (3, 18, "files are not read here"),
            (3, 38, "without a closing `}`"),
        ],
    );
    before(
        "[global]\nnode = '${1X}'",
        &[(2, 9, "is not a variable's name")],
    );
}

/// Wherever a secret is, no diagnostic quotes it.
#[test]
fn secrets_stay_secret() {
    for key in [
        "[global]\nthreads = 'X'",
        "[global]\nnode = 'X/'",
        "[global]\nhard-stop-after = 'X'",
        "[log]\n[[log.target]]\nto = 'X'",
        "[log]\n[[log.target]]\nto = 'udp:X'",
        "[log]\n[[log.target]]\nto = 'stdout'\nlevel = 'X'",
        "[stats]\nbind = 'X'",
        "[stats]\nbind = { address = '*:81', mode = 'X', interface = 'X y' }",
        "[defaults]\ncheck = 'X'",
        "[defaults]\ncheck = { address = 'X' }",
        "[defaults]\nbalance = 'X'",
        "include = 'X'",
        "[[frontend]]\nname = 'X'\nbind = '*:82'\ndefault-backend = 'X'",
        "[[backend]]\nname = 'c'\nnodes = 'X'\nservers = [{ name = 'X/', address = 'X' }]",
    ] {
        let text = format!("{}{TAIL}", key.replace('X', "${SECRET}"));
        let found = diagnostics(load(&text));
        assert!(!found.is_empty(), "{text}");
        for diagnostic in found {
            let shown = format!("{}{}", diagnostic.render(false), diagnostic.to_json());
            for part in ["hunter2", "swordfish"] {
                assert!(!shown.contains(part), "{text}\n{shown}");
            }
        }
    }
}

/// Each says which tables have the key, or what is to be written.
#[test]
fn keys_of_other_tables() {
    let homes = "[defaults], [[frontend]], [[backend]] and [[listen]]";
    before("[timeouts]\nclient = '1s'", &[(1, 2, homes)]);
    before(
        "[timeout]\nclient = '1s'",
        &[(1, 2, "[[frontend]], [[backend]], [[listen]], [defaults]")],
    );
    before(
        "[defaults]\ndefault-server = { send-proxy-v2 = true }",
        &[(2, 20, "it is `send-proxy = \"v2\"`")],
    );
}

/// What is set in [defaults] is for those backends that have the algorithm.
#[test]
fn keys_without_an_effect() {
    check(
        "[defaults]\nhash-type = 'consistent'\nrandom-draws = 3\n[[listen]]\nname = 'l'\n\
         bind = '*:81'\nhash-type = 'consistent'\nhash-on = 'dst'\nhash-balance-factor = 150\n\
         random-draws = 3\nhash-preserve-affinity = 'maxconn'\nmaglev-table-size = 257\nservers = [\n\
         { name = 'a', address = '10.0.0.1:80', maxqueue = 3 },\n\
         { name = 'b', address = '10.0.0.1:81', maxqueue = 3, maxconn = 1 },\n]",
        &[
            (7, 13, "`hash-type` has no effect"),
            (8, 11, "`hash-on` has no effect"),
            (9, 23, "`hash-balance-factor` has no effect with `balance"),
            (
                10,
                16,
                "`random-draws` has no effect with `balance = \"roundrobin\"`",
            ),
            (11, 26, "`hash-preserve-affinity` has no effect with"),
            (12, 21, "`maglev-table-size` has no effect with `balance"),
            (14, 51, "`maxqueue` has no effect without `maxconn`"),
        ],
    );
    check(
        "[[listen]]\nname = 'l'\nbind = '*:81'\nbalance = 'source'\n\
         hash-type = 'map-based djb2'\nhash-balance-factor = 150\nhash-on = 'dst'\n\
         servers = [{ name = 'a', address = '10.0.0.1:80' }]",
        &[
            (6, 23, "with `hash-type = \"map-based djb2\"`"),
            (7, 11, "`hash-on` has no effect with `balance = \"source\"`"),
        ],
    );
    check(
        "[[listen]]\nname = 'l'\nbind = '*:81'\nbalance = 'maglev'\nhash-type = 'consistent'\n\
         hash-preserve-affinity = 'maxconn'\nhash-on = 'dst'\nhash-balance-factor = 150\n\
         maglev-table-size = 257\nservers = [{ name = 'a', address = '10.0.0.1:80' }]",
        &[(
            5,
            13,
            "`hash-type` has no effect with `balance = \"maglev\"`",
        )],
    );
    before(
        "[defaults]\nmaglev-table-size = 65536",
        &[(2, 21, "maglev-table-size 65536 is no prime number")],
    );
    check(
        "[[listen]]\nname = 'l'\nbind = '*:81'\nbalance = 'random'\nrandom-draws = 3\n\
         servers = [{ name = 'a', address = '10.0.0.1:80', weight = 0 }]\n\
         default-server = { maxqueue = 3 }",
        &[(1, 1, "every server of listen `l` has weight 0")],
    );
    check(
        "[[listen]]\nname = 'l'\nbind = '*:81'\nsorry-backend = 's'\n\
         servers = [{ name = 'a', address = '10.0.0.1:80', weight = 0 }]\n\
         [[backend]]\nname = 's'\nservers = [{ name = 'a', address = '10.0.0.1:80' }]",
        &[],
    );
}

/// Sessions that end would come back to where they were. In [defaults] it is for those backends that have shares.
#[test]
fn rebalance_where_there_are_no_shares() {
    let listen = |keys: &str| {
        let servers = "servers = [{ name = 'a', address = '10.0.0.1:80' }]";
        format!("[[listen]]\nname = 'l'\nbind = '*:81'\n{keys}\n{servers}")
    };
    for (balance, why) in [
        ("source", "a client would come to the same server again"),
        ("hash", "a client would come to the same server again"),
        ("maglev", "a client would come to the same server again"),
        ("first", "it fills one server after the other"),
        ("ewma", "its shares follow the times of connects"),
    ] {
        let keys = format!("balance = '{balance}'\nrebalance = 10");
        let message = "`rebalance` has no meaning with `balance = ";
        check(&listen(&keys), &[(5, 13, message)]);
        check(&listen(&keys), &[(5, 13, why)]);
        check(
            &listen(&format!("balance = '{balance}'\nrebalance = 0")),
            &[],
        );
        let listen = listen(&format!("balance = '{balance}'"));
        let (config, warnings) = load(&format!("[defaults]\nrebalance = 10\n{listen}")).unwrap();
        assert_eq!((config.backends[0].rebalance, warnings.len()), (0, 0));
    }
    for balance in ["roundrobin", "static-rr", "random", "leastconn"] {
        check(
            &listen(&format!("balance = '{balance}'\nrebalance = 100")),
            &[],
        );
    }
    check(&listen("rebalance = 101"), &[(4, 13, "rebalance")]);
    check(&listen("rebalance = '10%'"), &[(4, 13, "a number")]);
    check(&listen("rebalance = true"), &[(4, 13, "a number")]);
}

/// Of 1,000 servers 749 got no client.
#[test]
fn tables_of_maglev_with_few_slots() {
    let listen = |size: &str, servers: usize| {
        let server = |number| format!("{{ name = 's{number}', address = '10.0.0.1:{number}' }}");
        let servers: Vec<_> = (1..=servers).map(server).collect();
        let servers = servers.join(",");
        format!(
            "[[listen]]\nname = 'l'\nbind = '*:81'\nbalance = 'maglev'\n{size}\nservers = [{servers}]"
        )
    };
    let size = "maglev-table-size = 251";
    check(&listen(size, 2), &[]);
    check(
        &listen(size, 3),
        &[(5, 21, "is too small for the 3 servers of listen `l`")],
    );
    check(&listen(size, 3), &[(5, 21, "a server has 83 slots")]);
    check(
        &listen(size, 3),
        &[(5, 21, "write `maglev-table-size = 307`")],
    );
    check(
        &listen(size, 1_000),
        &[(5, 21, "749 servers get no client")],
    );
    check(
        &listen(size, 1_000),
        &[(5, 21, "write `maglev-table-size = 100003`")],
    );
    check(&listen("", 655), &[]);
    check(
        &listen("", 656),
        &[(1, 1, "maglev-table-size 65537 is too small")],
    );
    // There is no larger one.
    let most = "maglev-table-size = 1000003";
    check(&listen(most, 10_001), &[]);
    let below = "maglev-table-size = 999983";
    check(
        &listen(below, 10_001),
        &[(5, 21, "write `maglev-table-size = 1000003`")],
    );
}

#[test]
fn tiers_that_are_none() {
    let listen = |lines: &str, servers: &str| {
        format!("[[listen]]\nname = 'l'\nbind = '*:81'\n{lines}\nservers = [{servers}]")
    };
    let one = "{ name = 'a', address = '10.0.0.1:80', priority = 1 }";
    let other = "{ name = 'b', address = '10.0.0.1:81' }";
    let backup = "{ name = 'c', address = '10.0.0.1:82', backup = true }";
    check(
        &listen("spill-below = 70", &format!("{one}, {other}, {backup}")),
        &[],
    );
    check(
        &listen("spill-below = 70", &format!("{one}, {backup}")),
        &[(4, 15, "`spill-below` has no effect")],
    );
    check(
        &listen("fail-open-below = 50", &format!("{one}, {other}")),
        &[(4, 19, "no server is checked")],
    );
    check(&listen("fail-open-below = 50\ncheck = true", one), &[]);
    check(
        &listen("min-servers = 3", &format!("{one}, {other}")),
        &[(1, 1, "listen `l` has 2 servers and `min-servers` 3")],
    );
    // What is set in [defaults] is for those that have tiers and checks.
    check(
        &format!(
            "[defaults]\nspill-below = 70\nfail-open-below = 50\n{}",
            listen("", other)
        ),
        &[],
    );
    check(
        &listen(
            "",
            "{ name = 'a', address = '10.0.0.1:80', priority = 2, backup = true }",
        ),
        &[(5, 62, "`priority` has no meaning for a backup server")],
    );
    check(
        &listen(
            "default-server = { priority = 2 }",
            &format!(
                "{{ name = 'a', address = '10.0.0.1:80', priority = 0, backup = true }}, {backup}"
            ),
        ),
        &[(4, 31, "write `priority = 0` at the server")],
    );
}

#[test]
fn server_state_files() {
    let listen =
        "[[listen]]\nname = 'l'\nbind = ':80'\nservers = [{ name = 's', address = '10.0.0.1:80'";
    check(
        &format!("[global]\nserver-state-file = 'states'\n{listen} }}]"),
        &[(2, 21, "`server-state-file` has no folder: `states`")],
    );
    let local = "load-server-state-from-file = 'local'";
    check(
        &format!("{listen} }}]\n{local}"),
        &[(1, 1, "the file of states of listen `l` has no folder: `l`")],
    );
    let base = "[global]\nserver-state-base = '/s'\nserver-state-file = 'l'\n";
    check(
        &format!("{base}{listen} }}]\n{local}"),
        &[
            (3, 21, "no backend begins with the states"),
            (
                4,
                1,
                "listen `l` has the file of states of the process: `/s/l`",
            ),
        ],
    );
    check(
        &format!("{listen} }}]\nload-server-state-from-file = 'global'"),
        &[(1, 1, "begins with the states in a file that is not named")],
    );
    check(
        &format!("{listen}, init-state = 'down' }}]"),
        &[(
            4,
            64,
            "server `s` begins as down, and no check brings it up",
        )],
    );
}

#[test]
fn tls_of_checks() {
    before(
        "[check.a]
tls = true
sni = '10.0.0.1'
verifyhost = '-'
alpn = 'h2,,h1'
ssl-min-ver = 'TLSv1.0'
ssl-max-ver = 'TLSv2'
ca-file = '@any'
verify = 'optional'
",
        &[
            (3, 7, "`10.0.0.1` is an address, and no name"),
            (4, 14, "no name of a host"),
            (5, 8, "a protocol has a name"),
            (6, 15, "rlb does not speak `TLSv1.0`"),
            (7, 15, "there is no version `TLSv2`"),
            (8, 11, "there is `@system-ca`"),
            (9, 10, "expected `required` or `none`"),
        ],
    );
    before(
        "[check.a]
tls = true
key = 'k'
[check.b]
tls = true
ssl-min-ver = 'TLSv1.3'
ssl-max-ver = 'TLSv1.2'
",
        &[
            (3, 7, "`key` has no meaning without `crt`"),
            (6, 15, "ssl-min-ver is newer than ssl-max-ver"),
        ],
    );
}

#[test]
fn tls_of_checks_that_speak_none() {
    check(
        "[[listen]]
name = 'l'
bind = '*:80'
check = { type = 'http', ca-file = 'ca.pem' }
servers = [
  { name = 's', address = '10.0.0.1:80' },
  { name = 't', address = '10.0.0.2:80', check = { tls = true } },
  { name = 'u', address = '10.0.0.3:80', check = { tls = false } },
]
",
        &[(4, 36, "`ca-file` is for checks over TLS")],
    );
    check(
        "[[listen]]
name = 'l'
bind = '*:80'
servers = [{ name = 's', address = '10.0.0.1:80' }]
[listen.check]
type = 'tcp'
steps = [{ send = 'x', tls = true }]
",
        &[(7, 30, "`tls` belongs to `connect`")],
    );
    check(
        "[[listen]]
name = 'l'
bind = '*:80'
servers = [{ name = 's', address = '10.0.0.1:80' }]
[listen.check]
type = 'tcp'
steps = [{ connect = true, sni = 'a' }]
",
        &[(7, 34, "`sni` is for connections over TLS")],
    );
}

#[test]
fn checks_of_api_servers() {
    before(
        "[check.a]
type = 'kube-apiserver'
token-file = 't'
verify = 'none'
[check.b]
type = 'http'
token-file = 't'
[check.c]
type = 'kube-apiserver'
tls = false
token-file = 't'
method = 'GET'
",
        &[
            (3, 14, "the token would be sent to anyone"),
            (
                7,
                14,
                "`token-file` is for checks with `type = \"kube-apiserver\"`",
            ),
            (11, 14, "the token would be sent to anyone"),
            (12, 10, "`method` is for checks with `type = \"http\"`"),
        ],
    );
}
