//! Bounds and kinds of values that several sections share.

use std::time::Duration;

use super::endpoint::NameFilter;
use super::section::Section;

pub(super) const MIB: u64 = 1 << 20;
pub(super) const U32_MAX: i128 = u32::MAX as i128;

/// The defaults of the clients' rate limits, in requests per minute
/// (docs/contract/surface.md#10.1).
pub(crate) const GLOBAL_REQUESTS_PER_MINUTE: u32 = 1000;
pub(crate) const PER_IP_REQUESTS_PER_MINUTE: u32 = 100;
pub(crate) const HEALTH_REQUESTS_PER_MINUTE: u32 = 1000;

/// The default of `server.rate_limits.pages_per_second`.
pub(crate) const PAGES_PER_SECOND: u32 = 50;

/// The upper bound of a key that is bounded by its type only.
pub(super) const NO_MAX: i128 = i128::MAX;

pub(super) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Two lists of globs (docs/contract/catalogue.md#4.1).
pub(super) fn name_filter(
    s: &mut Section<'_, '_>,
    include: &'static str,
    exclude: &'static str,
) -> NameFilter {
    let kind = "a glob that is not blank";
    let glob = |text: &str| (!text.trim().is_empty()).then(|| text.to_owned());
    NameFilter {
        include: s.key("include", include).texts(&[], kind, glob),
        exclude: s.key("exclude", exclude).texts(&[], kind, glob),
    }
}
