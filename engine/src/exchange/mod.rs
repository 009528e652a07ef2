//! One request and its response, over one or more attempts, as a state machine: when to read,
//! write, retry, reuse and abort, and the deadlines.
//!
//! The serve loop reports what happened ([`Event`]) and performs the action returned ([`Action`]). The
//! machine takes the time as an argument and touches no socket, so every rule of failover is in one
//! place that a table and a simulation can test (`engine/tests/exchange_sim`).
//!
//! What it must not do: choose an endpoint, count attempts against a limit, or know what is in a
//! request. Its owner decides which endpoint is tried next, and whether there is one.
//!
//! ```text
//!              attempt(fresh)      Connected       RequestSent       ResponseHead
//!   Choosing ───────────────▶ Connecting ──▶ Sending ──▶ Waiting ──▶ Responding
//!      ▲  └──── attempt(reused) ────────────────▲  └── early ResponseHead ──▲ │
//!      └── RetryFresh, NextEndpoint ── (from Connecting, Sending, Waiting)  │ Finish
//!                                                                           ▼
//!             Fail, respond_locally ──────────────────────────────▶ Delivering
//!   Cut, Abandon, Reset (from anywhere), Delivered ──▶ Over
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
pub use fault::{Ending, Fault};
pub use lifecycle::Timeouts;
pub(crate) use lifecycle::{Action, Event, Filling, Lifecycle};
