//! Tokens of a request: what the issuer's keys say of them, and waiting for newer keys.
//!
//! Contract: docs/contract/access.md#9

use std::sync::Arc;
use std::time::{Duration, Instant};

use olla_engine::handler::Cx;

use super::exchange::Exchange;
use super::replies::Awaited;
use crate::access::{Key, KeyFault, TokenFault, TokenRefusal, is_token};
use crate::shared::ToControl;

/// How long a request waits for a fetch.
const WAIT: Duration = Duration::from_secs(2);

impl Exchange {
    /// The key of a credential that is a token; `None` for all others. Sets `wants_keys` if newer
    /// keys of the issuer may make it valid.
    pub(super) fn token(
        &self,
        credential: &[u8],
        cx: &Cx<'_>,
        wants_keys: &mut bool,
    ) -> Option<Result<Arc<Key>, KeyFault>> {
        let rules = self.view.snapshot.access.tokens.as_ref()?;
        if !is_token(credential) {
            return None;
        }
        let keeper = &self.gateway.common.access;
        let mut tokens = self.gateway.tokens.borrow_mut();
        let now = (keeper.book(), cx.unix_ms);
        let checked = tokens.check(rules, keeper.issuer(), credential, now);
        Some(checked.map_err(|refusal| match refusal {
            TokenRefusal::Unavailable => KeyFault::TokensUnavailable,
            TokenRefusal::Fault(fault) => {
                *wants_keys |= fault == TokenFault::UnknownKey { is_new: true };
                KeyFault::Token(fault.to_string().into_boxed_str())
            }
        }))
    }

    /// Whether the request has waited for newer keys.
    ///
    /// # Errors
    /// It still waits, at the latest until this time.
    pub(super) fn waits_for_issuer(&mut self, cx: &Cx<'_>) -> Result<bool, Instant> {
        let Some(ticket) = &self.ticket else {
            return Ok(false);
        };
        if let Awaited::Later(until) = ticket.take(cx.now) {
            return Err(until);
        }
        self.ticket = None;
        Ok(true)
    }

    /// Asks for newer keys. Returns how long the request waits for them; `None` if none may be
    /// fetched now, for anybody or for this client (docs/contract/access.md#10).
    pub(super) fn ask_issuer(&mut self, cx: &Cx<'_>) -> Option<Instant> {
        let common = &self.gateway.common;
        if !common.access.issuer().may_fetch() {
            return None;
        }
        let limit = self.view.snapshot.access.max_refused_per_minute;
        let now = common.nanos(cx.now);
        let blocked = common
            .refused_keys
            .blocked(self.client.limited_as(), limit, now);
        if blocked.is_some() {
            return None;
        }
        self.ticket = self.gateway.ask(cx.now + WAIT, ToControl::IssuerKeys);
        self.ticket.as_ref().map(|ticket| ticket.by)
    }
}
