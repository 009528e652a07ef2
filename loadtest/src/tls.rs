//! A client's byte stream, with or without TLS.
//!
//! TLS is as alike as it can be for every server that is measured: version 1.3, one cipher suite,
//! one key exchange, and no session is ever resumed, so that each handshake is a whole one. The
//! signature of the handshake is checked. Whose the certificate is does not matter to a load tool.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::{Arc, LazyLock};

use mio::net::TcpStream;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, version,
};

/// The one configuration of all connections; the error is that of rustls about it.
static CONFIG: LazyLock<Result<Arc<ClientConfig>, Error>> = LazyLock::new(config);

/// What a client reads from and writes to.
#[derive(Debug)]
pub enum ClientStream {
    /// The socket itself.
    Plain(TcpStream),
    /// TLS on it.
    Tls(Box<TlsStream>),
}

/// TLS on a socket that does not block. The handshake makes progress with every read and write.
#[derive(Debug)]
pub struct TlsStream {
    tcp: TcpStream,
    session: ClientConnection,
}

impl ClientStream {
    /// True without TLS. With it, a short read does not mean that the socket is empty.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

impl Read for ClientStream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(space),
            Self::Tls(tls) => tls.read(space),
        }
    }
}

impl Write for ClientStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(data)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write_vectored(pieces),
            Self::Tls(tls) => tls.write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.send_records(),
        }
    }
}

impl TlsStream {
    /// Begins TLS towards the server of this name, on a connection that may still be in the making.
    ///
    /// # Errors
    /// `InvalidInput` when rustls refuses the configuration or the name.
    pub fn new(tcp: TcpStream, name: &ServerName<'static>) -> io::Result<Self> {
        let invalid = |error: Error| io::Error::new(ErrorKind::InvalidInput, error);
        let config = CONFIG.clone().map_err(invalid)?;
        let session = ClientConnection::new(config, name.clone()).map_err(invalid)?;
        Ok(Self { tcp, session })
    }

    /// Returns decrypted bytes, 0 at the end of the peer's bytes: whether the end was announced in
    /// TLS does not matter, since HTTP says how long each response is.
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(space) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            if self.session.read_tls(&mut self.tcp)? == 0 {
                return Ok(0);
            }
            let broken = |error| io::Error::new(ErrorKind::InvalidData, error);
            let processed = self.session.process_new_packets().map_err(broken);
            // The handshake goes on, or the server is told what was wrong.
            self.send_records()?;
            processed?;
        }
    }

    /// Takes bytes to encrypt; those taken before the handshake is over leave after it.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = self.session.writer().write_vectored(pieces)?;
        self.send_records()?;
        match count {
            // The session holds only so much that is not yet sent.
            0 if pieces.iter().any(|piece| !piece.is_empty()) => Err(ErrorKind::WouldBlock.into()),
            _ => Ok(count),
        }
    }

    /// Sends what is encrypted and what of the handshake is due, as far as the socket takes it.
    fn send_records(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.tcp) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // connect(2) is still in progress, or the socket is full.
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn config() -> Result<Arc<ClientConfig>, Error> {
    let verifier = AnyCertificate {
        algorithms: ring::default_provider().signature_verification_algorithms,
    };
    let provider = CryptoProvider {
        cipher_suites: vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![ring::kx_group::X25519],
        ..ring::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Accepts every certificate and checks that the server has its key.
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyCertificate {
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

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
