//! The encoding of a line: escaped texts, numbers and instants, in JSON and in `key=value` form.
//!
//! Pure functions that append to a buffer. They allocate only when the buffer grows.
//!
//! Contract: docs/contract/operations.md#2 (instants), docs/contract/operations.md#8 (forms)

use std::io::Write;

use olla_engine::h1::emit::decimal;
use wide::u8x16;

/// The length at which texts are cut: a header may have a megabyte, a line of the log must not.
pub(crate) const FIELD_BYTES_MAX: usize = 4096;

/// The mark at the end of a truncated text.
const CUT: &str = "…";

/// Appends a text in quotes, escaped by RFC 8259 section 7.
pub(super) fn json_string(out: &mut Vec<u8>, text: &str) {
    if !json_plain(out, text.as_bytes()) {
        json_escaped(out, text);
    }
}

/// [`json_string`] for the usual case: ASCII without escapes that is not too long. For any other
/// text it writes nothing and returns false. These bytes need no UTF-8 validation, which would cost
/// more than writing them.
pub(super) fn json_plain(out: &mut Vec<u8>, text: &[u8]) -> bool {
    let plain = text.len() <= FIELD_BYTES_MAX && is_plain(text);
    if plain {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    }
    plain
}

/// Whether all bytes are ASCII that JSON needs not escape. They are compared sixteen at a time; the
/// last sixteen overlap the ones before if the length is not a multiple of sixteen.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks();
    let mut few = [b' '; BLOCK];
    let last = match (rest.len(), bytes.last_chunk()) {
        (0, _) => &few,
        (_, Some(last)) => last,
        (len, None) => {
            if let Some(room) = few.get_mut(..len) {
                room.copy_from_slice(rest);
            }
            &few
        }
    };
    blocks.iter().all(is_plain_block) && is_plain_block(last)
}

const BLOCK: usize = 16;

fn is_plain_block(block: &[u8; BLOCK]) -> bool {
    const HIGHEST: u8 = 0x7f - b' ';
    let block = u8x16::from(*block);
    let (quote, backslash) = (u8x16::splat(b'"'), u8x16::splat(b'\\'));
    // Control characters wrap around and end up beyond the highest, like what is not ASCII.
    let shifted = block - u8x16::splat(b' ');
    let in_range = shifted.min(u8x16::splat(HIGHEST)).simd_eq(shifted);
    let special = block.simd_eq(quote) | block.simd_eq(backslash);
    (in_range & !special).to_bitmask() == u32::from(u16::MAX)
}

#[cold]
fn json_escaped(out: &mut Vec<u8>, text: &str) {
    let (text, cut) = bounded(text);
    out.push(b'"');
    escaped(out, text.as_bytes());
    if cut {
        out.extend_from_slice(CUT.as_bytes());
    }
    out.push(b'"');
}

fn escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    let mut rest = bytes;
    loop {
        let clean = rest.iter().position(special).unwrap_or(rest.len());
        let (head, tail) = rest.split_at(clean);
        out.extend_from_slice(head);
        let Some((byte, tail)) = tail.split_first() else {
            return;
        };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let digit = |value: u8| HEX[usize::from(value & 15)];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[digit(byte >> 4), digit(*byte)]);
            }
        }
        rest = tail;
    }
}

/// Appends a value of the text form: bare if it is unambiguous, else in quotes.
pub(super) fn text_string(out: &mut Vec<u8>, text: &str) {
    let (text, cut) = bounded(text);
    let bare = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'=' && byte != b'\\';
    if !cut && !text.is_empty() && text.bytes().all(bare) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            // C1 controls too: terminals interpret them.
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    if cut {
        out.extend_from_slice(CUT.as_bytes());
    }
    out.push(b'"');
}

/// The text up to [`FIELD_BYTES_MAX`], and whether anything was cut off.
fn bounded(text: &str) -> (&str, bool) {
    if text.len() <= FIELD_BYTES_MAX {
        return (text, false);
    }
    let end = text.floor_char_boundary(FIELD_BYTES_MAX);
    (&text[..end], true)
}

/// A number with at most three digits after the point; `null` where it is none.
pub(super) fn float(out: &mut Vec<u8>, number: f64) {
    /// Up to this size a number of thousandths is exact; no logged number is larger.
    const COUNTED_MAX: f64 = 1e12;
    if !number.is_finite() {
        out.extend_from_slice(b"null");
        return;
    }
    if number.abs() >= COUNTED_MAX {
        let _ = write!(out, "{number}");
        return;
    }
    let thousandths = (number.abs() * 1000.0).round() as u64;
    if number < 0.0 && thousandths > 0 {
        out.push(b'-');
    }
    decimal(out, thousandths / 1000);
    let digit = |value: u64| b'0' + (value % 10) as u8;
    match thousandths % 1000 {
        0 => {}
        n if n % 100 == 0 => out.extend_from_slice(&[b'.', digit(n / 100)]),
        n if n % 10 == 0 => out.extend_from_slice(&[b'.', digit(n / 100), digit(n / 10)]),
        n => out.extend_from_slice(&[b'.', digit(n / 100), digit(n / 10), digit(n)]),
    }
}

/// Formats instants. The last one is cached, because a core's clock advances once per tick.
#[derive(Debug)]
pub(super) struct Stamp {
    unix_ms: u64,
    /// `2026-04-15T10:30:00.123Z`.
    text: [u8; 24],
}

