//! The routes for keys: what is changed is written first, then in force, then said.
//!
//! Contract: docs/contract/access.md#11.1

use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use serde_json::Value as Json;

use super::{StoreLoop, unavailable, windows};
use crate::access::{Access, AccessKeeper, Key, LimitTime, StoredKey};
use crate::clock::unix_millis;
use crate::config::{KeySource, PolicyOverrides, StatePath};
use crate::dialects::Error;
use crate::log::{Level, Logger, Value, events};
use crate::shared::{StateAsk, ToControl};
use crate::state::{
    AdminAsk, AdminReply, ChangeContext, KeyChange, KeyRecord, NameState, Store, StoreFault,
    key_object, keys_page, not_found, policies_page, stored_key,
};

/// Puts the keys of the store in force, goes on with its windows of quotas, and adopts its secret
/// for prompt caches. A key that cannot be read is left aside.
///
/// # Errors
/// A message with the key of the configuration, the path and the reason.
pub(crate) fn load_keys(
    store: &Store,
    path: &StatePath,
    access: &AccessKeeper,
    logger: &Logger,
) -> Result<(), String> {
    let mut keys = Vec::new();
    let mut last_used = Vec::new();
    let mut shared = SharedParts::default();
    let take = |record: KeyRecord| match stored_key(&record) {
        Ok(mut key) => {
            shared.share(&mut key);
            last_used.extend(record.last_used_ms.map(|at_ms| (keys.len(), at_ms)));
            keys.push(key);
        }
        Err(error) => {
            let fields = [
                ("key", record.name.as_str().into()),
                ("error", Value::Str(&error)),
            ];
            logger.emit(Level::Warn, events::KEY_ASIDE, &fields);
        }
    };
    store
        .each_key(take)
        .map_err(|fault| super::refusal(path, &fault))?;
    if !keys.is_empty() {
        log_loaded(logger, keys.len());
    }
    let keys = Arc::new(keys);
    access.change(|sources| sources.stored = Arc::clone(&keys));
    let now_ms = unix_millis(SystemTime::now());
    for (at, at_ms) in last_used {
        if let Some(key) = keys.get(at) {
            access.counters_of(&key.plan.name, now_ms).used(at_ms);
        }
    }
    let windows = store
        .windows()
        .map_err(|fault| super::refusal(path, &fault))?;
    windows::restore(access, &windows, now_ms);
    let salt = store.secret(CACHE_SALT, random);
    access.set_salt(&salt.map_err(|fault| super::refusal(path, &fault))?);
    Ok(())
}

/// What many stored keys have alike, and share.
#[derive(Debug, Default)]
struct SharedParts {
    policies: HashSet<Arc<str>>,
    overrides: HashSet<Arc<PolicyOverrides>>,
}

impl SharedParts {
    /// Replaces parts of a key by the same ones of keys before it.
    fn share(&mut self, key: &mut StoredKey) {
        let Some(plan) = Arc::get_mut(&mut key.plan) else {
            return;
        };
        let fields = &mut plan.fields;
        shared(&mut self.policies, &mut fields.policy);
        if let Some(own) = &mut fields.overrides {
            shared(&mut self.overrides, own);
        }
    }
}

fn shared<T: ?Sized + Eq + Hash>(known: &mut HashSet<Arc<T>>, part: &mut Arc<T>) {
    match known.get(part) {
        Some(same) => *part = Arc::clone(same),
        None => {
            known.insert(Arc::clone(part));
        }
    }
}

/// Under which name the store keeps the secret of `cache_salt` (docs/contract/access.md#15).
const CACHE_SALT: &str = "cache_salt";

/// 32 random bytes.
fn random() -> Result<Vec<u8>, StoreFault> {
    let mut bytes = vec![0; 32];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(bytes)
}

fn log_loaded(logger: &Logger, keys: usize) {
    let fields = [
        ("source", Value::Str(KeySource::Store.as_str())),
        ("keys", Value::Num(keys as u64)),
        ("added", Value::Num(keys as u64)),
        ("removed", Value::Num(0)),
        ("changed", Value::Num(0)),
    ];
    logger.emit(Level::Info, events::KEYS_LOADED, &fields);
}

/// The stored keys that were left aside when that was looked at last.
#[derive(Debug, Default)]
pub(super) struct Aside {
    names: BTreeSet<Arc<str>>,
    /// The state that was looked at; it may be gone.
    looked: Weak<Access>,
}

