//! Metrics in the responses of endpoints: tokens, times, model, finish reason.
//!
//! [`Tail`] keeps the end of a response while it passes; [`Extractor`], made once from a profile,
//! extracts the metrics when the response is complete. Extraction never delays, alters or fails a
//! response; values that it cannot read are left out.
//!
//! The fields of a profile's `metrics.extraction` that become metrics are `input_tokens`
//! (`prompt_tokens`), `output_tokens` (`completion_tokens`), `total_tokens`, `model`,
//! `finish_reason`, `is_complete`, `ttft_ms`, `total_ms`, `model_load_ms` (`load_ms`),
//! `prompt_ms`, `generation_ms`, `tokens_per_second` and `cached_tokens` (those of the prompt that
//! came from the prefix cache, counted in it); any other is a name for formulas. Of
//! several paths of a field the first that finds a value counts; its formula counts only when no
//! path does. A name in a formula is a field that is defined before it, or else a path into the
//! response. For the token counts, the model and the finish reason, the paths of the OpenAI and
//! Anthropic APIs follow those of the profile, because every kind of server has these APIs too.
//!
//! Contract: docs/contract/operations.md#6

mod formula;
mod paths;
mod tail;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use memchr::{memrchr, memrchr_iter};

use crate::providers::MetricsExtraction;
use formula::{Formula, FormulaValue};
use paths::{FoundScalar, FoundValues, JsonPaths, SLOTS_MAX};
use tail::KeptBytes;
pub(crate) use tail::{AnswerKind, Tail};

/// Most formulas of one profile.
const CALCULATIONS_MAX: usize = 32;

/// Longest model name and finish reason taken from a response, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// The largest accepted count: whole numbers up to it are exact in JSON readers.
const COUNT_MAX: f64 = 9_007_199_254_740_992.0;

/// The metrics of a response. 0 = not reported.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProviderFigures<'a> {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
    /// Both together, or the total that the endpoint reports.
    pub total_tokens: u64,
    /// The duration of the request as the endpoint measured it, in milliseconds.
    pub total_ms: u64,
    /// Loading the model, in milliseconds.
    pub load_ms: u64,
    /// Reading the prompt, in milliseconds.
    pub prompt_ms: u64,
    /// Until the first token, in milliseconds.
    pub first_token_ms: u64,
    /// Generating, in milliseconds.
    pub generation_ms: u64,
    /// Tokens generated in a second.
    pub tokens_per_second: f64,
    /// The model by its own name.
    pub model: Option<Cow<'a, str>>,
    /// Why the response ended.
    pub finish_reason: Option<Cow<'a, str>>,
    /// Whether the response says that it is complete.
    pub complete: bool,
    /// The tokens by which a request is charged.
    pub usage: ReportedUsage,
}

/// The tokens that a response reports, for the limits of keys and for the usage ledger
/// (docs/contract/access.md#7.2). A count that is no integer from 0 to a thousand million is missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReportedUsage {
    /// Tokens of the prompt, those from a cache included.
    pub prompt: Option<u64>,
    /// Those of them that came from a cache.
    pub cached: u64,
    /// The same, `None` if nothing was said of a cache.
    pub cached_reported: Option<u64>,
    /// Tokens generated.
    pub completion: Option<u64>,
    /// A count cannot be one.
    pub is_rejected: bool,
}

/// A field of a profile that is ignored because of an error, for a warning at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostField {
    /// The profile's name.
    pub profile: String,
    /// The field below `metrics.extraction.paths` or `metrics.extraction.calculations`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl std::fmt::Display for LostField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            profile,
            field,
            message,
        } = self;
        write!(
            f,
            "profile {profile:?}: metrics.extraction: {field}: {message}; the field is ignored"
        )
    }
}

