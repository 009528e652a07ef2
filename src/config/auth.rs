//! `auth` of an endpoint: the fields of each type, with files and variables resolved.
//!
//! Findings never show a value.
//!
//! Contract: docs/contract/balancing.md#14, docs/contract/operations.md#11

use super::endpoint::{Auth, Secret, header_fault, is_header_value};
use super::env::expand;
use super::inputs::ConfigInputs;
use super::kinds::alternatives;
use super::nearest::nearest;
use super::section::Section;
use super::values::quoted;

/// The fields that hold a credential: the field, its variant for a file, and the type to which both
/// belong.
const FIELDS: [(&str, &str, &str); 4] = [
    ("token", "token_file", "bearer"),
    ("key", "key_file", "api_key"),
    ("username", "username_file", "basic"),
    ("password", "password_file", "basic"),
];

const KINDS: [&str; 3] = ["bearer", "api_key", "basic"];

/// The values of the table, not yet validated.
pub(super) struct AuthKeys {
    kind: Option<String>,
    header: Option<String>,
    /// The value and the file of each field, in the order of [`FIELDS`].
    fields: [(Option<String>, Option<String>); 4],
}

/// Declares the keys.
pub(super) fn declare(s: &mut Section<'_, '_>) -> AuthKeys {
    let value_doc = "The credential; ${VAR} and ${VAR:-default} are replaced.";
    let file_doc = "File with the credential; read at start, surrounding white space removed.";
    AuthKeys {
        kind: s
            .key("type", "Kind of credentials: bearer, api_key or basic.")
            .text_optional(),
        fields: FIELDS.map(|(field, file, _)| {
            let value = s.key(field, value_doc).secret().given_text();
            (value, s.key(file, file_doc).given_text())
        }),
        header: s
            .key("header", "Header of an api_key; X-Api-Key by default.")
            .text_optional(),
    }
}

/// The credentials of the table; `None` if something was refused.
pub(super) fn check(
    s: &mut Section<'_, '_>,
    typed: AuthKeys,
    inputs: &ConfigInputs<'_>,
) -> Option<Auth> {
    let given = typed.kind.as_deref();
    let Some(kind) = given.filter(|kind| KINDS.contains(kind)) else {
        let near = given.and_then(|given| nearest(given, KINDS));
        s.expected_near("type", alternatives(&KINDS), near);
        return None;
    };
    for (field, file, owner) in FIELDS {
        for key in [field, file] {
            if owner != kind && s.is_given(key) {
                let message =
                    format_args!("belongs to auth of type {owner}, but the type is {kind}");
                s.refuse(key, message);
            }
        }
    }
    if kind != "api_key" && s.is_given("header") {
        let message = format_args!("belongs to auth of type api_key, but the type is {kind}");
        s.refuse("header", message);
    }
    let [token, key, username, password] = typed.fields;
    match kind {
        "bearer" => Some(Auth::Bearer {
            token: credential(s, 0, token, inputs)?,
        }),
        "api_key" => {
            let key = credential(s, 1, key, inputs);
            Some(Auth::ApiKey {
                header: header(s, typed.header)?,
                key: key?,
            })
        }
        _ => {
            let username = credential(s, 2, username, inputs);
            let password = credential(s, 3, password, inputs);
            let username = username?;
            if username.expose().contains(':') {
                // RFC 7617 section 2: the first colon ends the name.
                let key = if s.is_given("username") {
                    "username"
                } else {
                    "username_file"
                };
                s.refuse(key, "expected a user name without a colon");
                return None;
            }
            Some(Auth::Basic {
                username,
                password: password?,
            })
        }
    }
}

fn header(s: &mut Section<'_, '_>, typed: Option<String>) -> Option<String> {
    let header = typed.unwrap_or_else(|| "X-Api-Key".to_owned());
    let header = match expand(&header, s.env()) {
        Ok(header) => header,
        Err(unset) => {
            s.refuse(
                "header",
                format_args!("environment variable {} is not set", unset.0),
            );
            return None;
        }
    };
    match header_fault(&header) {
        None => Some(header),
        Some(fault) => {
            s.refuse("header", fault);
            None
        }
    }
}

/// The credential of one field: its value, or the content of its file.
fn credential(
    s: &mut Section<'_, '_>,
    field: usize,
    typed: (Option<String>, Option<String>),
    inputs: &ConfigInputs<'_>,
) -> Option<Secret> {
    let (name, file, kind) = FIELDS[field];
    let (key, secret) = match typed {
        (Some(_), Some(_)) => {
            s.refuse(name, format_args!("expected {name} or {file}, got both"));
            return None;
        }
        (None, None) => {
            // With a field of another type, the type or that field is the mistake.
            let is_other = |(value, path, owner): (&str, &str, &str)| {
                owner != kind && (s.is_given(value) || s.is_given(path))
            };
            let is_mixed = FIELDS.into_iter().any(is_other);
            if !is_mixed && !s.is_faulty(name) && !s.is_faulty(file) {
                s.expected(name, format_args!("{name} or {file}"));
            }
            return None;
        }
        (Some(value), None) => (name, expanded(s, name, &value)?),
        (None, Some(path)) => {
            let path = expanded(s, file, &path)?;
            match std::fs::read_to_string(inputs.cwd.join(&path)) {
                Ok(text) => (file, text.trim().to_owned()),
                Err(error) => {
                    s.refuse(file, format_args!("cannot read {}: {error}", quoted(&path)));
                    return None;
                }
            }
        }
    };
    if secret.trim().is_empty() {
        s.refuse(key, "expected a credential, got an empty one");
        return None;
    }
    if !is_header_value(&secret) {
        s.refuse(
            key,
            "expected a credential without line breaks, control characters or surrounding white space",
        );
        return None;
    }
    s.fingerprint(key, &secret);
    Some(Secret::new(secret))
}

fn expanded(s: &mut Section<'_, '_>, key: &str, text: &str) -> Option<String> {
    match expand(text, s.env()) {
        Ok(text) => Some(text),
        Err(unset) => {
            s.refuse(
                key,
                format_args!("environment variable {} is not set", unset.0),
            );
            None
        }
    }
}
