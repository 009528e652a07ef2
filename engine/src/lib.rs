//! Thread-per-core HTTP/1.1 proxy engine.

mod budget;
pub mod buf;
pub mod core;
pub mod exchange;
pub mod h1;
pub mod handler;
pub mod limits;
pub mod rt;
mod upstream;
