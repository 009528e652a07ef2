//! Keys: one table of `[[access.keys]]`, of `[[keys]]` in a keys file, or of the admin API.
//!
//! Contract: docs/contract/access.md#4.2

use std::fmt::Display;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use rustc_hash::{FxBuildHasher, FxHashMap};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::env::{Env, expand};
use super::super::finding::FieldFault;
use super::super::kinds::BOOLEAN;
use super::super::nearest::{hint, nearest};
use super::super::reader::KeyDoc;
use super::super::section::Section;
use super::super::tree::{ConfigNode, ConfigTable, ConfigValue};
use super::super::values::quoted;
use super::digest::{KeyDigest, is_secret};
use super::policy::{
    self, AdminRight, DEFAULT_POLICY, NAME, PolicyOverrides, PolicyPlan, flag, is_name, read_field,
};

/// The most keys of all sources together.
pub(crate) const MAX_KEYS: usize = 100_000;

/// The longest note, in bytes.
const MAX_NOTE: usize = 256;

/// The name under which requests without a credential are counted.
pub(crate) const ANONYMOUS: &str = "anonymous";

/// What a message shows in the place of a secret or a hash.
const HIDDEN: &str = "(hidden)";

/// Where a key comes from (docs/contract/access.md#4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeySource {
    /// `[[access.keys]]`.
    Config,
    /// `OLLA_ADMIN_KEY`.
    Env,
    /// `access.keys_file`.
    File,
    /// The admin API.
    Store,
    /// A token issuer.
    Jwt,
}

impl KeySource {
    /// Every source.
    pub const ALL: [Self; 5] = [Self::Config, Self::Env, Self::File, Self::Store, Self::Jwt];

    /// The word that logs and pages show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Env => "env",
            Self::File => "file",
            Self::Store => "store",
            Self::Jwt => "jwt",
        }
    }
}

/// The fields of a key but its secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyFields {
    /// Its name.
    pub name: Arc<str>,
    /// The name of its policy, which exists.
    pub policy: Arc<str>,
    /// Whether it may be used.
    pub enabled: bool,
    /// Milliseconds since 1970 from which it may no longer be used; `None` = never.
    pub expires: Option<NonZeroU64>,
    /// A remark of its operator.
    pub note: Box<str>,
    /// What it has in place of its policy's fields.
    pub overrides: Option<Arc<PolicyOverrides>>,
}

impl KeyFields {
    /// A key that has nothing of its own but its name: it is enabled, never expires, and has the
    /// fields of its policy.
    pub fn new(name: Arc<str>, policy: Arc<str>) -> Self {
        Self {
            name,
            policy,
            enabled: true,
            expires: None,
            note: Box::default(),
            overrides: None,
        }
    }

    /// Milliseconds since 1970 from which the key may no longer be used; `None` = never.
    pub fn expires_ms(&self) -> Option<u64> {
        self.expires.map(NonZeroU64::get)
    }
}

/// A key as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyPlan {
    /// All but the secret.
    pub fields: KeyFields,
    /// What is kept of the secret.
    pub digest: KeyDigest,
    /// Where it comes from.
    pub source: KeySource,
}

// With its counts of references it takes 128 bytes, of which there may be 100,000.
const _: () = assert!(size_of::<KeyPlan>() == 112);

impl Deref for KeyPlan {
    type Target = KeyFields;

    fn deref(&self) -> &KeyFields {
        &self.fields
    }
}

impl KeyPlan {
    /// Whether the key is an operator's.
    pub(super) fn is_admin(&self, policies: &[PolicyPlan]) -> bool {
        let own = self.fields.overrides.as_ref().and_then(|given| given.admin);
        let policy = || {
            policies
                .iter()
                .find(|policy| policy.name == self.fields.policy)
        };
        let admin = own.or_else(|| policy().map(|policy| policy.fields.admin));
        admin.is_some_and(|admin| admin != AdminRight::None)
    }
}

