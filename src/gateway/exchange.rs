//! One request: its state, and the calls of the engine in their order.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use olla_engine::decoding::Decoding;
use olla_engine::exchange::{Fault, Timeouts};
use olla_engine::handler::{
    self, Ask, AtEnd, AtHead, AttemptEnd, Cx, Done, End, Local, Made, Passing, Pick, Refusal,
    Request, Response, Revocation, Routed, Work,
};
use olla_engine::request_turn::RequestTurn;
use olla_engine::tls::TlsClient;

use super::Gateway;
use super::away::{Away, Done as StepDone};
use super::consultation::Consultation;
use super::cors::Grant;
use super::dry_run::DryRun;
use super::early_decoder::EarlyDecoder;
use super::in_queue::InQueue;
use super::keep_alive::EventBorder;
use super::kept::{ConnectionCache, Kept};
use super::picked::Picked;
use super::progress::{Left, RequestTimes};
use super::refused::overloaded;
use super::replies::Ticket;
use super::view::View;
use crate::access::{Client, Key};
use crate::dialects::{ApiFamily, Dialect, EventForm, KEEP_ALIVE_COMMENT, Piece, Reading, Whole};
use crate::encoding::BodyCoding;
use crate::endpoint_set::EndpointSet;
use crate::fleet::Endpoint;
use crate::inspect::{Findings, Form, Splice};
use crate::routing::aliases::AliasUse;
use crate::routing::balance::Lease;
use crate::routing::decide::Refresh;
use crate::routing::rejection::{self, RoutingHeaders};
use crate::routing::route::MatchedRoute;
use crate::routing::sticky::Session;
use crate::shared::LimitHeaders;

/// The longest body of an endpoint's refusal, of which the client gets nothing.
const REFUSAL_BYTES_MAX: usize = 1 << 20;

/// The state of one request.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(super) gateway: Rc<Gateway>,
    /// The view in which the request arrived; after routing, the newest view of that moment.
    pub(super) view: Rc<View>,
    pub(super) client: Client,
    /// The key that the request was admitted with, until its end; `None` if access is off.
    pub(super) key: Option<Arc<Key>>,
    /// How often requests of that key had been cut before.
    pub(super) cuts: u32,
    pub(super) cors: Grant,
    /// What the response shows of the client's rate limit.
    pub(super) limit_headers: Option<LimitHeaders>,
    /// The offset in it refers to [`Self::path`].
    pub(super) route: MatchedRoute,
    pub(super) dialect: Dialect,
    /// It asks where a request would go; the route is that of this request.
    pub(super) dry_run: Option<Box<DryRun>>,
    /// A step of the dialect that another thread takes.
    pub(super) away: Option<Box<Away>>,
    /// Whether the body is still being inspected.
    pub(super) inspects: bool,
    /// Reads the body instead of the inspector if it is a form.
    pub(super) form: Option<Box<Form>>,
    pub(super) findings: Findings,
    pub(super) coding: BodyCoding,
    /// The route is one whose requests name a model.
    pub(super) needs_model: bool,
    /// The request takes a slot of its endpoint.
    pub(super) takes_slot: bool,
    /// It waits for a slot.
    pub(super) in_queue: Option<Box<InQueue>>,
    /// It waited before, since this time.
    pub(super) queued_since: Option<Instant>,
    /// The gateway itself responded with what was requested.
    pub(super) is_served_here: bool,
    /// Why no model was found in the body.
    pub(super) missing: Option<&'static str>,
    pub(super) routing: Option<RoutingHeaders>,
    pub(super) alias: Option<AliasUse>,
    pub(super) candidates: EndpointSet,
    pub(super) tried: EndpointSet,
    pub(super) attempts: u32,
    /// Responses that were given up for another endpoint.
    pub(super) given_up: u8,
    /// The endpoints that closed the connection on the whole request, in this order.
    pub(super) dropped_by: [Option<usize>; 2],
    /// [`Live::deaths`](crate::fleet::Live::deaths) of the endpoint when it was picked.
    pub(super) deaths: u32,
    /// The endpoint that is being left, until the next one is picked.
    pub(super) left: Option<Left>,
    /// The attempt in progress.
    pub(super) lease: Option<Lease>,
    /// Index of the endpoint of the last attempt.
    pub(super) endpoint: Option<usize>,
    /// The body in place of the client's or the dialect's, with the salt of the key's cache.
    pub(super) salted: Option<Vec<u8>>,
    /// Replaces the client's name of the model by that of the endpoint.
    pub(super) splice: Option<Splice>,
    pub(super) session: Option<Session>,
    pub(super) refresh: Refresh,
    /// The reply of the control or pages thread that the request waits for.
    pub(super) ticket: Option<Ticket>,
    /// Status sent to the client; 0 = none yet.
    pub(super) status: u16,
    /// The last endpoint has refused the gateway's own credentials.
    pub(super) is_auth_refused: bool,
    /// Status of the last endpoint's response.
    pub(super) upstream_status: Option<u16>,
    /// Why the last attempt got no response.
    pub(super) failed_by: Option<Fault>,
    pub(super) times: RequestTimes,
    /// Whether the end of the response is kept for its token statistics.
    pub(super) reads_figures: bool,
    /// An endpoint is consulted for a response that the gateway could make itself.
    pub(super) consultation: Option<Box<Consultation>>,
    /// Follows an event stream that is kept alive.
    pub(super) border: Option<EventBorder>,
    /// The form of the stream whose head the gateway has sent itself.
    pub(super) early: Cell<Option<EventForm>>,
    /// The endpoint's response passes unaltered after that head.
    pub(super) is_early_stream: bool,
    /// Undoes the compression of a response of which that head says nothing.
    pub(super) early_decoder: Option<EarlyDecoder>,
    pub(super) kept: Box<ConnectionCache>,
}

