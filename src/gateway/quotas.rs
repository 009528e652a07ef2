//! What a request takes from the limits of its key, and what it gives back.
//!
//! Contract: docs/contract/access.md#2, docs/contract/access.md#7, docs/contract/access.md#8

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use olla_engine::h1::{RequestBody, emit};
use olla_engine::handler::{Ask, Cx, Local, Outcome, Request};

use super::allowance::Allowance;
use super::away::Done;
use super::exchange::Exchange;
use super::respond::seconds_until;
use crate::access::estimate::{self, BodySize, Estimate, OutputAsked};
use crate::access::output::{self, KnownOutput, LimitedBody, OutputMax, OutputTooLong};

use crate::access::{
    Key, LimitField, LimitHeaderForm, LimitOf, LimitTime, OverLimit, ShownLimit, Total, quota,
    report, write_limits,
};
use crate::dialects::{AccessError, ApiFamily, Error, STEP_BYTES_MAX};
use crate::format;
use crate::inspect::BodyTally;
use crate::log::{Level, events};
use crate::providers::figures::ProviderFigures;

/// The tokens of a request that has ended (docs/contract/access.md#7.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Tokens of the prompt, those from a cache included.
    pub(super) prompt: u64,
    /// Tokens that were generated.
    pub(super) completion: u64,
}

/// How a request ended, for what it used.
pub(super) struct UsedBy<'a> {
    /// The request, if there was one.
    pub(super) request: Option<&'a Request<'a>>,
    pub(super) outcome: Outcome,
    /// Bytes of the body that the client got.
    pub(super) response_bytes: u64,
    pub(super) figures: Option<&'a ProviderFigures<'a>>,
}

impl Exchange {
    fn limit_time(&self, cx: &Cx<'_>) -> LimitTime {
        LimitTime {
            micros: self.gateway.common.nanos(cx.now) / 1_000,
            unix_ms: cx.unix_ms,
        }
    }

    /// Step 10: a request of the minute, and a place among those in progress.
    pub(super) fn enter(&mut self, ask: &Ask<'_>) -> Result<(), Error> {
        let Some(key) = &self.key else {
            return Ok(());
        };
        if !self.route.is_limited() {
            return Ok(());
        }
        if let RequestBody::Length(bytes) = ask.request.framing.body
            && self.body_limit().0.is_some_and(|max| bytes > max)
        {
            // The engine refuses it before anything else.
            return Ok(());
        }
        let now = self.limit_time(ask.cx);
        let requests = match quota::enter(key, now) {
            Ok(requests) => requests,
            Err(over) => return Err(self.over_limit(ask.cx, &over)),
        };
        let totals = self
            .gateway
            .common
            .key_series
            .totals(&key.name, &key.counters);
        totals.count(Total::InProgress, 1);
        self.kept.allowance = Some(Box::new(self.allowance(ask, key, requests)));
        Ok(())
    }

    /// The same for a dry run, which takes nothing.
    pub(super) fn enter_dry(&mut self, ask: &Ask<'_>) {
        if let Some(key) = self.key.as_ref().filter(|_| self.route.is_limited()) {
            let mut allowance = self.allowance(ask, key, None);
            (allowance.is_dry, allowance.has_request) = (true, false);
            self.kept.allowance = Some(Box::new(allowance));
        }
    }

    fn allowance(&self, ask: &Ask<'_>, key: &Arc<Key>, requests: Option<ShownLimit>) -> Allowance {
        Allowance {
            key: Arc::clone(key),
            is_dry: false,
            requests,
            tokens: None,
            has_request: true,
            generates_text: self.generates_text(&ask.request),
            reservation: None,
            estimate: Estimate::default(),
            body: None,
            too_long: None,
        }
    }

    /// Limits the output that the body asks for (docs/contract/access.md#7.5), before anything else
    /// reads it. False: that was given away.
    pub(super) fn limit_output(&mut self, ask: &Ask<'_>) -> bool {
        let Some(key) = &self.key else {
            return true;
        };
        let fields = &key.policy.fields;
        let max = OutputMax {
            max: fields.max_output_tokens,
            mode: fields.output_limit,
        };
        let admitted = self.kept.allowance.as_ref();
        let generates = admitted.is_some_and(|admitted| admitted.generates_text);
        if max.max == 0 || !generates || !self.findings.object {
            return true;
        }
        let known = known_output(&self.findings.tally);
        if ask.body.len() > STEP_BYTES_MAX {
            let path = self.path(&ask.request).to_vec();
            self.send_away(move |_, body| Done::Limited(output::limited(body, &path, max, known)));
            return false;
        }
        let made = output::limited(ask.body, self.path(&ask.request), max, known);
        self.take_limited(made);
        true
    }

