//! Requests for keys, policies and usage below `/internal/`: what they ask for, what they change,
//! and the responses.
//!
//! Contract: docs/contract/access.md#11

mod change;
mod view;

use std::borrow::Cow;

use bytes::Bytes;

use super::day::Day;
use super::query::UsageQuery;
use crate::config::KeySource;
use crate::dialects::Error;
pub(crate) use change::{ChangeContext, KeyChange, NameState, stored_key};
pub(crate) use view::{key_object, keys_page, not_found, policies_page};

/// The largest body of a request, in bytes: all fields of a key take less.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Keys of a listing, unless the query says otherwise.
const LIMIT: usize = 100;

/// The most keys of a listing.
const LIMIT_MAX: usize = 1000;

/// The routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdminRoute {
    /// `/internal/usage`.
    Usage,
    /// `/internal/keys`.
    Keys,
    /// `/internal/keys/NAME`.
    Key,
    /// `/internal/keys/NAME/rotate`.
    Rotate,
    /// `/internal/policies`.
    Policies,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AdminAsk {
    /// A report of usage.
    Usage(UsageQuery),
    /// A listing of keys.
    Keys(KeysQuery),
    /// The key of this name.
    Key(String),
    /// A new key.
    Create(Bytes),
    /// Other fields of the key of this name.
    Change(String, Bytes),
    /// Another secret of the key of this name.
    Rotate(String, Bytes),
    /// The end of the key of this name.
    Delete {
        /// Its name.
        name: String,
        /// Whether its requests in progress end too.
        cut: bool,
    },
    /// A listing of policies.
    Policies,
}

/// Which keys are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeysQuery {
    /// The most keys.
    limit: usize,
    /// Only keys whose names stand behind this one.
    after: Option<String>,
    /// Only keys under this policy.
    policy: Option<String>,
    /// Only keys of this source.
    source: Option<KeySource>,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdminReply {
    /// Its status.
    pub status: u16,
    /// Its `Content-Type`; empty = it has no body.
    pub content_type: &'static str,
    /// Its `Location`.
    pub location: Option<String>,
    /// Its body.
    pub body: Bytes,
}

/// A request as it arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdminRequest<'a> {
    /// Its method.
    pub method: &'a [u8],
    /// What follows `/internal/` in its path.
    pub rest: &'a [u8],
    /// Its query, without the question mark.
    pub query: &'a str,
    /// Its `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// Its body.
    pub body: &'a [u8],
    /// The day of its arrival.
    pub today: Day,
}

impl AdminRoute {
    /// The route of what follows `/internal/` in a path. Without keys there is only usage.
    pub(crate) fn of(rest: &[u8], has_keys: bool) -> Option<Self> {
        if rest == b"usage" {
            return Some(Self::Usage);
        }
        if !has_keys {
            return None;
        }
        match rest {
            b"keys" => Some(Self::Keys),
            b"policies" => Some(Self::Policies),
            _ => {
                let name = rest.strip_prefix(b"keys/")?;
                let (name, route) = match name.strip_suffix(b"/rotate") {
                    Some(name) => (name, Self::Rotate),
                    None => (name, Self::Key),
                };
                (!name.is_empty() && !name.contains(&b'/')).then_some(route)
            }
        }
    }

    /// Its methods, in the form of `Allow`.
    pub(crate) const fn allow(self) -> &'static str {
        match self {
            Self::Usage | Self::Policies => "GET, HEAD",
            Self::Keys => "GET, HEAD, POST",
            Self::Key => "GET, HEAD, PATCH, DELETE",
            Self::Rotate => "POST",
        }
    }

    /// What a request on the route asks for.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub(crate) fn read(self, request: &AdminRequest<'_>) -> Result<AdminAsk, Error> {
        let body = || -> Result<Bytes, Error> {
            expect_json(request)?;
            Ok(Bytes::copy_from_slice(request.body))
        };
        let parameter = |message| Error::new(400, "bad_request", "INVALID_PARAMETER", message);
        Ok(match (self, request.method) {
            (Self::Usage, _) => {
                let query = UsageQuery::parse(request.query, request.today);
                AdminAsk::Usage(query.map_err(parameter)?)
            }
            (Self::Policies, _) => AdminAsk::Policies,
            (Self::Keys, b"POST") => AdminAsk::Create(body()?),
            (Self::Keys, _) => AdminAsk::Keys(KeysQuery::parse(request.query).map_err(parameter)?),
            (Self::Key, b"PATCH") => AdminAsk::Change(name_of(request.rest), body()?),
            (Self::Key, b"DELETE") => AdminAsk::Delete {
                name: name_of(request.rest),
                cut: cut(request.query).map_err(parameter)?,
            },
            (Self::Key, _) => AdminAsk::Key(name_of(request.rest)),
            (Self::Rotate, _) if request.body.is_empty() => {
                AdminAsk::Rotate(name_of(request.rest), Bytes::from_static(b"{}"))
            }
            (Self::Rotate, _) => AdminAsk::Rotate(name_of(request.rest), body()?),
        })
    }
}

/// The name in a path. One that is not UTF-8 is the name of no key.
fn name_of(rest: &[u8]) -> String {
    let name = rest.strip_prefix(b"keys/").unwrap_or(rest);
    let name = name.strip_suffix(b"/rotate").unwrap_or(name);
    let name = percent_encoding::percent_decode(name);
    name.decode_utf8_lossy().into_owned()
}

