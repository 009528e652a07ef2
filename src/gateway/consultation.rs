//! The state of a request for which an endpoint is consulted (`consult.rs`).

use bytes::Bytes;
use olla_engine::exchange::Timeouts;

use crate::dialects::{Authority, DialectTarget};

/// A consultation.
#[derive(Debug)]
pub(super) struct Consultation {
    pub(super) authority: &'static Authority,
    /// The response without the endpoint.
    pub(super) computed: Bytes,
    /// The path at the endpoint.
    pub(super) path: String,
    /// Whether the endpoint was asked.
    pub(super) is_asked: bool,
    /// The endpoint's response head for the client.
    pub(super) head: Vec<u8>,
}

impl Consultation {
    /// Where the request goes, below the endpoint's URL.
    pub(super) fn target(&self) -> DialectTarget<'_> {
        DialectTarget {
            path: &self.path,
            translated: false,
            read_here: true,
        }
    }

    /// Its time limits.
    pub(super) fn timeouts(&self, usual: Timeouts) -> Timeouts {
        Timeouts {
            attempt: Some(self.authority.within),
            ..usual
        }
    }
}