impl Exchange {
    pub(super) fn new(gateway: Rc<Gateway>, view: Rc<View>, kept: Kept) -> Self {
        let mut kept = kept.unwrap_or_default();
        kept.clear();
        Self {
            gateway,
            view,
            client: Client::UNKNOWN,
            key: None,
            cuts: 0,
            cors: Grant::Off,
            limit_headers: None,
            route: MatchedRoute::unknown(ApiFamily::default()),
            dialect: Dialect::Plain,
            dry_run: None,
            inspects: false,
            form: None,
            findings: Findings::default(),
            coding: BodyCoding::None,
            needs_model: false,
            takes_slot: false,
            in_queue: None,
            queued_since: None,
            is_served_here: false,
            missing: None,
            routing: None,
            alias: None,
            candidates: EndpointSet::EMPTY,
            tried: EndpointSet::EMPTY,
            attempts: 0,
            given_up: 0,
            dropped_by: [None; 2],
            deaths: 0,
            left: None,
            lease: None,
            endpoint: None,
            splice: None,
            salted: None,
            session: None,
            refresh: Refresh::Before,
            ticket: None,
            status: 0,
            is_auth_refused: false,
            upstream_status: None,
            failed_by: None,
            times: RequestTimes::default(),
            reads_figures: false,
            consultation: None,
            border: None,
            early: Cell::new(None),
            is_early_stream: false,
            early_decoder: None,
            away: None,
            kept,
        }
    }

    /// The model that the client requested.
    pub(super) fn model(&self) -> Option<&str> {
        Some(self.kept.model.as_str()).filter(|model| !model.is_empty())
    }

    /// The path in normal form.
    pub(super) fn path<'b>(&'b self, request: &Request<'b>) -> &'b [u8] {
        if self.kept.own_path.is_empty() {
            request.head.path.of(request.bytes)
        } else {
            &self.kept.own_path
        }
    }

    /// The part of the path that is the route's own.
    pub(super) fn rest<'b>(&'b self, request: &Request<'b>) -> &'b [u8] {
        self.route.rest(self.path(request))
    }

