//! Step 6 of a request: which key it comes with, and whether the route is open to it.
//!
//! Contract: docs/contract/access.md#1, docs/contract/access.md#2, docs/contract/access.md#3,
//! docs/contract/access.md#10

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, UNIX_EPOCH};

use olla_engine::h1::emit;
use olla_engine::handler::{Ask, Cx, Local, Request, Revocation};

use super::exchange::Exchange;
use super::ollama::asks_for_page;
use super::respond::seconds_until;
use crate::access::{Attempt, Credentials, Identified, Key, KeyFault, LogTurn, RefusedKey};
use crate::config::AdminRight;
use crate::dialects::{AccessError, Error};
use crate::format;
use crate::log::{Level, events};
use crate::operations::stats::KeyRefusal;
use crate::routing::management::Management;
use crate::routing::route::RouteKind;

/// The page where an operator logs in.
const LOGIN: &[u8] = b"/internal/ui/login";

/// What a route needs of a request (docs/contract/access.md#1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Nothing.
    Nothing,
    /// A live key, or that requests without one are admitted.
    Key,
    /// A live key that may administer; `is_read` says whether `admin = "read"` is enough.
    Admin { is_read: bool },
    /// The same, and people are led to the login.
    Dashboard { is_read: bool },
}

/// How step 6 ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    /// The request goes on.
    Yes,
    /// It is led to the login of the dashboard.
    ToLogin,
    /// It waits for keys of the token issuer, at the latest until this time.
    Later(Instant),
}

impl Exchange {
    /// Finds the key of a request and checks it against the route. With access off this is one
    /// branch.
    pub(super) fn check_key(&mut self, ask: &Ask<'_>) -> Result<Admitted, Error> {
        if !self.view.snapshot.access.enabled {
            return Ok(Admitted::Yes);
        }
        self.check_key_on(ask)
    }

    #[inline(never)]
    fn check_key_on(&mut self, ask: &Ask<'_>) -> Result<Admitted, Error> {
        let needs = self.needs(&ask.request);
        if needs == Needs::Nothing {
            return Ok(Admitted::Yes);
        }
        let Request { head, bytes, .. } = ask.request;
        let view = Rc::clone(&self.view);
        let access = &view.snapshot.access;
        let has_waited = match self.waits_for_issuer(ask.cx) {
            Ok(has_waited) => has_waited,
            Err(until) => return Ok(Admitted::Later(until)),
        };
        let mut wants_keys = false;
        let found = access.identify(Credentials::of(head, bytes), ask.cx.unix_ms, |value| {
            self.token(value, ask.cx, &mut wants_keys)
        });
        if wants_keys
            && !has_waited
            && !matches!(found, Identified::Live { .. })
            && let Some(until) = self.ask_issuer(ask.cx)
        {
            return Ok(Admitted::Later(until));
        }
        let is_operators = matches!(needs, Needs::Admin { .. } | Needs::Dashboard { .. });
        let session = match found {
            Identified::Live { .. } => None,
            _ if is_operators => self.session_key(ask),
            _ => None,
        };
        if session.is_some() {
            self.check_session(ask)?;
        }
        let key = match (found, session) {
            (_, Some(key)) => key,
            (
                Identified::Live {
                    key,
                    is_unguessable,
                },
                None,
            ) => {
                self.check_blocked(ask, &key, is_unguessable)?;
                key
            }
            (Identified::Refused(refused), None) => return Err(self.refuse_key(ask, &refused)),
            (Identified::None, None) => match (&access.anonymous, needs) {
                (Some(key), Needs::Key) => Arc::clone(key),
                (_, Needs::Dashboard { .. }) if is_reading(&ask.request) => {
                    return Ok(Admitted::ToLogin);
                }
                _ => return Err(self.missing_key(ask)),
            },
        };
        if let Needs::Admin { is_read } | Needs::Dashboard { is_read } = needs
            && !may_administer(key.admin(), is_read)
        {
            return Err(self.not_admin(ask, &key));
        }
        key.counters.used(ask.cx.unix_ms);
        self.cuts = key.counters.cuts();
        let fields = &mut self.kept.key_fields;
        fields.clear();
        fields.str("key", &key.name).str("policy", &key.policy.name);
        self.key = Some(key);
        Ok(Admitted::Yes)
    }

