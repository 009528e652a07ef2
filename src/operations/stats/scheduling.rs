//! What is counted of scheduling: predictions and what came of them, cached prefixes, and the queue.
//!
//! Contract: docs/contract/scheduling.md#8

use super::buckets::{RATIOS, Ratios, TIMES_MS, Times};

/// Why a request that had to wait for a slot was refused (docs/contract/scheduling.md#5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueRefusal {
    /// `queue.max_waiting` requests wait.
    MaxWaiting,
    /// `queue.max_waiting_per_flow` requests of the client wait.
    MaxWaitingPerFlow,
    /// It has waited for `queue.max_wait`, or for the time of its policy.
    MaxWait,
    /// Its model was not loaded within `proxy.model_load_timeout`.
    ModelLoading,
    /// The gateway shuts down.
    ShuttingDown,
}

impl QueueRefusal {
    /// Every reason, in the order of the metric.
    pub(in crate::operations) const ALL: [Self; 5] = [
        Self::MaxWaiting,
        Self::MaxWaitingPerFlow,
        Self::MaxWait,
        Self::ModelLoading,
        Self::ShuttingDown,
    ];

    /// The value of the metric's label.
    pub(in crate::operations) const fn as_str(self) -> &'static str {
        match self {
            Self::MaxWaiting => "max_waiting",
            Self::MaxWaitingPerFlow => "max_waiting_per_flow",
            Self::MaxWait => "max_wait",
            Self::ModelLoading => "model_loading",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// A response that says how much of its prompt was in the endpoint's cache; in tokens of the
/// endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CachedPrefix {
    /// What the endpoint was believed to hold.
    pub believed: u64,
    /// What it says to have held.
    pub reported: u64,
}

/// Times to the first token of streams that were predicted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::operations) struct FirstTokens {
    /// The predictions.
    pub(in crate::operations) predicted: Times,
    /// Each divided by the time that was measured.
    pub(in crate::operations) ratio: Ratios,
}

/// The shortest time that is a divisor, in seconds: the resolution of the clock.
const MEASURED_S_MIN: f64 = 1e-6;

impl FirstTokens {
    /// Both in seconds.
    pub(super) fn observe(&mut self, predicted: f32, measured: f32) {
        let (predicted, measured) = (f64::from(predicted), f64::from(measured));
        self.predicted.observe(&TIMES_MS, predicted * 1000.0);
        let ratio = predicted / measured.max(MEASURED_S_MIN);
        self.ratio.observe(&RATIOS, ratio);
    }

    pub(in crate::operations) fn add(&mut self, more: &Self) {
        self.predicted.add(&more.predicted);
        self.ratio.add(&more.ratio);
    }
}

/// Counters of the whole system.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::operations) struct SchedulingCounts {
    /// Of models without counters of their own, since there are too many, or their names too long.
    pub(in crate::operations) other_models: FirstTokens,
    /// Tokens of prompts that were sent.
    pub(in crate::operations) prompt_tokens: u64,
    /// Those of them that their endpoints were believed to hold.
    pub(in crate::operations) hit_tokens: u64,
    /// Of the responses that report cached tokens: the tokens that were believed to be cached.
    pub(in crate::operations) believed_tokens: u64,
    /// The tokens that the same responses report.
    pub(in crate::operations) reported_tokens: u64,
    /// Reported figures that cannot be true.
    pub(in crate::operations) samples_rejected: u64,
    /// Waiting times of requests that started from the queue.
    pub(in crate::operations) waits: Times,
    /// In the order of [`QueueRefusal::ALL`].
    pub(in crate::operations) refusals: [u64; QueueRefusal::ALL.len()],
}

impl SchedulingCounts {
    pub(super) fn sent(&mut self, prompt: u64, hit: u64) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(prompt);
        self.hit_tokens = self.hit_tokens.saturating_add(hit);
    }

    pub(super) fn reported(&mut self, cached: CachedPrefix) {
        self.believed_tokens = self.believed_tokens.saturating_add(cached.believed);
        self.reported_tokens = self.reported_tokens.saturating_add(cached.reported);
    }

    pub(super) fn waited(&mut self, seconds: f64) {
        self.waits.observe(&TIMES_MS, seconds * 1000.0);
    }

    pub(super) fn refused(&mut self, reason: QueueRefusal) {
        if let Some(count) = self.refusals.get_mut(reason as usize) {
            *count += 1;
        }
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.other_models.add(&more.other_models);
        self.sent(more.prompt_tokens, more.hit_tokens);
        self.reported(CachedPrefix {
            believed: more.believed_tokens,
            reported: more.reported_tokens,
        });
        self.samples_rejected = self.samples_rejected.saturating_add(more.samples_rejected);
        self.waits.add(&more.waits);
        for (count, more) in self.refusals.iter_mut().zip(more.refusals) {
            *count += more;
        }
    }
}
