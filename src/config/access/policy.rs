//! Policies: their fields, which a key may override, and how the fields are read.
//!
//! The fields are read from a table directly, not by [`Section`]'s declarations: a configuration may
//! have 100,000 keys, each with fields of its own. [`FIELDS`] is the one list of them.
//!
//! Contract: docs/contract/access.md#5.1

use std::sync::Arc;
use std::time::Duration;

use super::super::finding::FieldFault;
use super::super::kinds::BOOLEAN;
use super::super::reader::{KeyDoc, join};
use super::super::section::Section;
use super::super::tree::{ConfigNode, ConfigTable, ConfigValue};
use super::super::unknown::ANY_NAME;
use super::super::values;

/// The name of the policy that always exists.
pub(crate) const DEFAULT_POLICY: &str = "default";

/// The most policies.
const MAX_POLICIES: usize = 1_000;

/// The largest limit.
const MAX_LIMIT: i128 = 1_000_000_000_000_000;

/// What becomes of a request that asks for more output than `max_output_tokens`
/// (docs/contract/access.md#7.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputLimit {
    /// Its limit is lowered.
    Clamp,
    /// It is refused.
    Refuse,
}

/// What a key may do on the operator's routes (docs/contract/access.md#1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AdminRight {
    /// Nothing.
    None,
    /// GET and HEAD, but not on keys.
    Read,
    /// All.
    Full,
}

/// The limits that a policy may also set for all of its keys together. 0 = none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Limits {
    /// Requests a minute.
    pub requests_per_minute: u64,
    /// Tokens a minute.
    pub tokens_per_minute: u64,
    /// Tokens in a UTC day.
    pub tokens_per_day: u64,
    /// Tokens in a UTC calendar month.
    pub tokens_per_month: u64,
    /// Requests in progress at one time.
    pub concurrent: u64,
}

impl Limits {
    /// Whether responses show any of them.
    pub const fn are_shown(&self) -> bool {
        self.requests_per_minute
            | self.tokens_per_minute
            | self.tokens_per_day
            | self.tokens_per_month
            != 0
    }
}

/// The permissions and limits of a policy, or of one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PolicyFields {
    /// Globs of the names of models; a leading `!` excludes.
    pub models: Vec<String>,
    /// Globs of the names of endpoints, likewise; never empty.
    pub endpoints: Vec<String>,
    /// The limits of each key.
    pub limits: Limits,
    /// The largest estimate of prompt tokens; 0 = none.
    pub max_prompt_tokens: u64,
    /// The largest output; 0 = none.
    pub max_output_tokens: u64,
    /// How that is enforced.
    pub output_limit: OutputLimit,
    /// Priority of waiting requests, 0 to 9.
    pub priority: u8,
    /// Share of service among waiting requests of one priority, 1 to 1000.
    pub weight: u16,
    /// How long a request may wait in the queue; `None` = as `queue.max_wait` says, zero = without
    /// bound (docs/contract/scheduling.md#5).
    pub max_wait: Option<Duration>,
    /// Right to the operator's routes.
    pub admin: AdminRight,
    /// Whether prompts of each key are cached apart.
    pub isolate_cache: bool,
}

impl Default for PolicyFields {
    fn default() -> Self {
        Self {
            models: vec!["*".to_owned()],
            endpoints: vec!["*".to_owned()],
            limits: Limits::default(),
            max_prompt_tokens: 0,
            max_output_tokens: 0,
            output_limit: OutputLimit::Clamp,
            priority: 5,
            weight: 1,
            max_wait: None,
            admin: AdminRight::None,
            isolate_cache: false,
        }
    }
}

