//! A request at an endpoint, from the moment it is sent to its end: what it holds there, and what it
//! teaches.
//!
//! Contract: docs/contract/scheduling.md#1, docs/contract/scheduling.md#4

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::choose::{Evaluated, SAMPLE_TOKENS_MIN};
use super::load::EndpointLoad;
use super::models::{BYTES_PER_TOKEN, ModelFigures, ModelKey};
use super::pair::{Pair, PairRef};
use super::predict::{Medians, ModelPlace};
use super::prompt::BLOCK_BYTES;
use super::queue::service_of;
use super::slot::Slot;
use super::warmth::Warmth;

const PREFILL_WEIGHT: f32 = 0.2;
const STEP_WEIGHT: f32 = 0.1;
const SERVICE_WEIGHT: f32 = 0.1;

/// A token and a request take at most so many times as long as is known: the end of a response comes
/// when its client has read it, and one that does not read would make the endpoint look slow.
const LONGER_MAX: f32 = 8.0;
const LOAD_WEIGHT: f32 = 0.3;

/// The fewest bytes of a prompt's text from which the bytes of a token are learned: in shorter ones
/// the chat template outweighs the text.
const TEXT_BYTES_MIN: u64 = 4 << 10;

/// A prompt of fewer bytes a token, or more, is no text that the endpoint has counted.
const BYTES_OF_TOKEN: std::ops::RangeInclusive<f64> = 0.5..=40.0;

/// The most events of a stream for one token, and bytes of text. Of what a response has besides its
/// text: the bytes at most.
const EVENTS_OF_TOKEN_MAX: u64 = 4;

/// In a stream of at least so many events, more tokens for one than this are believed only if the
/// events have the bytes for them: so many halves for each token, besides what the shortest event has
/// around its text.
const EVENTS_MIN: u64 = 16;
const TOKENS_OF_EVENT: u64 = 8;
const HALF_BYTES_OF_TOKEN: u64 = 5;
const BYTES_AROUND_EVENT_MIN: u64 = 46;

/// The fewest tokens of an output by which the time of a token is measured: of fewer, one that is
/// not reported changes too much. And the shortest time that is believed.
const STEP_TOKENS_MIN: u64 = 8;
const STEP_S_MIN: f32 = 0.000_2;

/// Tokens of text that a response which is no stream would have, if all of it were text, beyond
/// which it is taken to have text.
const TOKENS_AROUND_TEXT: u64 = 128;

/// The most tokens of a prompt: two for each byte of text, a chat template, and those of each file.
const TEMPLATE_TOKENS_MAX: u64 = 4 << 10;
const FILE_TOKENS_MAX: u64 = 64 << 10;
const BYTES_OF_TOKEN_MAX: u64 = 64;
const BYTES_AROUND_TEXT: u64 = 1 << 10;
const BYTES_AROUND_EVENT: u64 = 400;

/// A request that is sent. What it holds is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// `None` for a request that takes none.
    slot: Option<Slot>,
    load: Arc<EndpointLoad>,
    model: ModelKey,
    place: PairRef,
    /// The prediction.
    chosen: Evaluated,
    /// Tokens of the prompt that are counted as pending; 0 after the first byte.
    pending: u64,
    /// Tokens that were pending when it was sent.
    ahead: u64,
    sent_us: u64,
    first_us: Option<u64>,
    /// Its model was ready, and a slot free.
    is_measurable: bool,
    /// Where the model was when the request was sent.
    warmth: Warmth,
}

/// What a prompt was read with; for learning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures<'s> {
    /// The model.
    pub model: &'s ModelFigures,
    /// The fleet.
    pub medians: &'s Medians,
}

/// The first byte of a response, and what it shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FirstByte {
    /// Seconds from dispatch.
    pub seconds: f32,
    /// The same as it was predicted: T without the part for decoding.
    pub predicted: f32,
    /// The model had not been known to be in memory.
    pub was_not_ready: bool,
}

