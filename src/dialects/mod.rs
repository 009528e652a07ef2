//! The API families that clients speak, one folder each, and the seam between them and the gateway.
//!
//! A dialect is given values and returns decisions; it sees neither the gateway nor a socket. The
//! gateway asks each question once per request, in this order:
//!
//! ```text
//! ApiFamily: MOUNTS (routes) ─▶ body_limit ─▶ begin
//! Dialect: read ─▶ choose ─▶ ┌ next (widen)* ─▶ picked ─▶ request ─▶ target, payload
//!                            │     ─▶ silence_max, early* ─▶ response ─▶ piece*, idle*, whole, fail
//!                            └── again after a failure
//!          ─▶ end;  notes after every call that may leave some
//! is_long, is_long_piece before read, request, piece, whole: then the dialect goes to another thread
//! for this call, and no other is made meanwhile
//! ApiFamily: error_body, for any error on its routes
//! ```
//!
//! [`Dialect::Plain`] is a request that the endpoint understands as the client wrote it: its arm of
//! every question is a constant. All other dialects are [`Conversation`]s, each with its own
//! [`Translator`]; `CONTRIBUTING.md` has the steps to add one.

pub(crate) mod anthropic;
pub(crate) mod chat;
pub(crate) mod conversation;
mod early;
mod error;
mod family;
mod ollama;
pub(crate) mod responses;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use olla_engine::handler::{End, Request, Response};

use crate::config::{DialectName, Plan};
use crate::endpoint_set::EndpointSet;
use crate::fleet::Endpoint;

pub(crate) use anthropic::Record;
pub(crate) use chat::dropped::{DROPPED_FIELDS, Dropped, counted_as};
pub(crate) use chat::error::RETRY_HEADERS;
pub(crate) use chat::writer::Moment;
use conversation::Conversation;
pub(crate) use early::{EventForm, FailedStream, StreamFailure};
pub(crate) use error::{AccessError, Error};
use family::openai_error;
pub(crate) use family::{ApiFamily, is_ollama_client, ollama_error};
pub(crate) use ollama::{OLLAMA_ROOT, RunningModels, trial as ollama_trial};
use responses::{Owner, ResponseStore};
pub(crate) use routes::{
    Authority, COMMON_ROUTES, CommonRoutes, Computation, ComputeAsk, DialectRoute, MOUNTS, Mount,
    Operation, OwnAsk,
};

/// Bytes that a dialect may work on in one step on a core. The slowest bodies that are known, of many
/// tiny values, cost up to 38 ns a byte: 5 ms. Longer steps go to another thread, with the dialect.
pub(crate) const STEP_BYTES_MAX: usize = 128 << 10;

/// A comment that every reader of event streams skips (docs/contract/surface.md#8.4).
pub(crate) const KEEP_ALIVE_COMMENT: &[u8] = b": keep-alive\n\n";

/// The dialect of one request, with the state that the dialect keeps for it.
#[derive(Debug, Default)]
pub(crate) enum Dialect {
    /// The endpoint understands the request as it is.
    #[default]
    Plain,
    /// An endpoint may get it translated.
    Translated(Box<Conversation>),
}

/// The candidates that a dialect may order.
pub(crate) struct Choosing<'a> {
    /// The endpoints of the snapshot.
    pub endpoints: &'a [Endpoint],
    /// Those that routing found.
    pub candidates: &'a EndpointSet,
    /// The configuration.
    pub plan: &'a Plan,
    /// On the process's clock.
    pub now_ms: u64,
    /// The same time, since 1970.
    pub unix_ms: u64,
    /// Responses that are kept.
    pub responses: &'a Arc<ResponseStore>,
    /// The client that finds the responses of its requests.
    pub owner: &'a dyn Fn() -> Owner,
    /// Whether clients have keys.
    pub is_keyed: bool,
}

/// The request for an endpoint that was picked.
pub(crate) struct Sending<'a> {
    /// The body of the client's request.
    pub body: &'a [u8],
    /// The model as the client wrote it.
    pub model: &'a str,
    /// The model as the endpoint knows it.
    pub name: &'a str,
    /// The type of the endpoint.
    pub kind: &'a str,
    /// The tokens of the context with which the endpoint serves the model, if it reports them.
    pub served_context: &'a dyn Fn() -> Option<u64>,
    /// Sixteen random bytes.
    pub seed: &'a dyn Fn() -> [u8; 16],
    /// The time.
    pub at: Moment,
}

