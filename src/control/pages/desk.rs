//! Which renderings are wanted, by whom, and for how long a finished one is kept.
//!
//! It renders nothing and reads no clock: the thread in `mod.rs` does both.
//!
//! Contract: docs/contract/surface.md#10.1

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::unread::{Class, Counted, PART_OF_A_CLIENT};
use crate::shared::{PageAsk, Rendering, WantedPage};

/// The longest time that a finished rendering serves further requests.
const KEPT_MAX: Duration = Duration::from_millis(100);

/// The shortest, which bounds how often the cores are asked for their counts.
const KEPT_MIN: Duration = Duration::from_millis(2);

/// A rendering is kept for this many times the processor time that it took: readers of pages load the
/// thread to a twentieth at most, and a page that is made in no time shows what has just happened, on
/// a busy machine too.
const KEPT_TIMES: u32 = 20;

/// Renderings that are waiting or kept. For another one the oldest that is kept is dropped; if all are
/// waiting, it is refused. A part of them may wait for one client.
const RENDERINGS_MAX: usize = 128;

/// Requests that wait for renderings, a part of them of one client. Another one is refused.
const WAITING_MAX: usize = 2048;

/// Renderings and requests beyond these for what is more than a listing. There are fewer different
/// ones of these pages.
const RENDERINGS_RESERVED: usize = 32;
const WAITING_RESERVED: usize = 512;

/// Bytes of the renderings that are kept for further requests. Beyond that the oldest are dropped.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// The renderings in their order of arrival.
#[derive(Debug, Default)]
pub(super) struct Desk {
    jobs: Vec<Job>,
    /// The turn of the last rendering that was begun.
    turn: u64,
}

#[derive(Debug)]
struct Job {
    wanted: WantedPage,
    /// The client that was the first to ask.
    owner: IpAddr,
    /// When it is made, among those of its class: each client has one rendering in each turn.
    turn: u64,
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
    Kept { rendering: Counted, until: Instant },
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
        let class = Class::of(&wanted);
        let has_room = self.has_room(class, ask.client);
        if let Some(job) = self.jobs.iter_mut().find(|job| job.wanted == wanted) {
            if let State::Kept { rendering, .. } = &mut job.state {
                return Asked::Kept(rendering.for_client(ask.client));
            }
            if !has_room {
                return Asked::Refused;
            }
            job.asks.push(ask);
            return Asked::Joined;
        }
        if !has_room || !self.make_room(class, ask.client) {
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
            owner: ask.client,
            turn: self.turn_of(ask.client),
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
        let ready = self.jobs.iter();
        let ready = ready.filter(|job| matches!(job.state, State::Ready));
        let job = ready.min_by_key(|job| (Class::of(&job.wanted), job.turn))?;
        self.turn = self.turn.max(job.turn);
        Some(job.wanted.clone())
    }

    /// The requests that a rendering is for. It is kept or dropped next.
    pub(super) fn take_asks(&mut self, wanted: &WantedPage) -> Vec<PageAsk> {
        let mut jobs = self.jobs.iter_mut();
        let job = jobs.find(|job| job.wanted == *wanted);
        job.map_or_else(Vec::new, |job| std::mem::take(&mut job.asks))
    }

    /// Does not make a rendering.
    pub(super) fn give_up(&mut self, wanted: &WantedPage) {
        self.jobs.retain(|job| job.wanted != *wanted);
    }

