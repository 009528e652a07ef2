//! Thread-per-core HTTP/1.1 proxy engine.
pub mod buf;
pub mod rt;
