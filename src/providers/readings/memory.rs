//! Lists of the models in memory.

use std::borrow::Cow;
use std::collections::HashMap;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::source::MemorySource;
use super::{ReadingFault, at_path};
use crate::providers::fields::{RawFields, with_object};

/// Most models of a list that are looked at.
const MODELS_MAX: usize = 20_000;

/// Where a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Residence {
    /// Nothing is told.
    #[default]
    Untold,
    /// Not in memory.
    Absent,
    /// On its way into memory.
    Loading,
    /// In memory.
    Present,
}

/// A model of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ReadModel {
    /// Where it is.
    pub residence: Residence,
    /// The context that it was started with, in tokens.
    pub context: Option<u64>,
}

/// What a list tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MemoryReading {
    /// With a hash that a server cannot make collide.
    models: HashMap<Box<str>, ReadModel>,
    /// Whether it tells the state of any model: one that it does not have is not in memory then.
    tells: bool,
    /// The next time at which a model leaves the memory, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

impl MemoryReading {
    /// What is told of the model with this name.
    pub(crate) fn model(&self, name: &str) -> ReadModel {
        let residence = match self.tells {
            true => Residence::Absent,
            false => Residence::Untold,
        };
        let absent = ReadModel {
            residence,
            context: None,
        };
        self.models.get(name).copied().unwrap_or(absent)
    }
}

/// Reads a list. `now_ms` is the time in milliseconds since 1970: a model that is listed after its
/// time is in use.
///
/// # Errors
/// The body has no such list.
pub(crate) fn parse_memory(
    source: &MemorySource,
    body: &[u8],
    now_ms: u64,
) -> Result<MemoryReading, ReadingFault> {
    let text = String::from_utf8_lossy(body);
    let read = |document: &RawFields<'_>| {
        let items = document.list(&source.list).ok_or(ReadingFault::NoList)?;
        let mut reading = MemoryReading {
            tells: source.state.is_none(),
            ..MemoryReading::default()
        };
        let items = items.into_iter().take(MODELS_MAX);
        for item in items.filter_map(RawFields::of) {
            take_item(source, &item, now_ms, &mut reading);
        }
        Ok(reading)
    };
    with_object(text.trim(), read).ok_or(ReadingFault::NoObject)?
}

fn take_item(
    source: &MemorySource,
    item: &RawFields<'_>,
    now_ms: u64,
    reading: &mut MemoryReading,
) {
    let mut names = source.names.iter().filter_map(|name| item.text(name));
    let Some(name) = names.next() else {
        return;
    };
    let residence = residence(source, item);
    reading.tells |= residence != Residence::Untold;
    let positive = |path: &String| at_path(item, path, |fields, name| fields.positive(name));
    let model = ReadModel {
        residence,
        context: source.context.as_ref().and_then(positive),
    };
    // A model of which several copies run is as ready as the readiest.
    let known = reading.models.entry(name.as_ref().into()).or_default();
    if model.residence >= known.residence {
        *known = model;
    }
    if residence == Residence::Present
        && let Some(field) = &source.expires
        && let Some(expires_ms) = item.text(field).and_then(unix_ms)
        && expires_ms > now_ms
    {
        let next = reading.expires_ms.unwrap_or(u64::MAX);
        reading.expires_ms = Some(next.min(expires_ms));
    }
}

fn residence(source: &MemorySource, item: &RawFields<'_>) -> Residence {
    let Some(path) = &source.state else {
        return Residence::Present;
    };
    let text = |fields: &RawFields<'_>, name: &str| fields.text(name).map(Cow::into_owned);
    let Some(state) = at_path(item, path, text) else {
        return Residence::Untold;
    };
    if source.warm.contains(&state) {
        Residence::Present
    } else if source.loading.contains(&state) {
        Residence::Loading
    } else {
        Residence::Absent
    }
}

fn unix_ms(text: Cow<'_, str>) -> Option<u64> {
    let at = OffsetDateTime::parse(&text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}
