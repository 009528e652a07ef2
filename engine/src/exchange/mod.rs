//! One request and its answer, over one or more attempts, as a state machine: who may read, write,
//! retry, reuse and abort, and when time is up.
//!
//! The serve loop tells it what happened ([`Event`]) and does what it is told ([`Action`]). The
//! machine takes the time as an argument and touches no socket, so every rule of failover is one
//! place that a table and a simulation can test (`engine/tests/exchange_sim`).
//!
//! What it must not do: choose an endpoint, count attempts against a limit, or know what is in a
//! request. Which endpoint is tried next, and whether there is one, its owner decides.
//!
//! ```text
//!              attempt(fresh)      Connected       RequestSent       AnswerHead
//!   Choosing ───────────────▶ Connecting ──▶ Sending ──▶ Waiting ──▶ Answering
//!      ▲  └──── attempt(reused) ────────────────▲  └── early AnswerHead ──▲ │
//!      └── RetryFresh, NextEndpoint ── (from Connecting, Sending, Waiting)  │ Finish
//!                                                                           ▼
//!             Fail, answer_locally ──────────────────────────────▶ Delivering
//!   Cut, Abandon (from anywhere), Delivered ──▶ Over
//! ```
//!
//! Contract: docs/contract/balancing.md#9, docs/contract/balancing.md#10,
//! docs/contract/balancing.md#13; docs/contract/surface.md#1.2, docs/contract/surface.md#8.2,
//! docs/contract/surface.md#8.3

mod fault;
pub(crate) mod lifecycle;
#[cfg(test)]
mod tests;

pub use crate::fault::{ConnectFault, TlsFault};
pub use fault::Fault;
pub use lifecycle::Timeouts;
pub(crate) use lifecycle::{Action, Event, Lifecycle};