    /// Takes the result of [`Self::limit_output`].
    pub(super) fn take_limited(&mut self, made: Result<Option<LimitedBody>, OutputTooLong>) {
        let Some(admitted) = &mut self.kept.allowance else {
            return;
        };
        match made {
            Ok(Some(body)) => {
                self.findings.move_by(|part| body.moved(part));
                admitted.body = Some(Bytes::from(body.text));
            }
            Ok(None) => {}
            Err(too_long) => admitted.too_long = Some(too_long),
        }
    }

    /// The body as everything but the estimate sees it.
    pub(super) fn body<'b>(&'b self, client: &'b [u8]) -> &'b [u8] {
        let admitted = self.kept.allowance.as_ref();
        let limited = admitted.and_then(|admitted| admitted.body.as_deref());
        limited.unwrap_or(client)
    }

    /// The same for a step that another thread takes; `None` = the client's.
    pub(super) fn own_body(&self) -> Option<Bytes> {
        self.kept.allowance.as_ref()?.body.clone()
    }

    fn generates_text(&self, request: &Request<'_>) -> bool {
        let method = request.head.method.of(request.bytes);
        estimate::generates_text(method, self.path(request))
    }

    /// The tokens of the client's body.
    fn prompt_estimate(&self) -> u64 {
        let tally = &self.findings.tally;
        estimate::prompt(match (self.kept.body_bytes, self.findings.object) {
            (0, _) => BodySize::None,
            (bytes, true) => BodySize::Json {
                bytes,
                files: tally.files,
                file_bytes: tally.file_bytes,
            },
            (_, false) => BodySize::Other,
        })
    }

    fn estimate(&self, admitted: &Allowance) -> Estimate {
        let (key, tally) = (&admitted.key, &self.findings.tally);
        let asked = OutputAsked {
            most: tally.output,
            choices: tally.choices,
        };
        let max = key.policy.fields.max_output_tokens;
        let default = self.view.snapshot.access.default_output_tokens;
        Estimate {
            prompt: self.prompt_estimate(),
            output: if admitted.generates_text {
                estimate::output(asked, max, default)
            } else {
                0
            },
        }
    }

    /// Steps 13 and 14: the limits of prompt and output, and the quotas.
    pub(super) fn reserve(&mut self, ask: &Ask<'_>) -> Result<(), Error> {
        self.kept.body_bytes = ask.body.len() as u64;
        let (Some(key), Some(admitted)) = (&self.key, &self.kept.allowance) else {
            return Ok(());
        };
        if admitted.reservation.is_some() {
            return Ok(());
        }
        let estimate = self.estimate(admitted);
        let fields = &key.policy.fields;
        let max = fields.max_prompt_tokens;
        if max > 0 && estimate.prompt > max {
            let message = format!(
                "prompt is too long: about {} tokens, the API key '{}' may send {max}",
                estimate.prompt, key.name
            );
            let field = LimitField::MaxPromptTokens;
            return Err(self.over_maximum(ask.cx, field, ("PROMPT_TOO_LONG", message)));
        }
        if let Some(OutputTooLong { field, value }) = &admitted.too_long {
            let message = format!(
                "{field} is {value}, the API key '{}' may ask for {}",
                key.name, fields.max_output_tokens
            );
            let field = LimitField::MaxOutputTokens;
            return Err(self.over_maximum(ask.cx, field, ("OUTPUT_TOO_LONG", message)));
        }
        if admitted.is_dry {
            let over = quota::refusing(key, estimate.tokens(), self.limit_time(ask.cx));
            return over.map_or(Ok(()), |field| {
                let message = format!("{} is reached", field.as_str());
                let code = limit_code(field);
                Err(Error::new(429, "rate_limit_exceeded", code, message))
            });
        }
        let reserved = quota::reserve(key, estimate.tokens(), self.limit_time(ask.cx));
        if let Some(admitted) = &mut self.kept.allowance {
            admitted.estimate = estimate;
            if let Ok((reservation, tokens)) = reserved {
                admitted.reservation = Some(reservation);
                admitted.tokens = tokens;
            }
        }
        match reserved {
            Ok(_) => Ok(()),
            Err(over) => Err(self.over_limit(ask.cx, &over)),
        }
    }