/// What the entries of keys are read with.
#[derive(Clone, Copy)]
pub(super) struct EntryContext<'a> {
    pub(super) env: &'a Env,
    /// Where relative paths begin.
    pub(super) folder: &'a Path,
    pub(super) policies: &'a [PolicyPlan],
    /// `access.placeholders`, hashed.
    pub(super) placeholders: &'a [KeyDigest],
    pub(super) source: KeySource,
}

/// The names and hashes that are taken, each with the number of the key that has it.
#[derive(Default)]
pub(super) struct Taken {
    names: FxHashMap<ByName, u32>,
    digests: FxHashMap<ByDigest, u32>,
}

/// A key that is looked up by its name.
struct ByName(Arc<KeyPlan>);

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ByName {}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

/// A key that is looked up by its hash.
struct ByDigest(Arc<KeyPlan>);

impl PartialEq for ByDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
    }
}

impl Eq for ByDigest {}

impl Hash for ByDigest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.digest.hash(state);
    }
}

impl Taken {
    /// With room for so many keys.
    pub(super) fn with_capacity(keys: usize) -> Self {
        Self {
            names: FxHashMap::with_capacity_and_hasher(keys, FxBuildHasher),
            digests: FxHashMap::with_capacity_and_hasher(keys, FxBuildHasher),
        }
    }

    /// Takes the name and the hash of the key with this number. A fault names the key that has one
    /// of them already, as `place` describes it.
    pub(super) fn take(
        &mut self,
        key: &Arc<KeyPlan>,
        (number, line): (usize, usize),
        place: &dyn Fn(usize) -> String,
        faults: &mut Vec<FieldFault>,
    ) {
        let (by_name, by_digest) = (ByName(Arc::clone(key)), ByDigest(Arc::clone(key)));
        if let Some(first) = self.names.get(&by_name) {
            let (first, name) = (place(*first as usize), quoted(&key.name));
            let message = format!("expected a name other than that of {first}, got {name}");
            return faults.push(FieldFault::new("name", line, message));
        }
        if let Some(first) = self.digests.get(&by_digest) {
            let first = place(*first as usize);
            let message = format!("expected a secret other than that of {first}, got {HIDDEN}");
            return faults.push(FieldFault::new("", line, message));
        }
        // There are at most 100,000 keys, and the one of the environment has the greatest number.
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.names.insert(by_name, number);
        self.digests.insert(by_digest, number);
    }
}

/// A key whose table is being read.
struct Reading<'a> {
    context: EntryContext<'a>,
    table: &'a ConfigTable,
    line: usize,
    faults: &'a mut Vec<FieldFault>,
}

/// Reads one key with its secret. Faults are added to the list; with one the key is left out.
pub(super) fn entry(
    table: &ConfigTable,
    line: usize,
    context: EntryContext<'_>,
    faults: &mut Vec<FieldFault>,
) -> Option<KeyPlan> {
    let before = faults.len();
    let mut reading = Reading {
        context,
        table,
        line,
        faults,
    };
    let fields = reading.fields();
    let digest = reading.digest();
    let is_sound = faults.len() == before;
    Some(KeyPlan {
        fields: fields?,
        digest: digest?,
        source: context.source,
    })
    .filter(|_| is_sound)
}

/// Reads all of a key but its secret. Faults are added to the list.
pub(super) fn fields(
    table: &ConfigTable,
    context: EntryContext<'_>,
    faults: &mut Vec<FieldFault>,
) -> Option<KeyFields> {
    let mut reading = Reading {
        context,
        table,
        line: 0,
        faults,
    };
    reading.fields()
}

/// Whether a key may have the field.
pub(super) fn is_field(name: &str) -> bool {
    const OWN: [&str; 8] = [
        "name", "hash", "key", "key_file", "policy", "enabled", "expires", "note",
    ];
    OWN.contains(&name) || policy::FIELDS.iter().any(|field| field.name == name)
}

