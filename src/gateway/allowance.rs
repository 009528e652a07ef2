//! What a request holds of the limits of its key (`quotas.rs`).

use std::sync::Arc;

use bytes::Bytes;

use crate::access::estimate::Estimate;
use crate::access::output::OutputTooLong;
use crate::access::{Key, Reservation, ShownLimit, quota};

/// A request that its key's limits admitted. It is one of those in progress until this is dropped,
/// unless nothing was taken for it.
#[derive(Debug)]
pub(super) struct Allowance {
    pub(super) key: Arc<Key>,
    /// It is that of a dry run: no limit knows of it.
    pub(super) is_dry: bool,
    /// What responses show of the limits, as of its admission.
    pub(super) requests: Option<ShownLimit>,
    pub(super) tokens: Option<ShownLimit>,
    /// It has taken a request of the minute.
    pub(super) has_request: bool,
    /// Requests of its method for its path generate text.
    pub(super) generates_text: bool,
    pub(super) reservation: Option<Reservation>,
    pub(super) estimate: Estimate,
    /// The body with its output limited.
    pub(super) body: Option<Bytes>,
    /// It asks for more output than its policy allows.
    pub(super) too_long: Option<OutputTooLong>,
}

impl Drop for Allowance {
    fn drop(&mut self) {
        if self.is_dry {
            return;
        }
        quota::leave(&self.key);
        if let Some(totals) = self.key.counters.totals.get() {
            totals.left();
        }
    }
}
