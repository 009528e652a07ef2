//! Changes of stored keys: from a body to the record that is written. Pure but for the random bytes
//! of a new secret.
//!
//! Contract: docs/contract/access.md#11.1

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::super::store::KeyRecord;
use crate::access::{Access, KeySources, NewSecret, StoredKey};
use crate::config::{
    KeyDigest, KeyFields, KeyPlan, KeySource, MAX_KEYS, PolicyPlan, api_duration, api_key,
};
use crate::dialects::Error;
use crate::format;

/// The longest time for which a rotated secret stays valid.
const GRACE_MAX: Duration = Duration::from_secs(720 * 3600);

/// The keys as they are, and the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChangeContext<'a> {
    /// All keys in force.
    pub access: &'a Access,
    /// What they are made of.
    pub sources: &'a KeySources,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

/// A key that is to be written.
#[derive(Debug)]
pub(crate) struct KeyChange {
    /// The key.
    pub record: KeyRecord,
    /// Its secret, if that was made here.
    pub secret: Option<NewSecret>,
}

/// Whether a key of a name can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameState {
    /// It is in the store.
    Stored,
    /// It belongs to another source.
    ReadOnly(KeySource),
    /// There is none.
    Unknown,
}

impl ChangeContext<'_> {
    /// Whether the key of this name can be changed.
    pub(crate) fn state_of(&self, name: &str) -> NameState {
        let stored = &self.sources.stored;
        match self.access.keys.named(name) {
            Some(key) if key.source != KeySource::Store => NameState::ReadOnly(key.source),
            Some(_) => NameState::Stored,
            // It may be left aside, because of its secret or its policy.
            None if stored.iter().any(|key| *key.plan.name == *name) => NameState::Stored,
            None => NameState::Unknown,
        }
    }

    /// A new key.
    pub(crate) fn create(&self, body: &[u8]) -> Result<KeyChange, Error> {
        let mut object = object(body)?;
        let name = match object.remove("name") {
            Some(Value::String(name)) => name,
            Some(other) => return Err(invalid(format!("name: expected a string, got {other}"))),
            None => return Err(invalid("name: expected a name, but the field is missing")),
        };
        let hash = object.remove("hash");
        self.resolve_ttl(&mut object)?;
        self.fields(&name, &object)?;
        if self.state_of(&name) != NameState::Unknown {
            return Err(taken(format!("there is a key named '{name}' already")));
        }
        if self.access.keys.all().len() + self.access.keys.aside().len() >= MAX_KEYS {
            let message = format!("there are {MAX_KEYS} keys, which is the most there may be");
            return Err(conflict("KEY_LIMIT_REACHED", message));
        }
        let (digest, secret) = self.digest(hash)?;
        let record = KeyRecord {
            name,
            hash: *digest.as_bytes(),
            old: None,
            created_ms: self.now_ms,
            last_used_ms: None,
            fields: text(&object),
        };
        Ok(KeyChange { record, secret })
    }

    /// Other fields of a key.
    pub(crate) fn change(&self, record: KeyRecord, body: &[u8]) -> Result<KeyChange, Error> {
        let mut changes = object(body)?;
        for (field, remedy) in [("name", "make a new key"), ("hash", "rotate the key")] {
            if changes.contains_key(field) {
                let message = format!("{field}: expected no such field in a change; {remedy}");
                return Err(invalid(message));
            }
        }
        self.resolve_ttl(&mut changes)?;
        let mut object = kept(&record)?;
        // A null removes what is there; an unknown field is refused all the same.
        for (field, value) in changes {
            if value.is_null() {
                let probe = Map::from_iter([(field.clone(), Value::Null)]);
                self.fields(&record.name, &probe)?;
                object.shift_remove(&field);
            } else {
                object.insert(field, value);
            }
        }
        self.fields(&record.name, &object)?;
        let fields = text(&object);
        Ok(KeyChange {
            record: KeyRecord { fields, ..record },
            secret: None,
        })
    }

    /// Another secret of a key. The one before stays valid for a time, if that is asked for.
    pub(crate) fn rotate(&self, record: KeyRecord, body: &[u8]) -> Result<KeyChange, Error> {
        let mut object = object(body)?;
        let hash = object.remove("hash");
        let grace = match object.remove("grace") {
            None | Some(Value::Null) => Duration::ZERO,
            Some(given) => {
                let grace = given.as_str().and_then(api_duration);
                grace.filter(|grace| *grace <= GRACE_MAX).ok_or_else(|| {
                    let rule = "a duration from \"0s\" to \"720h\"";
                    invalid(format!("grace: expected {rule}, got {given}"))
                })?
            }
        };
        if let Some(field) = object.keys().next() {
            let field: String = field.escape_debug().take(64).collect();
            return Err(invalid(format!(
                "{field}: expected hash or grace, got an unknown field"
            )));
        }
        let (digest, secret) = self.digest(hash)?;
        let until_ms = self.now_ms.saturating_add(millis(grace));
        let old = (!grace.is_zero()).then_some((record.hash, until_ms));
        let record = KeyRecord {
            hash: *digest.as_bytes(),
            old,
            ..record
        };
        Ok(KeyChange { record, secret })
    }

    /// Replaces `ttl` by the instant that it means.
    fn resolve_ttl(&self, object: &mut Map<String, Value>) -> Result<(), Error> {
        let Some(ttl) = object.remove("ttl").filter(|ttl| !ttl.is_null()) else {
            return Ok(());
        };
        if object.get("expires").is_some_and(|given| !given.is_null()) {
            return Err(invalid("ttl: expected ttl or expires, got both"));
        }
        let duration = ttl.as_str().and_then(api_duration);
        let Some(duration) = duration.filter(|duration| !duration.is_zero()) else {
            let rule = "a duration such as \"720h\"";
            return Err(invalid(format!("ttl: expected {rule}, got {ttl}")));
        };
        let at_ms = self.now_ms.saturating_add(millis(duration));
        let at = format::instant(UNIX_EPOCH + Duration::from_millis(at_ms));
        object.insert("expires".to_owned(), Value::from(at));
        Ok(())
    }

    fn policies(&self) -> &[PolicyPlan] {
        &self.sources.plan.policies
    }

    fn fields(&self, name: &str, object: &Map<String, Value>) -> Result<KeyFields, Error> {
        api_key(name, object, Some(self.policies())).map_err(invalid)
    }

    /// The hash of a key: the one that is given, or that of a secret which is made.
    fn digest(&self, given: Option<Value>) -> Result<(KeyDigest, Option<NewSecret>), Error> {
        let Some(given) = given.filter(|given| !given.is_null()) else {
            let secret = NewSecret::make().map_err(|error| {
                let message = format!("no secret can be made: {error}");
                Error::new(500, "internal_error", "INTERNAL_ERROR", message)
            })?;
            return Ok((KeyDigest::of(secret.expose().as_bytes()), Some(secret)));
        };
        let Some(digest) = given.as_str().and_then(KeyDigest::parse) else {
            let message = "hash: expected \"sha256:\" and 64 hex digits, got (hidden)";
            return Err(invalid(message));
        };
        let mut placeholders = self.access.placeholders.iter();
        if placeholders.any(|text| KeyDigest::of(text.as_bytes()) == digest) {
            let message =
                "hash: expected a secret that is not in access.placeholders, got (hidden)";
            return Err(invalid(message));
        }
        if self.is_digest_taken(&digest) {
            return Err(taken("there is a key with this secret already"));
        }
        Ok((digest, None))
    }

    fn is_digest_taken(&self, digest: &KeyDigest) -> bool {
        let is_old = |key: &StoredKey| key.old.as_ref().is_some_and(|old| old.0 == *digest);
        let mut stored = self.sources.stored.iter();
        // Since 1970, secrets of which the time is over count too.
        self.access.keys.find(digest, 0).is_some()
            || stored.any(|key| key.plan.digest == *digest || is_old(key))
    }
}

