//! The commands of the pages for operators, run against a running rlb. A page is run from top to end; the
//! package's paths are replaced by a directory of the test.

use super::all;
use crate::harness::eventually::eventually;
use crate::harness::needs;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::program_file;
use crate::harness::rlb::PROGRAM;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Commands of these pages that are not run here, by their beginning, and the test that runs them instead.
const TRIED_ELSEWHERE: [(&str, &str); 9] = [
    ("sudo apt-get install", "tests/run installs packages"),
    (
        "curl --proto '=https'",
        "installs the Rust tool chain, which this test was built with",
    ),
    (". \"$HOME/.cargo/env\"", "the same"),
    (
        "packaging/build-deb",
        "tests/systemd/run builds the package",
    ),
    (
        "sudo dpkg -i",
        "tests/systemd/run installs the package, and upgrades it",
    ),
    (
        "cargo run --release -- demo",
        "tests/it/demo.rs runs the demo",
    ),
    ("tests/run", "this is a part of it"),
    ("sudo systemctl edit", "opens an editor"),
    (
        "sudo systemctl restart",
        "tests/systemd/run restarts the service",
    ),
];

/// Longest time for a command.
const COMMAND_MAX: &str = "30";

/// The balancer of the pages for operators: the package's paths, in a directory of its own.
struct Installed {
    dir: TempDir,
    rlb: Child,
    stats: SocketAddr,
    service: SocketAddr,
    /// Servers; dropped last.
    _nodes: Vec<Peer>,
}

impl Installed {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        for folder in ["etc", "run", "log", "bin", "home"] {
            fs::create_dir(dir.path().join(folder)).expect("a folder");
        }
        let nodes: Vec<Peer> = (0..3).map(|_| Peer::start(Behaviour::Echo)).collect();
        let (stats, service) = (ports::free(), ports::free());
        let mut text = format!(
            "[global]\nhard-stop-after = '1s'\n\n[stats]\nbind = '{stats}'\n\n\
             [runtime-api]\nsocket = '{0}/run/admin.sock'\n\n\
             [[log.target]]\nto = 'file:{0}/log/sessions.log'\n\n\
             [defaults]\ncheck = {{ interval = '200ms' }}\n\n\
             [[listen]]\nname = \"postgres\"\nbind = \"{service}\"\nservers = [\n",
            dir.path().display()
        );
        for (index, node) in nodes.iter().enumerate() {
            let name = format!("node{:02}", index + 1);
            writeln!(
                text,
                "  {{ name = \"{name}\", address = \"{}\" }},",
                node.address()
            )
            .expect("a string");
        }
        text.push_str("]\n");
        let config = dir.path().join("etc/rlb.toml");
        fs::write(&config, text).expect("the configuration");
        let events = fs::File::create(dir.path().join("log/events")).expect("a file");
        let rlb = Command::new(PROGRAM)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(events)
            .spawn()
            .expect("it starts");
        let this = Self {
            dir,
            rlb,
            stats,
            service,
            _nodes: nodes,
        };
        this.install_commands();
        eventually(Duration::from_secs(10), "all servers are UP", || {
            let text = this.run("rlb ctl 'show stat postgres 4 -1'").ok()?;
            (text.matches(",UP,").count() == 3).then_some(())
        });
        this
    }

    /// The commands of the pages that are not under test.
    fn install_commands(&self) {
        let path = self.dir.path().display();
        let config = format!("{path}/etc/rlb.toml");
        let rlb = format!(
            "#!/bin/bash\ncommand=$1\nshift\ncase $command in\n\
             ctl|reload|upgrade|diff) exec {PROGRAM} $command --config {config} \"$@\" ;;\n\
             check) [ $# -gt 0 ] || set -- {config} ;;\nesac\n\
             exec {PROGRAM} $command \"$@\"\n"
        );
        let commands = [
            ("rlb", rlb),
            ("sudo", "#!/bin/bash\nexec \"$@\"\n".to_owned()),
            // ExecReload of rlb.service.
            (
                "systemctl",
                "#!/bin/bash\n[ \"$*\" = 'reload rlb' ] && exec rlb reload\n\
                 echo \"systemctl $*: not here\" >&2\nexit 1\n"
                    .to_owned(),
            ),
            (
                "journalctl",
                format!("#!/bin/bash\nexec cat {path}/log/events\n"),
            ),
        ];
        for (name, text) in commands {
            program_file::script(&self.dir.path().join("bin").join(name), &text);
        }
    }

    /// A text of a page with the paths of this machine.
    fn placed(&self, text: &str) -> String {
        let path = self.dir.path().display().to_string();
        text.replace("/etc/rlb", &format!("{path}/etc"))
            .replace("/run/rlb", &format!("{path}/run"))
            .replace("/var/log/rlb", &format!("{path}/log"))
            .replace("127.0.0.1:8404", &self.stats.to_string())
            .replace(
                "127.0.0.1 5432",
                &format!("127.0.0.1 {}", self.service.port()),
            )
            .replace(
                "127.0.0.1/5432",
                &format!("127.0.0.1/{}", self.service.port()),
            )
            .replace("127.0.0.1:5432", &self.service.to_string())
    }

    /// Runs a command. Returns its output; when it fails, its status is the last line.
    fn run(&self, command: &str) -> Result<String, String> {
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("timeout")
            .args([COMMAND_MAX, "bash", "-eu", "-o", "pipefail", "-c"])
            .arg(format!("exec 2>&1\n{}", self.placed(command)))
            .env("PATH", format!("{}/bin:{path}", self.dir.path().display()))
            .env("HOME", self.dir.path().join("home"))
            .current_dir(self.dir.path().join("home"))
            .stdin(Stdio::null())
            .output()
            .expect("bash");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(said)
        } else {
            let end = if said.is_empty() || said.ends_with('\n') {
                ""
            } else {
                "\n"
            };
            Err(format!("{said}{end}{}\n", output.status))
        }
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // After an upgrade another process serves, which is not a child of this one.
        if let Ok(info) = self.run("rlb ctl 'show info' | sed -n 's/^Pid: //p'")
            && let Ok(id) = info.trim().parse()
        {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
        let _ = self.rlb.kill();
        let _ = self.rlb.wait();
    }
}