    /// What the route of a request needs.
    fn needs(&self, request: &Request<'_>) -> Needs {
        let rest = self.rest(request);
        let reads = is_reading(request);
        match self.route.kind {
            RouteKind::Version => Needs::Nothing,
            RouteKind::Internal => match rest {
                b"health" | b"ready" => Needs::Nothing,
                rest => Needs::Admin {
                    is_read: reads && !is_about_keys(rest),
                },
            },
            RouteKind::Dashboard if !self.view.plan().dashboard.enabled => {
                Needs::Admin { is_read: reads }
            }
            RouteKind::Dashboard => match rest {
                b"/login" | b"/logout" => Needs::Nothing,
                rest if rest.starts_with(b"/assets/") => Needs::Nothing,
                _ => Needs::Dashboard { is_read: reads },
            },
            RouteKind::Root if asks_for_page(request) => Needs::Nothing,
            RouteKind::Management(_, operation)
                if changes_models(operation) && self.forwards(operation) =>
            {
                Needs::Admin { is_read: false }
            }
            // `/internal` itself has no page.
            RouteKind::Unknown(_) if self.path(request) == b"/internal" => {
                Needs::Admin { is_read: reads }
            }
            _ => Needs::Key,
        }
    }

    /// Refuses a secret that was brought along and may have been guessed, from an address that has
    /// sent too many that were wrong.
    fn check_blocked(&self, ask: &Ask<'_>, key: &Key, is_unguessable: bool) -> Result<(), Error> {
        if is_unguessable || self.gateway.common.refused_keys.is_quiet() {
            return Ok(());
        }
        let limit = self.view.snapshot.access.max_refused_per_minute;
        let now = self.gateway.common.nanos(ask.cx.now);
        let refused = &self.gateway.common.refused_keys;
        let address = self.client.limited_as();
        let Some(seconds) = refused.blocked(address, limit, now) else {
            return Ok(());
        };
        let turn = refused.log(address, limit, now);
        let line = RefusalLine {
            reason: KeyRefusal::TooMany,
            digest_id: Some(key.digest.id()),
            key: Some(key),
            detail: None,
        };
        self.note_refused(ask, &line, turn);
        Err(too_many(seconds))
    }

    /// The error of a request of whose credentials none is live.
    pub(super) fn refuse_key(&self, ask: &Ask<'_>, refused: &RefusedKey) -> Error {
        let limit = self.view.snapshot.access.max_refused_per_minute;
        let now = self.gateway.common.nanos(ask.cx.now);
        let address = self.client.limited_as();
        if let KeyFault::TokensUnavailable = refused.because {
            // It is not the client's fault.
            let turn = self.gateway.common.refused_keys.log(address, limit, now);
            self.note_refused(ask, &RefusalLine::of(refused), turn);
            return self.tokens_unavailable(ask.cx);
        }
        let refused_keys = &self.gateway.common.refused_keys;
        let Attempt { room, log } = refused_keys.attempt(address, limit, now);
        match room {
            Ok(()) => {
                self.note_refused(ask, &RefusalLine::of(refused), log);
                invalid(&refused.because)
            }
            Err(seconds) => {
                let line = RefusalLine {
                    reason: KeyRefusal::TooMany,
                    ..RefusalLine::of(refused)
                };
                self.note_refused(ask, &line, log);
                too_many(seconds)
            }
        }
    }

    /// The error of a token that cannot be checked before the issuer's keys are fetched.
    fn tokens_unavailable(&self, cx: &Cx<'_>) -> Error {
        let common = &self.gateway.common;
        let fetches = &common.access.issuer().fetches;
        let next_ms = fetches.next_try_ms.load(Ordering::Relaxed);
        let wait_ms = next_ms.saturating_sub(common.clock_ms(cx.now));
        let mut error = Error::new(
            503,
            "service_unavailable",
            "TOKEN_CHECK_UNAVAILABLE",
            "The token cannot be checked now: the issuer's keys could not be fetched.",
        );
        error.retry_after = Some(seconds_until(Duration::from_millis(wait_ms)));
        error.access = Some(AccessError::Plain);
        error
    }

