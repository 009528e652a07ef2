//! Resolves host names on threads of their own, because the system's resolver blocks.

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
}

/// Addresses, and when they were found.
type Known = (Instant, Arc<[SocketAddr]>);

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
    pub(super) fn start(bell: Bell) -> Self {
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
        }
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

    /// The addresses of a host, at most half a minute old; `None` when it has none.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> Option<Arc<[SocketAddr]>> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(Arc::from([SocketAddr::new(ip, port)]));
        }
        let key = (host.to_owned(), port);
        if let Some((at, addresses)) = self.known.borrow().get(&key)
            && at.elapsed() < FRESH
        {
            return Some(Arc::clone(addresses));
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
        let addresses = addresses?;
        if self.known.borrow().len() >= KNOWN_MAX {
            self.known.borrow_mut().clear();
        }
        self.known
            .borrow_mut()
            .insert(key, (Instant::now(), Arc::clone(&addresses)));
        Some(addresses)
    }
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
