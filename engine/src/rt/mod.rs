//! The only place that knows the runtime and the kernel: monoio, io_uring, epoll, libc.
//!
//! Everything else of the engine works with what this module offers: a driver that is chosen and
//! named at start ([`run`]), tasks ([`spawn`]), sleep ([`sleep`]), sockets that are always being
//! read and may use TLS ([`Socket`]), listeners ([`Listener`]), a bell that wakes another core
//! ([`Bell`]), one lazily re-armed deadline for each connection ([`Deadline`]).
//!
//! **The cancel rule.** A read in progress must never be given up while its connection goes on: on
//! io_uring its bytes would be lost. The types enforce the rule. A [`Socket`] owns its one read
//! from arming to completion; a caller can drop only the waiting for it, never the read itself.
//! Writes are tried at once and then wait for writability, so no write in progress can be dropped
//! half done.
//!
//! **Refused submissions.** Operations wait in a queue of 4096 and go to the kernel when the thread
//! has nothing else to do, or when the queue is full. If the kernel refuses the call, the runtime
//! makes it again; no operation is lost. With every third `io_uring_enter` failing by `EAGAIN`,
//! `EBUSY`, `EINTR` or `ENOMEM` (`strace -f -e inject=io_uring_enter:error=EAGAIN:when=50+3`), 200
//! requests over ten connections were all served. While the kernel has no memory for further
//! operations, the thread tries again and does nothing else. The failure of one operation, such as
//! `ENOMEM`, is the result of that operation. monoio unwraps the result of a submission, which is an
//! error only if the queue is full and the kernel refuses for another reason than `EAGAIN` and
//! `EBUSY`; `io_uring_enter` has no such reason for a ring in order. It would be a panic of a core,
//! and the process would end with an error, see [`Engine::is_broken`](crate::core::Engine::is_broken).

mod bell;
mod deadline;
mod descriptors;
mod destination;
mod driver;
mod listener;
mod socket;
pub mod sys;
mod tls;

use std::future::Future;
use std::time::Duration;

pub use bell::{Bell, Listening};
pub(crate) use deadline::{Deadline, Deadlines, TICK};
pub(crate) use descriptors::Purpose;
pub use descriptors::reserve as reserve_descriptors;
pub use driver::{Driver, Wanted, run};
pub use listener::Exhausted;
pub(crate) use listener::{Accepted, Listener, Stop, bind};
pub(crate) use socket::{Socket, Watch};

/// Runs a task on this thread.
pub fn spawn<F: Future<Output = ()> + 'static>(task: F) {
    drop(monoio::spawn(task));
}

/// Waits. Timers only advance while the thread has nothing else to do, so this is a lower bound.
///
/// On the heap: monoio's timer is 640 bytes on cache lines of its own, which every task would have
/// that may wait at some time.
pub async fn sleep(duration: Duration) {
    Box::pin(monoio::time::sleep(duration)).await;
}

/// Gives up on a future after a while. Never for something that reads from a socket which is used
/// afterwards (see the cancel rule).
///
/// On the heap with its timer, as [`sleep`] is; so the caller has room for a pointer only.
pub fn timeout<F: Future>(limit: Duration, future: F) -> impl Future<Output = Option<F::Output>> {
    let bounded = Box::pin(monoio::time::timeout(limit, future));
    async move { bounded.await.ok() }
}
