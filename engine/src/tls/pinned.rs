//! Verification that also accepts one particular certificate, whatever it is valid for.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use super::verify::Verifier;

/// Accepts a certificate by comparison; others are verified.
///
/// The signature of the handshake proves in both cases that the server has the private key.
#[derive(Debug)]
pub(super) struct Pinned {
    certificate: CertificateDer<'static>,
    others: Verifier,
}

impl Pinned {
    pub(super) fn new(certificate: CertificateDer<'static>, others: Verifier) -> Self {
        Self {
            certificate,
            others,
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        self.others
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.others.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.others.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.others.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::RootCertStore;

    use super::*;
    use crate::fault::TlsFault;
    use crate::tls::fault_of;

    fn certificate() -> CertificateDer<'static> {
        let names = vec!["gateway.lan".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        made.cert.der().clone()
    }

    #[test]
    fn only_the_pinned_certificate_is_accepted_for_every_name() {
        let (own, other) = (certificate(), certificate());
        let others = Verifier::new(Arc::new(RootCertStore::empty()), Arc::from([]));
        let verifier = Pinned::new(own.clone(), others);
        let name = ServerName::try_from("localhost").unwrap();
        let verify = |certificate: &CertificateDer<'_>| {
            verifier
                .verify_server_cert(certificate, &[], &name, &[], UnixTime::now())
                .map(|_| ())
                .map_err(|error| fault_of(&error))
        };
        assert_eq!(verify(&own), Ok(()));
        assert_eq!(verify(&other), Err(TlsFault::UnknownIssuer));
    }
}
