//! Connections to backends: made when needed, kept while they are fresh, watched while they idle.
//!
//! Chooses no backend and repeats no request.

mod connect;
mod pool;

pub(crate) use connect::connect;
pub(crate) use pool::{Pool, Upstream};
