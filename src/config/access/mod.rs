//! `[access]` and `[state]`: keys, policies, tokens and the state store.
//!
//! Secrets are hashed when they are read; neither a plan nor a finding has one. Keys are read by
//! code of their own, since there may be 100,000 of them.
//!
//! Contract: docs/contract/access.md#4, docs/contract/access.md#5, docs/contract/access.md#16

mod algorithm;
mod api;
mod digest;
mod entry;
mod file;
mod jwks;
mod jwt;
mod output_field;
mod policy;
#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHasher;

use super::bounds::secs;
use super::env::Env;
use super::section::Section;
use super::values::quoted;

pub(crate) use algorithm::JwtAlgorithm;
pub(crate) use api::{api_duration, api_key};
pub(crate) use digest::{KeyDigest, is_secret};
pub(crate) use entry::{ANONYMOUS, KeyFields, KeyPlan, KeySource, MAX_KEYS};
pub(crate) use file::{FileStamp, KeysFilePlan, file_stamp};
#[cfg(test)]
pub(crate) use jwks::SetFault;
pub(crate) use jwks::{KeySet, MissingKey, PublicKey, SET_BYTES_MAX, read_set};
pub(crate) use jwt::{JwksSource, JwtPlan};
pub(crate) use output_field::{OutputField, OutputKey};
pub(crate) use policy::{
    AdminRight, DEFAULT_POLICY, Limits, OutputLimit, PolicyFields, PolicyOverrides, PolicyPlan,
};

use entry::{EntryContext, Taken, entry, find_policy, of_secret, table_of};
use file::{FileContext, FileKeys};

/// The name of the key in `OLLA_ADMIN_KEY`.
pub(crate) const ENV_ADMIN: &str = "env-admin";

/// The variable with an admin key, which commands send too.
pub(crate) const ADMIN_KEY_VARIABLE: &str = "OLLA_ADMIN_KEY";

/// The place of its key among those of the configuration.
const ADMIN_KEY_PLACE: usize = u32::MAX as usize;

/// The values that clients send because they must send something.
const PLACEHOLDERS: [&str; 7] = [
    "EMPTY",
    "none",
    "not-needed",
    "no-key",
    "ollama",
    "lm-studio",
    "sk-no-key-required",
];

/// The most placeholders.
const MAX_PLACEHOLDERS: usize = 100;

/// The most findings about the keys of a configuration.
const MAX_FINDINGS: usize = 100;

/// `[access]`: who may use the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAccessPlan {
    /// If false, everybody may, and nothing else of this counts.
    pub enabled: bool,
    /// The keys of the configuration and the environment; empty if access is off. Names and hashes
    /// are unique over these and the file's.
    pub keys: Arc<Vec<Arc<KeyPlan>>>,
    /// `access.keys_file`, if access is on.
    pub keys_file: Option<KeysFilePlan>,
    /// The policies by name, among them `default`.
    pub policies: Arc<Vec<PolicyPlan>>,
    /// The policy of requests without a credential, without `admin`; `None` = they are refused.
    pub anonymous: Option<Arc<str>>,
    /// Values that are no credentials.
    pub placeholders: Vec<String>,
    /// The output that is assumed of a request that states none.
    pub default_output_tokens: u64,
    /// Refused credentials a minute and address; 0 = no limit.
    pub max_refused_per_minute: u32,
    /// How long a session of the dashboard lasts.
    pub session_ttl: Duration,
    /// `[access.jwt]`.
    pub jwt: Option<JwtPlan>,
}

impl KeyAccessPlan {
    /// The hashes of the placeholders.
    pub(super) fn placeholder_digests(&self) -> impl Iterator<Item = KeyDigest> {
        let texts = self.placeholders.iter();
        texts.map(|text| KeyDigest::of(text.as_bytes()))
    }

    /// The policy of this name.
    pub fn policy(&self, name: &str) -> Option<&PolicyPlan> {
        self.policies.iter().find(|policy| *policy.name == *name)
    }
}

