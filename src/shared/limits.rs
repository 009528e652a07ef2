//! The rate limits: buckets that all cores share, and one core's leases of them.
//!
//! Contract: docs/contract/surface.md#10

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use olla_engine::limit::{Bucket, Epoch, KeyedLimiter, KeyedShard, Leased, Rate, Shard};

use crate::config::RateLimitsPlan;

/// The limits that all cores share.
#[derive(Debug)]
pub struct Limiters {
    epoch: Epoch,
    cores: usize,
    global: Option<Arc<Bucket>>,
    clients: Option<Arc<KeyedLimiter>>,
    health: Option<Arc<KeyedLimiter>>,
}

impl Limiters {
    /// As the configuration says, all buckets full.
    pub fn new(plan: &RateLimitsPlan, cores: usize, now: Instant) -> Self {
        let rate = |per_minute: u32| {
            NonZeroU32::new(per_minute).map(|rate| Rate::new(rate, plan.burst_size))
        };
        let keyed =
            |per_minute: u32| rate(per_minute).map(|rate| Arc::new(KeyedLimiter::new(rate, cores)));
        Self {
            epoch: Epoch::new(now),
            cores,
            global: rate(plan.global_requests_per_minute).map(|rate| Arc::new(Bucket::new(rate))),
            clients: keyed(plan.per_ip_requests_per_minute),
            health: keyed(plan.health_requests_per_minute),
        }
    }

    /// One core's view.
    pub(crate) fn shards(&self) -> Shards {
        let keyed = |limiter: &Option<Arc<KeyedLimiter>>| {
            limiter
                .as_ref()
                .map(|limiter| KeyedShard::new(Arc::clone(limiter)))
        };
        let global = self
            .global
            .as_ref()
            .map(|bucket| Leased::new(Arc::clone(bucket), self.cores));
        Shards {
            epoch: self.epoch,
            proxied: Shard {
                global,
                clients: keyed(&self.clients),
            },
            health: Shard {
                global: None,
                clients: keyed(&self.health),
            },
        }
    }

    /// Forgets clients that have not been seen for long.
    pub fn sweep(&self, now: Instant) {
        let now = self.epoch.nanos(now);
        for limiter in [&self.clients, &self.health].into_iter().flatten() {
            limiter.sweep(now);
        }
    }
}

/// The limits of one core.
#[derive(Debug)]
pub(crate) struct Shards {
    pub(crate) epoch: Epoch,
    pub(crate) proxied: Shard,
    pub(crate) health: Shard,
}
