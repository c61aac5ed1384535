//! Configuration text for one frontend and one backend, the shape of most tests.

use std::fmt::{Display, Write};
use std::net::SocketAddr;

/// Builds the text. Names: frontend `fe`, backend `be`, servers `s1`, `s2`, …, stats `stats`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    global: Vec<String>,
    timeouts: Vec<String>,
    frontend: Vec<String>,
    backend: Vec<String>,
    servers: Vec<String>,
    rest: Vec<String>,
    binds: Vec<String>,
    stats: Option<SocketAddr>,
}

impl Config {
    /// Two workers, one bind on a port that the kernel chooses, no server yet.
    pub(crate) fn new() -> Self {
        Self::default().global("threads = 2")
    }

    /// A line of `[global]`.
    #[must_use]
    pub(crate) fn global(mut self, line: &str) -> Self {
        self.global.push(line.to_owned());
        self
    }

    /// An entry of the `timeout` table of `[defaults]`, as `client = "2s"`.
    #[must_use]
    pub(crate) fn timeout(mut self, entry: &str) -> Self {
        self.timeouts.push(entry.to_owned());
        self
    }

    /// A line of the frontend.
    #[must_use]
    pub(crate) fn frontend(mut self, line: &str) -> Self {
        self.frontend.push(line.to_owned());
        self
    }

    /// A line of the backend.
    #[must_use]
    pub(crate) fn backend(mut self, line: &str) -> Self {
        self.backend.push(line.to_owned());
        self
    }

    /// A bind instead of `127.0.0.1:0`.
    #[must_use]
    pub(crate) fn bind(mut self, address: impl Display) -> Self {
        self.binds.push(format!("{:?}", address.to_string()));
        self
    }

    /// A bind on a port that the kernel chooses, with these keys.
    #[must_use]
    pub(crate) fn bind_with(mut self, keys: &str) -> Self {
        let bind = format!("{{ address = \"127.0.0.1:0\", {keys} }}");
        self.binds.push(bind);
        self
    }

    /// The statistics at this address, which stays the same over an upgrade.
    #[must_use]
    pub(crate) fn stats_at(mut self, address: SocketAddr) -> Self {
        self.stats = Some(address);
        self
    }

    /// A server at `address`.
    #[must_use]
    pub(crate) fn server(self, address: SocketAddr) -> Self {
        self.server_with(address, "")
    }

    /// A server at `address` with further keys, as `weight = 3`.
    #[must_use]
    pub(crate) fn server_with(self, address: impl Display, keys: &str) -> Self {
        let name = format!("s{}", self.servers.len() + 1);
        self.server_named(&name, address, keys)
    }

    /// The same with this name.
    #[must_use]
    pub(crate) fn server_named(mut self, name: &str, address: impl Display, keys: &str) -> Self {
        let comma = if keys.is_empty() { "" } else { ", " };
        self.servers.push(format!(
            "{{ name = \"{name}\", address = \"{address}\"{comma}{keys} }}"
        ));
        self
    }

    /// Further tables.
    #[must_use]
    pub(crate) fn table(mut self, text: &str) -> Self {
        self.rest.push(text.to_owned());
        self
    }

    /// A log target, as `udp:127.0.0.1:514`, with its format.
    #[must_use]
    pub(crate) fn log(mut self, to: impl Display, format: &str) -> Self {
        self.rest.push(format!(
            "[[log.target]]\nto = \"{to}\"\nformat = \"{format}\""
        ));
        self
    }
}

impl Display for Config {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let binds = if self.binds.is_empty() {
            "\"127.0.0.1:0\"".to_owned()
        } else {
            self.binds.join(", ")
        };
        let stats = self
            .stats
            .map_or_else(|| "127.0.0.1:0".to_owned(), |it| it.to_string());
        let mut timeouts = String::new();
        if !self.timeouts.is_empty() {
            write!(
                timeouts,
                "[defaults]\ntimeout = {{ {} }}\n",
                self.timeouts.join(", ")
            )?;
        }
        write!(
            out,
            "[global]\n{}\n[stats]\nbind = [\"{stats}\"]\n{timeouts}\
             [[frontend]]\nname = \"fe\"\nbind = [{binds}]\ndefault-backend = \"be\"\n{}\n\
             [[backend]]\nname = \"be\"\n{}\nservers = [\n  {}\n]\n{}\n",
            self.global.join("\n"),
            self.frontend.join("\n"),
            self.backend.join("\n"),
            self.servers.join(",\n  "),
            self.rest.join("\n"),
        )
    }
}
