//! Versioned broadcast of immutable snapshots from one place to all cores.
//!
//! The control side publishes ([`Broadcast`]); a core takes the newest at the start of each
//! request ([`Subscriber::current`]) and pays one atomic load if nothing is new. A snapshot travels
//! through a channel that holds one; of several that a core has missed it only gets the newest.
//!
//! Guarantees: once [`Broadcast::publish`] has returned, every later `current` returns that snapshot
//! or a newer one; versions never go back; a subscriber starts with the newest; a snapshot is
//! dropped by the publishing side, never by a core, because it may be large ([`Broadcast::reclaim`]).
//!
//! What this module must not do: wake a core that sleeps. The publishing side rings a doorbell if that
//! matters.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// Counts what was published; the first snapshot is 1.
pub type Generation = u64;

/// The publishing side.
pub struct Broadcast<T> {
    shared: Arc<Shared<T>>,
}

/// The side of one core.
pub struct Subscriber<T> {
    shared: Arc<Shared<T>>,
    arriving: Receiver<Versioned<T>>,
    version: Generation,
    current: Arc<T>,
}

struct Shared<T> {
    /// The newest version that every subscriber can get.
    newest: AtomicU64,
    state: Mutex<State<T>>,
}

struct State<T> {
    newest: Versioned<T>,
    subscribers: Vec<Sender<Versioned<T>>>,
    /// Earlier ones that may still be in use; no more than there are holders.
    retired: Vec<Arc<T>>,
}

struct Versioned<T> {
    version: Generation,
    snapshot: Arc<T>,
}

impl<T> Clone for Versioned<T> {
    fn clone(&self) -> Self {
        Self {
            version: self.version,
            snapshot: Arc::clone(&self.snapshot),
        }
    }
}

impl<T> Shared<T> {
    /// Nothing under this lock can panic halfway, so its state is good whatever happened.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Broadcast<T> {
    /// A broadcast with `first` as its newest snapshot, version 1.
    pub fn new(first: Arc<T>) -> Self {
        let newest = Versioned {
            version: 1,
            snapshot: first,
        };
        let state = Mutex::new(State {
            newest,
            subscribers: Vec::new(),
            retired: Vec::new(),
        });
        Self {
            shared: Arc::new(Shared {
                newest: AtomicU64::new(1),
                state,
            }),
        }
    }

    /// Makes `snapshot` the newest and hands it to every core; returns its version.
    pub fn publish(&self, snapshot: Arc<T>) -> Generation {
        let mut state = self.shared.state();
        let version = state.newest.version + 1;
        let newest = Versioned { version, snapshot };
        let old = std::mem::replace(&mut state.newest, newest.clone());
        state.retired.push(old.snapshot);
        state
            .subscribers
            .retain(|subscriber| match subscriber.try_send(newest.clone()) {
                Ok(()) => true,
                // It has not looked since; when it does it finds that there is a newer one.
                Err(TrySendError::Full(_)) => true,
                Err(TrySendError::Disconnected(_)) => false,
            });
        // Only now, so that a core that sees the number also finds the snapshot.
        self.shared.newest.store(version, Ordering::Release);
        drop(state);
        self.reclaim();
        version
    }

    /// Drops the earlier snapshots that are not in use any more; returns how many still are. They are
    /// dropped here and at each [`Broadcast::publish`], and nowhere else.
    pub fn reclaim(&self) -> usize {
        let mut state = self.shared.state();
        // A retired snapshot is not handed out any more, so a single reference stays single.
        let is_free = |old: &mut Arc<T>| Arc::strong_count(old) == 1;
        let free: Vec<_> = state.retired.extract_if(.., is_free).collect();
        let held = state.retired.len();
        drop(state);
        // It may take a while: not under the lock.
        drop(free);
        held
    }

    /// A new subscriber, which starts with the newest snapshot.
    pub fn subscribe(&self) -> Subscriber<T> {
        let (sender, arriving) = bounded(1);
        let mut state = self.shared.state();
        state.subscribers.push(sender);
        let Versioned { version, snapshot } = state.newest.clone();
        drop(state);
        Subscriber {
            shared: Arc::clone(&self.shared),
            arriving,
            version,
            current: snapshot,
        }
    }

    /// The newest snapshot.
    pub fn newest(&self) -> Arc<T> {
        Arc::clone(&self.shared.state().newest.snapshot)
    }

    /// Its version.
    pub fn version(&self) -> Generation {
        self.shared.newest.load(Ordering::Acquire)
    }
}

impl<T> Subscriber<T> {
    /// The newest snapshot. One atomic load if it has not changed since the last call.
    pub fn current(&mut self) -> &Arc<T> {
        let newest = self.shared.newest.load(Ordering::Acquire);
        if newest > self.version {
            self.catch_up(newest);
        }
        &self.current
    }

    /// Whether there is a newer one than [`Subscriber::current`] last returned.
    pub fn is_behind(&self) -> bool {
        self.shared.newest.load(Ordering::Acquire) > self.version
    }

    #[cold]
    fn catch_up(&mut self, newest: Generation) {
        if let Ok(arrived) = self.arriving.try_recv() {
            self.adopt(arrived);
        }
        // The channel held one from before it was full. Seldom, so a lock will do.
        if newest > self.version {
            let state = self.shared.state();
            let arrived = state.newest.clone();
            drop(state);
            self.adopt(arrived);
        }
    }

    fn adopt(&mut self, arrived: Versioned<T>) {
        if arrived.version > self.version {
            self.version = arrived.version;
            self.current = arrived.snapshot;
        }
    }
}

