//! The series of keys.
//!
//! Contract: docs/contract/access.md#16

use super::exposition::Exposition;
use crate::config::KeySource;
use crate::operations::Inputs;
use crate::operations::stats::KeyRefusal;

/// Keys, and what was refused (docs/contract/access.md#16).
pub(super) fn families(text: &mut Exposition, inputs: &Inputs<'_>) {
    let access = inputs.access;
    let name = "olla_access_enabled";
    text.gauge(name, "Whether clients need a key.");
    text.sample(name, &[], u64::from(access.enabled));
    let name = "olla_access_keys";
    text.gauge(name, "Keys in force, by their source.");
    for source in [
        KeySource::Config,
        KeySource::Env,
        KeySource::File,
        KeySource::Store,
    ] {
        let labels = [("source", source.as_str())];
        text.sample(name, &labels, access.keys.count(source));
    }
    let name = "olla_access_keys_file_ok";
    text.gauge(
        name,
        "Whether the newest version of the keys file is in force.",
    );
    text.sample(name, &[], u64::from(inputs.keys_file_ok));
    let name = "olla_access_refused_total";
    let help = "Requests whose credentials were refused, by the reason.";
    text.family(name, "counter", help);
    let counts = inputs.totals.system().key_refusals;
    for (reason, count) in KeyRefusal::ALL.into_iter().zip(counts) {
        text.sample(name, &[("reason", reason.as_str())], count);
    }
}