    /// The endpoint of the last attempt.
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.view.endpoint(self.endpoint?)
    }

    /// Converts the result of a dialect for the engine.
    fn made(&mut self, ask: &Ask<'_>, piece: Piece) -> Made {
        match piece {
            Piece::More => Made::More,
            Piece::Complete => Made::Complete,
            Piece::Broken => Made::Broken,
            Piece::Refused(error) => {
                let mut own = Box::<Local>::default();
                self.error(ask.cx, Some(&ask.request), &error, &mut own);
                Made::Own(own)
            }
        }
    }
}

impl handler::Exchange for Exchange {
    type Kept = Kept;

    fn head(&mut self, ask: &Ask<'_>, local: &mut Local) -> AtHead {
        let at_head = self.arrive(ask, local);
        self.times.headed = Some(ask.cx.now);
        at_head
    }

    fn refuse(
        &mut self,
        cx: &Cx<'_>,
        request: Option<&Request<'_>>,
        refusal: Refusal,
        local: &mut Local,
    ) {
        self.refuse_request(cx, request, refusal, local);
    }

    fn decoding(&mut self) -> Option<Decoding> {
        self.begin_decoding()
    }

    fn arrived(&mut self, body: &[u8]) {
        if self.inspects && !matches!(self.coding, BodyCoding::Encoded(_)) {
            match &mut self.form {
                None => self.kept.inspector.advance(body),
                Some(form) => form.advance(body),
            }
        }
    }

    fn route(&mut self, ask: &Ask<'_>, local: &mut Local) -> Routed {
        self.times.routed.get_or_insert(ask.cx.now);
        if self.is_cut() {
            self.refuse_cut(ask, local);
            return Routed::Respond;
        }
        if self.dry_run.is_some() {
            return self.run_dry(ask, local);
        }
        if !self.route.is_proxied() {
            return self.respond_locally(ask, local);
        }
        let routed = self.decide(ask, local);
        if routed == Routed::Upstream {
            self.log_received(ask);
        }
        routed
    }

    fn pick(&mut self, ask: &Ask<'_>, failed: Option<Fault>, local: &mut Local) -> Pick {
        if self.consultation.is_some() {
            return self.pick_authority(ask, local);
        }
        if self.is_cut() {
            self.in_queue = None;
            self.refuse_cut(ask, local);
            return Pick::Respond;
        }
        match self.pick_endpoint(ask, failed) {
            Ok(Picked::Upstream(target)) => Pick::Upstream(target),
            Ok(Picked::Later) => Pick::Work,
            Ok(Picked::Wait(until)) => Pick::Wait(until),
            Ok(Picked::Response(body)) => {
                self.json(ask, body.into(), local);
                Pick::Respond
            }
            Err(error) => {
                self.error(ask.cx, Some(&ask.request), &error, local);
                Pick::Respond
            }
        }
    }

    fn client(&self) -> Option<IpAddr> {
        Some(self.client.address())
    }

    fn turn(&self) -> Option<&Rc<RequestTurn>> {
        Some(self.in_queue.as_ref()?.turn())
    }

    fn addresses(&self) -> Arc<[SocketAddr]> {
        self.endpoint()
            .map_or_else(|| Arc::from([]), |endpoint| Arc::clone(&endpoint.addresses))
    }

    fn tls(&self) -> Option<TlsClient> {
        self.endpoint()?.upstream.tls.clone()
    }

    fn timeouts(&self) -> Timeouts {
        let usual = self.patient(self.view.timeouts);
        self.consultation
            .as_ref()
            .map_or(usual, |consultation| consultation.timeouts(usual))
    }

    fn revocation(&self) -> Option<Revocation> {
        self.cut_by()
    }

    fn leaves(&self, now: Instant) -> bool {
        self.leaves_dead_endpoint(now)
    }

    fn early_after(&self, ask: &Ask<'_>) -> Option<Duration> {
        self.early_head_after(ask)
    }

    fn early(&self, ask: &Ask<'_>, head: Option<&mut Vec<u8>>, body: &mut Vec<u8>) {
        self.write_early(ask, head, body);
    }