fn expect_json(request: &AdminRequest<'_>) -> Result<(), Error> {
    let given = request.content_type.unwrap_or(b"");
    let essence = given.split(|byte| *byte == b';').next().unwrap_or(b"");
    if !essence
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/json")
    {
        let message = "Content-Type: expected application/json";
        return Err(Error::new(
            415,
            "unsupported_media_type",
            "UNSUPPORTED_MEDIA_TYPE",
            message,
        ));
    }
    if request.body.len() > BODY_BYTES_MAX {
        let message = format!("the body is larger than {BODY_BYTES_MAX} bytes");
        return Err(Error::new(
            413,
            "request_too_large",
            "BODY_TOO_LARGE",
            message,
        ));
    }
    Ok(())
}

/// The first value of a parameter of a query.
fn parameter<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find_map(|(known, value)| (known == name).then_some(value))
}

fn cut(query: &str) -> Result<bool, String> {
    match parameter(query, "cut").as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(expected("cut", "true or false", other)),
    }
}

fn expected(name: &str, rule: &str, got: &str) -> String {
    let got: String = got.chars().take(64).collect();
    format!("{name}: expected {rule}, got {got:?}")
}

impl KeysQuery {
    fn parse(query: &str) -> Result<Self, String> {
        let text = |name| parameter(query, name).map(Cow::into_owned);
        let limit = match text("limit") {
            None => LIMIT,
            Some(text) => {
                let limit = text.parse().ok();
                limit
                    .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                    .ok_or_else(|| expected("limit", "an integer from 1 to 1000", &text))?
            }
        };
        let source = match text("source") {
            None => None,
            Some(text) => {
                let mut sources = KeySource::ALL.into_iter();
                let source = sources.find(|source| source.as_str() == text);
                let rule = "config, env, file, store or jwt";
                Some(source.ok_or_else(|| expected("source", rule, &text))?)
            }
        };
        Ok(Self {
            limit,
            after: text("after"),
            policy: text("policy"),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(route: AdminRoute, request: AdminRequest<'_>) -> Result<AdminAsk, &'static str> {
        route.read(&request).map_err(|error| error.code)
    }

    const GET: AdminRequest<'static> = AdminRequest {
        method: b"GET",
        rest: b"keys/a%40b",
        query: "",
        content_type: None,
        body: b"",
        today: Day::EPOCH,
    };

    #[test]
    fn paths_lead_to_routes() {
        let table: [(&str, Option<AdminRoute>); 10] = [
            ("usage", Some(AdminRoute::Usage)),
            ("policies", Some(AdminRoute::Policies)),
            ("keys", Some(AdminRoute::Keys)),
            ("keys/", None),
            ("keys/a", Some(AdminRoute::Key)),
            ("keys/a/", None),
            ("keys/a/rotate", Some(AdminRoute::Rotate)),
            ("keys//rotate", None),
            ("keys/a/b", None),
            ("usages", None),
        ];
        for (rest, want) in table {
            assert_eq!(AdminRoute::of(rest.as_bytes(), true), want, "{rest}");
        }
        assert_eq!(AdminRoute::of(b"keys", false), None);
        assert_eq!(AdminRoute::of(b"usage", false), Some(AdminRoute::Usage));
    }

    #[test]
    fn requests_are_read() {
        let name = "a@b".to_owned();
        assert_eq!(read(AdminRoute::Key, GET), Ok(AdminAsk::Key(name.clone())));
        let post = AdminRequest {
            method: b"POST",
            rest: b"keys/a@b/rotate",
            content_type: Some(b"Application/JSON; charset=utf-8"),
            body: b"{}",
            ..GET
        };
        let body = Bytes::from_static(b"{}");
        let rotate = AdminAsk::Rotate(name.clone(), body.clone());
        assert_eq!(read(AdminRoute::Rotate, post), Ok(rotate.clone()));
        let bare = AdminRequest {
            content_type: None,
            body: b"",
            ..post
        };
        assert_eq!(read(AdminRoute::Rotate, bare), Ok(rotate));
        assert_eq!(read(AdminRoute::Keys, post), Ok(AdminAsk::Create(body)));
        let form = AdminRequest {
            content_type: Some(b"application/x-www-form-urlencoded"),
            ..post
        };
        assert_eq!(read(AdminRoute::Keys, form), Err("UNSUPPORTED_MEDIA_TYPE"));
        let large = vec![b' '; BODY_BYTES_MAX + 1];
        let large = AdminRequest {
            body: &large,
            ..post
        };
        assert_eq!(read(AdminRoute::Keys, large), Err("BODY_TOO_LARGE"));
        let delete = |query| AdminRequest {
            method: b"DELETE",
            query,
            ..GET
        };
        for (query, want) in [
            ("", Ok(false)),
            ("cut=true", Ok(true)),
            ("cut=false", Ok(false)),
            ("cut=1", Err("INVALID_PARAMETER")),
        ] {
            let want = want.map(|cut| AdminAsk::Delete {
                name: name.clone(),
                cut,
            });
            assert_eq!(read(AdminRoute::Key, delete(query)), want);
        }
    }

    #[test]
    fn listings_are_bounded() {
        let query = KeysQuery::parse("source=file&policy=dev&after=a&limit=1000").unwrap();
        assert_eq!((query.limit, query.source), (1000, Some(KeySource::File)));
        assert_eq!(
            (query.policy.as_deref(), query.after.as_deref()),
            (Some("dev"), Some("a"))
        );
        assert_eq!(KeysQuery::parse("").unwrap().limit, LIMIT);
        for (text, want) in [
            (
                "limit=0",
                "limit: expected an integer from 1 to 1000, got \"0\"",
            ),
            (
                "limit=1001",
                "limit: expected an integer from 1 to 1000, got \"1001\"",
            ),
            (
                "source=disk",
                "source: expected config, env, file, store or jwt, got \"disk\"",
            ),
        ] {
            assert_eq!(KeysQuery::parse(text).unwrap_err(), want);
        }
    }
}
