//! What the task that follows the token issuer is woken by.

use std::cell::RefCell;

use super::super::signal::Signal;
use crate::shared::ReplyTo;

/// What the task that follows the issuer is woken by.
#[derive(Debug, Default)]
pub(in crate::control) struct IssuerWait {
    /// Raised by a reload, and by a request that waits.
    pub(super) woken: Signal,
    /// Requests with a token whose key is unknown.
    pub(super) waiting: RefCell<Vec<ReplyTo>>,
}

impl IssuerWait {
    /// The configuration was replaced.
    pub(in crate::control) fn reloaded(&self) {
        self.woken.notify();
    }

    /// A request waits for new keys.
    pub(in crate::control) fn ask(&self, reply_to: ReplyTo) {
        self.waiting.borrow_mut().push(reply_to);
        self.woken.notify();
    }
}
