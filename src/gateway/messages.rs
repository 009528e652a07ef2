//! The Messages API on its way: passed through where the backend speaks it, translated where it
//! does not. What a message is, and how it is translated, `crate::translate` knows.
//!
//! contract: translation 1, 3, 5, 6, 8, 10, 12

use std::time::Duration;

use bytes::Bytes;
use olla_engine::exchange::Fault;
use olla_engine::h1::{FieldId, emit};
use olla_engine::handler::{Answer, Cx, End, Local, Made, Outcome, Passing, Request, Routed};

use super::Gateway;
use super::answers::{self, Error};
use super::exchange::{Exchange, Kind};
use super::view::{View, millis};
use crate::fleet::EndpointSet;
use crate::inspect::rewrite_model;
use crate::operations::stats::{TranslatorEnd, TranslatorFallback};
use crate::routing::messages::{Mode, Split, Uses};
use crate::translate::{
    self, AnswerContext, Checked, EVENT_BYTES_MAX, IdSeed, NativeTail, Progress, RETRY_HEADERS,
    Refusal, StreamTransformer,
};

/// The name of the translator in statistics.
const NAME: &str = "anthropic";

/// When nothing has come for so long, a stream shows that it lives (contract: translation 8.3).
const IDLE: Duration = Duration::from_secs(10);

/// Bytes of an error answer that are read to understand it.
const ERROR_BYTES_MAX: usize = 1 << 20;

/// What a request of the Messages API is about, and how far it is.
#[derive(Debug, Default)]
pub(super) struct Message {
    checked: Option<Box<Checked>>,
    split: Split,
    /// Of the last attempt.
    mode: Option<Mode>,
    /// Endpoints that turned out not to speak the API.
    refused: EndpointSet,
    /// The endpoint to ask once more, by translation.
    again: Option<usize>,
    /// The translated request.
    body: Vec<u8>,
    translated: bool,
    context: Option<Box<AnswerContext>>,
    stream: Option<Box<StreamTransformer>>,
    native: Option<Box<NativeTail>>,
    /// The head of an answer that was held back until its body is known.
    held: Vec<u8>,
    collecting: Collecting,
    refusal: Option<Refusal>,
    failed: bool,
}

/// Where a message goes.
#[derive(Debug)]
pub(super) struct MessageTarget {
    /// Below the endpoint's URL.
    pub(super) path: String,
    /// As an OpenAI chat completion.
    pub(super) translated: bool,
}

/// Why a whole answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Collecting {
    #[default]
    Nothing,
    /// To translate it.
    Answer,
    /// To translate it into a stream that the client asked for.
    Stream,
    /// To translate an error of this status.
    Error(u16),
    /// To see whether a native endpoint speaks the API at all.
    Native(u16),
}

impl Message {
    pub(super) fn begin(&mut self) {
        if self.checked.is_some() {
            *self = Self {
                body: std::mem::take(&mut self.body),
                ..Self::default()
            };
        }
    }

    /// The value of `X-Olla-Mode`.
    pub(super) fn mode_shown(&self) -> Option<&'static str> {
        (self.mode == Some(Mode::Passthrough)).then_some("passthrough")
    }

    /// The mode in words, for the log.
    pub(super) fn mode(&self) -> Option<&'static str> {
        self.mode.map(|mode| match mode {
            Mode::Passthrough => "passthrough",
            Mode::Translation => "translation",
        })
    }

    /// The body for the backend, when it is another than the client's.
    pub(super) fn payload(&self) -> Option<&[u8]> {
        self.translated.then_some(self.body.as_slice())
    }

    /// Takes note of bytes that passed.
    pub(super) fn saw(&mut self, payload: &[u8]) {
        if let Some(native) = &mut self.native {
            native.push(payload);
        }
    }

    /// Who may be picked now, and who counts as tried.
    pub(super) fn choice(
        &mut self,
        candidates: &EndpointSet,
        tried: &EndpointSet,
    ) -> (EndpointSet, EndpointSet) {
        if self.checked.is_none() {
            return (*candidates, *tried);
        }
        if let Some(index) = self.again.take() {
            self.mode = Some(Mode::Translation);
            return ([index].into_iter().collect(), EndpointSet::EMPTY);
        }
        let (set, mode) = self.split.next(tried);
        self.mode = Some(mode);
        (set, *tried)
    }
}

/// An error in Anthropic's shape.
pub(super) fn error_body(error: &Error<'_>, request_id: &str) -> Bytes {
    Bytes::from(translate::error_body(
        error.status,
        &error.message,
        request_id,
    ))
}

