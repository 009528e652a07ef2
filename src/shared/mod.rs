//! What the cores and the control thread exchange or share: snapshots, messages and rate limits.
//!
//! `gateway` and `control` both use this folder; it uses neither.

mod channel;
mod common;
mod limits;
mod snapshot;

pub(crate) use channel::{
    ControlSender, CoreSenders, ListingRequest, PageRequest, PageResponse, RefreshRequest, ReplyTo,
    ToControl, ToCore,
};
pub(crate) use common::Common;
pub(crate) use limits::Limiters;
pub(crate) use limits::{LimitHeaders, LimitRefusal, Shards};
pub(crate) use snapshot::Snapshot;
