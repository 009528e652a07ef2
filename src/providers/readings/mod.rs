//! What servers tell about models in memory and about requests: where a profile says to read it,
//! and the parsers of it.
//!
//! A parser takes whatever bytes a server sends: a value that cannot be one is absent, and a
//! document of another form is a [`ReadingFault`].
//!
//! Contract: docs/contract/scheduling.md#3, docs/contract/scheduling.md#4,
//! docs/contract/scheduling.md#6, docs/contract/scheduling.md#11

mod memory;
mod page;
mod slots;
mod source;
#[cfg(test)]
mod tests;

use std::fmt;

use super::fields::RawFields;
pub(crate) use memory::{MemoryReading, Residence, parse_memory};
pub(crate) use page::{EngineRequests, parse_page};
pub(crate) use slots::{ServedSlots, parse_slots};
pub(super) use source::RawSources;
pub(crate) use source::{MemorySource, PageSource, SchedulingSources, SlotsSource};

/// The longest document that is read.
pub(crate) const MAX_READING_BYTES: usize = 4 << 20;

/// Why a document tells nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadingFault {
    /// It is not a JSON object.
    NoObject,
    /// The list of models is missing or not a list.
    NoList,
    /// It is an HTML page.
    Html,
    /// It lacks metrics that the profile names.
    NoMetrics,
}

impl fmt::Display for ReadingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoObject => "the response is not a JSON object",
            Self::NoList => "the response contains no list of models",
            Self::Html => "the response is an HTML page",
            Self::NoMetrics => "the page lacks the metrics of running or waiting requests",
        })
    }
}

/// Reads the field that a path such as `status.value` leads to.
fn at_path<T>(
    fields: &RawFields<'_>,
    path: &str,
    read: impl Fn(&RawFields<'_>, &str) -> Option<T>,
) -> Option<T> {
    match path.split_once('.') {
        None => read(fields, path),
        Some((first, rest)) => at_path(&fields.object(first)?, rest, read),
    }
}
