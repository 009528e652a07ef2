//! What a dialect has to know so that its requests can go to any endpoint: the one trait that a
//! translation implements. Everything else of a request is [`Conversation`](super::Conversation)'s.
//!
//! An implementation is pure: it is given bytes, times and seeds, and returns bytes and decisions.
//! It sees no socket, clock or lock. Its methods are called in this order for one request:
//!
//! ```text
//! check ─▶ demand ─▶ for each attempt:
//!     native endpoint:  (native, is_excluded_by) ─▶ holds_native ─▶ native_verdict
//!                                                └▶ follower, begin_watch ─▶ watch*
//!     any other:        to_chat ─▶ whole │ stream │ understood
//! ─▶ end
//! ```

use std::fmt;
use std::time::Duration;

use olla_engine::handler::Request;

use super::{BodyRecorder, NativeStream};
use crate::config::{DialectName, Plan};
use crate::dialects::chat::dropped::Dropped;
use crate::dialects::chat::error::Refusal;
use crate::dialects::chat::ids::IdSeed;
use crate::dialects::chat::stream::ChatStream;
use crate::dialects::chat::warning::{Translated, Warning};
use crate::dialects::chat::writer::Moment;
use crate::dialects::{Choosing, Note};
use crate::fleet::Endpoint;
use crate::providers::CommonOperation;

/// One request of a dialect, and what the translation of its response needs of it.
pub(crate) trait Translator: fmt::Debug + Send {
    /// What holds for every request of the dialect.
    fn facts(&self) -> &'static TranslatorFacts;

    /// Reads the body, once, before anything else. Later calls that need the body get the same
    /// bytes again, so positions in it may be kept.
    fn check(&mut self, body: &[u8]) -> CheckedRequest;

    /// Which of the candidates the request may go to, besides what limitations say. `checked` is
    /// what [`Self::check`] found out.
    fn demand(&mut self, choosing: &Choosing<'_>, checked: &CheckedRequest) -> Demand {
        let _ = choosing;
        checked.demand.clone()
    }

    /// How the endpoint speaks the dialect itself.
    fn native<'e>(&self, endpoint: &'e Endpoint) -> NativeSupport<'e>;

    /// Whether a limitation, by its name in a profile, keeps this request from being passed through.
    /// Unknown names are information.
    fn is_excluded_by(&self, limitation: &str) -> bool;

    /// The request for an endpoint that does not speak the dialect. It may be called several times,
    /// for several endpoints.
    ///
    /// # Errors
    /// Status 400: the request cannot be expressed in what the endpoint speaks.
    fn to_chat(&mut self, making: &ChatMaking<'_>) -> Result<Outgoing, Refusal>;

    /// The response to a request that is not streamed, of what the last [`Self::to_chat`] asked for.
    /// `body` has a status below 400; events are put together already.
    ///
    /// # Errors
    /// Status 502: the body is no such response.
    fn whole(&mut self, body: &[u8], at: Moment) -> Result<Translated, Refusal>;

    /// The stream that the client asked for, out of the chunks that the last [`Self::to_chat`] asked
    /// for: `ChatStream::new` with the dialect's [`ChatWriter`](crate::dialects::chat::writer).
    fn stream(&mut self) -> ChatStream {
        self.beginning()
    }

    /// The same stream, of which only the first events, signs of life and an error are written. The
    /// first events of two streams of one request are the same.
    fn beginning(&self) -> ChatStream;

    /// An endpoint's error on a translated request as the client gets it. The writer of a stream has
    /// the same rule ([`ChatWriter::understood`](crate::dialects::chat::writer::ChatWriter)).
    fn understood(&self, error: Refusal) -> Refusal {
        error
    }

    /// The id in the request, besides the model's name, that a native endpoint may say it does not
    /// know (docs/contract/dialects.md#1.2).
    fn named_id(&self) -> Option<&str> {
        None
    }

    /// Whether a native endpoint's response is read whole before its fate is decided: by default
    /// those that may say that the endpoint does not know the route.
    fn holds_native(&self, head: NativeHead) -> bool {
        matches!(head.status, 404 | 405 | 501) || head.status == 200 && head.is_small_json
    }

    /// What becomes of a native endpoint's response that was read whole. `None` = the rule of
    /// docs/contract/dialects.md#1.2 decides.
    fn native_verdict(&self, status: u16, body: &[u8]) -> Option<NativeVerdict> {
        let _ = (status, body);
        None
    }

    /// Follows a native stream that passes, if the dialect adds anything to one.
    fn follower(&self) -> Option<Box<dyn NativeStream>> {
        None
    }

    /// A native endpoint's response begins to pass, or a short one will, unless the verdict is another.
    /// Returns true if [`Self::watch`] is to see its body.
    fn begin_watch(&mut self, start: &NativeStart<'_>) -> bool {
        let _ = start;
        false
    }

    /// A part of a native endpoint's response that passes.
    fn watch(&mut self, payload: &[u8]) {
        let _ = payload;
    }

    /// The request is over. `complete` = the client has got a response without an error.
    fn end(&mut self, complete: bool, notes: &mut Vec<Note>) {
        let _ = (complete, notes);
    }

    /// Records the request and its response, if the configuration asks for it.
    fn recorder(&self, request: &Request<'_>, plan: &Plan) -> Option<Box<dyn BodyRecorder>> {
        let _ = (request, plan);
        None
    }
}

