//! The context of each call of an exchange, made in one place.

use std::net::SocketAddr;
use std::time::Instant;

use super::Core;
use crate::handler::{Cx, Handler};

/// Where and when a request arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// The client's end of the connection.
    pub(super) peer: SocketAddr,
    /// When its first bytes arrived.
    pub(super) at: Instant,
}

/// Owns what a [`Cx`] borrows.
#[derive(Debug)]
pub(super) struct Context {
    now: Instant,
    arrival: Arrival,
    date: [u8; 29],
    unix_ms: u64,
}

impl Context {
    /// The context of a call at this time.
    pub(super) fn new<H: Handler>(core: &Core<H>, arrival: Arrival, now: Instant) -> Self {
        Self {
            now,
            arrival,
            date: core.date(),
            unix_ms: core.unix_ms(),
        }
    }

    /// The context in the form that an exchange gets.
    pub(super) fn cx(&self) -> Cx<'_> {
        Cx {
            now: self.now,
            peer: self.arrival.peer,
            arrived: self.arrival.at,
            date: &self.date,
            unix_ms: self.unix_ms,
        }
    }
}
