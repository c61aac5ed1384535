//! Tests of a whole load: bad files with the place of every problem, the meaning of valid files, the files of
//! config/ and docs/, the declaration of each key, and robustness.

mod bad;
mod bounds;
mod files;
mod keys;
mod listeners;
mod meaning;
mod proxy_headers;
mod robust;
mod stats;

use super::{Diagnostic, Limits, Loaded, Loader};

/// A machine with limits that no test reaches by accident.
pub(super) fn limits() -> Limits {
    Limits {
        nofile: Some(1_000_000),
        somaxconn: Some(65_535),
        cores: 2,
        net_admin: true,
    }
}

/// Loads `text` without reading files; the environment has `SET` and `SECRET`.
pub(super) fn load(text: &str) -> Loaded {
    load_with(text, limits())
}

pub(super) fn load_with(text: &str, limits: Limits) -> Loaded {
    let environment = |name: &str| match name {
        "SET" => Some("from-environment".to_owned()),
        "SECRET" => Some("hunter2:swordfish".to_owned()),
        _ => None,
    };
    Loader {
        limits,
        environment: &environment,
        disk: false,
    }
    .load_text("test.toml", text)
}

/// All diagnostics, whether the load has succeeded or not.
pub(super) fn diagnostics(loaded: Loaded) -> Vec<Diagnostic> {
    match loaded {
        Ok((_, warnings)) => warnings,
        Err(diagnostics) => diagnostics,
    }
}
