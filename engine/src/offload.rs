//! Work that would hold a core for too long: a few threads do it, the core goes on meanwhile.
//!
//! A request has at most one piece of work at a time, and its bytes stay charged to the budget of
//! bodies, so what waits here is bounded by the requests in flight. Clients take turns
//! ([`crate::fair`]): however much one of them has handed over, another one waits for a single piece
//! of it. One thread takes only short work: a few very large bodies do not delay those of usual
//! size. The work of a request that is over is dropped when its turn comes.
//!
//! The threads have a lower priority than the cores. Without it, work on a machine without an idle
//! processor would take turns with a core. So a core never waits for a lock of theirs: it sends what
//! it hands over through a channel, and the threads put it into their queue.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, RecvError, Sender, bounded, select, unbounded};

use crate::budget::Client;
use crate::fair::FairQueue;
use crate::handler::Work;
use crate::limits::{OFFLOAD_NICE, OFFLOAD_SHORT_BYTES_MAX, OFFLOAD_THREADS_MIN};
use crate::rt::sys;

/// Owns bytes that work is done on.
pub(crate) trait Input: Send {
    /// The bytes.
    fn bytes(&self) -> &[u8];
}

impl Input for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A piece of work with the bytes that it is for, and the way back.
type Job = Box<dyn FnOnce() + Send>;

/// The queues of the threads, shared by all cores.
#[derive(Debug, Clone)]
pub(crate) struct Offload {
    short: Inlet,
    long: Inlet,
}

/// The end of a queue where cores hand work over.
#[derive(Debug, Clone)]
struct Inlet {
    jobs: Sender<(Client, Job)>,
    /// One for each job, sent after it: a thread that has received one finds a job.
    calls: Sender<()>,
}

/// The end of a queue where the threads take work.
#[derive(Clone)]
struct Outlet {
    jobs: Receiver<(Client, Job)>,
    calls: Receiver<()>,
    waiting: Arc<Mutex<FairQueue<Job>>>,
}

/// Work that was handed over.
#[derive(Debug)]
pub(crate) struct Handed<I> {
    done: Receiver<I>,
    /// The threads see by it whether the request goes on.
    _open: Arc<()>,
}

impl<I> Handed<I> {
    /// The bytes, once the work is done.
    pub(crate) fn take(&self) -> Option<I> {
        self.done.try_recv().ok()
    }
}

fn queue() -> (Inlet, Outlet) {
    let (jobs, jobs_out) = unbounded();
    let (calls, calls_out) = unbounded();
    let outlet = Outlet {
        jobs: jobs_out,
        calls: calls_out,
        waiting: Arc::default(),
    };
    (Inlet { jobs, calls }, outlet)
}

impl Inlet {
    fn put(&self, client: Client, job: Job) {
        // The threads live as long as the queues.
        let _ = self.jobs.send((client, job));
        let _ = self.calls.send(());
    }
}

impl Outlet {
    /// The next job; called by a thread once for each call that it received.
    fn next(&self) -> Option<Job> {
        // Nothing that holds the lock runs a job, so none has left the queue half changed.
        let waiting = self.waiting.lock();
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        while let Ok((client, job)) = self.jobs.try_recv() {
            waiting.push(client, job);
        }
        waiting.pop()
    }
}

impl Offload {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub(crate) fn start(cores: usize) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let (short, short_jobs) = queue();
        let (long, long_jobs) = queue();
        let count = (cores / 4).max(OFFLOAD_THREADS_MIN);
        let threads = (0..count).map(|index| {
            let short = short_jobs.clone();
            let long = (index > 0).then(|| long_jobs.clone());
            std::thread::Builder::new()
                .name(format!("offload-{index}"))
                .spawn(move || serve(&short, long.as_ref()))
        });
        let threads = threads.collect::<io::Result<_>>()?;
        Ok((Self { short, long }, threads))
    }

    /// Hands work for a client over; `ring` is called after it.
    pub(crate) fn hand<I: Input + 'static>(
        &self,
        client: Client,
        work: Work,
        input: I,
        ring: impl FnOnce() + Send + 'static,
    ) -> Handed<I> {
        let (sender, done) = bounded(1);
        let open = Arc::new(());
        let still_open: Weak<()> = Arc::downgrade(&open);
        let queue = if input.bytes().len() <= OFFLOAD_SHORT_BYTES_MAX {
            &self.short
        } else {
            &self.long
        };
        let job: Job = Box::new(move || {
            if still_open.strong_count() > 0 {
                work(input.bytes());
                // The request may have ended meanwhile.
                let _ = sender.send(input);
                ring();
            }
        });
        queue.put(client, job);
        Handed { done, _open: open }
    }
}

