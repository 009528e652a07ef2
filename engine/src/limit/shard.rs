//! What a core asks for each request.

use std::net::IpAddr;
use std::time::Duration;

use super::clients::KeyedShard;
use super::lease::Leased;
use super::{Admission, Nanos};

/// The limits of one kind of route on one core; either may be off.
#[derive(Debug, Default)]
pub struct Shard {
    /// The limit of all requests together.
    pub global: Option<Leased>,
    /// The limit of each client.
    pub clients: Option<KeyedShard>,
}

/// Which limit refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refuser {
    /// That of all requests together.
    Global,
    /// The client's own.
    Client,
}

/// A refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// The limit that refused.
    pub by: Refuser,
    /// Until that limit has a whole token again.
    pub retry_after: Duration,
}

/// The answer to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// `None` = admitted.
    pub refusal: Option<Exceeded>,
    /// The client's bucket, for the headers: `None` where clients are not limited. After a refusal
    /// nothing remains (docs/contract/surface.md#10.4), even if it was the global limit that
    /// refused.
    pub client: Option<Admission>,
}

impl Shard {
    /// Asks the global limit, then the client's (docs/contract/surface.md#14). A refused request
    /// takes no token from either (docs/contract/surface.md#10.2): a client that is refused gives
    /// the global token back, and one that the global limit refuses is not asked for its own.
    pub fn admit(&mut self, client: IpAddr, now: Nanos) -> Decision {
        if let Some(refused) = self.global.as_mut().and_then(|global| global.refuses(now)) {
            let refusal = Exceeded {
                by: Refuser::Global,
                retry_after: refused.retry_after,
            };
            let state = self
                .clients
                .as_ref()
                .map(|clients| clients.peek(client, now));
            let client = state.map(|state| Admission {
                admitted: false,
                remaining: 0,
                ..state
            });
            return Decision {
                refusal: Some(refusal),
                client,
            };
        }
        let Some(clients) = &mut self.clients else {
            return Decision {
                refusal: None,
                client: None,
            };
        };
        let admission = clients.take(client, now);
        let refusal = (!admission.admitted).then(|| {
            if let Some(global) = &mut self.global {
                global.give_back();
            }
            Exceeded {
                by: Refuser::Client,
                retry_after: admission.retry_after,
            }
        });
        Decision {
            refusal,
            client: Some(admission),
        }
    }

    /// Undoes an [`Shard::admit`] that admitted.
    pub fn give_back(&mut self, client: IpAddr) {
        if let Some(global) = &mut self.global {
            global.give_back();
        }
        if let Some(clients) = &mut self.clients {
            clients.give_back(client);
        }
    }

    /// Gives expired tokens back; to be called every 50-100 ms.
    pub fn tick(&mut self, now: Nanos) {
        if let Some(global) = &mut self.global {
            global.tick(now);
        }
        if let Some(clients) = &mut self.clients {
            clients.tick(now);
        }
    }
}
