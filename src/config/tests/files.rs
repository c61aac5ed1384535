//! Files: those of config/ and docs/, includes, and secrets in files.

use super::{diagnostics, limits};
use crate::config::model::{BindAddress, ServerAddress, ServerPort};
use crate::config::{Loaded, Loader, load_with};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(name)
}

#[track_caller]
fn valid(loaded: Loaded) -> crate::config::model::Config {
    match loaded {
        Ok((config, warnings)) if warnings.is_empty() => config,
        other => {
            let found = diagnostics(other);
            panic!(
                "{}",
                found
                    .iter()
                    .map(|d| d.render(false) + "\n")
                    .collect::<String>()
            )
        }
    }
}

#[test]
fn shipped_files_are_valid() {
    for file in fs::read_dir(shipped("")).expect("config/") {
        let path = file.expect("an entry").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            valid(load_with(&path, &limits()));
        }
    }
}

/// The migrated example: four services over three nodes, with known problems corrected.
#[test]
fn seed_is_carried_over() {
    let config = valid(load_with(&shipped("kurl-ha.toml"), &limits()));
    let text = fs::read_to_string(shipped("kurl-ha.toml")).expect("the file");
    assert!(text.lines().count() <= 55, "it fits on one screen");
    let rows: Vec<_> = config
        .frontends
        .iter()
        .map(|f| (&*f.name, &f.binds[0].address))
        .collect();
    let bind = |port: u16| BindAddress::Tcp(([0, 0, 0, 0], port).into());
    assert_eq!(
        rows,
        [
            ("app-direct-frontend", &bind(80)),
            ("postgres-frontend", &bind(5432)),
            ("replicated-frontend", &bind(8800)),
            ("kube-api-frontend", &bind(6443)),
        ]
    );
    let idle = [60, 3600, 60, 3600].map(|seconds| Some(Duration::from_secs(seconds)));
    for (index, (frontend, backend)) in config.frontends.iter().zip(&config.backends).enumerate() {
        assert_eq!(frontend.default_backend.0, index);
        assert_eq!(
            (frontend.timeout_client, backend.timeout_server),
            (idle[index], idle[index])
        );
        assert!(backend.connect_attempt < Duration::from_secs(1));
        let BindAddress::Tcp(bind) = &frontend.binds[0].address else {
            panic!("a TCP bind")
        };
        let servers: Vec<_> = backend
            .servers
            .iter()
            .map(|s| (&*s.name, &s.address))
            .collect();
        let at =
            |last: u8| ServerAddress::Ip([10, 240, 0, last].into(), ServerPort::Fixed(bind.port()));
        assert_eq!(
            servers,
            [
                ("app-direct-node01", &at(37)),
                ("app-direct-node02", &at(39)),
                ("app-direct-node03", &at(71)),
            ]
        );
        assert!(backend.servers.iter().all(|server| server.check.is_some()));
    }
    let stats = config.stats.expect("statistics");
    assert_eq!(
        stats.binds[0].address,
        BindAddress::Tcp(([127, 0, 0, 1], 8080).into())
    );
}

#[test]
fn examples_of_the_documentation_are_valid() {
    let docs = fs::read_to_string(shipped("../docs/configuration.md")).expect("the page");
    let mut examples = docs.split("```toml\n").skip(1).peekable();
    assert!(examples.peek().is_some());
    for example in examples {
        let text = example.split("```").next().unwrap_or_default();
        let loaded = super::load(text);
        assert!(
            loaded.is_ok(),
            "{text}\n{}",
            diagnostics(loaded)
                .iter()
                .map(|d| d.render(false))
                .collect::<String>()
        );
    }
}

struct Directory(tempfile::TempDir);

impl Directory {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        Self(directory)
    }

    fn load(&self) -> Loaded {
        load_with(&self.0.path().join("rlb.toml"), &limits())
    }

    fn problems(&self) -> Vec<String> {
        let prefix = format!("{}/", self.0.path().display());
        diagnostics(self.load())
            .iter()
            .map(|d| d.line().replace(&prefix, ""))
            .collect()
    }
}

const LISTEN: &str = "[[listen]]\nname = 'N'\nbind = '127.0.0.1:0'\n\
                      servers = [{ name = 's', address = 'a:1' }]\n";

#[test]
fn includes_are_read_in_order() {
    let listen = |name: &str| LISTEN.replace('N', name);
    let directory = Directory::new(&[
        (
            "rlb.toml",
            &format!(
                "include = ['conf.d/*.toml', 'last.toml']\n{}",
                listen("first")
            ),
        ),
        ("conf.d/20.toml", &listen("third")),
        (
            "conf.d/10.toml",
            &format!("[defaults]\nretries = 9\n{}", listen("second")),
        ),
        ("conf.d/ignored.conf", "nonsense"),
        ("conf.d/.#10.toml", "nonsense"),
        (
            "last.toml",
            &format!("include = 'deep/[a-z].toml'\n{}", listen("fourth")),
        ),
        ("deep/x.toml", &listen("fifth")),
    ]);
    let config = valid(directory.load());
    let names: Vec<_> = config
        .frontends
        .iter()
        .map(|f| (&*f.name, f.order, f.id))
        .collect();
    assert_eq!(
        names,
        [
            ("first", 1, 2),
            ("second", 3, 3),
            ("third", 5, 4),
            ("fourth", 7, 5),
            ("fifth", 9, 6),
        ]
    );
    assert!(config.backends.iter().all(|backend| backend.retries == 9));
}

