//! A large configuration for rlb and for HAProxy, and its reload.

use super::{
    Kind, LARGE_FIRST_PORT, LARGE_FRONTENDS, LOG_PORT, PROXY_PORT, Running, SERVER_PORTS, Subject,
    echoes, pinned,
};
use crate::measure::wait_until;
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Servers of each backend.
const SERVERS: u32 = 10;

/// What differs between large configurations.
#[derive(Clone, Copy)]
pub struct Large {
    /// Whether servers are checked.
    pub checks: bool,
    /// Number of earlier reloads: each changes the weight of the first server of every tenth backend.
    pub generation: u32,
}

/// The configuration in the subject's format.
pub fn config(subject: &Subject, large: Large) -> Result<String> {
    match subject.kind {
        Kind::Rlb => Ok(rlb(large)),
        Kind::Haproxy => Ok(haproxy(large)),
        Kind::Nginx | Kind::Direct => bail!("{} has no large configuration", subject.name),
    }
}

/// Reloads with `config`. Returns the time until it is in force: for rlb until the answer on the runtime
/// socket, for HAProxy until the old process, which has no sessions, ends.
pub fn reload(subject: &Subject, running: &mut Running, config: &str) -> Result<Duration> {
    let dir = running.dir.clone().context("a proxy has a folder")?;
    let file = dir.join("config");
    fs::write(&file, config.replace("@DIR@", &dir.display().to_string()))?;
    let begun = Instant::now();
    match subject.kind {
        Kind::Rlb => {
            let mut socket = UnixStream::connect(dir.join("admin.sock"))?;
            socket.write_all(b"reload\n")?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            ensure!(answer.contains("weight"), "rlb has not reloaded: {answer}");
        }
        Kind::Haproxy => {
            let mut old = running.child.take().context("it runs")?;
            let log = fs::File::create(dir.join("output"))?;
            let mut command = pinned(&(0..subject.cores).collect::<Vec<_>>());
            command.arg(&subject.binary).args(["-db", "-f"]).arg(&file);
            command.args(["-sf", &old.id().to_string()]);
            command.stdin(Stdio::null()).stdout(log.try_clone()?);
            running.child = Some(command.stderr(log).spawn()?);
            wait_until("the old process ends", || Ok(old.try_wait()?.is_some()))?;
        }
        Kind::Nginx | Kind::Direct => bail!("{} has no reload here", subject.name),
    }
    let took = begun.elapsed();
    wait_until("it serves again", || Ok(echoes(running.target, false)))?;
    Ok(took)
}

/// Frontends: number, port, weight of the first server.
fn frontends(large: Large) -> impl Iterator<Item = (u16, u16, u32)> {
    (0..LARGE_FRONTENDS).map(move |number| {
        let last = number + 1 == LARGE_FRONTENDS;
        let port = if last {
            PROXY_PORT
        } else {
            LARGE_FIRST_PORT + number
        };
        let changed = number.is_multiple_of(10);
        (number, port, 1 + if changed { large.generation } else { 0 })
    })
}

fn server_port(index: u32) -> u16 {
    SERVER_PORTS[index as usize % SERVER_PORTS.len()]
}

fn rlb(large: Large) -> String {
    let mut text = format!(
        "[global]\nthreads = 1\nmaxconn = 1000\n\
         [runtime-api]\nsocket = \"@DIR@/admin.sock\"\n\
         [[log.target]]\nto = \"udp:127.0.0.1:{LOG_PORT}\"\n\
         [defaults]\ncheck = {}\n\
         timeout = {{ client = \"60s\", server = \"60s\", connect = \"5s\" }}\n",
        if large.checks { "\"tcp\"" } else { "false" }
    );
    for (number, port, weight) in frontends(large) {
        let _ = write!(
            text,
            "[[listen]]\nname = \"load{number}\"\nbind = \"127.0.0.1:{port}\"\nservers = [\n"
        );
        for index in 0..SERVERS {
            let weight = if index == 0 { weight } else { 1 };
            let _ = writeln!(
                text,
                "  {{ name = \"s{index}\", address = \"127.0.0.1:{}\", weight = {weight} }},",
                server_port(index)
            );
        }
        text.push_str("]\n");
    }
    text
}

fn haproxy(large: Large) -> String {
    let mut text = format!(
        "global\n  maxconn 1000\n  nbthread 1\n  log 127.0.0.1:{LOG_PORT} local0\n\
         defaults\n  mode tcp\n  log global\n  option tcplog\n  timeout connect 5s\n  \
         timeout client 60s\n  timeout server 60s\n"
    );
    let check = if large.checks { " check" } else { "" };
    for (number, port, weight) in frontends(large) {
        let _ = writeln!(
            text,
            "listen load{number}\n  bind 127.0.0.1:{port}\n  balance roundrobin"
        );
        for index in 0..SERVERS {
            let weight = if index == 0 { weight } else { 1 };
            let _ = writeln!(
                text,
                "  server s{index} 127.0.0.1:{} weight {weight}{check}",
                server_port(index)
            );
        }
    }
    text
}