    pub(super) fn missing_key(&self, ask: &Ask<'_>) -> Error {
        let line = RefusalLine {
            reason: KeyRefusal::Missing,
            digest_id: None,
            key: None,
            detail: None,
        };
        self.note_refused(ask, &line, LogTurn::Write(0));
        let mut error = Error::new(
            401,
            "unauthorized",
            "MISSING_API_KEY",
            "No API key was sent. Use the header Authorization: Bearer KEY, x-api-key: KEY or \
             api-key: KEY.",
        );
        error.access = Some(AccessError::Challenge { is_invalid: false });
        error
    }

    pub(super) fn not_admin(&self, ask: &Ask<'_>, key: &Key) -> Error {
        let limit = self.view.snapshot.access.max_refused_per_minute;
        let now = self.gateway.common.nanos(ask.cx.now);
        let refused_keys = &self.gateway.common.refused_keys;
        let turn = refused_keys.log(self.client.limited_as(), limit, now);
        let line = RefusalLine {
            reason: KeyRefusal::Admin,
            digest_id: Some(key.digest.id()),
            key: Some(key),
            detail: None,
        };
        self.note_refused(ask, &line, turn);
        let message = format!(
            "The API key '{}' may not use this route: it needs admin.",
            key.name
        );
        forbidden("ADMIN_REQUIRED", message)
    }

    /// Refuses an operation that changes models to a key that may not administer. The route did not
    /// know that the path is one.
    pub(super) fn check_management(
        &self,
        ask: &Ask<'_>,
        operation: Management,
    ) -> Result<(), Error> {
        match &self.key {
            Some(key) if changes_models(operation) && !may_administer(key.admin(), false) => {
                Err(self.not_admin(ask, key))
            }
            _ => Ok(()),
        }
    }

    /// Counts a refusal and logs it.
    pub(super) fn note_refused(&self, ask: &Ask<'_>, refusal: &RefusalLine<'_>, turn: LogTurn) {
        self.gateway
            .recorder
            .borrow_mut()
            .key_refused(refusal.reason);
        let LogTurn::Write(suppressed) = turn else {
            return;
        };
        let level = match refusal.reason {
            KeyRefusal::Missing => Level::Debug,
            _ => Level::Warn,
        };
        let mut log = self.gateway.log.borrow_mut();
        let Some(mut line) = log.event(level, events::KEY_REFUSED, ask.cx.unix_ms) else {
            return;
        };
        let Request { head, bytes, .. } = ask.request;
        line.str("reason", refusal.reason.as_str());
        if let Some(id) = &refusal.digest_id {
            line.str("key_id", id);
        }
        if let Some(key) = refusal.key {
            line.str("key", &key.name);
        }
        if let Some(reason) = refusal.detail {
            line.str("token_reason", reason);
        }
        line.str("client_ip", self.kept.client_text.as_str())
            .bytes("method", head.method.of(bytes))
            .bytes("path", head.path.of(bytes))
            .positive("suppressed", suppressed);
    }

    /// Whether credentials of the client end here: also when a reload has switched access off since
    /// the request was admitted.
    pub(super) fn ends_keys(&self) -> bool {
        self.view.snapshot.access.enabled || self.key.is_some()
    }

    /// Whether the request's key was deleted with all that it has in progress.
    pub(super) fn is_cut(&self) -> bool {
        let key = self.key.as_ref();
        key.is_some_and(|key| key.counters.cuts() != self.cuts)
    }

    /// What cuts the request.
    pub(super) fn cut_by(&self) -> Option<Revocation> {
        Some(self.key.as_ref()?.counters.revocation(self.cuts))
    }

    /// Responds to a request that was cut before its response began.
    pub(super) fn refuse_cut(&mut self, ask: &Ask<'_>, local: &mut Local) {
        let error = invalid(&KeyFault::Unknown);
        self.error(ask.cx, Some(&ask.request), &error, local);
    }