/// The fields that are given, of a policy or of one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PolicyOverrides {
    /// [`PolicyFields::models`].
    pub models: Option<Vec<String>>,
    /// [`PolicyFields::endpoints`].
    pub endpoints: Option<Vec<String>>,
    /// [`Limits::requests_per_minute`].
    pub requests_per_minute: Option<u64>,
    /// [`Limits::tokens_per_minute`].
    pub tokens_per_minute: Option<u64>,
    /// [`Limits::tokens_per_day`].
    pub tokens_per_day: Option<u64>,
    /// [`Limits::tokens_per_month`].
    pub tokens_per_month: Option<u64>,
    /// [`Limits::concurrent`].
    pub concurrent: Option<u64>,
    /// [`PolicyFields::max_prompt_tokens`].
    pub max_prompt_tokens: Option<u64>,
    /// [`PolicyFields::max_output_tokens`].
    pub max_output_tokens: Option<u64>,
    /// [`PolicyFields::output_limit`].
    pub output_limit: Option<OutputLimit>,
    /// [`PolicyFields::priority`].
    pub priority: Option<u8>,
    /// [`PolicyFields::weight`].
    pub weight: Option<u16>,
    /// [`PolicyFields::max_wait`].
    pub max_wait: Option<Duration>,
    /// [`PolicyFields::admin`].
    pub admin: Option<AdminRight>,
    /// [`PolicyFields::isolate_cache`].
    pub isolate_cache: Option<bool>,
}

impl PolicyFields {
    /// These fields with those that are given in their place.
    #[must_use]
    pub fn with(&self, given: &PolicyOverrides) -> Self {
        let limits = &self.limits;
        Self {
            models: given.models.clone().unwrap_or_else(|| self.models.clone()),
            endpoints: given
                .endpoints
                .clone()
                .unwrap_or_else(|| self.endpoints.clone()),
            limits: Limits {
                requests_per_minute: given
                    .requests_per_minute
                    .unwrap_or(limits.requests_per_minute),
                tokens_per_minute: given.tokens_per_minute.unwrap_or(limits.tokens_per_minute),
                tokens_per_day: given.tokens_per_day.unwrap_or(limits.tokens_per_day),
                tokens_per_month: given.tokens_per_month.unwrap_or(limits.tokens_per_month),
                concurrent: given.concurrent.unwrap_or(limits.concurrent),
            },
            max_prompt_tokens: given.max_prompt_tokens.unwrap_or(self.max_prompt_tokens),
            max_output_tokens: given.max_output_tokens.unwrap_or(self.max_output_tokens),
            output_limit: given.output_limit.unwrap_or(self.output_limit),
            priority: given.priority.unwrap_or(self.priority),
            weight: given.weight.unwrap_or(self.weight),
            max_wait: given.max_wait.or(self.max_wait),
            admin: given.admin.unwrap_or(self.admin),
            isolate_cache: given.isolate_cache.unwrap_or(self.isolate_cache),
        }
    }
}

/// `[access.policies.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PolicyPlan {
    /// Its name.
    pub name: Arc<str>,
    /// What it allows each key.
    pub fields: PolicyFields,
    /// The limits of all its keys together.
    pub together: Limits,
}

impl PolicyPlan {
    /// A policy without limits that allows everything but administration.
    pub fn open(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            fields: PolicyFields::default(),
            together: Limits::default(),
        }
    }
}

/// One field of a policy.
pub(crate) struct PolicyField {
    pub(crate) name: &'static str,
    kind: &'static str,
    default: &'static str,
    doc: &'static str,
    /// Takes the value over; `None` refuses it.
    read: fn(&ConfigValue, &mut PolicyOverrides) -> Option<()>,
}

const LIMIT: &str = "an integer from 0 to 1000000000000000";
const GLOBS: &str = "a list of globs, which \"!\" makes exclusions";

macro_rules! limit {
    ($name:ident, $doc:literal) => {
        PolicyField {
            name: stringify!($name),
            kind: LIMIT,
            default: "0",
            doc: $doc,
            read: |value, given| {
                given.$name = Some(integer(value, 0, MAX_LIMIT)?);
                Some(())
            },
        }
    };
}

/// The fields that a policy may set together for all keys come first.
const TOGETHER: usize = 5;