/// The fields that become metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    PromptTokens,
    CompletionTokens,
    TotalTokens,
    Model,
    FinishReason,
    Complete,
    FirstTokenMs,
    TotalMs,
    LoadMs,
    PromptMs,
    GenerationMs,
    Speed,
    /// Tokens of the prompt from a cache, counted in it.
    Cached,
    /// Tokens of the prompt from a cache and for it, not counted in it.
    CacheRead,
    CacheCreation,
}

/// Each field, its names in a profile, and its paths in responses of the common APIs: in whole
/// responses, then in the events of a stream.
const FIELDS: [(Field, &[&str], &[&str]); 15] = [
    (
        Field::PromptTokens,
        &["input_tokens", "prompt_tokens"],
        &[
            "usage.prompt_tokens",
            "usage.input_tokens",
            "response.usage.input_tokens",
            "message.usage.input_tokens",
        ],
    ),
    (
        Field::CompletionTokens,
        &["output_tokens", "completion_tokens"],
        &[
            "usage.completion_tokens",
            "usage.output_tokens",
            "response.usage.output_tokens",
        ],
    ),
    (
        Field::TotalTokens,
        &["total_tokens"],
        &["usage.total_tokens", "response.usage.total_tokens"],
    ),
    (
        Field::Model,
        &["model"],
        &["model", "response.model", "message.model"],
    ),
    (
        Field::FinishReason,
        &["finish_reason"],
        &[
            "choices[0].finish_reason",
            "stop_reason",
            "delta.stop_reason",
        ],
    ),
    (Field::Complete, &["is_complete"], &[]),
    (Field::FirstTokenMs, &["ttft_ms"], &[]),
    (Field::TotalMs, &["total_ms"], &[]),
    (Field::LoadMs, &["model_load_ms", "load_ms"], &[]),
    (Field::PromptMs, &["prompt_ms"], &[]),
    (Field::GenerationMs, &["generation_ms"], &[]),
    (Field::Speed, &["tokens_per_second"], &[]),
    (
        Field::Cached,
        &["cached_tokens"],
        &[
            "usage.prompt_tokens_details.cached_tokens",
            "usage.input_tokens_details.cached_tokens",
            "response.usage.input_tokens_details.cached_tokens",
        ],
    ),
    (
        Field::CacheRead,
        &[],
        &[
            "usage.cache_read_input_tokens",
            "message.usage.cache_read_input_tokens",
        ],
    ),
    (
        Field::CacheCreation,
        &[],
        &[
            "usage.cache_creation_input_tokens",
            "message.usage.cache_creation_input_tokens",
        ],
    ),
];

/// The largest count of tokens that a request is charged by.
const TOKENS_MAX: f64 = 1e9;

/// The meaning of a name in a formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    /// What one path found.
    Slot(usize),
    /// A field, by its place in [`Extractor::fields`].
    Field(usize),
}

/// The sources of a field's value.
#[derive(Debug, Clone, Default)]
struct Places {
    /// Best first.
    slots: Vec<usize>,
    /// Index of its formula among the calculations; used when no path finds a value.
    calculation: Option<usize>,
    /// The paths of the common APIs; used when there is no formula or its value is absent.
    usual: Vec<usize>,
}

/// Extracts metrics from the responses of one kind of server.
#[derive(Debug, Clone)]
pub struct Extractor {
    paths: JsonPaths,
    /// The fields of [`FIELDS`] in their order, then the profile's other names.
    fields: Vec<Places>,
    calculations: Vec<Formula<Name>>,
}

/// A profile's extraction while it is compiled.
struct Compiler<'p> {
    profile: &'p str,
    extractor: Extractor,
    /// The profile's other names, after those of [`FIELDS`].
    names: Vec<&'p str>,
    lost: Vec<LostField>,
}

impl<'p> Compiler<'p> {
    fn lose(&mut self, field: &str, message: String) {
        self.lost.push(LostField {
            profile: self.profile.to_owned(),
            field: field.to_owned(),
            message,
        });
    }

