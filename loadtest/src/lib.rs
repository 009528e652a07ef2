//! Load tools for gateways in front of LLM servers: used by `scripts/compare.sh` and
//! `scripts/bench-*.sh`.
//!
//! | module | what it is |
//! |---|---|
//! | [`stub`] | a stub LLM server: JSON responses, event streams on schedule, faults on request |
//! | [`chat`] | JSON load, closed or open loop, that checks that each response is for its request |
//! | [`sse`] | event-stream load that measures the delay of every event |
//! | [`mixed`] | JSON and streams at a steady rate, with a line for what became of each |
//! | [`hostile`] | hostile clients, and the generator of doubtful requests |
//! | [`relay`] | a bare byte relay: the floor below every gateway |
//!
//! Each runs on one thread, to be pinned from outside (`taskset`), and knows nothing of the gateway
//! it measures. Below them lie [`wire`] (HTTP/1.1 framing), [`events`] (server-sent events),
//! [`scan`] (single JSON fields), [`target`] (requests), [`link`] (a client connection),
//! [`report`], [`chance`], [`clock`] and [`alarm`].

pub mod alarm;
pub mod chance;
pub mod chat;
pub mod clock;
pub mod events;
pub mod hostile;
pub mod link;
pub mod mixed;
pub mod relay;
pub mod report;
pub mod scan;
pub mod sse;
pub mod stub;
pub mod target;
pub mod wire;
