//! TLS on both sides of the gateway: certificates, backends that speak it, clients that speak it.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use crate::backend::{Backend, Link};
use crate::gateway::Gateway;
use crate::http::{Client, Received, Transport, Wire};
use crate::wait::PATIENCE;

/// An issuer of certificates.
pub struct Issuer(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl Issuer {
    /// Creates an issuer.
    ///
    /// # Panics
    /// When the key cannot be generated.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for these names.
    ///
    /// # Panics
    /// When a name is invalid.
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.issue_until(names, 2100)
    }

    /// Issues a certificate that is valid until the beginning of a year.
    ///
    /// # Panics
    /// When a name is invalid.
    pub fn issue_until(&self, names: &[&str], year: i32) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Identity {
    /// A self-signed certificate for `localhost`, as it is common for single servers.
    ///
    /// # Panics
    /// When the key cannot be generated.
    pub fn self_signed() -> Self {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            certificate: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// What a client asked for in its handshake with a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The server name; none for an address.
    pub server_name: Option<String>,
    /// The protocol that was agreed on.
    pub alpn: Option<Vec<u8>>,
}

/// A backend that speaks TLS.
pub struct TlsBackend {
    /// The backend below.
    pub backend: Backend,
    handshakes: Arc<Mutex<Vec<Handshake>>>,
}

impl TlsBackend {
    /// Starts a backend with this certificate that lists these models and responds as `handler` does.
    ///
    /// # Panics
    /// When the certificate and the key do not belong together.
    pub fn new(
        identity: &Identity,
        models: &[&str],
        handler: impl Fn(&Received, &mut Link) + Send + Sync + 'static,
    ) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let handshakes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&handshakes);
        let wrap = move |mut tcp: TcpStream| {
            let socket = tcp.try_clone()?;
            let mut session =
                ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
            while session.is_handshaking() {
                session.complete_io(&mut tcp)?;
            }
            seen.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Handshake {
                    server_name: session.server_name().map(str::to_owned),
                    alpn: session.alpn_protocol().map(<[u8]>::to_vec),
                });
            Ok(Wire::new(Box::new(StreamOwned::new(session, tcp)), socket))
        };
        Self {
            backend: Backend::wrapped(models, Box::new(wrap), handler),
            handshakes,
        }
    }

    /// Its base URL with this host.
    pub fn url(&self, host: &str) -> String {
        self.backend.url_as("https", host)
    }

    /// The handshakes that were completed, in their order.
    pub fn handshakes(&self) -> Vec<Handshake> {
        self.handshakes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Transport for StreamOwned<ServerConnection, TcpStream> {
    fn announce_end(&mut self) {
        self.conn.send_close_notify();
        let _ = self.conn.complete_io(&mut self.sock);
    }
}

impl Transport for StreamOwned<ClientConnection, TcpStream> {}

/// Connects to a gateway as a client that trusts this issuer and offers these protocols. Returns the
/// client and the protocol that was agreed on.
///
/// # Errors
/// When the handshake fails.
///
/// # Panics
/// When the connection is refused, or the issuer is not PEM.
pub fn connect(
    gateway: &Gateway,
    issuer: &str,
    alpn: &[&[u8]],
) -> io::Result<(Client, Option<Vec<u8>>)> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(issuer.as_bytes()).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tcp = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    let socket = tcp.try_clone()?;
    while session.is_handshaking() {
        session.complete_io(&mut tcp)?;
    }
    let agreed = session.alpn_protocol().map(<[u8]>::to_vec);
    let wire = Wire::new(Box::new(StreamOwned::new(session, tcp)), socket);
    Ok((Client::over(wire), agreed))
}
