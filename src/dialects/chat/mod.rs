//! OpenAI's chat completions, as far as the translations of other APIs share them: what reads an
//! endpoint's response, whole or streamed, and what makes its request.
//!
//! Everything here is pure: it maps bytes to bytes, without sockets, files or clocks.
//!
//! Contract: docs/contract/dialects.md#4, docs/contract/translation.md#8

pub(crate) mod calls;
pub(crate) mod chunk;
pub(crate) mod completion;
pub(crate) mod context;
pub(crate) mod dropped;
pub(crate) mod error;
#[cfg(test)]
pub(crate) mod generated;
pub(crate) mod ids;
pub(crate) mod inflate;
pub(crate) mod messages;
pub(crate) mod outcome;
pub(crate) mod overflow;
pub(crate) mod sse;
pub(crate) mod stream;
pub(crate) mod thinking;
pub(crate) mod together;
pub(crate) mod tokens;
pub(crate) mod warning;
pub(crate) mod writer;
