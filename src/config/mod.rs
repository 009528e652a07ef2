//! The configuration: from a file, the environment and defaults to a validated [`Plan`].
//!
//! Reading has two steps. First, the file becomes a tree with line numbers, the same for both formats
//! (`tree.rs`, `yaml.rs`). Then a reader (`reader.rs`, `section.rs`, `key.rs`, `kinds.rs`) walks the
//! tree along the declarations of the keys (`settings.rs` and one file for each large section) and
//! makes the plan (`plan.rs`, `endpoint.rs`). Each wrong value is a [`Finding`] with key, value and
//! line, and all of them are reported, not only the first.
//!
//! Contract: docs/contract/operations.md#9 to docs/contract/operations.md#11

mod access;
mod auth;
mod bounds;
mod check;
mod dialect;
mod endpoint;
mod env;
mod finding;
mod fleet;
mod foreign;
mod import;
mod inputs;
mod key;
mod kinds;
mod listener;
mod load;
mod logging;
mod nearest;
mod plan;
mod proxy;
mod reader;
mod responses;
mod retry;
mod schedule;
mod section;
mod server;
mod server_tls;
mod settings;
mod statuses;
mod translators;
mod tree;
mod unknown;
mod values;
mod version_prefix;
mod watch;
mod yaml;

pub(crate) use access::*;
pub(crate) use bounds::{
    GLOBAL_REQUESTS_PER_MINUTE, HEALTH_REQUESTS_PER_MINUTE, PAGES_PER_SECOND,
    PER_IP_REQUESTS_PER_MINUTE,
};
pub(crate) use dialect::DialectName;
pub(crate) use endpoint::{Auth, EndpointTlsPlan, Scheme, Secret, UrlFault};
pub use endpoint::{BaseUrl, EndpointPlan, NameFilter};
pub use env::Env;
pub(crate) use finding::Finding;
pub use finding::Severity;
pub(crate) use foreign::convert;
pub(crate) use foreign::kind::ConfigKind;
pub use import::import;
pub(crate) use import::toml_of_yaml;
pub(crate) use inputs::AUTO;
pub use inputs::{ConfigInputs, TypeName};
pub use load::{FileFormat, Loaded, plan_from_str, reference};
pub(crate) use load::{InForce, load, locate, passed_over, reload, text_of};
pub(crate) use logging::early_logging;
pub(crate) use nearest::nearest;
pub use plan::*;
pub use reader::KeyDoc;
pub(crate) use reader::{Fingerprints, RestartOnly};
pub(crate) use responses::ResponseStorePlan;
pub(crate) use retry::RetryPlan;
#[cfg(test)]
pub(crate) use statuses::StatusSet;
#[cfg(test)]
pub(crate) use translators::{AnthropicPlan, OllamaPlan};
pub(crate) use translators::{InspectorPlan, TranslatorRules, TranslatorsPlan};
pub(crate) use values::boolean;
pub(crate) use watch::ModelDiscoveryPlan;

#[cfg(test)]
mod tests;
