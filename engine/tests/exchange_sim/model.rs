//! The truth about an exchange, kept apart from the machine: it knows what happened and when, not
//! the machine's phases.

use std::time::Duration;

use olla_engine::bench::{Action, Event, Filling};
use olla_engine::exchange::{ConnectFault, Ending, Fault, Timeouts};

use crate::Rng;

/// Virtual time in milliseconds.
pub(crate) type Ms = u64;

/// The limits of one run, in virtual time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    connect: Ms,
    tls: Ms,
    header: Ms,
    read: Ms,
    response: Option<Ms>,
    attempt: Option<Ms>,
    write: Option<Ms>,
}

impl Limits {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let maybe = |rng: &mut Rng, ms| rng.percent(50).then_some(ms);
        Self {
            connect: 60,
            tls: 10,
            header: 30,
            read: rng.pick(&[20, 600]),
            response: maybe(rng, 90),
            attempt: rng.percent(20).then_some(80),
            write: maybe(rng, 250),
        }
    }

    pub(crate) fn timeouts(self) -> Timeouts {
        let ms = Duration::from_millis;
        Timeouts {
            connect: ms(self.connect),
            tls: ms(self.tls),
            response_header: ms(self.header),
            read: ms(self.read),
            response: self.response.map(ms),
            attempt: self.attempt.map(ms),
            write: self.write.map(ms),
        }
    }

    /// A pause: mostly short, sometimes at the edge of a limit, sometimes beyond all.
    pub(crate) fn pause(self, rng: &mut Rng) -> Ms {
        match rng.below(20) {
            0 => 10_000,
            1 => {
                let edge = rng.pick(&[self.connect, self.tls, self.header, self.read]);
                edge - 1 + rng.below(3)
            }
            2..5 => rng.below(40),
            _ => rng.below(5),
        }
    }
}

/// What the model knows of the current connection.
#[derive(Debug, Default, Clone)]
pub(crate) struct Link {
    reused: bool,
    /// When the attempt began, of a retry the one before.
    began: Ms,
    /// The time since which it has been connecting.
    opening: Option<Ms>,
    /// The time since which the TLS handshake has been in progress.
    shaking: Option<Ms>,
    /// When the endpoint last took bytes (or could begin to).
    took: Ms,
    first_byte: Option<Ms>,
    /// When the request was sent, or sending broke off.
    sent: Option<Ms>,
    broke: Option<Ms>,
    head_begun: bool,
    pub(crate) head: Option<Head>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    /// When the endpoint last spoke, later by the time that the client made it wait since.
    spoke: Ms,
    /// Since when it does.
    pub(crate) blocked: Option<Ms>,
    reusable: bool,
    early: bool,
}

/// The truth about one exchange, kept apart from the machine.
pub(crate) struct Model {
    limits: Limits,
    start: Ms,
    pub(crate) link: Option<Link>,
    pub(crate) response_begun: bool,
    /// Bytes of a response went to the client.
    pub(crate) client_has_bytes: bool,
    /// A head of the gateway's own went to the client.
    pub(crate) has_own_head: bool,
    /// Heads that the client got.
    heads: u32,
    pub(crate) client_here: bool,
    /// A response of the gateway's own, or the end of an endpoint's, is on its way to the client.
    pub(crate) delivering: bool,
    pub(crate) over: bool,
    /// When the current endpoint got its first attempt.
    attempt_began: Ms,
    /// The retry on a fresh connection was used up for the current endpoint.
    retried: bool,
    /// The last action was `RetryFresh`.
    pub(crate) retrying: bool,
}

impl Model {
    pub(crate) fn new(limits: Limits, start: Ms) -> Self {
        Self {
            limits,
            start,
            link: None,
            response_begun: false,
            client_has_bytes: false,
            has_own_head: false,
            heads: 0,
            client_here: true,
            delivering: false,
            over: false,
            attempt_began: start,
            retried: false,
            retrying: false,
        }
    }

