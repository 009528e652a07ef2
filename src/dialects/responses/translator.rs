//! A request of the Responses API on its way to any endpoint (docs/contract/dialects.md#3,
//! docs/contract/dialects.md#9).

use std::sync::Arc;

use super::input::ReferencedItems;
use super::native::{NativeReader, Purpose};
use super::object::{ReplyContext, ReplySeed};
use super::objection::{endpoint_is_away, history_is_too_long, unknown_item, unknown_previous};
use super::reply::{self, Reply};
use super::request::ResponsesRequest;
use super::store::{Keeper, KeptResponse, Owner, ResponseStore, uncovered};
use super::stored_input::StoredInput;
use super::to_chat::{self, Before, examine, referenced_ids};
use crate::config::DialectName;
use crate::dialects::chat::dropped::Dropped;
use crate::dialects::chat::error::{Refusal, invalid};
use crate::dialects::chat::stream::ChatStream;
use crate::dialects::chat::warning::Translated;
use crate::dialects::chat::writer::Moment;
use crate::dialects::conversation::{
    ChatMaking, ChatRequest, CheckedRequest, Demand, NativeStart, NativeSupport, Outgoing,
    Translator, TranslatorFacts,
};
use crate::dialects::{Choosing, Note};
use crate::fleet::Endpoint;

/// What a response object has besides its items and what it repeats of the request, in bytes.
const OBJECT_BYTES: usize = 1 << 10;

/// The limitation of a native endpoint that keeps nothing.
const NO_STATE: &str = "no_state";

static FACTS: TranslatorFacts = TranslatorFacts {
    name: "responses",
    dialect: DialectName::OpenAiResponses,
    stream_type: "text/event-stream",
    silence_max: None,
    puts_together: true,
};

/// Whether an endpoint with a Responses API of its own keeps no responses.
pub(crate) fn keeps_nothing(endpoint: &Endpoint) -> bool {
    let limitations = &endpoint.profile.responses.limitations;
    limitations.iter().any(|limitation| limitation == NO_STATE)
}

/// One request.
#[derive(Debug, Default)]
pub(crate) struct ResponsesTranslator {
    request: Option<Box<ResponsesRequest>>,
    /// The input, if the response may be kept.
    input: Option<StoredInput>,
    /// The ids of the stored items that the input refers to.
    references: Vec<String>,
    referenced: ReferencedItems,
    access: Option<StoreAccess>,
    previous: Option<Arc<KeptResponse>>,
    /// For the response to the last translated request.
    prepared: Option<(Arc<ReplyContext>, Option<Keeper>)>,
    /// Reads a response that passes.
    native: Option<NativeReader>,
}

/// The store, as the client of the request sees it.
#[derive(Debug, Clone)]
struct StoreAccess {
    store: Arc<ResponseStore>,
    owner: Owner,
    /// Clients have keys, so that what one has made is not found by others
    /// (docs/contract/access.md#15).
    is_keyed: bool,
    /// When the request arrived.
    now_ms: u64,
    /// The most bytes of a request.
    body_bytes_max: Option<u64>,
}

impl ResponsesTranslator {
    /// Which endpoints a request may go to that continues a response.
    fn continuing(&mut self, id: &str, choosing: &Choosing<'_>, access: &StoreAccess) -> Demand {
        let StoreAccess { store, owner, .. } = access;
        self.previous = store.find(*owner, id, access.now_ms);
        if self.previous.is_some() {
            return Demand::Translation;
        }
        if let Some(made_by) = store.made_by(*owner, id, access.now_ms) {
            let mut endpoints = choosing.endpoints.iter();
            if let Some(index) = endpoints.position(|endpoint| endpoint.name() == &*made_by) {
                return Demand::Endpoint(index, Box::new(endpoint_is_away(id)));
            }
        }
        let unknown = Box::new(unknown_previous(id, store.bounds().enabled));
        if access.is_keyed {
            // An endpoint that keeps it would not know whose it is.
            return Demand::Nothing(unknown);
        }
        Demand::NativeOnly(unknown)
    }

