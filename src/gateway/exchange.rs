//! The state of one request. A connection has one and begins it anew for each of its requests, so
//! that what grows keeps its room.

use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use olla_engine::exchange::Fault;
use olla_engine::handler::Request;
use olla_engine::limit::Admission;

use super::clients::IpText;
use super::cors::Grant;
use super::id::RequestId;
use super::messages::Message;
use super::view::View;
use crate::endpoint_set::EndpointSet;
use crate::inspect::{Findings, Inspector, Splice};
use crate::providers::figures::Tail;
use crate::routing::aliases::AliasUse;
use crate::routing::balance::Lease;
use crate::routing::decide::Refresh;
use crate::routing::rejection::Routing;
use crate::routing::route::{ListingForm, Management};
use crate::routing::scope::ScopeId;
use crate::routing::sticky::Session;

/// See the module.
#[derive(Debug, Default)]
pub struct Exchange {
    /// What the request is carried by; always there between `head` and `done`.
    pub(super) view: Option<Rc<View>>,
    pub(super) id: RequestId,
    pub(super) kind: Kind,
    pub(super) client: Option<IpAddr>,
    /// The client's address as a text, and that of its end of the connection.
    pub(super) client_text: IpText,
    pub(super) peer_text: IpText,
    pub(super) cors: Grant,
    /// The client's bucket, for the headers of limited routes.
    pub(super) admission: Option<(Admission, u32)>,
    /// The path in normal form, when it is not as the client wrote it.
    pub(super) own_path: Vec<u8>,
    /// What goes to the backend, or names what is asked for.
    pub(super) rest: PathAt,
    pub(super) inspector: Option<Inspector>,
    pub(super) findings: Findings,
    /// The name of the model as the client wrote it; empty = none.
    pub(super) model: String,
    /// The name that was sent to the last endpoint, where that is another.
    pub(super) sent_model: String,
    pub(super) routing: Option<Routing>,
    pub(super) alias: Option<AliasUse>,
    pub(super) candidates: EndpointSet,
    pub(super) tried: EndpointSet,
    pub(super) attempts: u32,
    pub(super) lease: Option<Lease>,
    /// Index of the endpoint of the last attempt.
    pub(super) endpoint: Option<usize>,
    pub(super) splice: Option<Splice>,
    pub(super) session: Option<Session>,
    pub(super) refresh: Refresh,
    /// The letter that is waited for; 0 = none.
    pub(super) ticket: u64,
    /// When it is no longer waited for.
    pub(super) ticket_by: Option<Instant>,
    /// Waiting for first checks is over.
    pub(super) waited: bool,
    /// Candidates have been looked for.
    pub(super) routed: bool,
    /// Status sent to the client; 0 = none yet.
    pub(super) status: u16,
    /// Status of the last endpoint's answer.
    pub(super) answer_status: Option<u16>,
    /// Why the last attempt brought no answer, if it did not.
    pub(super) failed_by: Option<Fault>,
    pub(super) times: Times,
    pub(super) message: Message,
    pub(super) tail: Option<Box<Tail>>,
    /// The end of the answer is read for token figures.
    pub(super) reads_figures: bool,
}

/// When the steps of a request were taken; `None` = not yet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    /// Its head was complete.
    pub(super) headed: Option<Instant>,
    /// It was complete.
    pub(super) routed: Option<Instant>,
    /// The last attempt began.
    pub(super) dispatched: Option<Instant>,
    /// The head of an answer had come.
    pub(super) answered: Option<Instant>,
}

/// What kind of request it is, once its route is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    /// Not known yet, or of no route.
    #[default]
    None,
    /// To a backend.
    Proxy {
        scope: ScopeId,
        /// Whether the prefix is a provider's.
        provider: bool,
    },
    /// Ollama's model management, where it is forwarded.
    Management(ScopeId, Management),
    /// Models of a prefix.
    Listing(ListingForm),
    /// `/olla/models`.
    Models,
    /// `/olla/models/{id}`.
    Model,
    /// The Messages API.
    Messages,
    CountTokens,
    MessagesModels,
    MessagesModel,
    /// Below `/internal/`, and `/version`.
    Internal,
    /// The dashboard.
    Dashboard,
}

impl Kind {
    /// Whether errors have Anthropic's shape.
    pub(super) const fn is_anthropic(self) -> bool {
        matches!(
            self,
            Self::Messages | Self::CountTokens | Self::MessagesModels | Self::MessagesModel
        )
    }

    /// Whether it goes to a backend, so that it counts as a client request.
    pub(super) const fn is_proxied(self) -> bool {
        matches!(
            self,
            Self::Proxy { .. } | Self::Management(..) | Self::Messages
        )
    }
}

/// Where a part of the path is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum PathAt {
    /// Nowhere.
    #[default]
    Nothing,
    /// Nowhere either: the `/` that the client did not write behind a prefix.
    Root,
    /// In `own_path`.
    Own(Range<usize>),
    /// In the request's bytes.
    Sent(Range<usize>),
}

impl PathAt {
    /// The place of a part of a larger slice; what is no part of it stands for `/`.
    pub(super) fn of(part: &[u8], whole: &[u8], own: bool) -> Self {
        let offset = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        let range = offset..offset.wrapping_add(part.len());
        if whole.get(range.clone()).is_none() {
            debug_assert!(part.is_empty() || part == b"/");
            return Self::Root;
        }
        if own {
            Self::Own(range)
        } else {
            Self::Sent(range)
        }
    }
}

impl Exchange {
    /// Forgets the request before.
    pub(super) fn begin(&mut self, view: Rc<View>) {
        debug_assert!(self.lease.is_none(), "an attempt outlived its request");
        self.view = Some(view);
        self.kind = Kind::None;
        self.client = None;
        self.cors = Grant::Off;
        self.admission = None;
        self.own_path.clear();
        self.inspector = None;
        self.findings = Findings::default();
        self.model.clear();
        self.sent_model.clear();
        self.routing = None;
        self.alias = None;
        self.candidates = EndpointSet::EMPTY;
        self.tried = EndpointSet::EMPTY;
        self.attempts = 0;
        self.lease = None;
        self.endpoint = None;
        self.splice = None;
        self.session = None;
        self.refresh = Refresh::Before;
        self.ticket = 0;
        self.ticket_by = None;
        self.routed = false;
        self.waited = false;
        self.status = 0;
        self.answer_status = None;
        self.failed_by = None;
        self.times = Times::default();
        self.message.begin();
        self.reads_figures = false;
    }

    /// The name of the model that the request asks for.
    pub(super) fn model(&self) -> Option<&str> {
        Some(self.model.as_str()).filter(|model| !model.is_empty())
    }

    /// The name of the model that the last endpoint was asked for.
    pub(super) fn sent_model(&self) -> Option<&str> {
        Some(self.sent_model.as_str())
            .filter(|model| !model.is_empty())
            .or_else(|| self.model())
    }

    /// The path in normal form.
    pub(super) fn path<'b>(&'b self, request: &Request<'b>) -> &'b [u8] {
        if self.own_path.is_empty() {
            request.head.path.of(request.bytes)
        } else {
            &self.own_path
        }
    }

    /// A part of the path.
    pub(super) fn rest<'b>(&'b self, bytes: &'b [u8]) -> &'b [u8] {
        let (whole, range) = match &self.rest {
            PathAt::Nothing => return b"",
            PathAt::Root => return b"/",
            PathAt::Own(range) => (self.own_path.as_slice(), range),
            PathAt::Sent(range) => (bytes, range),
        };
        whole.get(range.clone()).unwrap_or_default()
    }
}
