//! Resolves host names on threads of their own, because the system's resolver blocks.
//!
//! A name is resolved again at once when none of its addresses could be connected to, and keeps its
//! addresses for a while when it stops resolving.
//!
//! Contract: docs/contract/observe.md#1

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use olla_engine::rt::Bell;

/// Resolver threads. A name server that does not respond blocks one for half a minute.
const THREADS: usize = 4;

/// Addresses are used for this long. The system's resolver does not pass on the time to live that
/// name servers report.
const FRESH: Duration = Duration::from_secs(30);

/// Names in the cache. Redirects can name any host, so the cache needs a bound.
const KNOWN_MAX: usize = 2048;

/// Resolves names and caches the addresses.
pub(super) struct Resolver {
    questions: Sender<Question>,
    answers: Receiver<Answer>,
    asked: RefCell<HashMap<u64, Asked>>,
    known: RefCell<HashMap<(String, u16), Known>>,
    next: Cell<u64>,
    /// `dns.stale`.
    stale: Cell<Duration>,
}

/// What is known of a name.
#[derive(Debug)]
struct Known {
    addresses: Arc<[SocketAddr]>,
    /// When they were found.
    at: Instant,
    /// Whether none of them could be connected to since.
    is_doubted: bool,
    /// When the name stopped resolving.
    failing: Option<Instant>,
}

impl Known {
    fn new(addresses: Arc<[SocketAddr]>, now: Instant) -> Self {
        Self {
            addresses,
            at: now,
            is_doubted: false,
            failing: None,
        }
    }

    /// The addresses, if they need not be asked for again.
    fn fresh(&self, now: Instant) -> Option<Arc<[SocketAddr]>> {
        let is_young = now.saturating_duration_since(self.at) < FRESH;
        let is_good = is_young && !self.is_doubted && self.failing.is_none();
        is_good.then(|| Arc::clone(&self.addresses))
    }

    /// The name does not resolve: the addresses, for as long as they are kept.
    fn kept(&mut self, stale: Duration, now: Instant) -> Option<Arc<[SocketAddr]>> {
        let since = *self.failing.get_or_insert(now);
        let is_kept = now.saturating_duration_since(since) < stale;
        is_kept.then(|| Arc::clone(&self.addresses))
    }
}

struct Question {
    host: String,
    port: u16,
    number: u64,
}

struct Answer {
    number: u64,
    addresses: Option<Arc<[SocketAddr]>>,
}

#[derive(Default)]
struct Asked {
    answer: Option<Option<Arc<[SocketAddr]>>>,
    waker: Option<Waker>,
}

impl Resolver {
    /// Starts the threads. After each result they ring the bell, and [`Self::deliver`] receives it.
    pub(super) fn start(bell: Bell, stale: Duration) -> Self {
        let (questions, to_answer) = unbounded::<Question>();
        let (answered, answers) = unbounded();
        for number in 0..THREADS {
            let (to_answer, answered, bell) = (to_answer.clone(), answered.clone(), bell.clone());
            let work = move || {
                for Question { host, port, number } in to_answer {
                    let addresses = blocking(&host, port);
                    if answered.send(Answer { number, addresses }).is_err() {
                        return;
                    }
                    bell.ring();
                }
            };
            // Without threads no name is resolved, so endpoints with a host name stay offline.
            let name = format!("resolve-{number}");
            let _ = std::thread::Builder::new().name(name).spawn(work);
        }
        Self {
            questions,
            answers,
            asked: RefCell::default(),
            known: RefCell::default(),
            next: Cell::new(0),
            stale: Cell::new(stale),
        }
    }

    /// Adopts another `dns.stale`.
    pub(super) fn keep_for(&self, stale: Duration) {
        self.stale.set(stale);
    }

    /// None of the addresses of a host could be connected to: they are asked for anew.
    pub(super) fn doubt(&self, host: &str, port: u16) {
        if let Some(known) = self.known.borrow_mut().get_mut(&key(host, port)) {
            known.is_doubted = true;
        }
    }

