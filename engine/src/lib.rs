//! Thread-per-core HTTP/1.1 proxy engine.
