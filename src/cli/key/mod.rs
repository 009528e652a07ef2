//! `olla key`: makes keys, and asks a running gateway about them.
//!
//! Contract: docs/contract/access.md#14

mod new;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::http::{Base, CliRequest, Response, send};
use super::remote::{field, refusal, text};
use super::table::{Table, clean};
use super::{Caller, CommandOutput};
use crate::config::is_secret;
pub(crate) use new::{Fresh, local, remote_body};

/// What is escaped in the name of a key in a path.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'@');

/// Keys that are read at once.
const PAGE: usize = 1000;

/// What is asked of a running gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyAction {
    /// A new key of these fields.
    Create(Value),
    /// All keys.
    List,
    /// One key.
    Show(String),
    /// Whether a key may be used.
    Enable(String, bool),
    /// Another secret, and how long the old one stays valid.
    Rotate(String, Option<String>),
    /// The end of a key, and whether its requests are cut.
    Delete(String, bool),
}

/// Asks a gateway and prints what it says.
pub(crate) fn run(
    action: &KeyAction,
    address: &str,
    caller: &Caller,
    is_json: bool,
) -> CommandOutput {
    let base = match Base::parse(address) {
        Ok(base) => base,
        Err(fault) => {
            let message = format!("olla: --url: {fault}\n");
            return CommandOutput::bad(message, CommandOutput::USAGE);
        }
    };
    let asked = Asked {
        base,
        caller,
        is_json,
    };
    let shown = match action {
        KeyAction::Create(fields) => asked.create(fields),
        KeyAction::List => asked.list(),
        KeyAction::Show(name) => asked.show(name),
        KeyAction::Enable(name, enabled) => asked.enable(name, *enabled),
        KeyAction::Rotate(name, grace) => asked.rotate(name, grace.as_deref()),
        KeyAction::Delete(name, cut) => asked.delete(name, *cut),
    };
    match shown {
        Ok(text) => CommandOutput::good(text),
        Err(message) => CommandOutput::failed(&message),
    }
}

struct Asked<'a> {
    base: Base,
    caller: &'a Caller,
    is_json: bool,
}

impl Asked<'_> {
    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Response, String> {
        let request = CliRequest {
            method,
            path,
            body: body.map(Value::to_string),
        };
        let response = send(&self.base, &request, self.caller)?;
        match response.status {
            200..=299 => Ok(response),
            status => {
                let body = String::from_utf8_lossy(&response.body);
                Err(refusal(&self.base, status, &body))
            }
        }
    }

    fn document(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let response = self.send(method, path, body)?;
        let origin = self.base.origin();
        serde_json::from_slice(&response.body)
            .map_err(|error| format!("{origin}: expected JSON ({error})"))
    }

    fn create(&self, fields: &Value) -> Result<String, String> {
        let made = self.document("POST", "/internal/keys", Some(fields))?;
        self.secret_of(made)
    }

    /// A new secret, alone or with all that is said of its key.
    fn secret_of(&self, mut made: Value) -> Result<String, String> {
        let Some(secret) = made.get("key").and_then(Value::as_str).map(str::to_owned) else {
            return Err(format!(
                "{}: expected a secret, got none",
                self.base.origin()
            ));
        };
        if !self.is_json {
            return Ok(format!("{secret}\n"));
        }
        if let Some(object) = made.as_object_mut() {
            let hash = crate::config::KeyDigest::of(secret.as_bytes()).stored();
            object.insert("hash".to_owned(), hash.into());
        }
        Ok(pretty(&made))
    }

    fn list(&self) -> Result<String, String> {
        let mut keys = Vec::new();
        let mut path = format!("/internal/keys?limit={PAGE}");
        let page = loop {
            let mut page = self.document("GET", &path, None)?;
            if let Some(Value::Array(more)) = page.get_mut("keys").map(Value::take) {
                keys.extend(more);
            }
            match page.get("next").and_then(Value::as_str) {
                Some(next) => {
                    let next = utf8_percent_encode(next, IN_PATH);
                    path = format!("/internal/keys?limit={PAGE}&after={next}");
                }
                None => break page,
            }
        };
        if self.is_json {
            let mut all = page;
            if let Some(object) = all.as_object_mut() {
                object.insert("keys".to_owned(), keys.into());
            }
            return Ok(pretty(&all));
        }
        let headings = [
            "NAME",
            "ID",
            "SOURCE",
            "POLICY",
            "ENABLED",
            "ADMIN",
            "EXPIRES",
            "LAST USED",
            "NOTE",
        ];
        let paths = [
            "/name",
            "/id",
            "/source",
            "/policy",
            "/enabled",
            "/admin",
            "/expires_at",
            "/last_used_at",
            "/note",
        ];
        let mut table = Table::new(&headings);
        for key in &keys {
            table.row(paths.map(|path| field(key, path)));
        }
        Ok(table.show())
    }

    fn show(&self, name: &str) -> Result<String, String> {
        let key = self.document("GET", &path_of(name, ""), None)?;
        if self.is_json {
            return Ok(pretty(&key));
        }
        let mut out = String::new();
        for (name, value) in key.as_object().into_iter().flatten() {
            let shown = match value {
                Value::Object(inner) => {
                    let parts = inner.iter().filter(|(_, value)| !value.is_null());
                    let parts = parts.map(|(name, value)| format!("{name} {}", text(value)));
                    parts.collect::<Vec<_>>().join(", ")
                }
                other => text(other),
            };
            out.push_str(&format!("{}: {}\n", clean(name), clean(&shown)));
        }
        Ok(out)
    }

    fn enable(&self, name: &str, enabled: bool) -> Result<String, String> {
        let body = json!({"enabled": enabled});
        let key = self.document("PATCH", &path_of(name, ""), Some(&body))?;
        if self.is_json {
            return Ok(pretty(&key));
        }
        let state = if enabled { "enabled" } else { "disabled" };
        Ok(format!("{name}: {state}\n"))
    }

    fn rotate(&self, name: &str, grace: Option<&str>) -> Result<String, String> {
        let body = grace.map_or_else(|| json!({}), |grace| json!({"grace": grace}));
        let made = self.document("POST", &path_of(name, "/rotate"), Some(&body))?;
        self.secret_of(made)
    }

    fn delete(&self, name: &str, cut: bool) -> Result<String, String> {
        let path = format!("{}?cut={cut}", path_of(name, ""));
        self.send("DELETE", &path, None)?;
        if self.is_json {
            return Ok(pretty(&json!({"name": name, "deleted": true})));
        }
        Ok(format!("{name}: deleted\n"))
    }
}