    /// Looks up the items that the input refers to; returns an id that is not stored.
    fn look_up(&mut self, access: &StoreAccess) -> Option<String> {
        for id in std::mem::take(&mut self.references) {
            match access.store.item(access.owner, &id, access.now_ms) {
                Some(item) => drop(self.referenced.insert(id, item)),
                None => return Some(id),
            }
        }
        if let Some(input) = self.input.as_mut().filter(|_| !self.referenced.is_empty()) {
            *input = input.resolved(&self.referenced);
        }
        None
    }

    /// What keeps the response, and the bytes that its items may have.
    fn keeper(&self, context: &ReplyContext) -> Option<(Keeper, usize)> {
        let (access, input) = (self.access.as_ref()?, self.input.as_ref()?);
        let bounds = access.store.bounds();
        let taken = input.items.len() + uncovered(context.echo.len() + OBJECT_BYTES);
        let room = bounds.response_bytes_max().checked_sub(taken)?;
        bounds
            .enabled
            .then(|| (self.keeper_of(access, input), room))
    }

    fn keeper_of(&self, access: &StoreAccess, input: &StoredInput) -> Keeper {
        Keeper {
            store: Arc::clone(&access.store),
            owner: access.owner,
            input: input.clone(),
            parent: self.previous.clone(),
        }
    }

    /// The keeper goes with the response that may be kept.
    fn prepared(&mut self) -> Option<(Arc<ReplyContext>, Option<Keeper>)> {
        let (context, keeper) = self.prepared.as_mut()?;
        Some((Arc::clone(context), keeper.take()))
    }
}

