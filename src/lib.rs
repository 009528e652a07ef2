//! What it means to serve LLMs, on top of the engine: which server has which model, which of them
//! a request goes to, and what clients and operators are told. `docs/architecture.md` has the
//! picture.

pub mod access;
pub mod catalogue;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod dialects;
pub mod endpoint_set;
mod field_names;
pub mod fleet;
pub mod format;
pub mod gateway;
pub mod inspect;
pub(crate) mod json;
pub mod log;
pub mod operations;
pub mod providers;
mod roots;
pub mod routing;
pub mod serve;
pub mod shared;
