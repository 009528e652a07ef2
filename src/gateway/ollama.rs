//! Routes of Ollama's API that are not simply forwarded, and `/`.
//!
//! Contract: docs/contract/dialects.md#2.2, docs/contract/dialects.md#11.2,
//! docs/contract/dialects.md#11.3, docs/contract/dialects.md#12

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use olla_engine::h1::{FieldId, emit};
use olla_engine::handler::{Ask, Local, Request, Routed};

use super::bodies::NO_BODY;
use super::exchange::Exchange;
use super::replies::{Awaited, ControlReply};
use crate::catalogue::ListingForm;
use crate::config::DialectName;
use crate::dialects::{ApiFamily, Error, Operation};
use crate::endpoint_set::EndpointSet;
use crate::fleet::Endpoint;
use crate::inspect::Missing;
use crate::providers::LATEST;
use crate::routing::route::RouteKind;
use crate::shared::{RunningRequest, Snapshot, ToControl};

/// How long a request waits for the list of loaded models, whose endpoints have 2 s.
const RUNNING_WAIT: Duration = Duration::from_millis(2500);

/// The response to clients that look whether a server is there.
const ALIVE: &[u8] = b"Ollama is running";

/// Characters of a name that a message shows.
const NAME_CHARS_MAX: usize = 256;

impl Exchange {
    /// What is variable in the path of a dialect's route.
    pub(super) fn own_part<'b>(&'b self, request: &Request<'b>) -> &'b [u8] {
        self.route.own(self.path(request))
    }

    /// Responds to a request of `/`: the dashboard for people, a word for programs.
    pub(super) fn root(&mut self, ask: &Ask<'_>, local: &mut Local) {
        let is_enabled = self.view.plan().dashboard.enabled;
        let status = if asks_for_page(&ask.request) && is_enabled {
            302
        } else {
            200
        };
        self.begin_varying(ask.cx, Some(&ask.request), (status, "Accept"), local);
        let out = &mut local.head;
        if status == 302 {
            emit::field(out, b"Location", b"/internal/ui/");
            return;
        }
        emit::field(out, b"Content-Type", b"text/plain; charset=utf-8");
        local.body = Bytes::from_static(ALIVE);
    }

    /// The error of a path without a route. APIs of other servers are not at the root.
    pub(super) fn no_route(&self, request: &Request<'_>) -> Error {
        let path = self.path(request);
        let elsewhere = if self.route.errors() != ApiFamily::Ollama {
            return Error::not_found();
        } else if path.starts_with(b"/api/v0/") {
            "there is no such route; LM Studio's API is below /olla/lmstudio/"
        } else if path.starts_with(b"/api/v1/") {
            "there is no such route; Lemonade's API is below /olla/lemonade/, and LM Studio's \
             below /olla/lmstudio/"
        } else {
            return Error::not_found();
        };
        Error::new(404, "not_found", "NOT_FOUND", elsewhere)
    }

