//! `/internal/health` (liveness) and `/internal/ready` (readiness).
//!
//! Contract: docs/contract/operations.md#4

use serde::Serialize;

use super::Inputs;
use super::conditional::{Caching, JSON, Page, json};
use super::system::healthy;

/// The body of `/internal/health`.
pub(crate) const HEALTHY: &[u8] = br#"{"status":"healthy"}"#;

/// Always 200, whatever the state of the endpoints.
pub(super) fn health() -> Page {
    Page {
        status: 200,
        content_type: JSON,
        caching: Caching::Plain,
        body: HEALTHY.to_vec(),
    }
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    healthy: usize,
    total: usize,
}

/// 200 when the first round of checks is over and an endpoint is healthy, else 503 and why.
pub(super) fn page(inputs: &Inputs<'_>) -> Page {
    let healthy = healthy(inputs.fleet);
    let reason = if inputs.draining {
        Some("draining")
    } else if !inputs.fleet.started {
        Some("starting")
    } else if healthy == 0 {
        Some("no_healthy_endpoints")
    } else {
        None
    };
    let ready = Ready {
        status: if reason.is_none() {
            "ready"
        } else {
            "not_ready"
        },
        reason,
        healthy,
        total: inputs.fleet.endpoints.len(),
    };
    Page {
        status: if reason.is_none() { 200 } else { 503 },
        content_type: JSON,
        caching: Caching::NoStorePlain,
        body: json(&ready),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Status;
    use crate::operations::testing::World;

    #[test]
    fn health_is_always_the_same() {
        assert_eq!(health().body, br#"{"status":"healthy"}"#);
    }

    #[test]
    fn readiness_and_why_not() {
        let mut world = World::new();
        world.endpoint("a", "http://a", 1, Status::Healthy);
        world.endpoint("b", "http://b", 1, Status::Busy);
        let table = [
            (
                true,
                false,
                200,
                r#"{"status":"ready","healthy":1,"total":2}"#,
            ),
            (
                false,
                false,
                503,
                r#"{"status":"not_ready","reason":"starting","healthy":1,"total":2}"#,
            ),
            (
                true,
                true,
                503,
                r#"{"status":"not_ready","reason":"draining","healthy":1,"total":2}"#,
            ),
        ];
        for (started, draining, status, body) in table {
            world.fleet.started = started;
            world.draining = draining;
            let page = page(&world.inputs());
            assert_eq!(
                (page.status, page.body.as_slice()),
                (status, body.as_bytes())
            );
            assert_eq!(page.caching, Caching::NoStorePlain);
        }
        let mut world = World::new();
        world.endpoint("b", "http://b", 1, Status::Offline);
        world.fleet.started = true;
        assert_eq!(
            page(&world.inputs()).body,
            br#"{"status":"not_ready","reason":"no_healthy_endpoints","healthy":0,"total":1}"#
        );
    }
}
