//! What a request takes from the limits of its key and of its policy, and what it gives back.
//!
//! A request must fit each limit of its key, and each limit of all keys of its policy together. What
//! it took from the others goes back when one refuses, so that a refusal costs nothing.
//!
//! Contract: docs/contract/access.md#5.1, docs/contract/access.md#7.2, docs/contract/access.md#7.4

use std::time::Duration;

use super::bucket::{BucketState, Micros};
use super::window::{Span, Use, WindowNumber};
use super::{Counters, Key};
use crate::config::Limits;

/// The time of a request on the two clocks of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitTime {
    /// The process's clock, for buckets.
    pub(crate) micros: Micros,
    /// Milliseconds since 1970, for windows.
    pub(crate) unix_ms: u64,
}

/// A limit by the field that sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum LimitField {
    RequestsPerMinute,
    TokensPerMinute,
    TokensPerDay,
    TokensPerMonth,
    Concurrent,
    MaxPromptTokens,
    MaxOutputTokens,
}

impl LimitField {
    /// The name of the field.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests_per_minute",
            Self::TokensPerMinute => "tokens_per_minute",
            Self::TokensPerDay => "tokens_per_day",
            Self::TokensPerMonth => "tokens_per_month",
            Self::Concurrent => "concurrent",
            Self::MaxPromptTokens => "max_prompt_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
        }
    }
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitOf {
    /// The key's.
    Key,
    /// That of all keys of the policy together.
    Policy,
}

/// What responses show of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShownLimit {
    /// The limit.
    pub(crate) limit: u64,
    /// What is left of it.
    pub(crate) left: u64,
    pub(super) full: FullAgain,
}

/// When all of a limit is there again. The time until then is not computed before it is needed: of
/// several limits one is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FullAgain {
    /// When the bucket has been refilled.
    Refilled(BucketState),
    /// At the end of the window, in milliseconds since 1970.
    At(u64),
    /// When requests end.
    Untimed,
}

impl ShownLimit {
    fn of_level(limit: u64, level: BucketState) -> Self {
        Self {
            limit,
            left: level.left(),
            full: FullAgain::Refilled(level),
        }
    }

    fn of_use(limit: u64, state: Use, span: Span) -> Self {
        Self {
            limit,
            left: limit.saturating_sub(state.used),
            full: FullAgain::At(span.end_ms(state.number)),
        }
    }

    /// The time until all of it is there again. `unix_ms` is now.
    pub(crate) fn reset(&self, unix_ms: u64) -> Duration {
        match self.full {
            FullAgain::Refilled(level) => level.full_in(),
            FullAgain::At(end_ms) => Duration::from_millis(end_ms.saturating_sub(unix_ms)),
            FullAgain::Untimed => Duration::ZERO,
        }
    }

    /// The one of which less is left; of equals the first.
    fn tighter(first: Option<Self>, second: Option<Self>) -> Option<Self> {
        match (first, second) {
            (Some(first), Some(second)) if second.left < first.left => Some(second),
            (None, second) => second,
            (first, _) => first,
        }
    }
}

/// The refusal of a request that is over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverLimit {
    /// The limit that refused.
    pub(crate) field: LimitField,
    /// Whose it is.
    pub(crate) of: LimitOf,
    /// What is shown of it. Nothing resets the limit of requests in progress.
    pub(crate) shown: ShownLimit,
    /// The time until the request would pass.
    pub(crate) wait: Duration,
}

/// One holder of limits, and what it has used.
#[derive(Debug, Clone, Copy)]
struct Meter<'k> {
    of: LimitOf,
    limits: &'k Limits,
    counters: &'k Counters,
}

/// The meters of a key: its own, and that of its policy if it has limits.
fn meters(key: &Key) -> impl DoubleEndedIterator<Item = Meter<'_>> + Clone {
    let own = Meter {
        of: LimitOf::Key,
        limits: &key.policy.fields.limits,
        counters: &key.counters,
    };
    let policy = &key.policy;
    let together = policy.counters.as_ref().map(|counters| Meter {
        of: LimitOf::Policy,
        limits: &policy.together,
        counters,
    });
    [Some(own), together].into_iter().flatten()
}

