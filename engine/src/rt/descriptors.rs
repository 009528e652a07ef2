//! The file descriptors of the process, and how many each kind of connection leaves to the others.
//!
//! Clients must not use up what connections to backends need, and those must not use up what health
//! checks need: a gateway that cannot check its endpoints knows nothing of them. Connections are
//! counted from before they are opened until they are closed, in one number for the whole process,
//! because the limit is one of the process. What else is open is counted once, at start.
//!
//! Contract: docs/contract/balancing.md#9.3

use std::sync::atomic::{AtomicUsize, Ordering};

use super::sys;

/// Descriptors that accepting leaves to everything else.
const LEFT_BY_CLIENTS: usize = 32;

/// Descriptors that connections to backends leave to health checks and other work of the process.
const LEFT_BY_BACKENDS: usize = 16;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A client.
    Client,
    /// A request to a backend.
    Backend,
    /// A request of the gateway's own, such as a health check. Only the kernel limits these.
    Own,
}

/// The most connections of any kind that may be open after one for a purpose has been opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Most {
    clients: usize,
    backends: usize,
}

impl Most {
    /// With this limit of open files and this number of other open files. Where a limit is very low,
    /// clients leave half of what there is.
    fn of(limit: usize, others: usize) -> Self {
        let connections = limit.saturating_sub(others);
        let left = |usual: usize, part: usize| connections - usual.min(connections / part);
        Self {
            clients: left(LEFT_BY_CLIENTS, 2),
            backends: left(LEFT_BY_BACKENDS, 4),
        }
    }
}

/// Connections that are open, or about to be.
static OPEN: AtomicUsize = AtomicUsize::new(0);
/// [`Most`]; without a limit until [`reserve`] is called.
static CLIENTS_MAX: AtomicUsize = AtomicUsize::new(usize::MAX);
static BACKENDS_MAX: AtomicUsize = AtomicUsize::new(usize::MAX);

/// A descriptor of a connection, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Descriptor(());

impl Descriptor {
    /// Counts a connection that is about to be opened; `None` if descriptors are so short that it
    /// must not be.
    pub(crate) fn take(purpose: Purpose) -> Option<Self> {
        let most = match purpose {
            Purpose::Client => CLIENTS_MAX.load(Ordering::Relaxed),
            Purpose::Backend => BACKENDS_MAX.load(Ordering::Relaxed),
            Purpose::Own => usize::MAX,
        };
        let before = OPEN.fetch_add(1, Ordering::Relaxed);
        // Dropped, and thereby not counted, if there are too many.
        let taken = Self(());
        (before < most).then_some(taken)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Begins to keep descriptors back. To be called once everything is open that stays open;
/// `listeners` accept connections, so each may have a descriptor counted for the next one.
///
/// # Errors
/// When the kernel does not say how many are open. None are kept back then.
pub fn reserve(listeners: usize) -> std::io::Result<()> {
    let limit = usize::try_from(sys::open_files_limit()?).unwrap_or(usize::MAX);
    // The folder that is being read is one of its entries.
    let open = std::fs::read_dir("/proc/self/fd")?
        .count()
        .saturating_sub(1);
    let connections = OPEN.load(Ordering::Relaxed).saturating_sub(listeners);
    let most = Most::of(limit, open.saturating_sub(connections));
    CLIENTS_MAX.store(most.clients, Ordering::Relaxed);
    BACKENDS_MAX.store(most.backends, Ordering::Relaxed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purpose_leaves_something_to_the_next() {
        // Limit, other files, the most clients, the most connections to backends.
        let table = [
            (1024, 40, 952, 968),
            (104, 40, 32, 48),
            (80, 40, 20, 30),
            (41, 40, 1, 1),
            (40, 40, 0, 0),
            (30, 40, 0, 0),
            (usize::MAX, 40, usize::MAX - 72, usize::MAX - 56),
        ];
        for (limit, others, clients, backends) in table {
            let want = Most { clients, backends };
            assert_eq!(Most::of(limit, others), want, "{limit} {others}");
        }
    }
}