    /// The error of a request that is larger than its policy allows.
    fn over_maximum(
        &self,
        cx: &Cx<'_>,
        field: LimitField,
        (code, message): (&'static str, String),
    ) -> Error {
        self.note_limit(cx, field, None);
        let mut error = Error::new(400, "bad_request", code, message);
        error.access = Some(AccessError::Plain);
        error
    }

    /// The error of a request that a limit refuses.
    fn over_limit(&mut self, cx: &Cx<'_>, over: &OverLimit) -> Error {
        self.kept.over = Some(*over);
        let seconds = seconds_until(over.wait);
        self.note_limit(cx, over.field, Some(seconds));
        let Some(key) = &self.key else {
            return Error::not_found();
        };
        let who = match over.of {
            LimitOf::Key => format!("The API key '{}'", key.name),
            LimitOf::Policy => format!("The policy '{}'", key.policy.name),
        };
        let needed = self.kept.allowance.as_ref();
        let needed = needed.map_or(0, |admitted| admitted.estimate.tokens());
        let (limit, left) = (over.shown.limit, over.shown.left);
        let until_end = |span: &str| {
            let end =
                Duration::from_millis(cx.unix_ms).saturating_add(over.shown.reset(cx.unix_ms));
            let end = format::instant(UNIX_EPOCH.checked_add(end).unwrap_or(UNIX_EPOCH));
            format!(
                "{who} may use {limit} tokens a {span}; this request needs about {needed}, {left} \
                 are left until {end}."
            )
        };
        let message = match over.field {
            LimitField::Concurrent => {
                format!("{who} may have {limit} requests in progress at a time.")
            }
            LimitField::TokensPerMinute => format!(
                "{who} may use {limit} tokens a minute; this request needs about {needed}, \
                 {left} are left. Try again in {seconds} s."
            ),
            LimitField::TokensPerDay => until_end("day"),
            LimitField::TokensPerMonth => until_end("month"),
            LimitField::RequestsPerMinute
            | LimitField::MaxPromptTokens
            | LimitField::MaxOutputTokens => {
                format!("{who} may send {limit} requests a minute. Try again in {seconds} s.")
            }
        };
        let code = limit_code(over.field);
        let mut error = Error::new(429, "rate_limit_exceeded", code, message);
        error.retry_after = Some(seconds);
        error.access = Some(AccessError::Uncached);
        error
    }

    /// Counts and logs that a limit refuses a request.
    fn note_limit(&self, cx: &Cx<'_>, field: LimitField, retry_after_s: Option<u64>) {
        let Some(key) = self.key.as_ref().filter(|_| self.dry_run.is_none()) else {
            return;
        };
        let common = &self.gateway.common;
        let totals = common.key_series.totals(&key.name, &key.counters);
        totals.count(Total::Limited, 1);
        common.limited.count(&key.policy.name, field);
        let Some(suppressed) = key.counters.limit_is_due(cx.unix_ms) else {
            return;
        };
        let mut log = self.gateway.log.borrow_mut();
        if let Some(mut line) = log.event(Level::Info, events::LIMIT_REACHED, cx.unix_ms) {
            line.str("key", &key.name)
                .str("policy", &key.policy.name)
                .str("limit", field.as_str())
                .num("retry_after_s", retry_after_s.unwrap_or(0))
                .positive("suppressed", suppressed);
        }
    }

    /// Gives everything back that a request took which no endpoint has seen, before the head of its
    /// refusal is written.
    pub(super) fn give_back(&mut self, cx: &Cx<'_>) {
        if self.kept.allowance.is_none() || self.times.dispatched.is_some() {
            return;
        }
        let now = self.limit_time(cx);
        if let Some(admitted) = &mut self.kept.allowance {
            if std::mem::take(&mut admitted.has_request) {
                quota::return_request(&admitted.key, now);
            }
            if let Some(reservation) = admitted.reservation.take() {
                quota::settle(&admitted.key, &reservation, 0, now);
            }
            (admitted.requests, admitted.tokens) = (None, None);
        }
    }

    /// Writes the headers that show the limits of the key.
    pub(super) fn key_limit_fields(&self, cx: &Cx<'_>, out: &mut Vec<u8>) {
        let Some(key) = self.key.as_ref().filter(|_| self.route.is_limited()) else {
            return;
        };
        let policy = &key.policy;
        if policy.fields.limits.are_shown() || policy.together.are_shown() {
            self.shown_limits(cx, key, out);
        }
        let admitted = self.kept.allowance.as_ref();
        let limited = admitted.is_some_and(|admitted| admitted.body.is_some());
        if limited && self.endpoint.is_some() {
            let max = key.policy.fields.max_output_tokens;
            emit::field_number(out, b"X-Olla-Max-Output-Tokens", max);
        }
    }

    /// The headers that show the limits of a key that has some.
    fn shown_limits(&self, cx: &Cx<'_>, key: &Key, out: &mut Vec<u8>) {
        let over = self.kept.over.as_ref();
        let refused = |is_one: fn(LimitField) -> bool| {
            let over = over.filter(|over| is_one(over.field));
            over.map(|over| over.shown)
        };
        let admitted = self.kept.allowance.as_ref();
        let now = || self.limit_time(cx);
        let requests = refused(|field| field == LimitField::RequestsPerMinute)
            .or_else(|| admitted?.requests)
            .or_else(|| quota::requests_shown(key, now()));
        let is_of_tokens = |field| {
            matches!(
                field,
                LimitField::TokensPerMinute | LimitField::TokensPerDay | LimitField::TokensPerMonth
            )
        };
        let tokens = refused(is_of_tokens)
            .or_else(|| admitted?.tokens)
            .or_else(|| quota::tokens_shown(key, now()));
        let form = match self.route.family() {
            ApiFamily::Anthropic => LimitHeaderForm::Anthropic,
            ApiFamily::OpenAi | ApiFamily::Responses | ApiFamily::Ollama => LimitHeaderForm::Plain,
        };
        write_limits(form, [requests, tokens], cx.unix_ms, out);
    }

    /// What the client sees of its key (docs/contract/access.md#11.2).
    pub(super) fn own_key(&mut self, ask: &Ask<'_>, local: &mut Local) {
        let now = self.limit_time(ask.cx);
        match self.key.as_ref().map(|key| report::own_view(key, now)) {
            Some(view) => self.json(ask, view.into(), local),
            None => self.error(ask.cx, Some(&ask.request), &Error::not_found(), local),
        }
    }

    /// The tokens that the request used: what its last response reported, else what can be told
    /// from outside.
    pub(super) fn used(&self, by: &UsedBy<'_>) -> Used {
        if self.times.dispatched.is_none() {
            return Used::default();
        }
        let prompt = || match &self.kept.allowance {
            Some(admitted) => admitted.estimate.prompt,
            None => self.prompt_estimate(),
        };
        let Some(status) = self.upstream_status else {
            // The endpoint had the prompt, and nobody waited for what it made of it.
            let left = matches!(by.outcome, Outcome::ClientLeft | Outcome::ClientStalled);
            return Used {
                prompt: if left { prompt() } else { 0 },
                completion: 0,
            };
        };
        let reported = by.figures.map(|figures| figures.usage).unwrap_or_default();
        if status >= 400 {
            return Used {
                prompt: reported.prompt.unwrap_or(0),
                completion: reported.completion.unwrap_or(0),
            };
        }
        if let Some(estimated) = self.dialect.estimated_usage() {
            // The client is told the same.
            let completion = reported.completion.filter(|tokens| *tokens > 0);
            return Used {
                prompt: reported.prompt.unwrap_or(estimated.prompt),
                completion: completion.unwrap_or(estimated.completion),
            };
        }
        let is_text = || by.request.is_some_and(|it| self.generates_text(it));
        let unreported = || match (&self.kept.events, by.outcome) {
            (Some(events), _) => events.events(),
            (None, Outcome::Relayed | Outcome::Local) if is_text() => {
                estimate::of_whole_response(by.response_bytes)
            }
            (None, _) => 0,
        };
        Used {
            prompt: reported.prompt.unwrap_or_else(prompt),
            completion: reported.completion.unwrap_or_else(unreported),
        }
    }

    /// The request has ended: its reservation becomes what it used.
    pub(super) fn settle(&mut self, cx: &Cx<'_>, used: Used, has_failed: bool) {
        if self.status == 0 {
            // The client left before there was a response.
            self.give_back(cx);
        }
        let Some(admitted) = self.kept.allowance.take().filter(|held| !held.is_dry) else {
            return;
        };
        let key = &admitted.key;
        let tokens = used.prompt.saturating_add(used.completion);
        if let Some(reservation) = &admitted.reservation {
            quota::settle(key, reservation, tokens, self.limit_time(cx));
        }
        let totals = self
            .gateway
            .common
            .key_series
            .totals(&key.name, &key.counters);
        totals.count(Total::Requests, 1);
        totals.count(Total::Errors, u64::from(has_failed));
        totals.count(Total::PromptTokens, used.prompt);
        totals.count(Total::CompletionTokens, used.completion);
    }
}

/// The code of a request that a limit refuses.
const fn limit_code(field: LimitField) -> &'static str {
    match field {
        LimitField::Concurrent => "CONCURRENCY_LIMIT_EXCEEDED",
        LimitField::TokensPerMinute => "TOKEN_LIMIT_EXCEEDED",
        LimitField::TokensPerDay | LimitField::TokensPerMonth => "QUOTA_EXCEEDED",
        LimitField::RequestsPerMinute
        | LimitField::MaxPromptTokens
        | LimitField::MaxOutputTokens => "REQUEST_LIMIT_EXCEEDED",
    }
}

