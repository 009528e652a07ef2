//! Thread-per-core HTTP/1.1 proxy engine.

mod budget;
pub mod buf;
pub mod client;
pub mod core;
pub mod exchange;
pub mod h1;
pub mod handler;
mod incoming;
pub mod limit;
pub mod limits;
pub mod meter;
pub mod rt;
pub mod snapshot;
mod upstream;
