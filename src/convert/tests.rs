//! The golden files of `tests/convert`: each `NAME.cfg` with the configuration and the report that it
//! becomes. A first line `#: --allow-degraded` says with which options. After a change that is meant,
//! `RLB_UPDATE=yes cargo test --lib convert::tests` writes them anew.

use super::*;
use crate::config::diff::plan;
use crate::config::model::{ApiLevel, RuntimeSocket, StateFiles};
use crate::config::{Diagnostic, Limits, Loader, Severity, processor_time};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The variables of the process, as far as the files know.
fn process(name: &str) -> Option<String> {
    let value = match name {
        "HOST" => "10.1.1.1",
        "BIND_IP" => "127.0.0.2",
        "PORT" => "8080",
        "PORT2" => "8081",
        "NUMBER" => "500",
        "SPAN" => "30s",
        "FLAGS" => "check weight 7",
        "PASSWORD" => "secret",
        "FD" => "5",
        "SYSLOG" => "10.5.5.5",
        _ => return None,
    };
    Some(value.to_owned())
}

/// The folder `/run/link` leads to `/run/real`.
fn real_path(path: &Path) -> PathBuf {
    match path.strip_prefix("/run/link") {
        Ok(rest) => Path::new("/run/real").join(rest),
        Err(_) => path.to_owned(),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/convert")
}

fn options(bytes: &[u8]) -> Options {
    let text = String::from_utf8_lossy(bytes);
    let first = text.lines().next().unwrap_or_default();
    let words = first.strip_prefix("#: ").unwrap_or_default();
    let mut options = Options::default();
    for word in words.split_whitespace() {
        match word {
            "--allow-degraded" => options.allow_degraded = true,
            "--http=drop" => options.http_drop = true,
            "--haproxy-defaults" => options.haproxy_defaults = true,
            other => panic!("no option {other}"),
        }
    }
    options
}

fn converted(name: &str, bytes: &[u8]) -> Conversion {
    let input = Input {
        name: name.to_owned(),
        bytes: bytes.to_owned(),
    };
    let outside = Outside {
        variable: &process,
        address: &|name| (name == "localhost").then(|| [127, 0, 0, 1].into()),
        folder: None,
        real_path: &real_path,
    };
    convert(&[input], options(bytes), outside)
}

fn inputs() -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<PathBuf> = fs::read_dir(folder())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|it| it == "cfg"))
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy();
            (name.into_owned(), fs::read(&path).expect("a file"))
        })
        .collect()
}

fn load(toml: &str) -> crate::config::Loaded {
    let loader = Loader {
        limits: Limits::unknown(),
        environment: &process,
        disk: false,
    };
    loader.load_text("rlb.toml", toml)
}

fn exit(report: &Report) -> u8 {
    match (report.failed(), report.changes_traffic()) {
        (true, _) => 78,
        (false, true) => 1,
        (false, false) => 0,
    }
}

#[test]
fn every_golden_file_becomes_what_it_became() {
    let update = std::env::var_os("RLB_UPDATE").is_some();
    let inputs = inputs();
    assert!(inputs.len() >= 80, "{} inputs", inputs.len());
    let mut differ = Vec::new();
    for (name, bytes) in &inputs {
        let Conversion { toml, report, .. } = converted(name, bytes);
        let summary = report.summary();
        let said = format!("{}{summary}\nexit {}\n", report.text(true), exit(&report));
        for (ending, now) in [("toml", &toml), ("report", &said)] {
            let path = folder().join(name).with_extension(ending);
            if update {
                fs::write(&path, now).expect("written");
            } else if fs::read_to_string(&path).ok().as_ref() != Some(now) {
                differ.push(path);
            }
        }
    }
    assert!(
        differ.is_empty(),
        "with RLB_UPDATE=yes they are written anew: {differ:#?}"
    );
}

/// What is converted loads, unless it is said that nothing listens or that a variable is missing; and the same files become the same again.
#[test]
fn what_is_converted_loads() {
    for (name, bytes) in inputs() {
        let one = converted(&name, &bytes);
        assert_eq!(one, converted(&name, &bytes), "{name}");
        let Err(problems) = load(&one.toml) else {
            continue;
        };
        let left = !one.report.failed();
        for problem in problems.iter().filter(|_| left) {
            let told = problem.severity == Severity::Warning
                || (problem.code == "no-listener"
                    && (!one.listens || one.report.changes_traffic()));
            assert!(told, "{name}: {}\n{}", problem.line(), one.toml);
        }
    }
}

/// The seed's file is the configuration that the project keeps for it, but for what that one does
/// better on purpose.
#[test]
fn the_seeds_file_means_what_its_own_configuration_means() {
    let seed = fs::read(folder().join("seed.cfg")).expect("the seed's file");
    let Conversion { toml, report, .. } = converted("seed.cfg", &seed);
    assert_eq!(exit(&report), 0);
    let (config, _) = load(&toml).expect("it loads");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/kurl-ha.toml");
    let (own, _) = crate::config::load(&own).expect("it loads");
    let changes = plan(&own, &config);
    let lines: Vec<String> = changes.list.iter().map(ToString::to_string).collect();
    assert_eq!(lines, SEED_DIFFERENCES);
}

/// The project's configuration has a runtime socket, statistics for this machine alone, an hour of
/// silence where it is usual, and 5 s for a server; the seed's file says otherwise.
const SEED_DIFFERENCES: &[&str] = &[
    "- runtime-api /run/rlb/admin.sock (accepts what is queued and closes; commands that run are \
     answered)",
    "~ stats: hide-version false -> true (holds at once)",
    "~ frontend postgres-frontend: timeout.client 1h -> 1m, timeout.client-fin 1h -> 1m (holds for \
     the next connection)",
    "~ frontend kube-api-frontend: timeout.client 1h -> 1m, timeout.client-fin 1h -> 1m (holds for \
     the next connection)",
    "+ bind stats 0.0.0.0:8080 (is opened beside the socket that this process has there)",
    "- bind stats 127.0.0.1:8080 (accepts what is queued and closes; answers on their way are \
     finished)",
    "~ backend app-direct-backend: timeout.connect 5s -> 1m, \
     timeout.queue 5s -> 1m (holds for the next connection)",
    "~ backend postgres-backend: timeout.server 1h -> 1m, timeout.server-fin 1h -> 1m, \
     timeout.connect 5s -> 1m, \
     timeout.queue 5s -> 1m (holds for the next connection)",
    "~ backend replicated-backend: timeout.connect 5s -> 1m, \
     timeout.queue 5s -> 1m (holds for the next connection)",
    "~ backend kube-api-backend: timeout.server 1h -> 1m, timeout.server-fin 1h -> 1m, \
     timeout.connect 5s -> 1m, \
     timeout.queue 5s -> 1m (holds for the next connection)",
];

/// A warning about what a file becomes names the statement that it was made from.
#[test]
fn warnings_name_lines_of_the_files_that_were_converted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("haproxy.cfg");
    let text = "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 0\n  timeout server 1m\n\
                frontend web\n  bind *:80\n  default_backend one\n\
                backend one\n  server s1 127.0.0.1:80\n  server s2 127.0.0.1:80\n\
                backend nobody\n  server s1 10.0.0.1:80\n";
    fs::write(&path, text).expect("written");
    let files = HaproxyFiles {
        paths: vec![path.clone()],
        more: None,
        options: Options::default(),
    };
    let load = files.load(&Limits::unknown()).load;
    let (_, warnings) = load.loaded.expect("it is valid");
    let lines: Vec<String> = warnings.iter().map(Diagnostic::line).collect();
    assert!(!lines.is_empty());
    let name = path.display();
    for line in &lines {
        assert!(line.starts_with(&format!("{name}:")), "{lines:#?}");
    }
    let has = |line: u32, word: &str| {
        let start = format!("{name}:{line}:");
        let found = lines.iter().find(|text| text.starts_with(&start));
        assert!(
            found.is_some_and(|text| text.contains(word)),
            "{line} {word}: {lines:#?}"
        );
    };
    has(12, "nobody");
    has(4, "timeout");
    let shown = warnings[0].render(false);
    assert!(
        shown.contains("haproxy.cfg") && !shown.contains("converted"),
        "{shown}"
    );
}

