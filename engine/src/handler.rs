//! The seam between the engine and the program that uses it: the calls that the engine makes while
//! it carries a request.
//!
//! The engine drives the request and owns all waiting; an [`Exchange`] decides, without blocking.
//! It is called on the request's core, one call at a time, through static dispatch, in this order:
//!
//! ```text
//! begin ─▶ head+ ─▶ (arrived)* ─▶ (decoding ─▶ (arrived)*) ─▶ route ─▶
//!     ┌ pick ─▶ request_head ─▶ payload ─▶ (early)* ─▶ response_head ─▶ (tap|silent|transform|idle)*, collected
//!     │                         attempt_ended ◀──────────────────┘
//!     └── again after a failure, or when `response_head` or `collected` asks for it
//! ─▶ done
//! ```
//!
//! At some of these points the exchange may give work away ([`Exchange::work`]) and is called again
//! when it is done; at most of them it may supply the response itself ([`Local`]). A request that
//! cannot be parsed goes `begin ─▶ refuse ─▶ done`. The exchange writes the status line and the
//! fields; the engine adds those that frame the message.

use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::decoding::{Decoding, Undecodable};
use crate::exchange::{Fault, Timeouts};
use crate::h1::framing::RequestFraming;
use crate::h1::head::{RequestHead, ResponseHead};
use crate::h1::{FieldId, FieldNames, Reject, emit};
use crate::request_turn::RequestTurn;
use crate::rt::Exhausted;
use crate::tls::TlsClient;

/// A number that revokes exchanges by changing.
pub trait RevocationNumber: fmt::Debug + Send + Sync {
    /// The number now.
    fn number(&self) -> u32;
}

/// Revokes exchanges: all that began before a number changed.
#[derive(Debug, Clone)]
pub struct Revocation {
    source: Arc<dyn RevocationNumber>,
    begun_at: u32,
}

impl Revocation {
    /// For an exchange that began when the number was `begun_at`.
    pub fn new(source: Arc<dyn RevocationNumber>, begun_at: u32) -> Self {
        Self { source, begun_at }
    }

    /// Whether the exchange is revoked.
    pub fn is_revoked(&self) -> bool {
        self.source.number() != self.begun_at
    }
}

/// The time and the connection of a call.
#[derive(Debug, Clone, Copy)]
pub struct Cx<'a> {
    /// The time, read for this call where it matters, else up to one tick old.
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

/// A request as it was received.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The index of the head.
    pub head: &'a RequestHead,
    /// The bytes that the head indexes.
    pub bytes: &'a [u8],
    /// The framing of its body.
    pub framing: RequestFraming,
}

/// The context of a call about a request with a complete head.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The moment and the connection.
    pub cx: &'a Cx<'a>,
    /// The request.
    pub request: Request<'a>,
    /// The request's body without its framing, decoded if [`Exchange::decoding`] asked for it. Empty
    /// until it is complete, and again once a response is passed on: no attempt needs it then.
    pub body: &'a [u8],
}

/// A backend's response as it was received, head only.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// The index of the head.
    pub head: &'a ResponseHead,
    /// The bytes that the head indexes.
    pub bytes: &'a [u8],
}

/// A response that the exchange makes itself.
#[derive(Debug, Default)]
pub struct Local {
    /// Status line and fields, each with its line end; no framing fields, no final empty line.
    pub head: Vec<u8>,
    /// The body; for a HEAD request it is counted and not sent.
    pub body: Bytes,
    /// No `Content-Length` is sent, as 204 and 304 require.
    pub bodyless: bool,
}

impl Local {
    /// Empties it and keeps the head's capacity.
    pub fn clear(&mut self) {
        self.head.clear();
        self.body = Bytes::new();
        self.bodyless = false;
    }

    /// A response that consists of its status line.
    fn plain(&mut self, status: u16) {
        self.clear();
        emit::status_line(&mut self.head, status, emit::reason(status).as_bytes());
    }
}

