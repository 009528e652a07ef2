//! State that outlives the process: keys of the admin API, windows of quotas, and the usage ledger.
//!
//! [`Store`] is the file, [`Ledger`] what is in memory, [`CoreUsage`] what one core has counted. A
//! report of usage is a [`UsageQuery`] that [`Book`] responds to. Nothing here starts a thread or
//! reads a clock.
//!
//! Contract: docs/contract/access.md#13

mod admin;
mod book;
mod day;
mod fault;
mod inspect;
mod integer;
mod query;
mod report;
mod rows;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod usage;

pub(crate) use admin::{
    AdminAsk, AdminReply, AdminRequest, AdminRoute, ChangeContext, KeyChange, NameState,
    key_object, keys_page, not_found, policies_page, stored_key,
};
pub(crate) use book::{Book, WriteOutcome};
pub(crate) use day::Day;
pub(crate) use fault::{StoreFault, StoreFaultKind};
pub(crate) use inspect::{check, usage_of};
pub(crate) use query::UsageQuery;
pub(crate) use store::{KeyRecord, SPANS, Store, StoreBatch, StoredWindow};
pub(crate) use usage::{CoreUsage, RowName, UsageDelta, UsageFigures};