    fn known(&self, name: &str) -> Option<usize> {
        let figure = FIELDS
            .iter()
            .position(|(_, names, _)| names.contains(&name));
        let further = || self.names.iter().position(|known| *known == name);
        figure.or_else(|| further().map(|at| FIELDS.len() + at))
    }

    /// The sources of a field, created for a new one.
    fn field(&mut self, name: &'p str) -> Option<&mut Places> {
        let at = self.known(name).unwrap_or_else(|| {
            self.names.push(name);
            self.extractor.fields.push(Places::default());
            FIELDS.len() + self.names.len() - 1
        });
        self.extractor.fields.get_mut(at)
    }

    fn slot(&mut self, path: &str) -> Result<usize, String> {
        let path = paths::parse_path(path)?;
        let slot = self.extractor.paths.add(path);
        slot.ok_or_else(|| format!("there are more than {SLOTS_MAX} paths"))
    }

    fn path(&mut self, field: &'p str, path: &str) {
        match self.slot(path) {
            Ok(slot) => {
                if let Some(places) = self.field(field) {
                    places.slots.push(slot);
                }
            }
            Err(message) => self.lose(field, message),
        }
    }

    fn calculation(&mut self, field: &'p str, text: &str) {
        let nth = self.extractor.calculations.len();
        if nth >= CALCULATIONS_MAX {
            self.lose(field, format!("there are more than {CALCULATIONS_MAX}"));
            return;
        }
        let formula = Formula::parse(text, &mut |name| match self.defined(name) {
            Some(field) => Ok(Name::Field(field)),
            None => self.slot(name).map(Name::Slot),
        });
        match formula {
            Ok(formula) => {
                self.extractor.calculations.push(formula);
                if let Some(places) = self.field(field) {
                    places.calculation = Some(nth);
                }
            }
            Err(message) => self.lose(field, message),
        }
    }

    /// A field for which the profile has a path or a formula. `model` is one only if the profile
    /// defines it.
    fn defined(&self, name: &str) -> Option<usize> {
        self.known(name).filter(|at| {
            let places = self.extractor.fields.get(*at);
            places.is_some_and(|places| !places.slots.is_empty() || places.calculation.is_some())
        })
    }
}

impl Extractor {
    /// Compiles a profile's extraction. Fields that cannot be compiled are ignored and reported.
    pub fn compile(profile: &str, extraction: &MetricsExtraction) -> (Self, Vec<LostField>) {
        let mut compiler = Compiler {
            profile,
            extractor: Self {
                paths: JsonPaths::default(),
                fields: Vec::new(),
                calculations: Vec::new(),
            },
            names: Vec::new(),
            lost: Vec::new(),
        };
        // The built-in paths come first: a long profile must not displace them.
        for (_, _, places) in FIELDS {
            let slots = places.iter().filter_map(|place| compiler.slot(place).ok());
            let usual = slots.collect();
            compiler.extractor.fields.push(Places {
                usual,
                ..Places::default()
            });
        }
        for (field, path) in &extraction.paths {
            compiler.path(field, path);
        }
        for (field, text) in &extraction.calculations {
            compiler.calculation(field, text);
        }
        (compiler.extractor, compiler.lost)
    }

    /// The metrics of a complete response; `None` if it has none.
    pub fn read<'a>(&'a self, tail: &'a mut Tail) -> Option<ProviderFigures<'a>> {
        let kept = tail.kept();
        let mut found: FoundValues<'a> = [None; SLOTS_MAX];
        match kept.kind {
            AnswerKind::Opaque => return None,
            AnswerKind::Events => self.events(kept, &mut found),
            AnswerKind::Lines => self.last_line(kept, &mut found),
            AnswerKind::Json => self.document(kept, &mut found),
            AnswerKind::Unknown => {
                // RFC 9110 section 8.3 permits examining the content when there is no type.
                let start = kept.tail.trim_ascii_start();
                let events = [&b"data:"[..], b"event:", b"id:", b":"];
                if !kept.cut && events.iter().any(|prefix| start.starts_with(prefix)) {
                    self.events(kept, &mut found);
                } else {
                    self.document(kept, &mut found);
                }
            }
        }
        if found.iter().all(Option::is_none) {
            return None;
        }
        Some(self.figures(&found)).filter(|figures| *figures != ProviderFigures::default())
    }