impl Reading<'_> {
    fn fault(&mut self, field: &str, message: impl Into<String>) {
        let line = self.table.get(field).map_or(self.line, |node| node.line);
        self.faults.push(FieldFault::new(field, line, message));
    }

    /// The value of a field that a function accepts, or `None`.
    fn take<T>(
        &mut self,
        field: &str,
        expected: impl Display,
        read: impl Fn(&ConfigValue) -> Option<T>,
    ) -> Option<T> {
        let node = self.table.get(field)?;
        let value = read(&node.value);
        if value.is_none() {
            let message = format!("expected {expected}, got {}", node.value.described());
            self.fault(field, message);
        }
        value
    }

    fn fields(&mut self) -> Option<KeyFields> {
        if self.table.get("name").is_none() {
            self.fault("name", "expected a name, but the key is missing");
        }
        let expected = format_args!("{NAME}, other than {ANONYMOUS:?}");
        let name = self.take("name", expected, |value| {
            let text = value.text()?;
            (is_name(text) && text != ANONYMOUS).then(|| Arc::from(text))
        });
        let policy = self.policy();
        let enabled = self.take("enabled", BOOLEAN, flag).unwrap_or(true);
        let expected = "an instant such as \"2026-12-31T00:00:00Z\"";
        let expires = self.take("expires", expected, instant);
        let expected = format_args!("a string of at most {MAX_NOTE} bytes");
        let note = self.take("note", expected, |value| {
            let text = value.text().filter(|text| text.len() <= MAX_NOTE)?;
            Some(Box::from(text))
        });
        let mut given = PolicyOverrides::default();
        let nodes = self.table.0.iter().filter(|(_, node)| !node.is_null());
        for (field, node) in nodes {
            read_field(field, node, &mut given, self.faults);
        }
        Some(KeyFields {
            name: name?,
            policy: policy?,
            enabled,
            expires,
            note: note.unwrap_or_default(),
            overrides: (given != PolicyOverrides::default()).then(|| Arc::new(given)),
        })
    }

    fn policy(&mut self) -> Option<Arc<str>> {
        let text = |value: &ConfigValue| value.text().map(str::to_owned);
        let name = match self.table.get("policy") {
            None => DEFAULT_POLICY.to_owned(),
            Some(_) => self.take("policy", "a string", text)?,
        };
        match find_policy(self.context.policies, &name) {
            Ok(policy) => Some(Arc::clone(&policy.name)),
            Err(message) => {
                self.fault("policy", message);
                None
            }
        }
    }

    /// The hash of the one of `hash`, `key` and `key_file` that is given.
    fn digest(&mut self) -> Option<KeyDigest> {
        let given: Vec<&str> = ["hash", "key", "key_file"]
            .into_iter()
            .filter(|field| self.table.get(field).is_some())
            .collect();
        let [field] = given[..] else {
            let got = if given.is_empty() {
                "none".to_owned()
            } else {
                given.join(" and ")
            };
            let message = format!("expected exactly one of hash, key and key_file, got {got}");
            self.fault(given.first().unwrap_or(&"hash"), message);
            return None;
        };
        let node = self.table.get(field)?;
        let Some(text) = node.value.text() else {
            let message = format!("expected a string, got {}", node.value.kind());
            self.fault(field, message);
            return None;
        };
        let digest = match field {
            "hash" => KeyDigest::parse(text)
                .ok_or_else(|| format!("expected \"sha256:\" and 64 hex digits, got {HIDDEN}")),
            "key" => of_variable(text, self.context.env),
            _ => of_file(text, self.context),
        };
        match digest {
            Ok(digest) if self.context.placeholders.contains(&digest) => {
                let message =
                    format!("expected a secret that is not in access.placeholders, got {HIDDEN}");
                self.fault(field, message);
                None
            }
            Ok(digest) => Some(digest),
            Err(message) => {
                self.fault(field, message);
                None
            }
        }
    }
}

