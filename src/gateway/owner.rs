//! The client that alone finds the responses of its requests.
//!
//! Contract: docs/contract/dialects.md#9, docs/contract/access.md#15

use olla_engine::h1::FieldId;
use olla_engine::handler::Request;

use crate::access::Key;
use crate::config::KeyDigest;
use crate::dialects::responses::Owner;

/// What is hashed in front of a key's name. No credential has this byte.
const OF_A_KEY: &str = "\0";

/// The client of a request: the key that it was admitted with, by its name, which outlives its
/// secret; with access off its credential.
pub(super) fn owner_of(request: &Request<'_>, key: Option<&Key>) -> Owner {
    if let Some(key) = key {
        let name = format!("{OF_A_KEY}{}", key.name);
        return Owner(Some(*KeyDigest::of(name.as_bytes()).as_bytes()));
    }
    let Request { head, bytes, .. } = *request;
    let named = |name: &[u8]| {
        let mut fields = head.fields.iter();
        fields
            .find(|field| field.name.of(bytes).eq_ignore_ascii_case(name))
            .map(|field| field.value.of(bytes))
    };
    let credential = head
        .get(bytes, FieldId::Authorization)
        .or_else(|| named(b"x-api-key"))
        .or_else(|| named(b"api-key"));
    Owner(credential.and_then(|credential| {
        let digest = ring::digest::digest(&ring::digest::SHA256, credential);
        digest.as_ref().try_into().ok()
    }))
}
