//! The issuer's keys: a JSON Web Key Set. Each key is for the one algorithm of its kind.
//!
//! Contract: docs/contract/access.md#9; RFC 7517, RFC 7518 section 6, RFC 8037 section 2

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::JwtAlgorithm;

/// The largest set, in bytes.
pub(crate) const SET_BYTES_MAX: usize = 256 << 10;

/// The most keys of a set.
const KEYS_MAX: usize = 100;

/// Sizes of an RSA key, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The keys of an issuer that can be used.
#[derive(Debug, PartialEq, Eq)]
pub struct KeySet {
    /// In the order of the set; never empty.
    keys: Vec<IssuerKey>,
}

#[derive(Debug, PartialEq, Eq)]
struct IssuerKey {
    id: Option<Box<str>>,
    key: PublicKey,
}

/// A public key, for the one algorithm of its kind.
#[derive(Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// Modulus and exponent, big-endian without zeros in front.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// The uncompressed point.
    P256([u8; 65]),
    /// The point.
    Ed25519([u8; 32]),
}

/// Why a set cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetFault {
    /// It is longer than [`SET_BYTES_MAX`].
    TooLong,
    /// It is not JSON, or not an object with a list `keys`.
    NoSet,
    /// It has more than [`KEYS_MAX`] keys.
    TooMany,
    /// No key of it can be used.
    NoKey,
}

impl fmt::Display for SetFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "expected at most {SET_BYTES_MAX} bytes, got more"),
            Self::NoSet => f.write_str("expected a JSON object with a list \"keys\""),
            Self::TooMany => write!(f, "expected at most {KEYS_MAX} keys, got more"),
            Self::NoKey => f.write_str(
                "expected a key for RS256, ES256 or EdDSA signatures, got none that can be used",
            ),
        }
    }
}

/// Reads the set in a file.
///
/// # Errors
/// Why the file has none, in words.
pub(crate) fn read_set(path: &Path) -> Result<KeySet, String> {
    let cannot = |error: std::io::Error| format!("cannot read it: {error}");
    // Whoever waits for a pipe waits for ever.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("expected a regular file".to_owned());
    }
    let mut text = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    let mut bounded = file.take(SET_BYTES_MAX as u64 + 1);
    bounded.read_to_end(&mut text).map_err(cannot)?;
    KeySet::parse(&text).map_err(|fault| fault.to_string())
}

/// Why a token has no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingKey {
    /// No key has the id that the token names.
    Id,
    /// The key does not fit the algorithm, or no id is named and not exactly one key fits.
    Fit,
}

impl KeySet {
    /// Reads a set. Keys of other kinds, for other uses, or with private members are passed over.
    ///
    /// # Errors
    /// [`SetFault`].
    pub fn parse(text: &[u8]) -> Result<Self, SetFault> {
        if text.len() > SET_BYTES_MAX {
            return Err(SetFault::TooLong);
        }
        let Ok(Value::Object(mut set)) = serde_json::from_slice(text) else {
            return Err(SetFault::NoSet);
        };
        let Some(Value::Array(all)) = set.remove("keys") else {
            return Err(SetFault::NoSet);
        };
        if all.len() > KEYS_MAX {
            return Err(SetFault::TooMany);
        }
        let keys: Vec<IssuerKey> = all.iter().filter_map(issuer_key).collect();
        if keys.is_empty() {
            return Err(SetFault::NoKey);
        }
        Ok(Self { keys })
    }

    /// The number of keys that can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key for a token: that of the id, of several the first; without an id the only one that
    /// fits the algorithm.
    pub fn find(
        &self,
        id: Option<&str>,
        algorithm: JwtAlgorithm,
    ) -> Result<&PublicKey, MissingKey> {
        let fits = |key: &&IssuerKey| key.key.algorithm() == algorithm;
        if let Some(id) = id {
            let mut keys = self.keys.iter();
            let found = keys.find(|key| key.id.as_deref() == Some(id));
            let found = found.ok_or(MissingKey::Id)?;
            return Some(found)
                .filter(fits)
                .map(|key| &key.key)
                .ok_or(MissingKey::Fit);
        }
        let mut fitting = self.keys.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(&only.key),
            _ => Err(MissingKey::Fit),
        }
    }
}

impl PublicKey {
    /// The algorithm that the key is for.
    const fn algorithm(&self) -> JwtAlgorithm {
        match self {
            Self::Rsa { .. } => JwtAlgorithm::Rs256,
            Self::P256(_) => JwtAlgorithm::Es256,
            Self::Ed25519(_) => JwtAlgorithm::EdDsa,
        }
    }
}

/// One key of a set; `None` if it cannot be used.
fn issuer_key(value: &Value) -> Option<IssuerKey> {
    let key = value.as_object()?;
    // RFC 7518 sections 6.2.2 and 6.3.2, RFC 8037: private members.
    if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"]
        .iter()
        .any(|name| key.contains_key(*name))
    {
        return None;
    }
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let public = match (text("kty")?, text("crv")) {
        ("RSA", _) => rsa(key)?,
        ("EC", Some("P-256")) => {
            let (x, y) = (coordinate(key, "x")?, coordinate(key, "y")?);
            let mut point = [4; 65];
            point.get_mut(1..33)?.copy_from_slice(&x);
            point.get_mut(33..)?.copy_from_slice(&y);
            PublicKey::P256(point)
        }
        ("OKP", Some("Ed25519")) => PublicKey::Ed25519(coordinate(key, "x")?),
        _ => return None,
    };
    let is_for = |name: &str, wanted: &str| key.get(name).is_none_or(|value| value == wanted);
    let may_verify = key.get("key_ops").is_none_or(|operations| {
        let listed = operations.as_array().map(Vec::as_slice).unwrap_or_default();
        listed.iter().any(|operation| operation == "verify")
    });
    let name = public.algorithm().as_str();
    (is_for("alg", name) && is_for("use", "sig") && may_verify).then(|| IssuerKey {
        id: text("kid").map(Box::from),
        key: public,
    })
}

fn rsa(key: &Map<String, Value>) -> Option<PublicKey> {
    let number = |name: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(key.get(name)?.as_str()?).ok()?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Some(bytes.get(zeros..)?.to_vec())
    };
    let (n, e) = (number("n")?, number("e")?);
    let first = n.first()?;
    let bits = n.len() * 8 - first.leading_zeros() as usize;
    RSA_BITS.contains(&bits).then_some(PublicKey::Rsa { n, e })
}

/// A coordinate, which has its full length (RFC 7518 section 6.2.1.2).
fn coordinate(key: &Map<String, Value>, name: &str) -> Option<[u8; 32]> {
    let bytes = URL_SAFE_NO_PAD.decode(key.get(name)?.as_str()?).ok()?;
    bytes.try_into().ok()
}