impl Aside {
    /// Warns of keys that are newly left aside: another source has their name or secret, or their
    /// policy is gone.
    pub(super) fn look(&mut self, access: &AccessKeeper, logger: &Logger) {
        let newest = access.newest();
        if std::ptr::eq(self.looked.as_ptr(), Arc::as_ptr(&newest)) {
            return;
        }
        self.looked = Arc::downgrade(&newest);
        let aside = newest.keys.aside();
        for name in aside.iter().filter(|name| !self.names.contains(*name)) {
            let error = "another source has its name or its secret, or its policy is gone";
            let fields = [("key", Value::Str(name)), ("error", Value::Str(error))];
            logger.emit(Level::Warn, events::KEY_ASIDE, &fields);
        }
        self.names = aside.iter().cloned().collect();
    }
}

impl StoreLoop {
    /// Responds to a request about keys or policies.
    pub(super) fn serve_keys(&mut self, ask: &StateAsk) -> Result<AdminReply, Error> {
        let access = self.common.access.newest();
        let now = SystemTime::now();
        match &ask.wanted {
            AdminAsk::Keys(query) => {
                let times = (now, self.limit_time());
                Ok(json(200, keys_page(&access, query, times)))
            }
            AdminAsk::Policies => Ok(json(200, policies_page(&access, now))),
            AdminAsk::Key(name) => match access.keys.named(name) {
                Some(key) => Ok(object(200, key, self.limit_time(), None)),
                None => Err(not_found(name)),
            },
            _ => {
                let changed = self.change_keys(&ask.wanted);
                self.log_action(ask, &changed);
                changed
            }
        }
    }

    /// Now, on the clocks of limits.
    fn limit_time(&self) -> LimitTime {
        LimitTime {
            micros: self.common.nanos(Instant::now()) / 1_000,
            unix_ms: unix_millis(SystemTime::now()),
        }
    }

    /// Makes, changes or deletes a key.
    fn change_keys(&mut self, wanted: &AdminAsk) -> Result<AdminReply, Error> {
        if !self.book.has_store() {
            return Err(not_supported());
        }
        let (access, sources) = (self.common.access.newest(), self.common.access.sources());
        let context = ChangeContext {
            access: &access,
            sources: &sources,
            now_ms: unix_millis(SystemTime::now()),
        };
        let (change, status) = match wanted {
            AdminAsk::Create(body) => (context.create(body)?, 201),
            AdminAsk::Change(name, body) => {
                (context.change(self.record(&context, name)?, body)?, 200)
            }
            AdminAsk::Rotate(name, body) => {
                (context.rotate(self.record(&context, name)?, body)?, 200)
            }
            AdminAsk::Delete { name, cut } => {
                self.expect_stored(&context, name)?;
                drop((access, sources));
                return self.delete(name, *cut);
            }
            _ => return Err(Error::not_found()),
        };
        // If they were held, the change would copy the list of keys.
        drop((access, sources));
        self.put(&change, status)
    }

    /// The key of this name, if it can be changed.
    fn record(&mut self, context: &ChangeContext<'_>, name: &str) -> Result<KeyRecord, Error> {
        self.expect_stored(context, name)?;
        match self.book.key(name) {
            Ok(Some(record)) => Ok(record),
            Ok(None) => Err(not_found(name)),
            Err(fault) => {
                self.note_fault(&fault);
                Err(unavailable(&fault))
            }
        }
    }

    fn expect_stored(&self, context: &ChangeContext<'_>, name: &str) -> Result<(), Error> {
        match context.state_of(name) {
            NameState::Stored => Ok(()),
            NameState::Unknown => Err(not_found(name)),
            NameState::ReadOnly(source) => {
                let source = match source {
                    KeySource::Env => "the environment",
                    KeySource::File => "access.keys_file",
                    KeySource::Config | KeySource::Store | KeySource::Jwt => "the configuration",
                };
                let message = format!("the key '{name}' belongs to {source}; change it there");
                Err(Error::new(409, "conflict", "KEY_READ_ONLY", message))
            }
        }
    }

