//! Which endpoint a request goes to, and when: the prediction of the first token, what it is learned
//! from, who holds which prefix, and the admission queue.
//!
//! Pure: the time is a value, and what the cores share is in atomics. `gateway` and `control` put
//! requests and readings in; the simulation drives the same code in virtual time.
//!
//! - [`predict`]: T of a request at an endpoint
//! - [`estimate`], [`models`], [`pair`], [`load`]: what it is made of, per fleet, model, model on an
//!   endpoint, and endpoint
//! - [`placements`]: prefixes of prompts
//! - [`warmth`]: models in memory
//! - [`queue`]: requests that wait for a slot
//!
//! Contract: docs/contract/scheduling.md

pub(crate) mod choose;
pub(crate) mod dispatch;
pub(crate) mod estimate;
pub(crate) mod load;
pub(crate) mod models;
pub(crate) mod pair;
pub(crate) mod placements;
pub(crate) mod predict;
pub(crate) mod prompt;
pub(crate) mod queue;
pub(crate) mod scheduler;
pub(crate) mod slot;
pub(crate) mod survey;
pub(crate) mod waiting;
pub(crate) mod warmth;

#[cfg(test)]
mod simulation;

pub(crate) use load::EndpointLoad;
pub(crate) use models::ModelKey;
pub(crate) use warmth::Warmth;