/// Every field.
pub(crate) const FIELDS: [PolicyField; 15] = [
    limit!(requests_per_minute, "Requests a minute; 0 = no limit."),
    limit!(
        tokens_per_minute,
        "Tokens a minute, of prompts and responses; 0 = no limit."
    ),
    limit!(tokens_per_day, "Tokens a UTC day; 0 = no limit."),
    limit!(
        tokens_per_month,
        "Tokens a UTC calendar month; 0 = no limit."
    ),
    limit!(
        concurrent,
        "Requests in progress at one time, waiting ones included; 0 = no limit."
    ),
    PolicyField {
        name: "models",
        kind: GLOBS,
        default: "[\"*\"]",
        doc: "Globs of the models that may be used, as clients write them; !GLOB excludes.",
        read: |value, given| {
            given.models = Some(globs(value)?);
            Some(())
        },
    },
    PolicyField {
        name: "endpoints",
        kind: "a list of at least one glob, which \"!\" makes exclusions",
        default: "[\"*\"]",
        doc: "Globs of the endpoints that may be used; !GLOB excludes.",
        read: |value, given| {
            given.endpoints = Some(globs(value).filter(|globs| !globs.is_empty())?);
            Some(())
        },
    },
    limit!(
        max_prompt_tokens,
        "Largest estimated prompt of one request; 0 = no limit."
    ),
    limit!(
        max_output_tokens,
        "Largest output of one request; 0 = no limit."
    ),
    PolicyField {
        name: "output_limit",
        kind: "\"clamp\" or \"refuse\"",
        default: "\"clamp\"",
        doc: "Whether a request for more output is lowered to max_output_tokens or refused.",
        read: |value, given| {
            given.output_limit = Some(match value.text()? {
                "clamp" => OutputLimit::Clamp,
                "refuse" => OutputLimit::Refuse,
                _ => return None,
            });
            Some(())
        },
    },
    PolicyField {
        name: "priority",
        kind: "an integer from 0 to 9",
        default: "5",
        doc: "Waiting requests of a higher priority go first; 9 is the highest.",
        read: |value, given| {
            given.priority = Some(integer(value, 0, 9)?);
            Some(())
        },
    },
    PolicyField {
        name: "weight",
        kind: "an integer from 1 to 1000",
        default: "1",
        doc: "Share of service among waiting requests of one priority.",
        read: |value, given| {
            given.weight = Some(integer(value, 1, 1000)?);
            Some(())
        },
    },
    PolicyField {
        name: "max_wait",
        kind: "a duration such as \"30s\" or \"1h30m\"",
        default: "",
        doc: "How long a request may wait, in place of queue.max_wait; 0 = no limit.",
        read: |value, given| {
            given.max_wait = Some(values::duration(value.text()?)?);
            Some(())
        },
    },
    PolicyField {
        name: "admin",
        kind: "true, false or \"read\"",
        default: "false",
        doc: "Right to /internal/: true for all of it, \"read\" for GET and HEAD without keys.",
        read: |value, given| {
            given.admin = Some(match (value, value.text()) {
                (_, Some("read")) => AdminRight::Read,
                (ConfigValue::Bool(on) | ConfigValue::Switch { on, .. }, _) if *on => {
                    AdminRight::Full
                }
                (ConfigValue::Bool(_) | ConfigValue::Switch { .. }, _) => AdminRight::None,
                _ => return None,
            });
            Some(())
        },
    },
    PolicyField {
        name: "isolate_cache",
        kind: BOOLEAN,
        default: "false",
        doc: "Keep the prompt caches of keys apart.",
        read: |value, given| {
            given.isolate_cache = Some(flag(value)?);
            Some(())
        },
    },
];

/// `true` or `false`.
pub(super) fn flag(value: &ConfigValue) -> Option<bool> {
    match value {
        ConfigValue::Bool(on) | ConfigValue::Switch { on, .. } => Some(*on),
        _ => None,
    }
}

fn integer<T: TryFrom<i128>>(value: &ConfigValue, min: i128, max: i128) -> Option<T> {
    match value {
        ConfigValue::Int(number) if (min..=max).contains(number) => T::try_from(*number).ok(),
        _ => None,
    }
}

fn globs(value: &ConfigValue) -> Option<Vec<String>> {
    let ConfigValue::List(items) = value else {
        return None;
    };
    let glob = |item: &ConfigNode| {
        let text = item.value.text()?;
        let pattern = text.strip_prefix('!').unwrap_or(text);
        (!pattern.trim().is_empty()).then(|| text.to_owned())
    };
    items.iter().map(glob).collect()
}

/// Reads one field; false if it is none of a policy's.
pub(super) fn read_field(
    name: &str,
    node: &ConfigNode,
    given: &mut PolicyOverrides,
    faults: &mut Vec<FieldFault>,
) -> bool {
    let Some(field) = FIELDS.iter().find(|field| field.name == name) else {
        return false;
    };
    if (field.read)(&node.value, given).is_none() {
        let shown = match &node.value {
            ConfigValue::List(items) => list(items),
            other => other.described(),
        };
        let message = format!("expected {}, got {shown}", field.kind);
        faults.push(FieldFault::new(name, node.line, message));
    }
    true
}