    pub(crate) fn attempt(&mut self, reused: bool, now: Ms) {
        assert!(
            !self.response_begun && !self.client_has_bytes,
            "the request is sent again after its response began"
        );
        assert!(
            self.client_here && !self.over,
            "something is sent for a client that left"
        );
        if !self.retrying {
            self.retried = false;
            self.attempt_began = now;
        }
        self.retrying = false;
        let opening = (!reused).then_some(now);
        self.link = Some(Link {
            reused,
            began: self.attempt_began,
            opening,
            took: now,
            ..Link::default()
        });
    }

    /// What the gateway may send of its own, also while the request waits for its turn.
    pub(crate) fn expect_filling(&mut self) -> Filling {
        if self.delivering || self.over || self.client_has_bytes {
            Filling::Nothing
        } else if self.has_own_head {
            Filling::More
        } else {
            assert!(self.client_here && !self.over);
            self.has_own_head = true;
            self.heads += 1;
            Filling::Head
        }
    }

    /// A head is written, unless the client has one of the gateway's own.
    pub(crate) fn begin_response(&mut self) {
        if !self.has_own_head {
            self.heads += 1;
        }
        assert_eq!(self.heads, 1, "a response has one head");
    }

    /// The response is given up: as if it had not been.
    pub(crate) fn give_up(&mut self) {
        assert!(self.response_begun && !self.client_has_bytes);
        self.response_begun = false;
        self.link = None;
    }

    /// Every deadline there is, and the fault it means.
    fn deadlines(&self) -> Vec<(Ms, Fault)> {
        let mut all = Vec::new();
        if self.over {
            return all;
        }
        let limits = self.limits;
        if let Some(write) = limits.write {
            all.push((self.start + write, Fault::WriteTimeout));
        }
        let Some(link) = &self.link else {
            return all;
        };
        if let Some(head) = link.head {
            if head.blocked.is_none() {
                all.push((head.spoke + limits.read, Fault::ReadTimeout));
            }
        } else if let Some(sent) = link.sent {
            all.push((sent + limits.header, Fault::HeaderTimeout));
        } else if let Some(broke) = link.broke {
            all.push((broke + limits.header, Fault::Reset));
        } else if let Some(shaking) = link.shaking {
            all.push((shaking + limits.tls, Fault::TlsTimeout));
        } else if let Some(opening) = link.opening {
            all.push((opening + limits.connect, Fault::ConnectTimeout));
        } else {
            all.push((link.took + limits.read, Fault::SendTimeout));
        }
        if let (Some(first), Some(response)) = (link.first_byte, limits.response) {
            all.push((first + response, Fault::ResponseTimeout));
        }
        if let Some(attempt) = limits.attempt {
            all.push((link.began + attempt, Fault::ResponseTimeout));
        }
        all
    }

    pub(crate) fn deadline(&self) -> Option<Ms> {
        self.deadlines().into_iter().map(|(at, _)| at).min()
    }

    /// What the connection's end before a response means.
    fn lost(&self, fault: Fault) -> Action {
        let link = self.link.as_ref().unwrap();
        let ending = match fault {
            Fault::Closed => Ending::Closed,
            _ => Ending::Reset,
        };
        if link.head.is_some() {
            Action::Cut(fault)
        } else if link.head_begun {
            Action::Fail(Fault::HeadCut(ending))
        } else if link.reused && !self.retried {
            Action::RetryFresh
        } else if !link.reused && link.first_byte.is_some() {
            Action::NextEndpoint(Fault::Dropped(ending))
        } else {
            Action::NextEndpoint(fault)
        }
    }

