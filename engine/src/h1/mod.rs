//! The HTTP/1.1 codec: bytes in, decisions out.
//!
//! It opens no socket, reads no clock and keeps no message: a head is indexed where it lies in the
//! caller's buffer, a chunked body is walked piece by piece, and what is written is appended to
//! the caller's vector. It must not know what a request is for.
//!
//! It is strict, because a proxy that guesses where a message ends lets two requests become three:
//! ambiguous framing is refused, line ends are CRLF, framing fields are rewritten and never
//! forwarded. Where it is stricter than RFC 9112, the branch says so.
//!
//! - [`scan`] finds where a head ends, in linear time however slowly it comes;
//! - [`span`] has what the others share: positions, and the numbers of field names;
//! - [`head`] indexes a request's or a response's head;
//! - [`target`] takes the request target and `Host` apart;
//! - [`field`] knows the names that matter, hop-by-hop fields and lists;
//! - [`framing`] decides which body follows and whether the connection lives on;
//! - [`chunk`] decodes, checks and passes on chunked bodies;
//! - [`emit`] writes heads;
//! - [`reject`] names what was wrong.

pub(crate) mod chunk;
pub mod emit;
pub mod field;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod reject;
pub(crate) mod scan;
pub(crate) mod span;
mod target;

pub use field::FieldNames;
pub(crate) use field::NoNames;
pub use framing::{RequestBody, RequestFraming};
pub use head::{RequestHead, ResponseHead, Version};
pub use reject::Reject;
pub(crate) use scan::Scan;
pub use span::{Field, FieldId, Span};