/// A list as it was written.
fn list(items: &[ConfigNode]) -> String {
    let items: Vec<_> = items.iter().map(|item| item.value.written()).collect();
    format!("[{}]", items.join(", "))
}

/// Declares the fields of a policy, or of a key, for the reference.
pub(super) fn document(s: &mut Section<'_, '_>) {
    for field in &FIELDS {
        s.document(field_doc(field));
    }
}

fn field_doc(field: &PolicyField) -> KeyDoc {
    KeyDoc {
        path: field.name.to_owned(),
        kind: field.kind.to_owned(),
        default: field.default.to_owned(),
        doc: field.doc,
        ..KeyDoc::EMPTY
    }
}

/// Whether a text is a name of a key or a policy.
pub(crate) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && text.len() <= 64
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"._@-".contains(&b))
}

pub(super) const NAME: &str =
    "1 to 64 of the characters A-Z a-z 0-9 . _ @ - that begin with a letter or digit";

/// `[access.policies]`: the policies by name, with the one called `default`.
pub(super) fn policies(s: &mut Section<'_, '_>) -> Vec<PolicyPlan> {
    let mut s = s.section("policies");
    document_policy(&mut s);
    let entries = s.entries();
    if entries.len() > MAX_POLICIES {
        let message = format!(
            "expected at most {MAX_POLICIES} policies, got {}",
            entries.len()
        );
        s.refuse_all(message);
    }
    let mut plans = Vec::with_capacity(entries.len() + 1);
    for (name, node) in entries.into_iter().take(MAX_POLICIES) {
        plans.push(policy(&mut s, name, node));
    }
    if plans.iter().all(|plan| &*plan.name != DEFAULT_POLICY) {
        plans.push(PolicyPlan::open(DEFAULT_POLICY));
    }
    plans.sort_by(|a, b| a.name.cmp(&b.name));
    plans
}

fn document_policy(s: &mut Section<'_, '_>) {
    let mut s = s.section(ANY_NAME);
    document(&mut s);
    let mut s = s.section("together");
    for field in FIELDS.iter().take(TOGETHER) {
        s.document(field_doc(field));
    }
}

fn policy(s: &mut Section<'_, '_>, name: &str, node: &ConfigNode) -> PolicyPlan {
    let place = join("", name);
    let mut plan = PolicyPlan::open(name);
    let mut faults = Vec::new();
    if !is_name(name) {
        faults.push(FieldFault::new(
            "",
            node.line,
            format!("expected a name of {NAME}"),
        ));
    }
    let ConfigValue::Table(table) = &node.value else {
        let message = format!("expected a table, got {}", node.value.described());
        s.refuse_fields(&place, vec![FieldFault::new("", node.line, message)]);
        return plan;
    };
    let mut given = PolicyOverrides::default();
    for (field, node) in table.0.iter().filter(|(_, node)| !node.is_null()) {
        match &node.value {
            ConfigValue::Table(table) if field == "together" => {
                plan.together = together(table, &mut faults);
            }
            other if field == "together" => {
                let message = format!("expected a table, got {}", other.described());
                faults.push(FieldFault::new(field, node.line, message));
            }
            // An unknown field is reported with all other unknown keys.
            _ => {
                read_field(field, node, &mut given, &mut faults);
            }
        }
    }
    plan.fields = plan.fields.with(&given);
    s.refuse_fields(&place, faults);
    plan
}

fn together(table: &ConfigTable, faults: &mut Vec<FieldFault>) -> Limits {
    let mut given = PolicyOverrides::default();
    let mut own = Vec::new();
    for (name, node) in table.0.iter().filter(|(_, node)| !node.is_null()) {
        if FIELDS.iter().take(TOGETHER).any(|field| field.name == name) {
            read_field(name, node, &mut given, &mut own);
        }
    }
    faults.extend(own.into_iter().map(|fault| FieldFault {
        field: format!("together.{}", fault.field),
        ..fault
    }));
    PolicyFields::default().with(&given).limits
}