    /// Whether addresses of a host are known, of any age.
    pub(super) fn knows(&self, host: &str, port: u16) -> bool {
        self.known.borrow().contains_key(&key(host, port))
    }

    /// The addresses that a host had, if it has stopped resolving not long ago.
    pub(super) fn kept(&self, host: &str, port: u16) -> Option<Arc<[SocketAddr]>> {
        let mut known = self.known.borrow_mut();
        let known = known.get_mut(&key(host, port))?;
        known.kept(self.stale.get(), Instant::now())
    }

    /// Receives the results of the threads and wakes the tasks that wait for them.
    pub(super) fn deliver(&self) {
        let mut asked = self.asked.borrow_mut();
        while let Ok(Answer { number, addresses }) = self.answers.try_recv() {
            if let Some(asked) = asked.get_mut(&number) {
                asked.answer = Some(addresses);
                if let Some(waker) = asked.waker.take() {
                    waker.wake();
                }
            }
        }
    }

    /// The addresses of a host, at most half a minute old, or those that it keeps; `None` when it
    /// has none.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> Option<Arc<[SocketAddr]>> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(Arc::from([SocketAddr::new(ip, port)]));
        }
        let key = key(host, port);
        let fresh = |known: &Known| known.fresh(Instant::now());
        if let Some(addresses) = self.known.borrow().get(&key).and_then(fresh) {
            return Some(addresses);
        }
        let number = self.next.replace(self.next.get() + 1);
        self.asked.borrow_mut().insert(number, Asked::default());
        let forget = Forget {
            resolver: self,
            number,
        };
        let question = Question {
            host: key.0.clone(),
            port,
            number,
        };
        self.questions.send(question).ok()?;
        let addresses = poll_fn(|cx| {
            let mut asked = self.asked.borrow_mut();
            let Some(asked) = asked.get_mut(&number) else {
                return Poll::Ready(None);
            };
            match asked.answer.take() {
                Some(answer) => Poll::Ready(answer),
                None => {
                    asked.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        drop(forget);
        let Some(addresses) = addresses else {
            return self.kept(host, port);
        };
        if self.known.borrow().len() >= KNOWN_MAX {
            self.known.borrow_mut().clear();
        }
        self.known
            .borrow_mut()
            .insert(key, Known::new(Arc::clone(&addresses), Instant::now()));
        Some(addresses)
    }
}

fn key(host: &str, port: u16) -> (String, u16) {
    (host.to_owned(), port)
}

/// Removes the question of a task that has stopped waiting.
struct Forget<'r> {
    resolver: &'r Resolver,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.resolver.asked.borrow_mut().remove(&self.number);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "on a thread of its own, which may block"
)]
fn blocking(host: &str, port: u16) -> Option<Arc<[SocketAddr]>> {
    let addresses: Vec<_> = (host, port).to_socket_addrs().ok()?.collect();
    (!addresses.is_empty()).then(|| addresses.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_again_in_doubt_and_kept_for_a_while() {
        const STALE: Duration = Duration::from_secs(300);
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let addresses: Arc<[SocketAddr]> = Arc::from([SocketAddr::from(([127, 0, 0, 1], 80))]);
        let mut known = Known::new(addresses, begin);
        assert!(known.fresh(at(29)).is_some());
        assert!(known.fresh(at(30)).is_none(), "too old");
        known.is_doubted = true;
        assert!(
            known.fresh(at(1)).is_none(),
            "no address could be connected to"
        );
        known.is_doubted = false;
        // It stops resolving much later than it was last asked for.
        assert!(known.kept(STALE, at(1_000)).is_some());
        assert!(
            known.fresh(at(1)).is_none(),
            "it is asked for with each check"
        );
        assert!(known.kept(STALE, at(1_299)).is_some());
        assert!(known.kept(STALE, at(1_300)).is_none());
        assert!(known.kept(Duration::ZERO, at(1_000)).is_none());
    }
}
