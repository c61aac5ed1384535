//! Reads server-state files at the start. What is wrong with one is said, and the start goes on.

use crate::config::model::StatesFrom;
use crate::state::{AdminState, RuntimeState, ServerState, Snapshot};
use crate::stats::servers_state::{self, Unreadable};
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Most bytes of a file: more than 65,536 servers need.
const FILE_MAX: u64 = 64 << 20;

/// The states with which the servers of `snapshot` begin.
pub(in crate::control) fn read(snapshot: &Snapshot, now: Instant) -> RuntimeState {
    let files = &snapshot.state_files;
    let mut servers = Vec::new();
    let backends = || snapshot.backends.iter().flatten();
    let from_global =
        backends().filter(|it| it.spec.load_server_state_from_file == StatesFrom::Global);
    let from_global: HashSet<&str> = from_global.map(|it| &*it.spec.name).collect();
    if let Some(path) = files.global().filter(|_| !from_global.is_empty()) {
        let known = one(&path, "global", now).into_iter();
        servers.extend(known.filter(|state| from_global.contains(&*state.backend)));
    }
    for backend in backends() {
        let Some(path) = files.local(&backend.spec) else {
            continue;
        };
        let name = &backend.spec.name;
        let here = backend.servers.iter().map(|server| &*server.spec.name);
        let here: HashSet<&str> = here.collect();
        for state in one(&path, name, now) {
            if *state.backend == **name && here.contains(&*state.server) {
                servers.push(state);
            } else {
                let (backend, server) = (&state.backend, &state.server);
                tracing::warn!(
                    "proxy '{name}': can't find server '{server}' in backend '{backend}'"
                );
            }
        }
    }
    undrain(&mut servers, snapshot);
    RuntimeState {
        overrides: String::new(),
        servers,
    }
}

/// The states in a file.
fn one(path: &Path, of: &str, now: Instant) -> Vec<ServerState> {
    let shown = path.display();
    let text = match text(path) {
        Ok(text) => text,
        // So it is before the first stop.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            tracing::info!(path = %shown, of, "there is no server-state file yet");
            return Vec::new();
        }
        Err(error) => {
            tracing::warn!(path = %shown, of, %error, "can't open the server-state file");
            return Vec::new();
        }
    };
    match servers_state::read_file(&text, (now, Duration::ZERO)) {
        Ok((servers, wrong)) => {
            for server in wrong {
                let said = format!("server-state application failed for server '{server}'");
                tracing::warn!(path = %shown, "{said}");
            }
            return servers;
        }
        Err(Unreadable::Empty) => {
            tracing::info!(path = %shown, of, "empty server-state file");
        }
        Err(Unreadable::Version) => {
            tracing::warn!(path = %shown, of, "can't get version of the server-state file");
        }
        Err(Unreadable::Line(line)) => {
            tracing::warn!(path = %shown, of, line, "corrupted server-state file");
        }
    }
    Vec::new()
}

fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    open(path)?.take(FILE_MAX).read_to_end(&mut bytes)?;
    // A name that is no UTF-8 is that of no server.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Opens a regular file. Nothing else has states, and a pipe would keep the start waiting.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("it is no regular file"))
}

/// As in HAProxy a server that was drained while its weight in the configuration was 0 is not when that is another one.
fn undrain(servers: &mut [ServerState], snapshot: &Snapshot) {
    let backends = snapshot.backends.iter().flatten();
    let written = backends.flat_map(|backend| {
        let name = &*backend.spec.name;
        let servers = backend.servers.iter();
        servers.map(move |server| ((name, &*server.spec.name), server.spec.weight))
    });
    let written: HashMap<(&str, &str), u32> = written.collect();
    for state in servers {
        let now = written.get(&(&*state.backend, &*state.server));
        if state.configured_weight == 0 && now.is_some_and(|weight| *weight > 0) {
            state.admin = state.admin.without(AdminState::FDRAIN);
        }
    }
}
