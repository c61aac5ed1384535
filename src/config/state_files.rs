//! Where the states of servers are kept over a restart: HAProxy's `server-state-file`, `server-state-base`, and the files
//! of backends. Pure: paths alone.

use super::keys::meant::{Backend, Global};
use super::values::StatesFrom;
use std::path::PathBuf;
use std::sync::Arc;

/// The paths that `[global]` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateFiles {
    file: Option<Arc<str>>,
    base: Option<Arc<str>>,
}

impl StateFiles {
    /// Those of a configuration.
    pub fn of(global: &Global) -> Self {
        Self {
            file: global.server_state_file.clone(),
            base: global.server_state_base.clone(),
        }
    }

    /// The file of the process.
    pub fn global(&self) -> Option<PathBuf> {
        self.file.as_deref().map(|file| self.path(file))
    }

    /// The file of a backend's own, if it has one.
    pub fn local(&self, backend: &Backend) -> Option<PathBuf> {
        let own = backend.server_state_file_name.as_deref();
        let is_local = backend.load_server_state_from_file == StatesFrom::Local;
        is_local.then(|| self.path(own.unwrap_or(&backend.name)))
    }

    /// A path that begins with `/` stands for itself, any other is within the base.
    fn path(&self, file: &str) -> PathBuf {
        let base = self.base.as_deref().unwrap_or_default();
        PathBuf::from(base).join(file)
    }
}
