//! What one request asks of the stub, found by looking for a few fields in its body.
//!
//! The body is scanned, not parsed: a megabyte of prompt must cost next to nothing. A prompt cannot
//! be taken for a field, since quotes inside a JSON string are escaped.

use serde::Deserialize;

use crate::scan::value_of;

/// How the stub misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    /// RST before the first byte of the response.
    Reset,
    /// FIN before the first byte of the response.
    Close,
    /// No response, ever.
    Hang,
    /// FIN in the middle of the response's body.
    Cut,
    /// A chunk that is none in the middle of the response's body, then FIN.
    BadChunk,
    /// A response with status 500.
    #[serde(rename = "status_500")]
    Status500,
    /// Responses with status 503 and 429 in turns, to requests for inference only.
    Busy,
    /// As if all packets were lost: connections are not established, and those that are get no
    /// response. Only for `POST /stub/fault`, over a connection that stays open to end it.
    Drop,
    /// A first byte two seconds late, unless `delay_ms` says how late.
    Slow,
}

/// The delay of [`Fault::Slow`] when the request does not set one, in milliseconds.
pub(super) const SLOW_MS: u64 = 2000;

/// The longest text that is added to an event, in bytes: an event's length has six digits.
pub(super) const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The longest nonce that is echoed, in bytes.
pub(super) const NONCE_BYTES_MAX: usize = 64;

/// What one request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// To be echoed in the response and in each of its events.
    pub(super) nonce: Option<String>,
    /// An event stream instead of one JSON object.
    pub(super) stream: bool,
    /// Number of events before `[DONE]`.
    pub(super) events: u32,
    /// Time between events, in milliseconds.
    pub(super) gap_ms: u64,
    /// Time before the response, in milliseconds.
    pub(super) delay_ms: u64,
    /// Length of the text that is added to each event, in bytes.
    pub(super) event_bytes: usize,
    /// The response calls a tool.
    pub(super) tools: bool,
    /// What goes wrong.
    pub(super) fault: Option<Fault>,
}

/// What applies when a request says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Defaults {
    /// See [`Ask::events`].
    pub(super) events: u32,
    /// See [`Ask::gap_ms`].
    pub(super) gap_ms: u64,
    /// See [`Ask::delay_ms`].
    pub(super) delay_ms: u64,
    /// See [`Ask::fault`].
    pub(super) fault: Option<Fault>,
}

/// Why the field `stub` of a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadStubField;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StubField {
    events: Option<u32>,
    gap_ms: Option<u64>,
    delay_ms: Option<u64>,
    #[serde(default)]
    event_bytes: usize,
    #[serde(default)]
    tools: bool,
    fault: Option<Fault>,
}

impl Ask {
    /// Reads the fields `nonce`, `stream` and `stub` of a request's body.
    ///
    /// # Errors
    /// [`BadStubField`] when `stub` is not an object of the known fields: a mistyped fault must not
    /// look like a gateway that copes with it.
    pub(super) fn read(body: &[u8], defaults: Defaults) -> Result<Self, BadStubField> {
        let field = match value_of(body, "\"stub\"") {
            None => StubField::default(),
            Some(rest) => {
                let end = memchr::memchr(b'}', rest).ok_or(BadStubField)?;
                serde_json::from_slice(&rest[..=end]).map_err(|_| BadStubField)?
            }
        };
        let fault = field.fault.or(defaults.fault);
        let delay_ms = match fault {
            Some(Fault::Slow) if defaults.delay_ms == 0 => SLOW_MS,
            _ => defaults.delay_ms,
        };
        Ok(Self {
            nonce: value_of(body, "\"nonce\"")
                .and_then(nonce)
                .map(str::to_owned),
            stream: value_of(body, "\"stream\"").is_some_and(|rest| rest.starts_with(b"true")),
            events: field.events.unwrap_or(defaults.events),
            gap_ms: field.gap_ms.unwrap_or(defaults.gap_ms),
            delay_ms: field.delay_ms.unwrap_or(delay_ms),
            event_bytes: field.event_bytes.min(EVENT_BYTES_MAX),
            tools: field.tools,
            fault,
        })
    }

    /// What a route without a body asks for: nothing but what applies to all requests.
    pub(super) fn plain(defaults: Defaults) -> Self {
        Self {
            nonce: None,
            stream: false,
            events: defaults.events,
            gap_ms: defaults.gap_ms,
            delay_ms: match defaults.fault {
                Some(Fault::Slow) if defaults.delay_ms == 0 => SLOW_MS,
                _ => defaults.delay_ms,
            },
            event_bytes: 0,
            tools: false,
            fault: defaults.fault,
        }
    }
}

impl Defaults {
    /// Takes what the body of `POST /stub/fault` says: the fields of `stub`, those left out as they
    /// are but for the fault and the delay, which are then none.
    ///
    /// # Errors
    /// [`BadStubField`], as for [`Ask::read`].
    pub(super) fn set(&mut self, body: &[u8]) -> Result<(), BadStubField> {
        let field: StubField = serde_json::from_slice(body).map_err(|_| BadStubField)?;
        self.events = field.events.unwrap_or(self.events);
        self.gap_ms = field.gap_ms.unwrap_or(self.gap_ms);
        self.delay_ms = field.delay_ms.unwrap_or(0);
        self.fault = field.fault;
        Ok(())
    }
}