impl Default for Stamp {
    fn default() -> Self {
        Self {
            unix_ms: 0,
            text: *b"1970-01-01T00:00:00.000Z",
        }
    }
}

impl Stamp {
    /// An instant as RFC 3339 in UTC with milliseconds.
    #[inline]
    pub(super) fn of(&mut self, unix_ms: u64) -> &[u8; 24] {
        if unix_ms != self.unix_ms {
            self.renew(unix_ms);
        }
        &self.text
    }

    fn renew(&mut self, unix_ms: u64) {
        let (second, ms) = (unix_ms / 1000, unix_ms % 1000);
        if second != self.unix_ms / 1000 {
            self.renew_second(second);
        }
        self.unix_ms = unix_ms;
        let digit = |value: u64| b'0' + (value % 10) as u8;
        let [.., hundreds, tens, ones, _] = &mut self.text;
        (*hundreds, *tens, *ones) = (digit(ms / 100), digit(ms / 10), digit(ms));
    }

    fn renew_second(&mut self, second: u64) {
        // Instants beyond the year 9999 cannot be formatted; the text stays unchanged.
        let instant = i64::try_from(second)
            .ok()
            .and_then(|second| time::OffsetDateTime::from_unix_timestamp(second).ok());
        if let Some(instant) = instant {
            let (date, time) = (instant.date(), instant.time());
            let _ = write!(
                self.text.as_mut_slice(),
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
                date.year(),
                u8::from(date.month()),
                date.day(),
                time.hour(),
                time.minute(),
                time.second(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn texts_in_both_forms() {
        let table = [
            // text, json, text form
            ("", r#""""#, r#""""#),
            ("plain", r#""plain""#, "plain"),
            ("/a/b?c", r#""/a/b?c""#, "/a/b?c"),
            ("two words", r#""two words""#, r#""two words""#),
            ("a=b", r#""a=b""#, r#""a=b""#),
            ("q\"q", r#""q\"q""#, r#""q\"q""#),
            (r"b\b", r#""b\\b""#, r#""b\\b""#),
            ("n\nr\rt\t", r#""n\nr\rt\t""#, r#""n\nr\rt\t""#),
            (
                "\u{1}\u{1b}[0m",
                r#""\u0001\u001b[0m""#,
                r#""\u0001\u001b[0m""#,
            ),
            ("\u{7f}", "\"\u{7f}\"", r#""\u007f""#),
            ("é\u{9b}", "\"é\u{9b}\"", r#""é\u009b""#),
            ("0123456789\"", r#""0123456789\"""#, r#""0123456789\"""#),
        ];
        for (text, json, form) in table {
            assert_eq!(shown(|out| json_string(out, text)), json, "{text:?}");
            assert_eq!(shown(|out| text_string(out, text)), form, "{text:?}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "é".repeat(FIELD_BYTES_MAX);
        let json = shown(|out| json_string(out, &long));
        assert_eq!(json.len(), FIELD_BYTES_MAX + CUT.len() + 2);
        assert!(json.ends_with("é…\""));
        assert!(shown(|out| text_string(out, &long)).ends_with("é…\""));
    }

    #[test]
    fn numbers() {
        let table = [
            (0.0, "0"),
            (-0.0, "0"),
            (1.5, "1.5"),
            (-1.25, "-1.25"),
            (0.001, "0.001"),
            (9.9996, "10"),
            (-0.0001, "0"),
            (100.05, "100.05"),
            (999_999_999_999.5, "999999999999.5"),
            (1e12, "1000000000000"),
            (66.666_67, "66.667"),
            (1e-9, "0"),
            (f64::NAN, "null"),
            (f64::INFINITY, "null"),
        ];
        for (number, want) in table {
            assert_eq!(shown(|out| float(out, number)), want, "{number}");
        }
        let huge: f64 = shown(|out| float(out, f64::MAX)).parse().unwrap();
        assert_eq!(huge, f64::MAX);
    }

    #[test]
    fn instants() {
        let mut stamp = Stamp::default();
        let table = [
            (0, "1970-01-01T00:00:00.000Z"),
            (7, "1970-01-01T00:00:00.007Z"),
            (1_776_249_000_123, "2026-04-15T10:30:00.123Z"),
            (1_776_249_000_999, "2026-04-15T10:30:00.999Z"),
            (1_776_249_001_000, "2026-04-15T10:30:01.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        ];
        for (unix_ms, want) in table {
            assert_eq!(shown(|out| out.extend(stamp.of(unix_ms))), want);
        }
        assert!(shown(|out| out.extend(stamp.of(u64::MAX))).ends_with('Z'));
    }

    proptest! {
        #[test]
        fn json_reads_back(text in ".{0,200}|[\\x00-\\x7f]{0,64}") {
            let json = shown(|out| json_string(out, &text));
            let back: String = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(back, text);
        }

        #[test]
        fn the_text_form_is_one_line_of_printable_characters(text in "\\PC{0,40}|[\\x00-\\x7f]{0,64}") {
            let form = shown(|out| text_string(out, &text));
            prop_assert!(!form.chars().any(char::is_control), "{}", form);
            prop_assert!(form.starts_with('"') || !form.contains([' ', '=', '"']), "{}", form);
        }
    }
}
