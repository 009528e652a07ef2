//! One deadline for each connection, moved as often as needed, each time at the cost of a store.
//!
//! A timer for each wait would cost more than the wait. Instead one task for each thread looks at
//! all deadlines a few dozen times a second and wakes their connections when they have passed. That
//! is exact to one tick, which is enough: the shortest deadline of the contract is a second. Of
//! very many that are due at one moment (a flood of clients that went silent together) a few are
//! woken at a time, so that other requests proceed in between.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The interval between two checks.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// The interval, in ticks, at which connections are woken that have to be looked at: a quarter of a
/// second.
const TICKS_PER_LOOK: u32 = 12;

const NEVER: u64 = u64::MAX;

/// The deadlines of one thread.
#[derive(Debug)]
pub(crate) struct Deadlines {
    start: Instant,
    slots: RefCell<Vec<Rc<Slot>>>,
    /// Deadlines that were due at the last check and have not been woken yet.
    due: RefCell<VecDeque<Rc<Slot>>>,
    ticks: Cell<u32>,
}

#[derive(Debug)]
struct Slot {
    /// Milliseconds since the start of the thread.
    due_ms: Cell<u64>,
    passed: Cell<bool>,
    /// It stands among those that are due.
    queued: Cell<bool>,
    /// Its connection is between two requests.
    idle: Cell<bool>,
    /// Whether its wait may end early and be taken up again.
    patience: Cell<Patience>,
    /// Its wait is to end early.
    hastened: Cell<bool>,
    looking: Cell<Looking>,
    waker: RefCell<Option<Waker>>,
}

/// For what a wait may end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// For nothing.
    No,
    /// No byte of a response has arrived: it may leave its backend, or be revoked.
    Waiting,
    /// A response is being relayed: it may be revoked.
    Relaying,
}

/// Whether a connection has to be looked at now and then, because no event tells of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looking {
    No,
    Later,
    Now,
}

/// The deadline of one connection.
#[derive(Debug)]
pub(crate) struct Deadline {
    slot: Rc<Slot>,
    start: Instant,
}

impl Deadlines {
    /// A collection without deadlines.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            start: now,
            slots: RefCell::new(Vec::new()),
            due: RefCell::new(VecDeque::new()),
            ticks: Cell::new(0),
        }
    }

    /// A deadline that never passes until it is set.
    pub(crate) fn make(&self) -> Deadline {
        let slot = Rc::new(Slot {
            due_ms: Cell::new(NEVER),
            passed: Cell::new(false),
            queued: Cell::new(false),
            idle: Cell::new(false),
            patience: Cell::new(Patience::No),
            hastened: Cell::new(false),
            looking: Cell::new(Looking::No),
            waker: RefCell::new(None),
        });
        self.slots.borrow_mut().push(Rc::clone(&slot));
        Deadline {
            slot,
            start: self.start,
        }
    }

    /// Lets the deadlines of all idle connections pass now.
    pub(crate) fn expire_idle(&self) {
        for slot in self.slots.borrow().iter().filter(|slot| slot.idle.get()) {
            slot.pass();
        }
    }

    /// Lets the deadlines of all waits for a response pass at the next checks, a few at a time.
    pub(crate) fn hasten(&self) {
        self.hasten_if(|patience| patience == Patience::Waiting);
    }

    /// The same for those that relay a response too.
    pub(crate) fn hasten_all(&self) {
        self.hasten_if(|patience| patience != Patience::No);
    }

    fn hasten_if(&self, is_meant: impl Fn(Patience) -> bool) {
        let slots = self.slots.borrow();
        for slot in slots.iter().filter(|slot| is_meant(slot.patience.get())) {
            slot.hastened.set(true);
        }
    }

    /// Queues the deadlines that have passed, and forgets those of closed connections. To be called
    /// every [`TICK`]; [`Self::wake`] then wakes them.
    pub(crate) fn check(&self, now: Instant) {
        let now_ms = self.since_start(now);
        let mut due = self.due.borrow_mut();
        let ticks = self.ticks.replace(self.ticks.get().wrapping_add(1));
        let looks = ticks.is_multiple_of(TICKS_PER_LOOK);
        self.slots.borrow_mut().retain(|slot| {
            if looks && slot.looking.get() == Looking::Later {
                slot.looking.set(Looking::Now);
            }
            if slot.is_wanted(now_ms) && !slot.queued.replace(true) {
                due.push_back(Rc::clone(slot));
            }
            Rc::strong_count(slot) > 1
        });
    }

    /// Wakes at most `wakes_max` of the queued ones, except those that have been moved since.
    /// Returns whether there may be more.
    pub(crate) fn wake(&self, now: Instant, wakes_max: usize) -> bool {
        let now_ms = self.since_start(now);
        let mut due = self.due.borrow_mut();
        let mut wakes = 0;
        while wakes < wakes_max
            && let Some(slot) = due.pop_front()
        {
            slot.queued.set(false);
            if slot.is_due(now_ms) {
                slot.pass();
                wakes += 1;
            } else if slot.looking.get() == Looking::Now {
                slot.wake();
                wakes += 1;
            }
        }
        !due.is_empty()
    }

    fn since_start(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.start))
    }
}

impl Slot {
    fn is_due(&self, now_ms: u64) -> bool {
        self.due_ms.get() <= now_ms || self.hastened.get() && self.patience.get() != Patience::No
    }

    fn is_wanted(&self, now_ms: u64) -> bool {
        self.is_due(now_ms) || self.looking.get() == Looking::Now
    }