/// The second place of a problem is in the files that were converted, too.
#[test]
fn both_places_of_a_problem_are_in_the_files_that_were_converted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("haproxy.cfg");
    let listen = |name| format!("listen {name}\n  bind abns@name\n  server s1 10.0.0.1:80\n");
    fs::write(&path, [listen("a"), listen("b")].concat()).expect("written");
    let files = HaproxyFiles {
        paths: vec![path.clone()],
        more: None,
        options: Options::default(),
    };
    let load = files.load(&Limits::unknown()).load;
    let problems = load.loaded.expect_err("two listen there");
    let taken = problems.iter().find(|it| it.code == "bind-collision");
    let taken = taken.expect("it is told");
    assert!(
        taken
            .message
            .ends_with(&format!(" in {}:2", path.display())),
        "{}",
        taken.message
    );
}

fn repeated(size: usize, head: &str, line: &str) -> Vec<u8> {
    let count = (size - head.len()) / line.len();
    [head, &line.repeat(count)].concat().into_bytes()
}

fn numbered(size: usize, head: &str, line: &dyn Fn(u32, [u8; 4]) -> String) -> Vec<u8> {
    let mut text = head.to_owned();
    for number in 0.. {
        if text.len() >= size {
            break;
        }
        text += &line(number, number.to_be_bytes());
    }
    text.into_bytes()
}

