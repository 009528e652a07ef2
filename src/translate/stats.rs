//! What the translator did, for `/internal/stats/translators` (contract: translation 14,
//! operations 4).
//!
//! Each core counts for itself in a [`Stats`]; the page adds them up.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::operations::format::{instant, latency, percentage};

/// The only translator there is.
const NAME: &str = "anthropic";

/// How a request was, or was to be, answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The native way.
    Passthrough,
    /// By translation. The fallback says why not natively; `None` for a request without a usable
    /// model or too large a body, of which nobody can say.
    Translation(Option<Fallback>),
}

impl Mode {
    /// The word in the log, `translator_mode`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Translation(_) => "translation",
        }
    }
}

/// Why a request was not passed through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fallback {
    /// No endpoint was found for it (404, 503).
    NoCompatibleEndpoints,
    /// No candidate speaks the API, or passthrough is off.
    CannotPassthrough,
}

impl Fallback {
    /// The word in the log, `fallback_reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCompatibleEndpoints => "no_compatible_endpoints",
            Self::CannotPassthrough => "cannot_passthrough",
        }
    }
}

/// A request that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How it was answered, or was to be.
    pub mode: Mode,
    /// It asked for a stream; false for one that did not pass validation.
    pub is_streaming: bool,
    /// The status was below 400 and a stream ended without an error.
    pub is_success: bool,
    /// From its arrival to the last byte of its answer.
    pub duration: Duration,
}

/// Counters of requests to `POST …/messages`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests of each mode.
    pub passthrough: u64,
    /// See [`Mode::Translation`].
    pub translation: u64,
    /// Of all, those that succeeded.
    pub successful: u64,
    /// Of all, those that asked for a stream.
    pub streaming: u64,
    /// See [`Fallback::NoCompatibleEndpoints`].
    pub no_compatible_endpoints: u64,
    /// See [`Fallback::CannotPassthrough`].
    pub cannot_passthrough: u64,
    /// Whole milliseconds that the successful requests took, added up.
    pub successful_ms: u64,
}

impl Stats {
    /// Counts a request at its end.
    pub fn record(&mut self, outcome: &Outcome) {
        match outcome.mode {
            Mode::Passthrough => self.passthrough += 1,
            Mode::Translation(fallback) => {
                self.translation += 1;
                match fallback {
                    Some(Fallback::NoCompatibleEndpoints) => self.no_compatible_endpoints += 1,
                    Some(Fallback::CannotPassthrough) => self.cannot_passthrough += 1,
                    None => {}
                }
            }
        }
        self.streaming += u64::from(outcome.is_streaming);
        if outcome.is_success {
            self.successful += 1;
            let ms = u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX);
            self.successful_ms = self.successful_ms.saturating_add(ms);
        }
    }

    /// Adds the counts of another core.
    pub fn merge(&mut self, other: &Self) {
        self.passthrough += other.passthrough;
        self.translation += other.translation;
        self.successful += other.successful;
        self.streaming += other.streaming;
        self.no_compatible_endpoints += other.no_compatible_endpoints;
        self.cannot_passthrough += other.cannot_passthrough;
        self.successful_ms = self.successful_ms.saturating_add(other.successful_ms);
    }

    /// All requests.
    pub const fn total(&self) -> u64 {
        self.passthrough + self.translation
    }

    /// The page. Before the first request it lists no translator.
    pub fn to_json(&self, now: SystemTime) -> Value {
        let total = self.total();
        let listed = u64::from(total > 0);
        let success_rate = percentage(self.successful, total);
        let passthrough_rate = percentage(self.passthrough, total);
        let mean_ms = self.successful_ms.checked_div(self.successful);
        let translator = json!({
            "translator_name": NAME,
            "total_requests": total,
            "successful_requests": self.successful,
            "failed_requests": total - self.successful,
            "success_rate": success_rate,
            "passthrough_rate": passthrough_rate,
            "average_latency": latency(mean_ms.unwrap_or_default()),
            "passthrough_requests": self.passthrough,
            "translation_requests": self.translation,
            "streaming_requests": self.streaming,
            "non_streaming_requests": total - self.streaming,
            "fallback_no_compatible_endpoints": self.no_compatible_endpoints,
            "fallback_translator_does_not_support_passthrough": 0,
            "fallback_cannot_passthrough": self.cannot_passthrough,
        });
        json!({
            "timestamp": instant(now),
            "translators": if total > 0 { vec![translator] } else { Vec::new() },
            "summary": {
                "total_translators": listed,
                "active_translators": listed,
                "total_requests": total,
                "overall_success_rate": success_rate,
                "overall_passthrough_rate": passthrough_rate,
                "total_passthrough": self.passthrough,
                "total_translations": self.translation,
                "total_streaming": self.streaming,
                "total_non_streaming": total - self.streaming,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn outcome(mode: Mode, is_streaming: bool, is_success: bool, ms: u64) -> Outcome {
        Outcome {
            mode,
            is_streaming,
            is_success,
            duration: Duration::from_millis(ms),
        }
    }

    #[test]
    fn nothing_yet() {
        let page = Stats::default().to_json(UNIX_EPOCH);
        assert_eq!(page["translators"], json!([]));
        assert_eq!(page["summary"]["total_translators"], 0);
        assert_eq!(page["summary"]["overall_success_rate"], "0%");
        assert_eq!(page["summary"]["total_non_streaming"], 0);
        assert!(
            page["timestamp"]
                .as_str()
                .unwrap()
                .starts_with("1970-01-01T00:00:00")
        );
    }

    #[test]
    fn what_counts_where() {
        let translated = Mode::Translation(Some(Fallback::CannotPassthrough));
        let nowhere = Mode::Translation(Some(Fallback::NoCompatibleEndpoints));
        let mut one = Stats::default();
        one.record(&outcome(translated, false, true, 40));
        one.record(&outcome(translated, true, true, 77));
        let mut stats = Stats::default();
        stats.record(&outcome(nowhere, false, false, 5000));
        stats.merge(&one);
        let page = stats.to_json(UNIX_EPOCH);
        assert_eq!(
            page["translators"],
            json!([{
                "translator_name": "anthropic",
                "total_requests": 3, "successful_requests": 2, "failed_requests": 1,
                "success_rate": "66.7%", "passthrough_rate": "0%", "average_latency": "58ms",
                "passthrough_requests": 0, "translation_requests": 3,
                "streaming_requests": 1, "non_streaming_requests": 2,
                "fallback_no_compatible_endpoints": 1,
                "fallback_translator_does_not_support_passthrough": 0,
                "fallback_cannot_passthrough": 2,
            }])
        );
        assert_eq!(
            page["summary"],
            json!({
                "total_translators": 1, "active_translators": 1, "total_requests": 3,
                "overall_success_rate": "66.7%", "overall_passthrough_rate": "0%",
                "total_passthrough": 0, "total_translations": 3,
                "total_streaming": 1, "total_non_streaming": 2,
            })
        );
        stats.record(&outcome(Mode::Passthrough, true, true, 3483));
        stats.record(&outcome(Mode::Translation(None), false, false, 1));
        let page = stats.to_json(UNIX_EPOCH);
        let translator = &page["translators"][0];
        assert_eq!(translator["average_latency"], "1.2s");
        assert_eq!(translator["passthrough_rate"], "20.0%");
        assert_eq!(translator["fallback_cannot_passthrough"], 2);
        assert_eq!(translator["translation_requests"], 4);
    }
}
