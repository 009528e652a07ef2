//! The channel to the pages thread, which renders pages and listings, and what it sends back.
//!
//! A rendering belongs to all requests that want the same at the same time, so its bytes are shared.
//!
//! Contract: docs/contract/surface.md#10.1

use std::net::IpAddr;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use olla_engine::rt::Exhausted;

use super::reply::ReplyTo;
use crate::catalogue::{CatalogueError, Lens, Scoped};
use crate::dialects::{DialectRoute, Error};
use crate::operations;
use crate::operations::conditional::RenderedPage;
use crate::operations::stats::Delta;
use crate::state::AdminReply;

/// Requests in the queue to the pages thread. A request that finds it full is refused.
const ASKS_MAX: usize = 1024;

/// Counts and events in the queue to the pages thread; not shared with requests, so that no client
/// can displace them.
const EVENTS_MAX: usize = 4096;

/// What a client wants to see. Requests that want the same share one rendering.
#[derive(Debug, Clone)]
pub(crate) enum WantedPage {
    /// An internal page.
    Page {
        /// The page.
        route: operations::Route,
        /// The part of the query that the page depends on.
        query: String,
        /// Whether the client accepts gzip.
        gzip: bool,
    },
    /// `/olla/models` with this query.
    Models(String),
    /// A listing below the prefix of a provider.
    Scoped(Scoped),
    /// A listing of a dialect: its route, and what follows the route's path.
    Own(&'static DialectRoute, Vec<u8>),
    /// A listing as a client with certain rights may see it; `None` = it is only made possible.
    Seen(Arc<Lens>, Option<Box<Self>>),
}

impl PartialEq for WantedPage {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Page { route, query, gzip },
                Self::Page {
                    route: other_route,
                    query: other_query,
                    gzip: other_gzip,
                },
            ) => route == other_route && query == other_query && gzip == other_gzip,
            (Self::Models(query), Self::Models(other)) => query == other,
            (Self::Scoped(scoped), Self::Scoped(other)) => scoped.is_same(other),
            (Self::Own(route, rest), Self::Own(other, other_rest)) => {
                std::ptr::eq(*route, *other) && rest == other_rest
            }
            (Self::Seen(lens, inner), Self::Seen(other, other_inner)) => {
                lens == other && inner == other_inner
            }
            _ => false,
        }
    }
}

/// A request that waits for a rendering.
#[derive(Debug, Clone)]
pub(crate) struct PageAsk {
    /// Where the rendering goes.
    pub reply_to: ReplyTo,
    /// Whether the request still waits: it holds the other end.
    pub open: Weak<()>,
    /// What limits count its client by.
    pub client: IpAddr,
}

impl PageAsk {
    /// Whether the request still waits for its response.
    pub(crate) fn is_open(&self) -> bool {
        self.open.strong_count() > 0
    }
}

/// A rendering, for all requests that wait for it.
#[derive(Debug, Clone)]
pub(crate) enum Rendering {
    /// A page.
    Page(Arc<RenderedPage>),
    /// A listing of the catalogue.
    Listing(Result<Bytes, CatalogueError>),
    /// A listing of a dialect.
    Own(Result<Bytes, Error>),
    /// What a client may see is known now.
    Seen,
    /// A response of the routes for keys and usage.
    Admin(Result<AdminReply, Error>),
    /// The pages thread has too much to do, or clients hold too many bytes of earlier renderings.
    Overloaded,
}

/// A count or an event that the pages show.
#[derive(Debug)]
pub(crate) enum PageEvent {
    /// What a core has counted since the last time.
    Counts(Box<Delta>),
    /// A core has sent all its counts, as `ToCore::FlushCounts` requested.
    CountsFlushed {
        /// Number of the collection.
        round: u64,
    },
    /// The configuration was read again; whether it took effect.
    Reloaded(bool),
    /// A core could not accept connections for want of a resource.
    AcceptFailed(Exhausted),
    /// See [`ToControl::ConnectExhausted`](super::ToControl::ConnectExhausted).
    ConnectExhausted(Exhausted),
    /// Drop statistics that have expired; these are the `Endpoint.id`s in use.
    Sweep(Vec<u32>),
}

/// Sends messages to the pages thread.
#[derive(Debug, Clone)]
pub(crate) struct PagesSender {
    asks: Sender<(WantedPage, PageAsk)>,
    events: Sender<PageEvent>,
}

/// The receiving end of the pages thread.
#[derive(Debug)]
pub(crate) struct PagesReceiver {
    /// Requests.
    pub asks: Receiver<(WantedPage, PageAsk)>,
    /// Counts and events.
    pub events: Receiver<PageEvent>,
}

impl PagesSender {
    /// The sender and its receiver.
    pub(crate) fn new() -> (Self, PagesReceiver) {
        let (asks, asked) = bounded(ASKS_MAX);
        let (events, occurred) = bounded(EVENTS_MAX);
        let receiver = PagesReceiver {
            asks: asked,
            events: occurred,
        };
        (Self { asks, events }, receiver)
    }

    /// Requests a rendering; false if the queue is full.
    pub(crate) fn ask(&self, wanted: WantedPage, ask: PageAsk) -> bool {
        self.asks.try_send((wanted, ask)).is_ok()
    }

    /// Sends a count or an event, which is lost if the queue is full.
    pub(crate) fn event(&self, event: PageEvent) {
        let _ = self.events.try_send(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    use crate::catalogue::ListingForm;
    use crate::operations::Route;

    #[test]
    fn the_same_is_shared_and_nothing_else() {
        let page = |route, query: &str, gzip| WantedPage::Page {
            route,
            query: query.to_owned(),
            gzip,
        };
        let scoped = |form| {
            WantedPage::Scoped(Scoped {
                profile: None,
                form,
            })
        };
        let all = [
            page(Route::Status, "", false),
            page(Route::Status, "", true),
            page(Route::Models, "", false),
            page(Route::Models, "detailed=true", false),
            WantedPage::Models(String::new()),
            WantedPage::Models("format=vllm".to_owned()),
            scoped(ListingForm::OpenAi),
        ];
        // Without a profile of its own there is no native form.
        assert_eq!(scoped(ListingForm::OpenAi), scoped(ListingForm::Native));
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(one == other, at == other_at, "{one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn a_full_queue_refuses_requests_and_keeps_room_for_counts() {
        let (sender, receiver) = PagesSender::new();
        let held = Arc::new(());
        let ask = |ticket| PageAsk {
            reply_to: ReplyTo { core: 0, ticket },
            open: Arc::downgrade(&held),
            client: Ipv4Addr::LOCALHOST.into(),
        };
        let sent = (0..2000).filter(|n| sender.ask(WantedPage::Models(String::new()), ask(*n)));
        assert_eq!(sent.count(), ASKS_MAX);
        sender.event(PageEvent::Reloaded(true));
        assert_eq!(receiver.events.len(), 1);
    }
}
