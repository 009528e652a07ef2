//! Sends a head and bytes of the exchange's own to a client that waits for a backend's response.
//!
//! Everything after it continues the body that it began: heads are dropped, and a response of the
//! exchange's own is the rest of that body.

use std::io::{self, IoSlice};
use std::pin::pin;
use std::time::{Duration, Instant};

use super::context::Context;
use super::early::Asker;
use super::lane::{Lane, Wire, send_local};
use super::relay::{Outgoing, chunk};
use crate::exchange::{Action, Event, Filling};
use crate::h1::chunk::LAST_CHUNK;
use crate::h1::{Version, emit};
use crate::handler::{Ask, Exchange, Handler, Outcome, Passing};

/// How a body is framed that begins before its length is known.
fn open_ended(version: Version) -> Outgoing {
    if version == Version::Http10 {
        Outgoing::ToClose
    } else {
        Outgoing::Chunked
    }
}

impl<H: Handler> Wire<'_, H> {
    /// Sends what the exchange has for a client that has waited for too long.
    pub(super) async fn fill(&mut self, asker: &Asker<'_, H>, now: Instant) -> Result<(), Action> {
        let begins = match self.life.fill() {
            Filling::Head => true,
            Filling::More => false,
            Filling::Nothing => {
                self.early.due = None;
                return Ok(());
            }
        };
        self.early.sends(now);
        let outgoing = open_ended(asker.request.head.version);
        let (mut head, mut body) = (Vec::new(), Vec::new());
        let context = Context::new(self.core, asker.arrival, now);
        let ask = Ask {
            cx: &context.cx(),
            request: asker.request,
            body: b"",
        };
        asker.x.early(&ask, begins.then_some(&mut head), &mut body);
        let out = &mut self.early.unsent;
        if begins {
            out.append(&mut head);
            let keeps = asker.keep && !self.core.is_draining();
            if outgoing == Outgoing::Chunked {
                emit::field(out, b"Transfer-Encoding", b"chunked");
            }
            if outgoing == Outgoing::ToClose || !keeps {
                emit::field(out, b"Connection", b"close");
            }
            out.extend_from_slice(b"\r\n");
        }
        if outgoing == Outgoing::Chunked {
            chunk(out, &body);
        } else {
            out.extend_from_slice(&body);
        }
        let sent = self.send_unsent().await;
        self.io.stall.ended();
        sent
    }

    /// Bytes that the client does not take before the wait ends precede what it gets next.
    async fn send_unsent(&mut self) -> Result<(), Action> {
        while !self.early.unsent.is_empty() {
            match self.io.try_send(&[IoSlice::new(&self.early.unsent)]) {
                Ok(sent) => {
                    self.early.unsent.drain(..sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.io.waits_to_send(self.core.clock());
                    let writable = self.io.writable();
                    if self.wait(pin!(writable)).await?.is_err() {
                        return Err(self.on(Event::ClientLeft));
                    }
                }
                Err(_) => return Err(self.on(Event::ClientLeft)),
            }
        }
        Ok(())
    }
}

impl<H: Handler> Lane<'_, H> {
    /// The time after which [`Exchange::idle`] is called, if the body does not pass as it is: after a
    /// head of the exchange's own its framing is that of the body which it continues.
    pub(super) fn transforms(&self, passing: Passing) -> Option<Duration> {
        match passing {
            Passing::Transform(idle) => Some(idle),
            _ if self.wire.life.has_own_head() => {
                Some(passing.silence_max().unwrap_or(Duration::MAX))
            }
            _ => None,
        }
    }

    /// Drops the head that was written for a client that has one; `None` if it has none.
    pub(super) fn continue_early(&mut self) -> Option<Outgoing> {
        if !self.wire.life.has_own_head() {
            return None;
        }
        let outgoing = open_ended(self.request.head.version);
        self.keep &= outgoing == Outgoing::Chunked;
        self.out.clear();
        self.out.append(&mut self.wire.early.unsent);
        Some(outgoing)
    }

    /// Ends the body that began early with the body of a response of the exchange's own.
    pub(super) async fn end_early(&mut self, outgoing: Outgoing) -> Outcome {
        self.keep &= !self.core.is_draining();
        let body = std::mem::take(&mut self.local.body);
        self.response_bytes += body.len() as u64;
        if outgoing == Outgoing::Chunked {
            chunk(self.out, &body);
            self.out.extend_from_slice(LAST_CHUNK);
        } else {
            self.out.extend_from_slice(&body);
        }
        send_local(self.wire.io, self.out, &[]).await
    }
}
