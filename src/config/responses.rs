//! `[responses]`: its plan and the declarations of its keys.
//!
//! Contract: docs/contract/dialects.md#9

use std::time::Duration;

use super::bounds::{MIB, NO_MAX};
use super::reader::Word;
use super::section::Section;

/// `[responses]`: what is kept for `previous_response_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseStorePlan {
    /// Whether responses are kept, in the memory of the process.
    pub enabled: bool,
    /// The most responses.
    pub max_items: usize,
    /// The most bytes of their items.
    pub max_bytes: u64,
    /// The time since a response was made or last used.
    pub ttl: Duration,
}

/// Where responses are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreKind {
    Memory,
    Off,
}

impl Word for StoreKind {
    const ALL: &'static [Self] = &[Self::Memory, Self::Off];

    fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Off => "off",
        }
    }
}

/// `[responses]`.
pub(super) fn responses(s: &mut Section<'_, '_>) -> ResponseStorePlan {
    let store = s
        .key(
            "store",
            "Where responses are kept for previous_response_id; off keeps none.",
        )
        .env("OLLA_RESPONSES_STORE")
        .word(StoreKind::Memory);
    let is_on = store == StoreKind::Memory;
    ResponseStorePlan {
        enabled: is_on,
        max_items: s
            .key("max_items", "Maximum number of responses that are kept.")
            .checked_if(is_on)
            .int(10_000, 1, NO_MAX),
        max_bytes: s
            .key(
                "max_bytes",
                "Maximum size of all items that are kept; one response may have an eighth.",
            )
            .checked_if(is_on)
            .size(128 * MIB, None),
        ttl: s
            .key(
                "ttl",
                "A response is forgotten this time after it was made or last used.",
            )
            .checked_if(is_on)
            .duration_above_zero(Duration::from_secs(24 * 3600)),
    }
}