/// What was found of the keys of a body that limit its output.
fn known_output(tally: &BodyTally) -> KnownOutput {
    match tally.fields {
        None => KnownOutput::Unknown,
        Some(fields) => KnownOutput::Integers {
            fields,
            most: tally.output.unwrap_or(0),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::known_output;
    use crate::access::output::{self, KnownOutput, OutputMax};
    use crate::config::OutputLimit;
    use crate::inspect::{Findings, Inspector, Wanted};

    fn found(body: &[u8]) -> Findings {
        let wanted = Wanted {
            tally: true,
            ..Wanted::default()
        };
        Inspector::new(wanted).finish(body)
    }

    proptest! {
        /// What was found in a body is found where the limited one has it.
        #[test]
        fn findings_move_with_the_body(
            members in prop::collection::vec(0_usize..13, 0..7),
            path in 0_usize..4,
        ) {
            const MEMBERS: [&str; 13] = [
                r#""Max_Tokens":5"#,
                r#""max\u005ftokens":5"#,
                r#""model":"m\u0031""#,
                r#""Model": "n""#,
                r#""max_tokens":5000000"#,
                r#""max_tokens": null"#,
                r#""options":{"num_predict":-1, "seed":2}"#,
                r#""options":null"#,
                r#""messages":[{"role":"user","content":"a longer text"}]"#,
                r#""stream":true"#,
                r#""n_predict":3"#,
                r#""max_tokens":64"#,
                r#""max_completion_tokens":0"#,
            ];
            const PATHS: [&str; 4] = ["/chat/completions", "/api/chat", "/infill", "/responses"];
            let members: Vec<_> = members.into_iter().map(|at| MEMBERS[at]).collect();
            let body = format!("\u{feff} {{{}}}", members.join(" , "));
            let max = OutputMax { max: 64, mode: OutputLimit::Clamp };
            let limited = |known| output::limited(body.as_bytes(), PATHS[path].as_bytes(), max, known);
            let made = limited(KnownOutput::Unknown).expect("nothing is refused");
            let mut moved = found(body.as_bytes());
            prop_assert_eq!(limited(known_output(&moved.tally)), Ok(made.clone()));
            if let Some(made) = made {
                moved.move_by(|part| made.moved(part));
                let found = found(&made.text);
                moved.tally = found.tally;
                prop_assert_eq!(moved, found);
            }
        }
    }
}
