//! The checks of a token, in the contract's order.
//!
//! Contract: docs/contract/access.md#9; RFC 7515, RFC 7519

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::signature::is_signed;
use crate::clock::millis;
use crate::config::{JwtAlgorithm, JwtPlan, KeySet, MissingKey};

/// The longest token, in bytes.
pub(crate) const TOKEN_BYTES_MAX: usize = 8192;

/// Lengths of a name, in bytes.
const NAME_BYTES: std::ops::RangeInclusive<usize> = 1..=128;

/// The longest name of an algorithm that a message shows.
const ALGORITHM_SHOWN_MAX: usize = 16;

/// What the names of keys of tokens begin with.
pub(in crate::access) const PREFIX: &str = "jwt:";

/// What a valid token says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    /// The key's name.
    pub(super) name: Arc<str>,
    /// The name of its policy; `None` = the claim is absent.
    pub(super) policy: Option<Box<str>>,
    /// When it expires, in milliseconds since 1970; leeway not included.
    pub(super) expires_ms: u64,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenFault {
    /// It has not the form of a token.
    Malformed,
    /// Its header has `crit`.
    CriticalHeader,
    /// Its algorithm is not accepted; the name as a message shows it.
    Algorithm(Box<str>),
    /// The issuer has no key for it.
    UnknownKey {
        /// Whether it names a key that the set does not have, so that a newer set may have it.
        is_new: bool,
    },
    /// The signature is not the key's.
    Signature,
    /// `exp` is past.
    Expired,
    /// `exp` is missing.
    NoExpiry,
    /// `nbf` or `iat` is in the future.
    NotYetValid,
    /// `iss` is another.
    Issuer,
    /// `aud` has none of the audiences.
    Audience,
    /// The claim of this name is no name.
    NoName(Box<str>),
    /// It has no policy, and there is none for such tokens.
    NoPolicy,
    /// There is no policy of its name.
    UnknownPolicy,
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed",
            Self::CriticalHeader => "unknown critical header",
            Self::Algorithm(name) => return write!(f, "algorithm {name} is not allowed"),
            Self::UnknownKey { .. } => "unknown signing key",
            Self::Signature => "bad signature",
            Self::Expired => "expired",
            Self::NoExpiry => "no exp",
            Self::NotYetValid => "not yet valid",
            Self::Issuer => "wrong issuer",
            Self::Audience => "wrong audience",
            Self::NoName(claim) => return write!(f, "no {claim}"),
            Self::NoPolicy => "no policy",
            Self::UnknownPolicy => "unknown policy",
        })
    }
}

/// Whether a credential is taken for a token: then it is never looked up as a secret.
pub(crate) fn is_token(credential: &[u8]) -> bool {
    credential.starts_with(b"eyJ") && memchr::memchr_iter(b'.', credential).count() == 2
}

/// Checks a token against the issuer's keys. `now_ms` is in milliseconds since 1970.
pub(super) fn check(
    token: &[u8],
    plan: &JwtPlan,
    keys: &KeySet,
    now_ms: u64,
) -> Result<Claims, TokenFault> {
    let parts = Parts::of(token).ok_or(TokenFault::Malformed)?;
    if parts.header.contains_key("crit") {
        return Err(TokenFault::CriticalHeader);
    }
    let algorithm = algorithm(&parts.header, &plan.algorithms)?;
    let id = match parts.header.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.as_str()),
        Some(_) => return Err(TokenFault::UnknownKey { is_new: false }),
    };
    let key = keys.find(id, algorithm).map_err(|missing| {
        let is_new = missing == MissingKey::Id;
        TokenFault::UnknownKey { is_new }
    })?;
    if !is_signed(key, parts.signed, &parts.signature) {
        return Err(TokenFault::Signature);
    }
    claims(&parts.payload, plan, now_ms)
}

/// The three parts of a token.
struct Parts<'t> {
    header: Map<String, Value>,
    payload: Map<String, Value>,
    /// What the signature is of.
    signed: &'t [u8],
    signature: Vec<u8>,
}

impl<'t> Parts<'t> {
    fn of(token: &'t [u8]) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let object = |part: &[u8]| {
            let text = URL_SAFE_NO_PAD.decode(part).ok()?;
            match serde_json::from_slice(&text).ok()? {
                Value::Object(object) => Some(object),
                _ => None,
            }
        };
        Some(Self {
            header: object(header)?,
            payload: object(payload)?,
            signed: token.get(..header.len() + 1 + payload.len())?,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }
}

fn algorithm(
    header: &Map<String, Value>,
    accepted: &[JwtAlgorithm],
) -> Result<JwtAlgorithm, TokenFault> {
    let name = header.get("alg").and_then(Value::as_str).unwrap_or("");
    let found = accepted.iter().find(|algorithm| algorithm.as_str() == name);
    found.copied().ok_or_else(|| {
        let is_shown = (1..=ALGORITHM_SHOWN_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        TokenFault::Algorithm(Box::from(if is_shown { name } else { "?" }))
    })
}

fn claims(payload: &Map<String, Value>, plan: &JwtPlan, now_ms: u64) -> Result<Claims, TokenFault> {
    let now = i128::from(now_ms);
    let leeway = i128::from(millis(plan.leeway));
    let expires = match payload.get("exp").map(instant_ms) {
        None => return Err(TokenFault::NoExpiry),
        // What is no number is no time at which it ends.
        Some(None) => return Err(TokenFault::NoExpiry),
        Some(Some(at)) if at + leeway <= now => return Err(TokenFault::Expired),
        Some(Some(at)) => at,
    };
    for begin in ["nbf", "iat"] {
        let at = payload.get(begin).map(instant_ms);
        if at.is_some_and(|at| at.is_none_or(|at| at - leeway > now)) {
            return Err(TokenFault::NotYetValid);
        }
    }
    if payload.get("iss").and_then(Value::as_str) != Some(plan.issuer.as_str()) {
        return Err(TokenFault::Issuer);
    }
    let is_ours = |value: &Value| {
        let text = value.as_str();
        text.is_some_and(|text| plan.audience.iter().any(|ours| ours == text))
    };
    let is_meant = match payload.get("aud") {
        Some(Value::Array(all)) => all.iter().any(is_ours),
        Some(one) => is_ours(one),
        None => false,
    };
    if !is_meant {
        return Err(TokenFault::Audience);
    }
    let name = payload.get(&plan.name_claim).and_then(Value::as_str);
    let is_name = |name: &&str| {
        NAME_BYTES.contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let name = name
        .filter(is_name)
        .ok_or_else(|| TokenFault::NoName(Box::from(plan.name_claim.as_str())))?;
    let policy = match payload.get(&plan.policy_claim) {
        None | Some(Value::Null) => None,
        Some(Value::String(policy)) => Some(Box::from(policy.as_str())),
        Some(_) => return Err(TokenFault::UnknownPolicy),
    };
    Ok(Claims {
        name: Arc::from(format!("{PREFIX}{name}")),
        policy,
        expires_ms: u64::try_from(expires).unwrap_or(0),
    })
}

/// A NumericDate (RFC 7519 section 2) in milliseconds since 1970.
fn instant_ms(value: &Value) -> Option<i128> {
    let number = value.as_number()?;
    let whole = number.as_i64().map(i128::from);
    let whole = whole.or_else(|| number.as_u64().map(i128::from));
    match whole {
        Some(seconds) => Some(seconds * 1000),
        // The conversion saturates.
        None => Some(i128::from((number.as_f64()? * 1000.0) as i64)),
    }
}
