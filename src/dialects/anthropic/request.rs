//! Converts a request of the Messages API to the request to an endpoint.
//!
//! Contract: docs/contract/translation.md#3 to docs/contract/translation.md#7

use olla_engine::handler::Request;

use super::recording::Recording;
use super::split::{Mode, Split};
use super::translate::{self, IdSeed, Prefill, Uses};
use super::{Conversation, Subject};
use crate::config::Plan;
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
        match translate::check(body) {
            Ok(checked) => {
                model.push_str(&checked.model);
                self.subject = Subject::Valid(Box::new(checked));
            }
            Err(refusal) => {
                let Some(named) = translate::model_of(body) else {
                    self.subject = Subject::Unusable;
                    return Err(refusal.into());
                };
                model.push_str(&named);
                self.subject = Subject::Invalid(refusal);
            }
        }
        Ok(())
    }

    /// Separates native candidates from the others, then reports the error of an invalid request.
    pub(in crate::dialects) fn choose(&mut self, choosing: &Choosing<'_>) -> Result<(), Error> {
        // An invalid request is split as if it used no feature; it gets its error in any case.
        let uses = self.checked().map(|checked| checked.uses);
        let refuses = |index: &usize| {
            let endpoint = choosing.endpoints.get(*index);
            endpoint.is_some_and(|endpoint| endpoint.live.refuses_messages(choosing.now_ms))
        };
        self.split = Split::new(
            choosing.endpoints,
            choosing.candidates,
            uses.unwrap_or(Uses::NONE),
            choosing.plan.translators.anthropic.passthrough_enabled,
            &choosing.candidates.iter().filter(refuses).collect(),
        );
        match &self.subject {
            Subject::Invalid(refusal) => {
                let refusal = refusal.clone();
                self.mode = Some(self.split.next(&EndpointSet::EMPTY).1);
                Err(refusal.into())
            }
            _ => Ok(()),
        }
    }

    /// See [`crate::dialects::Dialect::next`].
    pub(in crate::dialects) fn next(
        &mut self,
        _candidates: &EndpointSet,
        tried: &EndpointSet,
    ) -> (EndpointSet, EndpointSet) {
        if let Some(index) = self.again.take() {
            self.mode = Some(Mode::Translation);
            return ([index].into_iter().collect(), EndpointSet::EMPTY);
        }
        let (set, mode) = if self.widened {
            (self.split.others, Mode::Translation)
        } else {
            self.split.next(tried)
        };
        // With no candidate left, the mode stays that of the attempts that failed.
        if self.mode.is_none() || !set.minus(tried).is_empty() {
            self.mode = Some(mode);
        }
        (set, *tried)
    }

    /// See [`crate::dialects::Dialect::widen`].
    pub(in crate::dialects) fn widen(&mut self) -> bool {
        let widens =
            !self.widened && self.mode == Some(Mode::Passthrough) && !self.split.others.is_empty();
        self.widened |= widens;
        widens
    }

    /// See [`crate::dialects::Dialect::narrow`].
    pub(in crate::dialects) fn narrow(&mut self) {
        self.widened = false;
    }

    /// Translates the request for the endpoint that was picked, if it does not speak the API.
    pub(in crate::dialects) fn request(&mut self, sending: &Sending<'_>) -> Result<Sent, Error> {
        let (Subject::Valid(checked), Some(mode)) = (&self.subject, self.mode) else {
            return Ok(Sent::Client);
        };
        let sent = match mode {
            Mode::Passthrough => {
                self.outgoing = Vec::new();
                Sent::Client
            }
            Mode::Translation => {
                let seed = IdSeed((sending.seed)());
                let (context, size) = checked.measured(sending.body, seed);
                self.context = Some(Box::new(context));
                let room = (sending.served_context)().map(|served| size.output_room(served));
                let translated = translate::to_openai(sending.body, checked, sending.name, room)?;
                self.outgoing = translated.body;
                if checked.is_prefilled(sending.body) {
                    Prefill::of(sending.kind).write(&mut self.outgoing)?;
                }
                self.warn(&translated.warnings);
                Sent::Own
            }
        };
        if let Some(recording) = &mut self.recording
            && let Some(record) = recording.request(sending.model, sending.body)
        {
            self.notes.push(Note::Record(Box::new(record)));
        }
        Ok(sent)
    }

    /// See [`crate::dialects::Dialect::record`].
    pub(in crate::dialects) fn record(&mut self, request: &Request<'_>, plan: &Plan) {
        let plan = &plan.translators.anthropic.inspector;
        if !plan.enabled || self.recording.is_some() || self.checked().is_none() {
            return;
        }
        let recording = Recording::begin(plan, request);
        if recording.is_replaced() {
            self.notes.push(Note::SessionReplaced);
        }
        self.recording = Some(Box::new(recording));
    }

    /// See [`crate::dialects::Dialect::target`].
    pub(in crate::dialects) fn target<'e>(
        &self,
        endpoint: &'e Endpoint,
    ) -> Option<DialectTarget<'e>> {
        let mode = self.mode?;
        let path = match (mode, &endpoint.profile.anthropic) {
            (Mode::Passthrough, Some(native)) => &native.messages_path,
            _ => &endpoint.profile.chat_path,
        };
        Some(DialectTarget {
            path,
            translated: mode == Mode::Translation,
            read_here: mode == Mode::Translation,
        })
    }

    /// See [`crate::dialects::Dialect::payload`].
    pub(in crate::dialects) fn payload(&self) -> Option<&[u8]> {
        (!self.outgoing.is_empty()).then_some(self.outgoing.as_slice())
    }
}