/// The body that an endpoint gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The client's, with the endpoint's name of the model.
    Client,
    /// [`Dialect::payload`].
    Own,
    /// None: the client gets this JSON document.
    Response(Vec<u8>),
}

/// Where a dialect sends a request, below the endpoint's URL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DialectTarget<'e> {
    /// The path.
    pub path: &'e str,
    /// The body is JSON of the dialect's making: headers and a query that describe the client's are
    /// left out.
    pub translated: bool,
    /// The gateway reads the response, so that it must not be compressed.
    pub read_here: bool,
}

/// What becomes of an endpoint's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It passes as it is; `watch` = [`Dialect::watch`] sees its body.
    Pass {
        /// See the variant.
        watch: bool,
    },
    /// Its head passes, its body goes through [`Dialect::piece`], and [`Dialect::idle`] writes to
    /// it after each such time in which the client got nothing.
    Follow(Duration),
    /// Its head is kept back until [`Dialect::whole`] has seen at most this many bytes of body.
    Hold(usize),
    /// It is replaced by what [`Dialect::whole`] makes of at most this many bytes.
    Collect(usize),
    /// It is replaced by a stream that [`Dialect::piece`] writes, and [`Dialect::idle`] after each
    /// such time in which the client got nothing.
    Stream(Duration),
}

/// The result of processing a part of a response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// There is more to come.
    More,
    /// The client's response is complete.
    Complete,
    /// The client's response ends here and must not look complete.
    Broken,
    /// Nothing was written and nothing will be: the client gets this error.
    Refused(Error),
}

/// What a whole response became.
#[derive(Debug)]
pub(crate) enum Whole {
    /// It passes with the head that was held.
    Held,
    /// A JSON document.
    Json(Vec<u8>),
    /// A stream of events.
    Events(Vec<u8>),
    /// An error.
    Refused(Error),
    /// The endpoint does not speak the dialect, and gets no request of it unchanged for this time.
    /// Another attempt is to be made.
    NotSpoken(DialectName, Duration),
    /// Another attempt is to be made.
    Again,
}

/// A message of a dialect for the log or the inspector. The gateway collects them.
#[derive(Debug)]
pub(crate) enum Note {
    /// Something of the request or response has no counterpart in the other dialect.
    NotTranslated(String),
    /// A field of the request had no effect: the translator and the field's name.
    Dropped(&'static str, String),
    /// The name of a session was not a valid file name.
    SessionReplaced,
    /// A line for the inspector's files.
    Record(Box<Record>),
}

/// A translator's part of a request, for the statistics (docs/contract/translation.md#14).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    /// The translator's name, such as `anthropic`.
    pub translator: &'static str,
    /// Passed through, else translated.
    pub passthrough: bool,
    /// Whether a valid request asked for a stream.
    pub streaming: bool,
    /// The stream ended with an error.
    pub failed: bool,
    /// Why it was not passed through.
    pub fallback: Option<Fallback>,
}

/// The tokens of a translated request and of its response so far, as the client is told them if the
/// endpoint does not report them (docs/contract/translation.md#8.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EstimatedUsage {
    /// Of the request.
    pub prompt: u64,
    /// Of the response.
    pub completion: u64,
}

/// Why a request was translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// No endpoint was available.
    NoCompatibleEndpoints,
    /// The endpoints do not speak its dialect.
    CannotPassthrough,
}

impl Dialect {
    /// The body is complete. `model` holds the name that inspection found; a dialect that knows
    /// better replaces it.
    ///
    /// # Errors
    /// The request is invalid and does not even name a model.
    pub(crate) fn read(&mut self, body: &[u8], model: &mut String) -> Result<(), Error> {
        match self {
            Self::Plain => Ok(()),
            Self::Translated(conversation) => conversation.read(body, model),
        }
    }

    /// Routing has found candidates.
    ///
    /// # Errors
    /// The request is invalid.
    pub(crate) fn choose(&mut self, choosing: &Choosing<'_>) -> Result<(), Error> {
        match self {
            Self::Plain => Ok(()),
            Self::Translated(conversation) => conversation.choose(choosing),
        }
    }

    /// The candidates that may be picked now, and those of them that count as tried.
    pub(crate) fn next(
        &mut self,
        candidates: &EndpointSet,
        tried: &EndpointSet,
    ) -> (EndpointSet, EndpointSet) {
        match self {
            Self::Plain => (*candidates, *tried),
            Self::Translated(conversation) => conversation.next(candidates, tried),
        }
    }

    /// All candidates that may be picked, whatever the order.
    pub(crate) fn all(&self, candidates: &EndpointSet) -> EndpointSet {
        match self {
            Self::Plain => *candidates,
            Self::Translated(conversation) => conversation.all(),
        }
    }

