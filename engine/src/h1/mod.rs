//! The HTTP/1.1 codec: bytes in, decisions out.
//!
//! It opens no socket, asks no clock and keeps no message: a head is indexed where it lies in the
//! caller's buffer, a chunked body is walked piece by piece, and what is written is appended to
//! the caller's vector. It must not know what a request is for.
//!
//! It is strict, because a proxy that guesses where a message ends lets two requests become three:
//! ambiguous framing is refused, line ends are CRLF, framing fields are written anew and never
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

pub mod chunk;
pub mod emit;
pub mod field;
pub mod framing;
pub mod head;
pub mod reject;
pub mod scan;
pub mod span;
pub mod target;

pub use field::{FieldNames, NoNames};
pub use head::{RequestHead, ResponseHead, Version};
pub use reject::{Malformed, Reject};
pub use scan::Scan;
pub use span::{Field, FieldId, Span};