/// What holds for every request of a dialect.
#[derive(Debug)]
pub(crate) struct TranslatorFacts {
    /// The translator's name in statistics and configuration.
    pub name: &'static str,
    /// The dialect.
    pub dialect: DialectName,
    /// The media type of streams.
    pub stream_type: &'static str,
    /// The longest time in which the client of a translated stream gets nothing, if the
    /// configuration has none or a longer one.
    pub silence_max: Option<Duration>,
    /// Events in response to a request that is not streamed are put together; else they are no valid
    /// response.
    pub puts_together: bool,
}

/// What checking the body found out.
#[derive(Debug, Default)]
pub(crate) struct CheckedRequest {
    /// The model; empty if the request names none.
    pub model: String,
    /// The client asks for a stream.
    pub stream: bool,
    /// Why no endpoint may get the request at all. The error is sent after candidates are chosen,
    /// because statistics distinguish passed through from translated requests; without a model at
    /// once.
    pub invalid: Option<Refusal>,
    /// Which endpoints it may go to. What only translation refuses, a missing model among it, is
    /// [`Demand::NativeOnly`].
    pub demand: Demand,
}

/// Which candidates a request may go to (docs/contract/dialects.md#3).
#[derive(Debug, Clone, Default)]
pub(crate) enum Demand {
    /// Any of them.
    #[default]
    Any,
    /// Native ones if there are any: translation would drop something of weight.
    NativeFirst,
    /// Native ones; if there are none the request is refused.
    NativeOnly(Box<Refusal>),
    /// Only this one, which must be native; if it is no candidate the request is refused.
    Endpoint(usize, Box<Refusal>),
    /// Any of them, and none as a native one.
    Translation,
    /// None: the request is refused.
    Nothing(Box<Refusal>),
}

/// An endpoint's own support for a dialect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NativeSupport<'e> {
    /// It does, by its profile. The endpoint's `dialects` decide in place of this.
    pub enabled: bool,
    /// The path for this request; `None` = the client's own.
    pub path: Option<&'e str>,
    /// Limitations of its profile.
    pub limitations: &'e [String],
}

/// What a request for an endpoint is made of.
pub(crate) struct ChatMaking<'a> {
    /// The body of the client's request, as checked.
    pub body: &'a [u8],
    /// The model as the endpoint knows it.
    pub name: &'a str,
    /// The type of the endpoint.
    pub kind: &'a str,
    /// The tokens of the context with which the endpoint serves the model, if it reports them.
    pub served_context: &'a dyn Fn() -> Option<u64>,
    /// For the ids of the response.
    pub seed: IdSeed,
    /// The time.
    pub at: Moment,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// The endpoint gets this.
    Chat(ChatRequest),
    /// The endpoint gets nothing, the client this JSON document.
    Response(Vec<u8>),
}

/// A request in OpenAI's older API.
#[derive(Debug, Default)]
pub(crate) struct ChatRequest {
    /// Compact JSON.
    pub body: Vec<u8>,
    /// Where it goes.
    pub operation: CommonOperation,
    /// The tokens of the client's request, as estimated (docs/contract/translation.md#8.5).
    pub input_tokens: u64,
    /// What of the client's request has no effect.
    pub dropped: Dropped,
    /// What the log is to say.
    pub warnings: Vec<Warning>,
}

/// The head of a native endpoint's response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NativeHead {
    /// Its status.
    pub status: u16,
    /// Its body is a JSON document of about the length of an error.
    pub is_small_json: bool,
}

/// What becomes of a native endpoint's response that was read whole.
#[derive(Debug)]
pub(crate) enum NativeVerdict {
    /// It passes.
    Passes,
    /// The endpoint does not speak the dialect; it gets the request translated.
    NotSpoken,
    /// The endpoint speaks the dialect, but gets this request translated.
    Translated,
    /// The client gets this error instead.
    Error(Refusal),
}

/// The beginning of a native endpoint's response that passes.
#[derive(Debug)]
pub(crate) struct NativeStart<'a> {
    /// Its status.
    pub status: u16,
    /// Whether it is a stream of events.
    pub events: bool,
    /// Whether its body is compressed.
    pub compressed: bool,
    /// The endpoint that sends it.
    pub endpoint: &'a Endpoint,
}
