//! `olla key new`: the entry of a new key, printed or appended to a keys file.
//!
//! Contract: docs/contract/access.md#14

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use crate::cli::{CommandOutput, NewKey};
use crate::config::{KeyDigest, PolicyPlan, api_duration, api_key};
use crate::format;

/// A new secret.
#[derive(Clone, Copy)]
pub(crate) struct Fresh<'a> {
    /// The secret.
    pub secret: &'a str,
    /// The time.
    pub now: SystemTime,
}

/// Prints a new key, or appends it to the file that the arguments name. `policies` are those of the
/// configuration, if one was named.
pub(crate) fn local(
    new: &NewKey,
    fresh: Fresh<'_>,
    policies: Option<&[PolicyPlan]>,
) -> CommandOutput {
    let made = fields(new, Some(fresh.now)).and_then(|fields| {
        api_key(&new.name, &fields, policies)?;
        Ok(fields)
    });
    let fields = match made {
        Ok(fields) => fields,
        Err(message) => return CommandOutput::failed(&message),
    };
    let hash = KeyDigest::of(fresh.secret.as_bytes()).stored();
    let entry = entry(&new.name, &hash, &fields);
    if let Some(path) = &new.file
        && let Err(message) = append(path, &new.name, &entry)
    {
        return CommandOutput::failed(&message);
    }
    if new.remote.json {
        let mut object = Map::new();
        object.insert("name".to_owned(), json!(new.name));
        object.insert("key".to_owned(), json!(fresh.secret));
        object.insert("hash".to_owned(), json!(hash));
        object.insert("policy".to_owned(), json!("default"));
        object.extend(fields);
        return CommandOutput::good(format!("{:#}\n", Value::from(object)));
    }
    if new.file.is_some() {
        return CommandOutput::good(format!("{}\n", fresh.secret));
    }
    CommandOutput::good(format!("{}\n\n{entry}", fresh.secret))
}

/// The body that asks a gateway for the key.
///
/// # Errors
/// A sentence about an argument that is not allowed.
pub(crate) fn remote_body(new: &NewKey) -> Result<Value, String> {
    let mut object = Map::new();
    object.insert("name".to_owned(), json!(new.name));
    object.extend(fields(new, None)?);
    Ok(object.into())
}

/// The fields of the key but its name. With the time, `--ttl` becomes an instant.
fn fields(new: &NewKey, now: Option<SystemTime>) -> Result<Map<String, Value>, String> {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value);
        }
    };
    put("policy", new.policy.as_ref().map(|policy| json!(policy)));
    let admin = new.admin.as_deref().map(|right| match right {
        "read" => json!("read"),
        right => json!(right == "true"),
    });
    put("admin", admin);
    put("expires", new.expires.as_ref().map(|at| json!(at)));
    match (&new.ttl, now) {
        (Some(ttl), Some(now)) => put("expires", Some(json!(expiry(ttl, now)?))),
        (ttl, _) => put("ttl", ttl.as_ref().map(|ttl| json!(ttl))),
    }
    put("note", new.note.as_ref().map(|note| json!(note)));
    for pair in &new.set {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(format!("--set: expected FIELD=VALUE, got {pair:?}"));
        };
        put(name, Some(value_of(name, value)));
    }
    Ok(fields)
}

/// The instant after this time, in whole seconds.
fn expiry(ttl: &str, now: SystemTime) -> Result<String, String> {
    let duration = api_duration(ttl).filter(|duration| !duration.is_zero());
    let at = duration.and_then(|duration| now.checked_add(duration));
    let since = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let Some(since) = since else {
        return Err(format!(
            "--ttl: expected a duration such as 720h, got {ttl:?}"
        ));
    };
    let whole = Duration::from_secs(since.as_secs() + u64::from(since.subsec_nanos() > 0));
    Ok(format::instant(SystemTime::UNIX_EPOCH + whole))
}

/// A value as it is typed: a number, a boolean, a list with commas, else a text.
fn value_of(field: &str, text: &str) -> Value {
    if matches!(field, "models" | "endpoints") && !text.starts_with('[') {
        let items = text.split(',').map(str::trim);
        return items.filter(|item| !item.is_empty()).collect();
    }
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_) | Value::Array(_))) => value,
        _ => Value::from(text),
    }
}

/// The entry of a keys file.
fn entry(name: &str, hash: &str, fields: &Map<String, Value>) -> String {
    let mut out = format!("[[keys]]\nname = {}\nhash = \"{hash}\"\n", toml_text(name));
    for (field, value) in fields {
        let _ = writeln!(out, "{field} = {}", toml_value(value));
    }
    out
}

/// A value of a field, which is neither null nor a table.
fn toml_value(value: &Value) -> String {
    match value {
        Value::String(text) => toml_text(text),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(toml_value).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

fn toml_text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Appends an entry to a keys file: the new version is written beside it and renamed.
fn append(path: &Path, name: &str, entry: &str) -> Result<(), String> {
    let fault = |error: &dyn std::fmt::Display| format!("--file: {}: {error}", path.display());
    // A link stays a link.
    let target = std::fs::canonicalize(path);
    let (target, old) = match target {
        Ok(target) => {
            let text = std::fs::read_to_string(&target).map_err(|error| fault(&error))?;
            (target, Some(text))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (path.to_owned(), None),
        Err(error) => return Err(fault(&error)),
    };
    let mut text = old.clone().unwrap_or_default();
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| fault(&format!("expected TOML ({})", error.message())))?;
    let keys = table.get("keys").and_then(toml::Value::as_array);
    let mut names = keys.into_iter().flatten().filter_map(|key| key.get("name"));
    if names.any(|known| known.as_str() == Some(name)) {
        return Err(fault(&format!("there is a key named '{name}' already")));
    }
    if !text.is_empty() {
        text.push_str(if text.ends_with('\n') { "\n" } else { "\n\n" });
    }
    text.push_str(entry);
    // The whole must still be a keys file, whatever stood at its end.
    if text.parse::<toml::Table>().is_err() {
        return Err(fault(&"expected [[keys]] entries only"));
    }
    let mode = match &old {
        Some(_) => {
            let file = std::fs::metadata(&target).map_err(|error| fault(&error))?;
            file.permissions().mode() & 0o7777
        }
        None => 0o600,
    };
    replace(&target, &text, mode).map_err(|error| fault(&error))
}

fn replace(target: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut beside = target.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = Path::new(&beside);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(beside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(beside, target));
    if written.is_err() {
        let _ = std::fs::remove_file(beside);
        return written;
    }
    // The new name is durable once its folder is. Some file systems cannot sync folders.
    let folder = target
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
        let _ = folder.sync_all();
    }
    Ok(())
}

#[cfg(test)]
#[path = "new_tests.rs"]
mod tests;