    /// The whole body; if more documents follow the first, the last one.
    fn document<'a>(&self, kept: KeptBytes<'a>, found: &mut FoundValues<'a>) {
        if kept.cut {
            return self.last_line(kept, found);
        }
        let end = self.paths.whole(kept.tail, found);
        let more = end.and_then(|end| kept.tail.get(end..));
        if more.is_some_and(|more| !more.trim_ascii().is_empty()) {
            *found = [None; SLOTS_MAX];
            self.last_line(kept, found);
        }
    }

    /// The last line that is not empty, or its end if its beginning was not kept.
    fn last_line<'a>(&self, kept: KeptBytes<'a>, found: &mut FoundValues<'a>) {
        let text = kept.tail.trim_ascii_end();
        let newline = memrchr(b'\n', text);
        let line = newline.map_or(text, |at| &text[at + 1..]);
        let whole = newline.is_some() || !kept.cut;
        if whole && line.trim_ascii_start().starts_with(b"{") {
            self.paths.whole(line, found);
        } else {
            // The last line of a document over several lines is not a document.
            self.paths.cut(text, found);
        }
    }

    /// Each field from the last event that has it.
    fn events<'a>(&self, kept: KeptBytes<'a>, found: &mut FoundValues<'a>) {
        let mut end = kept.tail.len();
        let mut events = 0;
        for newline in memrchr_iter(b'\n', kept.tail) {
            let line = &kept.tail[newline + 1..end];
            end = newline;
            events += usize::from(self.event(line, found));
            if self.is_enough(found) {
                return;
            }
        }
        let first = &kept.tail[..end];
        if !kept.cut {
            self.event(first, found);
            return;
        }
        if events == 0 {
            // One event larger than what is kept.
            self.paths.cut(kept.tail, found);
        }
        let head_end = memrchr(b'\n', kept.head).unwrap_or(0);
        for line in kept.head[..head_end].split(|b| *b == b'\n') {
            self.event(line, found);
        }
    }

    /// Adds the values of one line of an event stream. True if the line is data.
    fn event<'a>(&self, line: &'a [u8], found: &mut FoundValues<'a>) -> bool {
        let Some(data) = line.strip_prefix(b"data:") else {
            return false;
        };
        let data = data.trim_ascii();
        if !data.starts_with(b"{") {
            return false;
        }
        let mut here: FoundValues<'a> = [None; SLOTS_MAX];
        self.paths.whole(data, &mut here);
        paths::fill(found, &here);
        true
    }

    /// Whether the counts, the model and the finish reason are found, so that earlier events have
    /// nothing to add.
    fn is_enough(&self, found: &FoundValues<'_>) -> bool {
        let has = |slot: &usize| found.get(*slot).is_some_and(Option::is_some);
        FIELDS
            .iter()
            .zip(&self.fields)
            .all(|((field, _, _), places)| match field {
                Field::PromptTokens
                | Field::CompletionTokens
                | Field::Model
                | Field::FinishReason => places.slots.iter().chain(&places.usual).any(has),
                _ => true,
            })
    }

    /// The value of a field, from the formulas evaluated so far.
    fn value<'a>(
        &self,
        field: usize,
        found: &FoundValues<'a>,
        results: &[FormulaValue<'a>; CALCULATIONS_MAX],
    ) -> FormulaValue<'a> {
        let is_present = |value: &FoundScalar<'_>| *value != FoundScalar::Text(b"");
        let first = |slots: &[usize]| {
            let mut values = slots.iter().filter_map(|slot| at_slot(*slot, found));
            values.find(is_present)
        };
        let places = self.fields.get(field)?;
        let result = || (*results.get(places.calculation?)?).filter(is_present);
        first(&places.slots)
            .or_else(result)
            .or_else(|| first(&places.usual))
    }

    fn figures<'a>(&'a self, found: &FoundValues<'a>) -> ProviderFigures<'a> {
        let mut results = [None; CALCULATIONS_MAX];
        for (nth, formula) in self.calculations.iter().enumerate() {
            let result = formula.eval(&|name| match name {
                Name::Slot(slot) => at_slot(*slot, found),
                Name::Field(field) => self.value(*field, found, &results),
            });
            if let Some(place) = results.get_mut(nth) {
                *place = result;
            }
        }
        let of = |field: Field| {
            let at = FIELDS.iter().position(|(known, _, _)| *known == field);
            self.value(at?, found, &results)
        };
        let number = |field| match of(field) {
            Some(FoundScalar::Number(number)) if number > 0.0 => number.min(COUNT_MAX),
            _ => 0.0,
        };
        let count = |field| number(field).round() as u64;
        let generation = number(Field::GenerationMs);
        let prompt_tokens = count(Field::PromptTokens);
        let completion_tokens = count(Field::CompletionTokens);
        let total_tokens = match count(Field::TotalTokens) {
            0 => prompt_tokens.saturating_add(completion_tokens),
            total => total,
        };
        let tokens_per_second = match number(Field::Speed) {
            0.0 if generation > 0.0 => completion_tokens as f64 * 1000.0 / generation,
            speed => speed,
        };
        let finish_reason = text(of(Field::FinishReason));
        let complete = match of(Field::Complete) {
            Some(FoundScalar::Bool(complete)) => complete,
            _ => finish_reason.is_some(),
        };
        ProviderFigures {
            prompt_tokens,
            completion_tokens,
            total_tokens,
            total_ms: count(Field::TotalMs),
            load_ms: count(Field::LoadMs),
            prompt_ms: count(Field::PromptMs),
            first_token_ms: count(Field::FirstTokenMs),
            generation_ms: generation.round() as u64,
            tokens_per_second,
            model: text(of(Field::Model)),
            finish_reason,
            complete,
            usage: usage(of),
        }
    }
}

