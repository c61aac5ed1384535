//! The costs of a load, and the files that it reads: unusual texts and kinds of files.

use super::{diagnostics, limits, load};
use crate::config::{
    BINDS_MAX, BYTES_MAX, ENTRIES_MAX, FILES_MAX, MARKS_MAX, SERVERS_MAX, load_or_pipe, load_with,
    processor_time,
};
use rustix::fs::{FileType, Mode, mknodat};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// Processor time that a load of an unusual file may take in this thread. In the release build it is 2 s; the
/// tests are built with fewer optimizations.
const LOAD_MAX: Duration = Duration::from_secs(6);

/// A service, so that the file is complete.
const LISTEN: &str = "[[listen]]\nname = 'l'\nbind = '127.0.0.1:80'\n\
                      servers = [{ name = 's', address = '10.0.0.1:80' }]\n";

/// Loads `text` and renders the diagnostics; the first code.
#[track_caller]
fn first_code(what: &str, text: &str) -> Option<&'static str> {
    let start = processor_time();
    let found = diagnostics(load(text));
    for one in &found {
        let _ = (one.render(false), one.line(), one.to_json());
    }
    let took = processor_time().saturating_sub(start);
    assert!(took < LOAD_MAX, "{what}: {took:?}");
    found.first().map(|one| one.code)
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(|index| line(index) + "\n").collect()
}

/// Fault 45: files that took minutes and gigabytes.
#[test]
fn fault_45_no_unusual_file_takes_long() {
    let servers = |count, more: &str| {
        let server = |index| format!("{{ name = 's{index}', address = '10.0.0.1:80'{more} }},");
        format!(
            "[[listen]]\nname = 'l'\nbind = '*:80'\nservers = [\n{}]\n",
            lines(count, server)
        )
    };
    let listen = |index, bind: &str, rest: &str| {
        format!("[[listen]]\nname = 'l{index}'\nbind = '{bind}'\n{rest}")
    };
    let group = lines(20_000, |index| format!("n{index} = '10.0.0.1'"));
    let users = lines(2000, |index| {
        let bind = format!("*:{}", index + 1);
        listen(index, &bind, "nodes = 'g'\nport = 80")
    });
    let server = "servers = [{ name = 's', address = '10.0.0.1:80' }]";
    let ranges = lines(2000, |index| listen(index, "*:1-65535", server));
    let cases = [
        (
            "group",
            format!("[node-group.g]\n{group}{users}"),
            "out-of-range",
        ),
        ("ranges", ranges, "out-of-range"),
        ("equals", "=\n".repeat(3_000_000), "too-large"),
        ("few equals", "=\n".repeat(MARKS_MAX / 2 - 1), "syntax"),
        ("returns", "\r".repeat(MARKS_MAX - 1), "syntax"),
        ("types", servers(50_000, ", weight = 'x'"), "wrong-type"),
        ("wide", servers(100_000, ""), "too-large"),
        (
            "names",
            servers(30_000, "").replace("'s1", "'s"),
            "duplicate",
        ),
        ("headers", lines(150_000, |_| "[a]".to_owned()), "syntax"),
        ("dots", format!("a{} = 1", ".a".repeat(400_000)), "syntax"),
        (
            "keys",
            lines(200_000, |index| format!("nbk{index}=1")),
            "unknown-key",
        ),
    ];
    check(&cases);
}

/// The same for files that consist mostly of mistakes.
#[test]
fn fault_45_no_number_of_mistakes_takes_long() {
    let cases = [
        (
            "backends",
            lines(20_000, |index| {
                format!(
                    "[[frontend]]\nname='f{index}'\ndefault-backend='x{index}'\n[[backend]]\nname='b{index}'"
                )
            }),
            "no-server",
        ),
        (
            "references",
            format!("[global]\ndescription = '{}'", "${A}".repeat(2_000_000)),
            "reference",
        ),
        (
            "bad references",
            lines(80_000, |index| format!("a{index} = '${{B}}'")),
            "reference",
        ),
        (
            "one line",
            format!("[global]\ndescription = '{}' x", "x".repeat(9_000_000)),
            "syntax",
        ),
        ("blank", " ".repeat(10_000_000), "no-listener"),
    ];
    check(&cases);
}