/// How a request ended, for learning.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Completed {
    /// The response is a stream: its first byte came with the first token.
    pub is_stream: bool,
    /// It was the request's only attempt.
    pub is_only_attempt: bool,
    /// `usage.prompt_tokens`.
    pub prompt: Option<u64>,
    /// Tokens of the prompt that came from the cache; `None` = not reported.
    pub cached: Option<u64>,
    /// `usage.completion_tokens`.
    pub completion: Option<u64>,
    /// Events of the stream.
    pub events: u64,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// Text of the prompt in bytes, and its files.
    pub text_bytes: u64,
    pub files: u64,
}

/// What the end of a request shows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Learned {
    /// Figures that cannot be true, or not of this response.
    pub rejected: u32,
    /// Tokens that the endpoint says to have had in its cache.
    pub reported_hit: Option<u64>,
    /// Those that it was believed to have, in its own tokens; for a report.
    pub believed_hit: u64,
    /// The service that it took: tokens of the prompt and four times those of the output.
    pub service: f64,
}

impl Dispatch {
    /// The request is sent now.
    pub(crate) fn new(
        load: &Arc<EndpointLoad>,
        mut slot: Option<Slot>,
        chosen: Evaluated,
        now_us: u64,
    ) -> Self {
        let now_ms = now_us / 1000 + 1;
        let place = load.pairs().place(chosen.model, now_ms);
        let (pending, ahead) = match slot.as_mut().and_then(Slot::take_reserved) {
            Some(reserved) => reserved,
            None => {
                let pending = chosen.needs.uncached();
                (pending, load.add_pending(pending))
            }
        };
        // Requests of others take slots too.
        let running = load.running_with_others(now_ms);
        let has_slot = load.slots().is_none_or(|slots| running <= slots);
        let mut warmth = Warmth::Unknown;
        if let Some(pair) = load.pairs().at(place) {
            pair.advance(pending);
            warmth = load.warmth(chosen.model);
            if warmth == Warmth::Cold {
                // Whoever comes next sees that the load has begun.
                load.hear_warmth(chosen.model, Warmth::Loading, now_ms);
            }
            if chosen.is_test {
                pair.tested_ms.store(now_ms, Ordering::Relaxed);
            }
        }
        load.used(now_ms);
        Self {
            slot,
            model: chosen.model,
            place,
            ahead,
            load: Arc::clone(load),
            chosen,
            pending,
            sent_us: now_us,
            first_us: None,
            is_measurable: warmth.is_ready() && has_slot,
            warmth,
        }
    }

    /// The prediction by which the endpoint was chosen.
    pub(crate) fn chosen(&self) -> &Evaluated {
        &self.chosen
    }

    /// The endpoint.
    pub(crate) fn load(&self) -> &Arc<EndpointLoad> {
        &self.load
    }

    /// The state of the model there, if it still has a place.
    pub(crate) fn pair(&self) -> Option<&Pair> {
        self.load.pairs().at(self.place)
    }

    /// Whether the model was ready when the request was sent.
    pub(crate) fn was_ready(&self) -> bool {
        self.warmth.is_ready()
    }

    /// The attempt is over: its slot is free, and nothing of it is pending.
    pub(crate) fn release(&mut self) {
        if self.pending > 0 {
            self.load.take_pending(std::mem::take(&mut self.pending));
        }
        self.slot = None;
    }

    /// The first byte of the response's body is here. `None` if it was before.
    pub(crate) fn first_byte(
        &mut self,
        figures: Figures<'_>,
        (is_stream, is_only_attempt): (bool, bool),
        now_us: u64,
    ) -> Option<FirstByte> {
        if self.first_us.is_some() {
            return None;
        }
        self.first_us = Some(now_us);
        self.load.take_pending(std::mem::take(&mut self.pending));
        let seconds = seconds(now_us.saturating_sub(self.sent_us));
        let now_ms = now_us / 1000 + 1;
        let refused_for = self.pair().and_then(|pair| pair.warmth.refused_for(now_ms));
        let was_not_ready = self.load.hear_warmth(self.model, Warmth::Warm, now_ms);
        match (self.warmth, refused_for) {
            // It was sent while the load was in progress: its own time is a part of it only.
            (Warmth::Loading, Some(ms)) => self.learn_load(figures, ms as f32 / 1000.0, now_ms),
            (Warmth::Cold, _) => {
                let place = ModelPlace {
                    load: &self.load,
                    pair: self.pair(),
                    model: figures.model,
                    medians: figures.medians,
                };
                if seconds * 4.0 < place.usual_load(now_ms) {
                    self.load.was_in_memory();
                } else {
                    self.learn_load(figures, seconds, now_ms);
                }
            }
            _ => {}
        }
        if is_stream && is_only_attempt {
            self.learn_prefill(figures, seconds, now_ms);
        }
        Some(FirstByte {
            seconds,
            predicted: self.chosen.terms.first_token(),
            was_not_ready,
        })
    }

