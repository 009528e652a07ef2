//! What is learned of a model wherever it runs: the length of its output, the bytes of a token, and
//! the medians of its speeds.
//!
//! Contract: docs/contract/scheduling.md#1

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::estimate::{FadingMean, Figure};

/// Models that figures are kept of. Of more, one takes the place of the one that was used longest
/// ago in its window.
const MODELS_MAX: usize = 512;

/// Slots that may hold a model.
const WINDOW: usize = 8;

/// The length of an output before any was seen, in tokens.
pub(crate) const OUTPUT_TOKENS: f32 = 100.0;

/// Bytes of text that count as a token before a response has told, and the bounds of what is
/// learned.
pub(crate) const BYTES_PER_TOKEN: f32 = 4.0;
const BYTES_PER_TOKEN_MIN: f32 = 1.5;
const BYTES_PER_TOKEN_MAX: f32 = 8.0;

const OUTPUT_WEIGHT: f32 = 0.02;
const BYTES_WEIGHT: f32 = 0.1;

/// A model's name as a number. Names that differ in letter case only are one, and so are a name and
/// the same with the tag that Ollama adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelKey(NonZeroU64);

impl ModelKey {
    /// The key of a name; the empty one stands for requests without a model.
    pub fn of(name: &str) -> Self {
        let name = name.strip_suffix(":latest").unwrap_or(name);
        const LOWER: u64 = u64::from_ne_bytes([0x20; 8]);
        let mut hash = mix(0x9e37_79b9_7f4a_7c15 ^ name.len() as u64);
        let (words, rest) = name.as_bytes().as_chunks::<8>();
        let mut last = [0x20; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        for word in words.iter().chain([&last]) {
            hash = mix(hash ^ (u64::from_ne_bytes(*word) | LOWER));
        }
        Self(NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN))
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// Makes every bit of a number depend on every other (the finisher of SplitMix64).
pub(super) const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The figures of one model.
#[derive(Debug, Default)]
pub struct ModelFigures {
    key: AtomicU64,
    used_ms: AtomicU64,
    output: FadingMean,
    /// How many outputs were seen.
    outputs: AtomicU32,
    bytes_per_token: FadingMean,
    /// The medians over all endpoints that have it.
    pub prefill: Figure,
    pub step: Figure,
}

impl ModelFigures {
    /// The mean length of an output, in tokens.
    pub fn output(&self, now_ms: u64) -> f32 {
        self.output.value(now_ms, None).unwrap_or(OUTPUT_TOKENS)
    }

    /// Takes the length of an output. While few were seen, each has an equal share of the mean, as
    /// has the length assumed before; a model of long outputs would be known after hundreds only.
    pub fn learn_output(&self, tokens: f32, now_ms: u64) {
        let seen = self.outputs.fetch_add(1, Ordering::Relaxed);
        if seen == 0 {
            self.output.learn(OUTPUT_TOKENS, 1.0, now_ms, None);
        }
        let weight = OUTPUT_WEIGHT.max(1.0 / (seen as f32 + 2.0));
        self.output.learn(tokens, weight, now_ms, None);
    }

    /// Bytes of text that count as a token.
    pub fn bytes_per_token(&self, now_ms: u64) -> f32 {
        self.bytes_per_token
            .value(now_ms, None)
            .unwrap_or(BYTES_PER_TOKEN)
    }

    /// Takes the bytes of text of a prompt, divided by its tokens.
    pub fn learn_bytes_per_token(&self, bytes: f32, now_ms: u64) {
        // The first sample is one of many, too: it has its weight against the value before.
        if self.bytes_per_token.value(now_ms, None).is_none() {
            self.bytes_per_token
                .learn(BYTES_PER_TOKEN, 1.0, now_ms, None);
        }
        let bytes = bytes.clamp(BYTES_PER_TOKEN_MIN, BYTES_PER_TOKEN_MAX);
        self.bytes_per_token
            .learn(bytes, BYTES_WEIGHT, now_ms, None);
    }

    fn reset(&self) {
        self.output.forget();
        self.outputs.store(0, Ordering::Relaxed);
        self.bytes_per_token.forget();
        self.prefill.set(None);
        self.step.set(None);
    }
}

/// The figures of all models, in a table of fixed size.
#[derive(Debug)]
pub struct ModelTable {
    models: Box<[ModelFigures]>,
    /// Of a model that has none: what is assumed.
    assumed: ModelFigures,
}

impl Default for ModelTable {
    fn default() -> Self {
        Self {
            models: (0..MODELS_MAX).map(|_| ModelFigures::default()).collect(),
            assumed: ModelFigures::default(),
        }
    }
}

impl ModelTable {
    /// What is known or assumed of a model: a request that is merely considered takes no place.
    pub fn known(&self, key: ModelKey) -> &ModelFigures {
        self.find(key).unwrap_or(&self.assumed)
    }

    /// The figures of a model to learn, new ones if there are none.
    pub fn of(&self, key: ModelKey, now_ms: u64) -> &ModelFigures {
        let found = self.find(key);
        let model = match found {
            Some(model) => model,
            None => self.place(key),
        };
        if model.used_ms.load(Ordering::Relaxed) != now_ms {
            model.used_ms.store(now_ms, Ordering::Relaxed);
        }
        model
    }

    /// The figures of a model, if there are any.
    pub fn find(&self, key: ModelKey) -> Option<&ModelFigures> {
        self.window(key)
            .find(|model| model.key.load(Ordering::Relaxed) == key.get())
    }

    /// All models, by the numbers of their keys.
    pub fn all(&self) -> impl Iterator<Item = (u64, &ModelFigures)> {
        let models = self.models.iter();
        models.filter_map(|model| match model.key.load(Ordering::Relaxed) {
            0 => None,
            key => Some((key, model)),
        })
    }

    #[cold]
    fn place(&self, key: ModelKey) -> &ModelFigures {
        let oldest = self
            .window(key)
            .min_by_key(|model| model.used_ms.load(Ordering::Relaxed));
        // The window is never empty.
        let model = oldest.unwrap_or(&self.models[0]);
        model.reset();
        model.key.store(key.get(), Ordering::Relaxed);
        model
    }

    fn window(&self, key: ModelKey) -> impl Iterator<Item = &ModelFigures> {
        let home = (key.get() >> 32) as usize;
        (home..home + WINDOW).filter_map(|at| self.models.get(at % MODELS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_more_than_letter_case() {
        let key = ModelKey::of;
        assert_eq!(key("Llama3.2:3B"), key("llama3.2:3b"));
        assert_eq!(key("llama3:latest"), key("llama3"));
        let names = ["", "a", "b", "ab", "a ", "llama3.2:3b", "llama3.2:3b-q4"];
        for (at, one) in names.iter().enumerate() {
            for other in &names[..at] {
                assert_ne!(key(one), key(other), "{one} {other}");
            }
        }
    }

    #[test]
    fn bytes_of_a_token_are_learned_slowly_and_within_bounds() {
        let table = ModelTable::default();
        let model = table.of(ModelKey::of("m"), 1);
        assert_eq!((model.bytes_per_token(1), model.output(1)), (4.0, 100.0));
        model.learn_bytes_per_token(2.0, 1);
        assert!((model.bytes_per_token(1) - 3.8).abs() < 1e-6);
        for _ in 0..200 {
            model.learn_bytes_per_token(0.01, 1);
        }
        assert!((model.bytes_per_token(1) - 1.5).abs() < 1e-3);
        for _ in 0..200 {
            model.learn_bytes_per_token(1e9, 1);
        }
        assert!((model.bytes_per_token(1) - 8.0).abs() < 1e-3);
    }

    #[test]
    fn of_too_many_models_those_in_use_stay() {
        let table = ModelTable::default();
        let busy = ModelKey::of("busy");
        table.of(busy, 1).learn_output(7.0, 1);
        for at in 0..20_000_u64 {
            table.of(ModelKey::of(&format!("m{at}")), at + 2);
            assert_eq!(table.of(busy, at + 2).output(1), 53.5);
        }
        assert!(table.find(ModelKey::of("m19999")).is_some());
    }
}
