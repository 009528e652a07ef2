//! What the tests of the workspace share: scriptable LLM backends, a launcher for the gateway, a raw
//! HTTP client, and ports. The binary `testkit` offers the same to programs in other languages.
//!
//! Everything listens on 127.0.0.1, on ports that the system chooses. Every wait is bounded, so a
//! test fails instead of hanging. Misuse and failed expectations panic, which is how a test fails.

pub mod api;
mod backend;
mod driver;
mod folder;
mod gateway;
mod http;
pub mod metrics;
mod ports;
mod scenario;
#[cfg(feature = "tls")]
pub mod tls;
pub mod vectors;
mod wait;

pub use backend::{Backend, Link, Rule, Script, Step};
pub use driver::Driver;
pub use folder::Folder;
pub use gateway::{
    Config, Gateway, Process, bearer, endpoint, exchange, get, post, program, run_to_end,
};
pub use http::{Client, Received, Response, STREAM_COMMENT};
pub use ports::{FullListener, reserve};
pub use scenario::{io_uring_refused, on_both_drivers, on_drivers};
pub use wait::{PATIENCE, wait_for, wait_until};
