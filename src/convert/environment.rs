//! The variables that a file of HAProxy's may name: those of the process, as `setenv` and its like
//! have changed them, and those that HAProxy itself defines.

use std::collections::HashMap;

/// The variable with the name of this machine among its peers: `localpeer`, or else its host name.
pub(super) const LOCAL_PEER: &str = "HAPROXY_LOCALPEER";

/// HAProxy's version that rlb answers for in conditions, as its `Version:` says.
pub(super) const VERSION: (u32, u32, u32) = (3, 0, 0);

/// Where the value of a variable comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Variable {
    /// From the process: rlb can take it from there itself.
    Process(String),
    /// From the files, or from HAProxy.
    Own(String),
    /// The files have taken it away.
    Removed,
    /// It has none.
    Unset,
}

/// The environment while files are read.
pub(super) struct Environment<'a> {
    process: &'a dyn Fn(&str) -> Option<String>,
    changed: HashMap<String, Option<String>>,
    /// Everything else was taken away.
    reset: bool,
    /// `HAPROXY_CFGFILES`.
    files: String,
    /// `.FILE`.
    pub(super) file: String,
    /// `.LINE`.
    pub(super) line: usize,
    /// `.SECTION`.
    pub(super) section: String,
}

/// What HAProxy defines, as far as it can be known before it runs.
const DEFINED: [(&str, &str); 5] = [
    ("HAPROXY_STARTUP_VERSION", "3.0.0"),
    ("HAPROXY_BRANCH", "3.0"),
    ("HAPROXY_TCP_LOG_FMT", "%ci:%cp"),
    ("HAPROXY_HTTP_LOG_FMT", "%ci:%cp"),
    ("HAPROXY_HTTPS_LOG_FMT", "%ci:%cp"),
];

impl<'a> Environment<'a> {
    /// The variables of the process.
    pub(super) fn new(process: &'a dyn Fn(&str) -> Option<String>, files: &[String]) -> Self {
        Self {
            files: files.join(";"),
            process,
            changed: HashMap::new(),
            reset: false,
            file: String::new(),
            line: 0,
            section: String::new(),
        }
    }

    /// The value of `name`.
    pub(super) fn get(&self, name: &str) -> Variable {
        match name {
            ".LINE" => return Variable::Own(self.line.to_string()),
            ".FILE" => return Variable::Own(self.file.clone()),
            ".SECTION" => return Variable::Own(self.section.clone()),
            "HAPROXY_CFGFILES" => return Variable::Own(self.files.clone()),
            _ => {}
        }
        if let Some(changed) = self.changed.get(name) {
            return changed.clone().map_or(Variable::Removed, Variable::Own);
        }
        let defined = DEFINED.iter().find(|(known, _)| *known == name);
        if let Some((_, value)) = defined {
            return Variable::Own((*value).to_owned());
        }
        // The process is asked for it and rlb itself does not have it.
        if name == LOCAL_PEER {
            return (self.process)(name).map_or(Variable::Unset, Variable::Own);
        }
        if self.reset {
            return Variable::Removed;
        }
        (self.process)(name).map_or(Variable::Unset, Variable::Process)
    }

    /// The value alone.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        match self.get(name) {
            Variable::Process(value) | Variable::Own(value) => Some(value),
            Variable::Removed | Variable::Unset => None,
        }
    }

    /// `setenv`.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.changed.insert(name.to_owned(), Some(value.to_owned()));
    }

    /// `presetenv`.
    pub(super) fn set_unless_set(&mut self, name: &str, value: &str) {
        if self.value(name).is_none() {
            self.set(name, value);
        }
    }

    /// `unsetenv`.
    pub(super) fn unset(&mut self, name: &str) {
        self.changed.insert(name.to_owned(), None);
    }

    /// `resetenv`: nothing but `kept` has a value any more.
    pub(super) fn reset<'n>(&mut self, kept: impl Iterator<Item = &'n str>) {
        let kept: Vec<(String, Option<String>)> = kept
            .map(|name| (name.to_owned(), self.value(name)))
            .collect();
        self.changed = kept.into_iter().collect();
        self.reset = true;
    }
}
