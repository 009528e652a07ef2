//! Provider profiles: the properties of each kind of server, its listings and its check targets.
//!
//! The kinds are data: one file each under `builtin/`, and the user's own files of the same form
//! (`file.rs`, `set`). The other modules are pure: the targets of checks and listings
//! (`target.rs`), the parsers of listings (`listing`) and of what servers tell about their load
//! (`readings`), and the detection of the kind when it is not configured (`detect.rs`).
//!
//! Nothing here opens a socket or reads a clock; only [`Profiles::load`] reads files. The catalogue
//! merges the models of several servers.
//!
//! Contract: docs/contract/catalogue.md#1, docs/contract/catalogue.md#2.2,
//! docs/contract/catalogue.md#3.4, docs/contract/catalogue.md#3.6, docs/contract/catalogue.md#3.7,
//! docs/contract/catalogue.md#4.1; docs/contract/balancing.md#3.2, docs/contract/balancing.md#11;
//! docs/contract/scheduling.md#3, docs/contract/scheduling.md#4

pub(crate) mod detect;
mod fields;
pub(crate) mod figures;
mod file;
mod filter;
mod fold;
mod listing;
mod profile;
pub(crate) mod readings;
mod set;
mod target;
pub(crate) mod version;

pub use filter::admits;
pub(crate) use fold::{LATEST, NameForm, find_by_name, with_folded};
pub use listing::ListedModel;
pub use listing::parse_listing;
pub(crate) use listing::{Extra, MAX_LISTING_BYTES, MAX_NAME_BYTES, ModelKind, Scalar};
pub use profile::Profile;
pub(crate) use profile::{CommonOperation, MetricsExtraction, Parser};
pub(crate) use set::OPENAI_COMPATIBLE;
pub use set::Profiles;
pub(crate) use target::{UpstreamTarget, health_url, model_url, target};
