//! How a check speaks TLS, as plain data. [`crate::config::tls`] makes of it what the library needs.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// What stands for the certification authorities of the system, as in HAProxy.
pub const SYSTEM_CA: &str = "@system-ca";

/// How the connections of a check speak TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// Those that have what the check has speak it.
    pub on: bool,
    /// The server's name in their `ClientHello`.
    pub sni: Option<Arc<str>>,
    /// The protocols in it, separated by commas.
    pub alpn: Option<Arc<str>>,
    /// What all of them have in common, those of steps too.
    pub context: Arc<TlsContext>,
}

/// Whom a check believes, and who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsContext {
    /// It asks for no valid certificate.
    pub verify_none: bool,
    /// The name or the address that a certificate must have where no SNI was sent.
    pub verifyhost: Option<Arc<str>>,
    /// `None`: [`SYSTEM_CA`].
    pub ca_file: Option<Arc<str>>,
    /// Certificates that were revoked.
    pub crl_file: Option<Arc<str>>,
    /// Its own certificate.
    pub crt: Option<Arc<str>>,
    /// The key of that, where it is in another file.
    pub key: Option<Arc<str>>,
    /// The oldest version that it speaks.
    pub least: Option<TlsVersion>,
    /// The newest.
    pub most: Option<TlsVersion>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TlsVersion {
    /// `TLSv1.2`
    V12,
    /// `TLSv1.3`
    V13,
}

impl TlsVersion {
    /// In HAProxy's words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V12 => "TLSv1.2",
            Self::V13 => "TLSv1.3",
        }
    }
}

impl TlsContext {
    /// The file with the certification authorities; may be [`SYSTEM_CA`].
    pub fn ca_file(&self) -> &str {
        self.ca_file.as_deref().unwrap_or(SYSTEM_CA)
    }
}

impl fmt::Display for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = &self.context;
        let version = |version: Option<TlsVersion>| version.map(TlsVersion::name);
        let words = [
            ("check-sni", self.sni.as_deref()),
            ("check-alpn", self.alpn.as_deref()),
            ("verify", context.verify_none.then_some("none")),
            ("verifyhost", context.verifyhost.as_deref()),
            ("ca-file", context.ca_file.as_deref()),
            ("crl-file", context.crl_file.as_deref()),
            ("crt", context.crt.as_deref()),
            ("key", context.key.as_deref()),
            ("ssl-min-ver", version(context.least)),
            ("ssl-max-ver", version(context.most)),
        ];
        if self.on {
            formatter.write_str("; check-ssl")?;
        }
        for (word, value) in words {
            if let Some(value) = value {
                write!(formatter, "; {word} {value}")?;
            }
        }
        Ok(())
    }
}