    fn put(&mut self, change: &KeyChange, status: u16) -> Result<AdminReply, Error> {
        let record = &change.record;
        let name = record.name.as_str();
        let key = stored_key(record).map_err(|error| {
            let message = format!("the fields of the key '{name}' are damaged: {error}");
            Error::new(500, "internal_error", "INTERNAL_ERROR", message)
        })?;
        self.write_key(name, Some(record))?;
        self.in_force(name, Some(key));
        let access = self.common.access.newest();
        let secret = change.secret.as_ref().map(|secret| secret.expose());
        match access.keys.named(name) {
            Some(key) => Ok(object(status, key, self.limit_time(), secret)),
            // Another source took the name or the secret in the meantime, or the policy went.
            None => {
                let message = format!("the key '{name}' is stored, but left aside");
                Err(Error::new(409, "conflict", "KEY_EXISTS", message))
            }
        }
    }

    fn delete(&mut self, name: &str, cut: bool) -> Result<AdminReply, Error> {
        self.write_key(name, None)?;
        self.in_force(name, None);
        if cut {
            self.common.access.cut(name);
        }
        Ok(AdminReply {
            status: 204,
            content_type: "",
            location: None,
            body: Bytes::new(),
        })
    }

    /// Writes a key, or deletes the one of this name.
    fn write_key(&mut self, name: &str, record: Option<&KeyRecord>) -> Result<(), Error> {
        match self.book.change_key(name, record) {
            None => Err(not_supported()),
            Some(Ok(())) => Ok(()),
            Some(Err(fault)) => {
                self.note_fault(&fault);
                Err(unavailable(&fault))
            }
        }
    }

    /// Puts a stored key in force on every core, or takes it out of force.
    fn in_force(&self, name: &str, key: Option<StoredKey>) {
        self.common.access.change(|sources| {
            let keys = Arc::make_mut(&mut sources.stored);
            let at = keys.binary_search_by(|key| (*key.plan.name).cmp(name));
            match (at, key) {
                (Ok(at), Some(key)) => {
                    if let Some(place) = keys.get_mut(at) {
                        *place = key;
                    }
                }
                (Err(at), Some(key)) => keys.insert(at, key),
                (Ok(at), None) => {
                    keys.remove(at);
                }
                (Err(_), None) => {}
            }
        });
        // A control thread that is this busy publishes the keys with its next snapshot.
        let publish = |confirmation| ToControl::KeysInForce { confirmation };
        self.control.send_confirmed(publish);
    }

    /// Notes that the store has failed.
    pub(super) fn note_fault(&mut self, fault: &StoreFault) {
        if self.book.note_failure(Instant::now()) {
            self.log_failure(fault);
        }
        self.show();
    }

    fn log_action(&self, ask: &StateAsk, changed: &Result<AdminReply, Error>) {
        let created;
        let (action, target) = match &ask.wanted {
            AdminAsk::Create(body) => {
                created = serde_json::from_slice::<Json>(body).unwrap_or_default();
                let name = created.get("name").and_then(Json::as_str);
                ("key.create", name.unwrap_or(""))
            }
            AdminAsk::Change(name, _) => ("key.change", name.as_str()),
            AdminAsk::Rotate(name, _) => ("key.rotate", name.as_str()),
            AdminAsk::Delete { name, .. } => ("key.delete", name.as_str()),
            AdminAsk::Keys(_) | AdminAsk::Key(_) | AdminAsk::Policies | AdminAsk::Usage(_) => {
                return;
            }
        };
        let target: String = target.chars().take(64).collect();
        let client = ask.client.0.to_string();
        let fields = [
            ("key", Value::Str(&ask.actor)),
            ("action", Value::Str(action)),
            ("target", Value::Str(&target)),
            (
                "result",
                Value::Str(changed.as_ref().map_or_else(|error| error.code, |_| "ok")),
            ),
            ("client_ip", Value::Str(&client)),
        ];
        self.logger.emit(Level::Info, events::ADMIN_ACTION, &fields);
    }
}

fn not_supported() -> Error {
    let message = "keys can only be changed with a state store; set state.path";
    Error::new(501, "not_implemented", "NOT_SUPPORTED", message)
}

fn object(status: u16, key: &Key, now: LimitTime, secret: Option<&str>) -> AdminReply {
    let mut object = key_object(key, now);
    if let Some(secret) = secret {
        object.insert("key".to_owned(), Json::from(secret));
    }
    let location = (status == 201).then(|| format!("/internal/keys/{}", key.name));
    AdminReply {
        location,
        ..json(status, Json::Object(object).to_string().into_bytes())
    }
}

fn json(status: u16, body: Vec<u8>) -> AdminReply {
    AdminReply {
        status,
        content_type: "application/json",
        location: None,
        body: Bytes::from(body),
    }
}