/// `[state]`: the state store and the ledger (docs/contract/access.md#13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePlan {
    /// The file of the store; `None` = nothing outlives the process.
    pub path: Option<StatePath>,
    /// Days after which usage is deleted, 1 to 3650.
    pub retention_days: u32,
}

/// `state.path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePath {
    /// The file.
    pub path: PathBuf,
    /// The path as it was written, for messages.
    pub shown: PathBuf,
}

/// Reads `[state]`.
pub(super) fn state(s: &mut Section<'_, '_>) -> StatePlan {
    let path = s
        .key(
            "path",
            "SQLite file with keys of the admin API, quotas and usage; \"\" = none.",
        )
        .env("OLLA_STATE_PATH")
        .restart()
        .text("");
    let path = (!path.is_empty()).then(|| StatePath {
        path: s.folder().join(&path),
        shown: PathBuf::from(path),
    });
    StatePlan {
        path,
        retention_days: s
            .key("retention_days", "Days after which usage is deleted.")
            .int(400, 1, 3650),
    }
}

/// What the section is read with.
#[derive(Clone, Copy)]
pub(super) struct AccessInputs<'a> {
    /// The environment.
    pub env: &'a Env,
    /// The keys of the keys file that are in force, by name: those that it still has are shared.
    pub file_keys: &'a [Arc<KeyPlan>],
}

/// Reads `[access]`.
pub(super) fn access(
    root: &mut Section<'_, '_>,
    inputs: &AccessInputs<'_>,
    state: &StatePlan,
) -> KeyAccessPlan {
    let admin_key = root
        .variable(
            ADMIN_KEY_VARIABLE,
            "An admin key named env-admin, at least 16 bytes; commands send it.",
        )
        .secret()
        .text_optional();
    let mut s = root.section("access");
    let mut plan = settings(&mut s);
    plan.policies = Arc::new(policy::policies(&mut s));
    plan.anonymous = anonymous(&mut s, &plan.policies);
    plan.jwt = jwt::jwt(&mut s.section("jwt"), &plan.policies);
    keys(&mut s, &mut plan, inputs, admin_key.as_deref());
    if plan.enabled {
        usable(&mut s, &plan, state);
    }
    plan
}

/// The keys of the section itself.
fn settings(s: &mut Section<'_, '_>) -> KeyAccessPlan {
    let enabled = s
        .key("enabled", "Require a key of every client.")
        .env("OLLA_ACCESS_ENABLED")
        .bool(false);
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let placeholders = s
        .key(
            "placeholders",
            "Values that count as no credential; clients that must send one send these.",
        )
        .texts(&PLACEHOLDERS, "a string that is not empty", text);
    if placeholders.len() > MAX_PLACEHOLDERS {
        let message = format!(
            "expected at most {MAX_PLACEHOLDERS} entries, got {}",
            placeholders.len()
        );
        s.refuse("placeholders", message);
    }
    let doc = "Output that is assumed of a request that states none, for quotas.";
    let default_output_tokens = s.key("default_output_tokens", doc).int(1024, 1, 1_000_000);
    let doc = "Refused keys a minute and address, after which more get 429; 0 = no limit.";
    let max_refused_per_minute = s.key("max_refused_per_minute", doc).int(60, 0, 100_000);
    let session_ttl = s
        .key(
            "session_ttl",
            "How long a login of the dashboard lasts: 1m to 720h.",
        )
        .duration(secs(12 * 3600));
    if !(secs(60)..=secs(720 * 3600)).contains(&session_ttl) && !s.is_faulty("session_ttl") {
        s.expected("session_ttl", "\"1m\" to \"720h\"");
    }
    KeyAccessPlan {
        enabled,
        keys: Arc::default(),
        keys_file: None,
        policies: Arc::default(),
        anonymous: None,
        placeholders,
        default_output_tokens,
        max_refused_per_minute,
        session_ttl,
        jwt: None,
    }
}