impl Meter<'_> {
    /// A request of the minute.
    fn take_request(&self, now: LimitTime) -> Result<Option<ShownLimit>, OverLimit> {
        let limit = self.limits.requests_per_minute;
        if limit == 0 {
            return Ok(None);
        }
        let taken = self.counters.requests.take(1, limit, now.micros);
        taken
            .map(|level| Some(ShownLimit::of_level(limit, level)))
            .map_err(|level| OverLimit {
                field: LimitField::RequestsPerMinute,
                of: self.of,
                shown: ShownLimit::of_level(limit, level),
                wait: level.has_in(1),
            })
    }

    /// The first limit that would refuse a request of so many tokens now; takes nothing.
    fn refuses(&self, tokens: u64, now: LimitTime) -> Option<LimitField> {
        let limits = self.limits;
        let lacks = |left: u64, wanted: u64, limit: u64| limit > 0 && left < wanted.min(limit);
        let requests = self.requests_shown(now).map_or(0, |shown| shown.left);
        if lacks(requests, 1, limits.requests_per_minute) {
            return Some(LimitField::RequestsPerMinute);
        }
        let places = limits.concurrent;
        let free = places.saturating_sub(self.counters.in_progress().into());
        if lacks(free, 1, places) {
            return Some(LimitField::Concurrent);
        }
        let minute = limits.tokens_per_minute;
        let level = self.counters.tokens.level(minute, now.micros);
        if lacks(level.left(), tokens, minute) {
            return Some(LimitField::TokensPerMinute);
        }
        let lacks_in = |span: Span, limit: u64| {
            let used = self.counters.used_in(span, now.unix_ms).used;
            lacks(limit.saturating_sub(used), tokens, limit)
        };
        if lacks_in(Span::Day, limits.tokens_per_day) {
            return Some(LimitField::TokensPerDay);
        }
        lacks_in(Span::Month, limits.tokens_per_month).then_some(LimitField::TokensPerMonth)
    }

    fn return_request(&self, now: LimitTime) {
        let limit = self.limits.requests_per_minute;
        if limit > 0 {
            self.counters.requests.correct(-1, limit, now.micros);
        }
    }

    /// A place among the requests in progress. They are counted without a limit too.
    fn take_place(&self) -> Result<(), OverLimit> {
        let limit = self.limits.concurrent;
        if self.counters.take_place(limit) {
            return Ok(());
        }
        Err(OverLimit {
            field: LimitField::Concurrent,
            of: self.of,
            shown: ShownLimit {
                limit,
                left: 0,
                full: FullAgain::Untimed,
            },
            wait: Duration::from_secs(1),
        })
    }

    /// Takes tokens from each quota, or from none.
    fn reserve(
        &self,
        tokens: u64,
        now: LimitTime,
    ) -> Result<(Taken, Option<ShownLimit>), OverLimit> {
        let Limits {
            tokens_per_minute,
            tokens_per_day,
            tokens_per_month,
            ..
        } = *self.limits;
        let mut taken = Taken::none(now);
        let mut shown = None;
        if tokens_per_minute > 0 {
            let bucket = &self.counters.tokens;
            let level = bucket.take(tokens, tokens_per_minute, now.micros);
            let level = level.map_err(|level| OverLimit {
                field: LimitField::TokensPerMinute,
                of: self.of,
                shown: ShownLimit::of_level(tokens_per_minute, level),
                wait: level.has_in(tokens),
            })?;
            taken.minute = tokens.min(tokens_per_minute);
            shown = Some(ShownLimit::of_level(tokens_per_minute, level));
        }
        for (span, limit) in [(Span::Day, tokens_per_day), (Span::Month, tokens_per_month)] {
            let part = taken.part(span);
            if limit == 0 {
                continue;
            }
            let window = (limit, part.number);
            match self.counters.take_tokens(span, tokens, window) {
                Ok(state) => {
                    *part = Part {
                        number: state.number,
                        tokens: tokens.min(limit),
                    };
                    let this = ShownLimit::of_use(limit, state, span);
                    shown = ShownLimit::tighter(shown, Some(this));
                }
                Err(state) => {
                    self.settle(&taken, 0, now);
                    let shown = ShownLimit::of_use(limit, state, span);
                    return Err(OverLimit {
                        field: match span {
                            Span::Day => LimitField::TokensPerDay,
                            Span::Month => LimitField::TokensPerMonth,
                        },
                        of: self.of,
                        shown,
                        wait: shown.reset(now.unix_ms),
                    });
                }
            }
        }
        Ok((taken, shown))
    }

    /// Corrects what was taken to what was used.
    fn settle(&self, taken: &Taken, used: u64, now: LimitTime) {
        let limit = self.limits.tokens_per_minute;
        if limit > 0 {
            let more = difference(used, taken.minute);
            self.counters.tokens.correct(more, limit, now.micros);
        }
        for (span, part) in [(Span::Day, taken.day), (Span::Month, taken.month)] {
            let more = difference(used, part.tokens);
            if more != 0 {
                self.counters.correct_tokens(span, more, part.number);
            }
        }
    }

    fn tokens_shown(&self, now: LimitTime) -> Option<ShownLimit> {
        let Limits {
            tokens_per_minute,
            tokens_per_day,
            tokens_per_month,
            ..
        } = *self.limits;
        let minute = (tokens_per_minute > 0).then(|| {
            let level = self.counters.tokens.level(tokens_per_minute, now.micros);
            ShownLimit::of_level(tokens_per_minute, level)
        });
        let window = |span: Span, limit| {
            let state = || self.counters.used_in(span, now.unix_ms);
            (limit > 0).then(|| ShownLimit::of_use(limit, state(), span))
        };
        let day = ShownLimit::tighter(minute, window(Span::Day, tokens_per_day));
        ShownLimit::tighter(day, window(Span::Month, tokens_per_month))
    }

    fn requests_shown(&self, now: LimitTime) -> Option<ShownLimit> {
        let limit = self.limits.requests_per_minute;
        let level = || self.counters.requests.level(limit, now.micros);
        (limit > 0).then(|| ShownLimit::of_level(limit, level()))
    }
}

