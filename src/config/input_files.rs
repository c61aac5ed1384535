//! Where a configuration comes from, and how it is read again.
//!
//! Plain data, usable from any thread.

use super::{Limits, Load, load_all};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// The files of a configuration, and what makes a configuration of them.
#[derive(Clone)]
pub struct InputFiles {
    name: String,
    load: Arc<dyn Fn(&Limits) -> Load + Send + Sync>,
}

impl InputFiles {
    /// A file of rlb's, with what it includes.
    pub fn file(path: PathBuf) -> Self {
        Self {
            name: path.display().to_string(),
            load: Arc::new(move |limits| load_all(&path, limits)),
        }
    }

    /// Other files, called `name`, which `load` makes a configuration of.
    pub fn other(name: String, load: impl Fn(&Limits) -> Load + Send + Sync + 'static) -> Self {
        Self {
            name,
            load: Arc::new(load),
        }
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads it.
    pub fn load(&self, limits: &Limits) -> Load {
        (self.load)(limits)
    }
}

impl fmt::Debug for InputFiles {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "InputFiles({})", self.name)
    }
}
