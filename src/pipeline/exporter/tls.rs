//! TLS for both OTLP exporters: rustls with ring.
//!
//! The provider is given to every configuration by hand, so that nothing depends on, or changes, the process-wide default
//! that another library may have installed. Files are read once, when the exporter is made: a wrong path is an error of
//! set-up and not of the first export. Loading the system's roots takes some milliseconds and happens for `https` only.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::{ClientTlsConfig, Identity};

use crate::config::OtlpConfig;
use crate::error::Error;

const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const CLIENT_CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
const CLIENT_KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";

/// Whom to trust and who we are, checked.
pub(super) struct Tls {
    config: rustls::ClientConfig,
    roots: RootCertStore,
    identity: Option<Pem>,
}

/// A client certificate with its key, as their files have them.
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// Reads the files that `config` names, or the roots of the system.
    pub(super) fn load(config: &OtlpConfig) -> Result<Self, Error> {
        let roots = match &config.certificate {
            Some(path) => roots_of_file(path)?,
            None => roots_of_system()?,
        };
        let identity = match (&config.client_certificate, &config.client_key) {
            (Some(certificate), Some(key)) => Some(Pem {
                certificate: read(CLIENT_CERTIFICATE, certificate)?,
                key: read(CLIENT_KEY, key)?,
            }),
            (None, None) => None,
            (Some(_), None) => {
                return Err(Error::configuration(
                    CLIENT_KEY,
                    format!("must be set with {CLIENT_CERTIFICATE}"),
                ));
            }
            (None, Some(_)) => {
                return Err(Error::configuration(
                    CLIENT_CERTIFICATE,
                    format!("must be set with {CLIENT_KEY}"),
                ));
            }
        };
        let builder = builder()?.with_root_certificates(roots.clone());
        let config = match &identity {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let chain = certificates(CLIENT_CERTIFICATE, &pem.certificate)?;
                let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|error| {
                    Error::configuration(
                        CLIENT_KEY,
                        format!("no private key in PEM format: {error}"),
                    )
                })?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    Error::configuration(
                        CLIENT_KEY,
                        format!("does not go with the client certificate: {error}"),
                    )
                })?
            }
        };
        Ok(Self {
            config,
            roots,
            identity,
        })
    }

    /// For the HTTP exporter, which speaks HTTP/1.1.
    pub(super) fn into_rustls(self) -> rustls::ClientConfig {
        let mut config = self.config;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }

    /// For tonic, which takes the same parts and builds its own configuration; its provider is the process-wide default
    /// when there is one, else ring.
    pub(super) fn into_tonic(self) -> ClientTlsConfig {
        let config = ClientTlsConfig::new().trust_anchors(self.roots.roots);
        match self.identity {
            Some(pem) => config.identity(Identity::from_pem(pem.certificate, pem.key)),
            None => config,
        }
    }
}

/// For a client that only speaks plain HTTP: it trusts nobody.
pub(super) fn none() -> Result<rustls::ClientConfig, Error> {
    Ok(builder()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

fn builder() -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>, Error> {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::configuration("tls", error.to_string()))
}

fn roots_of_file(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CERTIFICATE, &read(CERTIFICATE, path)?)? {
        roots.add(certificate).map_err(|error| {
            Error::configuration(CERTIFICATE, format!("{}: {error}", path.display()))
        })?;
    }
    Ok(roots)
}

fn roots_of_system() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems carry odd old certificates; one that does not parse must not cost the others.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found
            .errors
            .first()
            .map_or_else(String::new, |error| format!(" ({error})"));
        return Err(Error::configuration(
            CERTIFICATE,
            format!(
                "this system has no trusted certificates{why}: install ca-certificates or set this to a PEM file"
            ),
        ));
    }
    Ok(roots)
}

fn certificates(variable: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::configuration(variable, format!("not in PEM format: {error}")))?;
    if found.is_empty() {
        return Err(Error::configuration(
            variable,
            "no certificate in PEM format in the file",
        ));
    }
    Ok(found)
}

fn read(variable: &str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| {
        Error::configuration(variable, format!("cannot read {}: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests;
