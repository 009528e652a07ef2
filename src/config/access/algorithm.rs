//! The signature algorithms of tokens.
//!
//! Contract: docs/contract/access.md#9

use super::super::reader::Word;

/// A signature algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JwtAlgorithm {
    /// RSA with PKCS #1 v1.5 and SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl JwtAlgorithm {
    /// Its name in tokens and in the configuration (RFC 7518 section 3.1, RFC 8037 section 3.1).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl Word for JwtAlgorithm {
    const ALL: &'static [Self] = &[Self::Rs256, Self::Es256, Self::EdDsa];

    fn word(self) -> &'static str {
        self.as_str()
    }
}
