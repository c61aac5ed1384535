//! The files that a check needs for TLS: read, judged, and made into what the library wants.
//!
//! `rlb check` and each load judge them with the same function with which checks read them later, on the thread of the
//! checks, when they have changed ([`crate::check::script`]). Nothing is kept here.

use super::disk;
use super::script::{SYSTEM_CA, TlsContext, TlsVersion};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest file, in bytes: lists of revoked certificates are long.
const FILE_MAX: u64 = 16 << 20;

/// Where systems have the certificates of the authorities that they believe.
const SYSTEM_FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Longest token, in bytes.
const TOKEN_MAX: u64 = 16 << 10;

/// The token in a file: one word, as a header may have it.
///
/// # Errors
/// When it cannot be read or is none.
pub fn token(path: &str) -> Result<String, String> {
    let text = disk::text(Path::new(path), TOKEN_MAX)?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it has no token".to_owned());
    }
    Ok(token.to_owned())
}

/// Which of the files is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFile {
    /// `ca-file`
    Ca,
    /// `crl-file`
    Crl,
    /// `crt`
    Crt,
    /// `key`
    Key,
}

/// Why checks cannot speak TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsProblem {
    /// What is wrong is in this file.
    pub file: TlsFile,
    /// Its path.
    pub path: PathBuf,
    /// What it is.
    pub message: String,
}

/// Whether `text` may be asked for in a `ClientHello`.
pub fn is_host_name(text: &str) -> bool {
    matches!(ServerName::try_from(text), Ok(ServerName::DnsName(_)))
}

/// The paths of the files that [`client`] reads; one may not exist.
pub fn paths(context: &TlsContext) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if !context.verify_none {
        paths.extend(ca_path(context));
        paths.extend(context.crl_file.as_deref().map(PathBuf::from));
    }
    paths.extend(context.crt.as_deref().map(PathBuf::from));
    paths.extend(key_path(context));
    paths
}

/// `None`: the system has none where one is looked for.
fn ca_path(context: &TlsContext) -> Option<PathBuf> {
    if context.ca_file() != SYSTEM_CA {
        return Some(context.ca_file().into());
    }
    // As OpenSSL does.
    let own = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let mut known = own.into_iter().chain(SYSTEM_FILES.map(PathBuf::from));
    known.find(|path| path.exists())
}

/// Where the key is when it is not with its certificate: as in HAProxy the file beside it that ends in `.key`.
fn key_path(context: &TlsContext) -> Option<PathBuf> {
    let own = context.key.as_deref().map(PathBuf::from);
    own.or_else(|| {
        let crt = context.crt.as_deref()?;
        Some(format!("{crt}.key").into())
    })
}