fn anonymous(s: &mut Section<'_, '_>, policies: &[PolicyPlan]) -> Option<Arc<str>> {
    let doc = "The policy of requests without a key; \"\" refuses them.";
    let name = s
        .key("anonymous", doc)
        .env("OLLA_ACCESS_ANONYMOUS")
        .text("");
    if name.is_empty() {
        return None;
    }
    match find_policy(policies, &name) {
        Ok(policy) if policy.fields.admin == AdminRight::None => Some(Arc::clone(&policy.name)),
        Ok(_) => {
            s.expected("anonymous", "a policy without admin");
            None
        }
        Err(message) => {
            s.refuse("anonymous", message);
            None
        }
    }
}

/// Reads the keys of the configuration, the environment and the file. Secrets are not looked at, and
/// no file is read, while access is off.
fn keys(
    s: &mut Section<'_, '_>,
    plan: &mut KeyAccessPlan,
    inputs: &AccessInputs<'_>,
    admin_key: Option<&str>,
) {
    entry::document(&mut s.item("keys", None));
    let file = s
        .key(
            "keys_file",
            "TOML file with [[keys]] entries; changes are followed.",
        )
        .env("OLLA_ACCESS_KEYS_FILE")
        .text("");
    let items = s.items("keys").unwrap_or_default();
    let admin_key = admin_key.and_then(|secret| env_admin(s, plan, secret));
    if !plan.enabled {
        return;
    }
    let placeholders: Vec<_> = plan.placeholder_digests().collect();
    let folder = s.folder();
    let context = EntryContext {
        env: inputs.env,
        folder: &folder,
        policies: &plan.policies,
        placeholders: &placeholders,
        source: KeySource::Config,
    };
    let place = |at: usize| match at {
        ADMIN_KEY_PLACE => ADMIN_KEY_VARIABLE.to_owned(),
        at => format!("access.keys[{at}]"),
    };
    let mut taken = Taken::default();
    let mut keys = Vec::with_capacity(items.len() + 1);
    let mut found = 0;
    if items.len() > MAX_KEYS {
        let message = format!("expected at most {MAX_KEYS} keys, got {}", items.len());
        s.refuse("keys", message);
    }
    for (at, node) in items.into_iter().take(MAX_KEYS) {
        let Some(table) = table_of(node).filter(|_| found < MAX_FINDINGS) else {
            continue;
        };
        let mut faults = Vec::new();
        let key = entry(table, node.line, context, &mut faults).map(Arc::new);
        if let Some(key) = &key {
            taken.take(key, (at, node.line), &place, &mut faults);
        }
        found += faults.len();
        s.refuse_fields(&format!("keys[{at}]"), faults);
        keys.extend(key);
    }
    if let Some(key) = admin_key.map(Arc::new) {
        let mut faults = Vec::new();
        taken.take(&key, (ADMIN_KEY_PLACE, 0), &place, &mut faults);
        for fault in faults {
            s.refuse("keys", format!("{}: {}", ADMIN_KEY_VARIABLE, fault.message));
        }
        keys.push(key);
    }
    let mut hasher = DefaultHasher::new();
    keys.hash(&mut hasher);
    plan.policies.hash(&mut hasher);
    s.fingerprint("keys", &hasher.finish().to_string());
    plan.keys = Arc::new(keys);
    plan.keys_file = keys_file(s, plan, &file, inputs, &placeholders);
}

