//! The state machine of one exchange; see the module above.

use std::time::{Duration, Instant};

use super::fault::{Ending, Fault};
use crate::fault::ConnectFault;

/// How long each part of an exchange may take (docs/contract/balancing.md#13,
/// docs/contract/surface.md#1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// The TCP connection: from the attempt's begin.
    pub connect: Duration,
    /// The TLS handshake: from [`Event::TlsBegun`].
    pub tls: Duration,
    /// From the end of the request to the end of the response's head.
    pub response_header: Duration,
    /// Silence of the endpoint: inside a response's body, and while it takes none of the request.
    pub read: Duration,
    /// From the first byte sent on an attempt to the end of its response.
    pub response: Option<Duration>,
    /// From the begin of an attempt to the end of its response. A retry on a fresh connection does
    /// not renew it.
    pub attempt: Option<Duration>,
    /// From the end of the client's request head to the end of its response. Attempts do not renew
    /// it.
    pub write: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            tls: Duration::from_secs(5),
            response_header: Duration::from_secs(30),
            read: Duration::from_secs(60),
            response: None,
            attempt: None,
            write: None,
        }
    }
}

/// What happened. All but the last group are about the upstream connection of the current attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The TCP connection is established and a TLS handshake begins; [`Event::Connected`] follows.
    TlsBegun,
    /// The new connection can be written to.
    Connected,
    /// There is no connection.
    ConnectFailed(ConnectFault),
    /// The endpoint took some bytes of the request.
    RequestProgress,
    /// The endpoint took the last byte of the request.
    RequestSent,
    /// A write failed. A response may still be unread in the connection (a refusal sent before the
    /// upload was complete), so reading goes on: the response, an end or a reset will follow.
    SendFailed,
    /// Bytes of a response arrived but not a complete head, interim (1xx) responses included. It
    /// need not be reported when the final head is complete at once.
    ResponseBytes,
    /// The final response's head (never 1xx) is complete and valid.
    ResponseHead {
        /// The endpoint keeps the connection open after this response, as its version, headers and
        /// framing say.
        reusable: bool,
        /// A body follows, possibly an empty one; otherwise the response is complete with its head.
        has_body: bool,
    },
    /// Some of the response's body was read.
    ResponsePiece,
    /// The response's body is complete; for a body that the end of the connection delimits, that
    /// end.
    ResponseEnd,
    /// The endpoint closed the connection before its response was complete.
    UpstreamClosed,
    /// The connection was reset.
    UpstreamReset,
    /// The endpoint was found dead in another way, and the request is to go elsewhere. Once bytes of
    /// a response have arrived, it changes nothing.
    EndpointDown,
    /// The request is to end, whatever its endpoint does. Once its response is complete, it changes
    /// nothing.
    Revoked,
    /// The response head is larger than the gateway takes.
    HeadTooLarge,
    /// The response is not valid: a malformed head, a 101, or broken chunk framing.
    Malformed,

    /// A write to the client has begun, or did not complete at once. Until [`Event::ClientTook`]
    /// nothing is read from the endpoint, so its silence is not its fault and not measured.
    ClientBlocked,
    /// That write completed.
    ClientTook,
    /// The last byte of the response, or of an error in its place, was written.
    Delivered,
    /// The client closed or reset its connection.
    ClientLeft,
    /// The client has taken no byte of what waits for it for too long.
    ClientStalled,
    /// The time of [`Lifecycle::deadline`] may have passed. Too early or too often does no harm.
    Timer,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Go on.
    Continue,
    /// Close the upstream connection and try the same endpoint again on a new connection: a
    /// connection from the pool was dead, and nothing of a response was received on it.
    RetryFresh,
    /// Close the upstream connection, mark the endpoint as the fault says, try another one; if
    /// there is none, respond with an error and call [`Lifecycle::respond_locally`].
    NextEndpoint(Fault),
    /// Close the upstream connection and respond with an error; no other endpoint.
    Fail(Fault),
    /// Close the upstream connection and cut the client's response visibly: no last chunk, nothing
    /// appended. (A handler that has held back the whole response may still respond with an error.)
    Cut(Fault),
    /// The client has disconnected: close the upstream connection and send nothing more.
    Abandon,
    /// The client has stalled: close the upstream connection, reset the client's, send nothing
    /// more. The endpoint is not at fault.
    Reset,
    /// The response is complete. What was read of it still has to be written to the client; the
    /// upstream connection is no longer needed.
    Finish {
        /// The connection may go back to the pool (if no bytes follow the response on it), else it
        /// is closed.
        reuse_upstream: bool,
    },
}