/// Whether the output of a command is what the page shows.
fn printed(shown: &[String], said: &[&str]) -> bool {
    match shown.split_first() {
        None => said.is_empty(),
        Some((line, rest)) if line == "…" => {
            (0..=said.len()).any(|skipped| printed(rest, &said[skipped..]))
        }
        Some((line, rest)) => said
            .split_first()
            .is_some_and(|(first, said)| like(line, first) && printed(rest, said)),
    }
}

/// Whether a line matches one with `…` for any text.
fn like(shown: &str, said: &str) -> bool {
    match shown.split_once('…') {
        None => shown.trim_end() == said.trim_end(),
        Some((before, after)) => said.strip_prefix(before).is_some_and(|rest| {
            let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            ends.into_iter().any(|at| like(after, &rest[at..]))
        }),
    }
}

/// The commands of a console block, each with its output. A command continues after `\`.
fn session(text: &str) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push((command.to_owned(), Vec::new()));
            continue;
        }
        let (command, shown) = commands.last_mut().expect("a block begins with a command");
        if command.ends_with('\\') && shown.is_empty() {
            write!(command, "\n{line}").expect("a string");
        } else {
            shown.push(line.to_owned());
        }
    }
    commands
}

/// Whether another test runs all commands of a block. A block is either run or not.
fn tried_elsewhere(text: &str) -> bool {
    let begins = |line: &str| {
        TRIED_ELSEWHERE
            .iter()
            .any(|(start, _)| line.starts_with(start))
    };
    let mut lines = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .peekable();
    lines.peek().is_some_and(|line| begins(line))
}

fn run_page(path: &str) {
    if needs::program("curl").is_none() {
        return;
    }
    let documents = all();
    let page = documents
        .iter()
        .find(|it| it.path == path)
        .expect("the page");
    let here = Installed::start();
    let mut count = 0;
    for block in page.blocks() {
        let place = format!("{path}:{}", block.line);
        match block.language {
            "sh" if tried_elsewhere(&block.text) => {}
            "sh" => {
                count += 1;
                if let Err(said) = here.run(&block.text) {
                    panic!("{place}: {said}");
                }
            }
            "console" => {
                for (command, shown) in session(&block.text) {
                    count += 1;
                    let said = match here.run(&command) {
                        Ok(said) | Err(said) => said,
                    };
                    let said = said.replace(
                        &here.dir.path().join("etc").display().to_string(),
                        "/etc/rlb",
                    );
                    let said = said.replace(
                        &here.dir.path().join("run").display().to_string(),
                        "/run/rlb",
                    );
                    let said = said.replace(&here.stats.to_string(), "127.0.0.1:8404");
                    let lines: Vec<&str> = said.lines().filter(|it| !it.is_empty()).collect();
                    let shown: Vec<String> =
                        shown.into_iter().filter(|it| !it.is_empty()).collect();
                    assert!(
                        printed(&shown, &lines),
                        "{place}: {command}\n{said}\nshown:\n{shown:#?}"
                    );
                }
            }
            _ => {}
        }
    }
    assert!(count > 0, "{path} has no commands");
}

#[test]
fn the_commands_of_the_cookbook_do_what_it_shows() {
    run_page("docs/cookbook.md");
}

#[test]
fn the_commands_of_the_troubleshooting_page_do_what_it_shows() {
    run_page("docs/troubleshooting.md");
}

#[test]
fn the_commands_of_the_faq_do_what_it_shows() {
    run_page("docs/faq.md");
}

#[test]
fn the_commands_of_the_readme_do_what_it_shows() {
    run_page("README.md");
}

#[test]
fn shown_lines_match_as_they_should() {
    let shown = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(printed(&shown("a\n…\nd"), &["a", "b", "c", "d"]));
    assert!(!printed(&shown("a\n…\nd"), &["a", "b"]));
    assert!(printed(&shown("1 … 3"), &["1 2 3"]) && !printed(&shown("1 … 3"), &["1 2 4"]));
    let commands = session("$ one \\\n  two\nsaid\n$ three\n");
    assert_eq!(
        commands[0],
        ("one \\\n  two".to_owned(), vec!["said".to_owned()])
    );
    assert_eq!(commands[1], ("three".to_owned(), Vec::new()));
}
