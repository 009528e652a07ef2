//! The seam: the questions that the engine asks while it carries a request.
//!
//! The engine drives and owns all waiting; a handler only answers, at once. It is called on the
//! core that carries the request, one call at a time, through static dispatch. In this order:
//!
//! ```text
//! head ─▶ (arrived)* ─▶ route ─▶ ┌ pick ─▶ upstream_head ─▶ payload ─▶ answer ─▶ (tap|transform)*
//!                                │                            attempt_ended ◀──────────┘
//!                                └── again after a failure, or when `answer` says so
//! ─▶ done
//! ```
//!
//! At most of these points it may answer the request itself instead ([`Local`]). Framing is not
//! its business: it writes status line and fields, the engine adds what frames the message.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::exchange::{Fault, Timeouts};
use crate::h1::Reject;
use crate::h1::framing::RequestFraming;
use crate::h1::head::{RequestHead, ResponseHead};
use crate::tls::TlsClient;

/// What holds while a question is asked.
#[derive(Debug, Clone, Copy)]
pub struct Cx<'a> {
    /// The time, read for this question where it matters, else up to one tick old.
    pub now: Instant,
    /// The client's end of the connection.
    pub peer: SocketAddr,
    /// When the request's first bytes arrived.
    pub arrived: Instant,
    /// The value of a `Date` header.
    pub date: &'a [u8],
    /// Milliseconds since 1970, up to one tick old.
    pub unix_ms: u64,
}

/// A request as it came.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Where what is.
    pub head: &'a RequestHead,
    /// The bytes that the head indexes.
    pub bytes: &'a [u8],
    /// How its body is framed.
    pub framing: RequestFraming,
}

/// A backend's answer as it came, head only.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Where what is.
    pub head: &'a ResponseHead,
    /// The bytes that the head indexes.
    pub bytes: &'a [u8],
    /// Whether the connection to the backend was a kept one.
    pub reused: bool,
}

/// An answer that the handler makes itself.
#[derive(Debug, Default)]
pub struct Local {
    /// Status line and fields, each with its line end; no framing fields, no final empty line.
    pub head: Vec<u8>,
    /// The body; for a HEAD request it is counted and not sent.
    pub body: Bytes,
    /// No `Content-Length` at all, as 204 and 304 want it.
    pub bodyless: bool,
}

impl Local {
    /// Empty again, keeping its room.
    pub fn clear(&mut self) {
        self.head.clear();
        self.body = Bytes::new();
        self.bodyless = false;
    }
}

/// What becomes of a request by its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtHead {
    /// It is answered already; the body, if any, is of no use.
    Answered,
    /// Its body is wanted, up to so many bytes; `None` = without limit.
    Body(Option<u64>),
}

/// What becomes of a complete request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routed {
    /// It is answered already.
    Answered,
    /// It goes to a backend.
    Upstream,
    /// Ask again when there is news, at the latest at this time.
    Wait(Instant),
}

/// Where an attempt goes.
#[derive(Debug, Clone, Copy)]
pub enum Pick {
    /// Nowhere; it is answered already.
    Answered,
    /// To a backend.
    Upstream(Target),
    /// Ask again when there is news, at the latest at this time.
    Wait(Instant),
}

/// A backend for one attempt.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Connections of one key are interchangeable.
    pub key: u64,
    /// How long a connection may be idle and still be used; zero = none is kept.
    pub idle_max: Duration,
    /// TCP keep-alive interval.
    pub keep_alive: Duration,
}

/// How the bytes of an answer reach the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// Untouched.
    Pass,
    /// Untouched, and [`Handler::tap`] sees them.
    Tap,
    /// As [`Handler::transform`] makes them, piece by piece. The head waits for the first of them.
    /// After so long without any, [`Handler::idle`] is asked.
    Transform(Duration),
    /// As [`Handler::collected`] makes them of the whole, which has at most so many bytes.
    Collect(usize),
    /// Not at all: this attempt is over and another is picked.
    Again,
}

/// What a transformation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// There is more to come.
    More,
    /// The client's answer is complete, whatever the backend still has to say.
    Complete,
    /// The client's answer ends here and shall not look whole.
    Broken,
    /// Nothing was made and nothing will be: [`Handler::collected`] has the answer instead. Where
    /// the head is out already, this is [`Self::Broken`].
    Instead,
}

/// Where the end of an answer was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where its framing says.
    Whole,
    /// Somewhere before.
    Broken(Fault),
}

/// How one attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// The backend's answer came whole.
    Whole,
    /// It did not.
    Failed(Fault),
    /// Nobody waits for it any more, or the handler wanted another.
    Abandoned,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The client has a whole answer of a backend.
    Relayed,
    /// The client has an answer of the handler's own.
    Local,
    /// The client saw its answer break off.
    Broken(Fault),
    /// The client left before.
    ClientLeft,
}

/// The figures of a request that ended.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body that were sent to the client.
    pub answer_bytes: u64,
    /// From arrival to the first byte of the answer, if there was one.
    pub first_byte: Option<Duration>,
    /// From arrival to the end.
    pub total: Duration,
}