impl Translator for ResponsesTranslator {
    fn facts(&self) -> &'static TranslatorFacts {
        &FACTS
    }

    fn check(&mut self, body: &[u8]) -> CheckedRequest {
        let request = match ResponsesRequest::read(body) {
            Ok(request) => request,
            Err(refusal) => {
                return CheckedRequest {
                    invalid: Some(refusal),
                    ..CheckedRequest::default()
                };
            }
        };
        let fields = request.fields(body);
        let demand = if request.model.is_empty() {
            let refusal = invalid("model", "expected a non-empty string");
            Demand::NativeOnly(Box::new(refusal))
        } else {
            match examine(&fields) {
                Err(refusal) => Demand::NativeOnly(Box::new(refusal)),
                Ok(true) => Demand::NativeFirst,
                Ok(false) => Demand::Any,
            }
        };
        self.references = referenced_ids(&fields);
        self.input = fields.stores().then(|| StoredInput::of(&fields, body));
        let checked = CheckedRequest {
            model: request.model.clone(),
            stream: request.stream,
            invalid: None,
            demand,
        };
        self.request = Some(Box::new(request));
        checked
    }

    fn demand(&mut self, choosing: &Choosing<'_>, checked: &CheckedRequest) -> Demand {
        let access = StoreAccess {
            store: Arc::clone(choosing.responses),
            owner: (choosing.owner)(),
            is_keyed: choosing.is_keyed,
            now_ms: choosing.unix_ms,
            body_bytes_max: choosing.plan.server.request_limits.max_body_size,
        };
        let unknown = self.look_up(&access);
        let request = self.request.as_ref();
        let previous = request.and_then(|request| request.previous_response_id.clone());
        let demand = match (previous, unknown, &checked.demand) {
            (Some(id), ..) => self.continuing(&id, choosing, &access),
            (None, _, own @ Demand::NativeOnly(_)) => own.clone(),
            (None, Some(id), _) if access.is_keyed => Demand::Nothing(Box::new(unknown_item(&id))),
            (None, Some(id), _) => Demand::NativeOnly(Box::new(unknown_item(&id))),
            (None, None, own) => own.clone(),
        };
        self.access = Some(access);
        demand
    }

    fn native<'e>(&self, endpoint: &'e Endpoint) -> NativeSupport<'e> {
        let support = &endpoint.profile.responses;
        NativeSupport {
            enabled: support.enabled,
            path: Some(&support.path),
            limitations: &support.limitations,
        }
    }

    fn is_excluded_by(&self, limitation: &str) -> bool {
        let request = self.request.as_ref();
        request.is_some_and(|request| request.uses.exclude(limitation))
    }

    fn to_chat(&mut self, making: &ChatMaking<'_>) -> Result<Outgoing, Refusal> {
        let Some(request) = &self.request else {
            return Err(Refusal::invalid("the request has no body"));
        };
        let fields = request.fields(making.body);
        let history = self
            .previous
            .as_ref()
            .map_or(0, |kept| kept.history_bytes());
        let max = self
            .access
            .as_ref()
            .and_then(|access| access.body_bytes_max);
        if let Some(max) = max.filter(|max| history as u64 > *max) {
            return Err(history_is_too_long(history, max));
        }
        if let (Some(id), None) = (&request.previous_response_id, &self.previous) {
            // The endpoint that might keep it does not speak the dialect after all.
            let store = self
                .access
                .as_ref()
                .map(|access| access.store.bounds().enabled);
            return Err(unknown_previous(id, store.unwrap_or(false)));
        }
        let before = Before {
            response: self.previous.as_deref(),
            items: Some(&self.referenced),
        };
        let sent = to_chat::to_chat(&fields, before, making.name, making.kind)?;
        let arrived_ms = self.access.as_ref().map_or(0, |access| access.now_ms);
        let seed = ReplySeed {
            seed: making.seed,
            now: arrived_ms / 1000,
        };
        let mut context = sent.context(&fields, seed);
        let (keeper, room) = self.keeper(&context).unzip();
        context.store_room = room;
        let input_tokens = context.input_tokens;
        self.prepared = Some((Arc::new(context), keeper));
        let mut dropped = Dropped::default();
        sent.dropped.into_iter().for_each(|name| dropped.add(name));
        Ok(Outgoing::Chat(ChatRequest {
            body: sent.body,
            input_tokens,
            dropped,
            ..ChatRequest::default()
        }))
    }

    fn whole(&mut self, body: &[u8], at: Moment) -> Result<Translated, Refusal> {
        match self.prepared() {
            Some(prepared) => reply::whole(body, prepared, at),
            None => Err(Refusal::backend(
                "the endpoint sent a response that was not expected",
            )),
        }
    }

    fn stream(&mut self) -> ChatStream {
        // A request is translated before its response comes.
        let (context, keeper) = self.prepared().unwrap_or_default();
        ChatStream::new(Box::new(Reply::new(context, keeper)))
    }

    fn beginning(&self) -> ChatStream {
        let context = self
            .prepared
            .as_ref()
            .map(|(context, _)| Arc::clone(context));
        ChatStream::new(Box::new(Reply::new(context.unwrap_or_default(), None)))
    }

    fn understood(&self, error: Refusal) -> Refusal {
        reply::understood(error)
    }

    fn named_id(&self) -> Option<&str> {
        self.request.as_ref()?.previous_response_id.as_deref()
    }

    fn begin_watch(&mut self, start: &NativeStart<'_>) -> bool {
        self.native = None;
        let Some(access) = &self.access else {
            return false;
        };
        let purpose = if keeps_nothing(start.endpoint) {
            let is_on = access.store.bounds().enabled;
            let input = self.input.as_ref().filter(|_| is_on);
            input.map(|input| Purpose::Keep(self.keeper_of(access, input)))
        } else {
            Some(Purpose::Remember {
                store: Arc::clone(&access.store),
                owner: access.owner,
                endpoint: Arc::from(start.endpoint.name()),
            })
        };
        let is_read = start.status < 400 && !start.compressed;
        let reader = purpose.filter(|_| is_read);
        self.native = reader.map(|purpose| NativeReader::new(start.events, purpose));
        self.native.is_some()
    }

    fn watch(&mut self, payload: &[u8]) {
        if let (Some(native), Some(access)) = (&mut self.native, &self.access) {
            native.push(payload, access.now_ms);
        }
    }

    fn end(&mut self, complete: bool, _: &mut Vec<Note>) {
        if let (Some(native), Some(access)) = (self.native.take(), &self.access)
            && complete
        {
            native.finish(access.now_ms);
        }
    }
}