/// The phase of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No upstream connection: before the first attempt, or between two.
    Choosing,
    /// A connection is being opened.
    Connecting,
    /// The request is being sent.
    Sending,
    /// The request is sent; at most interim responses have arrived.
    Waiting,
    /// The response began. No other endpoint, no retry, no error from here on, unless the response
    /// is given up before a byte of it was passed on.
    Responding,
    /// The upstream side has ended; the rest of a response is being written to the client.
    Delivering,
    /// Nothing is left to do.
    Over,
}

/// What the gateway may send of its own while no response is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filling {
    /// Nothing: the exchange is over, or bytes of a response go to the client.
    Nothing,
    /// A head, and bytes of a body.
    Head,
    /// Bytes of the body that the gateway's own head began.
    More,
}

/// The state of one exchange. Small and without heap; a connection makes one for each request.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    timeouts: Timeouts,
    phase: Phase,
    /// The endpoint of the current attempt has had its retry on a fresh connection.
    retried: bool,
    /// The next attempt is that retry, so it is still the same endpoint.
    retrying: bool,
    /// Bytes of a response go to the client: no further attempt.
    is_passed_on: bool,
    /// The client has a head of the gateway's own.
    has_own_head: bool,
    /// `write` of the timeouts, as a moment.
    write_by: Option<Instant>,
    /// `attempt` of the timeouts, as a moment.
    attempt_by: Option<Instant>,
    conn: Conn,
}

/// What is known of the current attempt's connection.
#[derive(Debug, Clone, Copy, Default)]
struct Conn {
    reused: bool,
    tls: bool,
    /// How much of the request the endpoint took.
    taken: Taken,
    send_failed: bool,
    /// Bytes of a response were received.
    head_begun: bool,
    /// The endpoint can take another request after this one.
    reusable: bool,
    /// When the current phase takes too long.
    phase_by: Option<Instant>,
    /// What was left of that when a write to the client blocked.
    silence_left: Option<Duration>,
    /// The earlier one of `response` and `attempt` of the timeouts, as a moment.
    response_by: Option<Instant>,
}

/// How much of a request an endpoint took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Taken {
    #[default]
    Nothing,
    Some,
    All,
}

/// One of the deadlines.
#[derive(Debug, Clone, Copy)]
enum Due {
    Write,
    Phase,
    Response,
}

impl Lifecycle {
    /// A new exchange: the client's request head has just become complete.
    pub fn new(timeouts: Timeouts, now: Instant) -> Self {
        Self {
            timeouts,
            phase: Phase::Choosing,
            retried: false,
            retrying: false,
            is_passed_on: false,
            has_own_head: false,
            write_by: timeouts.write.and_then(|write| now.checked_add(write)),
            attempt_by: None,
            conn: Conn::default(),
        }
    }

