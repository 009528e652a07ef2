//! Certificates and keys out of PEM files.

use std::fmt;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What is wrong with a PEM file. Holds nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PemFault {
    /// The file contains no certificate.
    NoCertificate,
    /// A certificate in it cannot be read.
    BadCertificate,
    /// The file contains no private key.
    NoKey,
    /// The key cannot be read, or is of a kind that is not supported.
    BadKey,
    /// The key is that of another certificate.
    OtherKey,
}

impl PemFault {
    /// Whether it is the key's file that is wrong.
    pub const fn is_about_key(self) -> bool {
        matches!(self, Self::NoKey | Self::BadKey | Self::OtherKey)
    }

    /// What rustls says of a certificate and its key.
    pub(super) fn of_identity(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(_) => Self::OtherKey,
            rustls::Error::InvalidCertificate(_) => Self::BadCertificate,
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            _ => Self::BadKey,
        }
    }
}

impl fmt::Display for PemFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCertificate => "no certificate in it (PEM)",
            Self::BadCertificate => "a certificate in it cannot be read",
            Self::NoKey => "no private key in it (PEM, not encrypted)",
            Self::BadKey => "the private key in it cannot be used",
            Self::OtherKey => "the private key in it is that of another certificate",
        })
    }
}

/// All certificates, at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemFault> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(none) if none.is_empty() => Err(PemFault::NoCertificate),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(PemFault::BadCertificate),
    }
}

/// The first private key.
pub(super) fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemFault> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pem::Error::NoItemsFound => PemFault::NoKey,
        _ => PemFault::BadKey,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Roots, TlsIdentity};
    use super::*;

    fn made(names: &[&str]) -> (String, String) {
        let names = names.iter().map(|name| (*name).to_owned());
        let made = rcgen::generate_simple_self_signed(names.collect::<Vec<_>>()).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let (certificate, key) = made(&["one"]);
        let (other, _) = made(&["two"]);
        let broken = certificate.replace("\nMI", "\n!!");
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let key_of_nothing = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let table = [
            (certificate.as_str(), key.as_str(), None),
            ("", &key, Some(PemFault::NoCertificate)),
            (&key, &key, Some(PemFault::NoCertificate)),
            (&broken, &key, Some(PemFault::BadCertificate)),
            (empty, &key, Some(PemFault::BadCertificate)),
            (&certificate, "", Some(PemFault::NoKey)),
            (&certificate, &certificate, Some(PemFault::NoKey)),
            (&certificate, key_of_nothing, Some(PemFault::BadKey)),
            (&other, &key, Some(PemFault::OtherKey)),
        ];
        for (certificate, key, want) in table {
            let got = TlsIdentity::from_pem(certificate.as_bytes(), key.as_bytes());
            assert_eq!(got.err(), want, "{certificate} {key}");
        }
        let none = Roots::default();
        let table = [
            (certificate.as_str(), None),
            ("x", Some(PemFault::NoCertificate)),
            (&broken, Some(PemFault::BadCertificate)),
            (empty, Some(PemFault::BadCertificate)),
        ];
        for (pem, want) in table {
            assert_eq!(none.with_pem(pem.as_bytes()).err(), want, "{pem}");
        }
        let both = format!("{certificate}# and\n{other}");
        assert_eq!(none.with_pem(both.as_bytes()).unwrap().issuers.len(), 2);
        assert!(none.is_empty());
    }
}
