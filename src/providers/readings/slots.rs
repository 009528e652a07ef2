//! How many requests a server works on at a time, and the context of each.

use super::source::SlotsSource;
use super::{ReadingFault, at_path};
use crate::providers::fields::{RawFields, with_object};

/// What a server says of its slots; `None` = nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ServedSlots {
    /// The number of requests, as it says.
    pub slots: Option<u64>,
    /// The context of one of them, in tokens.
    pub context: Option<u64>,
}

/// Reads the properties of a server.
///
/// # Errors
/// The body is no JSON object.
pub(crate) fn parse_slots(source: &SlotsSource, body: &[u8]) -> Result<ServedSlots, ReadingFault> {
    let text = String::from_utf8_lossy(body);
    let read = |document: &RawFields<'_>| ServedSlots {
        slots: at_path(document, &source.slots, |fields, name| fields.whole(name)),
        context: source
            .context
            .as_ref()
            .and_then(|path| at_path(document, path, |fields, name| fields.positive(name))),
    };
    with_object(text.trim(), read).ok_or(ReadingFault::NoObject)
}
