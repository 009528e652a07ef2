//! Responses that reach the client as the handler makes them: piece by piece, or of the whole.

use std::pin::pin;
use std::time::{Duration, Instant};

use super::body::{BodyError, room};
use super::early::asker;
use super::lane::{Lane, Step};
use super::relay::{Outgoing, Relayed, chunk, end_event};
use crate::buf::Buf;
use crate::exchange::{Action, Event, Fault};
use crate::h1::chunk::LAST_CHUNK;
use crate::handler::{AtEnd, AttemptEnd, End, Exchange, Handler, Local, Made, Outcome};
use crate::incoming::Incoming;
use crate::limits::UPSTREAM_READ_BYTES_MAX;
use crate::upstream::Backend;

/// The state of a transformed response.
struct Transformed {
    outgoing: Outgoing,
    /// The head was sent to the client.
    begun: bool,
    /// What the handler has made of the last piece.
    made: Vec<u8>,
    /// When the client last got something.
    quiet_since: Instant,
}

impl<H: Handler> Lane<'_, H> {
    /// Passes a response on as the handler makes it. The head leaves with the first piece.
    pub(super) async fn relay_transformed(
        &mut self,
        mut backend: Backend,
        mut buf: Buf,
        relayed: &Relayed<'_>,
        idle: Duration,
    ) -> Step {
        let outgoing = self.frame(&buf, relayed);
        buf.consume(relayed.head.len);
        let mut incoming = Incoming::of(relayed.framing.body);
        let mut state = Transformed {
            outgoing,
            begun: false,
            made: Vec::new(),
            // Without a head the client has got nothing, whatever the endpoint has sent.
            quiet_since: self.wire.early.quiet_since(),
        };
        let mut payload = Vec::new();
        let mut is_first = true;
        loop {
            let (end, excess) = match incoming.gather(&buf, &mut payload) {
                Ok(Some(excess)) => (Some(End::Whole), excess),
                Ok(None) => (None, false),
                Err(_) => (Some(End::Broken(Fault::Malformed)), true),
            };
            if let Some(End::Whole) = end {
                self.body_complete(backend, buf, relayed, excess);
                return self
                    .end_transformed(&mut state, &mut payload, End::Whole)
                    .await;
            }
            let made = match self.transformed(&mut payload, None, &mut state.made).await {
                Ok(made) => made,
                Err(action) => return self.give_up(action),
            };
            if let Some(step) = self.send_made(&mut state, made).await {
                return step;
            }
            payload.clear();
            if let Some(end) = end {
                return self.end_transformed(&mut state, &mut payload, end).await;
            }
            let next = self.next_read(&mut backend, &mut state, idle, buf).await;
            let ended = match next {
                Ok((Ok(1..), came)) => {
                    self.x.heard(self.core.piece_clock(&mut is_first));
                    self.wire.on(Event::ResponsePiece);
                    buf = came;
                    continue;
                }
                Ok((Ok(0), _)) if incoming.ends_with_connection() => {
                    self.wire.on(Event::ResponseEnd);
                    End::Whole
                }
                Ok((result, _)) => match self.wire.on(end_event(&result)) {
                    Action::Cut(fault) => End::Broken(fault),
                    action => return self.give_up(action),
                },
                Err(Ok(step)) => return step,
                Err(Err(Action::Cut(fault))) if fault != Fault::WriteTimeout => End::Broken(fault),
                Err(Err(action)) => return self.give_up(action),
            };
            return self.end_transformed(&mut state, &mut payload, ended).await;
        }
    }

    /// The body is complete: the connection may be used again.
    fn body_complete(&mut self, backend: Backend, buf: Buf, relayed: &Relayed<'_>, excess: bool) {
        let action = match relayed.begun {
            Action::Continue => self.wire.on(Event::ResponseEnd),
            begun => begun,
        };
        let reuse = matches!(
            action,
            Action::Finish {
                reuse_upstream: true
            }
        );
        self.give_back(backend, buf, relayed, reuse && !excess);
    }

    /// The next read. While the client gets nothing, calls [`Exchange::idle`] at intervals.
    async fn next_read(
        &mut self,
        backend: &mut Backend,
        state: &mut Transformed,
        idle: Duration,
        buf: Buf,
    ) -> Result<(std::io::Result<usize>, Buf), Result<Step, Action>> {
        self.read_on(backend, buf);
        loop {
            let until = state.quiet_since.checked_add(idle);
            let waited = self.wire.wait_until(pin!(backend.read()), until).await;
            if let Some(read) = waited.map_err(Err)? {
                return Ok(read);
            }
            let now = self.core.now();
            let made = self.ask(now, |x, ask, _| x.idle(ask, &mut state.made));
            if let Some(step) = self.send_made(state, made).await {
                return Err(Ok(step));
            }
            // A handler that wrote nothing is asked again after the same time.
            state.quiet_since = self.core.now();
        }
    }

    /// Sends what was made of a piece; some when the response is over with it.
    async fn send_made(&mut self, state: &mut Transformed, made: Made) -> Option<Step> {
        let made = match made {
            Made::Own(own) if !state.begun => return Some(self.send_own(*own).await),
            Made::Own(_) | Made::Work => Made::Broken,
            made => made,
        };
        if state.made.is_empty() && matches!(made, Made::More) {
            return None;
        }
        let sent = self
            .deliver_made(state, matches!(made, Made::Complete))
            .await;
        match (made, sent) {
            (Made::More, Ok(())) => None,
            (Made::More | Made::Complete, sent) => Some(self.over(sent).await),
            (_, sent) => {
                self.keep = false;
                if state.outgoing == Outgoing::ToClose {
                    self.wire.io.reset_on_close();
                }
                Some(self.give_up(sent.err().unwrap_or(Action::Cut(Fault::Closed))))
            }
        }
    }

    /// Sends what was made, and with `complete` the end of the response.
    async fn deliver_made(
        &mut self,
        state: &mut Transformed,
        complete: bool,
    ) -> Result<(), Action> {
        state.begun = true;
        self.response_bytes += state.made.len() as u64;
        if state.outgoing == Outgoing::Chunked {
            chunk(self.out, &state.made);
            if complete {
                self.out.extend_from_slice(LAST_CHUNK);
            }
        } else {
            self.out.extend_from_slice(&state.made);
        }
        state.made.clear();
        let sent = self.deliver(&[]).await;
        state.quiet_since = self.core.now();
        sent
    }

    /// What the exchange makes of a piece.
    async fn transformed(
        &mut self,
        payload: &mut Vec<u8>,
        end: Option<End>,
        out: &mut Vec<u8>,
    ) -> Result<Made, Action> {
        loop {
            let now = self.core.now();
            let made = self.ask(now, |x, ask, _| x.transform(ask, payload, end, out));
            if !matches!(made, Made::Work) {
                return Ok(made);
            }
            let piece = std::mem::take(payload);
            *payload = Box::pin(self.work_on_response(piece)).await?;
        }
    }

    /// Has the exchange's work done on bytes of the backend's response.
    async fn work_on_response(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, Action> {
        let work = self.x.work();
        let (core, client) = (self.core, self.client());
        self.wire
            .wait(pin!(core.work_on(client, work, bytes)))
            .await
    }

    /// The last call of the transformation, and what becomes of it.
    async fn end_transformed(
        &mut self,
        state: &mut Transformed,
        payload: &mut Vec<u8>,
        end: End,
    ) -> Step {
        let transformed = self.transformed(payload, Some(end), &mut state.made).await;
        let made = match transformed {
            // No more input follows, whatever the exchange expects.
            Ok(Made::More) => Made::Broken,
            Ok(made) => made,
            Err(action) => return self.give_up(action),
        };
        if let End::Broken(fault) = end
            && matches!(made, Made::Complete)
        {
            // The transformed response reports the failure itself; the attempt failed all the same.
            if let Err(action) = self.deliver_made(state, true).await {
                return self.give_up(action);
            }
            self.attempt_ended(AttemptEnd::Failed(fault));
            return Step::Over(Outcome::Broken(fault));
        }
        match self.send_made(state, made).await {
            Some(step) => step,
            None => self.over(Ok(())).await,
        }
    }

    /// Waits for the whole response and lets the handler make another one of it.
    pub(super) async fn collect(
        &mut self,
        mut backend: Backend,
        mut buf: Buf,
        relayed: &Relayed<'_>,
        bytes_max: usize,
    ) -> Step {
        let mut body = Vec::new();
        buf.consume(relayed.head.len);
        let mut incoming = Incoming::of(relayed.framing.body);
        let mut share = self.share();
        let fault = loop {
            match incoming.gather(&buf, &mut body) {
                Ok(Some(excess)) => {
                    let reuse = match relayed.begun {
                        Action::Finish { reuse_upstream } => reuse_upstream,
                        _ => matches!(
                            self.wire.on(Event::ResponseEnd),
                            Action::Finish {
                                reuse_upstream: true
                            }
                        ),
                    };
                    self.give_back(backend, buf, relayed, reuse && !excess);
                    return self.collected(body).await;
                }
                Ok(None) if body.len() <= bytes_max => {}
                _ => break Fault::Malformed,
            }
            match room(self.core, self.wire.io, &mut share, body.len()).await {
                Ok(()) => {}
                Err(BodyError::Left) => {
                    let action = self.wire.on(Event::ClientLeft);
                    return self.give_up(action);
                }
                // The gateway's memory, not the endpoint, is at fault.
                Err(BodyError::Refused(_)) => break Fault::Local,
            }
            buf.clear();
            backend
                .upstream
                .socket
                .arm(buf.grown(UPSTREAM_READ_BYTES_MAX));
            let (result, came) = match self
                .wire
                .wait_or_leave(pin!(backend.read()), asker!(self))
                .await
            {
                Ok(read) => read,
                Err(Action::Cut(fault)) => break fault,
                Err(action) => return self.give_up(action),
            };
            buf = came;
            match result {
                Ok(1..) => {
                    self.x.heard(self.core.now());
                    self.wire.on(Event::ResponsePiece);
                }
                Ok(0) if incoming.ends_with_connection() => {
                    return self.collected(body).await;
                }
                Ok(0) => break Fault::Closed,
                Err(_) => break Fault::Reset,
            }
        };
        // Nothing has reached the client, so an error response is still possible.
        self.attempt_ended(AttemptEnd::Failed(fault));
        Step::Fail(fault)
    }

    async fn collected(&mut self, mut body: Vec<u8>) -> Step {
        loop {
            let now = self.core.now();
            match self.ask(now, |x, ask, local| x.collected(ask, &body, local)) {
                AtEnd::Respond => return self.respond().await,
                AtEnd::Again => return self.again(),
                AtEnd::Work => match Box::pin(self.work_on_response(body)).await {
                    Ok(same) => body = same,
                    Err(action) => return self.give_up(action),
                },
            }
        }
    }

    /// Sends the exchange's own response in place of the backend's, of which the client has seen
    /// nothing.
    async fn send_own(&mut self, own: Local) -> Step {
        *self.local = own;
        self.respond().await
    }

    /// Sends a response that was made of the backend's.
    async fn respond(&mut self) -> Step {
        let now = self.core.now();
        self.response_bytes = 0;
        let outcome = match self.send_local().await {
            Outcome::Local => {
                self.wire.life.on(Event::Delivered, now);
                self.attempt_ended(AttemptEnd::Whole);
                Outcome::Relayed
            }
            other => {
                self.attempt_ended(AttemptEnd::Abandoned);
                other
            }
        };
        Step::Over(outcome)
    }
}
