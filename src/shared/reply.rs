//! Where the replies to a core's messages go.

/// The request that a reply goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    /// Index of the core.
    pub core: usize,
    /// Number of the request, unique on its core.
    pub ticket: u64,
}
