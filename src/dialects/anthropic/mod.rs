//! Anthropic's Messages API.
//!
//! contract: translation

mod records;
pub mod split;
pub mod translate;

pub use records::Records;
pub(crate) use records::{Record, Said};
