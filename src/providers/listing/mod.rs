//! The model listings of endpoints: one parser for each format, and the facts kept of a model.
//!
//! A parser tolerates bad fields and items, but not a bad document: an invalid field is absent, an
//! item that is not an object or has no usable name is dropped, and a body that is not a listing is
//! an error.
//!
//! Contract: docs/contract/catalogue.md#3.4, docs/contract/catalogue.md#3.7

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::fields::{RawFields, with_object, with_written_object};
use super::profile::Parser;

/// The longest listing that is read (docs/contract/catalogue.md#3.4).
pub(crate) const MAX_LISTING_BYTES: usize = 10 << 20;

/// Most models of one listing. The largest public catalogues have some thousands; the limit keeps a
/// faulty endpoint from exhausting the gateway's memory.
pub(crate) const MAX_MODELS: usize = 20_000;

/// The longest usable name. File names end at 255 bytes, ids with an owner and a tag not much
/// later.
pub(crate) const MAX_NAME_BYTES: usize = 1024;

/// The longest other text; a longer one is absent.
const MAX_TEXT_BYTES: usize = 4096;

/// Most of `details.families`.
const MAX_FAMILIES: usize = 16;

/// Most of `capabilities`.
const MAX_CAPABILITIES: usize = 16;

/// What a model does (docs/contract/catalogue.md#5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelKind {
    /// Text in, text out.
    Llm,
    /// Images too.
    Vlm,
    /// Text in, vector out.
    Embeddings,
}

impl ModelKind {
    /// The name in LM Studio's listings and in the query `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Vlm => "vlm",
            Self::Embeddings => "embeddings",
        }
    }

    /// Parses the name.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::Llm, Self::Vlm, Self::Embeddings];
        all.into_iter()
            .find(|kind| word.eq_ignore_ascii_case(kind.as_str()))
    }
}

/// One model as its backend reported it. Absent = not reported, or not usable.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedModel {
    /// The name as the endpoint spells it; never blank.
    pub name: Arc<str>,
    /// The family, or LM Studio's `arch`.
    pub family: Option<Box<str>>,
    /// Who published it.
    pub publisher: Option<Box<str>>,
    /// Number of parameters as a text: `8.0B`.
    pub parameter_size: Option<Box<str>>,
    /// Number of parameters, when reported as a number.
    pub parameter_count: Option<u64>,
    /// Quantisation as a text: `Q4_K_M`.
    pub quantization: Option<Box<str>>,
    /// Format of the file: `gguf`.
    pub format: Option<Box<str>>,
    /// The kind of model.
    pub kind: Option<ModelKind>,
    /// Its state as the endpoint reports it.
    pub state: Option<Box<str>>,
    /// Longest context in tokens that the endpoint was started with.
    pub served_context: Option<u64>,
    /// Longest context in tokens that the model was trained with.
    pub trained_context: Option<u64>,
    /// Bytes on disk.
    pub disk_size: Option<u64>,
    /// Identifies the weights, independent of the name.
    pub digest: Option<Box<str>>,
    /// Unix seconds at which it was made or changed.
    pub created: Option<u64>,
    /// Facts that only one provider's listing has.
    pub extra: Option<Box<Extra>>,
}

/// Facts that are shown only in the same provider's format.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extra {
    /// Ollama: RFC 3339, as sent.
    pub modified_at: Option<Box<str>>,
    /// Ollama: shown to users.
    pub description: Option<Box<str>>,
    /// Ollama: what it was derived from.
    pub parent_model: Option<Box<str>>,
    /// Ollama: all families.
    pub families: Vec<Box<str>>,
    /// vLLM, SGLang, LMDeploy: the model that an adapter belongs to.
    pub parent: Option<Box<str>>,
    /// Lemonade: where it comes from.
    pub checkpoint: Option<Box<str>>,
    /// Lemonade: what runs it.
    pub recipe: Option<Box<str>>,
    /// Lemonade: whether it is on disk.
    pub downloaded: Option<bool>,
    /// SGLang.
    pub supports_vision: Option<bool>,
    /// SGLang: a single value of any type.
    pub radix_cache_size: Option<Scalar>,
    /// SGLang; whatever kind of single value it sends.
    pub spec_decoding: Option<Scalar>,
    /// SGLang.
    pub frontend_enabled: Option<bool>,
    /// llama.cpp: the whole object.
    pub meta: Option<Scalar>,
    /// LM Studio, Ollama: what the model can do in its words, such as `tool_use`.
    pub capabilities: Vec<Box<str>>,
}

/// A value that is passed on as it came: a number, a text, a boolean, or llama.cpp's `meta`.
#[derive(Debug, Clone)]
pub struct Scalar(Box<RawValue>);

