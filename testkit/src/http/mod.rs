//! Raw HTTP/1.1 over blocking sockets: messages as they were sent, with nothing normalized.

mod client;
mod wire;

use serde::Serialize;
use serde_json::Value;

pub use client::{Client, STREAM_COMMENT};
#[cfg(feature = "tls")]
pub(crate) use wire::Transport;
pub(crate) use wire::{BODY_BYTES_MAX, Wire, field};

/// A request as a backend received it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Received {
    /// The method.
    pub method: String,
    /// The request target.
    pub target: String,
    /// The protocol version.
    pub version: String,
    /// As written, in their order.
    pub headers: Vec<(String, String)>,
    /// The body without its framing.
    #[serde(serialize_with = "as_text")]
    pub body: Vec<u8>,
    /// Number of its connection, counted from 1.
    pub connection: u64,
}

impl Received {
    /// Every value of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.headers, name)
    }

    /// The only value of a header.
    ///
    /// # Panics
    /// When the header occurs more than once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        only_value(&self.headers, name)
    }

    /// The path of the target, without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The body as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn as_text<S: serde::Serializer>(body: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(body))
}

/// A response as a client received it.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The protocol version.
    pub version: String,
    /// The status code.
    pub status: u16,
    /// As written, in their order.
    pub headers: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// Whether the body ended as its framing says. A body without a length ends with the connection.
    pub whole: bool,
}

impl Response {
    /// Every value of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.headers, name)
    }

    /// The only value of a header.
    ///
    /// # Panics
    /// When the header occurs more than once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        only_value(&self.headers, name)
    }

    /// The body as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// Checks everything that an error of the gateway must have, and returns its message
    /// (docs/contract/surface.md#5.2, docs/contract/surface.md#9).
    ///
    /// # Panics
    /// When something is missing or different.
    #[track_caller]
    pub fn is_error(&self, status: u16, kind: &str, code: &str) -> String {
        assert_eq!(self.status, status, "{self:?} {}", self.text());
        assert_eq!(self.header("Content-Type"), Some("application/json"));
        assert_eq!(self.header("X-Content-Type-Options"), Some("nosniff"));
        self.has_the_fields_of_every_response();
        assert!(self.whole, "{self:?}");
        let json = self.json();
        let members = |value: &Value| value.as_object().map(serde_json::Map::len);
        assert_eq!(members(&json), Some(1), "{json}");
        let error = &json["error"];
        assert_eq!(error["type"], kind, "{json}");
        assert_eq!(error["code"], code, "{json}");
        assert_eq!(members(error), Some(3), "{json}");
        let message = error["message"].as_str().unwrap();
        assert!(
            !message.is_empty() && !message.contains("127.0.0."),
            "{message}"
        );
        message.to_owned()
    }

    /// Checks the request id, the response time and the date.
    ///
    /// # Panics
    /// When one is missing or malformed.
    #[track_caller]
    pub fn has_the_fields_of_every_response(&self) {
        let id = self.header("X-Olla-Request-ID").expect("a request id");
        assert!((1..=128).contains(&id.len()), "{id}");
        let time = self
            .header("X-Olla-Response-Time")
            .expect("a response time");
        let digits = time.strip_suffix("ms").unwrap_or_default();
        assert!(
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()),
            "{time}"
        );
        let date = self.header("Date").expect("a date");
        assert!(date.ends_with(" GMT"), "{date}");
    }
}

fn values<'h>(headers: &'h [(String, String)], name: &str) -> Vec<&'h str> {
    let named = |(own, _): &&(String, String)| own.eq_ignore_ascii_case(name);
    let values = headers.iter().filter(named);
    values.map(|(_, value)| value.as_str()).collect()
}

#[track_caller]
fn only_value<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    let all = values(headers, name);
    assert!(
        all.len() < 2,
        "{name} occurs {} times: {headers:?}",
        all.len()
    );
    all.first().copied()
}