/// The policy of a name in a list that is sorted by name, or the message that there is none.
pub(super) fn find_policy<'p>(
    policies: &'p [PolicyPlan],
    name: &str,
) -> Result<&'p PolicyPlan, String> {
    let at = policies.binary_search_by(|policy| (*policy.name).cmp(name));
    let found = at.ok().and_then(|at| policies.get(at));
    found.ok_or_else(|| {
        let names = policies.iter().map(|policy| &*policy.name);
        let near = nearest(name, names.clone());
        let shown: Vec<&str> = names.take(20).collect();
        let more = if shown.len() < policies.len() {
            ", …"
        } else {
            ""
        };
        let printable: String = name.escape_debug().take(64).collect();
        format!(
            "'{printable}' is no policy; there are: {}{more}{}",
            shown.join(", "),
            hint(near)
        )
    })
}

fn instant(value: &ConfigValue) -> Option<NonZeroU64> {
    let text = match value {
        ConfigValue::Datetime(text) => text,
        other => other.text()?,
    };
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let at_ms = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()?;
    // What ended in the first millisecond of 1970 has ended in the second one too.
    NonZeroU64::new(at_ms.max(1))
}

/// The hash of the secret in a variable: `${VAR}` or `${VAR:-default}` with nothing around it.
fn of_variable(text: &str, env: &Env) -> Result<KeyDigest, String> {
    let is_reference =
        text.starts_with("${") && text.find('}') == Some(text.len().saturating_sub(1));
    if !is_reference {
        return Err(format!(
            "expected ${{VAR}} or ${{VAR:-default}} and nothing around it, got {HIDDEN}; \
             `olla key hash` makes the hash of a secret"
        ));
    }
    let secret = expand(text, env)
        .map_err(|unset| format!("environment variable {} is not set", unset.0))?;
    if secret == text {
        return Err("expected ${VAR} with the name of a variable".to_owned());
    }
    of_secret(&secret)
}

fn of_file(path: &str, context: EntryContext<'_>) -> Result<KeyDigest, String> {
    match std::fs::read_to_string(context.folder.join(path)) {
        Ok(text) => of_secret(text.trim()),
        Err(error) => Err(format!("cannot read {}: {error}", quoted(path))),
    }
}

pub(super) fn of_secret(secret: &str) -> Result<KeyDigest, String> {
    if is_secret(secret.as_bytes()) {
        return Ok(KeyDigest::of(secret.as_bytes()));
    }
    Err(format!(
        "expected a secret of 16 to 256 visible ASCII characters, got {HIDDEN}"
    ))
}

/// Declares the fields of a key, for the reference.
pub(super) fn document(s: &mut Section<'_, '_>) {
    let fields: [(&str, &str, &str, &'static str); 8] = [
        (
            "name",
            NAME,
            "",
            "Unique name; shown in logs, metrics and usage.",
        ),
        (
            "hash",
            "\"sha256:\" and 64 hex digits",
            "",
            "Hash of the secret, as `olla key new` and `olla key hash` print it.",
        ),
        (
            "key",
            "${VAR} or ${VAR:-default}",
            "",
            "In place of hash: the variable that holds the secret.",
        ),
        (
            "key_file",
            "a string",
            "",
            "In place of hash: file with the secret; read at start and on SIGHUP.",
        ),
        (
            "policy",
            "a string",
            "\"default\"",
            "The policy that holds for it.",
        ),
        (
            "enabled",
            BOOLEAN,
            "true",
            "If false, requests with it are refused.",
        ),
        (
            "expires",
            "an instant such as \"2026-12-31T00:00:00Z\"",
            "",
            "From this instant on, requests with it are refused.",
        ),
        (
            "note",
            "a string of at most 256 bytes",
            "\"\"",
            "A remark; has no effect.",
        ),
    ];
    for (path, kind, default, doc) in fields {
        s.document(KeyDoc {
            path: path.to_owned(),
            kind: kind.to_owned(),
            default: default.to_owned(),
            doc,
            ..KeyDoc::EMPTY
        });
    }
    policy::document(s);
}

/// The table of a key and its line.
pub(super) fn table_of(node: &ConfigNode) -> Option<&ConfigTable> {
    match &node.value {
        ConfigValue::Table(table) => Some(table),
        _ => None,
    }
}
