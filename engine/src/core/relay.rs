//! Relays a response to the client: the bytes of each read are sent with one write.
//!
//! There is one buffer and no queue: the next piece is read when the last one has been sent, so a
//! client that reads slowly slows its backend down. The framing is checked, and bytes are passed on
//! unchanged unless a handler transforms them.

use std::io;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::time::Duration;

use super::lane::{COPIED_BYTES_MAX, Lane, Step};
use crate::buf::Buf;
use crate::exchange::{Action, Event};
use crate::h1::chunk::{Decoder, LAST_CHUNK, Piece, encode_size};
use crate::h1::framing::{ResponseBody, ResponseFraming};
use crate::h1::{FieldId, ResponseHead, Version, emit};
use crate::handler::{AttemptEnd, Exchange, Handler, Outcome, Passing, Target};
use crate::incoming::Incoming;
use crate::limits::OUT_BYTES_SLOW;
use crate::part;
use crate::upstream::Backend;

/// What is known of a response once its head was passed to the handler.
pub(super) struct Relayed<'r> {
    pub(super) head: &'r ResponseHead,
    pub(super) framing: ResponseFraming,
    pub(super) passing: Passing,
    pub(super) target: &'r Target,
    /// The action that followed the head.
    pub(super) begun: Action,
}

/// How the body is framed towards the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// By its length, or without a body.
    Plain,
    /// In chunks.
    Chunked,
    /// By the end of the connection.
    ToClose,
}

/// What a piece of the backend's response contained.
struct Passed {
    /// The body is complete.
    ended: bool,
    /// Bytes follow the end of the body.
    excess: bool,
}

