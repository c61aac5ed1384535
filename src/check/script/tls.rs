//! What checks over TLS need of their files, which are read again when they have changed.
//!
//! Only on the thread of the checks. Invariants: nothing is read before a check over TLS begins; files that cannot be used
//! change nothing, and are told of once.

use super::{Facts, text};
use crate::config::script::{Connect, Script, TlsContext};
use crate::config::tls;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, Error};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Most contexts that are kept; the one whose last check was longest ago is read again at its next.
const CONTEXTS_MAX: usize = 256;

/// The event of a file that cannot be used.
const NOT_REPLACED: &str = "TLS files of checks not replaced";

/// What tells a file from an earlier one of its name: device, inode, size, and when it was changed.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

#[derive(Debug)]
struct Loaded {
    config: Arc<ClientConfig>,
    /// The files when they were read last, whatever came of it.
    seen: Vec<Stamp>,
    used: Instant,
}

/// What was made of the files of each context, and the tokens by their files.
#[derive(Debug, Default)]
pub(super) struct TlsContexts {
    contexts: RefCell<HashMap<Arc<TlsContext>, Loaded>>,
    tokens: RefCell<HashMap<Arc<str>, Token>>,
}

/// The content of a file; it is written nowhere.
struct Token(String, Stamp);

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token")
    }
}

impl TlsContexts {
    /// The token of a check.
    ///
    /// # Errors
    /// When there was none yet, and none can be read.
    pub(super) fn token(&self, path: &Arc<str>) -> io::Result<String> {
        let mut all = self.tokens.borrow_mut();
        let seen = stamp(Path::new(&**path));
        if let Some(Token(token, before)) = all.get_mut(path) {
            if *before != seen {
                *before = seen;
                match tls::token(path) {
                    Ok(new) => *token = new,
                    Err(error) => tracing::warn!(file = %path, error, "{NOT_REPLACED}"),
                }
            }
            return Ok(token.clone());
        }
        let read = tls::token(path);
        let token = read.map_err(|why| io::Error::other(format!("cannot use {path}: {why}")))?;
        if all.len() >= CONTEXTS_MAX {
            // They are read again.
            all.clear();
        }
        all.insert(Arc::clone(path), Token(token.clone(), seen));
        Ok(token)
    }

    /// What a connection of a check needs.
    fn config(&self, context: &Arc<TlsContext>) -> io::Result<Arc<ClientConfig>> {
        let mut all = self.contexts.borrow_mut();
        let seen: Vec<Stamp> = tls::paths(context).iter().map(|path| stamp(path)).collect();
        let now = Instant::now();
        if let Some(loaded) = all.get_mut(context) {
            loaded.used = now;
            if loaded.seen != seen {
                loaded.seen = seen;
                match tls::client(context) {
                    Ok(config) => {
                        loaded.config = config;
                        tracing::info!(context = %names(context), "TLS files of checks read again");
                    }
                    Err(problem) => tracing::warn!(
                        file = %problem.path.display(),
                        error = problem.message,
                        "{NOT_REPLACED}"
                    ),
                }
            }
            return Ok(Arc::clone(&loaded.config));
        }
        let config = tls::client(context).map_err(|problem| {
            let path = problem.path.display();
            io::Error::other(format!("cannot use {path}: {}", problem.message))
        })?;
        if all.len() >= CONTEXTS_MAX {
            let oldest = all.iter().min_by_key(|(_, loaded)| loaded.used);
            if let Some(oldest) = oldest.map(|(context, _)| Arc::clone(context)) {
                all.remove(&oldest);
            }
        }
        let loaded = Loaded {
            config: Arc::clone(&config),
            seen,
            used: now,
        };
        all.insert(Arc::clone(context), loaded);
        Ok(config)
    }

    /// The begin of TLS on a connection.
    ///
    /// # Errors
    /// When files cannot be used: a local error.
    pub(super) fn begin(
        &self,
        script: &Script,
        connect: &Connect,
        facts: &Facts,
    ) -> io::Result<Box<ClientConnection>> {
        let config = self.config(&script.tls.context)?;
        // An address is not asked for.
        let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        let name = sni(script, connect, facts);
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let alpn = connect.alpn.as_ref().or_else(|| {
            let of_check = script.tls.alpn.as_ref();
            of_check.filter(|_| connect.default)
        });
        let alpn = alpn.map_or_else(Vec::new, |names| {
            let names = names.split(',');
            names.map(|name| name.as_bytes().to_vec()).collect()
        });
        let session = ClientConnection::new_with_alpn(config, name.unwrap_or(nobody), alpn);
        session.map(Box::new).map_err(io::Error::other)
    }
}

/// The server's name that a connection asks for.
pub(super) fn sni(script: &Script, connect: &Connect, facts: &Facts) -> Option<String> {
    let of_check = script.tls.sni.as_ref().filter(|_| connect.default);
    if let Some(sni) = connect.sni.as_ref().or(of_check) {
        return Some(sni.to_string());
    }
    let host = text::lossy(&text::format(connect.host.as_ref()?, facts, &[]));
    let end = host.rfind([':', ']']);
    let end = end.filter(|at| host[*at..].starts_with(':'));
    let host = &host[..end.unwrap_or(host.len())];
    match ServerName::try_from(host) {
        Ok(ServerName::DnsName(_)) => Some(host.to_owned()),
        _ => None,
    }
}

/// HAProxy's words for a handshake that has failed.
pub(super) fn words(error: &io::Error, has_sni: bool) -> &'static str {
    let inner = error.get_ref().and_then(|it| it.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) if has_sni => "Server presented an SSL certificate different from the expected one",
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "Server presented an SSL certificate different from the configured one",
        _ => "SSL handshake failure",
    }
}

fn stamp(path: &Path) -> Stamp {
    // Through links, which is how Kubernetes replaces files.
    let file = fs::metadata(path).ok()?;
    let changed = (file.mtime(), file.mtime_nsec());
    Some((file.dev(), file.ino(), file.size(), changed.0, changed.1))
}

fn names(context: &TlsContext) -> String {
    let paths = tls::paths(context);
    let paths = paths.iter().filter(|path| path.exists());
    let paths = paths.map(|path| path.display().to_string());
    paths.collect::<Vec<_>>().join(" ")
}