    /// A connection to an endpoint is being opened, or was taken from the pool (`reused`).
    ///
    /// After [`Action::RetryFresh`] it must be a fresh one to the same endpoint. Only valid while
    /// choosing; in any other phase it changes nothing.
    pub fn attempt(&mut self, reused: bool, now: Instant) {
        if self.phase != Phase::Choosing {
            return;
        }
        self.retried = self.retrying;
        self.retrying = false;
        if !self.retried {
            self.attempt_by = self.timeouts.attempt.and_then(|all| now.checked_add(all));
        }
        self.conn = Conn {
            reused,
            response_by: self.attempt_by,
            ..Conn::default()
        };
        if reused {
            self.enter(Phase::Sending, self.timeouts.read, now);
        } else {
            self.enter(Phase::Connecting, self.timeouts.connect, now);
        }
    }

    /// The gateway responds itself: it refuses the request, or no endpoint is left to try. Only
    /// valid while choosing; in any other phase it changes nothing.
    pub fn respond_locally(&mut self) {
        if self.phase == Phase::Choosing {
            self.release(Phase::Delivering);
        }
    }

    /// Bytes of the response that has begun go to the client from now on.
    pub fn pass_on(&mut self) {
        self.is_passed_on = true;
    }

    /// The client has waited for too long, for an endpoint or for its turn: what it may get from the
    /// gateway itself, which counts as sent. It does not end the attempts: nothing of an endpoint is
    /// out with it.
    pub fn fill(&mut self) -> Filling {
        let is_over = matches!(self.phase, Phase::Delivering | Phase::Over);
        if is_over || self.is_passed_on {
            Filling::Nothing
        } else if std::mem::replace(&mut self.has_own_head, true) {
            Filling::More
        } else {
            Filling::Head
        }
    }