impl<H: Handler> Lane<'_, H> {
    /// Passes the response on, to its end.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn has room for its arguments twice, and there are thousands of streams"
    )]
    pub(super) fn relay(
        &mut self,
        mut backend: Backend,
        mut buf: Buf,
        relayed: &Relayed<'_>,
    ) -> impl Future<Output = Step> {
        async move {
            if let Passing::Collect(bytes_max) = relayed.passing {
                return Box::pin(self.collect(backend, buf, relayed, bytes_max)).await;
            }
            if let Some(idle) = self.transforms(relayed.passing) {
                // On the heap, so that a stream that passes as it is does not have the size of one that
                // is transformed.
                return Box::pin(self.relay_transformed(backend, buf, relayed, idle)).await;
            }
            let silence = relayed.passing.silence_max();
            let mut is_first = true;
            let outgoing = self.frame(&buf, relayed);
            buf.consume(relayed.head.len);
            let mut incoming = Incoming::of(relayed.framing.body);
            if let Action::Finish { reuse_upstream } = relayed.begun {
                let clean = buf.is_empty();
                let sent = self.deliver(&[]).await;
                self.give_back(backend, buf, relayed, reuse_upstream && clean);
                return self.over(sent).await;
            }
            loop {
                let taken = match self.pass(&buf, &mut incoming, outgoing, relayed).await {
                    Ok(taken) => taken,
                    Err(action) => return self.broken(action, outgoing),
                };
                if taken.ended {
                    let excess = taken.excess;
                    return self.finish(backend, buf, relayed, excess).await;
                }
                self.read_on(&mut backend, buf);
                let read = match silence {
                    None => self.wire.wait(pin!(backend.read())).await,
                    Some(after) => {
                        let has_room = has_room(&incoming, outgoing);
                        self.read_or_fill(&mut backend, after, outgoing, has_room)
                            .await
                    }
                };
                let (result, came) = match read {
                    Ok(read) => read,
                    Err(action) => return self.broken(action, outgoing),
                };
                buf = came;
                match result {
                    Ok(1..) => {
                        self.x.heard(self.core.piece_clock(&mut is_first));
                        self.wire.on(Event::ResponsePiece);
                    }
                    Ok(0) if incoming.ends_with_connection() => {
                        return self.closed(outgoing).await;
                    }
                    ended => {
                        let action = self.wire.on(end_event(&ended));
                        return self.broken(action, outgoing);
                    }
                }
            }
        }
    }

    /// Begins to read the next piece of a response, when the last one was passed on. A slow response
    /// holds next to nothing while it is waited for.
    pub(super) fn read_on(&mut self, backend: &mut Backend, buf: Buf) {
        let core = self.core;
        if !backend.read_on(buf, core.now(), &core.waiting_buffers) {
            self.out.shrink_to(OUT_BYTES_SLOW);
        }
    }

    /// The next read. After each such time in which the client got nothing, it gets what
    /// [`Exchange::silent`] writes, if there is room for it.
    async fn read_or_fill(
        &mut self,
        backend: &mut Backend,
        after: Duration,
        outgoing: Outgoing,
        has_room: bool,
    ) -> Result<(io::Result<usize>, Buf), Action> {
        loop {
            let until = self.core.now().checked_add(after).filter(|_| has_room);
            if let Some(read) = self.wire.wait_until(pin!(backend.read()), until).await? {
                return Ok(read);
            }
            let now = self.core.now();
            let mut filling = Vec::new();
            self.ask(now, |x, ask, _| x.silent(ask, &mut filling));
            self.response_bytes += filling.len() as u64;
            if outgoing == Outgoing::Chunked {
                chunk(self.out, &filling);
            } else {
                self.out.extend_from_slice(&filling);
            }
            self.deliver(&[]).await?;
        }
    }

    /// Ends the head that the handler has written with what frames the body.
    pub(super) fn frame(&mut self, bytes: &[u8], relayed: &Relayed<'_>) -> Outgoing {
        if let Some(outgoing) = self.continue_early() {
            self.keep &= !self.core.is_draining();
            return outgoing;
        }
        let old = self.request.head.version == Version::Http10;
        // A drain may have begun since the request came.
        self.keep &= !self.core.is_draining();
        let out = &mut *self.out;
        let transformed = matches!(relayed.passing, Passing::Transform(_));
        let outgoing = match relayed.framing.body {
            ResponseBody::None => {
                // What a HEAD says of the body it leaves out.
                let length = relayed.head.get(bytes, FieldId::ContentLength);
                if let Some(length) = length.filter(|_| relayed.head.status != 204) {
                    emit::field(out, b"Content-Length", length);
                }
                Outgoing::Plain
            }
            ResponseBody::Length(len) if !transformed => {
                emit::field_number(out, b"Content-Length", len);
                Outgoing::Plain
            }
            _ if old => {
                self.keep = false;
                Outgoing::ToClose
            }
            _ => {
                emit::field(out, b"Transfer-Encoding", b"chunked");
                Outgoing::Chunked
            }
        };
        match (self.keep, old) {
            (false, _) => emit::field(out, b"Connection", b"close"),
            (true, true) => emit::field(out, b"Connection", b"keep-alive"),
            (true, false) => {}
        }
        out.extend_from_slice(b"\r\n");
        outgoing
    }

    /// Sends what a read has brought.
    async fn pass(
        &mut self,
        buf: &[u8],
        incoming: &mut Incoming,
        outgoing: Outgoing,
        relayed: &Relayed<'_>,
    ) -> Result<Passed, Action> {
        let passing = relayed.passing;
        match incoming {
            Incoming::Length(left) => {
                let payload = part::first(buf, usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= payload.len() as u64;
                let ended = *left == 0;
                self.send_payload(payload, outgoing, passing).await?;
                Ok(Passed {
                    ended,
                    excess: buf.len() > payload.len(),
                })
            }
            Incoming::ToClose => {
                self.send_payload(buf, outgoing, passing).await?;
                Ok(Passed {
                    ended: false,
                    excess: false,
                })
            }
            Incoming::Chunked(decoder) => {
                if outgoing == Outgoing::Chunked {
                    return self.pass_chunks(buf, decoder, passing).await;
                }
                self.unchunk(buf, decoder, outgoing, passing).await
            }
        }
    }

    /// Chunks to chunks, unchanged where they are in the usual spelling.
    async fn pass_chunks(
        &mut self,
        buf: &[u8],
        decoder: &mut Decoder,
        passing: Passing,
    ) -> Result<Passed, Action> {
        if passing.is_tapped() {
            self.tap_chunks(buf, decoder.clone());
        }
        let mut at = 0;
        loop {
            let input = part::rest(buf, at);
            let Ok(pass) = decoder.pass(input) else {
                // Deliver what decoded cleanly before the error.
                self.deliver(&[]).await?;
                return Err(self.wire.on(Event::Malformed));
            };
            at += pass.consumed;
            self.response_bytes += pass.payload as u64;
            if let Some(size) = pass.size {
                encode_size(size, self.out);
            }
            let bytes = part::between(input, pass.from, pass.to);
            if bytes.len() > COPIED_BYTES_MAX && !pass.done {
                self.deliver(bytes).await?;
            } else {
                self.out.extend_from_slice(bytes);
            }
            if pass.done {
                self.out.extend_from_slice(LAST_CHUNK);
            }
            if pass.done || at >= buf.len() || pass.consumed == 0 {
                self.deliver(&[]).await?;
                return Ok(Passed {
                    ended: pass.done,
                    excess: at < buf.len(),
                });
            }
        }
    }

    /// Shows the handler the payload of chunks.
    fn tap_chunks(&mut self, buf: &[u8], mut decoder: Decoder) {
        let mut at = 0;
        while let Ok(piece) = decoder.next(buf, at) {
            match piece {
                Piece::Data { start, end } => {
                    self.x.tap(part::between(buf, start, end));
                    at = end;
                }
                Piece::Skip { to } => at = to,
                Piece::Done { .. } | Piece::More => return,
            }
        }
    }

    /// Chunks to anything else.
    async fn unchunk(
        &mut self,
        buf: &[u8],
        decoder: &mut Decoder,
        outgoing: Outgoing,
        passing: Passing,
    ) -> Result<Passed, Action> {
        let mut at = 0;
        loop {
            match decoder.next(buf, at) {
                Ok(Piece::Data { start, end }) => {
                    let payload = part::between(buf, start, end);
                    self.put_payload(payload, outgoing, passing);
                    at = end;
                }
                Ok(Piece::Skip { to }) => at = to,
                Ok(Piece::Done { at }) => {
                    self.deliver(&[]).await?;
                    return Ok(Passed {
                        ended: true,
                        excess: at < buf.len(),
                    });
                }
                Ok(Piece::More) => {
                    self.deliver(&[]).await?;
                    return Ok(Passed {
                        ended: false,
                        excess: false,
                    });
                }
                Err(_) => {
                    // Deliver what decoded cleanly before the error.
                    self.deliver(&[]).await?;
                    return Err(self.wire.on(Event::Malformed));
                }
            }
        }
    }

    /// Appends payload to what is being written.
    fn put_payload(&mut self, payload: &[u8], outgoing: Outgoing, passing: Passing) {
        if passing.is_tapped() {
            self.x.tap(payload);
        }
        self.response_bytes += payload.len() as u64;
        if outgoing == Outgoing::Chunked {
            chunk(self.out, payload);
        } else {
            self.out.extend_from_slice(payload);
        }
    }

    /// Sends payload.
    async fn send_payload(
        &mut self,
        payload: &[u8],
        outgoing: Outgoing,
        passing: Passing,
    ) -> Result<(), Action> {
        if outgoing == Outgoing::Chunked || payload.len() <= COPIED_BYTES_MAX {
            self.put_payload(payload, outgoing, passing);
            return self.deliver(&[]).await;
        }
        if passing.is_tapped() {
            self.x.tap(payload);
        }
        self.response_bytes += payload.len() as u64;
        self.deliver(payload).await
    }

    /// The backend has closed, which is the end of its response.
    async fn closed(&mut self, outgoing: Outgoing) -> Step {
        self.wire.on(Event::ResponseEnd);
        if outgoing == Outgoing::Chunked {
            self.out.extend_from_slice(LAST_CHUNK);
        }
        let sent = self.deliver(&[]).await;
        self.over(sent).await
    }

    /// The response is complete and sent.
    async fn finish(
        &mut self,
        backend: Backend,
        buf: Buf,
        relayed: &Relayed<'_>,
        excess: bool,
    ) -> Step {
        let action = self.wire.on(Event::ResponseEnd);
        let reuse = matches!(
            action,
            Action::Finish {
                reuse_upstream: true
            }
        ) && !excess;
        self.give_back(backend, buf, relayed, reuse);
        self.over(Ok(())).await
    }

    pub(super) async fn over(&mut self, sent: Result<(), Action>) -> Step {
        match sent {
            Ok(()) => {
                self.wire.on(Event::Delivered);
                // The ring sends before other tasks go on.
                if !self.wire.io.batches() && self.core.is_shared() {
                    self.core.end_of_turn().await;
                }
                self.attempt_ended(AttemptEnd::Whole);
                Step::Over(Outcome::Relayed)
            }
            Err(action) => self.give_up(action),
        }
    }

    /// Keeps the connection for another request, if that is possible, and what it read into.
    pub(super) fn give_back(&self, backend: Backend, buf: Buf, relayed: &Relayed<'_>, reuse: bool) {
        if !reuse || self.core.is_draining() {
            return;
        }
        // The idle timeout that a backend announces is used, with a margin.
        let idle_max = match relayed.framing.keep_alive_secs {
            Some(secs) => {
                let announced = Duration::from_secs(secs.into());
                relayed
                    .target
                    .idle_max
                    .min(announced.saturating_sub(Duration::from_millis(500)))
            }
            None => relayed.target.idle_max,
        };
        let mut upstream = backend.upstream;
        upstream.rest(idle_max, self.core.now());
        self.core.pool.keep(relayed.target.key, upstream, buf);
    }

    /// The response or the client connection ended early.
    fn broken(&mut self, action: Action, outgoing: Outgoing) -> Step {
        self.keep = false;
        if matches!(action, Action::Cut(_)) && outgoing == Outgoing::ToClose {
            // Its end would look like that of the response.
            self.wire.io.reset_on_close();
        }
        self.give_up(action)
    }
}

/// Whether bytes of the handler's own can follow what was sent of a body.
fn has_room(incoming: &Incoming, outgoing: Outgoing) -> bool {
    match (outgoing, incoming) {
        (Outgoing::Plain, _) => false,
        (Outgoing::Chunked, Incoming::Chunked(decoder)) => decoder.is_between_chunks(),
        (Outgoing::Chunked | Outgoing::ToClose, _) => true,
    }
}

pub(super) fn end_event(result: &io::Result<usize>) -> Event {
    if result.is_ok() {
        Event::UpstreamClosed
    } else {
        Event::UpstreamReset
    }
}

/// Appends payload as a chunk; nothing for none, which would be the end.
pub(super) fn chunk(out: &mut Vec<u8>, payload: &[u8]) {
    if let Some(size) = NonZeroUsize::new(payload.len()) {
        encode_size(size, out);
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }
}