/// What becomes of a request once its head is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtHead {
    /// The response is in [`Local`]; the body, if any, is not needed.
    Respond,
    /// The body is read, up to this many bytes; `None` = without limit.
    Body(Option<u64>),
    /// [`Exchange::head`] is called again when there is news, at the latest at this time. Nothing of
    /// the body is read before.
    Wait(Instant),
}

/// What becomes of a complete request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routed {
    /// The response is in [`Local`].
    Respond,
    /// It goes to a backend.
    Upstream,
    /// [`Exchange::route`] is called again when there is news, at the latest at this time.
    Wait(Instant),
    /// [`Exchange::work`] is done on the request's body; then [`Exchange::route`] is called again.
    Work,
}

/// Where an attempt goes.
#[derive(Debug, Clone, Copy)]
pub enum Pick {
    /// No backend: the response is in [`Local`].
    Respond,
    /// A backend.
    Upstream(Target),
    /// [`Exchange::pick`] is called again at the request's turn ([`Exchange::turn`]) or when there is
    /// news, at this time at the latest. Meanwhile the client may get [`Exchange::early`].
    Wait(Instant),
    /// [`Exchange::work`] is done on the request's body; then [`Exchange::pick`] is called again.
    Work,
}

/// A backend for one attempt.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Connections of one key are interchangeable.
    pub key: u64,
    /// Idle timeout of a kept connection; zero disables reuse.
    pub idle_max: Duration,
    /// TCP keep-alive interval.
    pub keep_alive: Duration,
}

impl Default for Target {
    /// The only backend there is.
    fn default() -> Self {
        Self {
            key: 0,
            idle_max: Duration::from_secs(4),
            keep_alive: Duration::from_secs(30),
        }
    }
}

/// How the body of a response reaches the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// Unchanged.
    Pass,
    /// Unchanged, and [`Exchange::tap`] sees it.
    Tap,
    /// As [`Self::Tap`]. After each such time in which the client got nothing,
    /// [`Exchange::silent`] may add bytes, unless the framing of the body leaves no room for them.
    KeepAlive(Duration),
    /// As [`Exchange::transform`] makes it, piece by piece. The head is sent with the first piece.
    /// After each such time in which the client got nothing, [`Exchange::idle`] is called.
    Transform(Duration),
    /// As [`Exchange::collected`] makes it of the whole body, which has at most this many bytes.
    Collect(usize),
    /// Not passed on: this attempt ends and another endpoint is picked.
    Again,
}

impl Passing {
    /// Whether [`Exchange::tap`] sees the body.
    pub(crate) const fn is_tapped(self) -> bool {
        matches!(self, Self::Tap | Self::KeepAlive(_))
    }

    /// The longest time in which the client gets nothing.
    pub(crate) const fn silence_max(self) -> Option<Duration> {
        match self {
            Self::KeepAlive(after) => Some(after),
            _ => None,
        }
    }
}

/// The result of a transformation.
#[derive(Debug)]
pub enum Made {
    /// The response continues.
    More,
    /// The client's response is complete, whatever the backend may still send.
    Complete,
    /// The client's response ends here and must not look complete.
    Broken,
    /// Nothing was made of the backend's response; the client gets this response instead. If the
    /// head has already been sent, this is the same as [`Self::Broken`].
    Own(Box<Local>),
    /// Nothing was made yet: [`Exchange::work`] is done on the piece; then [`Exchange::transform`]
    /// is called again with it. Not for [`Exchange::idle`].
    Work,
}

/// What becomes of a response that was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtEnd {
    /// The client gets the response in [`Local`].
    Respond,
    /// The client gets nothing of it: another attempt is picked.
    Again,
    /// [`Exchange::work`] is done on the body; then [`Exchange::collected`] is called again.
    Work,
}

/// Work that would hold a core for too long. It runs on another thread, on the bytes that the call
/// which asked for it was given.
pub type Work = Box<dyn FnOnce(&[u8]) + Send>;