    fn learn_load(&self, figures: Figures<'_>, seconds: f32, now_ms: u64) {
        let median = figures.medians.load();
        if let Some(pair) = self.pair() {
            pair.load.learn(seconds, LOAD_WEIGHT, now_ms, median);
        }
        self.load.load.learn(seconds, LOAD_WEIGHT, now_ms, median);
    }

    fn learn_prefill(&self, figures: Figures<'_>, seconds: f32, now_ms: u64) {
        let uncached = self.chosen.needs.uncached();
        if !self.is_measurable || uncached < SAMPLE_TOKENS_MIN {
            return;
        }
        let sample = self.ahead.saturating_add(uncached) as f32 / seconds.max(1e-4);
        let median = figures.median_prefill();
        if median.is_none() {
            // The medians are refreshed each second: until then the endpoint that was measured first
            // would seem faster than all others, which are taken for a fixed speed.
            figures.model.prefill.set(Some(sample));
        }
        if let Some(pair) = self.pair() {
            pair.prefill.learn(sample, PREFILL_WEIGHT, now_ms, median);
            pair.last_prefill.set(Some(sample));
        }
        self.load
            .prefill
            .learn(sample, PREFILL_WEIGHT, now_ms, median);
    }

    /// The response is complete: learns what it shows.
    pub(crate) fn completed(&self, figures: Figures<'_>, end: &Completed, now_us: u64) -> Learned {
        let now_ms = now_us / 1000 + 1;
        let mut learned = Learned::default();
        let took = seconds(now_us.saturating_sub(self.sent_us));
        let median = figures.medians.service();
        self.load
            .service
            .learn_bounded(took, LONGER_MAX, SERVICE_WEIGHT, now_ms, median);
        let completion = end.completion.filter(|tokens| {
            let is_true = is_plausible(*tokens, end);
            learned.rejected += u32::from(!is_true);
            is_true
        });
        if let Some(tokens) = completion {
            figures.model.learn_output(tokens as f32, now_ms);
            self.learn_speed(figures, end, (tokens, took), now_us);
        }
        let prompt = self.learn_bytes(figures, end, &mut learned, now_ms);
        self.learn_capacity(
            end,
            (prompt, figures.model.bytes_per_token(now_ms)),
            &mut learned,
        );
        let output = completion.map_or_else(|| figures.model.output(now_ms), |n| n as f32);
        let output = output.max(0.0);
        if let Some(pair) = self.pair() {
            pair.advance(output as u64);
        }
        let prompt = prompt.unwrap_or(self.chosen.needs.prompt);
        learned.service = service_of(prompt, f64::from(output));
        learned
    }

    /// Learns the time of a token from a stream; of a response that came at once, how fast its prompt
    /// was read, if most of its time went into that.
    fn learn_speed(
        &self,
        figures: Figures<'_>,
        end: &Completed,
        (tokens, took): (u64, f32),
        now_us: u64,
    ) {
        let now_ms = now_us / 1000 + 1;
        let Some(first_us) = self.first_us else {
            return;
        };
        if end.is_stream {
            let decoding = seconds(now_us.saturating_sub(first_us));
            let sample = decoding / tokens.saturating_sub(1).max(1) as f32;
            if tokens >= STEP_TOKENS_MIN && sample >= STEP_S_MIN {
                let median = figures.median_step();
                if let Some(pair) = self.pair() {
                    pair.step
                        .learn_bounded(sample, LONGER_MAX, STEP_WEIGHT, now_ms, median);
                }
                self.load
                    .step
                    .learn_bounded(sample, LONGER_MAX, STEP_WEIGHT, now_ms, median);
            }
        } else if end.is_only_attempt {
            let place = ModelPlace {
                load: &self.load,
                pair: self.pair(),
                model: figures.model,
                medians: figures.medians,
            };
            let of_bytes = (end.bytes / BYTES_PER_TOKEN as u64).saturating_sub(TOKENS_AROUND_TEXT);
            let reading = took - place.step(now_ms) * tokens.max(of_bytes) as f32;
            if reading >= took / 2.0 {
                self.learn_prefill(figures, reading, now_ms);
            }
        }
    }

