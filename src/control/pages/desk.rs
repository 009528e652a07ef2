//! Which renderings are wanted, by whom, and for how long a finished one is kept.
//!
//! It renders nothing and reads no clock: the thread in `mod.rs` does both.
//!
//! Contract: docs/contract/surface.md#10.1

use std::time::{Duration, Instant};

use crate::shared::{PageAsk, Rendering, WantedPage};

/// The longest time that a finished rendering serves further requests.
const KEPT_MAX: Duration = Duration::from_millis(100);

/// The shortest, which bounds how often the cores are asked for their counts.
const KEPT_MIN: Duration = Duration::from_millis(2);

/// A rendering is kept for this many times the time that it took: readers of pages load the thread
/// to a twentieth at most, and a page that is made in no time shows what has just happened.
const KEPT_TIMES: u32 = 20;

/// Renderings that are waiting or kept. Requests for another one are refused.
const RENDERINGS_MAX: usize = 128;

/// Requests that wait for renderings. Another one is refused.
const WAITING_MAX: usize = 2048;

/// Bytes of the renderings that are kept for further requests. Beyond that the oldest are dropped.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// The renderings in their order of arrival.
#[derive(Debug, Default)]
pub(super) struct Desk {
    jobs: Vec<Job>,
}

#[derive(Debug)]
struct Job {
    wanted: WantedPage,
    asks: Vec<PageAsk>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// It waits for the counts of some cores, at most until this time.
    Counting {
        round: u64,
        missing: usize,
        until: Instant,
    },
    /// It can be rendered.
    Ready,
    /// It is rendered and kept until this time.
    Kept {
        rendering: Rendering,
        bytes: usize,
        until: Instant,
    },
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Asked {
    /// A kept rendering is its response.
    Kept(Rendering),
    /// It waits for a rendering that another request caused.
    Joined,
    /// It waits for a new rendering.
    Begun,
    /// There is no room for it.
    Refused,
}

impl Desk {
    /// Takes a request. If it begins a new rendering that needs the counts of the cores, `count`
    /// requests them and returns the number of the collection, of missing cores, and the time until
    /// which they are awaited.
    pub(super) fn ask(
        &mut self,
        wanted: WantedPage,
        ask: PageAsk,
        now: Instant,
        count: impl FnOnce(&WantedPage) -> Option<(u64, usize, Instant)>,
    ) -> Asked {
        self.expire(now);
        let has_room = self.waiting() < WAITING_MAX;
        if let Some(job) = self.jobs.iter_mut().find(|job| job.wanted == wanted) {
            if let State::Kept { rendering, .. } = &job.state {
                return Asked::Kept(rendering.clone());
            }
            if !has_room {
                return Asked::Refused;
            }
            job.asks.push(ask);
            return Asked::Joined;
        }
        if !has_room || self.jobs.len() >= RENDERINGS_MAX {
            return Asked::Refused;
        }
        let state = match count(&wanted) {
            Some((round, missing, until)) if missing > 0 => State::Counting {
                round,
                missing,
                until,
            },
            _ => State::Ready,
        };
        self.jobs.push(Job {
            wanted,
            asks: vec![ask],
            state,
        });
        Asked::Begun
    }

    /// A core has sent its counts for a collection.
    pub(super) fn counted(&mut self, flushed: u64) {
        for job in &mut self.jobs {
            if let State::Counting { round, missing, .. } = &mut job.state
                && *round == flushed
            {
                *missing = missing.saturating_sub(1);
                if *missing == 0 {
                    job.state = State::Ready;
                }
            }
        }
    }

    /// The next rendering to make. Renderings whose clients have all left are dropped.
    pub(super) fn next(&mut self, now: Instant) -> Option<WantedPage> {
        self.expire(now);
        let ready = |job: &&Job| matches!(job.state, State::Ready);
        self.jobs.iter().find(ready).map(|job| job.wanted.clone())
    }

    /// Keeps a rendering that took this long to make; returns the requests that it is for. A refusal is not kept.
    pub(super) fn finish(
        &mut self,
        wanted: &WantedPage,
        rendering: &Rendering,
        (took, now): (Duration, Instant),
    ) -> Vec<PageAsk> {
        let found = self.jobs.iter().position(|job| job.wanted == *wanted);
        let Some(mut job) = found.map(|at| self.jobs.remove(at)) else {
            return Vec::new();
        };
        let asks = std::mem::take(&mut job.asks);
        if !matches!(rendering, Rendering::Overloaded) {
            job.state = State::Kept {
                rendering: rendering.clone(),
                bytes: bytes_of(rendering),
                until: now + took.saturating_mul(KEPT_TIMES).clamp(KEPT_MIN, KEPT_MAX),
            };
            self.jobs.push(job);
            self.bound_kept();
        }
        asks
    }

