//! The dashboard's login: an admin key becomes a session, which a cookie stands for.
//!
//! Contract: docs/contract/access.md#12

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use olla_engine::h1::{FieldId, emit};
use olla_engine::handler::{Ask, Local, Request, Routed};
use serde_json::json;

use super::access::{RefusalLine, forbidden, is_reading, too_many};
use super::exchange::Exchange;
use crate::access::{
    COOKIE, DashboardSession, Identified, Key, RefusedKey, is_own_origin, is_trusted_proxy,
    session_cookie,
};
use crate::clock::millis;
use crate::config::{AdminRight, KeyDigest};
use crate::dialects::Error;
use crate::format;
use crate::log::{Level, events};
use crate::operations::dashboard;
use crate::operations::stats::KeyRefusal;
use crate::routing::route::RouteKind;

/// The largest body of a login.
pub(super) const BODY_BYTES_MAX: u64 = 16 << 10;

/// The field that a page of another site cannot send without being asked first.
const DASHBOARD_FIELD: &[u8] = b"x-olla-dashboard";

/// A route of the login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoginRoute {
    /// `/internal/ui/login`.
    In,
    /// `/internal/ui/logout`.
    Out,
}

impl LoginRoute {
    /// The methods of the route.
    pub(super) const fn allow(self) -> &'static str {
        match self {
            Self::In => "GET, HEAD, POST",
            Self::Out => "POST",
        }
    }
}

impl Exchange {
    /// The route of the login that a request is for, if access is on.
    pub(super) fn login_route(&self, request: &Request<'_>) -> Option<LoginRoute> {
        if !matches!(self.route.kind, RouteKind::Dashboard) || !self.view.snapshot.access.enabled {
            return None;
        }
        match self.rest(request) {
            b"/login" => Some(LoginRoute::In),
            b"/logout" => Some(LoginRoute::Out),
            _ => None,
        }
    }

    /// The admin key of the session that a request has a cookie of.
    pub(super) fn session_key(&self, ask: &Ask<'_>) -> Option<Arc<Key>> {
        let cookie = cookie_of(&ask.request)?;
        let common = &self.gateway.common;
        let session = common.sessions.find(cookie, common.clock_ms(ask.cx.now))?;
        let key = self.view.snapshot.access.key_of(&session, ask.cx.unix_ms);
        if key.is_none() {
            // It does not come back with its key.
            common.sessions.end(cookie);
        }
        key
    }

    /// Refuses a request by cookie that a page of another site may have caused.
    pub(super) fn check_session(&self, ask: &Ask<'_>) -> Result<(), Error> {
        let Request { head, bytes, .. } = ask.request;
        let has_field = head.fields.iter().any(|field| {
            field.name.of(bytes).eq_ignore_ascii_case(DASHBOARD_FIELD)
                && field.value.of(bytes).trim_ascii() == b"1"
        });
        if is_of_own_origin(&ask.request) && (has_field || is_reading(&ask.request)) {
            return Ok(());
        }
        let common = &self.gateway.common;
        let limit = self.view.snapshot.access.max_refused_per_minute;
        let now = common.nanos(ask.cx.now);
        let turn = common
            .refused_keys
            .log(self.client.limited_as(), limit, now);
        let line = RefusalLine {
            reason: KeyRefusal::Csrf,
            digest_id: None,
            key: None,
            detail: None,
        };
        self.note_refused(ask, &line, turn);
        let message =
            "A session needs the header X-Olla-Dashboard: 1 and the gateway's own origin.";
        Err(forbidden("CSRF_CHECK_FAILED", message.to_owned()))
    }

    /// Serves the login and the logout.
    pub(super) fn login(&mut self, ask: &Ask<'_>, route: LoginRoute, local: &mut Local) -> Routed {
        let outcome = match route {
            LoginRoute::In if is_reading(&ask.request) => {
                self.dashboard(ask, local);
                Ok(Routed::Respond)
            }
            LoginRoute::In => self.log_in(ask, local),
            LoginRoute::Out => self.log_out(ask, local).map(|()| Routed::Respond),
        };
        outcome.unwrap_or_else(|error| {
            self.error(ask.cx, Some(&ask.request), &error, local);
            Routed::Respond
        })
    }

    /// Logs an operator in. A token waits for a key of its issuer as on every other route.
    fn log_in(&mut self, ask: &Ask<'_>, local: &mut Local) -> Result<Routed, Error> {
        let has_waited = match self.waits_for_issuer(ask.cx) {
            Ok(has_waited) => has_waited,
            Err(until) => return Ok(Routed::Wait(until)),
        };
        if !is_of_own_origin(&ask.request) {
            self.check_session(ask)?;
        }
        let secret = secret_of(ask)?;
        let common = Arc::clone(&self.gateway.common);
        let limit = self.view.snapshot.access.max_refused_per_minute;
        let (address, now) = (self.client.limited_as(), common.nanos(ask.cx.now));
        if let Some(seconds) = common.refused_keys.blocked(address, limit, now) {
            return Err(too_many(seconds));
        }
        let mut wants_keys = false;
        let key = match self.identified(ask, secret.as_bytes(), &mut wants_keys) {
            Identified::Live { key, .. } => key,
            Identified::Refused(_)
                if wants_keys
                    && !has_waited
                    && let Some(until) = self.ask_issuer(ask.cx) =>
            {
                return Ok(Routed::Wait(until));
            }
            Identified::Refused(refused) => return Err(self.refuse_key(ask, &refused)),
            Identified::None => return Err(self.missing_key(ask)),
        };
        if key.admin() == AdminRight::None {
            return Err(self.not_admin(ask, &key));
        }
        // A session does not outlive its key.
        let left_ms = key
            .expires_ms()
            .map(|end| end.saturating_sub(ask.cx.unix_ms));
        let ttl = self.view.plan().access.session_ttl;
        let ttl = left_ms.map_or(ttl, |left| ttl.min(Duration::from_millis(left)));
        let digest = KeyDigest::of(secret.as_bytes());
        let now_ms = common.clock_ms(ask.cx.now);
        let session = DashboardSession::new(&key, digest, now_ms.saturating_add(millis(ttl)));
        let value = common.sessions.begin(session, now_ms).map_err(|_| {
            let message = "the system has no random numbers";
            Error::new(503, "service_unavailable", "STATE_UNAVAILABLE", message)
        })?;
        self.note_action(ask, "login", &key.name);
        let ends = ask.cx.unix_ms.saturating_add(millis(ttl));
        let ends = std::time::UNIX_EPOCH + Duration::from_millis(ends);
        let admin = match key.admin() {
            AdminRight::Full => json!(true),
            _ => json!("read"),
        };
        let body = json!({
            "name": &*key.name, "admin": admin, "expires_at": format::instant(ends),
        });
        self.json(ask, Bytes::from(body.to_string()), local);
        emit::field(&mut local.head, b"Cache-Control", b"no-store");
        let cookie = self.cookie(ask, &value, ttl.as_secs());
        emit::field(&mut local.head, b"Set-Cookie", cookie.as_bytes());
        Ok(Routed::Respond)
    }