    fn request_head(&mut self, ask: &Ask<'_>, out: &mut Vec<u8>) {
        self.times.dispatched = Some(ask.cx.now);
        if let Some(endpoint) = self.endpoint() {
            let target = match &self.consultation {
                Some(consultation) => Some(consultation.target()),
                None => self.target(endpoint),
            };
            self.write_request_head(&ask.request, endpoint, target, out);
            self.log_dispatching(ask, endpoint, target);
        }
    }

    fn payload<'b>(&'b self, body: &'b [u8]) -> [&'b [u8]; 3] {
        if let Some(salted) = &self.salted {
            return [salted, b"", b""];
        }
        let body = self.body(body);
        match (self.dialect.payload(), &self.splice) {
            (Some(own), _) => [own, b"", b""],
            (None, Some(splice)) => {
                let [before, name, after] = splice.parts(body);
                [self.unmarked(before), name, after]
            }
            (None, None) => [self.unmarked(body), b"", b""],
        }
    }

    fn response_head(
        &mut self,
        ask: &Ask<'_>,
        response: &Response<'_>,
        out: &mut Vec<u8>,
    ) -> Passing {
        if self.consultation.is_some() {
            return self.authority_responds(ask, response);
        }
        self.heard(ask.cx.now);
        self.judge_status(ask, response.head.status);
        self.upstream_status = Some(response.head.status);
        self.times.responded = Some(ask.cx.now);
        let may_be_loading = self.may_say_loading(ask, response);
        if !may_be_loading && self.gives_up(ask, response) {
            return Passing::Again;
        }
        if self.is_auth_refused {
            return Passing::Collect(REFUSAL_BYTES_MAX);
        }
        let kind = self.begin_tail(response);
        if !may_be_loading {
            self.response_begins(ask.cx.now, kind);
        }
        let keep_alive = self.view.plan().proxy.stream_keep_alive;
        let view = Rc::clone(&self.view);
        let endpoint = self.endpoint.and_then(|index| view.endpoint(index));
        let reading = self.dialect.response(response, endpoint, keep_alive);
        if self.early.get().is_some() {
            return self.early_passing(response, reading);
        }
        match reading {
            Reading::Pass { .. } | Reading::Follow(_) if may_be_loading => {
                self.hold_loading(ask, response)
            }
            Reading::Pass { watch } => {
                self.relayed(ask, response, out);
                self.passing(watch, kind)
            }
            Reading::Follow(quiet_max) => {
                self.relayed(ask, response, out);
                Passing::Transform(quiet_max)
            }
            Reading::Hold(bytes_max) => {
                let mut held = std::mem::take(&mut self.kept.held);
                // An attempt that broke off while its body was collected leaves its head here.
                held.clear();
                self.relayed(ask, response, &mut held);
                self.kept.held = held;
                Passing::Collect(bytes_max)
            }
            Reading::Collect(bytes_max) => {
                self.hold_kept_fields(response);
                Passing::Collect(bytes_max)
            }
            Reading::Stream(idle) => {
                self.events(ask, out);
                self.kept_fields(response, out);
                Passing::Transform(idle)
            }
        }
    }

    fn heard(&mut self, now: Instant) {
        if let Some(lease) = &mut self.lease {
            lease.heard(now, |now| self.gateway.common.clock_ms(now));
        }
        if !self.kept.schedule.has_first_byte {
            self.kept.schedule.heard = Some(now);
        }
    }

    fn tap(&mut self, payload: &[u8]) {
        self.payload_arrived();
        self.push_tail(payload);
        self.dialect.watch(payload);
        if let Some(border) = &mut self.border {
            border.push(payload);
        }
    }

    fn silent(&mut self, _: &Ask<'_>, out: &mut Vec<u8>) {
        if self.border.is_some_and(EventBorder::is_here) {
            out.extend_from_slice(KEEP_ALIVE_COMMENT);
            self.gateway.recorder.borrow_mut().kept_alive();
        }
    }

    fn transform(
        &mut self,
        ask: &Ask<'_>,
        payload: &[u8],
        end: Option<End>,
        out: &mut Vec<u8>,
    ) -> Made {
        if let Some(StepDone::Piece(piece, made)) = self.come_back() {
            out.extend_from_slice(&made);
            return self.made(ask, piece);
        }
        self.payload_arrived();
        self.push_tail(payload);
        if self.is_early_stream {
            return self.early_piece(payload, end, out);
        }
        let at = Self::moment(ask.cx);
        if self.dialect.is_long_piece(payload, end.is_some()) {
            self.send_away(move |dialect, payload| {
                let mut made = Vec::new();
                let piece = dialect.piece(payload, end, at, &mut made);
                StepDone::Piece(piece, made)
            });
            return Made::Work;
        }
        let piece = self.dialect.piece(payload, end, at, out);
        self.made(ask, piece)
    }

    fn idle(&mut self, ask: &Ask<'_>, out: &mut Vec<u8>) -> Made {
        let piece = self.dialect.idle(Self::moment(ask.cx), out);
        if self.is_early_stream {
            self.early_idle(out);
        }
        if piece == Piece::More && !out.is_empty() {
            self.gateway.recorder.borrow_mut().kept_alive();
        }
        self.made(ask, piece)
    }

    fn collected(&mut self, ask: &Ask<'_>, response: &[u8], local: &mut Local) -> AtEnd {
        if self.consultation.is_some() {
            return self.authority_has_responded(response, local);
        }
        if self.is_auth_refused {
            self.auth_refused(ask, local);
            return AtEnd::Respond;
        }
        if std::mem::take(&mut self.kept.schedule.may_be_loading)
            && let Some(end) = self.judge_loading(ask, response, local)
        {
            return end;
        }
        let (index, at) = (self.endpoint, Self::moment(ask.cx));
        let whole = match (self.come_back(), index) {
            (Some(StepDone::Whole(whole)), _) => whole,
            (Some(StepDone::Document(events)), _) => {
                return self.early_document_made(events, local);
            }
            (_, None) => Whole::Held,
            (_, Some(index)) => {
                self.push_tail(response);
                if self.dialect.is_long(response.len()) {
                    self.send_away(move |dialect, body| {
                        StepDone::Whole(dialect.whole(body, index, at))
                    });
                    return AtEnd::Work;
                }
                self.dialect.whole(response, index, at)
            }
        };
        self.take_notes(ask.cx);
        if let Some(form) = self.early.get()
            && let Whole::Held = whole
        {
            return self.early_document(ask, form, response, local);
        }
        self.respond_with(ask, whole, response, local)
    }

    fn work(&mut self) -> Work {
        self.away
            .as_mut()
            .and_then(|away| away.take_work())
            .unwrap_or_else(|| Box::new(|_| {}))
    }

    fn failed(&mut self, ask: &Ask<'_>, fault: Fault, local: &mut Local) {
        if self.consultation.is_some() {
            return self.respond_without(ask, local);
        }
        self.failed_by = Some(fault);
        if fault == Fault::Revoked {
            return self.refuse_cut(ask, local);
        }
        if fault == Fault::Local {
            // Nothing is wrong with the endpoint (docs/contract/balancing.md#9.3).
            let error = overloaded("the gateway is out of file descriptors, ports or memory");
            return self.error(ask.cx, Some(&ask.request), &error, local);
        }
        let fault = if fault.is_silence() {
            rejection::Fault::BackendTimeout
        } else {
            rejection::Fault::BackendError
        };
        let error = self.rejected(ask.cx, fault);
        self.error(ask.cx, Some(&ask.request), &error, local);
    }

    fn attempt_ended(&mut self, ask: &Ask<'_>, end: AttemptEnd, bytes: u64) {
        self.end_attempt(ask, end, bytes);
    }

    fn done(mut self, cx: &Cx<'_>, request: Option<&Request<'_>>, done: &Done) -> Kept {
        self.end_dry_run();
        self.record(cx, request, done);
        self.in_queue = None;
        self.end_dispatch(cx.now, false);
        if !done.is_brisk {
            return None;
        }
        self.kept.schedule.clear();
        self.kept.shrink();
        Some(self.kept)
    }
}
