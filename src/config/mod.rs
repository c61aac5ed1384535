//! The configuration file: text → [`keys::File`] → [`model::Config`].
//!
//! Plain data and code, usable from any thread. [`load`] does not stop at the first problem: it returns all
//! problems, each with its place.

pub mod address;
mod choices;
pub mod descriptors;
pub mod diagnostic;
pub mod diff;
mod disk;
pub mod format;
pub mod haproxy;
mod hash_names;
pub mod hash_on;
mod include;
mod input_files;
mod interpolate;
mod key;
pub mod keys;
pub mod model;
pub mod own_tlv;
mod read;
mod scope;
pub mod script;
mod shapes;
mod show;
pub mod source;
pub mod state_files;
mod syntax;
pub mod tls;
mod tree;
pub mod units;
mod unknown;
mod validate;
mod values;
mod words;

#[cfg(test)]
mod tests;

pub use diagnostic::{Diagnostic, Severity};
pub use disk::real_path;
pub use include::{ENTRIES_MAX, FILES_MAX};
pub use input_files::InputFiles;
pub use interpolate::{REFERENCE_BYTES_MAX, REFERENCE_VALUES_MAX, SECRET_FILE_BYTES_MAX};
pub use key::{Difference, Effect, Key, MAXCONN_MAX};
pub use keys::{
    API_MAXCONN_MAX, BACKLOG_MAX, DRAWS_MAX, ERROR_LIMIT_MAX, FACTOR_MAX, MSS_BOUNDS, RETRIES,
    RETRIES_MAX, RISE_FALL_MAX, THREADS_MAX, WEIGHT_MAX,
};
#[cfg(test)]
pub(crate) use read::processor_time;
pub use read::{BYTES_MAX, INCLUDE_DEPTH_MAX, MARKS_MAX};
pub use validate::{BINDS_MAX, SERVERS_MAX, uri_problem};

use model::Config;
use source::Source;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A valid configuration and its warnings, or all its problems.
pub type Loaded = Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>>;

/// The limits of the machine that are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Hard limit of file descriptors (`RLIMIT_NOFILE`).
    pub nofile: Option<u64>,
    /// `net.core.somaxconn`: longest accept queue of one socket.
    pub somaxconn: Option<u32>,
    /// Usable cores: default of `threads`.
    pub cores: usize,
    /// Whether this process may use addresses of others (`CAP_NET_ADMIN` or `CAP_NET_RAW`); `true` when not known.
    pub net_admin: bool,
}

/// Descriptor limit that is assumed when the real one is unknown: systemd's default hard limit.
pub(crate) const NOFILE_UNKNOWN: u64 = 524_288;

impl Limits {
    /// Limits of which only the number of cores is known.
    pub fn unknown() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            nofile: None,
            somaxconn: None,
            cores,
            net_admin: true,
        }
    }
}

/// What a load may use besides the text.
pub struct Loader<'a> {
    /// The limits of the machine.
    pub limits: Limits,
    /// Value of an environment variable.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Whether `include` and `${file:…}` may read files, those that keys name are read, and folders may be looked at.
    pub disk: bool,
}

/// The files of a load.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// Every path that was looked for: files, files of `${file:…}` even if they do not exist, and patterns of
    /// includes.
    pub looked_at: Vec<PathBuf>,
    /// The files with their text, in the order in which they were read.
    pub sources: Vec<Arc<Source>>,
}

/// The result of a load, and its files.
#[derive(Debug)]
pub struct Load {
    /// The configuration, or its problems.
    pub loaded: Loaded,
    /// Its files.
    pub files: Files,
}

/// Loads the configuration that begins with the file at `path`. Does not check the descriptor limit and accept
/// queues; see [`load_with`].
pub fn load(path: &Path) -> Loaded {
    load_with(path, &Limits::unknown())
}

/// Loads the configuration that begins with the file at `path`, for a machine with these limits.
pub fn load_with(path: &Path, limits: &Limits) -> Loaded {
    load_all(path, limits).loaded
}