    /// The request that was translated is not sent: frees its bytes.
    pub(crate) fn forget_payload(&mut self) {
        if let Self::Translated(conversation) = self {
            conversation.forget_payload();
        }
    }

    /// No candidate of [`Self::next`] could be picked. Returns true if the next call gives others.
    pub(crate) fn widen(&mut self) -> bool {
        match self {
            Self::Plain => false,
            Self::Translated(conversation) => conversation.widen(),
        }
    }

    /// Takes [`Self::widen`] back: candidates that were passed over may be picked after all.
    pub(crate) fn narrow(&mut self) {
        match self {
            Self::Plain => {}
            Self::Translated(conversation) => conversation.narrow(),
        }
    }

    /// The endpoint was picked.
    pub(crate) fn picked(&mut self, index: usize) {
        match self {
            Self::Plain => {}
            Self::Translated(conversation) => conversation.picked(index),
        }
    }

    /// Whether the model is named in the endpoint's own spelling even without an alias.
    pub(crate) const fn respells(&self) -> bool {
        matches!(self, Self::Translated(_))
    }

    /// Whether a step on this many bytes takes too long for a core.
    pub(crate) fn is_long(&self, bytes: usize) -> bool {
        match self {
            Self::Plain => false,
            Self::Translated(conversation) => conversation.load(bytes) > STEP_BYTES_MAX,
        }
    }

    /// Whether [`Self::piece`] takes too long for a core. `ends` = it is the last one.
    pub(crate) fn is_long_piece(&self, piece: &[u8], ends: bool) -> bool {
        match self {
            Self::Plain => false,
            Self::Translated(conversation) => conversation.piece_load(piece, ends) > STEP_BYTES_MAX,
        }
    }

    /// Begins to record the request, once, if the configuration asks for it.
    pub(crate) fn record(&mut self, request: &Request<'_>, plan: &Plan) {
        match self {
            Self::Plain => {}
            Self::Translated(conversation) => conversation.record(request, plan),
        }
    }

    /// Prepares the request for the endpoint that was picked.
    ///
    /// # Errors
    /// The request cannot be expressed in what the endpoint speaks.
    pub(crate) fn request(&mut self, sending: &Sending<'_>) -> Result<Sent, Error> {
        match self {
            Self::Plain => Ok(Sent::Client),
            Self::Translated(conversation) => conversation.request(sending),
        }
    }

