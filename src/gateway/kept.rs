//! What a connection keeps from one request to the next.

use std::net::IpAddr;

use super::allowance::Allowance;
use super::event_count::EventCount;
use super::id::RequestId;
use super::scheduling::Scheduling;
use crate::access::OverLimit;
use crate::inspect::Inspector;
use crate::log::LineFields;
use crate::providers::figures::Tail;

/// What a connection keeps from one request to the next; `None` before the first.
pub(crate) type Kept = Option<Box<ConnectionCache>>;

/// Buffers, and values that cost more to move than to overwrite. They lie on the heap, so that an
/// exchange is moved cheaply.
#[derive(Debug, Default)]
pub(crate) struct ConnectionCache {
    pub(super) id: RequestId,
    /// Reads the body as it arrives.
    pub(super) inspector: Inspector,
    /// The address of the client; `peer_text` is that of the connection.
    pub(super) client_text: IpText,
    pub(super) peer_text: IpText,
    /// The path in normal form, if it differs from what the client wrote.
    pub(super) own_path: Vec<u8>,
    /// The name of the model as the client wrote it; empty = none.
    pub(super) model: String,
    /// The name that was sent to the last endpoint, if it differs.
    pub(super) sent_model: String,
    pub(super) tail: Option<Box<Tail>>,
    /// The events of the response that have passed.
    pub(super) events: Option<EventCount>,
    /// The bytes of the client's body.
    pub(super) body_bytes: u64,
    /// A head that waits for its body to be known.
    pub(super) held: Vec<u8>,
    /// The key of the request, as lines show it.
    pub(super) key_fields: LineFields,
    /// What the request holds of its key's limits. On the heap, since most requests hold nothing.
    pub(super) allowance: Option<Box<Allowance>>,
    /// It waits until what its key may see is known.
    pub(super) awaits_view: bool,
    /// The limit that refused it.
    pub(super) over: Option<OverLimit>,
    /// What scheduling knows of it.
    pub(super) schedule: Scheduling,
}

/// The capacity that a connection keeps of each of its buffers.
const KEPT_BYTES_MAX: usize = 4 << 10;

impl ConnectionCache {
    /// Forgets the last request.
    pub(super) fn clear(&mut self) {
        self.id.clear();
        self.own_path.clear();
        self.model.clear();
        self.sent_model.clear();
        self.held.clear();
        self.over = None;
        self.events = None;
        self.body_bytes = 0;
        self.awaits_view = false;
        self.schedule.clear();
    }

    /// Frees what a request has made unusually large: an idle connection must not hold it.
    pub(super) fn shrink(&mut self) {
        self.schedule.shrink();
        for text in [&mut self.model, &mut self.sent_model] {
            if text.capacity() > KEPT_BYTES_MAX {
                *text = String::new();
            }
        }
        for bytes in [&mut self.own_path, &mut self.held] {
            if bytes.capacity() > KEPT_BYTES_MAX {
                *bytes = Vec::new();
            }
        }
    }
}

/// An address as text, formatted only when it changes.
#[derive(Debug, Default)]
pub(super) struct IpText {
    ip: Option<IpAddr>,
    text: String,
}

impl IpText {
    pub(super) fn set(&mut self, ip: IpAddr) {
        use std::fmt::Write as _;
        if self.ip != Some(ip) {
            self.ip = Some(ip);
            self.text.clear();
            // Writing to a string cannot fail.
            let _ = write!(self.text, "{ip}");
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}
