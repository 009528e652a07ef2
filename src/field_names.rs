//! Header fields of the product that have ids of their own, so that they are found while a head is
//! indexed.

use olla_engine::h1::{FieldId, field};

/// `X-Model`: the name of the model that a request is for.
pub(crate) const X_MODEL: FieldId = FieldId::own(0);
/// `X-Olla-Session-ID`: the client's own name for a conversation.
pub(crate) const X_OLLA_SESSION_ID: FieldId = FieldId::own(1);
/// `X-Olla-Endpoint`: the endpoint that a management request is for.
pub(crate) const X_OLLA_ENDPOINT: FieldId = FieldId::own(2);
/// `X-Olla-Explain`: the client wants to know why it gets its endpoint.
pub(crate) const X_OLLA_EXPLAIN: FieldId = FieldId::own(10);
/// Any other `X-Olla-*`.
pub(crate) const X_OLLA: FieldId = FieldId::own(3);
/// `Sec-Fetch-*`: what a browser says of a request.
pub(crate) const SEC_FETCH: FieldId = FieldId::own(4);
/// `Location` and `Content-Location`.
pub(crate) const LOCATION: FieldId = FieldId::own(5);
/// `Refresh`: a location after a time.
pub(crate) const REFRESH: FieldId = FieldId::own(6);
/// `X-Accel-Buffering`: whether nginx collects a response.
pub(crate) const X_ACCEL_BUFFERING: FieldId = FieldId::own(7);

/// All of them; none can be named in `Connection` to be taken off a request.
#[derive(Debug)]
pub(crate) enum Names {}

impl field::FieldNames for Names {
    const NAMES: &'static [(&'static str, FieldId)] = &[
        ("x-model", X_MODEL),
        ("x-olla-session-id", X_OLLA_SESSION_ID),
        ("x-olla-endpoint", X_OLLA_ENDPOINT),
        ("x-olla-explain", X_OLLA_EXPLAIN),
        ("sec-fetch-site", SEC_FETCH),
        ("sec-fetch-mode", SEC_FETCH),
        ("sec-fetch-dest", SEC_FETCH),
        ("sec-fetch-user", SEC_FETCH),
        ("location", LOCATION),
        ("content-location", LOCATION),
        ("refresh", REFRESH),
        ("x-accel-buffering", X_ACCEL_BUFFERING),
    ];
    const PREFIX: Option<(&'static str, FieldId)> = Some(("x-olla-", X_OLLA));
}

/// The id of a name.
pub(crate) fn classify(name: &[u8]) -> FieldId {
    field::classify::<Names>(name)
}

/// Any `X-Olla-*`.
pub(crate) const fn is_x_olla(id: FieldId) -> bool {
    matches!(
        id,
        X_OLLA | X_OLLA_SESSION_ID | X_OLLA_ENDPOINT | X_OLLA_EXPLAIN
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_ids_in_any_letter_case() {
        let table = [
            ("X-Model", X_MODEL),
            ("x-olla-session-id", X_OLLA_SESSION_ID),
            ("X-OLLA-ENDPOINT", X_OLLA_ENDPOINT),
            ("X-Olla-Model", X_OLLA),
            ("X-Olla-Endpoints", X_OLLA),
            ("X-Olla-", X_OLLA),
            ("X-Ollama-Thing", FieldId::Other),
            ("X-Models", FieldId::Other),
            ("Sec-Fetch-Site", SEC_FETCH),
            ("sec-fetch-user", SEC_FETCH),
            ("Sec-Fetch-Storage-Access", FieldId::Other),
            ("Content-Location", LOCATION),
            ("LOCATION", LOCATION),
            ("Refresh", REFRESH),
            ("X-Accel-Buffering", X_ACCEL_BUFFERING),
            ("Host", FieldId::Host),
        ];
        for (name, id) in table {
            assert_eq!(classify(name.as_bytes()), id, "{name}");
            assert_eq!(is_x_olla(id), name.to_lowercase().starts_with("x-olla-"));
        }
    }
}
