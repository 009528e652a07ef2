//! A thread-per-core HTTP/1.1 proxy engine without knowledge of models.
//!
//! One event loop for each core, pinned, with its own listener, its own connections to backends and
//! nothing shared on a request's path. A [`handler::Handler`] decides what a request means; this
//! crate carries bytes.
//!
//! # Layers
//!
//! ```text
//! core ──▶ upstream, exchange, handler, offload ──▶ fair, budget, waiting_buffers ──▶ rt, tls, buf, h1 ──▶ fault, limits
//! client ─▶ upstream, rt, h1
//! snapshot, limit: parts for programs that implement a handler
//! ```
//!
//! An arrow is a permission to call; there are none back. [`h1`] and [`exchange`] are sans-io:
//! bytes, events and `now` in, decisions out. Only [`rt`] knows the runtime and the kernel.
//!
//! # Thread rules
//!
//! A core's state is never touched by another thread. What crosses threads goes through a channel,
//! and a [`rt::Bell`] wakes the receiver; snapshots ([`snapshot`]) are handed over whole. A core
//! resolves no name, reads no file and takes no lock that may be held for long. A handler returns
//! at once: it leaves slow work to another thread and has itself called again
//! ([`handler::Routed::Wait`]), or to the threads that the engine has for work on a body
//! ([`handler::Routed::Work`]).
//!
//! # Buffers
//!
//! A [`buf::Buf`] is owned by exactly one party: a connection, or the read in progress that fills
//! it. There is one bounded buffer a direction and no queue; the next piece is read when the last
//! one has been sent. A connection on which little is going on waits without a buffer
//! ([`waiting_buffers`]). Large buffers are kept for reuse, up to a bound for each thread. Every other
//! bound is in [`limits`].
//!
//! # The cancel rule
//!
//! A read in progress is never given up while its connection goes on: on io_uring its bytes would
//! be lost. [`rt::Socket`] keeps the rule by owning its read; waiting for it may be dropped at any
//! time. Writes are tried at once (at the end of the turn, `core/turn.rs`) and then wait for
//! writability, which may be dropped too, but a connection with half a message written is never
//! used again: [`exchange`] decides that.
//!
//! # Panics and errors
//!
//! Hostile input is a response and a counter, never a panic. A panic is a bug; it ends its core,
//! and the process must end with it ([`core::Engine::is_broken`]). Errors are small enums; each is
//! mapped to a status, a counter and a sentence in one place.

mod budget;
mod buf;
pub mod client;
pub mod core;
pub mod decoding;
pub mod exchange;
mod fair;
mod fault;
pub mod h1;
pub mod handler;
mod incoming;
pub mod limit;
pub mod limits;
mod offload;
mod part;
pub mod request_turn;
pub mod rt;
pub mod snapshot;
pub mod tls;
mod upstream;
mod waiting_buffers;

/// Internals for benches, fuzz targets and the tests in `engine/tests`; no part of the interface.
#[doc(hidden)]
pub mod bench {
    pub use crate::exchange::lifecycle::{Action, Event, Filling, Lifecycle, Phase};
    pub use crate::h1::chunk::{BadChunk, Decoder, LAST_CHUNK, Pass, Piece, encode_size};
    pub use crate::h1::field::NoNames;
    pub use crate::h1::framing::{ResponseBody, ResponseFraming};
    pub use crate::h1::scan::Scan;

    pub mod framing {
        pub use crate::h1::framing::{request, response};
    }
}