    /// An error with the message that Ollama has for it (docs/contract/dialects.md#12).
    pub(super) fn in_ollamas_words<'e>(&self, error: &'e Error) -> Cow<'e, Error> {
        let message = match error.code {
            "MODEL_NOT_FOUND" => {
                let model: String = self
                    .model()
                    .unwrap_or_default()
                    .chars()
                    .take(NAME_CHARS_MAX)
                    .collect();
                Cow::Owned(format!("model '{model}' not found"))
            }
            // A key that may use certain models only is told so.
            "MODEL_REQUIRED" if error.status == 403 => return Cow::Borrowed(error),
            "MODEL_REQUIRED" if self.missing == Some(NO_BODY) => "missing request body".into(),
            "MODEL_REQUIRED" => "model is required".into(),
            _ => return Cow::Borrowed(error),
        };
        Cow::Owned(Error {
            message,
            ..error.clone()
        })
    }

    /// An error of Ollama's API below a prefix has the seeds' form, whatever OpenAI's would say
    /// besides.
    pub(super) fn in_seeds_form<'e>(&self, error: &'e Error) -> Cow<'e, Error> {
        if self.route.family() != ApiFamily::Ollama || error.details.is_none() {
            return Cow::Borrowed(error);
        }
        Cow::Owned(Error {
            details: None,
            ..error.clone()
        })
    }

    /// The endpoint's spelling of a name that it has only without the tag which clients append.
    pub(super) fn without_latest<'s>(
        &self,
        snapshot: &'s Snapshot,
        index: usize,
    ) -> Option<&'s str> {
        let model = self.model()?;
        let short = model.strip_suffix(LATEST)?;
        match snapshot.models.spelling(index, model) {
            Some(_) => None,
            None => snapshot.models.spelling(index, short),
        }
    }

    /// Whether the route is the description of a model.
    pub(super) fn describes(&self) -> bool {
        match self.route.kind {
            RouteKind::Dialect(_, route, _) => matches!(route.operation, Operation::Describe),
            _ => false,
        }
    }

    /// A model that an endpoint of Ollama's serves is described there, any other here.
    pub(super) fn describe(&mut self, ask: &Ask<'_>, local: &mut Local) -> Routed {
        let view = Rc::clone(&self.view);
        let is_native = |index: &usize| {
            let endpoint = view.endpoint(*index);
            endpoint.is_some_and(speaks_ollama)
        };
        let natives: EndpointSet = self.candidates.iter().filter(is_native).collect();
        let described = match self.check_description(ask.body) {
            Ok(()) if !natives.is_empty() => {
                self.candidates = natives;
                return Routed::Upstream;
            }
            Ok(()) => self.description(ask),
            Err(error) => Err(error),
        };
        match described {
            Ok(body) => {
                self.is_served_here = true;
                self.json(ask, body, local);
            }
            Err(error) => self.error(ask.cx, Some(&ask.request), &error, local),
        }
        Routed::Respond
    }

    /// Refuses a body that cannot be understood, whatever endpoint would get it.
    fn check_description(&mut self, body: &[u8]) -> Result<(), Error> {
        match body {
            b"" => Err(self.model_required(body)),
            _ if self.model().is_none() && self.findings.missing == Missing::NotJson => {
                let message = "the request body: expected a JSON object, got something else";
                Err(Error::new(400, "bad_request", "INVALID_BODY", message))
            }
            _ => Ok(()),
        }
    }

    /// What the catalogue knows of the model.
    fn description(&mut self, ask: &Ask<'_>) -> Result<Bytes, Error> {
        let view = Rc::clone(&self.view);
        let Some(model) = self.model() else {
            return Err(self.model_required(ask.body));
        };
        let RouteKind::Dialect(_, _, prefix) = self.route.kind else {
            return Err(Error::not_found());
        };
        let scoped = view
            .snapshot
            .routes
            .prefix(prefix)
            .scoped(ListingForm::Ollama);
        let name = self.looked_up(model, &self.scope(&ask.request, false));
        let described = match self.lens() {
            None => view.snapshot.catalogue.describe(&scoped, name),
            // Routing has found the model for this key: it is shown, and the view is small or known.
            Some(lens) => {
                let seen = view.snapshot.catalogue.seen_at_once(&lens);
                match seen {
                    Some(seen) => seen.describe(&scoped, name),
                    None => view.snapshot.catalogue.describe(&scoped, name),
                }
            }
        };
        described.map_err(|fault| Error::new(fault.status, fault.kind, fault.code, fault.message))
    }

    fn model_required(&mut self, body: &[u8]) -> Error {
        let missing = self.missing_model(body);
        self.missing = Some(missing);
        let message = format!("the request must name a model: {missing}");
        Error::new(400, "bad_request", "MODEL_REQUIRED", message)
    }

    /// The loaded models, which the control thread asks the endpoints for.
    pub(super) fn running(&mut self, ask: &Ask<'_>, local: &mut Local) -> Routed {
        let now = ask.cx.now;
        let Some(ticket) = &self.ticket else {
            let scope = self.scope(&ask.request, false);
            let with_others = self.path(&ask.request).starts_with(b"/api/");
            let native = scope.routable.iter().filter_map(|index| {
                let endpoint = self.view.endpoint(index)?;
                speaks_ollama(endpoint).then_some(endpoint.id)
            });
            let endpoints = native.collect();
            let lens = self.lens();
            self.ticket = self.gateway.ask(now + RUNNING_WAIT, |reply_to| {
                ToControl::Running(RunningRequest {
                    endpoints,
                    with_others,
                    lens,
                    reply_to,
                })
            });
            if let Some(ticket) = &self.ticket {
                return Routed::Wait(ticket.by);
            }
            self.write_overloaded(ask, local);
            return Routed::Respond;
        };
        match ticket.take(now) {
            Awaited::Later(until) => return Routed::Wait(until),
            Awaited::Arrived(ControlReply::Running(body)) => self.json(ask, body, local),
            Awaited::Arrived(_) | Awaited::Never => self.write_overloaded(ask, local),
        }
        Routed::Respond
    }
}

/// Whether an endpoint has Ollama's own API, by its configuration or its profile.
fn speaks_ollama(endpoint: &Endpoint) -> bool {
    let configured = endpoint.plan.speaks(DialectName::OllamaNative);
    configured.unwrap_or(endpoint.profile.speaks_ollama)
}

/// Whether a person with a browser asks for the root.
pub(super) fn asks_for_page(request: &Request<'_>) -> bool {
    let Request { head, bytes, .. } = *request;
    let wants_page = |line: &[u8]| {
        let mut items = line.split(|byte| *byte == b',');
        items.any(|item| {
            let media = item.split(|byte| *byte == b';').next().unwrap_or(item);
            media.trim_ascii().eq_ignore_ascii_case(b"text/html")
        })
    };
    head.method.of(bytes) == b"GET"
        && head
            .all(FieldId::Accept)
            .any(|line| wants_page(line.value.of(bytes)))
}