    /// When a kept rendering expires or counts are no longer awaited, whichever is first.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let times = self.jobs.iter().filter_map(|job| match job.state {
            State::Counting { until, .. } | State::Kept { until, .. } => Some(until),
            State::Ready => None,
        });
        times.min()
    }

    fn expire(&mut self, now: Instant) {
        for job in &mut self.jobs {
            if matches!(job.state, State::Counting { until, .. } if until <= now) {
                job.state = State::Ready;
            }
            job.asks.retain(PageAsk::is_open);
        }
        self.jobs.retain(|job| match &job.state {
            State::Kept { until, .. } => now < *until,
            State::Ready | State::Counting { .. } => !job.asks.is_empty(),
        });
    }

    fn bound_kept(&mut self) {
        let mut room = KEPT_BYTES_MAX;
        // The newest are last and find room first.
        let mut fits: Vec<bool> = Vec::with_capacity(self.jobs.len());
        for job in self.jobs.iter().rev() {
            fits.push(match &job.state {
                State::Kept { bytes, .. } => {
                    let fitting = *bytes <= room;
                    room = room.saturating_sub(*bytes);
                    fitting
                }
                State::Ready | State::Counting { .. } => true,
            });
        }
        self.jobs.retain(|_| fits.pop().unwrap_or(true));
    }

    fn waiting(&self) -> usize {
        self.jobs.iter().map(|job| job.asks.len()).sum()
    }
}