    fn log_out(&mut self, ask: &Ask<'_>, local: &mut Local) -> Result<(), Error> {
        if !is_of_own_origin(&ask.request) {
            self.check_session(ask)?;
        }
        if let Some(key) = self.session_key(ask) {
            self.note_action(ask, "logout", &key.name);
        }
        if let Some(cookie) = cookie_of(&ask.request) {
            self.gateway.common.sessions.end(cookie);
        }
        self.begin(ask.cx, Some(&ask.request), 204, local);
        emit::field(&mut local.head, b"Cache-Control", b"no-store");
        let cookie = self.cookie(ask, "", 0);
        emit::field(&mut local.head, b"Set-Cookie", cookie.as_bytes());
        local.bodyless = true;
        Ok(())
    }

    /// What a credential of a login is. Sets `wants_keys` as [`Self::token`] does.
    fn identified(&self, ask: &Ask<'_>, value: &[u8], wants_keys: &mut bool) -> Identified {
        let access = &self.view.snapshot.access;
        if access.is_placeholder(value) {
            return Identified::None;
        }
        let judged = match self.token(value, ask.cx, wants_keys) {
            Some(judged) => judged.map_err(|because| RefusedKey {
                because,
                digest: KeyDigest::of(value),
            }),
            None => access.secret(value, ask.cx.unix_ms),
        };
        match judged {
            Ok(key) => Identified::Live {
                key,
                is_unguessable: false,
            },
            Err(refused) => Identified::Refused(refused),
        }
    }

    /// The value of `Set-Cookie`.
    fn cookie(&self, ask: &Ask<'_>, value: &str, seconds: u64) -> String {
        let plan = self.view.plan();
        let is_tls = plan.server.tls.is_some();
        let Request { head, bytes, .. } = ask.request;
        let is_forwarded = is_trusted_proxy(&plan.server.rate_limits, ask.cx.peer.ip())
            && head
                .get(bytes, FieldId::XForwardedProto)
                .is_some_and(|proto| proto.trim_ascii().eq_ignore_ascii_case(b"https"));
        let secure = if is_tls || is_forwarded {
            "; Secure"
        } else {
            ""
        };
        format!(
            "{COOKIE}={value}; Path=/internal/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}"
        )
    }

    fn note_action(&self, ask: &Ask<'_>, action: &str, key: &str) {
        let mut log = self.gateway.log.borrow_mut();
        if let Some(mut line) = log.event(Level::Info, events::ADMIN_ACTION, ask.cx.unix_ms) {
            line.str("key", key)
                .str("action", action)
                .str("target", dashboard::ROOT)
                .str("result", "ok")
                .str("client_ip", self.kept.client_text.as_str());
        }
    }
}

/// Whether a request is not a page's of another site.
pub(super) fn is_of_own_origin(request: &Request<'_>) -> bool {
    let Request { head, bytes, .. } = *request;
    let host = head.get(bytes, FieldId::Host).unwrap_or_default();
    let origin = head.get(bytes, FieldId::Origin);
    origin.is_none_or(|origin| is_own_origin(origin.trim_ascii(), host))
}

fn cookie_of<'r>(request: &Request<'r>) -> Option<&'r [u8]> {
    let Request { head, bytes, .. } = *request;
    session_cookie(head.all(FieldId::Cookie).map(|line| line.value.of(bytes)))
}

/// The secret in the body of a login.
fn secret_of(ask: &Ask<'_>) -> Result<String, Error> {
    let Request { head, bytes, .. } = ask.request;
    let media = head.get(bytes, FieldId::ContentType).unwrap_or_default();
    let media = media.split(|byte| *byte == b';').next().unwrap_or_default();
    if !media.trim_ascii().eq_ignore_ascii_case(b"application/json") {
        let message = "expected a body of the type application/json";
        let (kind, code) = ("unsupported_media_type", "UNSUPPORTED_MEDIA_TYPE");
        return Err(Error::new(415, kind, code, message));
    }
    let body: Option<serde_json::Value> = serde_json::from_slice(ask.body).ok();
    let key = body.as_ref().and_then(|body| body.get("key")?.as_str());
    key.map(str::to_owned).ok_or_else(|| {
        let message = "expected a JSON object with the string \"key\"";
        Error::new(400, "bad_request", "INVALID_FIELD", message)
    })
}
