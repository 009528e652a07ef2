//! What the cores, the control thread and the pages thread exchange or share: snapshots, messages
//! and rate limits.
//!
//! `gateway` and `control` both use this folder; it uses neither.

mod channel;
mod common;
mod dropped;
mod limits;
mod pages;
mod reply;
mod snapshot;
mod starts;
mod state;

pub(crate) use channel::{
    ControlSender, CoreSenders, RefreshRequest, RunningRequest, ToControl, ToCore, Trouble,
};
pub(crate) use common::Common;
pub(crate) use limits::Limiters;
pub(crate) use limits::{LimitHeaders, LimitRefusal, Shards};
pub(crate) use pages::{PageAsk, PageEvent, PagesReceiver, PagesSender, Rendering, WantedPage};
pub(crate) use reply::ReplyTo;
pub(crate) use snapshot::Snapshot;
pub(crate) use starts::Start;
pub(crate) use state::{StateAsk, StateEvent, StateReceiver, StateSender};