    /// Learns the bytes of a token. Returns the tokens of the prompt, if they can be true.
    fn learn_bytes(
        &self,
        figures: Figures<'_>,
        end: &Completed,
        learned: &mut Learned,
        now_ms: u64,
    ) -> Option<u64> {
        let tokens = end.prompt?;
        let bytes = end.text_bytes as f64 / tokens.max(1) as f64;
        let tells = end.text_bytes >= TEXT_BYTES_MIN && end.files == 0;
        let of_files = end.files.saturating_mul(FILE_TOKENS_MAX);
        let most = end.text_bytes.saturating_mul(2) + TEMPLATE_TOKENS_MAX + of_files;
        if tokens == 0 || tokens > most || (tells && !BYTES_OF_TOKEN.contains(&bytes)) {
            learned.rejected += 1;
            return None;
        }
        if tells {
            figures.model.learn_bytes_per_token(bytes as f32, now_ms);
        }
        Some(tokens)
    }

    /// Learns how much the endpoint keeps.
    fn learn_capacity(
        &self,
        end: &Completed,
        (prompt, bytes_per_token): (Option<u64>, f32),
        learned: &mut Learned,
    ) {
        let Some(cached) = end.cached else {
            return;
        };
        let most = prompt.unwrap_or(self.chosen.needs.prompt);
        let is_known = prompt.is_some() || end.prompt.is_none();
        if cached > most || !is_known {
            learned.rejected += 1;
            return;
        }
        learned.reported_hit = Some(cached);
        let believed = self.chosen.needs.hit;
        // The belief is in estimated tokens, the report in the endpoint's own.
        let scale = match prompt {
            Some(tokens) => tokens as f64 / self.chosen.needs.prompt.max(1) as f64,
            None => 1.0,
        };
        let believed = believed as f64 * scale;
        learned.believed_hit = believed as u64;
        let block = BLOCK_BYTES as f64 / f64::from(bytes_per_token);
        if let Some(pair) = self.pair()
            && believed > 0.0
        {
            let kept = cached as f64 + block >= believed;
            pair.learn_capacity(self.load.cache_tokens(), kept);
        }
    }
}

impl Drop for Dispatch {
    fn drop(&mut self) {
        if self.pending > 0 {
            self.load.take_pending(self.pending);
        }
    }
}

impl Figures<'_> {
    fn median_prefill(&self) -> Option<f32> {
        self.model.prefill.get().or_else(|| self.medians.prefill())
    }

    fn median_step(&self) -> Option<f32> {
        self.model.step.get().or_else(|| self.medians.step())
    }
}

/// Whether a response can have had so many tokens: at most one for each byte, and not far fewer, or
/// more, than its events and its text tell.
fn is_plausible(tokens: u64, end: &Completed) -> bool {
    let events = if end.is_stream { end.events } else { 0 };
    let around = BYTES_AROUND_TEXT.saturating_add(events.saturating_mul(BYTES_AROUND_EVENT));
    let of_text = end.bytes.saturating_sub(around);
    let is_dense = events >= EVENTS_MIN && tokens > events.saturating_mul(TOKENS_OF_EVENT);
    let least_around = events.saturating_mul(BYTES_AROUND_EVENT_MIN);
    let room = end.bytes.saturating_sub(least_around).saturating_mul(2);
    tokens <= end.bytes.max(1)
        && (!is_dense || tokens.saturating_mul(HALF_BYTES_OF_TOKEN) <= room)
        && tokens.saturating_mul(EVENTS_OF_TOKEN_MAX) + 8 >= events
        && tokens.saturating_mul(BYTES_OF_TOKEN_MAX) >= of_text
}

fn seconds(micros: u64) -> f32 {
    micros as f32 / 1e6
}
