//! The configuration: from a file, the environment and defaults to a validated [`Plan`].
//!
//! Two steps. What was typed becomes one tree with line numbers, whatever the format
//! (`tree.rs`, `yaml.rs`); a reader (`reader.rs`, `section.rs`, `key.rs`, `kinds.rs`) walks it by the
//! declarations of the keys (`settings.rs` and one file for each large section) and makes the plan
//! (`plan.rs`, `endpoint.rs`). Every wrong value is a [`Finding`] that names key, value and place; all of them
//! are reported, not only the first.
//!
//! Contract: docs/contract/operations.md#9 to docs/contract/operations.md#11

mod auth;
mod bounds;
mod check;
mod endpoint;
mod env;
mod finding;
mod fleet;
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
mod section;
mod server;
mod settings;
mod translators;
mod tree;
mod unknown;
mod values;
mod yaml;

pub use endpoint::{
    Auth, BaseUrl, EndpointPlan, EndpointTlsPlan, NameFilter, Scheme, Secret, UrlFault,
};
pub use env::Env;
pub use finding::{Finding, Origin, Severity};
pub use import::{Imported, import};
pub use inputs::{AUTO, ConfigInputs, TypeName};
pub use listener::{IdentityFault, ServerTlsPlan};
pub use load::{DEFAULT_PATHS, FileFormat, Loaded, load, locate, plan_from_str, reference, reload};
pub use logging::early_logging;
pub use nearest::nearest;
pub use plan::*;
pub use reader::{Fingerprints, KeyDoc, RestartOnly};
pub use values::boolean;

#[cfg(test)]
mod tests;
