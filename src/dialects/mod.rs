//! The API families that clients speak, one folder each.

pub mod anthropic;