/// The same, with the files.
pub fn load_all(path: &Path, limits: &Limits) -> Load {
    Loader::of_this_process(limits).load_from(path, false)
}

/// The same as [`load_with`]; the first file may be a pipe, which is read for a limited time.
pub fn load_or_pipe(path: &Path, limits: &Limits) -> Loaded {
    Loader::of_this_process(limits).load_from(path, true).loaded
}

/// Loads a configuration that was made from other files, `looked_at`; `name` stands for its path.
pub fn load_converted(name: &str, text: &str, limits: &Limits, looked_at: Vec<PathBuf>) -> Load {
    let loader = Loader::of_this_process(limits);
    let mut report = diagnostic::Report::default();
    let mut read = read::memory(name, text, &loader, &mut report);
    read.looked_at.extend(looked_at);
    loader.finish(read, report)
}

/// A load that was refused, for these reasons.
pub fn refused(problems: Vec<Diagnostic>, looked_at: Vec<PathBuf>) -> Load {
    Load {
        loaded: Err(problems),
        files: Files {
            looked_at,
            sources: Vec::new(),
        },
    }
}

/// The runtime sockets that the file at `path` names, even if the file has other problems: `rlb reload` asks the
/// process there for them.
pub fn runtime_sockets(path: &Path) -> Vec<model::BindAddress> {
    let limits = Limits::unknown();
    let mut report = diagnostic::Report::default();
    let read = read::path(path, false, &Loader::of_this_process(&limits), &mut report);
    let files = read.files.iter();
    let tables = files.filter_map(|it| it.file.runtime_api.as_ref());
    let sockets = tables.flat_map(|table| {
        let first = table.value.first.socket.as_ref().map(|it| &it.value);
        let more = table.value.sockets.iter().flat_map(|list| &list.0);
        let more = more.filter_map(|one| match &one.value {
            shapes::Short::Short(text) => Some(text),
            shapes::Short::Table(table) => table.socket.as_ref().map(|it| &it.value),
        });
        first.into_iter().chain(more)
    });
    sockets
        .filter_map(|text| address::runtime(text).ok())
        .collect()
}

impl Loader<'_> {
    fn of_this_process(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            environment: &|name| std::env::var(name).ok(),
            disk: true,
        }
    }

    /// Loads the configuration that begins with the file at `path`.
    pub fn load(&self, path: &Path) -> Loaded {
        self.load_from(path, false).loaded
    }

    fn load_from(&self, path: &Path, pipe: bool) -> Load {
        let mut report = diagnostic::Report::default();
        let read = read::path(path, pipe, self, &mut report);
        self.finish(read, report)
    }

    /// Loads a configuration from memory; `name` replaces its path.
    pub fn load_text(&self, name: &str, text: &str) -> Loaded {
        let mut report = diagnostic::Report::default();
        let read = read::memory(name, text, self, &mut report);
        self.finish(read, report).loaded
    }

    fn finish(&self, read: read::Read, mut report: diagnostic::Report) -> Load {
        let files = read.files;
        let config = validate::validate(&files, (&self.limits, self.disk), &mut report);
        let failed = report.failed() || files.is_empty();
        let sources: Vec<_> = files.into_iter().map(|file| file.source).collect();
        let mut diagnostics = report.finish(&sources);
        for source in &sources {
            let own = |diagnostic: &&mut Diagnostic| {
                let place = diagnostic.place.as_ref();
                place.is_some_and(|place| Arc::ptr_eq(&place.source, source))
            };
            let mut own = diagnostics.iter_mut().filter(own).peekable();
            if own.peek().is_some() {
                tree::name_paths(&source.text, own);
            }
        }
        let loaded = if failed {
            Err(diagnostics)
        } else {
            Ok((config, diagnostics))
        };
        let files = Files {
            looked_at: read.looked_at,
            sources,
        };
        Load { loaded, files }
    }
}

/// The JSON schema of a configuration file.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(keys::File).to_value()
}