/// The string at the start of `rest`, when it can be echoed as it is.
fn nonce(rest: &[u8]) -> Option<&str> {
    let inner = rest.strip_prefix(b"\"")?;
    let window = &inner[..inner.len().min(NONCE_BYTES_MAX + 1)];
    let text = &window[..memchr::memchr(b'"', window)?];
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.iter()
        .all(plain)
        .then(|| std::str::from_utf8(text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults = Defaults {
        events: 20,
        gap_ms: 10,
        delay_ms: 0,
        fault: None,
    };

    fn plain() -> Ask {
        Ask {
            nonce: None,
            stream: false,
            events: 20,
            gap_ms: 10,
            delay_ms: 0,
            event_bytes: 0,
            tools: false,
            fault: None,
        }
    }

    #[test]
    fn reads_what_is_asked() {
        let nonce = |text: &str| Some(text.to_owned());
        let table = [
            ("{}", plain()),
            (
                r#"{"model":"m","nonce":"n-1"}"#,
                Ask {
                    nonce: nonce("n-1"),
                    ..plain()
                },
            ),
            (
                r#"{"nonce" : "n-1", "stream" : true}"#,
                Ask {
                    nonce: nonce("n-1"),
                    stream: true,
                    ..plain()
                },
            ),
            (r#"{"stream":false}"#, plain()),
            (r#"{"nonce":"not \" plain"}"#, plain()),
            (r#"{"content":"\"stream\":true, \"nonce\":\"x\""}"#, plain()),
            (
                r#"{"content":"stream","stream":true}"#,
                Ask {
                    stream: true,
                    ..plain()
                },
            ),
            (
                r#"{"stub":{"events":3,"gap_ms":0,"delay_ms":7,"tools":true}}"#,
                Ask {
                    events: 3,
                    gap_ms: 0,
                    delay_ms: 7,
                    tools: true,
                    ..plain()
                },
            ),
            (
                r#"{"stub":{"event_bytes":100000}}"#,
                Ask {
                    event_bytes: 100_000,
                    ..plain()
                },
            ),
            (
                r#"{"stub":{"event_bytes":100000000}}"#,
                Ask {
                    event_bytes: EVENT_BYTES_MAX,
                    ..plain()
                },
            ),
            (
                r#"{"stub":{"fault":"bad_chunk"}}"#,
                Ask {
                    fault: Some(Fault::BadChunk),
                    ..plain()
                },
            ),
            (
                r#"{"stub":{"fault":"status_500"}}"#,
                Ask {
                    fault: Some(Fault::Status500),
                    ..plain()
                },
            ),
            (
                r#"{"stub":{"fault":"slow"}}"#,
                Ask {
                    fault: Some(Fault::Slow),
                    delay_ms: SLOW_MS,
                    ..plain()
                },
            ),
            (
                r#"{"stub": {"fault":"slow","delay_ms":5}}"#,
                Ask {
                    fault: Some(Fault::Slow),
                    delay_ms: 5,
                    ..plain()
                },
            ),
        ];
        for (body, want) in table {
            assert_eq!(Ask::read(body.as_bytes(), DEFAULTS), Ok(want), "{body}");
        }
    }

    #[test]
    fn what_applies_to_everybody_can_be_set_and_yields_to_the_request() {
        let mut defaults = DEFAULTS;
        assert_eq!(defaults.set(br#"{"fault":"reset","gap_ms":3}"#), Ok(()));
        let read = |body: &str| Ask::read(body.as_bytes(), defaults).unwrap();
        assert_eq!(read("{}").fault, Some(Fault::Reset));
        assert_eq!(read("{}").gap_ms, 3);
        assert_eq!(
            read(r#"{"stub":{"fault":"hang"}}"#).fault,
            Some(Fault::Hang)
        );
        assert_eq!(Ask::plain(defaults).fault, Some(Fault::Reset));
        assert_eq!(defaults.set(br#"{"fault":"slow"}"#), Ok(()));
        assert_eq!(Ask::plain(defaults).delay_ms, SLOW_MS);
        assert_eq!(defaults.set(br#"{"fault":"slow","delay_ms":9}"#), Ok(()));
        assert_eq!(Ask::plain(defaults).delay_ms, 9);
        assert_eq!(defaults.set(br#"{"fault":"explode"}"#), Err(BadStubField));
        assert_eq!(defaults.set(b"{}"), Ok(()));
        assert_eq!(Ask::plain(defaults).fault, None);
    }

    #[test]
    fn refuses_a_stub_field_it_does_not_know() {
        for body in [
            r#"{"stub":{"fault":"explode"}}"#,
            r#"{"stub":{"evnts":3}}"#,
            r#"{"stub":{"events":-1}}"#,
            r#"{"stub":3}"#,
            r#"{"stub":{"events":3"#,
        ] {
            assert_eq!(
                Ask::read(body.as_bytes(), DEFAULTS),
                Err(BadStubField),
                "{body}"
            );
        }
    }

    #[test]
    fn a_nonce_too_long_is_not_echoed() {
        for (length, echoed) in [(NONCE_BYTES_MAX, true), (NONCE_BYTES_MAX + 1, false)] {
            let body = format!(r#"{{"nonce":"{}"}}"#, "n".repeat(length));
            let ask = Ask::read(body.as_bytes(), DEFAULTS).unwrap();
            assert_eq!(ask.nonce.is_some(), echoed, "{length}");
        }
    }
}