/// The tokens by which a request is charged.
fn usage<'a>(of: impl Fn(Field) -> FormulaValue<'a>) -> ReportedUsage {
    let mut is_rejected = false;
    let mut count = |field| match of(field)? {
        FoundScalar::Number(number)
            if (0.0..=TOKENS_MAX).contains(&number) && number.fract() == 0.0 =>
        {
            Some(number as u64)
        }
        _ => {
            is_rejected = true;
            None
        }
    };
    let (read, created) = (count(Field::CacheRead), count(Field::CacheCreation));
    let has_read = read.is_some();
    let (read, created) = (read.unwrap_or(0), created.unwrap_or(0));
    let prompt = count(Field::PromptTokens);
    let told = count(Field::Cached);
    let cached = told.unwrap_or(0);
    ReportedUsage {
        prompt: prompt.map(|prompt| prompt.saturating_add(read).saturating_add(created)),
        // A response with both has the same tokens in both.
        cached: cached.max(read),
        cached_reported: (told.is_some() || has_read).then(|| cached.max(read)),
        completion: count(Field::CompletionTokens),
        is_rejected,
    }
}

fn at_slot<'a>(slot: usize, found: &FoundValues<'a>) -> FormulaValue<'a> {
    found.get(slot).copied().flatten()
}

/// The decoded string, if the value is a string and not too long.
fn text(value: FormulaValue<'_>) -> Option<Cow<'_, str>> {
    let Some(FoundScalar::Text(raw)) = value else {
        return None;
    };
    if raw.is_empty() || raw.len() > TEXT_BYTES_MAX {
        return None;
    }
    if !raw.contains(&b'\\') {
        return std::str::from_utf8(raw).ok().map(Cow::Borrowed);
    }
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice(&quoted).ok().map(Cow::Owned)
}
