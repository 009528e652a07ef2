//! Errors in the terms of the API (docs/contract/dialects.md#12).

use crate::dialects::chat::error::{Refusal, invalid};

/// A field that only servers with a Responses API of their own can serve.
pub(super) fn unsupported(param: &str) -> Refusal {
    let problem = "not supported by the endpoints of this model";
    invalid(param, problem).with_code("unsupported_parameter")
}

/// A `previous_response_id` that leads nowhere.
pub(super) fn unknown_previous(id: &str, store_is_on: bool) -> Refusal {
    let message = if store_is_on {
        format!("Previous response with id '{id}' not found.")
    } else {
        format!(
            "Previous response with id '{id}' not found: responses.store is off, so no response is \
             kept; send the whole conversation as input"
        )
    };
    Refusal::invalid(message)
        .with_param("previous_response_id")
        .with_code("previous_response_not_found")
}

/// An item that is not stored.
pub(super) fn unknown_item(id: &str) -> Refusal {
    let refusal = Refusal::invalid(format!("Item with id '{id}' not found."));
    let mut refusal = refusal.with_param("input");
    refusal.status = 404;
    refusal.details.get_or_insert_default().kind = Some("invalid_request_error".to_owned());
    refusal
}

/// A response that is not kept.
pub(super) fn unknown_response(id: &str) -> Refusal {
    let refusal = Refusal::invalid(format!("Response with id '{id}' not found."));
    Refusal {
        status: 404,
        ..refusal.with_code("response_not_found")
    }
}

/// A response whose endpoint cannot be reached.
pub(crate) fn endpoint_is_away(id: &str) -> Refusal {
    Refusal {
        status: 503,
        ..Refusal::invalid(format!(
            "the endpoint that keeps the response with id '{id}' is not available"
        ))
    }
}

/// A conversation that is too long to be sent.
pub(super) fn history_is_too_long(bytes: usize, max: u64) -> Refusal {
    let refusal = Refusal::invalid(format!(
        "previous_response_id: the conversation has {bytes} bytes, more than \
         server.request_limits.max_body_size allows ({max})"
    ));
    Refusal {
        status: 413,
        ..refusal.with_param("previous_response_id")
    }
}
