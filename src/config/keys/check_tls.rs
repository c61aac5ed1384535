//! The kinds of values that checks over TLS have. An empty text undoes what is inherited.

use super::kinds::{Absent, Kind, Plain, Read, kind, parsed};
use crate::config::key::Key;
use crate::config::scope::{Scope, Validator, Written};
use crate::config::script::{SYSTEM_CA, TlsVersion};
use crate::config::shapes::Maybe;
use crate::config::tls::is_host_name;
use crate::config::units::Problem;
use rustls::pki_types::ServerName;
use std::path::Path;
use std::sync::Arc;

/// Longest path, in bytes.
const PATH_MAX: usize = 4095;
/// Longest list of protocols, in bytes, and longest name of one: its length is a byte.
const PROTOCOLS_MAX: usize = 1024;
const PROTOCOL_MAX: usize = 255;

kind! {
    /// The name of a host.
    HostName: String => Arc<str>, "name", default &'static str,
    show |it| it.to_string(), text |it| format!("{it:?}"), make Arc::from,
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected the name of a host"), host_name)
    }
}

kind! {
    /// The name of a host, or an IP address.
    HostOrAddress: String => Arc<str>, "name or address", default &'static str,
    show |it| it.to_string(), text |it| format!("{it:?}"), make Arc::from,
    read |validator, scope, _, field| {
        let expected = "expected the name of a host, or an IP address";
        parsed(validator, scope, field, ("value", expected), host_or_address)
    }
}

kind! {
    /// Names of protocols, separated by commas.
    Protocols: String => Arc<str>, "names", default &'static str,
    show |it| it.to_string(), text |it| format!("{it:?}"), make Arc::from,
    read |validator, scope, _, field| {
        let expected = "expected names as \"http/1.1,http/1.0\"";
        parsed(validator, scope, field, ("value", expected), protocols)
    }
}

kind! {
    /// The path of a file, from the folder of the configuration on.
    TlsPath: String => Arc<str>, "path", default &'static str,
    show |it| it.to_string(), text |it| format!("{it:?}"), make Arc::from,
    read |validator, scope, _, field| {
        let folder = Path::new(&scope.source.name).parent();
        let read = |text: &str| path(text, folder.unwrap_or(Path::new("")));
        parsed(validator, scope, field, ("value", "expected the path of a file"), read)
    }
}

kind! {
    /// A version of TLS.
    TlsVersionName: String => TlsVersion, "version of TLS", default TlsVersion,
    show |it| it.name().to_owned(), text |it| format!("{:?}", it.name()), make |it| it,
    read |validator, scope, _, field| {
        let expected = "expected \"TLSv1.2\" or \"TLSv1.3\"";
        parsed(validator, scope, field, ("value", expected), version)
    }
}

impl Absent for HostName {}
impl Absent for HostOrAddress {}
impl Absent for Protocols {}
impl Absent for TlsPath {}
impl Absent for TlsVersionName {}

fn host_name(text: &str) -> Result<Arc<str>, Problem> {
    match ServerName::try_from(text) {
        _ if text.is_empty() || is_host_name(text) => Ok(text.into()),
        Ok(_) => {
            let problem = Problem::new(format!("`{text}` is an address, and no name"));
            Err(problem.hint("an address cannot be asked for; `verifyhost` may be one"))
        }
        Err(_) => Err(Problem::new(format!("`{text}` is no name of a host"))),
    }
}

fn host_or_address(text: &str) -> Result<Arc<str>, Problem> {
    match ServerName::try_from(text) {
        _ if text.is_empty() => Ok(text.into()),
        Ok(_) => Ok(text.into()),
        Err(_) => Err(Problem::new(format!(
            "`{text}` is no name of a host, and no address"
        ))),
    }
}

fn protocols(text: &str) -> Result<Arc<str>, Problem> {
    let good = |name: &str| (1..=PROTOCOL_MAX).contains(&name.len());
    let is_good = text.is_empty() || text.split(',').all(good);
    if text.len() > PROTOCOLS_MAX || !is_good {
        let message = format!("a protocol has a name of 1 to {PROTOCOL_MAX} bytes");
        return Err(Problem::new(message));
    }
    Ok(text.into())
}

fn path(text: &str, folder: &Path) -> Result<Arc<str>, Problem> {
    if text.is_empty() {
        return Ok(text.into());
    }
    if text.len() > PATH_MAX || text.contains('\0') {
        return Err(Problem::new("it is no path of a file"));
    }
    match text.strip_prefix('@') {
        _ if text == SYSTEM_CA => Ok(text.into()),
        Some(_) => {
            let problem = Problem::new(format!("`{text}` is not known here"));
            Err(problem.hint(format!(
                "there is `{SYSTEM_CA}`; write `./{text}` for a file"
            )))
        }
        None => match folder.join(text).to_str() {
            Some(path) => Ok(path.into()),
            None => Err(Problem::new("the path of its folder is not UTF-8")),
        },
    }
}

fn version(text: &str) -> Result<TlsVersion, Problem> {
    match text {
        "TLSv1.2" => Ok(TlsVersion::V12),
        "TLSv1.3" => Ok(TlsVersion::V13),
        "SSLv3" | "TLSv1.0" | "TLSv1.1" => {
            let problem = Problem::new(format!("rlb does not speak `{text}`: it is not secure"));
            Err(problem.hint("TLSv1.2 is the oldest"))
        }
        _ => Err(Problem::new(format!("there is no version `{text}`"))),
    }
}