/// The key of `OLLA_ADMIN_KEY`.
fn env_admin(s: &mut Section<'_, '_>, plan: &KeyAccessPlan, secret: &str) -> Option<KeyPlan> {
    let digest = match of_secret(secret) {
        Ok(digest) if !plan.placeholder_digests().any(|other| other == digest) => digest,
        Ok(_) => {
            let message = "expected a secret that is not in access.placeholders, got (hidden)";
            s.refuse_variable(ADMIN_KEY_VARIABLE, message);
            return None;
        }
        Err(message) => {
            s.refuse_variable(ADMIN_KEY_VARIABLE, message);
            return None;
        }
    };
    let policy = plan.policy(DEFAULT_POLICY)?;
    let admin = PolicyOverrides {
        admin: Some(AdminRight::Full),
        ..PolicyOverrides::default()
    };
    Some(KeyPlan {
        fields: KeyFields {
            overrides: Some(Arc::new(admin)),
            ..KeyFields::new(Arc::from(ENV_ADMIN), Arc::clone(&policy.name))
        },
        digest,
        source: KeySource::Env,
    })
}

fn keys_file(
    s: &mut Section<'_, '_>,
    plan: &KeyAccessPlan,
    file: &str,
    inputs: &AccessInputs<'_>,
    placeholders: &[KeyDigest],
) -> Option<KeysFilePlan> {
    if file.is_empty() {
        return None;
    }
    let (path, shown) = (s.folder().join(file), Path::new(file));
    let context = FileContext {
        env: inputs.env,
        policies: &plan.policies,
        placeholders,
        others: &plan.keys,
        known: inputs.file_keys,
    };
    // What is written from now on makes another version.
    let stamp = file_stamp(&path);
    let keys = match file::read(&path, shown, &context) {
        Ok((keys, warnings)) => {
            s.find_all(warnings);
            keys
        }
        Err(mut findings) => {
            // The key itself is named where the file as a whole is at fault.
            for finding in &mut findings {
                if finding.key.is_empty() {
                    finding.key = "access.keys_file".to_owned();
                }
            }
            s.find_all(findings);
            Vec::new()
        }
    };
    let mut hasher = FxHasher::default();
    keys.hash(&mut hasher);
    s.fingerprint("keys_file", &hasher.finish().to_string());
    Some(KeysFilePlan {
        path,
        shown: shown.to_path_buf(),
        keys: FileKeys::new(keys),
        stamp,
    })
}

/// Refuses access that nobody has, and warns of what an operator may have overlooked.
fn usable(s: &mut Section<'_, '_>, plan: &KeyAccessPlan, state: &StatePlan) {
    let is_keyed = !plan.keys.is_empty()
        || plan.keys_file.is_some()
        || plan.jwt.is_some()
        || plan.anonymous.is_some()
        || state.path.is_some();
    let faulty = ["keys", "keys_file", "jwt", "anonymous", "policies"];
    if !is_keyed && !faulty.iter().any(|key| s.is_faulty(key)) {
        let message = "every request would be refused; there is no key, keys_file, jwt, anonymous \
                       or state.path";
        s.refuse("enabled", message);
    }
    let from_file = plan.keys_file.as_ref().map(|file| file.keys.get());
    let from_file = from_file.unwrap_or_default();
    let mut keys = plan.keys.iter().chain(from_file.iter());
    let is_by_token = plan.jwt.as_ref().is_some_and(|jwt| jwt.allow_admin);
    let has_admin = is_by_token || keys.any(|key| key.is_admin(&plan.policies));
    if !has_admin && state.path.is_none() && !faulty.iter().any(|key| s.is_faulty(key)) {
        let message = format!(
            "no key has admin, so /internal/ is closed to all; set admin in a key, or {}",
            ADMIN_KEY_VARIABLE
        );
        s.warn("keys", message);
    }
    if state.path.is_none() {
        let has_window = |limits: &Limits| limits.tokens_per_day > 0 || limits.tokens_per_month > 0;
        for policy in plan.policies.iter() {
            if has_window(&policy.fields.limits) || has_window(&policy.together) {
                let message = format!(
                    "{} has a quota by day or month, which begins anew at each start without \
                     state.path",
                    quoted(&policy.name)
                );
                s.warn("policies", message);
                break;
            }
        }
    }
}
