//! The request to an endpoint: as the client wrote it, or translated.
//!
//! Contract: docs/contract/dialects.md#3

use olla_engine::handler::Request;

use super::split::{Mode, Split};
use super::{ChatMaking, Conversation, Outgoing, Subject};
use crate::config::Plan;
use crate::dialects::chat::ids::IdSeed;
use crate::dialects::{Choosing, DialectTarget, Error, Note, Sending, Sent};
use crate::endpoint_set::EndpointSet;
use crate::fleet::Endpoint;

impl Conversation {
    /// See [`crate::dialects::Dialect::read`].
    pub(in crate::dialects) fn read(
        &mut self,
        body: &[u8],
        model: &mut String,
    ) -> Result<(), Error> {
        model.clear();
        let checked = self.translator.check(body);
        if checked.model.is_empty()
            && let Some(refusal) = &checked.invalid
        {
            let refusal = refusal.clone();
            self.subject = Subject::Unusable;
            return Err(refusal.into());
        }
        model.push_str(&checked.model);
        self.subject = Subject::Read(checked);
        Ok(())
    }

    /// Separates native candidates from the others, then reports the error of an invalid request.
    pub(in crate::dialects) fn choose(&mut self, choosing: &Choosing<'_>) -> Result<(), Error> {
        let Subject::Read(checked) = &self.subject else {
            return Ok(());
        };
        let demand = self.translator.demand(choosing, checked);
        let rules = choosing
            .plan
            .translators
            .rules(self.translator.facts().dialect);
        match Split::new(choosing, &*self.translator, rules, &demand) {
            Ok(split) => self.split = split,
            Err(refusal) => {
                self.mode = Some(Mode::Translation);
                return Err(refusal.into());
            }
        }
        match &checked.invalid {
            Some(refusal) => {
                self.mode = Some(self.split.first_mode());
                Err(refusal.clone().into())
            }
            None => Ok(()),
        }
    }

    /// See [`crate::dialects::Dialect::next`].
    pub(in crate::dialects) fn next(
        &mut self,
        _candidates: &EndpointSet,
        tried: &EndpointSet,
    ) -> (EndpointSet, EndpointSet) {
        if let Some(index) = self.again {
            return ([index].into_iter().collect(), EndpointSet::EMPTY);
        }
        let first = self.split.first_mode();
        self.mode.get_or_insert(first);
        let set = if self.widened {
            self.split.others
        } else {
            self.split.next(tried)
        };
        (set, *tried)
    }

    /// See [`crate::dialects::Dialect::widen`].
    pub(in crate::dialects) fn widen(&mut self) -> bool {
        let widens = !self.widened
            && self.split.native_first
            && !self.split.native.is_empty()
            && !self.split.others.is_empty();
        self.widened |= widens;
        widens
    }

    /// See [`crate::dialects::Dialect::all`].
    pub(in crate::dialects) fn all(&self) -> EndpointSet {
        match self.again {
            Some(index) => [index].into_iter().collect(),
            None => self.split.native.or(&self.split.others),
        }
    }

    /// See [`crate::dialects::Dialect::narrow`].
    pub(in crate::dialects) fn narrow(&mut self) {
        self.widened = false;
    }

    /// See [`crate::dialects::Dialect::picked`].
    pub(in crate::dialects) fn picked(&mut self, index: usize) {
        self.again = None;
        // What an endpoint sends cannot continue a stream that the translation has begun.
        self.mode = Some(match self.has_begun.get() {
            true => Mode::Translation,
            false => self.split.mode_of(index),
        });
    }

    /// Translates the request for the endpoint that was picked, if it does not speak the dialect.
    pub(in crate::dialects) fn request(&mut self, sending: &Sending<'_>) -> Result<Sent, Error> {
        let (Some(_), Some(mode)) = (self.checked(), self.mode) else {
            return Ok(Sent::Client);
        };
        self.outgoing = Vec::new();
        (self.input_tokens, self.output_bytes) = (0, 0);
        self.name.clear();
        self.name.push_str(sending.name);
        let sent = match mode {
            Mode::Passthrough => Sent::Client,
            Mode::Translation => {
                let seed = *self.seed.get_or_insert_with(|| IdSeed((sending.seed)()));
                let outgoing = self.translator.to_chat(&ChatMaking {
                    body: sending.body,
                    name: sending.name,
                    kind: sending.kind,
                    served_context: sending.served_context,
                    seed,
                    at: sending.at,
                })?;
                match outgoing {
                    Outgoing::Chat(request) => {
                        self.outgoing = request.body;
                        self.operation = request.operation;
                        self.input_tokens = request.input_tokens;
                        self.dropped = request.dropped;
                        self.warn(&request.warnings);
                        Sent::Own
                    }
                    Outgoing::Response(body) => Sent::Response(body),
                }
            }
        };
        if let Some(recorder) = &mut self.recorder
            && let Some(record) = recorder.request(sending.model, sending.body)
        {
            self.notes.push(Note::Record(Box::new(record)));
        }
        Ok(sent)
    }

    /// See [`crate::dialects::Dialect::record`].
    pub(in crate::dialects) fn record(&mut self, request: &Request<'_>, plan: &Plan) {
        if self.recorder.is_some() || self.checked().is_none() {
            return;
        }
        self.recorder = self.translator.recorder(request, plan);
        if self.recorder.as_ref().is_some_and(|it| it.is_replaced()) {
            self.notes.push(Note::SessionReplaced);
        }
    }

    /// See [`crate::dialects::Dialect::target`].
    pub(in crate::dialects) fn target<'e>(
        &self,
        endpoint: &'e Endpoint,
    ) -> Option<DialectTarget<'e>> {
        let (path, translated) = match self.mode? {
            Mode::Passthrough => (self.translator.native(endpoint).path?, false),
            Mode::Translation => (endpoint.profile.operation_path(self.operation), true),
        };
        Some(DialectTarget {
            path,
            translated,
            read_here: translated,
        })
    }

    /// See [`crate::dialects::Dialect::forget_payload`].
    pub(in crate::dialects) fn forget_payload(&mut self) {
        self.outgoing = Vec::new();
    }

    /// See [`crate::dialects::Dialect::payload`].
    pub(in crate::dialects) fn payload(&self) -> Option<&[u8]> {
        (!self.outgoing.is_empty()).then_some(self.outgoing.as_slice())
    }
}
