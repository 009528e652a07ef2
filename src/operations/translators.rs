//! `/internal/stats/translators`.
//!
//! Contract: docs/contract/operations.md#4, docs/contract/translation.md#14

use std::cmp::Reverse;

use serde::Serialize;

use super::Inputs;
use super::conditional::{Page, no_store};
use super::stats::TranslatorCounts;
use crate::dialects::responses::StoreCounts;
use crate::format::{instant, latency, percentage};

#[derive(Serialize)]
struct Translators {
    timestamp: String,
    translators: Vec<Item>,
    summary: Summary,
    responses_store: StoreItem,
}

/// The responses that are kept (docs/contract/dialects.md#14).
#[derive(Serialize)]
struct StoreItem {
    enabled: bool,
    items: usize,
    bytes: usize,
    hits: u64,
    misses: u64,
    evictions: u64,
    max_items: usize,
    max_bytes: usize,
    ttl_seconds: u64,
}

#[derive(Serialize)]
struct Item {
    translator_name: &'static str,
    total_requests: u64,
    successful_requests: u64,
    failed_requests: u64,
    success_rate: String,
    passthrough_rate: String,
    average_latency: String,
    passthrough_requests: u64,
    translation_requests: u64,
    streaming_requests: u64,
    non_streaming_requests: u64,
    fallback_no_compatible_endpoints: u64,
    fallback_translator_does_not_support_passthrough: u64,
    fallback_cannot_passthrough: u64,
}

#[derive(Serialize)]
struct Summary {
    total_translators: usize,
    active_translators: usize,
    total_requests: u64,
    overall_success_rate: String,
    overall_passthrough_rate: String,
    total_passthrough: u64,
    total_translations: u64,
    total_streaming: u64,
    total_non_streaming: u64,
}

pub(super) fn page(inputs: &Inputs<'_>) -> Page {
    let mut all = inputs.totals.translators().to_vec();
    all.sort_by_key(|(name, counts)| (Reverse(counts.requests), *name));
    let mut sum = TranslatorCounts::default();
    for (_, counts) in &all {
        sum.add(counts);
    }
    no_store(&Translators {
        timestamp: instant(inputs.now),
        translators: all
            .iter()
            .map(|(name, counts)| item(name, counts))
            .collect(),
        summary: Summary {
            total_translators: all.len(),
            active_translators: all.len(),
            total_requests: sum.requests,
            overall_success_rate: percentage(sum.successes, sum.requests),
            overall_passthrough_rate: percentage(sum.passthrough, sum.requests),
            total_passthrough: sum.passthrough,
            total_translations: sum.requests - sum.passthrough,
            total_streaming: sum.streaming,
            total_non_streaming: sum.requests - sum.streaming,
        },
        responses_store: store_item(&inputs.responses),
    })
}

fn store_item(counts: &StoreCounts) -> StoreItem {
    StoreItem {
        enabled: counts.bounds.enabled,
        items: counts.items,
        bytes: counts.bytes,
        hits: counts.hits,
        misses: counts.misses,
        evictions: counts.evictions,
        max_items: counts.bounds.max_items,
        max_bytes: counts.bounds.max_bytes,
        ttl_seconds: counts.bounds.ttl_ms / 1000,
    }
}

fn item(name: &'static str, counts: &TranslatorCounts) -> Item {
    Item {
        translator_name: name,
        total_requests: counts.requests,
        successful_requests: counts.successes,
        failed_requests: counts.requests - counts.successes,
        success_rate: percentage(counts.successes, counts.requests),
        passthrough_rate: percentage(counts.passthrough, counts.requests),
        average_latency: latency(counts.latency_ms.checked_div(counts.successes).unwrap_or(0)),
        passthrough_requests: counts.passthrough,
        translation_requests: counts.requests - counts.passthrough,
        streaming_requests: counts.streaming,
        non_streaming_requests: counts.requests - counts.streaming,
        fallback_no_compatible_endpoints: counts.no_compatible_endpoints,
        // Every translator can pass through.
        fallback_translator_does_not_support_passthrough: 0,
        fallback_cannot_passthrough: counts.cannot_passthrough,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operations::stats::{TranslatorEnd, TranslatorFallback};
    use crate::operations::testing::{World, value};

    #[test]
    fn before_and_after_use() {
        let mut world = World::new();
        let empty = value(&page(&world.inputs()));
        assert_eq!(
            (&empty["translators"], &empty["summary"]),
            (
                &json!([]),
                &json!({
                    "total_translators": 0, "active_translators": 0, "total_requests": 0,
                    "overall_success_rate": "0%", "overall_passthrough_rate": "0%",
                    "total_passthrough": 0, "total_translations": 0, "total_streaming": 0,
                    "total_non_streaming": 0,
                })
            )
        );
        let end = TranslatorEnd {
            translator: "anthropic",
            passthrough: false,
            streaming: true,
            success: true,
            latency_ms: 40,
            fallback: Some(TranslatorFallback::CannotPassthrough),
        };
        world.recorder.translator(&end);
        world.recorder.translator(&TranslatorEnd {
            streaming: false,
            latency_ms: 21,
            ..end
        });
        world.recorder.translator(&TranslatorEnd {
            streaming: false,
            success: false,
            fallback: Some(TranslatorFallback::NoCompatibleEndpoints),
            ..end
        });
        let page = value(&page(&world.inputs()));
        assert_eq!(
            page["translators"],
            json!([{
                "translator_name": "anthropic", "total_requests": 3, "successful_requests": 2,
                "failed_requests": 1, "success_rate": "66.7%", "passthrough_rate": "0%",
                "average_latency": "30ms", "passthrough_requests": 0,
                "translation_requests": 3, "streaming_requests": 1,
                "non_streaming_requests": 2, "fallback_no_compatible_endpoints": 1,
                "fallback_translator_does_not_support_passthrough": 0,
                "fallback_cannot_passthrough": 2,
            }])
        );
        assert_eq!(
            page["summary"],
            json!({
                "total_translators": 1, "active_translators": 1, "total_requests": 3,
                "overall_success_rate": "66.7%", "overall_passthrough_rate": "0%",
                "total_passthrough": 0, "total_translations": 3, "total_streaming": 1,
                "total_non_streaming": 2,
            })
        );
    }
}
