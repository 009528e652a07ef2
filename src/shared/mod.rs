//! What the cores and the control thread hand each other: snapshots, messages, limits, and the few
//! things that both hold.
//!
//! It knows neither of the two: `gateway` and `control` stand side by side on top of it.

mod common;
mod limits;
mod link;
mod snapshot;

pub use common::Common;
pub use limits::Limiters;
pub(crate) use limits::{LimitHeaders, LimitRefusal, Shards};
pub use link::{
    Address, CoreRinger, Event, Link, ListingAsk, Mailboxes, Offer, PageAsk, Rendered, ToCore,
};
pub use snapshot::Snapshot;
