//! TLS for the client of the commands: which certificates are trusted, and the transport.
//!
//! Certificates are verified as those of endpoints are, by the engine.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use olla_engine::tls::{TlsClient, TlsFault, TlsTrust, fault_of};
use rustls::{ClientConnection, StreamOwned};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

use crate::roots;

/// The certificates that a command trusts, besides those that the system trusts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Trust {
    /// `--ca-file`: further authorities, or a self-signed certificate.
    pub ca_file: Option<PathBuf>,
    /// The file with the certificate of the gateway itself. It is accepted for every address.
    pub own: Option<PathBuf>,
    /// `--insecure`: accept any certificate.
    pub insecure: bool,
}

impl Trust {
    /// How a connection to this host is secured.
    ///
    /// # Errors
    /// A sentence: the file of `--ca-file` cannot be read or used.
    pub(super) fn client(&self, host: &str) -> Result<TlsClient, String> {
        Ok(self.read()?.client(host))
    }

    fn read(&self) -> Result<TlsTrust, String> {
        if self.insecure {
            return Ok(TlsTrust::insecure());
        }
        let mut roots = roots::system().roots;
        if let Some(path) = &self.ca_file {
            let fault = |why: &dyn fmt::Display| {
                let path = path.display();
                format!("--ca-file: expected a PEM file with certificates, got {path} ({why})")
            };
            let pem = std::fs::read(path).map_err(|error| fault(&error))?;
            roots = roots.with_pem(&pem).map_err(|error| fault(&error))?;
        }
        // Without the file the gateway may still have a certificate that the system trusts.
        let own = self.own.as_ref().and_then(|path| std::fs::read(path).ok());
        let pinned = own.and_then(|pem| TlsTrust::pinned(&roots, &pem).ok());
        Ok(pinned.unwrap_or_else(|| TlsTrust::verifying(&roots)))
    }
}

/// Why there is no TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HandshakeFault(TlsFault);

impl std::error::Error for HandshakeFault {}

impl fmt::Display for HandshakeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const REMEDY: &str = "or pass --insecure to accept any certificate";
        match self.0 {
            TlsFault::UnknownIssuer => write!(
                f,
                "the certificate is not trusted; pass the certificate of its authority with \
                 --ca-file PATH, {REMEDY}"
            ),
            TlsFault::WrongName => write!(
                f,
                "the certificate is valid for other names; pass an address with one of these \
                 names with --url, {REMEDY}"
            ),
            TlsFault::Expired => write!(f, "the certificate has expired; renew it, {REMEDY}"),
            TlsFault::NotYetValid => write!(
                f,
                "the certificate is not valid yet; check the clocks, {REMEDY}"
            ),
            TlsFault::BadCertificate => write!(f, "the certificate cannot be used; {REMEDY}"),
            TlsFault::NotTls => f.write_str("expected TLS, got something else; try http://"),
            TlsFault::Refused | TlsFault::Incompatible | TlsFault::Broken => {
                write!(f, "the TLS handshake failed ({})", self.0.as_str())
            }
        }
    }
}

/// Secures the connections to `https` addresses.
#[derive(Debug)]
pub(super) struct TlsConnector(Option<TlsClient>);

impl TlsConnector {
    /// `None` = for plain connections only.
    pub(super) fn new(client: Option<TlsClient>) -> Self {
        Self(client)
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        let Some(transport) = chained else {
            return Ok(None);
        };
        let client = match &self.0 {
            Some(client) if details.needs_tls() => client,
            _ => return Ok(Some(Either::A(transport))),
        };
        let mut session = client.session().ok_or_else(|| wrong(TlsFault::WrongName))?;
        let clock = details.current_time.clone();
        let mut socket = TransportAdapter::new(transport.boxed(), clock);
        socket.set_timeout(details.timeout);
        while session.is_handshaking() {
            session.complete_io(&mut socket).map_err(handshake)?;
        }
        let config = details.config;
        Ok(Some(Either::B(TlsTransport {
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            stream: StreamOwned::new(session, socket),
        })))
    }
}

fn wrong(fault: TlsFault) -> Error {
    Error::Other(Box::new(HandshakeFault(fault)))
}

/// The library reports TLS errors inside errors of input and output.
fn handshake(error: io::Error) -> Error {
    let inner = error.get_ref();
    match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => wrong(fault_of(error)),
        None if error.kind() == io::ErrorKind::UnexpectedEof => wrong(TlsFault::Broken),
        None => error.into(),
    }
}

/// A connection inside TLS.
pub(super) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.get_mut().set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.get_mut().set_timeout(timeout);
        let input = self.buffers.input_append_buf();
        let amount = self.stream.read(input)?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