/// Bytes of a rendering's body.
pub(super) fn bytes_of(rendering: &Rendering) -> usize {
    match rendering {
        Rendering::Page(page) => page.body().len(),
        Rendering::Listing(Ok(body)) | Rendering::Own(Ok(body)) => body.len(),
        Rendering::Listing(Err(_)) | Rendering::Own(Err(_)) | Rendering::Overloaded => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::shared::ReplyTo;

    /// The time that a rendering took which is kept as long as possible.
    const SLOW: Duration = KEPT_MAX;

    fn models(query: &str) -> WantedPage {
        WantedPage::Models(query.to_owned())
    }

    fn ask(ticket: u64, open: &Arc<()>) -> PageAsk {
        PageAsk {
            reply_to: ReplyTo { core: 0, ticket },
            open: Arc::downgrade(open),
        }
    }

    fn body(bytes: usize) -> Rendering {
        Rendering::Listing(Ok(Bytes::from(vec![b'x'; bytes])))
    }

    fn tickets(asks: &[PageAsk]) -> Vec<u64> {
        asks.iter().map(|ask| ask.reply_to.ticket).collect()
    }

    const NO_COUNTS: fn(&WantedPage) -> Option<(u64, usize, Instant)> = |_| None;

    #[test]
    fn one_rendering_serves_all_who_ask_and_is_kept() {
        let (mut desk, open, t) = (Desk::default(), Arc::new(()), Instant::now());
        assert!(matches!(
            desk.ask(models(""), ask(1, &open), t, NO_COUNTS),
            Asked::Begun
        ));
        for ticket in 2..=200 {
            let asked = desk.ask(models(""), ask(ticket, &open), t, NO_COUNTS);
            assert!(matches!(asked, Asked::Joined));
        }
        assert_eq!(desk.next(t), Some(models("")));
        let asks = desk.finish(&models(""), &body(3), (SLOW, t));
        assert_eq!(tickets(&asks), (1..=200).collect::<Vec<_>>());
        assert_eq!(desk.next(t), None);
        let late = t + KEPT_MAX - Duration::from_millis(1);
        assert!(matches!(
            desk.ask(models(""), ask(201, &open), late, NO_COUNTS),
            Asked::Kept(_)
        ));
        assert_eq!(desk.wakes_at(), Some(t + KEPT_MAX));
        let after = desk.ask(models(""), ask(202, &open), t + KEPT_MAX, NO_COUNTS);
        assert!(matches!(after, Asked::Begun));
    }

    #[test]
    fn renderings_take_turns() {
        let (mut desk, open, t) = (Desk::default(), Arc::new(()), Instant::now());
        for (ticket, query) in [(1, "a"), (2, "b"), (3, "a")] {
            desk.ask(models(query), ask(ticket, &open), t, NO_COUNTS);
        }
        assert_eq!(desk.next(t), Some(models("a")));
        desk.finish(&models("a"), &body(1), (SLOW, t));
        assert_eq!(desk.next(t), Some(models("b")));
        assert_eq!(
            tickets(&desk.finish(&models("b"), &body(1), (SLOW, t))),
            [2]
        );
    }

    #[test]
    fn counts_are_awaited_for_a_while() {
        let (mut desk, open, t) = (Desk::default(), Arc::new(()), Instant::now());
        let until = t + Duration::from_millis(30);
        for (ticket, query, round, missing) in [(1, "a", 7, 2), (2, "b", 8, 2), (3, "c", 9, 0)] {
            let count = |_: &WantedPage| Some((round, missing, until));
            desk.ask(models(query), ask(ticket, &open), t, count);
        }
        assert_eq!(desk.next(t), Some(models("c")), "no core to wait for");
        desk.finish(&models("c"), &body(1), (SLOW, t));
        desk.counted(7);
        assert_eq!(desk.next(t), None);
        assert_eq!(desk.wakes_at(), Some(until));
        desk.counted(7);
        assert_eq!(desk.next(t), Some(models("a")));
        desk.finish(&models("a"), &body(1), (SLOW, t));
        desk.counted(8);
        assert_eq!(
            desk.next(until),
            Some(models("b")),
            "one core did not answer"
        );
    }

    #[test]
    fn nothing_is_rendered_or_kept_for_clients_that_left() {
        let (mut desk, t) = (Desk::default(), Instant::now());
        let (one, other) = (Arc::new(()), Arc::new(()));
        desk.ask(models("a"), ask(1, &one), t, NO_COUNTS);
        desk.ask(models("b"), ask(2, &one), t, NO_COUNTS);
        desk.ask(models("b"), ask(3, &other), t, NO_COUNTS);
        drop(one);
        assert_eq!(desk.next(t), Some(models("b")));
        assert_eq!(
            tickets(&desk.finish(&models("b"), &body(1), (SLOW, t))),
            [3]
        );
        assert_eq!(desk.jobs.len(), 1, "what is kept for further requests");
        desk.expire(t + KEPT_MAX);
        assert!(desk.jobs.is_empty());
    }

    #[test]
    fn everything_has_a_bound() {
        let (mut desk, open, t) = (Desk::default(), Arc::new(()), Instant::now());
        for n in 0..RENDERINGS_MAX {
            desk.ask(models(&n.to_string()), ask(0, &open), t, NO_COUNTS);
        }
        let another = desk.ask(models("another"), ask(0, &open), t, NO_COUNTS);
        assert!(matches!(another, Asked::Refused));
        for _ in RENDERINGS_MAX..WAITING_MAX {
            let joined = desk.ask(models("7"), ask(0, &open), t, NO_COUNTS);
            assert!(matches!(joined, Asked::Joined));
        }
        let joined = desk.ask(models("7"), ask(0, &open), t, NO_COUNTS);
        assert!(matches!(joined, Asked::Refused));
        for n in 0..5 {
            desk.finish(
                &models(&n.to_string()),
                &body(KEPT_BYTES_MAX / 4),
                (SLOW, t),
            );
        }
        let kept = |desk: &mut Desk, n: usize| {
            let asked = desk.ask(models(&n.to_string()), ask(0, &open), t, NO_COUNTS);
            matches!(asked, Asked::Kept(_))
        };
        assert_eq!([1, 2, 3, 4].map(|n| kept(&mut desk, n)), [true; 4]);
        assert_eq!(
            desk.jobs.len(),
            RENDERINGS_MAX - 1,
            "the oldest was dropped"
        );
        desk.finish(&models("9"), &Rendering::Overloaded, (SLOW, t));
        assert!(!kept(&mut desk, 9), "a refusal is not kept");
    }

    #[test]
    fn what_is_made_in_no_time_is_kept_for_a_moment_only() {
        let table = [(0, 2), (50, 2), (1_000, 20), (5_000, 100), (90_000, 100)];
        for (took_us, kept_ms) in table {
            let (mut desk, t, open) = (Desk::default(), Instant::now(), Arc::new(()));
            desk.ask(models(""), ask(1, &open), t, NO_COUNTS);
            desk.finish(&models(""), &body(3), (Duration::from_micros(took_us), t));
            let until = t + Duration::from_millis(kept_ms);
            assert_eq!(desk.wakes_at(), Some(until), "{took_us}");
        }
    }
}