    /// Takes in what happened and says what is right to do.
    pub(crate) fn expect(&mut self, event: Event, now: Ms) -> Action {
        match event {
            Event::ClientLeft => return Action::Abandon,
            Event::ClientStalled => return Action::Reset,
            Event::Timer => return self.expect_timer(now),
            _ => {}
        }
        let Some(link) = &mut self.link else {
            return Action::Continue;
        };
        let unrequested = link.reused && link.first_byte.is_none();
        match event {
            Event::TlsBegun => link.shaking = Some(now),
            Event::Connected => {
                (link.opening, link.shaking) = (None, None);
                link.took = now;
            }
            Event::ConnectFailed(ConnectFault::Local) => return Action::Fail(Fault::Local),
            Event::ConnectFailed(fault) => return Action::NextEndpoint(fault.into()),
            Event::RequestProgress | Event::RequestSent if link.head.is_none() => {
                link.took = now;
                link.first_byte.get_or_insert(now);
                if event == Event::RequestSent {
                    link.sent = Some(now);
                }
            }
            Event::EndpointDown if link.head.is_none() && !link.head_begun => {
                return Action::NextEndpoint(Fault::Down);
            }
            Event::EndpointDown => {}
            Event::SendFailed if link.head.is_none() => link.broke = Some(now),
            Event::ResponseBytes | Event::ResponseHead { .. } | Event::Malformed if unrequested => {
                return self.lost(Fault::Malformed);
            }
            Event::ResponseBytes => link.head_begun = true,
            Event::ResponseHead { reusable, has_body } => {
                assert!(!self.response_begun, "a second response");
                self.response_begun = true;
                let early = link.sent.is_none();
                link.head = Some(Head {
                    spoke: now,
                    blocked: None,
                    reusable,
                    early,
                });
                if !has_body {
                    return Action::Finish {
                        reuse_upstream: reusable && !early,
                    };
                }
            }
            Event::ResponseEnd => {
                let head = link.head.unwrap();
                return Action::Finish {
                    reuse_upstream: head.reusable && !head.early,
                };
            }
            Event::ResponsePiece => {
                let head = link.head.as_mut().unwrap();
                (head.spoke, head.blocked) = (now, None);
            }
            Event::ClientBlocked => {
                link.head.as_mut().unwrap().blocked.get_or_insert(now);
            }
            Event::ClientTook => {
                let head = link.head.as_mut().unwrap();
                // As if the time in between had not been.
                head.spoke += head.blocked.take().map_or(0, |since| now - since);
            }
            Event::UpstreamClosed => return self.lost(Fault::Closed),
            Event::UpstreamReset => return self.lost(Fault::Reset),
            Event::Malformed if self.response_begun => return Action::Cut(Fault::Malformed),
            Event::Malformed => return Action::Fail(Fault::Malformed),
            _ => {}
        }
        Action::Continue
    }

    fn expect_timer(&self, now: Ms) -> Action {
        // `min_by_key` keeps the first of equals, and so does the machine.
        let due = self.deadlines().into_iter().min_by_key(|(at, _)| *at);
        match due {
            None => Action::Continue,
            Some((at, _)) if at > now => Action::Continue,
            Some((_, fault @ Fault::WriteTimeout)) => Action::Cut(fault),
            Some((_, fault @ Fault::Reset)) => self.lost(fault),
            Some((_, fault @ (Fault::ConnectTimeout | Fault::TlsTimeout))) => {
                Action::NextEndpoint(fault)
            }
            Some((_, fault)) if self.response_begun => Action::Cut(fault),
            Some((_, fault)) => Action::Fail(fault),
        }
    }

    /// Takes in what was done.
    pub(crate) fn done(&mut self, action: Action) {
        match action {
            Action::Continue => return,
            Action::RetryFresh => {
                assert!(!self.retried, "retried twice");
                (self.retried, self.retrying) = (true, true);
            }
            Action::NextEndpoint(_) | Action::Fail(_) => {
                assert!(!self.response_begun, "an error after a response");
            }
            Action::Cut(_) | Action::Abandon | Action::Reset => self.over = true,
            Action::Finish { .. } => assert!(self.response_begun),
        }
        self.link = None;
    }
}