impl<T> fmt::Debug for Broadcast<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast")
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Subscriber<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn the_newest_wins() {
        let broadcast = Broadcast::new(Arc::new("first"));
        let mut early = broadcast.subscribe();
        assert_eq!((**early.current(), early.version), ("first", 1));
        assert!(!early.is_behind());

        assert_eq!(broadcast.publish(Arc::new("second")), 2);
        assert!(early.is_behind());
        assert_eq!((**early.current(), early.version), ("second", 2));

        for name in ["third", "fourth", "fifth"] {
            broadcast.publish(Arc::new(name));
        }
        let mut late = broadcast.subscribe();
        assert_eq!((**late.current(), late.version), ("fifth", 5));
        assert_eq!((**early.current(), early.version), ("fifth", 5));
        assert_eq!(*broadcast.newest(), "fifth");
        // What was overtaken in the channel does not come after it.
        broadcast.publish(Arc::new("sixth"));
        assert_eq!((**early.current(), early.version), ("sixth", 6));
    }

    #[test]
    fn nothing_new_is_the_same_snapshot() {
        let broadcast = Broadcast::new(Arc::new(7));
        let mut subscriber = broadcast.subscribe();
        let first = Arc::clone(subscriber.current());
        assert!(Arc::ptr_eq(&first, subscriber.current()));
    }

    #[test]
    fn unused_snapshots_are_dropped() {
        let first = Arc::new(());
        let broadcast = Broadcast::new(Arc::clone(&first));
        let mut subscriber = broadcast.subscribe();
        let gone = broadcast.subscribe();
        drop(gone);
        broadcast.publish(Arc::new(()));
        assert_eq!(broadcast.shared.state().subscribers.len(), 1);
        assert_eq!(broadcast.reclaim(), 1, "the subscriber has not looked");
        subscriber.current();
        assert_eq!(
            Arc::strong_count(&first),
            2,
            "nothing is dropped by looking"
        );
        // Its owner here is one of those that hold it.
        assert_eq!(broadcast.reclaim(), 1);
        let watched = Arc::downgrade(&first);
        drop(first);
        assert_eq!(broadcast.reclaim(), 0);
        assert_eq!(watched.strong_count(), 0);
    }

    /// However the cores move on, it is the publishing thread that drops what they leave behind.
    #[test]
    fn cores_drop_nothing() {
        struct Large(thread::ThreadId);
        impl Drop for Large {
            fn drop(&mut self) {
                assert_eq!(thread::current().id(), self.0);
            }
        }
        let here = thread::current().id();
        let broadcast = Broadcast::new(Arc::new(Large(here)));
        let gate = Barrier::new(2);
        let mut subscriber = broadcast.subscribe();
        thread::scope(|scope| {
            let core = scope.spawn(|| {
                for _ in 0..3 {
                    gate.wait();
                    subscriber.current();
                    gate.wait();
                }
                subscriber
            });
            for _ in 0..3 {
                broadcast.publish(Arc::new(Large(here)));
                assert_eq!(broadcast.reclaim(), 1, "the one that the core has");
                gate.wait();
                gate.wait();
                assert_eq!(broadcast.reclaim(), 0);
            }
            // With what it holds last it is the same.
            let subscriber = core.join().unwrap();
            broadcast.publish(Arc::new(Large(here)));
            drop(subscriber);
            assert_eq!(broadcast.reclaim(), 0);
        });
    }

    #[test]
    fn a_subscriber_outlives_the_broadcast() {
        let broadcast = Broadcast::new(Arc::new(1));
        let mut subscriber = broadcast.subscribe();
        broadcast.publish(Arc::new(2));
        drop(broadcast);
        assert_eq!(**subscriber.current(), 2);
        assert_eq!(**subscriber.current(), 2);
    }

    /// Cores on threads of their own, reading while it is published: no version goes back, each
    /// snapshot is the one of its version, and what was published before a look is seen by it.
    #[test]
    fn over_threads() {
        const LAST: u64 = 20_000;
        const CORES: usize = 3;
        let broadcast = Broadcast::new(Arc::new(1_u64));
        let published = AtomicU64::new(1);
        let gate = Barrier::new(CORES + 1);
        thread::scope(|scope| {
            for _ in 0..CORES {
                let mut subscriber = broadcast.subscribe();
                let (gate, published) = (&gate, &published);
                scope.spawn(move || {
                    gate.wait();
                    let mut seen = 0;
                    while seen < LAST {
                        let at_least = published.load(Ordering::Acquire);
                        let found = **subscriber.current();
                        assert_eq!(found, subscriber.version);
                        assert!(found >= seen, "{found} after {seen}");
                        assert!(
                            found >= at_least,
                            "{found}, though {at_least} was published"
                        );
                        seen = found;
                    }
                    assert_eq!(seen, LAST);
                });
            }
            gate.wait();
            for number in 2..=LAST {
                assert_eq!(broadcast.publish(Arc::new(number)), number);
                published.store(number, Ordering::Release);
                if number % 64 == 0 {
                    thread::yield_now();
                }
            }
        });
    }

    /// Several publish at once: the versions are theirs alone, and the last is the newest.
    #[test]
    fn several_publishers() {
        let broadcast = Broadcast::new(Arc::new(0_u64));
        let mut subscriber = broadcast.subscribe();
        thread::scope(|scope| {
            for publisher in 0..4 {
                let broadcast = &broadcast;
                scope.spawn(move || {
                    for number in 0..500 {
                        broadcast.publish(Arc::new(publisher * 1_000 + number));
                    }
                });
            }
        });
        assert_eq!(broadcast.version(), 2_001);
        assert_eq!(**subscriber.current(), *broadcast.newest());
        assert_eq!(subscriber.version, 2_001);
    }
}