    /// The time limits of the attempt that begins next.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.timeouts = Timeouts {
            write: self.timeouts.write,
            ..timeouts
        };
    }

    /// Whether the client has a head of the gateway's own: what follows must not begin with another.
    pub fn has_own_head(&self) -> bool {
        self.has_own_head
    }

    /// The response that has begun is given up in favour of another attempt. Returns false, and
    /// changes nothing, if there is no such response or if bytes of it went to the client.
    pub fn give_up(&mut self) -> bool {
        let has_response = matches!(self.phase, Phase::Responding | Phase::Delivering);
        let gives_up = has_response && !self.is_passed_on;
        if gives_up {
            self.release(Phase::Choosing);
        }
        gives_up
    }

    /// Takes an event. Events that do not belong to the phase change nothing; once the exchange is
    /// over, the action for any is [`Action::Abandon`], so nothing is ever sent after that.
    pub fn on(&mut self, event: Event, now: Instant) -> Action {
        match (self.phase, event) {
            (Phase::Over, _) => Action::Abandon,
            (_, Event::ClientLeft) => self.over(Action::Abandon),
            (_, Event::ClientStalled) => self.over(Action::Reset),
            (_, Event::Timer) => self.on_timer(now),
            (Phase::Choosing, _) => Action::Continue,
            (Phase::Connecting, event) => self.on_connecting(event, now),
            (Phase::Sending | Phase::Waiting, event) => self.on_requesting(event, now),
            (Phase::Responding, event) => self.on_responding(event, now),
            (Phase::Delivering, Event::Delivered) => self.over(Action::Continue),
            (Phase::Delivering, _) => Action::Continue,
        }
    }

    /// The time at which [`Event::Timer`] is due; `None` if the exchange waits for other events
    /// only. Later calls may return an earlier or a later time. A timer that fires early does no
    /// harm: it reports the event and is armed again.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_due().map(|(at, _)| at)
    }

    /// The current phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    fn on_connecting(&mut self, event: Event, now: Instant) -> Action {
        match event {
            Event::TlsBegun => {
                self.conn.tls = true;
                self.enter(Phase::Connecting, self.timeouts.tls, now);
                Action::Continue
            }
            Event::Connected => {
                self.enter(Phase::Sending, self.timeouts.read, now);
                Action::Continue
            }
            // Another endpoint would fail for the same reason, and this one is not at fault.
            Event::ConnectFailed(ConnectFault::Local) => self.fail(Fault::Local),
            Event::ConnectFailed(fault) => self.next_endpoint(fault.into()),
            Event::UpstreamReset => self.next_endpoint(Fault::Reset),
            Event::UpstreamClosed => self.next_endpoint(Fault::Closed),
            Event::EndpointDown => self.next_endpoint(Fault::Down),
            Event::Revoked => self.fail(Fault::Revoked),
            _ => Action::Continue,
        }
    }

    /// The request is being sent or has been sent; the response has not begun.
    fn on_requesting(&mut self, event: Event, now: Instant) -> Action {
        match event {
            Event::RequestProgress => {
                self.begin_request(now);
                if self.phase == Phase::Sending {
                    self.enter(Phase::Sending, self.timeouts.read, now);
                }
            }
            Event::RequestSent if !self.conn.send_failed => {
                self.begin_request(now);
                self.conn.taken = Taken::All;
                self.enter(Phase::Waiting, self.timeouts.response_header, now);
            }
            Event::SendFailed if self.phase == Phase::Sending => {
                self.conn.send_failed = true;
                self.enter(Phase::Waiting, self.timeouts.response_header, now);
            }
            // Before a request was sent, nothing that a used connection brings can be its response:
            // it belongs to an earlier request, or announces that the connection is being closed.
            Event::ResponseBytes
            | Event::ResponseHead { .. }
            | Event::Malformed
            | Event::HeadTooLarge
                if self.conn.reused && self.conn.taken == Taken::Nothing =>
            {
                return self.dead(Fault::Malformed);
            }
            Event::ResponseBytes => self.conn.head_begun = true,
            Event::ResponseHead { reusable, has_body } => {
                self.conn.head_begun = true;
                // A response that came before the request was complete leaves it unclear what the
                // endpoint takes the rest for.
                self.conn.reusable = reusable && self.conn.taken == Taken::All;
                self.enter(Phase::Responding, self.timeouts.read, now);
                if !has_body {
                    return self.finish();
                }
            }
            Event::UpstreamClosed => return self.broken(Ending::Closed),
            Event::UpstreamReset => return self.broken(Ending::Reset),
            Event::EndpointDown if !self.conn.head_begun => {
                return self.next_endpoint(Fault::Down);
            }
            Event::Revoked => return self.fail(Fault::Revoked),
            Event::Malformed => return self.fail(Fault::Malformed),
            Event::HeadTooLarge => return self.fail(Fault::HeadTooLarge),
            _ => {}
        }
        Action::Continue
    }

    fn on_responding(&mut self, event: Event, now: Instant) -> Action {
        match event {
            Event::ResponsePiece => {
                self.conn.silence_left = None;
                self.enter(Phase::Responding, self.timeouts.read, now);
                Action::Continue
            }
            Event::ClientBlocked => {
                if let Some(by) = self.conn.phase_by.take() {
                    self.conn.silence_left = Some(by.saturating_duration_since(now));
                }
                Action::Continue
            }
            Event::ClientTook => {
                // The bytes need not have come from the endpoint just now: a ping does not.
                if let Some(left) = self.conn.silence_left.take() {
                    self.conn.phase_by = now.checked_add(left);
                }
                Action::Continue
            }
            Event::ResponseEnd => self.finish(),
            Event::UpstreamClosed => self.over(Action::Cut(Fault::Closed)),
            Event::UpstreamReset => self.over(Action::Cut(Fault::Reset)),
            Event::Malformed => self.over(Action::Cut(Fault::Malformed)),
            Event::Revoked => self.over(Action::Cut(Fault::Revoked)),
            _ => Action::Continue,
        }
    }

    fn on_timer(&mut self, now: Instant) -> Action {
        let Some((at, due)) = self.next_due() else {
            return Action::Continue;
        };
        if now < at {
            return Action::Continue;
        }
        match (due, self.phase) {
            (Due::Write, _) => self.over(Action::Cut(Fault::WriteTimeout)),
            (Due::Response, Phase::Responding) => self.over(Action::Cut(Fault::ResponseTimeout)),
            (Due::Response, _) => self.fail(Fault::ResponseTimeout),
            (Due::Phase, Phase::Connecting) if self.conn.tls => {
                self.next_endpoint(Fault::TlsTimeout)
            }
            (Due::Phase, Phase::Connecting) => self.next_endpoint(Fault::ConnectTimeout),
            (Due::Phase, Phase::Sending) => self.fail(Fault::SendTimeout),
            (Due::Phase, Phase::Waiting) if self.conn.send_failed => self.broken(Ending::Reset),
            // No other endpoint: this one may be working on the prompt (docs/contract/README.md#6).
            (Due::Phase, Phase::Waiting) => self.fail(Fault::HeaderTimeout),
            (Due::Phase, Phase::Responding) => self.over(Action::Cut(Fault::ReadTimeout)),
            (Due::Phase, Phase::Choosing | Phase::Delivering | Phase::Over) => Action::Continue,
        }
    }

    fn next_due(&self) -> Option<(Instant, Due)> {
        if self.phase == Phase::Over {
            return None;
        }
        // Of two at the same moment the first counts.
        let mut next = self.write_by.map(|at| (at, Due::Write));
        for (at, due) in [
            (self.conn.phase_by, Due::Phase),
            (self.conn.response_by, Due::Response),
        ] {
            if let Some(at) = at
                && next.is_none_or(|(best, _)| at < best)
            {
                next = Some((at, due));
            }
        }
        next
    }

    /// The first byte of the request was taken: the time limit of the response begins.
    fn begin_request(&mut self, now: Instant) {
        if self.conn.taken == Taken::Nothing {
            self.conn.taken = Taken::Some;
            let response_by = self.timeouts.response.and_then(|all| now.checked_add(all));
            self.conn.response_by = match (self.conn.response_by, response_by) {
                (Some(attempt), Some(response)) => Some(attempt.min(response)),
                (one, other) => one.or(other),
            };
        }
    }

    /// The connection ended before a head was complete.
    fn broken(&mut self, ending: Ending) -> Action {
        let may_be_the_cause = self.conn.taken != Taken::Nothing;
        if self.conn.head_begun {
            self.fail(Fault::HeadCut(ending))
        } else if may_be_the_cause && !self.conn.reused {
            self.next_endpoint(Fault::Dropped(ending))
        } else {
            self.dead(ending.into())
        }
    }

    /// Nothing of a response was received, so the request may be sent again: to the same endpoint
    /// once if the connection was an old one, else to another.
    fn dead(&mut self, fault: Fault) -> Action {
        if self.conn.reused && !self.retried {
            self.retrying = true;
            self.release(Phase::Choosing);
            Action::RetryFresh
        } else {
            self.next_endpoint(fault)
        }
    }

    fn next_endpoint(&mut self, fault: Fault) -> Action {
        self.release(Phase::Choosing);
        Action::NextEndpoint(fault)
    }

    fn fail(&mut self, fault: Fault) -> Action {
        self.release(Phase::Delivering);
        Action::Fail(fault)
    }

    fn finish(&mut self) -> Action {
        let reuse_upstream = self.conn.reusable;
        self.release(Phase::Delivering);
        Action::Finish { reuse_upstream }
    }

    fn over(&mut self, action: Action) -> Action {
        self.release(Phase::Over);
        action
    }

    /// Enters a phase that may take this long.
    fn enter(&mut self, phase: Phase, limit: Duration, now: Instant) {
        self.phase = phase;
        self.conn.phase_by = now.checked_add(limit);
    }

    /// Enters a phase without an upstream connection.
    fn release(&mut self, phase: Phase) {
        self.phase = phase;
        self.conn.phase_by = None;
        self.conn.response_by = None;
    }
}
