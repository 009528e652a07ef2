//! Trusted certificates and own certificates: everything about TLS that is settled before a
//! connection.
//!
//! Files are read elsewhere; here their bytes become what handshakes are made with. Making these is
//! slow (certificates are parsed), using them is not: they are shared by all cores. The bytes of a
//! connection pass in `rt`. HTTP/1.1 is the only protocol that is offered (ALPN).

mod crypto;
mod fault;
mod pem;
mod pinned;
mod verify;

use std::fmt;
use std::sync::{Arc, RwLock};

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

pub use crate::fault::TlsFault;
pub use fault::fault_of;
pub use pem::PemFault;
use pinned::Pinned;
use verify::Verifier;

/// What is offered and accepted as the protocol inside TLS.
const ALPN: &[u8] = b"http/1.1";

/// Certificates of issuers, and single certificates that are trusted as they are.
#[derive(Debug, Clone)]
pub struct Roots {
    issuers: Arc<RootCertStore>,
    exact: Arc<[CertificateDer<'static>]>,
}

impl Roots {
    /// The readable ones of these DER certificates. The others are skipped, because a system's
    /// store contains some that cannot be used.
    pub fn new<D: AsRef<[u8]>>(certificates: impl IntoIterator<Item = D>) -> Self {
        let mut issuers = RootCertStore::empty();
        issuers.add_parsable_certificates(
            certificates
                .into_iter()
                .map(|der| CertificateDer::from(der.as_ref().to_vec())),
        );
        Self {
            issuers: Arc::new(issuers),
            exact: Arc::from([]),
        }
    }

    /// The same, with certificates among them that are trusted as they are, too.
    #[must_use]
    pub fn with_exact<D: AsRef<[u8]>>(self, certificates: impl IntoIterator<Item = D>) -> Self {
        let owned = |der: D| CertificateDer::from(der.as_ref().to_vec());
        let exact = self.exact.iter().cloned();
        Self {
            exact: exact.chain(certificates.into_iter().map(owned)).collect(),
            ..self
        }
    }

    /// Further ones, of a PEM file. A server that shows exactly one of these is trusted too, as
    /// long as name and time are right: a certificate that was made for one server is
    /// often its own issuer.
    ///
    /// # Errors
    /// No certificate in it, or one that cannot be read.
    pub fn with_pem(&self, pem: &[u8]) -> Result<Self, PemFault> {
        let own = pem::certificates(pem)?;
        let mut issuers = RootCertStore::clone(&self.issuers);
        for certificate in &own {
            issuers
                .add(certificate.clone())
                .map_err(|_| PemFault::BadCertificate)?;
        }
        Ok(Self {
            issuers: Arc::new(issuers),
            exact: Arc::clone(&self.exact),
        }
        .with_exact(own))
    }

    /// Whether no issuer is trusted.
    pub fn is_empty(&self) -> bool {
        self.issuers.is_empty()
    }
}

impl Default for Roots {
    /// No issuer is trusted.
    fn default() -> Self {
        Self::new::<&[u8]>([])
    }
}

/// How server certificates are verified. Connections made with the same one resume each other's
/// sessions.
#[derive(Clone)]
pub struct TlsTrust(Option<Arc<ClientConfig>>);

impl TlsTrust {
    /// Servers must show a certificate that these roots vouch for.
    pub fn verifying(roots: &Roots) -> Self {
        Self::with(Verifier::new(
            Arc::clone(&roots.issuers),
            Arc::clone(&roots.exact),
        ))
    }

    /// Like [`Self::verifying`]. In addition, a server is accepted that holds the first certificate
    /// of this PEM file, whatever its names and its validity: it is the server that is meant.
    ///
    /// # Errors
    /// No certificate in the file, or one that cannot be read.
    pub fn pinned(roots: &Roots, pem: &[u8]) -> Result<Self, PemFault> {
        let first = pem::certificates(pem)?.into_iter().next();
        let issuers = Arc::clone(&roots.issuers);
        let others = Verifier::new(issuers, Arc::clone(&roots.exact));
        let certificate = first.ok_or(PemFault::NoCertificate)?;
        Ok(Self::with(Pinned::new(certificate, others)))
    }

    /// Any certificate is accepted. A machine in the middle can read and change everything.
    pub fn insecure() -> Self {
        Self::with(Verifier::insecure())
    }

    fn with(verifier: impl ServerCertVerifier + 'static) -> Self {
        let config = crypto::client(Arc::new(verifier)).map(|builder| {
            let mut config = builder.with_no_client_auth();
            config.alpn_protocols = vec![ALPN.to_vec()];
            Arc::new(config)
        });
        Self(config.ok())
    }

    /// For one server: its name in lower case, or its address without brackets.
    pub fn client(&self, host: &str) -> TlsClient {
        TlsClient(Arc::new(Client {
            config: self.0.clone(),
            name: ServerName::try_from(host.to_owned()).ok(),
        }))
    }
}

/// How connections to one server are secured.
#[derive(Clone)]
pub struct TlsClient(Arc<Client>);

struct Client {
    /// `None`: the cryptography has no cipher, which ring has.
    config: Option<Arc<ClientConfig>>,
    /// `None`: no certificate can be for such a name.
    name: Option<ServerName<'static>>,
}

impl TlsClient {
    /// The client's end of a new connection, for a transport of the caller's; `None` if no
    /// certificate can be valid for the name.
    pub fn session(&self) -> Option<ClientConnection> {
        let (name, config) = (self.0.name.clone()?, self.0.config.clone()?);
        ClientConnection::new(config, name).ok()
    }

    /// The same for the engine's own transport.
    pub(crate) fn begin(&self) -> Option<rustls::Connection> {
        self.session().map(rustls::Connection::from)
    }
}

/// A certificate with its key.
#[derive(Clone)]
pub struct TlsIdentity(Arc<ServerConfig>);

impl TlsIdentity {
    /// Of two PEM files: the certificate with those that lead to its issuer, and the key.
    ///
    /// # Errors
    /// [`PemFault`].
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, PemFault> {
        let chain = pem::certificates(certificates)?;
        let key = pem::key(key)?;
        let mut config = crypto::server()
            .map_err(|_| PemFault::BadKey)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| PemFault::of_identity(&error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Without tickets only a few hundred sessions could be resumed.
        if let Some(ticketer) = crypto::ticketer() {
            config.ticketer = ticketer;
        }
        Ok(Self(Arc::new(config)))
    }

    /// The server's end of a new connection.
    pub(crate) fn begin(&self) -> Option<rustls::Connection> {
        rustls::ServerConnection::new(Arc::clone(&self.0))
            .ok()
            .map(rustls::Connection::from)
    }
}

/// The certificate of a listener, if it speaks TLS; it can be changed while it listens. Connections
/// made before go on as they are.
#[derive(Debug, Clone, Default)]
pub struct TlsListener(Arc<RwLock<Option<TlsIdentity>>>);

impl TlsListener {
    /// Changes it; `None` = new connections are plain.
    pub fn set(&self, identity: Option<TlsIdentity>) {
        match self.0.write() {
            Ok(mut current) => *current = identity,
            Err(poisoned) => *poisoned.into_inner() = identity,
        }
    }

    /// The certificate for a new connection.
    pub(crate) fn current(&self) -> Option<TlsIdentity> {
        match self.0.read() {
            Ok(current) => current.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }
}

impl fmt::Debug for TlsTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTrust")
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsClient({:?})", self.0.name)
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity")
    }
}