    fn pass(&self) {
        self.hastened.set(false);
        self.due_ms.set(NEVER);
        self.passed.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Deadline {
    /// Whether its connection is between two requests, so that it may be closed at any time.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.slot.idle.set(idle);
    }

    /// Whether its waits may end before it is due, and are then taken up again.
    pub(crate) fn set_patient(&self, patient: bool) {
        let patience = match patient {
            true => Patience::Waiting,
            false => Patience::No,
        };
        self.slot.patience.set(patience);
        self.slot.hastened.set(false);
    }

    /// The same for waits while a response is relayed. What has hastened them before, still does.
    pub(crate) fn set_relaying(&self) {
        self.slot.patience.set(Patience::Relaying);
    }

    /// Whether its waits are woken every quarter of a second, for [`Self::is_time_to_look`].
    pub(crate) fn set_looking(&self, looking: bool) {
        self.slot
            .looking
            .set(if looking { Looking::Later } else { Looking::No });
    }

    /// Whether it is time to look at the connection; once each time.
    pub(crate) fn is_time_to_look(&self) -> bool {
        let is_time = self.slot.looking.get() == Looking::Now;
        if is_time {
            self.slot.looking.set(Looking::Later);
        }
        is_time
    }

    /// Moves it; `None` = never. Whatever has passed before is forgotten.
    pub(crate) fn set(&self, at: Option<Instant>) {
        // Rounded up: a deadline never passes early.
        let due = at.map_or(NEVER, |at| {
            millis(at.saturating_duration_since(self.start)).saturating_add(1)
        });
        self.slot.due_ms.set(due);
        self.slot.passed.set(false);
    }

    /// Ready once it has passed.
    pub(crate) fn poll_passed(&self, cx: &Context<'_>) -> Poll<()> {
        if self.slot.passed.get() {
            return Poll::Ready(());
        }
        let mut waker = self.slot.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_passes_once_it_is_due_and_not_before() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let deadlines = Deadlines::new(start);
        let tick = |ms| {
            deadlines.check(at(ms));
            assert!(!deadlines.wake(at(ms), 1));
        };
        let one = deadlines.make();
        let other = deadlines.make();
        let cx = Context::from_waker(Waker::noop());
        one.set(Some(at(100)));
        tick(100);
        assert!(one.poll_passed(&cx).is_pending(), "not early");
        tick(101);
        assert!(one.poll_passed(&cx).is_ready());
        assert!(other.poll_passed(&cx).is_pending());
        one.set(Some(at(300)));
        assert!(one.poll_passed(&cx).is_pending(), "moved");
        one.set(None);
        tick(1000);
        assert!(one.poll_passed(&cx).is_pending(), "never");
        drop(one);
        tick(1001);
        assert_eq!(deadlines.slots.borrow().len(), 1);
    }

    #[test]
    fn only_patient_waits_end_early() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let deadlines = Deadlines::new(start);
        let cx = Context::from_waker(Waker::noop());
        let [patient, other, late] = [(); 3].map(|()| deadlines.make());
        patient.set_patient(true);
        late.set_patient(true);
        for one in [&patient, &other, &late] {
            one.set(Some(at(5_000)));
        }
        deadlines.hasten();
        // Moving it forgets nothing; the end of the patience does.
        patient.set(Some(at(6_000)));
        late.set_patient(false);
        deadlines.check(at(20));
        assert!(!deadlines.wake(at(20), 8));
        assert!(patient.poll_passed(&cx).is_ready());
        assert!(other.poll_passed(&cx).is_pending() && late.poll_passed(&cx).is_pending());
        patient.set(Some(at(6_000)));
        deadlines.check(at(40));
        assert!(!deadlines.wake(at(40), 8));
        assert!(patient.poll_passed(&cx).is_pending(), "once");
    }

    #[test]
    fn a_connection_is_looked_at_now_and_then_without_passing() {
        let start = Instant::now();
        let deadlines = Deadlines::new(start);
        let cx = Context::from_waker(Waker::noop());
        let [looked_at, other] = [(); 2].map(|()| deadlines.make());
        looked_at.set_looking(true);
        let mut looks = 0;
        for tick in 0..10 * TICKS_PER_LOOK {
            let now = start + TICK * tick;
            deadlines.check(now);
            assert!(!deadlines.wake(now, 8));
            assert!(looked_at.poll_passed(&cx).is_pending(), "nothing is due");
            assert!(!other.is_time_to_look());
            looks += u32::from(looked_at.is_time_to_look());
            assert!(!looked_at.is_time_to_look(), "once");
        }
        assert_eq!(looks, 10);
        looked_at.set_looking(false);
        deadlines.check(start);
        assert!(!looked_at.is_time_to_look());
    }

    #[test]
    fn of_many_that_are_due_a_few_pass_at_a_time() {
        let start = Instant::now();
        let deadlines = Deadlines::new(start);
        let cx = Context::from_waker(Waker::noop());
        let many: Vec<_> = (0..20).map(|_| deadlines.make()).collect();
        for deadline in &many {
            deadline.set(Some(start));
        }
        let later = start + Duration::from_secs(1);
        let passed = || many.iter().filter(|one| one.poll_passed(&cx).is_ready());
        deadlines.check(later);
        assert!(deadlines.wake(later, 8));
        assert_eq!(passed().count(), 8);
        // A deadline that has moved meanwhile does not pass, and none is queued twice.
        many[10].set(Some(later + Duration::from_secs(1)));
        deadlines.check(later);
        assert!(deadlines.wake(later, 8));
        assert_eq!(passed().count(), 16);
        assert!(!deadlines.wake(later, 8));
        assert_eq!(passed().count(), 19);
        deadlines.check(later + Duration::from_secs(2));
        assert!(!deadlines.wake(later + Duration::from_secs(2), 8));
        assert_eq!(passed().count(), 20);
    }
}
