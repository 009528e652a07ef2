//! Anthropic's Messages API: passed through to endpoints that speak it, translated for the others.
//!
//! [`Conversation`] is the state of one request. `request.rs` has its methods for the request to
//! the endpoint, `response.rs` those for the response. [`own`] has the routes that need no
//! endpoint, [`split`] separates candidates that speak the API from the others, [`translate`] maps
//! one API to the other, and [`recording`] and [`records`] write the inspector's files.
//!
//! Contract: docs/contract/translation.md

mod own;
mod recording;
mod records;
mod request;
mod response;
mod split;
pub(crate) mod translate;

use std::time::Duration;

use crate::dialects::{
    ApiFamily, CommonRoutes, DialectRoute, Error, Fallback, Mount, Note, Operation, Summary,
};
use crate::endpoint_set::EndpointSet;
use recording::Recording;
use response::Replying;
use split::{Mode, Split};
use translate::{Checked, Inflater, Refusal, ResponseContext};

pub(crate) use records::{Record, Records};

/// The routes (docs/contract/translation.md#1).
pub(crate) const MOUNT: Mount = Mount {
    prefix: b"anthropic",
    family: ApiFamily::Anthropic,
    routes: &[
        DialectRoute {
            path: b"",
            allow: "GET, HEAD",
            operation: Operation::List(own::alive),
        },
        DialectRoute {
            path: b"/api/hello",
            allow: "GET, HEAD",
            operation: Operation::List(own::hello),
        },
        MESSAGES,
        COUNT_TOKENS,
        DialectRoute {
            path: b"/v1/models",
            allow: "GET, HEAD",
            operation: Operation::List(own::models),
        },
        DialectRoute {
            path: b"/v1/models/",
            allow: "GET, HEAD",
            operation: Operation::List(own::model),
        },
    ],
};

/// The routes below every prefix and at the root (docs/contract/dialects.md#2.1).
pub(crate) const COMMON_ROUTES: CommonRoutes = CommonRoutes {
    family: ApiFamily::Anthropic,
    routes: &[MESSAGES, COUNT_TOKENS],
};

const MESSAGES: DialectRoute = DialectRoute {
    path: b"/v1/messages",
    allow: "POST",
    operation: Operation::Serve,
};

const COUNT_TOKENS: DialectRoute = DialectRoute {
    path: b"/v1/messages/count_tokens",
    allow: "POST",
    operation: Operation::Compute(&own::COUNT_TOKENS),
};

/// The translator's name in statistics.
const NAME: &str = "anthropic";

/// The longest time in which the client of a stream gets nothing, if streams are kept alive; that of
/// a translated stream in any case (docs/contract/translation.md#8.3,
/// docs/contract/surface.md#8.4).
const IDLE: Duration = Duration::from_secs(10);

/// Bytes of an error response that are read to understand it.
const ERROR_BYTES_MAX: usize = 1 << 20;

/// An endpoint that turned out not to speak the API gets translated requests for this time, or
/// until its models are listed again (docs/contract/translation.md#5).
const REFUSED_FOR: Duration = Duration::from_secs(300);

/// One request of the Messages API.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    subject: Subject,
    split: Split,
    /// No native candidate could be picked: the others may be picked too.
    widened: bool,
    /// The mode of the last attempt.
    mode: Option<Mode>,
    /// The endpoint that gets the request once more, translated.
    again: Option<usize>,
    /// The translated request; empty unless the picked endpoint gets one.
    outgoing: Vec<u8>,
    context: Option<Box<ResponseContext>>,
    replying: Replying,
    /// Undoes the compression of a response that has to be read.
    inflater: Option<Box<Inflater>>,
    failed: bool,
    /// The inspector's recording, if the inspector is enabled.
    recording: Option<Box<Recording>>,
    notes: Vec<Note>,
}

/// The validated body of the request.
#[derive(Debug, Default)]
enum Subject {
    /// It has not been read.
    #[default]
    Unread,
    /// It does not name a model.
    Unusable,
    /// It names a model but is invalid. The error is sent after candidates are chosen, because the
    /// statistics distinguish passed through from translated requests.
    Invalid(Refusal),
    /// It is valid.
    Valid(Box<Checked>),
}

impl Conversation {
    fn checked(&self) -> Option<&Checked> {
        match &self.subject {
            Subject::Valid(checked) => Some(checked),
            _ => None,
        }
    }

    /// See [`super::Dialect::mode_shown`].
    pub(super) fn mode_shown(&self) -> Option<&'static str> {
        (self.mode == Some(Mode::Passthrough)).then(|| Mode::Passthrough.as_str())
    }

    /// See [`super::Dialect::mode`].
    pub(super) fn mode(&self) -> Option<&'static str> {
        self.mode.map(Mode::as_str)
    }

    /// See [`super::Dialect::first_mode`].
    pub(super) fn first_mode(&self) -> &'static str {
        self.split.next(&EndpointSet::EMPTY).1.as_str()
    }

    /// See [`super::Dialect::fallback`] (docs/contract/translation.md#14).
    pub(super) fn fallback(&self) -> Option<Fallback> {
        match (self.mode, &self.subject) {
            (Some(Mode::Passthrough), _) => None,
            (Some(Mode::Translation), _) => Some(Fallback::CannotPassthrough),
            (None, Subject::Unread | Subject::Unusable) => None,
            // Routing found no candidates.
            (None, Subject::Invalid(_) | Subject::Valid(_)) => {
                Some(Fallback::NoCompatibleEndpoints)
            }
        }
    }

    /// See [`super::Dialect::notes`].
    pub(super) fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    fn warn<'w>(&mut self, warnings: impl IntoIterator<Item = &'w translate::Warning>) {
        let notes = warnings.into_iter().map(ToString::to_string);
        self.notes.extend(notes.map(Note::NotTranslated));
    }

    /// See [`super::Dialect::has_failed`].
    pub(super) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// See [`super::Dialect::refused`].
    pub(super) fn refused(&mut self, body: &[u8]) {
        if let Some(recording) = &mut self.recording {
            recording.whole(body);
        }
    }

    /// See [`super::Dialect::end`].
    pub(super) fn end(&mut self, status: u16) -> Summary {
        self.outgoing = Vec::new();
        if let Replying::Events(stream) = std::mem::take(&mut self.replying) {
            self.warn(stream.warnings());
        }
        if let Some(recording) = self.recording.take().filter(|it| it.has_request()) {
            let record = Box::new(recording.response(status));
            self.notes.push(Note::Record(record));
        }
        Summary {
            translator: NAME,
            passthrough: self.mode == Some(Mode::Passthrough),
            streaming: self.checked().is_some_and(|checked| checked.stream),
            failed: self.failed,
            fallback: self.fallback(),
        }
    }
}

/// The body of an error in Anthropic's shape.
pub(super) fn error_body(error: &Error, request_id: &str) -> Vec<u8> {
    translate::error_body(error.status, &error.message, request_id)
}

/// What an endpoint's error response says.
pub(super) fn backend_error(status: u16, body: &[u8]) -> Error {
    let refusal = translate::error_from_backend(status, body);
    Error::new(
        refusal.status,
        "bad_gateway",
        "BACKEND_ERROR",
        refusal.message,
    )
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let kind = translate::error_kind(refusal.status);
        Self::new(refusal.status, kind, "", refusal.message)
    }
}
