//! Token counts and model lists of the Messages API, which need no endpoint.
//!
//! Contract: docs/contract/translation.md#11, docs/contract/translation.md#12

use percent_encoding::percent_decode;

use super::translate::{self, Refusal};
use crate::dialects::{Error, OwnAsk};

/// `GET` of the prefix: Claude Code checks by it that its base URL works
/// (docs/contract/translation.md#1).
pub(super) fn alive(_: &OwnAsk<'_>) -> Result<Vec<u8>, Error> {
    Ok(br#"{"status":"ok"}"#.to_vec())
}

/// `GET api/hello`, as Anthropic's own API answers it.
pub(super) fn hello(_: &OwnAsk<'_>) -> Result<Vec<u8>, Error> {
    Ok(br#"{"message":"hello"}"#.to_vec())
}

/// `POST v1/messages/count_tokens`.
pub(super) fn count_tokens(body: &[u8]) -> Result<Vec<u8>, Error> {
    Ok(translate::count_tokens(body)?)
}

/// `GET v1/models`.
pub(super) fn models(ask: &OwnAsk<'_>) -> Result<Vec<u8>, Error> {
    let ids = ask.catalogue.served_ids();
    Ok(translate::models(ids.iter().copied(), ask.started))
}

/// `GET v1/models/{id}`.
pub(super) fn model(ask: &OwnAsk<'_>) -> Result<Vec<u8>, Error> {
    let name = percent_decode(ask.rest).decode_utf8_lossy();
    let ids = ask.catalogue.served_ids();
    let listed = ids.iter().find(|id| id.eq_ignore_ascii_case(&name));
    let id = listed
        .copied()
        .or_else(|| (ask.is_served)(&name).then_some(&*name))
        .or_else(|| ask.catalogue.served_alias(&name));
    match id {
        Some(id) => Ok(translate::model(id, ask.started)),
        None => Err(Error::from(Refusal {
            status: 404,
            message: format!("model not found: {name}"),
        })),
    }
}
