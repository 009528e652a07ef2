//! Routing: from a request's description to a decision and a pick.
//!
//! In the order of a request: [`path`] normalises its target, [`route`] matches it,
//! [`management`] tells operations that change models, [`absent`] names APIs that do not exist here,
//! [`scope`] finds the endpoints that prefix and path allow, [`names`] those that have the model, [`decide`]
//! applies aliases and the routing strategy, [`sticky`] finds the session, [`balance`] picks an endpoint,
//! and [`retry`] decides whether its response is given up for another one.
//!
//! Everything is pure over a snapshot of the fleet. The only state that changes are the counters of
//! [`crate::fleet::Live`], the balancers' turns and the sticky store. No socket, no clock, no
//! global state: time and random numbers are arguments. Nothing here allocates for a request
//! unless it says so.
//!
//! Contract: docs/contract/balancing.md#1 to docs/contract/balancing.md#10,
//! docs/contract/surface.md#2 to docs/contract/surface.md#3

pub(crate) mod absent;
pub(crate) mod aliases;
pub(crate) mod balance;
pub(crate) mod decide;
pub(crate) mod management;
pub(crate) mod model_path;
pub(crate) mod names;
pub(crate) mod path;
mod prefix;
pub(crate) mod rejection;
pub(crate) mod retry;
pub(crate) mod route;
pub(crate) mod scope;
pub(crate) mod sticky;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
