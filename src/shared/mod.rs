//! What the cores and the control thread exchange or share: snapshots, messages and rate limits.
//!
//! `gateway` and `control` both use this folder; it uses neither.

mod channel;
mod common;
mod limits;
mod snapshot;

pub use channel::{
    Confirmation, ControlSender, CoreSenders, ListingRequest, PageRequest, PageResponse, ReplyTo,
    ToControl, ToCore,
};
pub use common::Common;
pub use limits::Limiters;
pub(crate) use limits::{LimitHeaders, LimitRefusal, Shards};
pub use snapshot::Snapshot;
