//! What the cores and the control thread hand each other: snapshots, messages, limits, and the few
//! things that both hold.
//!
//! It knows neither of the two: `gateway` and `control` stand side by side on top of it.

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