/// Files in which much is compared with much, of about so many bytes.
fn wide_files(size: usize) -> [(&'static str, Vec<u8>); 7] {
    let repeated = |head: &str, line: &str| repeated(size, head, line);
    let numbered = |head: &str, line: &dyn Fn(u32, [u8; 4]) -> String| numbered(size, head, line);
    let page = |number, [_, a, b, c]: [u8; 4]| {
        format!(
            "listen p{number}\n  mode http\n  bind 10.{a}.{b}.{c}:80\n  stats uri /{number}\n  \
             stats scope p{number}\n"
        )
    };
    let address = |_, [_, a, b, c]: [u8; 4]| format!("10.{a}.{b}.{c}:80,");
    let repeated_halves = |head: &str, first: &str, second: &str| {
        let half = size / 2;
        let (first, second) = (
            first.repeat(half / first.len()),
            second.repeat(half / second.len()),
        );
        [head, &first, &second].concat().into_bytes()
    };
    [
        ("pages", numbered("", &page)),
        ("one bind", numbered("listen web\n  bind *:81,", &address)),
        (
            "TLVs",
            repeated(
                "listen web\n  bind *:81\n",
                "  default-server set-proxy-v2-tlv-fmt(1) x\n",
            ),
        ),
        (
            "paths",
            numbered("", &|number, _| {
                format!("listen l{number}\n  bind /run/{number}/s\n")
            }),
        ),
        (
            "one bind of one port",
            repeated("listen web\n  bind *:81,", ":80,"),
        ),
        (
            "sockets",
            numbered("global\n", &|number, _| {
                format!("  stats socket /run/s{number}\n")
            }),
        ),
        (
            "options",
            repeated_halves(
                "listen web\n  bind *:81\n",
                "  option http-server-close\n",
                "  no option httpclose\n",
            ),
        ),
    ]
}

/// Files of one kind, of about so many bytes.
fn long_files(size: usize) -> [(&'static str, Vec<u8>); 9] {
    let repeated = |head: &str, line: &str| repeated(size, head, line);
    let numbered = |head: &str, line: &dyn Fn(u32, [u8; 4]) -> String| numbered(size, head, line);
    let server = |number, [_, a, b, c]: [u8; 4]| {
        format!("  server s{number} 10.{a}.{b}.{c}:80 check inter 2s rise 3 weight 7\n")
    };
    let proxy = |number, [_, a, b, c]: [u8; 4]| {
        format!(
            "frontend f{number}\n  bind 10.{a}.{b}.{c}:80\n  default_backend b{number}\n\
             backend b{number}\n  balance leastconn\n  server s1 10.{a}.{b}.{c}:80\n"
        )
    };
    let http = |number, [_, a, b, c]: [u8; 4]| {
        format!(
            "frontend f{number}\n  mode http\n  bind 10.{a}.{b}.{c}:80\n  \
             use_backend b{number} if {{ hdr(host) x{number} }}\n"
        )
    };
    [
        (
            "comments",
            repeated(
                "defaults\n  mode tcp\nlisten web\n  bind *:80\n",
                "  timeout client 30s # a comment that goes on for a while\n",
            ),
        ),
        ("quotes", repeated("", "\"'\\$ ")),
        ("words", repeated("", "a ")),
        (
            "one line",
            [b"a".repeat(size / 2), b"\\x41\xc3\xa9".repeat(size / 12)].concat(),
        ),
        ("conditions", repeated("", ".if (((((1\n")),
        ("nested conditions", repeated("", ".if 1\n")),
        ("servers", numbered("listen web\n  bind *:80\n", &server)),
        ("proxies", numbered("", &proxy)),
        ("http", numbered("", &http)),
    ]
}

/// The limit in seconds is that of the release build, which the integration tests have (`large_files`).
#[test]
fn time_grows_with_the_size_alone() {
    let time = |bytes: &[u8]| {
        // Once to warm up; the least of the others is disturbed least.
        let times = (0..3).map(|_| {
            let begun = processor_time();
            converted("long.cfg", bytes);
            processor_time().saturating_sub(begun)
        });
        times.min().unwrap_or_default()
    };
    let files = |size| long_files(size).into_iter().chain(wide_files(size));
    for ((name, short), (_, long)) in files(30_000).zip(files(240_000)) {
        let (short, long) = (time(&short), time(&long));
        // What is quadratic takes 64 times as long.
        let most = short * 24 + Duration::from_millis(5);
        assert!(long < most, "{name}: {short:?} and {long:?}");
    }
}

/// What follows is not read, in later files neither.
/// As in HAProxy.
#[test]
fn what_retry_on_does_not_know_is_an_error() {
    for (proxy, words, problem) in [
        ("listen", "", "a value is missing"),
        ("listen", "none conn-failure", "`none` stands alone"),
        (
            "listen",
            "conn-failures",
            "HAProxy has no `conn-failures` behind `retry-on`",
        ),
        ("frontend", "none", "it is for backends"),
    ] {
        let text = format!("{proxy} a\n  mode tcp\n  bind :81\n  retry-on {words}\n");
        let report = converted("a.cfg", text.as_bytes()).report;
        let mut errors = report.entries.iter();
        let error = errors.find(|entry| entry.outcome == report::Outcome::Error);
        let error = error.expect("an error");
        assert_eq!((&*error.keyword, &*error.text), ("retry-on", problem));
    }
}

#[test]
fn more_words_than_are_read_are_one_error() {
    let line = format!("  http-request deny {}\n", "a ".repeat(58));
    let lines = line.repeat(sections::ALL_WORDS_MAX / 60);
    let file = |name: &str, text: &str| Input {
        name: name.to_owned(),
        bytes: format!("listen {name}\n  bind *:80\n{text}").into_bytes(),
    };
    let files = |last: &str| {
        let inputs = [file("1.cfg", &lines), file("2.cfg", last)];
        convert(&inputs, Options::default(), of_this_process()).report
    };
    let errors = |report: Report| -> Vec<String> {
        let errors = report.entries.into_iter();
        let errors = errors.filter(|entry| entry.outcome == Outcome::Error);
        errors.map(|entry| entry.text.into_owned()).collect()
    };
    let most = (sections::ALL_WORDS_MAX - 2 * 4 - lines.lines().count() * 60) / 2;
    assert!(
        errors(files(&"  nothing 1\n".repeat(most)))
            .iter()
            .all(|it| !it.contains("words"))
    );
    let errors = errors(files(&"  disabled\n".repeat(60 * 60)));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("what follows was not read"));
}

/// Every error has a place in a file, and what is written is valid although what is in error is left out.
#[test]
fn errors_have_a_place_and_are_left_out() {
    let mut failed = 0;
    for (name, bytes) in inputs() {
        let Conversion { toml, report, .. } = converted(&name, &bytes);
        if !report.failed() {
            continue;
        }
        failed += 1;
        let mut entries = report.entries.iter();
        let placed = entries.all(|entry| entry.outcome != Outcome::Error || entry.at.is_some());
        assert!(placed, "{name}: {}", report.text(false));
        let Err(problems) = load(&toml) else {
            continue;
        };
        for problem in problems {
            let told = ["no-listener", "reference"].contains(&problem.code);
            let told = told || problem.severity == Severity::Warning;
            assert!(told, "{name}: {}\n{toml}", problem.line());
        }
    }
    assert!(failed > 5, "{failed}");
}

/// Without a statement that is in error more people could see or change more than was meant.
#[test]
fn a_page_that_is_in_error_is_left_out() {
    for (line, what) in [
        ("stats auth \"${NOTSET}\"", "`stats auth` in line"),
        ("stats auth", "`stats auth` in line"),
        (
            "stats http-requst deny if { src 10.0.0.1 }",
            "`stats http-requst` in line",
        ),
        // Whatever is in error, it may have closed the page to somebody.
        ("http-requst deny unless LOCALHOST", "`http-requst` in line"),
        ("statsauth a:b", "`statsauth` in line"),
        ("no stats auth a:b", "`stats` in line"),
        ("default stats auth a:b", "`stats` in line"),
        ("stats auth \"a:b", "line"),
        ("http-request \"\" deny", "`http-request` in line"),
        ("bind 127.0.0.1:81 interfce lo", "`bind interfce` in line"),
    ] {
        let text = format!(
            "listen web\n bind *:80\n server s1 10.0.0.1:80\n\
             listen page\n mode http\n bind 127.0.0.1:81\n {line}\n stats admin if TRUE\n\
             listen other\n mode http\n bind 127.0.0.1:82\n stats enable\n"
        );
        let one = converted("page.cfg", text.as_bytes());
        assert_eq!(exit(&one.report), 78, "{line}");
        let why = format!("listen `page` is not carried over: {what} 7 is not valid");
        assert!(one.report.text(false).contains(&why), "{line}");
        assert!(one.toml.contains(&why), "{line}");
        assert_eq!(
            one.toml.matches("bind = \"127.0.0.1:82\"").count(),
            1,
            "{line}"
        );
        assert!(!one.toml.contains("admin"), "{}", one.toml);
        assert!(!one.toml.contains("127.0.0.1:81"), "{}", one.toml);
    }
    // What it inherits counts, and what stands in another proxy does not.
    let page = "listen page\n mode http\n bind 127.0.0.1:81\n stats enable\n";
    let one = assert_exit(
        " timeout clint 5s\n",
        page,
        78,
        "`timeout clint` in line 5 is not",
    );
    assert!(!one.toml.contains("[stats]"), "{}", one.toml);
    let other = format!("frontend f\n mode tcp\n nothing\n bind 127.0.0.1:82\n{page}");
    let one = assert_exit("", &other, 78, "HAProxy has no `nothing` here");
    assert!(one.toml.contains("[stats]"), "{}", one.toml);
}

/// The exit status of files, and whether their report has `part`. They begin with a `defaults` and a listen `web`.
#[track_caller]
fn assert_exit(defaults: &str, text: &str, expected: u8, part: &str) -> Conversion {
    let text = format!(
        "defaults\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n{defaults}\
         listen web\n mode tcp\n bind 127.0.0.1:80\n server a 127.0.0.1:1\n{text}"
    );
    let one = converted("some.cfg", text.as_bytes());
    let said = one.report.text(true);
    assert_eq!(exit(&one.report), expected, "{text}\n{said}");
    assert!(said.contains(part), "{text}\n{said}");
    one
}

/// The `[runtime-api]` that a `stats socket` with these words becomes.
#[track_caller]
fn sockets_of(words: &str, expected: u8, part: &str) -> Vec<RuntimeSocket> {
    let one = assert_exit(
        "",
        &format!("global\n stats socket {words}\n"),
        expected,
        part,
    );
    let (config, _) = load(&one.toml).expect("it loads");
    config.runtime_api.map_or_else(Vec::new, |api| api.sockets)
}

#[test]
fn a_runtime_socket_for_others_has_haproxys_level() {
    use ApiLevel::{Admin, Operator, User};
    for (words, level) in [
        ("/run/s mode 666", Operator),
        ("/run/s mode 0", Admin),
        ("/run/s user haproxy", Operator),
        ("/run/s gid 7", Operator),
        ("127.0.0.1:9999", Operator),
        ("fd@3", Operator),
        ("/run/s", Admin),
        ("/run/s mode 666 level admin", Admin),
        ("/run/s level user mode 666", User),
    ] {
        let sockets = sockets_of(words, 0, "");
        assert_eq!(sockets.len(), 1, "{words}");
        assert_eq!(sockets[0].level, level, "{words}");
    }
}

/// Without a word that is in error more people could do more than was meant.
#[test]
fn a_runtime_socket_in_error_is_left_out() {
    for words in [
        "level",
        "level usr",
        "levl user",
        "level user level",
        "mode 8",
        "mode",
        "mode 600 admin",
        "user",
        "group",
        "uid",
        "expose-fd",
        "name",
        "nice 1 foo",
        "interface",
    ] {
        let part = "stats socket: it is left out: something in it is in error";
        let sockets = sockets_of(&format!("/run/s {words}"), 78, part);
        assert!(sockets.is_empty(), "{words}");
    }
    let sockets = sockets_of(
        "/run/a,nothing,/run/b",
        78,
        "a path, or an address and a port",
    );
    assert!(sockets.is_empty());
}

#[test]
fn a_stats_socket_with_several_addresses_is_several_sockets() {
    let sockets = sockets_of("/run/a,127.0.0.1:9999,abns@b level user", 0, "");
    let places: Vec<String> = sockets.iter().map(RuntimeSocket::place).collect();
    assert_eq!(places[..2], ["/run/a", "127.0.0.1:9999"]);
    assert_eq!(places.len(), 3);
    let user = ApiLevel::User;
    assert!(sockets.iter().all(|one| one.level == user));
}

#[test]
fn unix_bind_holds_for_the_unix_sockets_of_binds() {
    let one = |words: &str, bind: &str, expected: u8, part: &str| {
        let text = format!(
            "global\n unix-bind {words}\nlisten last\n mode tcp\n bind {bind}\n server a 127.0.0.1:1\n"
        );
        assert_exit("", &text, expected, part).toml
    };
    for (words, bind, written) in [
        (
            "mode 600",
            "/run/a",
            r#"{ address = "unix:/run/a", mode = "600" }"#,
        ),
        (
            "mode 600",
            "/run/a mode 0660",
            r#"{ address = "unix:/run/a", mode = "0660" }"#,
        ),
        ("mode 600", "/run/a mode 0", r#""unix:/run/a""#),
        ("mode 600", ":81", r#""*:81""#),
        ("mode 600", "abns@a", r#""abns@a""#),
        ("prefix /chroot", "/run/a", r#""unix:/chroot/run/a""#),
        ("prefix /chroot/", "unix@a", r#""unix:/chroot/a""#),
        ("prefix /chroot", "abns@a", r#""abns@a""#),
        ("prefix /a", "/run/b", r#""unix:/a/run/b""#),
        ("user root", ":81", r#""*:81""#),
        ("gid 0", "abns@a", r#""abns@a""#),
    ] {
        let toml = one(words, bind, 0, "");
        assert!(
            toml.contains(&format!("bind = {written}\n")),
            "{words}: {toml}"
        );
    }
    for owner in ["user", "uid", "group", "gid"] {
        let part = format!("`unix-bind {owner}` in line");
        let toml = one(&format!("{owner} 0"), "/run/a", 1, &part);
        assert!(!toml.contains("unix:"), "{toml}");
    }
    for wrong in [
        "prefix",
        "user",
        "prefix /a prefix /b",
        "level user",
        "mode 600 level user",
    ] {
        one(wrong, ":81", 78, "unix-bind");
        // What it says of their files is not known.
        let toml = one(
            wrong,
            "/run/a,:82",
            78,
            "`unix-bind` in line 10 is in error",
        );
        assert!(!toml.contains("/run/a") && toml.contains("*:82"), "{toml}");
    }
    // HAProxy reads 0, and leaves the files as they are.
    for wrong in ["mode", "mode 8", "mode x"] {
        let toml = one(wrong, "/run/a", 0, "no octal number");
        assert!(toml.contains("bind = \"unix:/run/a\"\n"), "{toml}");
    }
    // Those before it do not have it, and no runtime socket has it.
    let text = "listen last\n mode tcp\n bind /run/a\n server a 127.0.0.1:1\n\
                global\n unix-bind mode 600 prefix /c\n stats socket /run/b\n";
    let toml = assert_exit("", text, 0, "").toml;
    assert!(toml.contains("\"unix:/run/a\""), "{toml}");
    assert!(toml.contains("socket = \"/run/b\"\n"), "{toml}");
    assert!(!toml.contains("mode ="), "{toml}");
}

const PAGE: &str = "listen page\n mode http\n bind 127.0.0.1:81\n stats enable\n";

/// HAProxy serves these pages, and rlb does not.
#[test]
fn a_page_that_cannot_be_served_is_no_success() {
    let unix = "listen page\n mode http\n bind /run/x\n stats enable\n";
    assert_exit(
        "",
        unix,
        1,
        "listen `page` is not carried over: `[stats]` listens on TCP",
    );
    let both = format!("{PAGE} bind /run/x\n");
    let one = assert_exit("", &both, 1, "`[stats]` listens on TCP addresses alone");
    assert!(one.toml.contains("bind = \"127.0.0.1:81\""), "{}", one.toml);
    let frontend = "frontend f\n mode http\n bind 127.0.0.1:82\n default_backend b\n";
    let backend = "backend b\n mode http\n stats enable\n";
    let all = format!("{frontend}{backend}");
    assert_exit(
        "",
        &all,
        1,
        "frontend `f` is not carried over: backend `b` is not",
    );
    // Nothing leads there.
    assert_exit(
        "",
        backend,
        0,
        "backend `b` is not carried over: it is a page of the statistics",
    );
    // So does a `listen` that does not listen.
    let listen = frontend.replace("default_backend b", "default_backend page");
    let page = PAGE.replace(" bind 127.0.0.1:81\n", "");
    let part = "frontend `f` is not carried over: listen `page` is not";
    assert_exit("", &format!("{listen}{page}"), 1, part);
    // A page beside other traffic.
    for line in [
        "stats enable",
        "stats show-modules",
        "stats realm ü",
        "stats auth a:b",
    ] {
        let beside = format!("{frontend} {line}\nbackend b\n mode http\n server s 127.0.0.1:1\n");
        let part = "a page beside other traffic is not carried over";
        let one = assert_exit("", &beside, 1, part);
        assert!(!one.toml.contains("127.0.0.1:82"), "{line}: {}", one.toml);
        let allowed = format!("#: --allow-degraded\n{beside}");
        let one = converted("allowed.cfg", allowed.as_bytes());
        assert_eq!(exit(&one.report), 0, "{line}");
        assert!(one.toml.contains("127.0.0.1:82"), "{line}: {}", one.toml);
    }
    let led = "frontend f\n mode tcp\n bind 127.0.0.1:82\n default_backend page\n";
    let part = "frontend `f` is not carried over: listen `page` is a page of the statistics";
    assert_exit("", &format!("{PAGE}{led}"), 1, part);
    assert_exit(
        "",
        &format!("{PAGE}{}", led.replace("tcp", "http")),
        1,
        part,
    );
}

#[test]
fn the_page_of_a_defaults_ends_with_the_first_statement_of_the_proxy() {
    let defaults = " mode http\n stats enable\n stats uri /d\n stats auth a:b\n";
    let own = "listen page\n bind 127.0.0.1:81\n stats refresh 5s\n stats hide-version\n\
               listen other\n bind 127.0.0.1:82\n";
    let one = assert_exit(defaults, own, 0, "their `stats auth` neither");
    let (page, other) = one.toml.split_once("[[stats.page]]").expect("two pages");
    assert!(
        page.contains("5s") && page.contains("hide-version"),
        "{page}"
    );
    assert!(
        !page.contains("\"/d\"") && !page.contains("auth = "),
        "{page}"
    );
    assert!(other.contains("\"/d\"") && other.contains("a:b"), "{other}");
}

#[test]
fn what_haproxy_refuses_is_an_error() {
    let defaults = "it cannot stand in `defaults`";
    for line in [
        "server a 1.1.1.1:1",
        "bind :1",
        "use_backend web",
        "stats admin if TRUE",
        "stats http-request deny",
        "id 7",
        "monitor fail if TRUE",
        "stick on src",
        "acl x src 1.1.1.1",
        "tcp-request inspect-delay 5s",
        "guid x",
    ] {
        assert_exit(&format!(" {line}\n"), "", 78, defaults);
    }
    let named = "defaults d\n acl x src 1.1.1.1\n tcp-request inspect-delay 5s\n\
                 listen last from d\n mode tcp\n bind :2\n server a 127.0.0.1:1\n";
    let one = assert_exit("", named, 0, "");
    assert!(!one.report.text(true).contains(defaults));
    for (line, part) in [
        (" stats scope\n", "stats scope: a value is missing"),
        (" stats uri\n", "stats uri: a value is missing"),
        (" stats timeout 5s\n", "HAProxy has no `timeout` here"),
        (" grace 5s\n", "HAProxy has no `grace` here"),
        (" stats\n", "what of the page is missing"),
        (" stats admin if nope\n", "there is no ACL `nope` before it"),
        (
            " stats admin if nope\n acl nope src 1.1.1.1\n",
            "no ACL `nope`",
        ),
    ] {
        let one = assert_exit("", &format!("{PAGE}{line}"), 78, part);
        assert!(!one.toml.contains("[stats]"), "{line}");
    }
    let frontend = "frontend f\n mode tcp\n bind :81\n default_backend web\n";
    for (line, part) in [
        (
            "use_backend web unless nope",
            "there is no ACL `nope` before it",
        ),
        (
            "use_backend web if { src 1.1.1.1",
            "a closing brace is missing",
        ),
        ("use_backend nope if TRUE", "there is no backend `nope`"),
        ("use_backend web TRUE", "only `if` and `unless` can follow"),
        ("default_backend web if TRUE", "nothing can follow the name"),
    ] {
        assert_exit("", &format!("{frontend} {line}\n"), 78, part);
    }
    let known = " acl x src 1.1.1.1\n use_backend web if x !HTTP or { src 1.1.1.2 }\n";
    assert_exit(
        "",
        &format!("{frontend}{known}"),
        1,
        "frontend `f` is not carried over",
    );
}

#[test]
fn a_backend_that_does_not_exist_is_told_of_as_by_haproxy() {
    let several = "frontend f\n bind :81\nfrontend g\n bind :82\n";
    let one = assert_exit(
        " mode tcp\n default_backend nope\n",
        several,
        78,
        "no backend `nope`",
    );
    assert_eq!(
        one.report.text(true).matches("there is no backend").count(),
        1
    );
    let disabled = "listen last\n bind :81\n server a 127.0.0.1:1\n use_backend nope\n disabled\n";
    assert_exit("", disabled, 0, "leads to a backend that does not exist");
}

/// Only these three words are about metrics: whoever may see the page must not become more.
#[test]
fn a_rule_that_only_mentions_the_exporter_is_an_access_rule() {
    let beside = "frontend f\n mode http\n bind 127.0.0.1:81\n default_backend b\n\
                  backend b\n mode http\n server s 127.0.0.1:1\n";
    for rule in [
        "deny unless { req.hdr(user-agent) -m str prometheus-exporter }",
        "auth realm prometheus-exporter unless { http_auth(u) }",
        "reject if { path prometheus-exporter }",
        "use-service lua.x if { path prometheus-exporter }",
        "set-path prometheus-exporter",
        "use-service prometheus-exporter if { path /metrics } { src 10.0.0.0/8 }",
        "use-service prometheus-exporter if { path /prom }",
        "use-service prometheus-exporter unless { path /metrics }",
    ] {
        let page = format!("{PAGE} http-request {rule}\n");
        let part = "`http-request` is not possible for `[stats]`";
        let one = assert_exit("", &page, 1, part);
        assert!(!one.toml.contains("127.0.0.1:81"), "{rule}: {}", one.toml);
        let page = format!("#: --allow-degraded\n{page}");
        let one = converted("allowed.cfg", page.as_bytes());
        assert!(!one.toml.contains("127.0.0.1:81"), "{rule}: {}", one.toml);
        for (from, to) in [(" default_backend", "f"), (" server", "b")] {
            let line = format!(" http-request {rule}\n{from}");
            let one = assert_exit(
                "",
                &beside.replace(from, &line),
                1,
                "`http-request` in line",
            );
            assert!(
                !one.toml.contains("127.0.0.1:81"),
                "{to} {rule}: {}",
                one.toml
            );
        }
    }
}

#[test]
fn the_metrics_of_a_page_are_those_of_the_statistics() {
    for condition in ["", " if { path /metrics }"] {
        let rule = format!(" http-request use-service prometheus-exporter{condition}\n");
        let part = "http-request: `/metrics` of `[stats]` is always there";
        let one = assert_exit("", &format!("{PAGE}{rule}"), 0, part);
        assert!(one.toml.contains("127.0.0.1:81"), "{}", one.toml);
        // HAProxy asks for no password there.
        let users = format!("{PAGE}{rule} stats auth a:b\n");
        let part = "kept with another meaning: http-request: `/metrics` of `[stats]` asks";
        assert_exit("", &users, 0, part);
        // It has no effect on TCP.
        let tcp = format!("listen l\n mode tcp\n bind :82\n server s 127.0.0.1:1\n{rule}");
        assert_exit("", &tcp, 0, "http-request: it has no effect on TCP");
        let beside = format!("listen l\n mode http\n bind :82\n server s 127.0.0.1:1\n{rule}");
        let part = "metrics beside other traffic are not carried over";
        let one = assert_exit("", &beside, 1, part);
        assert!(!one.toml.contains("*:82"), "{}", one.toml);
        let one = converted("a.cfg", format!("#: --allow-degraded\n{beside}").as_bytes());
        assert_eq!(exit(&one.report), 0);
        assert!(one.toml.contains("*:82"), "{}", one.toml);
    }
}

/// A page has nothing of `[defaults]`, so nothing of it need be taken back there.
#[test]
fn a_page_without_a_limit_does_not_take_one_back() {
    let text =
        "defaults\n mode http\n timeout client 5s\n timeout connect 5s\n timeout server 5s\n";
    for (page, part) in [
        (format!("{text}{PAGE}"), ""),
        (format!("{PAGE} maxconn 0\n"), "0 stands for the default"),
    ] {
        let one = assert_exit(" maxconn 500\n", &page, 0, part);
        let (_, page) = one.toml.split_once("[stats]").expect("a page");
        let (page, _) = page.split_once("[[").unwrap_or((page, ""));
        assert!(!page.contains("maxconn = 0"), "{}", one.toml);
        assert!(one.toml.contains("bind = \"127.0.0.1:81\""), "{}", one.toml);
        assert!(load(&one.toml).is_ok(), "{}", one.toml);
    }
}

/// HAProxy answers there, if only with an error.
#[test]
fn a_frontend_for_http_without_a_backend_is_traffic() {
    for line in [
        "monitor-uri /healthz",
        "errorfile 503 /dev/null",
        "http-request use-service prometheus-exporter",
        "http-request return status 200",
        "http-request redirect location /x",
        "redirect location /x",
        "option forwardfor",
    ] {
        let text = format!("frontend f\n mode http\n bind :81\n {line}\n");
        let part = "frontend `f` is not carried over";
        let one = assert_exit("", &text, 1, part);
        assert!(
            !one.report.text(true).contains("closes every connection"),
            "{line}"
        );
        let listen = text.replace("frontend", "listen");
        assert_exit("", &listen, 1, "listen `f` is not carried over");
        let disabled = "frontend f\n mode http\n bind :81\n monitor-uri /a\n disabled\n";
        assert_exit("", disabled, 0, part);
    }
    let text = "frontend f\n mode tcp\n bind :81\n";
    assert_exit("", text, 0, "HAProxy closes every connection to it");
}

#[test]
fn a_word_behind_stats_that_nobody_knows_is_an_error() {
    for (line, word) in [
        ("stats sockt /run/x level admin", "sockt"),
        ("stats timeot 5s", "timeot"),
        ("stats maxcon 5", "maxcon"),
        ("stats", "stats"),
    ] {
        let part = format!("HAProxy has no `{word}` here");
        assert_exit("", &format!("global\n {line}\n"), 78, &part);
    }
    for line in ["stats bind-process 1", "stats calculate-max-counters off"] {
        assert_exit(
            "",
            &format!("global\n {line}\n"),
            0,
            "needs nothing: stats ",
        );
    }
}

#[test]
fn a_runtime_socket_for_ipv6_alone_is_left_out() {
    for words in [
        ":::9999 level admin v6only",
        "[::]:9999 v6only",
        "ipv6@:9999 v6only",
        "::0:9999 v6only",
        "/run/x,:::9999 v6only",
    ] {
        let part = "stats socket v6only: the runtime socket cannot be closed";
        assert!(sockets_of(words, 1, part).is_empty(), "{words}");
    }
    for words in ["127.0.0.1:9999 v6only", "::1:9999 v6only", "/run/x v6only"] {
        assert_eq!(sockets_of(words, 0, "").len(), 1, "{words}");
    }
}

/// A runtime socket at another address than in the file would be open to others.
#[test]
fn the_family_of_an_address_is_kept() {
    for address in [
        "unix@10.9.0.1:9990",
        "unix@*:9990",
        "unix@fd@3",
        "unix@@foo",
        "unix@abns@foo",
    ] {
        let sockets = sockets_of(address, 78, "is not an absolute path");
        assert!(sockets.is_empty(), "{address}: {sockets:?}");
        let text = format!("listen l\n mode tcp\n bind {address}\n server s 127.0.0.1:1\n");
        let one = assert_exit("", &text, 78, "is not an absolute path");
        assert!(!one.toml.contains("foo\""), "{address}: {}", one.toml);
    }
    for address in [
        "udp@127.0.0.1:9990",
        "udp4@127.0.0.1:9990",
        "udp6@::1:9990",
        "dgram+127.0.0.1:9990",
        "dgram+unix@/run/x",
        "uxdg@/run/x",
    ] {
        let sockets = sockets_of(address, 78, "it knows no datagrams");
        assert!(sockets.is_empty(), "{address}: {sockets:?}");
    }
    for (address, place) in [
        ("stream+127.0.0.1:9990", "127.0.0.1:9990"),
        ("mptcp@127.0.0.1:9990", "127.0.0.1:9990"),
        ("unix@/run/x", "/run/x"),
        ("uxst@/run/x", "/run/x"),
    ] {
        let sockets = sockets_of(address, 0, "");
        let places: Vec<String> = sockets.iter().map(RuntimeSocket::place).collect();
        assert_eq!(places, [place]);
    }
}

/// Server-state files likewise.
#[test]
fn a_relative_path_of_a_server_state_file_is_in_the_folder_of_the_process() {
    let listen = "listen l\n mode tcp\n bind *:80\n server s 127.0.0.1:1\n load-server-state-from-file local\n";
    for (global, file, own) in [
        ("server-state-file x", Some("/start/x"), "/start/l"),
        ("server-state-base b", None, "/start/b/l"),
        (
            "server-state-file /x\n server-state-base b/",
            Some("/x"),
            "/start/b/l",
        ),
        ("server-state-base /b", None, "/b/l"),
    ] {
        let input = Input {
            name: "some.cfg".to_owned(),
            bytes: format!("global\n {global}\n{listen}").into_bytes(),
        };
        let outside = Outside {
            variable: &process,
            address: &|_| None,
            folder: Some("/start"),
            real_path: &real_path,
        };
        let one = convert(&[input], Options::default(), outside);
        let (config, _) = load(&one.toml).expect("it loads");
        let files = StateFiles::of(&config.global);
        assert_eq!(files.global(), file.map(PathBuf::from), "{global}");
        let local = files.local(&config.backends[0]);
        assert_eq!(local, Some(PathBuf::from(own)), "{global}");
    }
}

/// HAProxy takes a relative path from the folder that it is started in.
#[test]
fn a_relative_path_of_a_socket_is_in_the_folder_of_the_process() {
    let text = "global\n unix-bind prefix p/\n stats socket unix@a.sock,/run/b,unix@@c\n\
                listen l\n mode tcp\n bind unix@x,unix@./y,/z\n server s 127.0.0.1:1\n";
    for (folder, root) in [("/start", "/start"), ("/", "")] {
        let input = Input {
            name: "some.cfg".to_owned(),
            bytes: text.as_bytes().to_vec(),
        };
        let outside = Outside {
            variable: &process,
            address: &|_| None,
            folder: Some(folder),
            real_path: &real_path,
        };
        let one = convert(&[input], Options::default(), outside);
        let (config, _) = load(&one.toml).expect("it loads");
        let sockets = config.runtime_api.expect("there are some").sockets;
        let places: Vec<String> = sockets.iter().map(RuntimeSocket::place).collect();
        assert_eq!(
            places,
            [
                format!("{root}/a.sock"),
                "/run/b".to_owned(),
                format!("{root}/@c")
            ]
        );
        let said = one.report.text(true);
        for path in ["a.sock", "@c", "p/x", "p/./y", "p//z"] {
            let path = format!("`{root}/{path}`");
            assert!(said.contains(&path), "{path} in {said}");
        }
        assert_eq!(exit(&one.report), 0, "{said}");
    }
}

/// Nobody may do more than in HAProxy where rlb has one socket for several.
#[test]
fn sockets_that_cover_each_other_are_one_with_the_lowest_level() {
    use ApiLevel::{Admin, Operator, User};
    for (lines, address, level) in [
        (
            ["127.0.0.1:9 level admin", "*:9 level user"],
            "0.0.0.0:9",
            User,
        ),
        (
            ["*:9 level admin", "127.0.0.1:9 level user"],
            "0.0.0.0:9",
            User,
        ),
        (["*:9", "*:9 level admin"], "0.0.0.0:9", Operator),
        (["*:9 level admin", ":::9 level admin"], "[::]:9", Admin),
        (["/run/a level user", "/run/a level admin"], "/run/a", Admin),
    ] {
        let [one, other] = lines;
        let words = format!("{one}\n stats socket {other}");
        let sockets = sockets_of(&words, 0, "kept with another meaning: stats socket: ");
        let places: Vec<String> = sockets.iter().map(RuntimeSocket::place).collect();
        assert_eq!(
            (places, sockets[0].level),
            (vec![address.to_owned()], level),
            "{words}"
        );
    }
    for [one, other] in [
        ["127.0.0.1:9", "127.0.0.2:9"],
        ["*:9", "[::1]:9"],
        ["/run/a", "@/run/a"],
    ] {
        let other = other.replace("@/", "abns@/");
        let words = format!("{one}\n stats socket {other}");
        assert_eq!(sockets_of(&words, 0, "").len(), 2, "{words}");
    }
}

/// HAProxy asks the servers of a `listen` for others, wherever its own clients are led.
#[test]
fn a_listen_that_leads_elsewhere_serves_others() {
    let text = "listen a\n mode tcp\n id 7\n bind :81\n default_backend b\n server own 127.0.0.1:2\n\
                backend b\n mode tcp\n server s 127.0.0.1:3\n";
    let other = "frontend z\n mode tcp\n bind :82\n default_backend a\n";
    let part = "which leads to `b`, and a backend for others; the frontend has its `id`";
    for text in [format!("{text}{other}"), format!("{other}{text}")] {
        let one = assert_exit("", &text, 0, part);
        let (config, _) = load(&one.toml).expect("it loads");
        let led = |name: &str| {
            let mut frontends = config.frontends.iter();
            let frontend = frontends.find(|it| &*it.name == name).expect("a frontend");
            let backend = &config.backends[frontend.default_backend.0];
            backend.servers[0].name.to_string()
        };
        assert_eq!((led("a"), led("z")), ("s".into(), "own".into()));
    }
    assert_exit("", text, 0, "its own servers are not used: it leads to `b`");
    let own = text.replace("default_backend b", "default_backend a");
    let one = assert_exit("", &format!("{own}{other}"), 0, "");
    assert!(load(&one.toml).is_ok(), "{}", one.toml);
}

/// HAProxy of another version, or with TLS, takes them.
#[test]
fn lines_that_are_left_out_because_of_rlb_are_told() {
    let rule = " tcp-request connection reject if !{ src 127.0.0.1 }\n";
    let begin = "listen l\n mode tcp\n bind :81\n server s 127.0.0.1:1\n";
    for (lines, part) in [
        (
            format!(".if feature(OPENSSL)\n{rule}{rule}.endif\n"),
            "some.cfg:13:1: kept with another meaning: .if: lines 14 to 15 are left out",
        ),
        (
            format!(".if version_atleast(3.1)\n\n{rule}.endif\n"),
            "some.cfg:13:1: kept with another meaning: .if: line 15 is left out",
        ),
        (
            format!(".if !feature(OPENSSL)\n.else\n{rule}.endif\n"),
            "some.cfg:14:1: kept with another meaning: .else: line 15 is left out",
        ),
        (
            format!(".if 0\n.elif version_atleast(3.1)\n.if 1\n{rule}.endif\n.endif\n"),
            "some.cfg:14:1: kept with another meaning: .elif: line 16 is left out",
        ),
    ] {
        let one = assert_exit("", &format!("{begin}{lines}"), 0, part);
        assert!(one.report.text(false).contains(part), "{lines}");
    }
    for lines in [
        format!(".if defined(NOTSET)\n{rule}.endif\n"),
        ".if feature(OPENSSL)\n\n# nothing\n.endif\n".to_owned(),
        ".if !feature(OPENSSL)\n option dontlognull\n.endif\n".to_owned(),
    ] {
        let one = assert_exit("", &format!("{begin}{lines}"), 0, "");
        assert!(!one.report.text(false).contains("left out:"), "{lines}");
    }
}

/// HAProxy listens on both, and their clients fare the same.
#[test]
fn a_bind_that_a_wildcard_of_its_proxy_covers_is_left_out() {
    for (binds, kept) in [
        (["*:81", "127.0.0.1:81"], "\"*:81\""),
        (
            ["127.0.0.1:81 name x", ":81 name y id 3"],
            "{ address = \"*:81\", id = 3, name = \"y\" }",
        ),
        (["0.0.0.0:81", "10.0.0.1:81"], "\"0.0.0.0:81\""),
        (
            ["[::]:81 v6only", "[::1]:81"],
            "{ address = \"[::]:81\", v6only = true }",
        ),
        (
            ["*:81", ":::81"],
            "{ address = \"[::]:81\", v6only = false }",
        ),
        (
            [":::81 v4v6 name x", "10.0.0.1:81"],
            "{ address = \"[::]:81\", name = \"x\", v6only = false }",
        ),
    ] {
        let [one, other] = binds;
        for text in [
            format!("listen page\n mode http\n stats enable\n bind {one}\n bind {other}\n"),
            format!("listen last\n mode tcp\n server a 127.0.0.1:1\n bind {one}\n bind {other}\n"),
        ] {
            let part = "of this proxy takes its clients";
            let one = assert_exit("", &text, 0, part);
            assert!(
                one.toml.contains(&format!("bind = {kept}\n")),
                "{}",
                one.toml
            );
            assert!(load(&one.toml).is_ok(), "{}", one.toml);
        }
    }
    for [one, other] in [
        ["*:81", "127.0.0.1:81 interface lo"],
        ["*:81", "127.0.0.1:82"],
        ["*:0", "127.0.0.1:0"],
        ["[::]:81 v6only", "127.0.0.1:81"],
        ["[::]:81 v6only", "*:81"],
        ["*:81", "/run/x"],
    ] {
        let text =
            format!("listen last\n mode tcp\n server a 127.0.0.1:1\n bind {one}\n bind {other}\n");
        let converted = converted("some.cfg", text.as_bytes());
        assert!(
            !converted.report.text(true).contains("takes its clients"),
            "{text}"
        );
    }
}

/// Of one at a descriptor the start would fail.
#[test]
fn one_of_a_proxy_and_a_runtime_socket_at_one_address_is_left_out() {
    for (socket, bind, status, part, stays) in [
        (
            "127.0.0.1:81",
            "*:81",
            1,
            "listens at its address, too",
            false,
        ),
        ("/run/x", "/run/x", 0, "a later line takes its path", true),
        (
            "fd@3",
            "fd@3",
            78,
            "is already taken by [runtime-api] in some.cfg:14",
            true,
        ),
    ] {
        let text = format!(
            "listen last\n mode tcp\n server a 127.0.0.1:1\n bind {bind}\n\
             global\n stats socket {socket}\n"
        );
        let one = assert_exit("", &text, status, part);
        assert_eq!(one.toml.contains("[runtime-api]"), stays, "{}", one.toml);
        assert!(load(&one.toml).is_ok(), "{}", one.toml);
    }
}

/// Also where it is never asked.
#[test]
fn a_backend_that_is_named_by_a_backend_must_exist() {
    let default = "default_backend: there is no backend `nowhere`";
    let by_rule = "use_backend: there is no backend `nowhere`";
    let backend = "backend b\n mode tcp\n server s 127.0.0.1:1\n";
    for (text, part) in [
        (format!("{backend} default_backend nowhere\n"), default),
        (format!("{backend} use_backend nowhere if TRUE\n"), by_rule),
        (format!("{backend} use_backend nowhere\n"), by_rule),
        (
            "listen l\n mode tcp\n server s 127.0.0.1:1\n default_backend nowhere\n".to_owned(),
            default,
        ),
        (
            "frontend f\n mode tcp\n bind :81\n use_backend web\n default_backend nowhere\n"
                .to_owned(),
            default,
        ),
    ] {
        assert_exit("", &text, 78, part);
    }
    assert_exit(
        "",
        &format!("{backend} default_backend nowhere\n disabled\n"),
        0,
        "",
    );
    // A backend does not inherit it.
    let inherited = format!("defaults\n default_backend nowhere\n{backend}");
    assert_exit("", &inherited, 0, "");
    assert_exit("", &format!("{inherited} use_backend web\n"), 0, "");
}

#[test]
fn a_zero_takes_back_what_the_defaults_say() {
    let defaults = " maxconn 500\n rate-limit sessions 7\n timeout queue 9s\n timeout check 8s\n \
                    timeout client-hs 3s\n default-server port 82 addr 10.0.0.9\n";
    let zeros = " maxconn 0\n rate-limit sessions 0\n timeout queue 0\n timeout check 0\n \
                 timeout client-hs 0\n";
    let own = format!(
        "listen own\n mode tcp\n bind :81\n{zeros} server a 10.0.0.1:1 check\n \
         server b 10.0.0.2:1 check port 0 addr 0.0.0.0\n server c 10.0.0.3:1 check addr ::0:7\n"
    );
    let values = |defaults: &str| {
        let one = assert_exit(defaults, &own, 0, "");
        let (config, _) = load(&one.toml).expect("it loads");
        let (frontend, backend) = (&config.frontends[1], &config.backends[1]);
        let limits = (frontend.maxconn, frontend.rate_limit_sessions);
        let times = (frontend.timeout_client_hs, backend.timeout_queue);
        let checks: Vec<_> = backend.servers.iter().map(|it| it.check.clone()).collect();
        (limits, times, checks)
    };
    let (limits, times, checks) = values(defaults);
    let (limits_alone, times_alone, checks_alone) = values("");
    assert_eq!(limits, limits_alone);
    assert_eq!(times, times_alone);
    let port = |check: &Option<crate::config::model::Check>| {
        let check = check.as_ref().expect("it is checked");
        (check.port, check.address)
    };
    assert_eq!(port(&checks[0]), (Some(82), Some([10, 0, 0, 9].into())));
    assert_eq!(port(&checks[1]), (None, None));
    assert_eq!(port(&checks[2]), (Some(7), None));
    assert_eq!(checks[1], checks_alone[1]);
    let one = assert_exit(defaults, PAGE, 0, "");
    assert!(one.toml.contains("maxconn = 500"), "{}", one.toml);
    // Nothing needs to be taken back.
    let one = assert_exit("", &own, 0, "");
    assert!(
        !one.toml.contains("maxconn = ") && !one.toml.contains("queue = "),
        "{}",
        one.toml
    );
}

#[test]
fn the_number_of_a_bind_is_its_own() {
    let page = |lines: &str| format!("listen last\n mode tcp\n server a 127.0.0.1:1\n{lines}");
    for (lines, part) in [
        (
            " bind :81 id 3\n bind :82 id 3\n",
            "another bind of the proxy has this number",
        ),
        (
            " bind :81 id 3\n bind :81 id 3\n",
            "another bind of the proxy has this number",
        ),
        (" bind :81 id 0\n", "it has to be greater than 0"),
        (" bind :81 id -1\n", "it has to be greater than 0"),
        (" bind :81-83 id 1\n", "a single address and port"),
        (" bind :81,:82 id 1\n", "a single address and port"),
        (" bind :81 id\n", "bind id: a value is missing"),
        (" bind :81 name\n", "bind name: a value is missing"),
        (
            " bind :81 interface\n",
            "bind interface: a value is missing",
        ),
        (" bind :81 user\n", "bind user: a value is missing"),
    ] {
        assert_exit("", &page(lines), 78, part);
    }
    assert_exit(
        "",
        &page(" bind :81 id 3\n bind :81 id 4\n"),
        0,
        "it listens there already",
    );
}

#[test]
fn a_bind_that_is_written_again_is_left_out() {
    let again = format!("{PAGE} bind 127.0.0.1:81 name x\n");
    let one = assert_exit("", &again, 0, "it listens there already");
    assert_eq!(one.toml.matches("127.0.0.1:81").count(), 1, "{}", one.toml);
    assert!(load(&one.toml).is_ok());
    // They are not the same.
    let other = "listen last\n bind :81\n bind :81 tfo\n server a 127.0.0.1:1\n";
    assert_exit("", other, 1, "line 10 has its address, too");
}

#[test]
fn a_uri_that_is_no_path_is_no_error() {
    for (uri, kept) in [("http://x/", true), ("https://x", true), ("/a?b", true)] {
        let one = assert_exit("", &format!("{PAGE} stats uri {uri}\n"), 0, "");
        assert_eq!(
            one.toml.contains(&format!("uri = \"{uri}\"")),
            kept,
            "{uri}"
        );
    }
    for uri in ["x", "?x", "*", "/ä", "x://y/", "\"/a b\""] {
        let part = "so HAProxy does not show it either";
        let one = assert_exit("", &format!("{PAGE} stats uri {uri}\n"), 0, part);
        assert!(!one.toml.contains("[stats]"), "{uri}");
        let later = format!("{PAGE} stats uri {uri}\n stats uri /x\n");
        assert!(assert_exit("", &later, 0, "").toml.contains("uri = \"/x\""));
    }
    for uri in ["/s;a", "/metrics", "http:", "h"] {
        let part = "`[stats]` cannot have its uri";
        let one = assert_exit("", &format!("{PAGE} stats uri {uri}\n"), 1, part);
        assert!(!one.toml.contains("\n[stats]\n"), "{uri}");
    }
}

#[test]
fn a_refresh_is_counted_in_seconds() {
    let page = PAGE.replace(" stats enable\n", "");
    for (written, expected) in [("100d", "2147483s"), ("7", "7s"), ("1500ms", "2s")] {
        let one = assert_exit("", &format!("{page} stats refresh {written}\n"), 0, "");
        assert!(
            one.toml.contains(&format!("refresh = \"{expected}\"")),
            "{}",
            one.toml
        );
        assert!(load(&one.toml).is_ok());
    }
    assert_exit(
        "",
        &format!("{page} stats refresh 2147483648\n"),
        78,
        "68 years",
    );
}

#[test]
fn the_first_password_of_a_user_holds() {
    let page =
        format!("{PAGE} stats auth a:b\n stats auth a:c\n stats auth b:a\n stats auth a:b\n");
    let part = "some.cfg:14:2, 16: needs nothing: stats auth: the first password of a user holds";
    let one = assert_exit("", &page, 0, part);
    assert!(
        one.toml.contains("auth = [\"a:b\", \"b:a\"]"),
        "{}",
        one.toml
    );
}

/// Who may change servers by the page of a proxy with these statements; `None`: nobody, and the report says why.
fn admin_of(statements: &[&str]) -> Option<&'static str> {
    let text = format!("{PAGE} {}\n", statements.join("\n "));
    let one = assert_exit("", &text, 0, "");
    let (config, _) = load(&one.toml).expect("it loads");
    let admin = config.stats.expect("a page").page.admin.text();
    let said = one.report.text(true);
    (admin != "false" || !said.contains("this allows nothing")).then_some(admin)
}

#[test]
fn a_condition_never_allows_more_than_in_haproxy() {
    let (everyone, localhost, nobody) = (Some("true"), Some("\"localhost\""), Some("false"));
    for (condition, expected) in [
        ("if TRUE", everyone),
        ("unless FALSE", everyone),
        ("if FALSE", nobody),
        ("unless TRUE", nobody),
        ("if LOCALHOST", localhost),
        ("unless LOCALHOST", None),
        ("if !LOCALHOST", None),
        ("if ! LOCALHOST", None),
        ("if !FALSE", everyone),
        ("if ! FALSE", everyone),
        ("if !!FALSE", nobody),
        ("if TRUE LOCALHOST", localhost),
        ("if LOCALHOST FALSE", nobody),
        ("if LOCALHOST || TRUE", everyone),
        ("if LOCALHOST or FALSE", localhost),
        ("if METH_GET", None),
        ("unless METH_GET", None),
        ("if METH_GET || TRUE", everyone),
        ("if METH_GET || LOCALHOST", None),
        ("if METH_GET FALSE", nobody),
        ("if { src 127.0.0.1 }", None),
        ("if LOCALHOST { src 127.0.0.1 }", None),
        ("if { path or TRUE or x }", None),
        // Without terms there is no alternative.
        ("if LOCALHOST or", localhost),
        ("if || LOCALHOST", localhost),
        ("if !or LOCALHOST", localhost),
        ("if FALSE or", nobody),
        ("if or FALSE", nobody),
        ("if FALSE || || FALSE", nobody),
        ("if FALSE ! or", nobody),
        ("if FALSE or !", nobody),
        ("if !", nobody),
        ("if or", nobody),
        ("if", nobody),
        ("unless !", everyone),
        ("unless or", everyone),
        ("unless", everyone),
        ("unless LOCALHOST or", None),
    ] {
        let line = format!("stats admin {condition}");
        assert_eq!(admin_of(&[&line]), expected, "{condition}");
    }
    for bad in [
        "",
        " TRUE",
        " if true",
        " if {",
        " if { }",
        " if TRUE if FALSE",
        " if LOCALHOST ${NOTSET} or TRUE",
    ] {
        let page = format!("{PAGE} stats admin{bad}\n");
        let one = assert_exit("", &page, 78, "");
        assert!(!one.toml.contains("[stats]"), "{bad}");
    }
}

/// HAProxy takes an `acl` of the proxy in place of its own, and adds it to its own where that was used before.
#[test]
fn an_acl_of_the_proxy_changes_one_of_haproxys() {
    for name in ["TRUE", "FALSE", "LOCALHOST"] {
        let acl = format!("acl {name} src 10.0.0.1");
        for condition in [format!("if {name}"), format!("unless {name}")] {
            let admin = format!("stats admin {condition}");
            assert_eq!(admin_of(&[&acl, &admin]), None, "{condition}");
            let other = "stats admin if LOCALHOST";
            assert_eq!(admin_of(&[&admin, other, &acl]), None, "{condition}");
        }
    }
}

#[test]
fn a_near_word_is_the_same_in_every_run() {
    let said = || converted("x.cfg", b"global\n id 1\n").report.text(true);
    assert!(said().contains("did you mean `uid`?"), "{}", said());
}

proptest::proptest! {
    #[test]
    fn no_file_is_too_strange(bytes: Vec<u8>) {
        converted("any.cfg", &bytes);
    }

    #[test]
    fn no_mixture_of_words_is_too_strange(lines in proptest::collection::vec(0usize..10_000, 0..30)) {
        let all: Vec<Vec<u8>> = inputs()
            .into_iter()
            .flat_map(|(_, bytes)| {
                let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
                lines.collect::<Vec<_>>()
            })
            .collect();
        let mixed: Vec<&[u8]> = lines.iter().map(|at| all[at % all.len()].as_slice()).collect();
        let one = converted("mixed.cfg", &mixed.join(&b'\n'));
        let entries = one.report.entries.iter();
        let mut unset = entries.filter(|entry| entry.text.contains("is not set here"));
        if exit(&one.report) == 0 && one.listens && unset.next().is_none() {
            load(&one.toml).expect("what is carried over loads");
        }
    }
}
