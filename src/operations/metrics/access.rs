//! The series of keys.
//!
//! Contract: docs/contract/access.md#16

use super::exposition::Exposition;
use crate::config::KeySource;
use crate::operations::stats::KeyRefusal;
use crate::operations::{Inputs, IssuerFacts};

/// Keys, and what was refused (docs/contract/access.md#16).
pub(super) fn families(text: &mut Exposition, inputs: &Inputs<'_>) {
    let access = inputs.access;
    let name = "olla_access_enabled";
    text.gauge(name, "Whether clients need a key.");
    text.sample(name, &[], u64::from(access.enabled));
    let name = "olla_access_keys";
    text.gauge(
        name,
        "Keys in force, by their source; of tokens, the names that have counters.",
    );
    for source in KeySource::ALL {
        let labels = [("source", source.as_str())];
        let count = match source {
            KeySource::Jwt => inputs.token_names,
            source => access.keys.count(source),
        };
        text.sample(name, &labels, count);
    }
    let name = "olla_access_keys_file_ok";
    text.gauge(
        name,
        "Whether the newest version of the keys file is in force.",
    );
    text.sample(name, &[], u64::from(inputs.keys_file_ok));
    let name = "olla_access_sessions";
    text.gauge(name, "Sessions of the dashboard.");
    text.sample(name, &[], inputs.sessions);
    issuer_families(text, inputs.issuer);
    let name = "olla_access_refused_total";
    let help = "Requests whose credentials were refused, by the reason.";
    text.family(name, "counter", help);
    let counts = inputs.totals.system().key_refusals;
    for (reason, count) in KeyRefusal::ALL.into_iter().zip(counts) {
        text.sample(name, &[("reason", reason.as_str())], count);
    }
}

/// The keys of the token issuer, if there is one.
fn issuer_families(text: &mut Exposition, issuer: Option<IssuerFacts>) {
    let Some(issuer) = issuer else { return };
    let name = "olla_jwks_up";
    text.gauge(
        name,
        "Whether the last fetch of the issuer's keys succeeded.",
    );
    text.sample(name, &[], u64::from(issuer.is_up));
    let name = "olla_jwks_keys";
    text.gauge(name, "Keys of the issuer that are in force.");
    text.sample(name, &[], issuer.keys);
    let name = "olla_jwks_last_success_timestamp_seconds";
    text.gauge(name, "When the issuer's keys were fetched last; 0 = never.");
    text.sample(name, &[], issuer.last_success_s);
    let name = "olla_jwks_fetches_total";
    text.family(name, "counter", "Fetches of the issuer's keys.");
    text.sample(name, &[("result", "ok")], issuer.ok);
    text.sample(name, &[("result", "failed")], issuer.failed);
}