/// Each file: a description, its text, and its first code.
#[track_caller]
fn check(files: &[(&str, String, &str)]) {
    for (what, text, code) in files {
        assert_eq!(first_code(what, text), Some(*code), "{what}");
    }
}

/// A configuration may use everything that the bounds allow.
#[test]
fn what_the_bounds_allow_is_loaded() {
    let mut text = "[[listen]]\nname = 'l'\nbind = '*:1-16384'\nservers = [\n".to_owned();
    for index in 0..SERVERS_MAX {
        let _ = writeln!(text, "{{ name = 's{index}', address = '10.0.0.1:80' }},");
    }
    text.push_str("]\n");
    let (config, _) = load(&text).expect("valid");
    assert_eq!(config.backends[0].servers.len(), SERVERS_MAX);
    assert_eq!(config.frontends[0].binds.len(), BINDS_MAX);
}

/// Fault 43: nothing waits for a FIFO, a device or a socket, whichever reference names it.
#[test]
fn fault_43_only_regular_files_are_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    mknodat(rustix::fs::CWD, path("fifo"), FileType::Fifo, Mode::RUSR, 0).expect("a FIFO");
    let _listener = UnixListener::bind(path("socket")).expect("a socket");
    fs::create_dir(path("directory")).expect("a directory");
    std::os::unix::fs::symlink("/dev/zero", path("device")).expect("a link");
    let start = Instant::now();
    for (name, kind) in [
        ("fifo", "a FIFO"),
        ("socket", "a socket"),
        ("directory", "a directory"),
        ("device", "a device"),
    ] {
        let top = path("rlb.toml");
        let texts = [
            format!("include = '{name}'\n{LISTEN}"),
            format!("include = '{}*'\n{LISTEN}", &name[..3]),
            format!("[global]\ndescription = '${{file:{name}}}'\n{LISTEN}"),
        ];
        for (index, text) in texts.iter().enumerate() {
            fs::write(&top, text).expect("written");
            let found = diagnostics(load_with(&top, &limits()));
            let said = found.first().map(|one| one.message.clone());
            // A pattern does not match a directory.
            if (name, index) == ("directory", 1) {
                assert_eq!(said.as_deref(), Some("no file matches"));
                continue;
            }
            let said = said.unwrap_or_default();
            assert!(
                said.contains(kind) && said.contains("regular file"),
                "{text}: {said}"
            );
        }
        let found = diagnostics(load_with(&path(name), &limits()));
        assert!(found[0].message.contains(kind), "{found:?}");
    }
    // A pipe on the command line of `rlb check` is read for a limited time.
    let found = diagnostics(load_or_pipe(&path("fifo"), &limits()));
    assert!(
        found[0].message.contains("its end did not come"),
        "{found:?}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    let fifo = path("fifo");
    fs::set_permissions(&fifo, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
    let writer = std::thread::spawn(move || {
        let mut writer = fs::OpenOptions::new()
            .write(true)
            .open(fifo)
            .expect("a reader");
        writer.write_all(LISTEN.as_bytes()).expect("written");
    });
    let loaded = load_or_pipe(&path("fifo"), &limits());
    assert!(loaded.is_ok(), "{loaded:?}");
    writer.join().expect("the writer");
}

/// Faults 43 and 45, their kind: many directories with few entries each.
#[test]
fn the_directories_that_a_pattern_opens_are_bounded() {
    let directory = tempfile::tempdir().expect("a directory");
    let many = ENTRIES_MAX / 20 + 1;
    for number in 0..many {
        fs::create_dir(directory.path().join(format!("{number}"))).expect("a directory");
    }
    let top = directory.path().join("rlb.toml");
    fs::write(&top, "include = '*/*.toml'\n").expect("written");
    let problems = load_with(&top, &limits()).expect_err("too many");
    let told: Vec<_> = problems.iter().map(|it| &*it.message).collect();
    let expected = format!("no more than {ENTRIES_MAX} directory entries are looked at");
    assert_eq!(
        told.iter().filter(|it| **it == expected).count(),
        1,
        "{told:?}"
    );
}

/// A pattern that matches everything cost seconds: files that are no configuration were read without a bound.
#[test]
fn the_files_that_a_pattern_matches_are_bounded() {
    let directory = tempfile::tempdir().expect("a directory");
    let told = |pattern: &str| {
        let top = directory.path().join("rlb.toml");
        fs::write(&top, format!("include = '{pattern}'\n{LISTEN}")).expect("written");
        let problems = load_with(&top, &limits()).expect_err("refused");
        problems
            .into_iter()
            .map(|it| it.message)
            .collect::<Vec<_>>()
    };
    let bound = |told: &[String], text: &str| told.iter().filter(|it| it.starts_with(text)).count();
    fs::create_dir(directory.path().join("many")).expect("a directory");
    for number in 0..FILES_MAX + 50 {
        let path = directory.path().join(format!("many/{number}"));
        fs::write(path, "").expect("written");
    }
    let many = told("many/*");
    assert_eq!(bound(&many, "more than 1000 files: `"), 1, "{many:?}");
    // The bytes of files that are not UTF-8 count.
    fs::create_dir(directory.path().join("large")).expect("a directory");
    let large = vec![0xff; usize::try_from(BYTES_MAX / 4).expect("it fits")];
    for number in 0..9 {
        let path = directory.path().join(format!("large/{number}"));
        fs::write(path, &large).expect("written");
    }
    let large = told("large/*");
    assert_eq!(
        bound(&large, "the files have more than 16777216 bytes: `"),
        1,
        "{large:?}"
    );
    assert_eq!(bound(&large, "cannot read `"), 4, "{large:?}");
    // Whatever the kernel has: one of the bounds ends it.
    let start = Instant::now();
    let proc = told("/proc/*/*");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert!(!proc.is_empty());
}

#[test]
fn patterns_are_compared_level_by_level() {
    let directory = tempfile::tempdir().expect("a directory");
    let put = |name: &str| {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("in a directory")).expect("a directory");
        let text = LISTEN.replace("'l'", &format!("'{}'", name.replace('/', "-")));
        fs::write(path, text.replace(":80'\nservers", ":0'\nservers")).expect("written");
    };
    for name in [
        "a/2/x.toml",
        "a/1/x.toml",
        "a/1/y.toml",
        "a/z.toml",
        "b/1/x.toml",
    ] {
        put(name);
    }
    let names = |pattern: &str| {
        let top = directory.path().join("rlb.toml");
        fs::write(&top, format!("include = '{pattern}'\n")).expect("written");
        match load_with(&top, &limits()) {
            Ok((config, _)) => {
                let names = config.frontends.iter().map(|it| it.name.to_string());
                names.collect::<Vec<_>>().join(" ")
            }
            Err(problems) => problems[0].message.clone(),
        }
    };
    assert_eq!(names("a/*/x.toml"), "a-1-x.toml a-2-x.toml");
    assert_eq!(names("[ab]/1/*"), "a-1-x.toml a-1-y.toml b-1-x.toml");
    assert_eq!(names("*/?.toml"), "a-z.toml");
    let absolute = format!("{}/a/*.toml", directory.path().display());
    assert_eq!(names(&absolute), "a-z.toml");
    assert!(names("**/x.toml").contains("`**`"));
    assert!(names("a/*/none.toml").contains("no listener"));
}