impl Scalar {
    fn object(fields: &RawFields<'_>, name: &str) -> Option<Self> {
        let raw = fields.get(name)?.written()?;
        let is_short = raw.get().starts_with('{') && raw.get().len() <= MAX_TEXT_BYTES;
        is_short.then(|| Self(raw.to_owned()))
    }

    fn of(fields: &RawFields<'_>, name: &str) -> Option<Self> {
        let raw = fields.get(name)?.written()?;
        let is_single = !raw.get().starts_with(['[', '{']) && raw.get().len() <= MAX_TEXT_BYTES;
        is_single.then(|| Self(raw.to_owned()))
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Serialize for Scalar {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl ListedModel {
    /// A model of which only the name is known.
    pub fn named(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            family: None,
            publisher: None,
            parameter_size: None,
            parameter_count: None,
            quantization: None,
            format: None,
            kind: None,
            state: None,
            served_context: None,
            trained_context: None,
            disk_size: None,
            digest: None,
            created: None,
            extra: None,
        }
    }
}

/// Why a body is not a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListingFault {
    /// The body is empty.
    Empty,
    /// More than [`MAX_LISTING_BYTES`].
    TooLong,
    /// More than [`MAX_MODELS`].
    TooMany,
    /// It is not a JSON object.
    NoObject,
    /// The list of models is missing or not a list.
    NoList,
}

impl fmt::Display for ListingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the model listing is empty"),
            Self::TooLong => write!(
                f,
                "the model listing is longer than {MAX_LISTING_BYTES} bytes"
            ),
            Self::TooMany => write!(f, "the model listing has more than {MAX_MODELS} models"),
            Self::NoObject => f.write_str("the model listing is not a JSON object"),
            Self::NoList => f.write_str("the model listing contains no list of models"),
        }
    }
}

impl std::error::Error for ListingFault {}

