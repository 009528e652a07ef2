//! Resolves host names on threads of their own, because the system's resolver blocks.
//!
//! A name is resolved again at once when none of its addresses could be connected to, and keeps its
//! addresses for a while when it stops resolving.
//!
//! Contract: docs/contract/observe.md#1

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use olla_engine::exchange::ConnectFault;
use olla_engine::rt::{Bell, Exhausted};

use super::pending::{Answer, HostPort, Inquiry, PENDING_MAX, Pending};

/// Resolver threads. A name server that does not respond blocks one for half a minute.
const THREADS: usize = 4;

/// Addresses are used for this long. The system's resolver does not pass on the time to live that
/// name servers report.
const FRESH: Duration = Duration::from_secs(30);

/// Names in the cache. Redirects can name any host, so the cache needs a bound.
const KNOWN_MAX: usize = 2048;

/// Resolves names and caches the addresses.
pub(super) struct Resolver {
    questions: Sender<HostPort>,
    answers: Receiver<(HostPort, Answer)>,
    pending: RefCell<Pending>,
    known: RefCell<HashMap<HostPort, Known>>,
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

impl Resolver {
    /// Starts the threads. After each result they ring the bell, and [`Self::deliver`] receives it.
    pub(super) fn start(bell: Bell, stale: Duration) -> Self {
        let (questions, to_answer) = bounded::<HostPort>(PENDING_MAX);
        let (answered, answers) = bounded(PENDING_MAX);
        for number in 0..THREADS {
            let (to_answer, answered, bell) = (to_answer.clone(), answered.clone(), bell.clone());
            let work = move || {
                for key in to_answer {
                    let answer = blocking(&key.0, key.1);
                    if answered.send((key, answer)).is_err() {
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
            pending: RefCell::default(),
            known: RefCell::default(),
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
        while let Ok((key, answer)) = self.answers.try_recv() {
            self.pending.borrow_mut().answered(&key, answer);
        }
    }

    /// The addresses of a host, at most half a minute old, or those that it keeps.
    ///
    /// # Errors
    /// [`ConnectFault::Unresolved`] if it has none; [`ConnectFault::Local`] if it cannot be asked for
    /// them now.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> Answer {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Arc::from([SocketAddr::new(ip, port)]));
        }
        let key = key(host, port);
        let fresh = |known: &Known| known.fresh(Instant::now());
        if let Some(addresses) = self.known.borrow().get(&key).and_then(fresh) {
            return Ok(addresses);
        }
        let addresses = match self.asked(&key).await {
            Ok(addresses) => addresses,
            Err(ConnectFault::Local) => {
                // Nothing new is known of the name.
                let known = self.known.borrow();
                let known = known.get(&key).map(|known| Arc::clone(&known.addresses));
                return known.ok_or(ConnectFault::Local);
            }
            Err(fault) => return self.kept(host, port).ok_or(fault),
        };
        if self.known.borrow().len() >= KNOWN_MAX {
            self.known.borrow_mut().clear();
        }
        self.known
            .borrow_mut()
            .insert(key, Known::new(Arc::clone(&addresses), Instant::now()));
        Ok(addresses)
    }

    /// What the threads find out.
    async fn asked(&self, key: &HostPort) -> Answer {
        let asked = self.pending.borrow_mut().ask(key);
        let wait = match asked {
            Inquiry::Known(wait) => wait,
            // There is room in the queue: it holds no more than what is pending.
            Inquiry::New(wait) if self.questions.try_send(key.clone()).is_ok() => wait,
            Inquiry::New(_) => {
                let fault = Err(ConnectFault::Unresolved);
                self.pending.borrow_mut().answered(key, fault.clone());
                return fault;
            }
            Inquiry::Refused => return Err(ConnectFault::Local),
        };
        wait.end().await
    }
}

fn key(host: &str, port: u16) -> HostPort {
    (host.to_owned(), port)
}

#[expect(
    clippy::disallowed_methods,
    reason = "on a thread of its own, which may block"
)]
fn blocking(host: &str, port: u16) -> Answer {
    let addresses: Vec<_> = match (host, port).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        // The resolver of the system could not open a file or a socket.
        Err(error) if Exhausted::of(&error).is_some() => return Err(ConnectFault::Local),
        Err(_) => Vec::new(),
    };
    if addresses.is_empty() {
        Err(ConnectFault::Unresolved)
    } else {
        Ok(addresses.into())
    }
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
