//! Rate limits of clients: buckets that all cores share, carried by the snapshot, and the tokens
//! that one core takes from them.
//!
//! Each kind of limit is one row of [`RULES`]. [`Limiters`] are the limits in force with their
//! buckets; [`Shards`] are one core's side of them. Whatever a response shows of a limit comes from
//! the same row as its bucket, so it never mixes two configurations.
//!
//! Contract: docs/contract/surface.md#10

mod rules;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use olla_engine::limit::{Admission, Bucket, KeyedLimiter, KeyedShard, Leased, Nanos, Rate};

use crate::access::Client;
use crate::config::RateLimitsPlan;
use crate::routing::route::Limit;
use rules::{CountedBy, HeaderNames, LimitRule, RULES};

/// The limits in force, in the order in which a request meets them.
#[derive(Debug)]
pub(crate) struct Limiters {
    cores: usize,
    limits: Vec<ActiveLimit>,
}

/// A limit in force.
#[derive(Debug, Clone)]
struct ActiveLimit {
    rule: &'static LimitRule,
    per_minute: NonZeroU32,
    rate: Rate,
    buckets: Buckets,
}

#[derive(Debug, Clone)]
enum Buckets {
    /// One bucket for all requests.
    One(Arc<Bucket>),
    /// A bucket for each client address.
    Addresses(Arc<KeyedLimiter<IpAddr>>),
}

impl Limiters {
    /// The limits that the configuration sets, with full buckets.
    pub(crate) fn new(plan: &RateLimitsPlan, cores: usize) -> Self {
        let none = Self {
            cores,
            limits: Vec::new(),
        };
        none.follow(plan)
    }

    /// The limits of another configuration. A limit with the same rate and burst keeps its buckets:
    /// a reload does not give back what clients have used. Any other limit begins with full ones.
    #[must_use]
    pub(crate) fn follow(&self, plan: &RateLimitsPlan) -> Self {
        let active = |rule: &'static LimitRule| {
            let per_minute = NonZeroU32::new((rule.per_minute)(plan))?;
            let rate = Rate::new(per_minute, (rule.burst)(plan));
            let is_same = |old: &&ActiveLimit| {
                std::ptr::eq(old.rule, rule) && old.per_minute == per_minute && old.rate == rate
            };
            let kept = self.limits.iter().find(is_same).cloned();
            Some(kept.unwrap_or_else(|| ActiveLimit {
                rule,
                per_minute,
                rate,
                buckets: Buckets::new(rule.counted_by, rate, self.cores),
            }))
        };
        Self {
            cores: self.cores,
            limits: RULES.iter().filter_map(active).collect(),
        }
    }

    /// Drops the buckets of clients that have made no request for long.
    pub(crate) fn sweep(&self, now: Nanos) {
        for limit in &self.limits {
            if let Buckets::Addresses(buckets) = &limit.buckets {
                buckets.sweep(now);
            }
        }
    }
}

impl Buckets {
    fn new(counted_by: CountedBy, rate: Rate, cores: usize) -> Self {
        match counted_by {
            CountedBy::Gateway => Self::One(Arc::new(Bucket::new(rate))),
            CountedBy::Address => Self::Addresses(Arc::new(KeyedLimiter::new(rate, cores))),
        }
    }

    fn are_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(one), Self::One(other)) => Arc::ptr_eq(one, other),
            (Self::Addresses(one), Self::Addresses(other)) => Arc::ptr_eq(one, other),
            (Self::One(_), Self::Addresses(_)) | (Self::Addresses(_), Self::One(_)) => false,
        }
    }
}

/// What a response shows of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitHeaders {
    /// The names of the headers.
    pub(crate) names: &'static HeaderNames,
    /// Requests per minute.
    pub(crate) limit: NonZeroU32,
    /// Whole tokens left in the bucket.
    pub(crate) remaining: u32,
    /// Time until the bucket is full.
    pub(crate) full_in: Duration,
}

/// The refusal of a request that is over a limit.
#[derive(Debug)]
pub(crate) struct LimitRefusal {
    /// The limit that refused.
    pub(crate) rule: &'static LimitRule,
    /// Its requests per minute.
    pub(crate) per_minute: NonZeroU32,
    /// Time until it has a whole token.
    pub(crate) retry_after: Duration,
    /// What the response shows; that may be another limit of the route.
    pub(crate) headers: Option<LimitHeaders>,
}

/// The limits on one core.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    limits: Vec<LimitShard>,
}

/// A limit on one core.
#[derive(Debug)]
struct LimitShard {
    limit: ActiveLimit,
    tokens: Tokens,
}

#[derive(Debug)]
enum Tokens {
    One(Leased),
    Addresses(KeyedShard<IpAddr>),
}