/// What the library needs to speak TLS as `context` says.
///
/// # Errors
/// When a file cannot be read or does not have what it is for.
pub fn client(context: &TlsContext) -> Result<Arc<ClientConfig>, TlsProblem> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(context, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(context))
        .map_err(|error| problem(TlsFile::Ca, context.ca_file(), &error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own_certificate(context)? {
        None => builder.with_no_client_auth(),
        Some((path, chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| problem(TlsFile::Crt, path, &error))?,
    };
    // Each check is to see whether the server's certificate is valid.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn versions(context: &TlsContext) -> Vec<&'static SupportedProtocolVersion> {
    let least = context.least.unwrap_or(TlsVersion::V12);
    let most = context.most.unwrap_or(TlsVersion::V13);
    match (least, most) {
        (TlsVersion::V13, _) => vec![&TLS13],
        (TlsVersion::V12, TlsVersion::V12) => vec![&TLS12],
        (TlsVersion::V12, TlsVersion::V13) => vec![&TLS13, &TLS12],
    }
}

fn problem(file: TlsFile, path: impl Into<PathBuf>, message: &impl ToString) -> TlsProblem {
    TlsProblem {
        file,
        path: path.into(),
        message: message.to_string(),
    }
}

fn read(file: TlsFile, path: PathBuf) -> Result<(PathBuf, Vec<u8>), TlsProblem> {
    match disk::bytes(&path, FILE_MAX, &mut 0) {
        Ok(bytes) => Ok((path, bytes)),
        Err(why) => Err(problem(file, path, &why)),
    }
}

/// All parts of one kind in a file; there must be one.
fn parts<T: PemObject>(
    file: TlsFile,
    path: &PathBuf,
    bytes: &[u8],
    what: &str,
) -> Result<Vec<T>, TlsProblem> {
    let read: Result<Vec<T>, pem::Error> = T::pem_slice_iter(bytes).collect();
    match read {
        Ok(parts) if parts.is_empty() => {
            Err(problem(file, path, &format!("it has no {what} in PEM")))
        }
        Ok(parts) => Ok(parts),
        Err(error) => Err(problem(file, path, &format!("it is not in PEM: {error}"))),
    }
}

fn verifier(
    context: &TlsContext,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsProblem> {
    let algorithms = provider.signature_verification_algorithms;
    if context.verify_none {
        return Ok(Arc::new(Unverified(algorithms)));
    }
    let file = TlsFile::Ca;
    let Some(path) = ca_path(context) else {
        let why = "this system has no file with certification authorities where one is looked for";
        return Err(problem(file, SYSTEM_CA, &why));
    };
    let of_system = context.ca_file() == SYSTEM_CA;
    let (path, bytes) = read(file, path)?;
    let own: Vec<CertificateDer<'static>> = parts(file, &path, &bytes, "certificate")?;
    let mut roots = RootCertStore::empty();
    if of_system {
        roots.add_parsable_certificates(own.iter().cloned());
    } else {
        for certificate in &own {
            roots.add(certificate.clone()).map_err(|error| {
                problem(file, &path, &format!("a certificate is not valid: {error}"))
            })?;
        }
    }
    let builder = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(provider));
    let builder = match &context.crl_file {
        None => builder,
        Some(crl) => {
            let (path, bytes) = read(TlsFile::Crl, PathBuf::from(&**crl))?;
            let lists: Vec<CertificateRevocationListDer<'static>> =
                parts(TlsFile::Crl, &path, &bytes, "list of revoked certificates")?;
            builder.with_crls(lists).enforce_revocation_expiration()
        }
    };
    let chain = builder.build().map_err(|error| {
        let (file, path) = match &context.crl_file {
            Some(crl) => (TlsFile::Crl, PathBuf::from(&**crl)),
            None => (file, path),
        };
        problem(file, path, &error)
    })?;
    let host = context.verifyhost.as_deref();
    let host = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
    Ok(Arc::new(Verified {
        chain,
        believed: if of_system { Vec::new() } else { own },
        host,
    }))
}

/// The certificate of the check, with its key.
fn own_certificate(
    context: &TlsContext,
) -> Result<
    Option<(
        PathBuf,
        Vec<CertificateDer<'static>>,
        PrivateKeyDer<'static>,
    )>,
    TlsProblem,
> {
    let Some(crt) = &context.crt else {
        return Ok(None);
    };
    let (path, bytes) = read(TlsFile::Crt, PathBuf::from(&**crt))?;
    let chain = parts(TlsFile::Crt, &path, &bytes, "certificate")?;
    let within = PrivateKeyDer::from_pem_slice(&bytes);
    let key = match (within, key_path(context)) {
        (Ok(key), _) if context.key.is_none() => key,
        (_, Some(beside)) => {
            let file = TlsFile::Key;
            let (beside, bytes) = read(file, beside).map_err(|other| match context.key {
                Some(_) => other,
                None => problem(TlsFile::Crt, &path, &"it has no private key"),
            })?;
            PrivateKeyDer::from_pem_slice(&bytes)
                .map_err(|_| problem(file, beside, &"it has no private key, or an encrypted one"))?
        }
        (_, None) => return Err(problem(TlsFile::Crt, path, &"it has no private key")),
    };
    Ok(Some((path, chain, key)))
}

/// `verify none`.
#[derive(Debug)]
struct Unverified(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    // A certificate that nobody judges may be one that the library cannot read.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// `verify required`. As in HAProxy the name is judged that was asked for in the `ClientHello`, else that of
/// `verifyhost`, else none.
#[derive(Debug)]
struct Verified {
    chain: Arc<WebPkiServerVerifier>,
    /// The certificates of the `ca-file`.
    believed: Vec<CertificateDer<'static>>,
    host: Option<ServerName<'static>>,
}

/// Whether a certificate was refused for nothing but being that of an authority.
fn is_of_authority(error: &CertificateError) -> bool {
    let CertificateError::Other(other) = error else {
        return false;
    };
    let why = other.0.downcast_ref::<webpki::Error>();
    matches!(why, Some(webpki::Error::CaUsedAsEndEntity))
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // A connection that sends no name has an address instead.
        let expected = match server_name {
            ServerName::DnsName(_) => Some(server_name),
            _ => self.host.as_ref(),
        };
        let name = expected.unwrap_or(server_name);
        let chain = &self.chain;
        let judged = chain.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        let Err(Error::InvalidCertificate(error)) = &judged else {
            return judged;
        };
        let other_name = matches!(
            error,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        );
        if other_name && expected.is_none() {
            return Ok(ServerCertVerified::assertion());
        }
        // A certificate that has signed itself, and that the file has: its times were judged before. OpenSSL takes it.
        if is_of_authority(error) && self.believed.contains(end_entity) {
            if let Some(name) = expected {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        judged
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