    /// Keeps a rendering that took this much processor time to make.
    pub(super) fn keep(
        &mut self,
        wanted: &WantedPage,
        rendering: Counted,
        (took, now): (Duration, Instant),
    ) {
        let found = self.jobs.iter().position(|job| job.wanted == *wanted);
        let Some(mut job) = found.map(|at| self.jobs.remove(at)) else {
            return;
        };
        job.state = State::Kept {
            rendering,
            until: now + took.saturating_mul(KEPT_TIMES).clamp(KEPT_MIN, KEPT_MAX),
        };
        self.jobs.push(job);
        self.bound_kept();
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
                State::Kept { rendering, .. } => {
                    let fitting = rendering.len() <= room;
                    room = room.saturating_sub(rendering.len());
                    fitting
                }
                State::Ready | State::Counting { .. } => true,
            });
        }
        self.jobs.retain(|_| fits.pop().unwrap_or(true));
    }

    /// Whether another request may wait.
    fn has_room(&self, class: Class, client: IpAddr) -> bool {
        let max = match class {
            Class::Listing => WAITING_MAX,
            Class::Vital | Class::Figures => WAITING_MAX + WAITING_RESERVED,
        };
        let (mut all, mut own) = (0, 0);
        for ask in self.jobs.iter().flat_map(|job| &job.asks) {
            all += 1;
            own += usize::from(ask.client == client);
        }
        all < max && own < max / PART_OF_A_CLIENT
    }

    /// Whether there is room for another rendering. The oldest that is kept makes way.
    fn make_room(&mut self, class: Class, client: IpAddr) -> bool {
        let max = match class {
            Class::Listing
                if self.wait_for(client).count() >= RENDERINGS_MAX / PART_OF_A_CLIENT =>
            {
                return false;
            }
            Class::Listing => RENDERINGS_MAX,
            Class::Vital | Class::Figures => RENDERINGS_MAX + RENDERINGS_RESERVED,
        };
        if self.jobs.len() < max {
            return true;
        }
        let mut jobs = self.jobs.iter();
        let oldest = jobs.position(|job| matches!(job.state, State::Kept { .. }));
        oldest.map(|at| self.jobs.remove(at)).is_some()
    }

    /// The turn of another rendering for a client.
    fn turn_of(&self, client: IpAddr) -> u64 {
        let last = self.wait_for(client).map(|job| job.turn).max();
        last.map_or(self.turn, |last| last.max(self.turn)) + 1
    }

    /// The renderings that are waiting for a client that was the first to ask for them.
    fn wait_for(&self, client: IpAddr) -> impl Iterator<Item = &Job> {
        let waiting = |job: &&Job| !matches!(job.state, State::Kept { .. });
        let jobs = self.jobs.iter().filter(waiting);
        jobs.filter(move |job| job.owner == client)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::control::pages::unread::Unread;
    use crate::operations::Route;
    use crate::shared::ReplyTo;

    /// The time that a rendering took which is kept as long as possible.
    const SLOW: Duration = KEPT_MAX;

    fn models(query: &str) -> WantedPage {
        WantedPage::Models(query.to_owned())
    }

    fn client(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn ask(ticket: u64, open: &Arc<()>) -> PageAsk {
        ask_of(client(1), ticket, open)
    }

    fn ask_of(client: IpAddr, ticket: u64, open: &Arc<()>) -> PageAsk {
        PageAsk {
            reply_to: ReplyTo { core: 0, ticket },
            open: Arc::downgrade(open),
            client,
        }
    }

    fn finish(
        desk: &mut Desk,
        wanted: &WantedPage,
        bytes: usize,
        times: (Duration, Instant),
    ) -> Vec<PageAsk> {
        let asks = desk.take_asks(wanted);
        desk.keep(wanted, Unread::default().count(body(bytes)), times);
        asks
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
        let asks = finish(&mut desk, &models(""), 3, (SLOW, t));
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
        finish(&mut desk, &models("a"), 1, (SLOW, t));
        assert_eq!(desk.next(t), Some(models("b")));
        assert_eq!(tickets(&finish(&mut desk, &models("b"), 1, (SLOW, t))), [2]);
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
        finish(&mut desk, &models("c"), 1, (SLOW, t));
        desk.counted(7);
        assert_eq!(desk.next(t), None);
        assert_eq!(desk.wakes_at(), Some(until));
        desk.counted(7);
        assert_eq!(desk.next(t), Some(models("a")));
        finish(&mut desk, &models("a"), 1, (SLOW, t));
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
        assert_eq!(tickets(&finish(&mut desk, &models("b"), 1, (SLOW, t))), [3]);
        assert_eq!(desk.jobs.len(), 1, "what is kept for further requests");
        desk.expire(t + KEPT_MAX);
        assert!(desk.jobs.is_empty());
    }

    #[test]
    fn everything_has_a_bound() {
        let (mut desk, open, t) = (Desk::default(), Arc::new(()), Instant::now());
        let of_a_client = RENDERINGS_MAX / PART_OF_A_CLIENT;
        let mut begin = |n: usize, last: u8| {
            let ask = ask_of(client(last), 0, &open);
            desk.ask(models(&n.to_string()), ask, t, NO_COUNTS)
        };
        for n in 0..RENDERINGS_MAX {
            let last = u8::try_from(n / of_a_client).unwrap();
            assert!(matches!(begin(n, last), Asked::Begun), "{n}");
        }
        assert!(matches!(begin(RENDERINGS_MAX, 9), Asked::Refused));
        let join = |desk: &mut Desk, last: u8| {
            let ask = ask_of(client(last), 0, &open);
            matches!(desk.ask(models("7"), ask, t, NO_COUNTS), Asked::Joined)
        };
        for n in RENDERINGS_MAX..WAITING_MAX {
            let last = u8::try_from(n % 8).unwrap();
            assert!(join(&mut desk, last), "{n}");
        }
        assert!(!join(&mut desk, 9));
        for n in 0..5 {
            let wanted = models(&n.to_string());
            finish(&mut desk, &wanted, KEPT_BYTES_MAX / 4, (SLOW, t));
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
        desk.give_up(&models("9"));
        assert!(!kept(&mut desk, 9), "what was given up is not kept");
    }

    #[test]
    fn one_client_has_a_part_of_everything() {
        let (mut desk, open, t) = (Desk::default(), Arc::new(()), Instant::now());
        let mut begun = 0;
        while matches!(
            desk.ask(models(&begun.to_string()), ask(0, &open), t, NO_COUNTS),
            Asked::Begun
        ) {
            begun += 1;
        }
        assert_eq!(begun, RENDERINGS_MAX / PART_OF_A_CLIENT);
        let mut waiting = begun;
        while matches!(
            desk.ask(models("7"), ask(0, &open), t, NO_COUNTS),
            Asked::Joined
        ) {
            waiting += 1;
        }
        assert_eq!(waiting, WAITING_MAX / PART_OF_A_CLIENT);
        let other = ask_of(client(2), 0, &open);
        let asked = desk.ask(models("of another"), other, t, NO_COUNTS);
        assert!(matches!(asked, Asked::Begun));
        // The other client waits for one rendering of the first.
        assert_eq!(desk.next(t), Some(models("0")));
        finish(&mut desk, &models("0"), 1, (SLOW, t));
        assert_eq!(desk.next(t), Some(models("of another")));
    }

    #[test]
    fn readiness_does_not_wait_for_listings() {
        let (mut desk, open, t) = (Desk::default(), Arc::new(()), Instant::now());
        for n in 0..RENDERINGS_MAX {
            let last = u8::try_from(n % 8).unwrap();
            let ask = ask_of(client(last), 0, &open);
            desk.ask(models(&n.to_string()), ask, t, NO_COUNTS);
        }
        let ready = || WantedPage::Page {
            route: Route::Ready,
            query: String::new(),
            gzip: false,
        };
        assert!(matches!(
            desk.ask(ready(), ask(1, &open), t, NO_COUNTS),
            Asked::Begun
        ));
        assert_eq!(desk.next(t), Some(ready()));
    }

    #[test]
    fn what_is_kept_makes_way_for_what_is_wanted() {
        let (mut desk, open, t) = (Desk::default(), Arc::new(()), Instant::now());
        for n in 0..=RENDERINGS_MAX {
            let wanted = models(&n.to_string());
            let asked = desk.ask(wanted.clone(), ask(0, &open), t, NO_COUNTS);
            assert!(matches!(asked, Asked::Begun), "{n}");
            finish(&mut desk, &wanted, 1, (SLOW, t));
        }
        assert_eq!(desk.jobs.len(), RENDERINGS_MAX);
    }

    #[test]
    fn what_is_made_in_no_time_is_kept_for_a_moment_only() {
        let table = [(0, 2), (50, 2), (1_000, 20), (5_000, 100), (90_000, 100)];
        for (took_us, kept_ms) in table {
            let (mut desk, t, open) = (Desk::default(), Instant::now(), Arc::new(()));
            desk.ask(models(""), ask(1, &open), t, NO_COUNTS);
            finish(
                &mut desk,
                &models(""),
                3,
                (Duration::from_micros(took_us), t),
            );
            let until = t + Duration::from_millis(kept_ms);
            assert_eq!(desk.wakes_at(), Some(until), "{took_us}");
        }
    }
}
