//! Accepting, and giving fresh sockets to the core that has fewest.
//!
//! `SO_REUSEPORT` spreads connections by a hash, which is uneven when they are few and live long,
//! as streams do. So a core that has clearly more connections than another hands a fresh socket
//! over before anything is read from it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::{Core, Shared, serve};
use crate::handler::Handler;
use crate::rt::{self, Accepted, Listener, Socket};

/// A core keeps its connections while it has no more than this many above another: moving one
/// costs a wake-up.
const MARGIN: usize = 2;

pub(super) async fn accept<H: Handler>(core: Rc<Core<H>>, listener: Listener) {
    let exhausted = |resource| core.handler.accept_failed(resource);
    while let Some((stream, peer)) = listener.accept(exhausted).await {
        let Some((stream, peer)) = hand_over(&core, stream, peer) else {
            continue;
        };
        count(&core.cores, core.index);
        adopt(&core, stream, peer);
    }
}

fn count(cores: &[Shared], index: usize) {
    if let Some(core) = cores.get(index) {
        core.connections.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Gives the socket away if another core should have it; else gives it back.
fn hand_over<H: Handler>(
    core: &Core<H>,
    stream: Accepted,
    peer: SocketAddr,
) -> Option<(Accepted, SocketAddr)> {
    let load = |index: usize| {
        core.cores
            .get(index)
            .map(|core| core.connections.0.load(Ordering::Relaxed))
    };
    let own = load(core.index).unwrap_or(0);
    let least = (0..core.cores.len())
        .filter_map(|index| Some((load(index)?, index)))
        .min();
    let (other, index) = least
        .filter(|(other, _)| own > other + MARGIN + other / 8)
        .unwrap_or((own, core.index));
    let target = core
        .cores
        .get(index)
        .filter(|_| index != core.index && other < own);
    let Some(target) = target else {
        return Some((stream, peer));
    };
    match target.handed_over.try_send((stream, peer)) {
        Ok(()) => {
            count(&core.cores, index);
            target.bell.ring();
            None
        }
        Err(refused) => Some(refused.into_inner()),
    }
}

/// Serves a socket that is counted as this core's.
pub(super) fn adopt<H: Handler>(core: &Rc<Core<H>>, stream: Accepted, peer: SocketAddr) {
    rt::spawn(connection(Rc::clone(core), stream, peer));
}

/// The task of a connection.
async fn connection<H: Handler>(core: Rc<Core<H>>, stream: Accepted, peer: SocketAddr) {
    if let Some(socket) = taken_over(&core, stream).await {
        serve::serve(&core, socket, peer).await;
    }
    if let Some(shared) = core.shared() {
        shared.connections.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The size of a connection's task, in bytes, when it waits for a request.
pub(super) fn task_bytes<H: Handler>() -> usize {
    fn size<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }
    size(connection::<H>)
}

/// Makes the socket this core's, with TLS if the listener uses it. `None` if the socket is
/// unusable, or if the TLS handshake takes longer than the time limit for a head.
async fn taken_over<H: Handler>(core: &Core<H>, stream: Accepted) -> Option<Socket> {
    let socket = Socket::accepted(stream).ok()?;
    let Some(identity) = core.tls.current() else {
        return Some(socket);
    };
    let limit = core.handler.limits().head_timeout;
    // A timeout drops the connection together with its read, so no bytes can be lost.
    rt::timeout(limit, socket.secure_accepted(&identity))
        .await?
        .ok()
}
