//! How often the log reports a request field that a translation leaves without effect.
//!
//! Contract: docs/contract/dialects.md#4

use std::sync::atomic::{AtomicU64, Ordering};

use crate::dialects::DROPPED_FIELDS;

/// Each field is reported once in this time.
const INTERVAL_MS: u64 = 60_000;

/// When each field was reported last, in milliseconds of the process's clock; 0 = never. Names that
/// the contract does not have share the last place.
#[derive(Debug, Default)]
pub(crate) struct DroppedReports([AtomicU64; DROPPED_FIELDS.len() + 1]);

impl DroppedReports {
    /// Whether a field is to be reported now. If so, it counts as reported.
    pub(crate) fn is_due(&self, name: &str, now_ms: u64) -> bool {
        let at = DROPPED_FIELDS.iter().position(|field| *field == name);
        let Some(last_ms) = self.0.get(at.unwrap_or(DROPPED_FIELDS.len())) else {
            return false;
        };
        let last = last_ms.load(Ordering::Relaxed);
        let is_due = last == 0 || now_ms.saturating_sub(last) >= INTERVAL_MS;
        let order = Ordering::Relaxed;
        is_due && last_ms.compare_exchange(last, now_ms, order, order).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_reported_once_a_minute() {
        let reports = DroppedReports::default();
        for (name, now_ms, due) in [
            ("template", 1, true),
            ("template", 60_000, false),
            ("context", 60_000, true),
            ("template", 60_001, true),
            ("unknown", 60_001, true),
            ("other unknown", 60_002, false),
        ] {
            assert_eq!(reports.is_due(name, now_ms), due, "{name} {now_ms}");
        }
    }
}