/// Where a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At the end that its framing defines.
    Whole,
    /// Before that end.
    Broken(Fault),
}

/// How one attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// The backend's response was complete.
    Whole,
    /// The backend's response was not complete, or there was none.
    Failed(Fault),
    /// The client disconnected or stalled, or the exchange requested another attempt.
    Abandoned,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The client has a complete response of a backend.
    Relayed,
    /// The client has a response that the exchange made.
    Local,
    /// The client's response was cut short.
    Broken(Fault),
    /// The client disconnected before its response was complete.
    ClientLeft,
    /// The client took no byte of its response for [`Limits::stall_timeout`]; its connection was
    /// reset.
    ClientStalled,
}

/// Sizes and times of a request that ended.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body that were sent to the client.
    pub response_bytes: u64,
    /// From arrival to the first byte of the response, if there was one.
    pub first_byte: Option<Duration>,
    /// From arrival to the end.
    pub total: Duration,
    /// Whether requests follow each other quickly on the connection, so that keeping pays.
    pub is_brisk: bool,
}

/// Why the engine itself refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The head is not HTTP/1.1, or is ambiguous.
    Head(Reject),
    /// The body is larger than [`AtHead::Body`] allows.
    BodyTooLarge,
    /// The body is not framed as announced, or ended too soon.
    BodyBroken,
    /// The body is not what its coding allows.
    BodyUndecodable(Undecodable),
    /// The body paused for longer than [`Limits::body_pause_max`].
    BodyPaused,
    /// The body arrived at less than [`Limits::body_rate_min`].
    BodyTooSlow,
    /// The memory budget for bodies is used up.
    NoRoom,
}

impl Refusal {
    /// The status of the response.
    pub fn status(self) -> u16 {
        match self {
            Self::Head(reject) => reject.status(),
            Self::BodyTooLarge => 413,
            Self::BodyBroken | Self::BodyUndecodable(_) => 400,
            Self::BodyPaused | Self::BodyTooSlow => 408,
            Self::NoRoom => 503,
        }
    }
}

/// Limits that the handler's configuration sets; read at the start of each request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a head, a bound against endless ones.
    pub head_bytes_max: usize,
    /// From the first byte of a head to its end.
    pub head_timeout: Duration,
    /// The longest pause within a body, which may take any time; `None` = no limit.
    pub body_pause_max: Option<Duration>,
    /// Bytes a second that each full stretch of `body_pause_max` must bring of a body; 0 = none.
    pub body_rate_min: u64,
    /// Between two requests.
    pub idle_timeout: Option<Duration>,
    /// How long a client may take no byte of a response that waits for it.
    pub stall_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 << 10,
            head_timeout: Duration::from_secs(10),
            body_pause_max: Some(Duration::from_secs(30)),
            body_rate_min: 500,
            idle_timeout: Some(Duration::from_secs(120)),
            stall_timeout: Some(Duration::from_secs(60)),
        }
    }
}

/// The program that a core carries requests for: one value per core, which makes its exchanges.
pub trait Handler: Sized + 'static {
    /// The state of one request.
    type Exchange: Exchange;

    /// Field names that have ids besides those of the engine; see [`FieldNames::NAMES`].
    const FIELD_NAMES: &'static [(&'static str, FieldId)] = &[];

    /// The beginning of further such names; see [`FieldNames::PREFIX`].
    const FIELD_PREFIX: Option<(&'static str, FieldId)> = None;

    /// The limits in force.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// A request begins: its head has arrived, or something that is not a head. `kept` is what the
    /// connection's last exchange left, or the default for the first one.
    fn begin(self: &Rc<Self>, kept: <Self::Exchange as Exchange>::Kept) -> Self::Exchange;

    /// Called a few dozen times a second while the core has connections.
    fn tick(&self, _now: Instant) {}

    /// Whether a backend was found dead since the last call: requests that wait for a response are
    /// then called ([`Exchange::leaves`]). Called after each tick.
    fn has_lost_backends(&self) -> bool {
        false
    }

    /// Whether an exchange was revoked since the last call. Called after each tick.
    fn has_revoked(&self) -> bool {
        false
    }

    /// The core's bell was rung: there may be news.
    fn news(&self, _now: Instant) {}

    /// No connection can be accepted because a resource is exhausted. Called before each pause of
    /// accepting, at most ten times a second for a listener.
    fn accept_failed(&self, _resource: Exhausted) {}

    /// A connection to a backend cannot be opened: this machine lacks a resource. Called each time.
    fn connect_failed(&self, _resource: Exhausted) {}
}