impl Shards {
    /// Follows the limits of a newer snapshot. A limit that kept its buckets keeps the tokens that
    /// this core has leased; of the others they go back.
    pub(crate) fn follow(&mut self, limiters: &Limiters) {
        let mut old = std::mem::take(&mut self.limits);
        let shard = |limit: &ActiveLimit| {
            let is_same = |old: &LimitShard| old.limit.buckets.are_same(&limit.buckets);
            match old.iter().position(is_same) {
                Some(place) => old.swap_remove(place),
                None => LimitShard::new(limit.clone(), limiters.cores),
            }
        };
        self.limits = limiters.limits.iter().map(shard).collect();
    }

    /// Takes a token from each limit of the route, in order; returns what the response shows of
    /// them.
    ///
    /// # Errors
    /// A limit has no token. Then the request takes none from any limit
    /// (docs/contract/surface.md#10.2).
    pub(crate) fn admit(
        &mut self,
        route: Limit,
        client: Client,
        now: Nanos,
    ) -> Result<Option<LimitHeaders>, LimitRefusal> {
        let mut headers = None;
        for (place, shard) in self.limits.iter_mut().enumerate() {
            if shard.limit.rule.route != route {
                continue;
            }
            match shard.take(client, now) {
                Ok(shown) => headers = shown.or(headers),
                Err(retry_after) => {
                    let (rule, per_minute) = (shard.limit.rule, shard.limit.per_minute);
                    return Err(LimitRefusal {
                        rule,
                        per_minute,
                        retry_after,
                        headers: self.refused_at(place, client, now),
                    });
                }
            }
        }
        Ok(headers)
    }

    /// Gives the tokens back that were taken from the limits before the one that refused. Returns
    /// what the response shows, in which nothing remains (docs/contract/surface.md#10.4).
    fn refused_at(&mut self, place: usize, client: Client, now: Nanos) -> Option<LimitHeaders> {
        let route = self.limits.get(place)?.limit.rule.route;
        let on_route = |(_, shard): &(usize, &mut LimitShard)| shard.limit.rule.route == route;
        let mut headers = None;
        for (at, shard) in self.limits.iter_mut().enumerate().filter(on_route) {
            if at < place {
                shard.give_back(client);
            }
            headers = shard.headers_of_refused(client, now).or(headers);
        }
        headers
    }

    /// Gives expired leases back; to be called every 50 to 100 ms.
    pub(crate) fn tick(&mut self, now: Nanos) {
        for shard in &mut self.limits {
            match &mut shard.tokens {
                Tokens::One(tokens) => tokens.tick(now),
                Tokens::Addresses(tokens) => tokens.tick(now),
            }
        }
    }
}

impl LimitShard {
    fn new(limit: ActiveLimit, cores: usize) -> Self {
        let tokens = match &limit.buckets {
            Buckets::One(bucket) => Tokens::One(Leased::new(Arc::clone(bucket), cores)),
            Buckets::Addresses(buckets) => Tokens::Addresses(KeyedShard::new(Arc::clone(buckets))),
        };
        Self { limit, tokens }
    }

    /// Takes a token. Without one, the error is the time until there is one.
    fn take(&mut self, client: Client, now: Nanos) -> Result<Option<LimitHeaders>, Duration> {
        let names = self.limit.rule.headers;
        let admission = match &mut self.tokens {
            // What is left in the bucket is only computed where it is shown.
            Tokens::One(tokens) if names.is_none() => match tokens.refuses(now) {
                Some(refused) => refused,
                None => return Ok(None),
            },
            Tokens::One(tokens) => tokens.take(now),
            Tokens::Addresses(tokens) => tokens.take(client.limited_as(), now),
        };
        if admission.admitted {
            Ok(names.map(|names| self.headers(names, &admission)))
        } else {
            Err(admission.retry_after)
        }
    }

    /// Undoes a `take` that admitted.
    fn give_back(&mut self, client: Client) {
        match &mut self.tokens {
            Tokens::One(tokens) => tokens.give_back(),
            Tokens::Addresses(tokens) => tokens.give_back(client.limited_as()),
        }
    }

    fn headers_of_refused(&self, client: Client, now: Nanos) -> Option<LimitHeaders> {
        let names = self.limit.rule.headers?;
        let state = match &self.tokens {
            Tokens::One(tokens) => tokens.peek(now),
            Tokens::Addresses(tokens) => tokens.peek(client.limited_as(), now),
        };
        Some(LimitHeaders {
            remaining: 0,
            ..self.headers(names, &state)
        })
    }

    fn headers(&self, names: &'static HeaderNames, state: &Admission) -> LimitHeaders {
        LimitHeaders {
            names,
            limit: self.limit.per_minute,
            remaining: state.remaining,
            full_in: state.full_at,
        }
    }
}
