//! The bytes of a line: escaped texts, numbers, instants, in JSON and in `key=value` form.
//!
//! Pure functions into a buffer. No clock, no lock, no I/O, no allocation but the buffer's growth.
//!
//! contract: operations 2 (instants), 8 (forms)

use std::io::Write;

/// A longer text is cut here: a header may hold a megabyte, a line of the log must not.
pub const FIELD_BYTES_MAX: usize = 4096;

/// What stands after a text that was cut.
const CUT: &str = "…";

/// A text in quotes, escaped by RFC 8259 section 7.
pub(super) fn json_string(out: &mut Vec<u8>, text: &str) {
    let (text, cut) = bounded(text);
    out.push(b'"');
    json_escaped(out, text.as_bytes());
    if cut {
        out.extend_from_slice(CUT.as_bytes());
    }
    out.push(b'"');
}

/// [`json_string`] of a text that is ASCII and not too long; false if it is neither. Saves the
/// check that it is UTF-8, which costs as much as writing it.
pub(super) fn json_ascii(out: &mut Vec<u8>, text: &[u8]) -> bool {
    let fits = text.len() <= FIELD_BYTES_MAX && text.is_ascii();
    if fits {
        out.push(b'"');
        json_escaped(out, text);
        out.push(b'"');
    }
    fits
}

fn json_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        let clean = clean_len(rest);
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

/// Length of the leading bytes that JSON takes as they are. Eight at a time: the usual text has
/// nothing to escape.
fn clean_len(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // Has a byte below `n`, for n up to 128; exact when no byte below it stands before.
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGHS;
    let equals = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let mut at = 0;
    let (words, _) = bytes.as_chunks::<8>();
    for chunk in words {
        let word = u64::from_le_bytes(*chunk);
        let hit = below(word, 0x20) | equals(word, b'"') | equals(word, b'\\');
        if hit != 0 {
            return at + (hit.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    let tail = bytes.get(at..).unwrap_or_default();
    at + tail.iter().position(special).unwrap_or(tail.len())
}

/// A text as a value of the text form: bare where nothing in it could be misread, else in quotes.
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
            // C1 controls too: a terminal acts on them.
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
    (text.get(..end).unwrap_or_default(), true)
}

/// A number in decimal digits.
pub(super) fn unsigned(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        at -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

/// A number with its sign.
pub(super) fn signed(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    unsigned(out, number.unsigned_abs());
}

/// A number with at most three digits after the point; `null` where it is none.
pub(super) fn float(out: &mut Vec<u8>, number: f64) {
    /// Below this a thousandth is exact enough to count in; beyond, nobody logs.
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
    unsigned(out, thousandths / 1000);
    let digit = |value: u64| b'0' + (value % 10) as u8;
    match thousandths % 1000 {
        0 => {}
        n if n % 100 == 0 => out.extend_from_slice(&[b'.', digit(n / 100)]),
        n if n % 10 == 0 => out.extend_from_slice(&[b'.', digit(n / 100), digit(n / 10)]),
        n => out.extend_from_slice(&[b'.', digit(n / 100), digit(n / 10), digit(n)]),
    }
}

/// Writes instants; what changes once a second is kept.
#[derive(Debug)]
pub(super) struct Stamp {
    second: u64,
    /// `2026-04-15T10:30:00`.
    text: [u8; 19],
}

impl Default for Stamp {
    fn default() -> Self {
        Self {
            second: 0,
            text: *b"1970-01-01T00:00:00",
        }
    }
}

impl Stamp {
    /// An instant as RFC 3339 in UTC with milliseconds.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, unix_ms: u64) {
        let (second, ms) = (unix_ms / 1000, unix_ms % 1000);
        if second != self.second {
            self.renew(second);
        }
        out.extend_from_slice(&self.text);
        let digit = |value: u64| b'0' + (value % 10) as u8;
        let fraction = [b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z'];
        out.extend_from_slice(&fraction);
    }

    fn renew(&mut self, second: u64) {
        self.second = second;
        // Beyond the year 9999 the text stays what it was: no clock shows that.
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
        for number in [0, 9, 10, 99, 100, 12_345, u64::MAX] {
            assert_eq!(shown(|out| unsigned(out, number)), number.to_string());
        }
        for number in [0, -1, 7, i64::MIN, i64::MAX] {
            assert_eq!(shown(|out| signed(out, number)), number.to_string());
        }
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
            assert_eq!(shown(|out| stamp.write(out, unix_ms)), want);
        }
        assert!(shown(|out| stamp.write(out, u64::MAX)).ends_with('Z'));
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
