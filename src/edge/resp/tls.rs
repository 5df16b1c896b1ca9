//! TLS for clients: certificate and key from files, read again when they change, and the clients' own certificates where they are asked for.
//!
//! The files are looked at when a client connects, at most once a second: a renewed certificate is taken up without a restart, and one that
//! cannot be read leaves the one before in force.

use super::stream::Stream;
use crate::config::{TlsClients, TlsConfig};
use crate::error::Error;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// How often the files are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The certificate of this endpoint, and whom it asks for one.
pub(super) struct Tls {
    /// Held to look at the files, or to change where they are; never across an await.
    current: Mutex<Current>,
}

struct Current {
    config: TlsConfig,
    acceptor: TlsAcceptor,
    /// When the files were written that the acceptor was made of.
    written: Vec<Option<SystemTime>>,
    looked: Instant,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({:?})", self.current.lock().config)
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::Config`] with what is wrong with them.
    pub(super) fn new(config: TlsConfig) -> Result<Self, Error> {
        let current = Current::read(config).map_err(|why| Error::Config(vec![why]))?;
        Ok(Self {
            current: Mutex::new(current),
        })
    }

    /// What is in force.
    pub(super) fn config(&self) -> TlsConfig {
        self.current.lock().config.clone()
    }

    /// Takes up other settings, if they can be read.
    ///
    /// # Errors
    /// What is wrong with them; those before stay in force.
    pub(super) fn set(&self, config: TlsConfig) -> Result<(), String> {
        let current = Current::read(config)?;
        *self.current.lock() = current;
        Ok(())
    }

    /// Agrees on keys with a client. None where it does not come to that.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<Stream> {
        let acceptor = self.acceptor();
        match timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Some(Stream::Wrapped(Box::new(stream))),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a client and this endpoint did not agree on TLS");
                None
            }
            Err(_) => None,
        }
    }

    fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock();
        if current.looked.elapsed() >= LOOK_AGAIN {
            current.look_again();
        }
        current.acceptor.clone()
    }
}

impl Current {
    fn read(config: TlsConfig) -> Result<Self, String> {
        // The times come first: what is written meanwhile is read again.
        let written = times(&config);
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server(&config)?)),
            written,
            looked: Instant::now(),
            config,
        })
    }

    fn look_again(&mut self) {
        self.looked = Instant::now();
        let written = times(&self.config);
        if written == self.written {
            return;
        }
        match server(&self.config) {
            Ok(server) => {
                self.acceptor = TlsAcceptor::from(Arc::new(server));
                tracing::info!("the certificate for clients was read again");
            }
            Err(why) => tracing::warn!(why, "the certificate for clients stays what it was"),
        }
        self.written = written;
    }
}

fn times(config: &TlsConfig) -> Vec<Option<SystemTime>> {
    let written = |file: &PathBuf| std::fs::metadata(file).and_then(|file| file.modified()).ok();
    let files = [
        Some(&config.cert_file),
        Some(&config.key_file),
        config.ca_cert_file.as_ref(),
    ];
    files.into_iter().flatten().map(written).collect()
}

/// What a handshake goes by.
fn server(config: &TlsConfig) -> Result<ServerConfig, String> {
    let chain = certificates("tls_cert_file", &config.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&config.key_file)
        .map_err(|error| format!("tls_key_file = {}: {error}", config.key_file.display()))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("tls: {error}"))?;
    let builder = match (config.clients, &config.ca_cert_file) {
        (TlsClients::No, _) => builder.with_no_client_auth(),
        (_, None) => {
            return Err(
                "tls_auth_clients asks for certificates: set tls_ca_cert_file to who signs them".to_owned(),
            );
        }
        (clients, Some(file)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("tls_ca_cert_file", file)? {
                roots
                    .add(certificate)
                    .map_err(|error| format!("tls_ca_cert_file = {}: {error}", file.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if clients == TlsClients::Optional {
                verifier.allow_unauthenticated()
            } else {
                verifier
            };
            let verifier = verifier
                .build()
                .map_err(|error| format!("tls_ca_cert_file = {}: {error}", file.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain, key).map_err(|error| {
        format!(
            "tls_cert_file = {} with tls_key_file = {}: {error}",
            config.cert_file.display(),
            config.key_file.display()
        )
    })
}

fn certificates(setting: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let fault = |why: String| format!("{setting} = {}: {why}", file.display());
    let read = CertificateDer::pem_file_iter(file).map_err(|error| fault(error.to_string()))?;
    let chain: Vec<_> = read
        .collect::<Result<_, _>>()
        .map_err(|error| fault(error.to_string()))?;
    if chain.is_empty() {
        Err(fault("there is no certificate in it".to_owned()))
    } else {
        Ok(chain)
    }
}