/// Reads a backend's listing, in its order.
///
/// # Errors
/// The body is not a listing. Invalid items and fields are left out without an error.
pub fn parse_listing(parser: Parser, body: &[u8]) -> Result<Vec<ListedModel>, ListingFault> {
    if body.len() > MAX_LISTING_BYTES {
        return Err(ListingFault::TooLong);
    }
    // Invalid UTF-8 affects the string that contains it, not the whole listing.
    let body = String::from_utf8_lossy(body);
    let body = body.trim_start_matches('\u{feff}').trim();
    if body.is_empty() {
        return Err(ListingFault::Empty);
    }
    // Single values of SGLang's models and llama.cpp's `meta` are passed on as they are spelled;
    // the lists of both are short.
    let keeps_spelling = match parser {
        Parser::Sglang | Parser::LlamaCpp => true,
        Parser::OpenAi => memchr::memmem::find(body.as_bytes(), br#""n_ctx_train""#).is_some(),
        _ => false,
    };
    let models = match keeps_spelling {
        true => with_written_object(body, |document| models(parser, document)),
        false => with_object(body, |document| models(parser, document)),
    };
    models.ok_or(ListingFault::NoObject)?
}

fn models(parser: Parser, document: &RawFields<'_>) -> Result<Vec<ListedModel>, ListingFault> {
    let field = match parser {
        Parser::Ollama => "models",
        _ => "data",
    };
    if document.get(field).is_none() {
        return Ok(Vec::new());
    }
    let items = document.list(field).ok_or(ListingFault::NoList)?;
    if items.len() > MAX_MODELS {
        return Err(ListingFault::TooMany);
    }
    let items = items.into_iter().filter_map(RawFields::of);
    Ok(items.filter_map(|item| model(parser, &item)).collect())
}

fn model(parser: Parser, item: &RawFields<'_>) -> Option<ListedModel> {
    let name = match parser {
        Parser::Ollama => item.text("name").or_else(|| item.text("model"))?,
        _ => item.text("id")?,
    };
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    let mut model = ListedModel::named(&name);
    let mut extra = Extra::default();
    match parser {
        Parser::Ollama => ollama(&mut model, &mut extra, item),
        Parser::LmStudio => lm_studio(&mut model, &mut extra, item),
        Parser::Lemonade => lemonade(&mut model, &mut extra, item),
        _ => openai_like(parser, &mut model, &mut extra, item),
    }
    model.extra = (extra != Extra::default()).then(|| Box::new(extra));
    Some(model)
}

fn ollama(model: &mut ListedModel, extra: &mut Extra, item: &RawFields<'_>) {
    model.disk_size = item.positive("size");
    model.digest = kept(item, "digest");
    extra.description = kept(item, "description");
    extra.capabilities = capabilities(item);
    if let Some(text) = kept(item, "modified_at")
        && let Ok(time) = OffsetDateTime::parse(&text, &Rfc3339)
    {
        model.created = u64::try_from(time.unix_timestamp()).ok().filter(|s| *s > 0);
        extra.modified_at = Some(text);
    }
    let Some(details) = item.object("details") else {
        return;
    };
    let families = details.texts("families").take(MAX_FAMILIES);
    extra.families = families.filter_map(bounded).collect();
    extra.parent_model = kept(&details, "parent_model");
    model.family = kept(&details, "family").or_else(|| extra.families.first().cloned());
    model.parameter_size = kept(&details, "parameter_size");
    model.quantization = kept(&details, "quantization_level");
    model.format = kept(&details, "format");
}

fn capabilities(item: &RawFields<'_>) -> Vec<Box<str>> {
    let words = item.texts("capabilities").take(MAX_CAPABILITIES);
    words.filter_map(bounded).collect()
}

fn lm_studio(model: &mut ListedModel, extra: &mut Extra, item: &RawFields<'_>) {
    extra.capabilities = capabilities(item);
    model.kind = item.text("type").and_then(|word| ModelKind::parse(&word));
    model.publisher = kept(item, "publisher");
    model.family = kept(item, "arch");
    model.format = kept(item, "compatibility_type");
    model.quantization = kept(item, "quantization");
    model.state = kept(item, "state");
    model.trained_context = item.positive("max_context_length");
    model.served_context = item.positive("loaded_context_length");
}

fn lemonade(model: &mut ListedModel, extra: &mut Extra, item: &RawFields<'_>) {
    model.created = item.positive("created");
    extra.checkpoint = kept(item, "checkpoint");
    extra.recipe = kept(item, "recipe");
    extra.downloaded = item.bool("downloaded");
    let checkpoint = extra.checkpoint.as_deref();
    model.publisher = checkpoint
        .and_then(|checkpoint| Some(checkpoint.split_once('/')?.0))
        .filter(|publisher| !publisher.is_empty())
        .map(Box::from);
    model.format = match extra.recipe.as_deref() {
        Some("llamacpp" | "flm") => Some("gguf".into()),
        Some(recipe) if recipe.starts_with("oga-") => Some("onnx".into()),
        _ => None,
    };
    model.state = (extra.downloaded == Some(true)).then(|| "available".into());
}

/// The listings that have OpenAI's form, with what each adds.
fn openai_like(parser: Parser, model: &mut ListedModel, extra: &mut Extra, item: &RawFields<'_>) {
    let (own_names, format): (&[&str], Option<&str>) = match parser {
        Parser::Vllm => (&["vllm"], None),
        Parser::Sglang => (&["sglang"], None),
        Parser::Lmdeploy => (&["lmdeploy"], None),
        Parser::VllmMlx => (&["vllm-mlx", "vllm"], Some("mlx")),
        Parser::DockerModelRunner => (&["docker"], Some("gguf")),
        Parser::LlamaCpp => (&["llamacpp"], Some("gguf")),
        Parser::OpenAi => (&["llama-swap", "koboldcpp", "tabbyAPI"], None),
        Parser::Ollama | Parser::LmStudio | Parser::Lemonade => (&[], None),
    };
    model.created = item.positive("created");
    // Servers that do not know the publisher report their own name, or the model's.
    model.publisher = kept(item, "owned_by")
        .filter(|owner| !own_names.contains(&&**owner) && **owner != *model.name);
    model.format = format.map(Box::from);
    if matches!(parser, Parser::OpenAi | Parser::Vllm | Parser::Sglang) {
        model.served_context = item.positive("max_model_len");
    }
    if parser == Parser::OpenAi {
        let others = ["context_length", "context_window"];
        let mut others = others.iter().filter_map(|name| item.positive(name));
        model.served_context = model.served_context.or_else(|| others.next());
    }
    if matches!(parser, Parser::Vllm | Parser::Sglang | Parser::Lmdeploy) {
        extra.parent = kept(item, "parent");
    }
    if parser == Parser::Sglang {
        extra.supports_vision = item.bool("supports_vision");
        extra.radix_cache_size = Scalar::of(item, "radix_cache_size");
        extra.spec_decoding = Scalar::of(item, "spec_decoding");
        extra.frontend_enabled = item.bool("frontend_enabled");
    }
    if matches!(parser, Parser::LlamaCpp | Parser::OpenAi)
        && let Some(meta) = item.object("meta")
    {
        extra.meta = Scalar::object(item, "meta");
        model.served_context = model.served_context.or_else(|| meta.positive("n_ctx"));
        model.trained_context = meta.positive("n_ctx_train");
        model.parameter_count = meta.positive("n_params");
        model.disk_size = meta.positive("size");
    }
}

fn kept(fields: &RawFields<'_>, name: &str) -> Option<Box<str>> {
    fields.text(name).and_then(bounded)
}

fn bounded(text: std::borrow::Cow<'_, str>) -> Option<Box<str>> {
    (text.len() <= MAX_TEXT_BYTES).then(|| text.into())
}

#[cfg(test)]
mod tests;
