//! How requests to an endpoint are written: the constant parts of their heads, and the settings of
//! its connections.
//!
//! Contract: docs/contract/surface.md#3.1, docs/contract/surface.md#4, docs/contract/surface.md#5;
//! docs/contract/balancing.md#14

use std::time::Duration;

use base64::Engine as _;
use olla_engine::h1::{FieldId, emit, field};
use olla_engine::tls::TlsClient;

use crate::config::{Auth, EndpointPlan, Secret};
use crate::field_names;

/// The constant parts of the heads of requests to an endpoint, and the settings of its connections.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// `Host` and the fields that are set on every request, as they are sent.
    fields: Vec<u8>,
    /// The length of the `Host` field at their start, in bytes.
    host_bytes: usize,
    /// Names of the endpoint's own fields. Fields of these names are removed from requests, and
    /// from responses too, because they may be reflected secrets (docs/contract/surface.md#5.1).
    pub own: Vec<(FieldId, Box<[u8]>)>,
    /// Whether the endpoint has credentials; those of the client are then removed.
    pub has_auth: bool,
    /// The path of its URL, without a slash at the end, if requests keep it; else empty.
    pub base_path: String,
    /// The query of its URL, which goes with every request. It may hold a credential.
    pub query: Option<Secret>,
    /// TCP keep-alive interval.
    pub keep_alive: Duration,
    /// Idle timeout of its connections.
    pub idle_max: Duration,
    /// TLS of its connections; `None` = plain HTTP.
    pub tls: Option<TlsClient>,
}

impl Upstream {
    /// Prepares the constants of an endpoint's plan.
    pub fn new(
        plan: &EndpointPlan,
        keep_alive: Duration,
        idle_max: Duration,
        tls: Option<TlsClient>,
    ) -> Self {
        let mut fields = Vec::new();
        emit::field(&mut fields, b"Host", plan.url.host_header.as_bytes());
        let host_bytes = fields.len();
        let mut own: Vec<(FieldId, Box<[u8]>)> = Vec::new();
        for (name, value) in own_fields(plan) {
            let id = field_names::classify(name.as_bytes());
            // Fields of framing and `Host` cannot be configured.
            let fixed = matches!(id, FieldId::ContentLength | FieldId::Host);
            if !field::is_hop_by_hop(id) && !fixed {
                emit::field(&mut fields, name.as_bytes(), value.as_bytes());
            }
            own.push((id, name.as_bytes().into()));
        }
        Self {
            fields,
            host_bytes,
            own,
            has_auth: plan.auth.is_some(),
            base_path: if plan.preserve_path {
                plan.url.base_path.clone()
            } else {
                String::new()
            },
            query: plan.url.query.clone(),
            keep_alive,
            idle_max,
            tls,
        }
    }

    /// The endpoint's own fields for a request of this method.
    pub fn fields_for(&self, method: &[u8]) -> &[u8] {
        // RFC 9110 9.3.8: a TRACE response echoes the request and must not show the client the
        // endpoint's keys.
        if method == b"TRACE" {
            &self.fields[..self.host_bytes]
        } else {
            &self.fields
        }
    }

    /// Whether the endpoint has its own field of this name.
    pub fn replaces(&self, name: &[u8]) -> bool {
        self.own
            .iter()
            .any(|(_, own)| own.eq_ignore_ascii_case(name))
    }

    /// The same for a field with an id.
    pub fn owns(&self, id: FieldId) -> bool {
        self.own.iter().any(|(own, _)| *own == id)
    }
}

/// The fields that are set on every request to an endpoint, checks and discovery included; `auth`
/// wins over `headers` (docs/contract/balancing.md#14).
pub(crate) fn own_fields(plan: &EndpointPlan) -> Vec<(String, String)> {
    let auth = plan.auth.as_ref().map(|auth| match auth {
        Auth::Bearer { token } => (
            "Authorization".to_owned(),
            format!("Bearer {}", token.expose()),
        ),
        Auth::ApiKey { header, key } => (header.clone(), key.expose().to_owned()),
        Auth::Basic { username, password } => {
            let pair = format!("{}:{}", username.expose(), password.expose());
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            ("Authorization".to_owned(), format!("Basic {encoded}"))
        }
    });
    let is_auth = |name: &str| {
        auth.as_ref()
            .is_some_and(|(own, _)| own.eq_ignore_ascii_case(name))
    };
    let mut fields: Vec<_> = plan
        .headers
        .iter()
        .filter(|(name, _)| !is_auth(name))
        .map(|(name, value)| (name.clone(), value.expose().to_owned()))
        .collect();
    fields.extend(auth);
    fields
}