/// One thread, until the cores are gone.
fn serve(short: &Outlet, long: Option<&Outlet>) {
    sys::lower_priority(OFFLOAD_NICE);
    while let Ok(queue) = called(short, long) {
        if let Some(job) = queue.next() {
            job();
        }
    }
}

/// Waits for work; returns the queue that has some.
fn called<'q>(short: &'q Outlet, long: Option<&'q Outlet>) -> Result<&'q Outlet, RecvError> {
    let Some(long) = long else {
        return short.calls.recv().map(|()| short);
    };
    select! {
        recv(short.calls) -> call => call.map(|()| short),
        recv(long.calls) -> call => call.map(|()| long),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(20);
    const ONE: Client = Client::of_place(1);
    const TWO: Client = Client::of_place(2);

    fn long() -> Vec<u8> {
        vec![0; OFFLOAD_SHORT_BYTES_MAX + 1]
    }

    #[test]
    fn short_work_does_not_wait_for_long_work() {
        let (offload, threads) = Offload::start(1).unwrap();
        let (go, gate) = unbounded::<()>();
        let (rang, bell) = unbounded();
        let hand = |what: u8, bytes: usize, gate: Option<Receiver<()>>| {
            let rang = rang.clone();
            let work: Work = Box::new(move |_| {
                if let Some(gate) = gate {
                    let _ = gate.recv();
                }
            });
            let ring = move || rang.send(what).unwrap();
            offload.hand(ONE, work, vec![what; bytes], ring)
        };
        let long = OFFLOAD_SHORT_BYTES_MAX + 1;
        let first = hand(1, long, Some(gate.clone()));
        let second = hand(2, long, Some(gate));
        let third = hand(3, OFFLOAD_SHORT_BYTES_MAX, None);
        assert_eq!(bell.recv_timeout(PATIENCE), Ok(3));
        assert!(third.take().is_some() && third.take().is_none());
        assert!(first.take().is_none() && second.take().is_none());
        drop(go);
        assert_eq!(bell.recv_timeout(PATIENCE), Ok(1));
        assert_eq!(bell.recv_timeout(PATIENCE), Ok(2));
        assert_eq!(first.take(), Some(vec![1; long]));
        drop((offload, second));
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn work_of_a_request_that_is_over_is_dropped() {
        let (offload, threads) = Offload::start(1).unwrap();
        let (go, gate) = unbounded::<()>();
        let (did, done) = unbounded();
        for what in 0..3 {
            let (gate, did) = (gate.clone(), did.clone());
            let work: Work = Box::new(move |_| {
                let _ = gate.recv();
                did.send(what).unwrap();
            });
            let handed = offload.hand(ONE, work, long(), || {});
            if what == 1 {
                drop(handed);
            } else {
                std::mem::forget(handed);
            }
        }
        drop(go);
        assert_eq!(done.recv_timeout(PATIENCE), Ok(0));
        assert_eq!(done.recv_timeout(PATIENCE), Ok(2));
        drop(offload);
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_client_waits_for_one_piece_of_work_of_another() {
        let (offload, threads) = Offload::start(1).unwrap();
        let (go, gate) = unbounded::<()>();
        let (did, done) = unbounded();
        let hand = |client, what: &'static str| {
            let (gate, did) = (gate.clone(), did.clone());
            let work: Work = Box::new(move |_| {
                did.send(what).unwrap();
                let _ = gate.recv();
            });
            offload.hand(client, work, long(), || {})
        };
        let first = hand(ONE, "first");
        assert_eq!(done.recv_timeout(PATIENCE), Ok("first"), "it has begun");
        let others = [
            hand(ONE, "of the same"),
            hand(ONE, "of the same"),
            hand(TWO, "of another"),
        ];
        drop(go);
        let order = [(); 3].map(|()| done.recv_timeout(PATIENCE).unwrap());
        assert_eq!(order, ["of the same", "of another", "of the same"]);
        drop((offload, first, others));
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