#[test]
fn includes_that_cannot_be() {
    let directory = Directory::new(&[
        (
            "rlb.toml",
            "include = ['none/*.toml', 'missing.toml', 'a.toml', 'a.toml', 'x[.toml']\n\
                      [defaults]\nretries = 1\n",
        ),
        (
            "a.toml",
            "include = 'rlb.toml'\n[defaults]\nretries = 2\n[global]\nthread = 1\n",
        ),
    ]);
    let found = directory.problems();
    let expected = [
        "rlb.toml:1:12: warning: no file matches",
        "rlb.toml:1:27: error: cannot read",
        "rlb.toml:1:53: warning:",
        "rlb.toml:1:63: error: the pattern is not valid",
        "a.toml:1:11: error: `rlb.toml` includes itself",
        "a.toml:2:1: error: [defaults] is already in rlb.toml:2",
        "a.toml:5:1: error: unknown key `thread`",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found} / {expected}");
    }
}

/// A name that is defined in two files; both places are shown.
#[test]
fn problems_across_files() {
    let directory = Directory::new(&[
        ("rlb.toml", &format!("include = 'b.toml'\n{LISTEN}")),
        ("b.toml", LISTEN),
    ]);
    let found = diagnostics(directory.load());
    assert_eq!(found.len(), 2, "{found:#?}");
    let shown = found[0].render(false);
    assert!(
        shown.contains("b.toml:2:8") && shown.contains("rlb.toml:3"),
        "{shown}"
    );
    let json = found[0].to_json();
    assert_eq!(
        (&json["line"], &json["column"], &json["end"]["column"]),
        (&2.into(), &8.into(), &11.into())
    );
    assert_eq!(json["path"], "listen[N].name");
    assert_eq!(json["related"]["line"], 3);
}

#[test]
fn secrets_come_from_files() {
    let directory = Directory::new(&[
        (
            "rlb.toml",
            "[global]\ndescription = '<${file:secret}>'\nnode = '${file:missing}'\n\
                      [stats]\nbind = '${file:secret}'\n",
        ),
        ("secret", "swordfish\r\n"),
    ]);
    let found = directory.problems();
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found[0].starts_with("rlb.toml:3:9: error: cannot read `missing`"),
        "{found:?}"
    );
    assert!(
        found[1].starts_with("rlb.toml:5:8: error: what '${file:secret}' stands for"),
        "{found:?}"
    );
    let good = Directory::new(&[
        (
            "rlb.toml",
            &format!("[global]\ndescription = '<${{file:secret}}>'\n{LISTEN}"),
        ),
        ("secret", "swordfish\r\n"),
    ]);
    assert_eq!(
        valid(good.load()).global.description.as_deref(),
        Some("<swordfish>")
    );
}

#[test]
fn files_that_cannot_be_read() {
    let directory = Directory::new(&[]);
    assert!(
        directory.problems()[0].contains("cannot read"),
        "{:?}",
        directory.problems()
    );
    fs::write(
        directory.0.path().join("rlb.toml"),
        b"[global]\nnode = '\xff'",
    )
    .expect("a file");
    assert!(
        directory.problems()[0].contains("not UTF-8 in line 2"),
        "{:?}",
        directory.problems()
    );
    fs::create_dir(directory.0.path().join("x")).expect("a directory");
    let loader = Loader {
        limits: limits(),
        environment: &|_| None,
        disk: true,
    };
    assert!(loader.load(&directory.0.path().join("x")).is_err());
}

#[test]
fn everything_that_a_load_looks_at_is_known() {
    let directory = Directory::new(&[
        (
            "rlb.toml",
            "include = ['more.toml', 'gone.toml', 'conf.d/*.toml']\n\
             [global]\ndescription = '${file:secret}'\nnode = '${file:run/missing}'\n",
        ),
        (
            "more.toml",
            "[stats]\nbind = '127.0.0.1:1'\nauth = ['a:${file:deep}']\n",
        ),
        ("secret", "x"),
        ("deep", "y"),
    ]);
    let root = directory.0.path();
    let found = crate::config::load_all(&root.join("rlb.toml"), &limits());
    let found = found.files.looked_at;
    let names = [
        "rlb.toml",
        "secret",
        "run/missing",
        "more.toml",
        "deep",
        "gone.toml",
        "conf.d/*.toml",
    ];
    assert_eq!(found, names.map(|name| root.join(name)));
}