    /// Leads a person to the login of the dashboard.
    pub(super) fn lead_to_login(&mut self, cx: &Cx<'_>, request: &Request<'_>, local: &mut Local) {
        self.begin(cx, Some(request), 303, local);
        let out = &mut local.head;
        emit::field(out, b"Location", LOGIN);
        emit::field(out, b"Cache-Control", b"no-store");
    }
}

/// What is logged of a refusal.
pub(super) struct RefusalLine<'a> {
    pub(super) reason: KeyRefusal,
    /// The id of the credential.
    pub(super) digest_id: Option<String>,
    /// The key that it belongs to.
    pub(super) key: Option<&'a Key>,
    /// Why a token is not valid.
    pub(super) detail: Option<&'a str>,
}

impl<'a> RefusalLine<'a> {
    fn of(refused: &'a RefusedKey) -> Self {
        let (reason, key, detail) = match &refused.because {
            KeyFault::Unknown => (KeyRefusal::Unknown, None, None),
            KeyFault::Expired(key) => (KeyRefusal::Expired, Some(&**key), None),
            KeyFault::Disabled(key) => (KeyRefusal::Disabled, Some(&**key), None),
            KeyFault::Token(why) => (KeyRefusal::Token, None, Some(&**why)),
            KeyFault::TokensUnavailable => (KeyRefusal::Token, None, Some("issuer unavailable")),
        };
        Self {
            reason,
            digest_id: Some(refused.digest.id()),
            key,
            detail,
        }
    }
}

pub(super) fn is_reading(request: &Request<'_>) -> bool {
    matches!(request.head.method.of(request.bytes), b"GET" | b"HEAD")
}

/// Whether a page of `/internal/` is about keys.
fn is_about_keys(rest: &[u8]) -> bool {
    rest.strip_prefix(b"keys")
        .is_some_and(|below| below.is_empty() || below.starts_with(b"/"))
}

fn may_administer(right: AdminRight, is_read: bool) -> bool {
    match right {
        AdminRight::None => false,
        AdminRight::Read => is_read,
        AdminRight::Full => true,
    }
}

/// Whether an operation changes which models a server has.
fn changes_models(operation: Management) -> bool {
    matches!(
        operation,
        Management::Pull
            | Management::Push
            | Management::Create
            | Management::Copy
            | Management::Delete
    )
}

/// The 401 of a credential that is not live (docs/contract/access.md#8.2).
fn invalid(because: &KeyFault) -> Error {
    let (code, message): (&str, Cow<'static, str>) = match because {
        KeyFault::Unknown | KeyFault::TokensUnavailable => {
            ("INVALID_API_KEY", "The API key is not valid.".into())
        }
        KeyFault::Expired(key) => {
            let at = format::instant(
                UNIX_EPOCH + Duration::from_millis(key.expires_ms().unwrap_or_default()),
            );
            let message = format!("The API key '{}' expired at {at}.", key.name);
            ("API_KEY_EXPIRED", message.into())
        }
        KeyFault::Disabled(key) => {
            let message = format!("The API key '{}' is disabled.", key.name);
            ("API_KEY_DISABLED", message.into())
        }
        KeyFault::Token(why) => {
            let message = format!("The token is not valid: {why}.");
            ("INVALID_TOKEN", message.into())
        }
    };
    let mut error = Error::new(401, "unauthorized", code, message);
    error.access = Some(AccessError::Challenge { is_invalid: true });
    error
}

/// The 429 of an address that has sent too many credentials that were refused.
pub(super) fn too_many(seconds: u64) -> Error {
    let message =
        format!("Too many invalid API keys came from this address. Try again in {seconds} s.");
    let mut error = Error::new(429, "rate_limit_exceeded", "TOO_MANY_INVALID_KEYS", message);
    error.retry_after = Some(seconds);
    error.access = Some(AccessError::Uncached);
    error
}

/// A 403 of a key.
pub(super) fn forbidden(code: &'static str, message: String) -> Error {
    let mut error = Error::new(403, "forbidden", code, message);
    error.access = Some(AccessError::Uncached);
    error
}
