//! The last requests for `/internal/stats/requests`: each core records them and hands them over,
//! and the totals keep them.
//!
//! Recording a request allocates nothing once the slots have grown; handing over allocates twice,
//! whatever the number of requests.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::SystemTime;

use super::{MODEL_NAME_BYTES_MAX, Outcome, RECENT_MAX, RequestEnd, Routing};

/// Longest request id in the feed, in bytes (docs/contract/surface.md#6).
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Longest method in the feed, in bytes.
const METHOD_BYTES_MAX: usize = 16;

/// Longest path in the feed, in bytes; most routes need a fifth of it.
const PATH_BYTES_MAX: usize = 256;

/// One of the last requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recent {
    texts: Texts<String>,
    figures: RecentStats,
}

/// The texts of a request.
#[derive(Debug, Clone, Default)]
struct Texts<T> {
    request_id: T,
    method: T,
    path: T,
    /// Empty = none.
    model: T,
}

/// The other properties of a request.
#[derive(Debug, Clone, Copy)]
pub(in crate::operations) struct RecentStats {
    pub(in crate::operations) retries: u32,
    pub(in crate::operations) endpoint_id: Option<u32>,
    pub(in crate::operations) outcome: Outcome,
    pub(in crate::operations) status: Option<u16>,
    pub(in crate::operations) bytes: u64,
    pub(in crate::operations) latency_ms: u64,
    pub(in crate::operations) first_byte_us: Option<u64>,
    pub(in crate::operations) routing: Option<Routing>,
    pub(in crate::operations) streaming: bool,
    pub(in crate::operations) prompt_tokens: u64,
    pub(in crate::operations) completion_tokens: u64,
    pub(in crate::operations) tokens_per_second: f64,
}

impl Default for RecentStats {
    fn default() -> Self {
        Self {
            retries: 0,
            endpoint_id: None,
            outcome: Outcome::Refused,
            status: None,
            bytes: 0,
            latency_ms: 0,
            first_byte_us: None,
            routing: None,
            streaming: false,
            prompt_tokens: 0,
            completion_tokens: 0,
            tokens_per_second: 0.0,
        }
    }
}

impl Recent {
    pub(in crate::operations) fn request_id(&self) -> &str {
        &self.texts.request_id
    }

    pub(in crate::operations) fn method(&self) -> &str {
        &self.texts.method
    }

    pub(in crate::operations) fn path(&self) -> &str {
        &self.texts.path
    }

    /// Empty = none.
    pub(in crate::operations) fn model(&self) -> &str {
        &self.texts.model
    }

    pub(in crate::operations) const fn figures(&self) -> &RecentStats {
        &self.figures
    }
}

/// The last requests of one core since its last hand-over.
#[derive(Debug, Default)]
pub(super) struct Ring {
    slots: Vec<Recent>,
    /// Requests recorded since the last hand-over; the next slot is this number modulo the size.
    count: usize,
}

impl Ring {
    /// Records a request; a full ring overwrites the oldest one.
    pub(super) fn note(&mut self, end: &RequestEnd<'_>) {
        let at = self.count % RECENT_MAX;
        self.count += 1;
        if at >= self.slots.len() {
            self.slots.push(Recent::default());
        }
        let Some(slot) = self.slots.get_mut(at) else {
            return;
        };
        let texts = &mut slot.texts;
        set(&mut texts.request_id, end.request_id, REQUEST_ID_BYTES_MAX);
        set(&mut texts.method, end.method, METHOD_BYTES_MAX);
        set(&mut texts.path, end.path, PATH_BYTES_MAX);
        let model = end.model.unwrap_or("");
        set(&mut texts.model, model, MODEL_NAME_BYTES_MAX);
        slot.figures = RecentStats {
            retries: end.retries,
            endpoint_id: end.endpoint_id,
            outcome: end.outcome.judged(end.status),
            status: end.status,
            bytes: end.bytes,
            latency_ms: end.latency_ms,
            first_byte_us: end.first_byte_us,
            routing: end.routing,
            streaming: end.streaming,
            prompt_tokens: end.figures.map_or(0, |figures| figures.prompt_tokens),
            completion_tokens: end.figures.map_or(0, |figures| figures.completion_tokens),
            tokens_per_second: end.figures.map_or(0.0, |figures| figures.tokens_per_second),
        };
    }

    /// The requests recorded since the last call.
    pub(super) fn take(&mut self) -> Batch {
        let count = std::mem::take(&mut self.count);
        let first = count.saturating_sub(RECENT_MAX);
        let noted = (first..count).filter_map(|nth| self.slots.get(nth % RECENT_MAX));
        let mut batch = Batch {
            text: String::with_capacity(noted.clone().map(text_bytes).sum()),
            rows: Vec::with_capacity(count - first),
        };
        for recent in noted {
            let mut add = |text: &str| {
                let start = batch.text.len();
                batch.text.push_str(text);
                start..batch.text.len()
            };
            let texts = Texts {
                request_id: add(&recent.texts.request_id),
                method: add(&recent.texts.method),
                path: add(&recent.texts.path),
                model: add(&recent.texts.model),
            };
            batch.rows.push((texts, recent.figures));
        }
        batch
    }
}

fn text_bytes(recent: &Recent) -> usize {
    let texts = &recent.texts;
    texts.request_id.len() + texts.method.len() + texts.path.len() + texts.model.len()
}

/// Requests handed over by a core, oldest first, with all their texts in one string.
#[derive(Debug, Default)]
pub(super) struct Batch {
    text: String,
    rows: Vec<(Texts<Range<usize>>, RecentStats)>,
}

/// The last requests of all cores, each with the time at which it was merged.
#[derive(Debug, Default)]
pub(super) struct Feed(VecDeque<(SystemTime, Recent)>);

impl Feed {
    /// Adds the requests of one core; their texts reuse the memory of the oldest ones.
    pub(super) fn add(&mut self, batch: &Batch, now: SystemTime) {
        for (at, figures) in &batch.rows {
            let room = if self.0.len() >= RECENT_MAX {
                self.0.pop_front()
            } else {
                None
            };
            let mut recent = room.map_or_else(Recent::default, |(_, recent)| recent);
            let texts = &mut recent.texts;
            for (text, range) in [
                (&mut texts.request_id, &at.request_id),
                (&mut texts.method, &at.method),
                (&mut texts.path, &at.path),
                (&mut texts.model, &at.model),
            ] {
                let new = &batch.text[range.clone()];
                set(text, new, usize::MAX);
            }
            recent.figures = *figures;
            self.0.push_back((now, recent));
        }
    }

    /// Newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = &(SystemTime, Recent)> {
        self.0.iter().rev()
    }
}

/// Replaces a text, reusing its memory; a longer text is cut at a character boundary.
fn set(text: &mut String, new: &str, bytes_max: usize) {
    text.clear();
    text.push_str(new.get(..new.floor_char_boundary(bytes_max)).unwrap_or(new));
}