/// The key of a record, for the table of keys.
///
/// # Errors
/// What is wrong with its fields: another program has written them.
pub(crate) fn stored_key(record: &KeyRecord) -> Result<StoredKey, String> {
    let object: Map<String, Value> =
        serde_json::from_str(&record.fields).map_err(|error| error.to_string())?;
    let plan = KeyPlan {
        fields: api_key(&record.name, &object, None)?,
        digest: KeyDigest::from_bytes(record.hash),
        source: KeySource::Store,
    };
    let old = record.old;
    Ok(StoredKey {
        plan: Arc::new(plan),
        old: old.map(|(hash, until_ms)| Box::new((KeyDigest::from_bytes(hash), until_ms))),
        created_ms: record.created_ms,
    })
}

fn kept(record: &KeyRecord) -> Result<Map<String, Value>, Error> {
    serde_json::from_str(&record.fields).map_err(|error| {
        let message = format!(
            "the fields of the key '{}' are damaged: {error}",
            record.name
        );
        Error::new(500, "internal_error", "INTERNAL_ERROR", message)
    })
}

fn object(body: &[u8]) -> Result<Map<String, Value>, Error> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(invalid(
            "the body: expected a JSON object, got another value",
        )),
        Err(error) => Err(invalid(format!(
            "the body: expected a JSON object, got other text (line {}, column {})",
            error.line(),
            error.column()
        ))),
    }
}

/// The fields as they are stored: without those that are null.
fn text(object: &Map<String, Value>) -> String {
    let given = object.iter().filter(|(_, value)| !value.is_null());
    let given: Map<String, Value> = given
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    Value::Object(given).to_string()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(400, "bad_request", "INVALID_FIELD", message.into())
}

fn taken(message: impl Into<String>) -> Error {
    conflict("KEY_EXISTS", message)
}

fn conflict(code: &'static str, message: impl Into<String>) -> Error {
    Error::new(409, "conflict", code, message.into())
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
