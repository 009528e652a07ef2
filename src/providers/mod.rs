//! What is known of each kind of server, how its model listing is read, and where it is asked.
//!
//! The kinds are data: one file each under `builtin/`, and the user's own of the same form
//! (`file.rs`, `set.rs`). Beside them stand the pure steps of asking a server: the targets of its
//! checks (`target.rs`), the readers of its listing (`listing.rs`), and how its kind is found out
//! when it is not configured (`detect.rs`).
//!
//! Opens no socket and reads no clock. Files are read in [`Profiles::load`] only. Knows nothing of
//! how models of several servers are merged: that is the catalogue.
//!
//! Contract: docs/contract/catalogue.md#1, docs/contract/catalogue.md#2.2,
//! docs/contract/catalogue.md#3.4, docs/contract/catalogue.md#3.6, docs/contract/catalogue.md#3.7,
//! docs/contract/catalogue.md#4.1; docs/contract/balancing.md#3.2, docs/contract/balancing.md#11

pub mod detect;
mod fields;
pub mod figures;
mod file;
mod glob;
mod listing;
mod profile;
mod set;
mod target;

pub use glob::{admits, glob};
pub use listing::{
    Extra, ListedModel, ListingFault, MAX_LISTING_BYTES, MAX_MODELS, ModelKind, Scalar,
    parse_listing,
};
pub use profile::{AnthropicSupport, MetricsExtraction, Parser, Profile};
pub use set::{OPENAI_COMPATIBLE, Profiles};
pub use target::{UpstreamTarget, health_url, model_url, target};