fn path_of(name: &str, rest: &str) -> String {
    format!(
        "/internal/keys/{}{rest}",
        utf8_percent_encode(name, IN_PATH)
    )
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// `olla key hash`: the hash of the secret in the first line of a text. `is_made_here` tells whether
/// a secret has the form and the checksum of those that `olla key new` makes.
pub(crate) fn hash(input: &[u8], is_made_here: fn(&[u8]) -> bool) -> CommandOutput {
    let line = input.split(|byte| *byte == b'\n').next().unwrap_or(b"");
    let secret = line.strip_suffix(b"\r").unwrap_or(line);
    if !is_secret(secret) {
        let rule = "a secret of 16 to 256 visible ASCII characters on standard input";
        let bytes = secret.len();
        return CommandOutput::failed(&format!("expected {rule}, got {bytes} bytes"));
    }
    if secret.starts_with(b"olla-") && !is_made_here(secret) {
        let message = "expected a secret that olla made, because it begins with olla-, got one with \
                       a wrong form or checksum; was it copied whole?";
        return CommandOutput::failed(message);
    }
    let hash = crate::config::KeyDigest::of(secret).stored();
    CommandOutput::good(format!("{hash}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hashed_if_it_can_be_one() {
        let never = |_: &[u8]| false;
        let good = hash(b"brought-along-1234\r\nnot this line", never);
        let want = crate::config::KeyDigest::of(b"brought-along-1234").stored();
        assert_eq!((good.code, good.stdout), (0, format!("{want}\n")));
        assert_eq!(hash(b"olla-brought-along", |_| true).code, 0);
        for bad in [
            &b"olla-brought-along"[..],
            b"short",
            b"",
            b"with a blank in it",
        ] {
            let output = hash(bad, never);
            assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{bad:?}");
            assert_eq!(output.stderr.lines().count(), 1);
        }
    }

    #[test]
    fn names_in_paths_are_escaped() {
        assert_eq!(
            path_of("a@b-c._", "/rotate"),
            "/internal/keys/a@b-c._/rotate"
        );
        assert_eq!(path_of("a/b?", ""), "/internal/keys/a%2Fb%3F");
    }
}