    /// The path of the request at the picked endpoint; `None` = the client's own path.
    pub(crate) fn target<'e>(&self, endpoint: &'e Endpoint) -> Option<DialectTarget<'e>> {
        match self {
            Self::Plain => None,
            Self::Translated(conversation) => conversation.target(endpoint),
        }
    }

    /// The body for the endpoint, if it is not the client's.
    pub(crate) fn payload(&self) -> Option<&[u8]> {
        match self {
            Self::Plain => None,
            Self::Translated(conversation) => conversation.payload(),
        }
    }

    /// The longest time in which the client of a stream gets nothing while no endpoint has responded.
    /// `keep_alive` = the configured one.
    pub(crate) fn silence_max(&self, keep_alive: Duration) -> Duration {
        match self {
            Self::Plain => keep_alive,
            Self::Translated(conversation) => conversation.silence_max(keep_alive),
        }
    }

    /// The client has got nothing for that time: appends the first events of the stream that the
    /// dialect writes, later what keeps it alive. Returns false if the response is to pass as the
    /// endpoint sends it. From then on all attempts are translated.
    pub(crate) fn early(&self, at: Moment, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Plain => false,
            Self::Translated(conversation) => conversation.early(at, out),
        }
    }

    /// The end of a stream that [`Self::early`] has begun and that gets an error in place of a
    /// response; `None` = it has begun none.
    pub(crate) fn fail(&mut self, error: &Error, at: Moment) -> Option<Vec<u8>> {
        match self {
            Self::Plain => None,
            Self::Translated(conversation) => conversation.fail(error, at),
        }
    }

    /// The head of the picked endpoint's response has come. `keep_alive` is the configured time after
    /// which a silent stream gets a sign of life.
    pub(crate) fn response(
        &mut self,
        response: &Response<'_>,
        endpoint: Option<&Endpoint>,
        keep_alive: Option<Duration>,
    ) -> Reading {
        match self {
            Self::Plain => Reading::Pass { watch: false },
            Self::Translated(conversation) => conversation.response(response, endpoint, keep_alive),
        }
    }

    /// A part of a body that passes as it is.
    pub(crate) fn watch(&mut self, payload: &[u8]) {
        match self {
            Self::Plain => {}
            Self::Translated(conversation) => conversation.watch(payload),
        }
    }

    /// A part of a body; with `end` it is the last call. Appends to `out` what the client gets.
    pub(crate) fn piece(
        &mut self,
        payload: &[u8],
        end: Option<End>,
        at: Moment,
        out: &mut Vec<u8>,
    ) -> Piece {
        match self {
            Self::Plain => {
                out.extend_from_slice(payload);
                match end {
                    None => Piece::More,
                    Some(End::Whole) => Piece::Complete,
                    Some(End::Broken(_)) => Piece::Broken,
                }
            }
            Self::Translated(conversation) => conversation.piece(payload, end, at, out),
        }
    }

    /// The client has got nothing for the time that [`Reading::Stream`] or [`Reading::Follow`]
    /// names.
    pub(crate) fn idle(&mut self, at: Moment, out: &mut Vec<u8>) -> Piece {
        match self {
            Self::Plain => Piece::More,
            Self::Translated(conversation) => conversation.idle(at, out),
        }
    }

    /// A whole body that [`Reading::Hold`] or [`Reading::Collect`] asked for.
    /// `index` = the endpoint that sent it.
    pub(crate) fn whole(&mut self, body: &[u8], index: usize, at: Moment) -> Whole {
        match self {
            Self::Plain => Whole::Held,
            Self::Translated(conversation) => conversation.whole(body, index, at),
        }
    }

    /// Whether the client gets a stream that the dialect writes; before the first attempt, whether
    /// it probably does.
    pub(crate) fn writes_stream(&self) -> bool {
        match self {
            Self::Plain => false,
            Self::Translated(conversation) => conversation.writes_stream(),
        }
    }

    /// Whether the response has ended with an error inside its stream.
    pub(crate) fn has_failed(&self) -> bool {
        match self {
            Self::Plain => false,
            Self::Translated(conversation) => conversation.has_failed(),
        }
    }

    /// The client gets an error of this body.
    pub(crate) fn refused(&mut self, body: &[u8]) {
        match self {
            Self::Plain => {}
            Self::Translated(conversation) => conversation.refused(body),
        }
    }

    /// The request is over, with this status. `complete` = the client has got the whole response.
    pub(crate) fn end(&mut self, status: u16, complete: bool) -> Option<Summary> {
        match self {
            Self::Plain => None,
            Self::Translated(conversation) => Some(conversation.end(status, complete)),
        }
    }

    /// What is to be logged or written since the last call.
    pub(crate) fn notes(&mut self) -> Vec<Note> {
        match self {
            Self::Plain => Vec::new(),
            Self::Translated(conversation) => conversation.notes(),
        }
    }

    /// The mode of the last attempt, for the log.
    pub(crate) fn mode(&self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Translated(conversation) => conversation.mode(),
        }
    }

    /// The mode that the first attempt will have, for the log.
    pub(crate) fn first_mode(&self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Translated(conversation) => Some(conversation.first_mode()),
        }
    }

    /// The value of `X-Olla-Mode`.
    pub(crate) fn mode_shown(&self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Translated(conversation) => conversation.mode_shown(),
        }
    }

    /// The endpoint gets, or has got, a request in OpenAI's older API in place of the client's.
    pub(crate) fn is_translated(&self) -> bool {
        match self {
            Self::Plain => false,
            Self::Translated(conversation) => conversation.is_translated(),
        }
    }

    /// An estimate of the tokens, if the last attempt was translated.
    pub(crate) fn estimated_usage(&self) -> Option<EstimatedUsage> {
        match self {
            Self::Plain => None,
            Self::Translated(conversation) => conversation.estimated_usage(),
        }
    }

    /// The fields of the request that have no effect.
    pub(crate) fn dropped(&self) -> Option<&Dropped> {
        match self {
            Self::Plain => None,
            Self::Translated(conversation) => conversation.dropped(),
        }
    }

    /// The media type of streams that the dialect writes.
    pub(crate) fn stream_type(&self) -> &'static str {
        match self {
            Self::Plain => "text/event-stream",
            Self::Translated(conversation) => conversation.stream_type(),
        }
    }

    /// Why the request was not passed through, for the log.
    pub(crate) fn fallback(&self) -> Option<Fallback> {
        match self {
            Self::Plain => None,
            Self::Translated(conversation) => conversation.fallback(),
        }
    }
}
