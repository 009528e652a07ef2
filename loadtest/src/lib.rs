//! Load tools for gateways in front of LLM servers: used by `scripts/compare.sh`,
//! `scripts/bench-*.sh` and `scripts/run schedule`.
//!
//! | module | what it is |
//! |---|---|
//! | [`stub`] | a stub LLM server: JSON responses, event streams on schedule, faults on request |
//! | [`chat`] | JSON load, closed or open loop, that checks that each response is for its request |
//! | [`sse`] | event-stream load that measures the delay of every event |
//! | [`idle`] | keep-alive connections that are opened, used once and held |
//! | [`mixed`] | JSON and streams at a steady rate, with a line for what became of each |
//! | [`fleet`] | simulated engines with slots, prefix caches and models to load |
//! | [`people`] | conversations with a simulated fleet, through a gateway |
//! | [`hostile`] | hostile clients, and the generator of doubtful requests |
//! | [`relay`] | a bare byte relay: the floor below every gateway |
//!
//! Each runs on one thread, to be pinned from outside (`taskset`), and knows nothing of the gateway
//! it measures. Below them lie [`wire`] (HTTP/1.1 framing), [`events`] (server-sent events),
//! [`scan`] (single JSON fields), [`target`] (requests), [`link`] (a client connection), [`tls`],
//! [`report`], [`chance`], [`prose`], [`clock`] and [`alarm`].

pub mod alarm;
pub mod chance;
pub mod chat;
pub mod clock;
pub mod events;
pub mod fleet;
pub mod hostile;
pub mod idle;
pub mod link;
pub mod mixed;
pub mod people;
pub mod prose;
pub mod relay;
pub mod report;
pub mod scan;
pub mod sse;
pub mod stub;
pub mod target;
pub mod tls;
pub mod wire;
