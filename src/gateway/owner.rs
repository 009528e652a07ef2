//! The client that alone finds the responses of its requests.
//!
//! Contract: docs/contract/dialects.md#9

use olla_engine::h1::FieldId;
use olla_engine::handler::Request;

use crate::dialects::responses::Owner;

/// The client of a request, by its credential.
pub(super) fn owner_of(request: &Request<'_>) -> Owner {
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