impl Gateway {
    /// Checks the request and finds candidates.
    pub(super) fn decide_message(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        body: &[u8],
        local: &mut Local,
    ) -> Routed {
        if x.message.checked.is_none() {
            match translate::check(body) {
                Ok(checked) => {
                    self.inspect(x, body);
                    x.model.clear();
                    x.model.push_str(&checked.model);
                    x.message.checked = Some(Box::new(checked));
                }
                Err(refusal) => {
                    x.message.checked = None;
                    self.refuse_message(cx, x, request, &refusal, local);
                    return Routed::Answered;
                }
            }
        }
        let routed = self.decide(cx, x, request, body, local);
        if routed == Routed::Upstream {
            let Some(view) = x.view.clone() else {
                return routed;
            };
            let Some(checked) = &x.message.checked else {
                return routed;
            };
            let uses = Uses {
                tools: checked.uses_tools,
                thinking: checked.uses_thinking,
                vision: checked.has_images,
            };
            let passthrough = view.plan().translators.anthropic.passthrough_enabled;
            let refused = view.snapshot.messages_refused.or(&x.message.refused);
            x.message.split = Split::new(
                &view.snapshot.fleet.endpoints,
                &x.candidates,
                uses,
                passthrough,
                &refused,
            );
        }
        routed
    }

    fn refuse_message(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        refusal: &Refusal,
        local: &mut Local,
    ) {
        let error = Error::new(refusal.status, refusal.kind(), "", refusal.message.clone());
        answers::error(cx, x, Some(request), &error, local);
    }

    /// Translates the request for the endpoint that was picked, if it has to be; an answer if it
    /// cannot be.
    pub(super) fn translate_for_endpoint(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        view: &View,
        request: &Request<'_>,
        body: &[u8],
        local: &mut Local,
    ) -> bool {
        let Some(checked) = &x.message.checked else {
            return true;
        };
        let index = x.endpoint.unwrap_or(usize::MAX);
        let snapshot = &view.snapshot;
        let real = x
            .alias
            .as_ref()
            .and_then(|alias| snapshot.aliases.real_name(alias, &snapshot.models, index));
        let name = real
            .or_else(|| snapshot.models.spelling(index, &x.model))
            .unwrap_or(&x.model);
        x.sent_model.clear();
        if name != x.model {
            x.sent_model.push_str(name);
        }
        x.message.translated = x.message.mode == Some(Mode::Translation);
        if !x.message.translated {
            let found = x.findings.model.as_ref().filter(|_| name != x.model);
            x.splice = found.and_then(|found| rewrite_model(found, name));
            return true;
        }
        x.splice = None;
        x.message.context = Some(Box::new(checked.context(body, self.seed())));
        match translate::to_openai(body, checked, name) {
            Ok(translated) => {
                x.message.body = translated.body;
                self.log_warnings(cx, x, translated.warnings.iter());
                true
            }
            Err(refusal) => {
                self.refuse_message(cx, x, request, &refusal, local);
                false
            }
        }
    }

