//! The memory for requests that are being received, and whether the largest one has room in it.
//!
//! Contract: docs/contract/surface.md#11

use crate::config::{Plan, RequestLimitsPlan};
use crate::control::host;
use crate::format;

/// The least memory for requests where none is configured.
const BYTES_MIN: u64 = 64 << 20;

/// One client address holds at most this part of it.
const PART_OF_A_CLIENT: u64 = olla_engine::limits::BUDGET_PART_OF_A_CLIENT as u64;

/// Bytes of requests that may be held at one time: as configured, else a quarter of the memory.
pub(super) fn buffered_bytes_max(plan: &Plan) -> u64 {
    let configured = plan.server.request_limits.max_buffered_bytes;
    configured.unwrap_or_else(|| (host::memory_limit_bytes() / 4).max(BYTES_MIN))
}

/// A warning if bodies are permitted for which no client ever has room.
pub(super) fn warning(plan: &Plan) -> Option<String> {
    warning_of(&plan.server.request_limits, buffered_bytes_max(plan))
}

fn warning_of(limits: &RequestLimitsPlan, buffered_bytes_max: u64) -> Option<String> {
    let room = buffered_bytes_max / PART_OF_A_CLIENT;
    let got = match limits.max_body_size {
        Some(max) if max <= room => return None,
        Some(max) => format::bytes(max),
        None => "no limit".to_owned(),
    };
    let of = match limits.max_buffered_bytes {
        Some(_) => "max_buffered_bytes",
        None => "a quarter of this machine's memory, which max_buffered_bytes = 0 selects",
    };
    Some(format!(
        "server.request_limits.max_body_size: expected at most {} (one client may hold a quarter \
         of {of}), got {got}; larger bodies are refused with 503: lower it or raise \
         max_buffered_bytes",
        format::bytes(room)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_without_room_are_warned_of() {
        const MIB: u64 = 1 << 20;
        let table = [
            // max_body_size, max_buffered_bytes, the memory for requests, the size it should have
            (Some(100 * MIB), None, 400 * MIB, None),
            (Some(100 * MIB), None, 256 * MIB, Some("64.00 MB")),
            (Some(100 * MIB), Some(4 * MIB), 4 * MIB, Some("1.00 MB")),
            (None, None, 1024 * MIB, Some("256.00 MB")),
        ];
        for (max_body_size, max_buffered_bytes, bytes, want) in table {
            let limits = RequestLimitsPlan {
                max_body_size,
                max_header_size: 65_536,
                max_buffered_bytes,
            };
            let warning = warning_of(&limits, bytes);
            assert_eq!(warning.is_some(), want.is_some(), "{limits:?} {warning:?}");
            let (warning, want) = (warning.unwrap_or_default(), want.unwrap_or_default());
            assert!(warning.contains(want), "{warning}");
        }
    }
}