/// Tokens that were taken from a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    /// The window in which the request was admitted.
    number: WindowNumber,
    tokens: u64,
}

/// What was taken from the quotas of one holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    minute: u64,
    day: Part,
    month: Part,
}

impl Taken {
    fn none(now: LimitTime) -> Self {
        let part = |span: Span| Part {
            number: span.number(now.unix_ms),
            tokens: 0,
        };
        Self {
            minute: 0,
            day: part(Span::Day),
            month: part(Span::Month),
        }
    }

    fn part(&mut self, span: Span) -> &mut Part {
        match span {
            Span::Day => &mut self.day,
            Span::Month => &mut self.month,
        }
    }
}

/// Tokens that are reserved for a request, until it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reservation {
    own: Taken,
    together: Option<Taken>,
}

/// Takes a request of the minute and a place among those in progress
/// (docs/contract/access.md#2, step 10). Returns what is shown of the requests of the minute.
///
/// # Errors
/// A limit is reached; nothing was taken.
pub(crate) fn enter(key: &Key, now: LimitTime) -> Result<Option<ShownLimit>, OverLimit> {
    let mut shown = None;
    for meter in meters(key) {
        match meter.take_request(now) {
            Ok(this) => shown = ShownLimit::tighter(shown, this),
            Err(over) => {
                let before = meters(key).take_while(|other| other.of != meter.of);
                before.for_each(|other| other.return_request(now));
                return Err(over);
            }
        }
    }
    for meter in meters(key) {
        if let Err(over) = meter.take_place() {
            let before = meters(key).take_while(|other| other.of != meter.of);
            before.for_each(|other| other.counters.leave_place());
            return_request(key, now);
            return Err(over);
        }
    }
    Ok(shown)
}

/// The limit of a key or of its policy that would refuse a request of so many tokens now; takes
/// nothing.
pub(crate) fn refusing(key: &Key, tokens: u64, now: LimitTime) -> Option<LimitField> {
    meters(key).find_map(|meter| meter.refuses(tokens, now))
}

/// Gives a request of the minute back: no endpoint saw it.
pub(crate) fn return_request(key: &Key, now: LimitTime) {
    meters(key).for_each(|meter| meter.return_request(now));
}

/// The request is no longer in progress.
pub(crate) fn leave(key: &Key) {
    meters(key).for_each(|meter| meter.counters.leave_place());
}

/// Reserves tokens of each quota (docs/contract/access.md#7.2). Returns what is shown of the quota
/// that has the fewest left.
///
/// # Errors
/// A quota refuses; nothing was reserved.
pub(crate) fn reserve(
    key: &Key,
    tokens: u64,
    now: LimitTime,
) -> Result<(Reservation, Option<ShownLimit>), OverLimit> {
    let mut meters = meters(key);
    let none = (Taken::none(now), None);
    let Some(meter) = meters.next() else {
        let (own, shown) = none;
        let together = None;
        return Ok((Reservation { own, together }, shown));
    };
    let (own, shown) = meter.reserve(tokens, now)?;
    let Some(policy) = meters.next() else {
        let together = None;
        return Ok((Reservation { own, together }, shown));
    };
    match policy.reserve(tokens, now) {
        Ok((taken, of_policy)) => {
            let together = Some(taken);
            let shown = ShownLimit::tighter(shown, of_policy);
            Ok((Reservation { own, together }, shown))
        }
        Err(over) => {
            meter.settle(&own, 0, now);
            Err(over)
        }
    }
}

/// Corrects a reservation to the tokens that were used.
pub(crate) fn settle(key: &Key, reservation: &Reservation, used: u64, now: LimitTime) {
    let taken = [Some(&reservation.own), reservation.together.as_ref()];
    for (meter, taken) in meters(key).zip(taken.into_iter().flatten()) {
        meter.settle(taken, used, now);
    }
}

/// What responses show of the requests of the minute, without taking one.
pub(crate) fn requests_shown(key: &Key, now: LimitTime) -> Option<ShownLimit> {
    let shown = meters(key).map(|meter| meter.requests_shown(now));
    shown.fold(None, ShownLimit::tighter)
}

/// What responses show of the quotas, without taking from them.
pub(crate) fn tokens_shown(key: &Key, now: LimitTime) -> Option<ShownLimit> {
    let shown = meters(key).map(|meter| meter.tokens_shown(now));
    shown.fold(None, ShownLimit::tighter)
}

fn difference(used: u64, taken: u64) -> i64 {
    let less = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    less(used).saturating_sub(less(taken))
}

#[cfg(test)]
mod tests;