/// The field names of a handler.
#[derive(Debug)]
pub(crate) struct NamesOf<H>(PhantomData<H>);

impl<H: Handler> FieldNames for NamesOf<H> {
    const NAMES: &'static [(&'static str, FieldId)] = H::FIELD_NAMES;
    const PREFIX: Option<(&'static str, FieldId)> = H::FIELD_PREFIX;
}

/// One request and its response, from [`Handler::begin`] to [`Self::done`], called as the module says.
pub trait Exchange: Sized + 'static {
    /// What one exchange of a connection leaves to the next, such as buffers.
    type Kept: Default + 'static;

    /// The head is complete and well framed.
    fn head(&mut self, _ask: &Ask<'_>, _local: &mut Local) -> AtHead {
        AtHead::Body(None)
    }

    /// The request cannot be served; the connection closes after the response. `request` is there
    /// if its head was understood, and then [`Self::head`] has been called.
    fn refuse(
        &mut self,
        _cx: &Cx<'_>,
        _request: Option<&Request<'_>>,
        refusal: Refusal,
        local: &mut Local,
    ) {
        local.plain(refusal.status());
    }

    /// The address of the client, to which the memory of its request is charged; `None` = the
    /// peer's. Called after [`Self::head`].
    fn client(&self) -> Option<IpAddr> {
        None
    }

    /// The body is complete and not empty. Its decoder, if it is encoded and has to be read: from here
    /// on the decoded body is the body, and [`Self::arrived`] sees it from its beginning.
    fn decoding(&mut self) -> Option<Decoding> {
        None
    }

    /// A part of the body has arrived; `body` is all of it so far.
    fn arrived(&mut self, _body: &[u8]) {}

    /// The request is complete.
    fn route(&mut self, _ask: &Ask<'_>, _local: &mut Local) -> Routed {
        Routed::Upstream
    }

    /// Chooses the backend, for the first attempt or after one that failed.
    fn pick(&mut self, ask: &Ask<'_>, failed: Option<Fault>, local: &mut Local) -> Pick;

    /// What ends [`Pick::Wait`] for this request alone; `None` = any news of the core.
    fn turn(&self) -> Option<&Rc<RequestTurn>> {
        None
    }

    /// The addresses of the backend that was picked, the preferred one first; called only when a
    /// connection has to be made.
    fn addresses(&self) -> Arc<[SocketAddr]>;

    /// How a connection to the backend that was picked is secured, `None` if it is plain; called
    /// after [`Self::addresses`]. Connections of one [`Target::key`] must not differ in it.
    fn tls(&self) -> Option<TlsClient> {
        None
    }

    /// The time limits. Called when the exchange begins and before each attempt.
    fn timeouts(&self) -> Timeouts {
        Timeouts::default()
    }

    /// Whether the request leaves the backend that was picked, which has sent nothing yet.
    fn leaves(&self, _now: Instant) -> bool {
        false
    }

    /// What revokes the exchange while it is in progress; `None` = nothing. Called once, when the
    /// request is complete. A revoked exchange fails or is cut soon after
    /// [`Handler::has_revoked`].
    fn revocation(&self) -> Option<Revocation> {
        None
    }

    /// Writes the request line and the fields for the backend that was picked; no framing fields,
    /// no final empty line.
    fn request_head(&mut self, ask: &Ask<'_>, out: &mut Vec<u8>);

    /// The body for the backend, in up to three parts.
    fn payload<'b>(&'b self, body: &'b [u8]) -> [&'b [u8]; 3] {
        [body, b"", b""]
    }

    /// The time without a byte after which the client gets bytes of the exchange's own while no
    /// backend has responded ([`Self::early`]); `None` = it waits. Called at the beginning of each
    /// attempt; the time counts from the last byte that the client got, or from when the request was
    /// complete.
    fn early_after(&self, _ask: &Ask<'_>) -> Option<Duration> {
        None
    }

    /// The client has waited for [`Self::early_after`]. Writes the next bytes of its response's body
    /// to `body`; the first time there is `head`, for the status line and the fields.
    ///
    /// Attempts go on as before. Whatever response follows continues this body: its head is
    /// dropped, [`Passing::Pass`], [`Passing::Tap`] and [`Passing::KeepAlive`] become
    /// [`Passing::Transform`], and the body of a [`Local`] is the rest.
    fn early(&self, _ask: &Ask<'_>, _head: Option<&mut Vec<u8>>, _body: &mut Vec<u8>) {}

    /// A backend's response begins. Writes the status line and the fields for the client (not for
    /// [`Passing::Collect`] and [`Passing::Again`]), and chooses how the body passes.
    fn response_head(
        &mut self,
        ask: &Ask<'_>,
        response: &Response<'_>,
        out: &mut Vec<u8>,
    ) -> Passing;

    /// Sees a part of a body that passes unchanged ([`Passing::Tap`]).
    fn tap(&mut self, _payload: &[u8]) {}

    /// Bytes of the response's body have arrived. `now` may be one tick old.
    fn heard(&mut self, _now: Instant) {}

    /// The client has got nothing for the time that [`Passing::KeepAlive`] names. What is written to
    /// `out` becomes part of the body at this place.
    fn silent(&mut self, _ask: &Ask<'_>, _out: &mut Vec<u8>) {}

    /// Writes to `out` what the client gets for a part of the body ([`Passing::Transform`]). With
    /// `end` it is the last call.
    fn transform(
        &mut self,
        _ask: &Ask<'_>,
        payload: &[u8],
        end: Option<End>,
        out: &mut Vec<u8>,
    ) -> Made {
        out.extend_from_slice(payload);
        match end {
            None => Made::More,
            Some(End::Whole) => Made::Complete,
            Some(End::Broken(_)) => Made::Broken,
        }
    }

    /// The client has got nothing for the time that [`Passing::Transform`] names.
    fn idle(&mut self, _ask: &Ask<'_>, _out: &mut Vec<u8>) -> Made {
        Made::More
    }

    /// Makes the client's response of a whole body ([`Passing::Collect`]).
    fn collected(&mut self, _ask: &Ask<'_>, response: &[u8], local: &mut Local) -> AtEnd {
        emit::status_line(&mut local.head, 200, b"OK");
        local.body = Bytes::copy_from_slice(response);
        AtEnd::Respond
    }

    /// The work that the last call asked for ([`Routed::Work`], [`Pick::Work`], [`Made::Work`],
    /// [`AtEnd::Work`]). Until it is done, no other call but [`Self::done`] is made.
    fn work(&mut self) -> Work {
        Box::new(|_| {})
    }

    /// No backend could serve the request; the last fault says why.
    fn failed(&mut self, _ask: &Ask<'_>, fault: Fault, local: &mut Local) {
        local.plain(if fault.is_silence() { 504 } else { 502 });
    }

    /// The attempt that the last pick began is over. Called once for each.
    fn attempt_ended(&mut self, _ask: &Ask<'_>, _end: AttemptEnd, _bytes: u64) {}

    /// The request is over. Called once for each exchange that began.
    fn done(self, _cx: &Cx<'_>, _request: Option<&Request<'_>>, _done: &Done) -> Self::Kept {
        Self::Kept::default()
    }
}
