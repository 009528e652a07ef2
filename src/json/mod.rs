//! JSON values read where they lie: a value is a span of a text, and a string stays the bytes
//! between its quotes, so that most of a message goes from one dialect to the other by copying
//! spans, and numbers keep their spelling.
//!
//! [`parse`] validates the whole text once, with serde_json; everything else relies on that and
//! only walks. On a text that was never validated the walk finds less or other things, but it ends
//! and does not panic. Nothing here allocates except the index, [`JsonText::decode`] and the
//! writers, and nothing recurses, so nesting costs no stack.
//!
//! - `scan` finds where strings, scalars and nested values end; readers that walk on their own,
//!   such as the search for a few paths in `providers::figures`, use it directly.
//! - `value` has the values, `text` their strings and the writers.
//! - `set` sets one member of an object.
//! - `index` leads repeated walks past the long values of a large text.
//!
//! `inspect::scan` is apart from this: it reads a body before its end has arrived.

mod index;
pub(crate) mod scan;
mod set;
mod text;
mod value;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use index::SpanIndex;
pub(crate) use set::set_member;
pub(crate) use text::{JsonText, TextPiece, write_escaped, write_number, write_string};
pub(crate) use value::{JsonKind, JsonValue, parse, parse_indexed};
