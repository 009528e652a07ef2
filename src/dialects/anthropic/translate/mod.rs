//! Anthropic's Messages API on top of servers that speak OpenAI's: a request mapper, a response
//! mapper and a stream transformer, with the errors, lists, counts and records that belong to the
//! route (docs/contract/translation.md).
//!
//! Everything here is pure: it maps bytes to bytes, without sockets, files or clocks; time and seed
//! are arguments. It must not choose an endpoint, change headers, or keep a body.
//!
//! The order of work for one request:
//!
//! 1. [`check`] validates the body and says what routing has to know ([`Checked`]).
//! 2. For a native endpoint the body goes as it is (only with an alias the name is replaced, by
//!    `inspect`); [`NativeTail`] follows the response, [`is_not_spoken_here`] tells a server that
//!    does not know the route.
//! 3. For any other, [`to_openai`] makes the chat completion and [`Checked::context`] keeps what
//!    the response needs of the request. A whole response goes through [`from_openai`], a stream
//!    through [`message_stream`], an error through [`error_from_backend`]; each after
//!    `Inflater`, if the endpoint compressed it unasked.
//!
//! A body that is passed over by copying spans is never turned into values; `crate::json` describes
//! how. Memory is bounded by the size of the request or response, streams by [`EVENT_BYTES_MAX`](crate::dialects::chat::stream::EVENT_BYTES_MAX).

mod assembly;
mod completion;
mod count;
mod error;
mod events;
mod fields;
mod ids;
mod inspector;
mod messages;
mod models;
mod native;
mod openai;
mod outcome;
#[cfg(test)]
mod properties;
mod request;
mod stream;
mod tokens;
mod tools;

pub use crate::dialects::chat::context::ResponseContext;
pub(crate) use crate::dialects::chat::error::Refusal;
pub use crate::dialects::chat::error::error_from_backend;
pub use crate::dialects::chat::ids::IdSeed;
pub use assembly::Assembly;
pub use completion::from_openai;
pub use count::count_tokens;
#[cfg(test)]
pub(crate) use error::error_kind;
pub(crate) use error::{TOO_LONG, error_body, understood};
pub(crate) use inspector::{
    FILE_MODE, FOLDER_MODE, RecordSession, record_path, request_record, response_record, session,
};
pub(crate) use models::{model, models};
pub use native::{NativeTail, is_not_spoken_here};
pub(crate) use openai::Prefill;
pub use openai::to_openai;
pub use request::check;
pub(crate) use request::{Checked, model_of};
pub use stream::message_stream;
