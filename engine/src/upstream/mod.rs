//! Connections to backends: made when needed, kept while they are fresh, watched while they idle.
//!
//! Chooses no backend and repeats no request.

mod backend;
mod connect;
mod pool;

pub(crate) use backend::Backend;
pub(crate) use connect::connect;
pub(crate) use pool::{Pool, Upstream};