/// What is wrong with a request before it could be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The head is not HTTP/1.1, or is ambiguous.
    Head(Reject),
    /// The body is larger than the handler wanted.
    BodyTooLarge,
    /// The body is not framed as announced, or ended too soon.
    BodyBroken,
    /// The body did not come in time.
    BodyTooSlow,
    /// There is no room for another body.
    NoRoom,
}

/// Bounds that the handler's configuration sets; asked for at the start of each request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a head, a bound against endless ones.
    pub head_bytes_max: usize,
    /// From the first byte of a head to its end.
    pub head_timeout: Duration,
    /// The whole request, head and body.
    pub request_timeout: Option<Duration>,
    /// Between two requests.
    pub idle_timeout: Option<Duration>,
}

/// What the engine carries requests for. See the module for the order of the calls.
pub trait Handler: 'static {
    /// The state of one request; a connection makes one and uses it for all its requests.
    type Exchange: Default + 'static;

    /// The bounds in force.
    fn limits(&self) -> Limits;

    /// The head is complete and well framed. The state is that of the last request and must be
    /// begun anew.
    fn head(
        &self,
        cx: &Cx<'_>,
        x: &mut Self::Exchange,
        request: &Request<'_>,
        local: &mut Local,
    ) -> AtHead;

    /// The request cannot be served; the connection closes after the answer. `request` is there if
    /// its head was understood, and then `head` has been called.
    fn refuse(
        &self,
        cx: &Cx<'_>,
        x: &mut Self::Exchange,
        request: Option<&Request<'_>>,
        refusal: Refusal,
        local: &mut Local,
    );

    /// A part of the body has arrived; `body` is all of it so far.
    fn arrived(&self, x: &mut Self::Exchange, body: &[u8]);

    /// The request is complete.
    fn route(
        &self,
        cx: &Cx<'_>,
        x: &mut Self::Exchange,
        request: &Request<'_>,
        body: &[u8],
        local: &mut Local,
    ) -> Routed;

    /// Where to go, now or after an attempt that failed.
    fn pick(
        &self,
        cx: &Cx<'_>,
        x: &mut Self::Exchange,
        request: &Request<'_>,
        body: &[u8],
        failed: Option<Fault>,
        local: &mut Local,
    ) -> Pick;

    /// The addresses of the backend that was picked, the preferred first; asked only when a
    /// connection has to be made.
    fn addresses(&self, x: &Self::Exchange) -> Arc<[SocketAddr]>;

    /// How a connection to the backend that was picked is secured, `None` if it is plain; asked
    /// after [`Self::addresses`]. Connections of one [`Target::key`] must not differ in it.
    fn tls(&self, x: &Self::Exchange) -> Option<TlsClient>;

    /// How long this exchange may take where.
    fn timeouts(&self, x: &Self::Exchange) -> Timeouts;

    /// Writes request line and fields for the backend that was picked; no framing fields, no final
    /// empty line.
    fn upstream_head(
        &self,
        cx: &Cx<'_>,
        x: &mut Self::Exchange,
        request: &Request<'_>,
        body: &[u8],
        out: &mut Vec<u8>,
    );

    /// The body for the backend, in up to three parts.
    fn payload<'b>(&'b self, x: &'b Self::Exchange, body: &'b [u8]) -> [&'b [u8]; 3];

    /// Writes status line and fields for the client (not for `Collect` and `Again`), and chooses
    /// how the bytes pass.
    fn answer(
        &self,
        cx: &Cx<'_>,
        x: &mut Self::Exchange,
        request: &Request<'_>,
        answer: &Answer<'_>,
        out: &mut Vec<u8>,
    ) -> Passing;

    /// Bytes of the body that pass.
    fn tap(&self, x: &mut Self::Exchange, payload: &[u8]);

    /// Makes other bytes of them. With `end` it is the last call.
    fn transform(
        &self,
        x: &mut Self::Exchange,
        payload: &[u8],
        end: Option<End>,
        out: &mut Vec<u8>,
    ) -> Made;

    /// Nothing has come for a while.
    fn idle(&self, x: &mut Self::Exchange, out: &mut Vec<u8>) -> Made;

    /// Makes an answer of a whole one. False: pick again instead.
    fn collected(
        &self,
        cx: &Cx<'_>,
        x: &mut Self::Exchange,
        request: &Request<'_>,
        body: &[u8],
        local: &mut Local,
    ) -> bool;

    /// No backend could serve it; the last fault says why.
    fn failed(
        &self,
        cx: &Cx<'_>,
        x: &mut Self::Exchange,
        request: &Request<'_>,
        fault: Fault,
        local: &mut Local,
    );

    /// The attempt that the last pick began is over. Called once for each.
    fn attempt_ended(&self, cx: &Cx<'_>, x: &mut Self::Exchange, end: AttemptEnd, bytes: u64);

    /// The request is over. Called once for each request that `head` or `refuse` was called for.
    fn done(&self, cx: &Cx<'_>, x: &mut Self::Exchange, request: Option<&Request<'_>>, done: &Done);

    /// Called a few dozen times a second while the core has connections.
    fn tick(&self, now: Instant);

    /// The core's bell was rung: there may be news.
    fn news(&self, now: Instant);
}