    fn log_warnings<'w>(
        &self,
        cx: &Cx<'_>,
        x: &Exchange,
        warnings: impl Iterator<Item = &'w translate::Warning>,
    ) {
        let mut log = self.log.borrow_mut();
        for warning in warnings {
            let line = log.event(
                crate::log::Level::Warn,
                "Not everything was translated",
                cx.unix_ms,
            );
            if let Some(mut line) = line {
                line.str("request_id", x.id.as_str())
                    .str("reason", &warning.to_string());
            }
        }
    }

    /// Where the picked endpoint takes the message; `None` for other requests.
    pub(super) fn message_target(&self, x: &Exchange, view: &View) -> Option<MessageTarget> {
        let mode = x.message.mode.filter(|_| x.kind == Kind::Messages)?;
        let endpoint = view.snapshot.fleet.endpoints.get(x.endpoint?)?;
        let path = match (mode, &endpoint.profile.anthropic) {
            (Mode::Passthrough, Some(native)) => &native.messages_path,
            _ => &endpoint.profile.chat_path,
        };
        Some(MessageTarget {
            path: path.clone(),
            translated: mode == Mode::Translation,
        })
    }

    /// What becomes of a backend's answer; `None` for other requests.
    pub(super) fn message_answer(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        answer: &Answer<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Passing> {
        let mode = x.message.mode.filter(|_| x.kind == Kind::Messages)?;
        let status = answer.head.status;
        let is = |kind: &[u8]| {
            let value = answer
                .head
                .get(answer.bytes, FieldId::ContentType)
                .unwrap_or_default();
            value
                .get(..kind.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(kind))
        };
        let events = is(b"text/event-stream");
        if mode == Mode::Passthrough {
            answers::relayed(cx, x, request, answer, out);
            if !answer
                .head
                .fields
                .iter()
                .any(|f| f.name.of(answer.bytes).eq_ignore_ascii_case(b"request-id"))
            {
                emit::field(out, b"request-id", x.id.as_bytes());
            }
            if matches!(status, 404 | 405 | 501) {
                x.message.held.clear();
                x.message.held.append(out);
                x.message.collecting = Collecting::Native(status);
                return Some(Passing::Collect(ERROR_BYTES_MAX));
            }
            if events {
                x.message.native = Some(Box::default());
                self.begin_tail(x, answer);
                return Some(Passing::Transform(Duration::MAX));
            }
            return None;
        }
        if status >= 400 {
            x.message.collecting = Collecting::Error(status);
            x.message.held.clear();
            for each in &answer.head.fields {
                let name = each.name.of(answer.bytes);
                if RETRY_HEADERS
                    .iter()
                    .any(|known| known.as_bytes().eq_ignore_ascii_case(name))
                {
                    emit::field(&mut x.message.held, name, each.value.of(answer.bytes));
                }
            }
            return Some(Passing::Collect(ERROR_BYTES_MAX));
        }
        self.begin_tail(x, answer);
        if !x
            .message
            .checked
            .as_ref()
            .is_some_and(|checked| checked.stream)
        {
            x.message.collecting = Collecting::Answer;
            return Some(Passing::Collect(EVENT_BYTES_MAX));
        }
        if let Some(context) = &x.message.context {
            let stream = StreamTransformer::new(context.as_ref().clone());
            x.message.stream = Some(Box::new(stream));
        }
        if is(b"application/json") {
            x.message.collecting = Collecting::Stream;
            return Some(Passing::Collect(EVENT_BYTES_MAX));
        }
        x.status = 200;
        stream_head(cx, x, request, out);
        Some(Passing::Transform(IDLE))
    }

    fn seed(&self) -> IdSeed {
        let mut seed = [0; 16];
        let (front, back) = seed.split_at_mut(8);
        front.copy_from_slice(&self.random.take());
        back.copy_from_slice(&self.random.take());
        IdSeed(seed)
    }

    /// A piece of a stream.
    pub(super) fn message_piece(
        &self,
        x: &mut Exchange,
        payload: &[u8],
        end: Option<End>,
        out: &mut Vec<u8>,
    ) -> Made {
        if let Some(tail) = x.tail.as_mut().filter(|_| x.reads_figures) {
            tail.push(payload);
        }
        let how = end.map(|end| match end {
            End::Whole => translate::End::Clean,
            End::Broken(Fault::ReadTimeout | Fault::ResponseTimeout) => translate::End::TimedOut,
            End::Broken(_) => translate::End::Broken,
        });
        if let Some(native) = &mut x.message.native {
            native.push(payload);
            out.extend_from_slice(payload);
            return match how {
                None => Made::More,
                Some(translate::End::Clean) => Made::Complete,
                Some(how) => {
                    native.broken(how, out);
                    x.message.failed = true;
                    Made::Complete
                }
            };
        }
        let Some(stream) = &mut x.message.stream else {
            return Made::Broken;
        };
        let mut progress = stream.push(payload, out);
        if let Some(how) = how {
            progress = stream.end(how, out);
        }
        self.progress(x, progress, out)
    }

    /// Nothing has come for a while.
    pub(super) fn message_idle(&self, x: &mut Exchange, out: &mut Vec<u8>) -> Made {
        let Some(stream) = &mut x.message.stream else {
            return Made::More;
        };
        let progress = stream.idle(out);
        self.progress(x, progress, out)
    }

    fn progress(&self, x: &mut Exchange, progress: Progress, out: &mut Vec<u8>) -> Made {
        match progress {
            Progress::Waiting | Progress::Streaming => Made::More,
            Progress::Finished => Made::Complete,
            Progress::Failed => {
                x.message.failed = true;
                Made::Complete
            }
            Progress::Refused(refusal) => {
                x.message.failed = true;
                out.clear();
                x.message.refusal = Some(refusal);
                Made::Instead
            }
        }
    }

    /// A whole answer of a backend.
    pub(super) fn message_whole(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        body: &[u8],
        local: &mut Local,
    ) -> bool {
        if let Some(refusal) = x.message.refusal.take() {
            self.refuse_message(cx, x, request, &refusal, local);
            return true;
        }
        match std::mem::take(&mut x.message.collecting) {
            Collecting::Native(status) => {
                if translate::is_not_spoken_here(status, body) {
                    if let Some(index) = x.endpoint {
                        x.message.refused.insert(index);
                        x.message.again = Some(index);
                    }
                    return false;
                }
                local.head.append(&mut x.message.held);
                local.body = Bytes::copy_from_slice(body);
            }
            Collecting::Error(status) => {
                let refusal = translate::error_from_backend(status, body);
                let mut held = std::mem::take(&mut x.message.held);
                self.refuse_message(cx, x, request, &refusal, local);
                local.head.append(&mut held);
            }
            Collecting::Answer => {
                if let Some(tail) = x.tail.as_mut().filter(|_| x.reads_figures) {
                    tail.push(body);
                }
                let Some(context) = x.message.context.take() else {
                    return true;
                };
                match translate::from_openai(body, &context) {
                    Ok(translated) => {
                        self.log_warnings(cx, x, translated.warnings.iter());
                        answers::json(cx, x, request, Bytes::from(translated.body), local);
                        emit::field(&mut local.head, b"request-id", x.id.as_bytes());
                    }
                    Err(refusal) => self.refuse_message(cx, x, request, &refusal, local),
                }
            }
            Collecting::Stream => {
                let mut out = Vec::new();
                match self.message_piece(x, body, Some(End::Whole), &mut out) {
                    Made::Instead => return self.message_whole(cx, x, request, &[], local),
                    _ => {
                        x.status = 200;
                        stream_head(cx, x, request, &mut local.head);
                        local.body = Bytes::from(out);
                    }
                }
            }
            Collecting::Nothing => {
                let error = Error::new(502, "bad_gateway", "BACKEND_ERROR", "no answer");
                answers::error(cx, x, Some(request), &error, local);
            }
        }
        true
    }

    /// Counts a request of the Messages API (contract: translation 14).
    pub(super) fn count_message(&self, x: &Exchange, outcome: Outcome, total: Duration) {
        if x.kind != Kind::Messages {
            return;
        }
        let passthrough = x.message.mode == Some(Mode::Passthrough);
        let fallback = if passthrough {
            None
        } else if x.message.mode.is_some() {
            Some(TranslatorFallback::CannotPassthrough)
        } else if x.routing.is_some() {
            Some(TranslatorFallback::NoCompatibleEndpoints)
        } else {
            None
        };
        let whole = matches!(outcome, Outcome::Relayed | Outcome::Local);
        self.recorder.borrow_mut().translator(&TranslatorEnd {
            translator: NAME,
            passthrough,
            streaming: x
                .message
                .checked
                .as_ref()
                .is_some_and(|checked| checked.stream),
            success: whole && x.status < 400 && !x.message.failed,
            latency_ms: millis(total),
            fallback,
        });
    }

    /// Token counts and model lists (contract: translation 11, 12).
    pub(super) fn messages_locally(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        view: &View,
        request: &Request<'_>,
        body: &[u8],
        local: &mut Local,
    ) {
        let ids = view.snapshot.fleet.catalogue.served_ids();
        let since = &self.common.started_rfc3339;
        let made = match x.kind {
            Kind::CountTokens => translate::count_tokens(body).map(Bytes::from),
            Kind::MessagesModels => Ok(Bytes::from(translate::models(ids.iter().copied(), since))),
            _ => {
                let asked = percent_decoded(x.rest(request.bytes));
                let found = ids.iter().find(|id| id.eq_ignore_ascii_case(&asked));
                found
                    .map(|id| Bytes::from(translate::model(id, since)))
                    .ok_or_else(|| Refusal {
                        status: 404,
                        message: format!("model not found: {asked}"),
                    })
            }
        };
        match made {
            Ok(body) => {
                answers::json(cx, x, request, body, local);
                emit::field(&mut local.head, b"request-id", x.id.as_bytes());
            }
            Err(refusal) => self.refuse_message(cx, x, request, &refusal, local),
        }
    }
}

/// The head of a translated stream.
fn stream_head(cx: &Cx<'_>, x: &mut Exchange, request: &Request<'_>, out: &mut Vec<u8>) {
    let mut local = Local {
        head: std::mem::take(out),
        ..Local::default()
    };
    answers::begin(cx, x, Some(request), 200, &mut local);
    *out = local.head;
    emit::field(out, b"Content-Type", b"text/event-stream");
    emit::field(out, b"Cache-Control", b"no-cache");
    emit::field(out, b"request-id", x.id.as_bytes());
}

/// A path segment without its percent escapes.
fn percent_decoded(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match (first, hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
