//! Verifies a server's certificate.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::crypto;

/// A verifier of server certificates.
#[derive(Debug)]
pub(super) struct Verifier {
    /// `None`: nothing is verified.
    trusted: Option<Trusted>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct Trusted {
    issuers: Arc<RootCertStore>,
    exact: Arc<[CertificateDer<'static>]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(issuers: Arc<RootCertStore>, exact: Arc<[CertificateDer<'static>]>) -> Self {
        let algorithms = crypto::algorithms();
        Self {
            trusted: Some(Trusted {
                issuers,
                exact,
                algorithms,
            }),
            algorithms,
        }
    }

    pub(super) fn insecure() -> Self {
        Self {
            trusted: None,
            algorithms: crypto::algorithms(),
        }
    }
}

impl Trusted {
    fn verify(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(server)?;
        let issued = verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.issuers,
            intermediates,
            now,
            self.algorithms.all,
        );
        match issued {
            // Nothing but that it could issue others, too, is wrong with a certificate that the
            // operator has named: the time was verified before that.
            Err(error) if is_issuer_itself(&error) && self.exact.contains(server) => {}
            verified => verified?,
        }
        verify_server_name(&parsed, name)
    }
}

fn is_issuer_itself(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) = error else {
        return false;
    };
    cause
        .downcast_ref::<webpki::Error>()
        .is_some_and(|error| *error == webpki::Error::CaUsedAsEndEntity)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(trusted) = &self.trusted {
            trusted.verify(end_entity, intermediates, server_name, now)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.trusted.is_none() {
            // A certificate that says nothing proves nothing by its key.
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.trusted.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd,
    };

    use super::*;
    use crate::fault::TlsFault;
    use crate::tls::{Roots, fault_of};

    /// In the middle of the certificates' time.
    const NOW: u64 = 1_800_000_000;

    fn params(names: &[&str]) -> CertificateParams {
        let names = names.iter().map(|name| (*name).to_owned());
        let mut params = CertificateParams::new(names.collect::<Vec<_>>()).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2040, 1, 1);
        params
    }

    fn issuer() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = params(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn verified(
        roots: &Roots,
        server: &CertificateDer<'_>,
        name: &str,
        now: u64,
    ) -> Option<TlsFault> {
        let verifier = Verifier::new(Arc::clone(&roots.issuers), Arc::clone(&roots.exact));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let verified = verifier.verify_server_cert(server, &[], &name, &[], now);
        verified.err().map(|error| fault_of(&error))
    }

    #[test]
    fn each_fault_of_a_certificate_has_its_name() {
        let issuer = issuer();
        let roots = Roots::new([issuer.der()]);
        let key = KeyPair::generate().unwrap();
        let good = params(&["gpu-1.lan", "10.0.0.7"])
            .signed_by(&key, &issuer)
            .unwrap();
        let table = [
            ("gpu-1.lan", NOW, None),
            ("10.0.0.7", NOW, None),
            ("gpu-2.lan", NOW, Some(TlsFault::WrongName)),
            ("10.0.0.8", NOW, Some(TlsFault::WrongName)),
            ("gpu-1.lan", 2_300_000_000, Some(TlsFault::Expired)),
            ("gpu-1.lan", 1_500_000_000, Some(TlsFault::NotYetValid)),
        ];
        for (name, now, want) in table {
            assert_eq!(
                verified(&roots, good.der(), name, now),
                want,
                "{name} {now}"
            );
        }
        let none = Roots::default();
        for roots in [&none, &Roots::new([self::issuer().der()])] {
            let got = verified(roots, good.der(), "gpu-1.lan", NOW);
            assert_eq!(got, Some(TlsFault::UnknownIssuer));
        }
        let garbage = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
        let got = verified(&roots, &garbage, "gpu-1.lan", NOW);
        assert_eq!(got, Some(TlsFault::BadCertificate));
    }

    #[test]
    fn a_certificate_that_was_named_is_trusted_as_it_is() {
        // As `openssl req -x509` makes them: they could issue others, too.
        let mut own = params(&["gpu-1.lan"]);
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = own.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let plain = params(&["gpu-1.lan"]);
        let plain = plain.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let none = Roots::default();
        for certificate in [&own, &plain] {
            let roots = none.with_pem(certificate.pem().as_bytes()).unwrap();
            let der = certificate.der();
            assert_eq!(verified(&roots, der, "gpu-1.lan", NOW), None);
            let other = verified(&roots, der, "gpu-2.lan", NOW);
            assert_eq!(other, Some(TlsFault::WrongName));
            let late = verified(&roots, der, "gpu-1.lan", 2_300_000_000);
            assert_eq!(late, Some(TlsFault::Expired));
        }
        // Named as an issuer only, it must not stand for a server.
        let issuers = Roots::new([own.der()]);
        let got = verified(&issuers, own.der(), "gpu-1.lan", NOW);
        assert_eq!(got, Some(TlsFault::BadCertificate));
    }
}
