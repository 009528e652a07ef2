//! The entry of this gateway in `Via`, and requests that come back to it.
//!
//! Contract: docs/contract/surface.md#4, docs/contract/balancing.md#9.3

use olla_engine::h1::field;

/// Entries of gateways that a request may have passed before.
const GATEWAYS_MAX: usize = 8;

/// The start of the name of every gateway.
const NAME_START: &[u8] = b"olla-";

/// The entry of this process in the `Via` of requests. Its name is random, so that a request that
/// comes back is recognised.
#[derive(Debug)]
pub(crate) struct ViaEntry {
    /// `1.1 olla-<instance>/<version>`.
    entry: String,
    name: String,
}

impl ViaEntry {
    /// The entry of a process.
    pub(crate) fn new(instance: u64) -> Self {
        let name = format!("olla-{instance:016x}");
        Self {
            entry: format!("1.1 {name}/{}", env!("CARGO_PKG_VERSION")),
            name,
        }
    }

    /// The entry as it is written.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.entry.as_bytes()
    }

    /// Whether a request with these `Via` fields has passed this gateway before, or too many others.
    pub(super) fn is_loop<'v>(&self, lines: impl Iterator<Item = &'v [u8]>) -> bool {
        let mut gateways = 0;
        for received_by in lines.flat_map(field::list_items).filter_map(received_by) {
            if received_by.starts_with(NAME_START) {
                gateways += 1;
            }
            if received_by == self.name.as_bytes() || gateways > GATEWAYS_MAX {
                return true;
            }
        }
        false
    }
}

/// The name in an entry: the part after the protocol, without what follows a slash.
fn received_by(entry: &[u8]) -> Option<&[u8]> {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace();
    let mut parts = entry.split(is_blank).filter(|part| !part.is_empty());
    let name = parts.nth(1)?;
    name.split(|byte| *byte == b'/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_loop() {
        let own = ViaEntry::new(0xab);
        let written = std::str::from_utf8(own.as_bytes()).unwrap();
        assert!(
            written.starts_with("1.1 olla-00000000000000ab/"),
            "{written}"
        );
        let others = |count| vec!["1.1 olla-1/9"; count].join(", ");
        let table: [(&[&str], bool); 12] = [
            (&[], false),
            (&[""], false),
            (&["1.1"], false),
            (&["1.1 front, 1.0 fred (olla-00000000000000ab)"], false),
            (&["1.1 olla-00000000000000ac/0.1.0"], false),
            (&["1.1 olla-00000000000000ab0"], false),
            (&[written], true),
            (&["1.1 olla-00000000000000ab"], true),
            (
                &["1.1 front", "HTTP/1.1  olla-00000000000000ab/2 (x), 1.1 y"],
                true,
            ),
            (&[&others(8)], false),
            (&[&others(9)], true),
            (&[&others(5), &others(4)], true),
        ];
        for (lines, is_loop) in table {
            let found = own.is_loop(lines.iter().map(|line| line.as_bytes()));
            assert_eq!(found, is_loop, "{lines:?}");
        }
    }
}
