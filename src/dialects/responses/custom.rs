//! The text for a tool that takes text, out of the arguments by which a model sends it
//! (docs/contract/dialects.md#8.3).
//!
//! Models write `{"input":"…"}`. The string is decoded while it arrives, cut between any two bytes.
//! Arguments that begin otherwise are held until they are complete.

use crate::json::{self, JsonText};

/// What comes before the text, blanks aside.
const OPENING: &[u8] = b"{\"input\":\"";

/// The places of the opening before which there may be blanks: not inside of the key.
const BLANKS_BEFORE: [usize; 4] = [0, 1, 8, 9];

/// Decodes the arguments of one call.
#[derive(Debug, Default)]
pub(super) struct CustomInput {
    at: Place,
    /// Arguments of another form, or their beginning.
    held: Vec<u8>,
    /// The first half of a surrogate pair.
    high: Option<u32>,
    /// The beginning of a character.
    cut: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// So many bytes of the opening have come.
    Opening(usize),
    Text,
    Escape,
    /// Digits of `\uXXXX`: how many, and their number.
    Unicode(u8, u32),
    /// The text has ended.
    After,
    /// The arguments are of another form.
    Held,
}

impl Default for Place {
    fn default() -> Self {
        Self::Opening(0)
    }
}

impl CustomInput {
    /// Takes a piece of the arguments and appends the whole characters that it completes.
    pub(super) fn push(&mut self, arguments: &[u8], text: &mut Vec<u8>) {
        let begun = text.len();
        text.append(&mut self.cut);
        for byte in arguments {
            self.byte(*byte, text);
        }
        let new = text.get(begun..).unwrap_or(&[]);
        let whole = begun + whole_chars(new);
        self.cut = text.split_off(whole);
    }

    /// The arguments are complete: appends what was held.
    pub(super) fn finish(&mut self, text: &mut Vec<u8>) {
        if matches!(self.at, Place::Opening(_) | Place::Held) {
            let held = std::mem::take(&mut self.held);
            let input = json::parse(&held).and_then(|value| value.string_field("input"));
            match input.map(JsonText::decode) {
                Some(input) => text.extend_from_slice(input.as_bytes()),
                None => text.extend_from_slice(String::from_utf8_lossy(&held).as_bytes()),
            }
            return;
        }
        self.lone_half(text);
        let cut = std::mem::take(&mut self.cut);
        text.extend_from_slice(String::from_utf8_lossy(&cut).as_bytes());
    }

    fn byte(&mut self, byte: u8, text: &mut Vec<u8>) {
        match self.at {
            Place::Opening(place) => self.opening(place, byte),
            Place::Held => self.held.push(byte),
            Place::After => {}
            Place::Text => self.text(byte, text),
            Place::Escape => self.escape(byte, text),
            Place::Unicode(digits, number) => self.unicode(digits, number, byte, text),
        }
    }

    fn opening(&mut self, place: usize, byte: u8) {
        self.held.push(byte);
        let is_blank = byte.is_ascii_whitespace() && BLANKS_BEFORE.contains(&place);
        if OPENING.get(place) == Some(&byte) {
            self.at = Place::Opening(place + 1);
            if place + 1 == OPENING.len() {
                self.at = Place::Text;
                self.held = Vec::new();
            }
        } else if !is_blank {
            self.at = Place::Held;
        }
    }

    fn text(&mut self, byte: u8, text: &mut Vec<u8>) {
        if byte == b'\\' {
            self.at = Place::Escape;
            return;
        }
        self.lone_half(text);
        if byte == b'"' {
            self.at = Place::After;
        } else {
            text.push(byte);
        }
    }

    fn escape(&mut self, byte: u8, text: &mut Vec<u8>) {
        if byte == b'u' {
            self.at = Place::Unicode(0, 0);
            return;
        }
        self.at = Place::Text;
        self.lone_half(text);
        text.push(match byte {
            b'b' => 0x8,
            b'f' => 0xc,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            other => other,
        });
    }

    fn unicode(&mut self, digits: u8, number: u32, byte: u8, text: &mut Vec<u8>) {
        let Some(digit) = char::from(byte).to_digit(16) else {
            // No JSON; what is no digit is text again.
            self.at = Place::Text;
            self.lone_half(text);
            push_char(char::REPLACEMENT_CHARACTER, text);
            return self.text(byte, text);
        };
        let number = number << 4 | digit;
        if digits < 3 {
            self.at = Place::Unicode(digits + 1, number);
            return;
        }
        self.at = Place::Text;
        match (self.high, number) {
            (Some(high), 0xdc00..0xe000) => {
                self.high = None;
                let code = 0x1_0000 + ((high - 0xd800) << 10) + (number - 0xdc00);
                push_char(char_of(code), text);
            }
            (_, 0xd800..0xdc00) => {
                self.lone_half(text);
                self.high = Some(number);
            }
            _ => {
                self.lone_half(text);
                push_char(char_of(number), text);
            }
        }
    }

    /// Half of a pair that got no other half.
    fn lone_half(&mut self, text: &mut Vec<u8>) {
        if self.high.take().is_some() {
            push_char(char::REPLACEMENT_CHARACTER, text);
        }
    }
}

fn char_of(code: u32) -> char {
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn push_char(c: char, text: &mut Vec<u8>) {
    text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// The length of a text without a character at its end that is not complete.
fn whole_chars(text: &[u8]) -> usize {
    let from = text.len().saturating_sub(3);
    let tail = text.get(from..).unwrap_or(&[]);
    let last = tail.iter().rposition(|byte| *byte >= 0xc0);
    let Some(last) = last else {
        return text.len();
    };
    let needed = match tail.get(last) {
        Some(0xf0..) => 4,
        Some(0xe0..) => 3,
        _ => 2,
    };
    if tail.len() - last < needed {
        from + last
    } else {
        text.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The deltas and the whole text of arguments that come in these pieces.
    fn decoded(pieces: &[&[u8]]) -> (Vec<String>, String) {
        let mut input = CustomInput::default();
        let mut text = Vec::new();
        let mut deltas = Vec::new();
        let mut take = |text: &mut Vec<u8>, whole: &mut String| {
            let delta = String::from_utf8(std::mem::take(text)).unwrap();
            if !delta.is_empty() {
                whole.push_str(&delta);
                deltas.push(delta);
            }
        };
        let mut whole = String::new();
        for piece in pieces {
            input.push(piece, &mut text);
            take(&mut text, &mut whole);
        }
        input.finish(&mut text);
        take(&mut text, &mut whole);
        (deltas, whole)
    }

    #[test]
    fn the_text_however_it_is_cut() {
        for (arguments, text) in [
            (r#"{"input":"abc"}"#, "abc"),
            (" { \"input\" :\n\"a\\nb\"\t}", "a\nb"),
            (
                r#"{"input":"\"\\\/\b\f\n\r\té😀"}"#,
                "\"\\/\u{8}\u{c}\n\r\té😀",
            ),
            (r#"{"input":"\u00e9\ud83d\ude00\u0041"}"#, "é😀A"),
            (
                r#"{"input":"\ud83dx\ude00\ud83d\ud83d\ude00\ud83d"}"#,
                "\u{fffd}x\u{fffd}\u{fffd}😀\u{fffd}",
            ),
            (r#"{"input":"\ud83d\n"}"#, "\u{fffd}\n"),
            ("{\"input\":\"raw\nline\"}", "raw\nline"),
            (r#"{"input":""}"#, ""),
            (r#"{"input":"a","input2":"b"}"#, "a"),
            // Cut off by the end of the response.
            (r#"{"input":"ab\"#, "ab"),
            (r#"{"input":"ab\ud83d"#, "ab\u{fffd}"),
            // Of another form.
            (r#"{"other":1,"input":"x\n"}"#, "x\n"),
            (r#"{"\u0069nput":"x"}"#, "x"),
            (r#"{"input":5}"#, r#"{"input":5}"#),
            (r#"{"in put":"x"}"#, r#"{"in put":"x"}"#),
            ("*** Begin Patch", "*** Begin Patch"),
            ("{", "{"),
            (r#""x""#, r#""x""#),
            ("", ""),
        ] {
            let arguments = arguments.as_bytes();
            assert_eq!(decoded(&[arguments]).1, text);
            for at in 0..=arguments.len() {
                let (one, two) = arguments.split_at(at);
                assert_eq!(decoded(&[one, two]).1, text, "{at}");
            }
            let single: Vec<_> = arguments.chunks(1).collect();
            assert_eq!(decoded(&single).1, text);
        }
    }

    #[test]
    fn deltas_come_at_once() {
        let (deltas, _) = decoded(&[b"{\"input\":\"a", b"b\\", b"n\xc3", b"\xa9c\"}"]);
        assert_eq!(deltas, ["a", "b", "\n", "éc"]);
        let (deltas, _) = decoded(&[b"{\"x\":1,", b"\"input\":\"ab\"", b"}"]);
        assert_eq!(deltas, ["ab"]);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(
            text in "\\PC{0,12}[\"\\\\\n\u{1}é😀]{0,4}",
            ascii in any::<bool>(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut arguments = serde_json::json!({"input": text}).to_string();
            if ascii {
                let escaped = arguments.chars().flat_map(|c| {
                    let mut units = [0; 2];
                    let units = c.encode_utf16(&mut units).to_vec();
                    let escape = move |unit: u16| format!("\\u{unit:04x}");
                    if c.is_ascii() { vec![c.to_string()] } else { units.into_iter().map(escape).collect() }
                });
                arguments = escaped.collect();
            }
            let bytes = arguments.as_bytes();
            let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            ends.push(bytes.len());
            ends.sort_unstable();
            let mut start = 0;
            let pieces: Vec<_> = ends.into_iter()
                .map(|end| &bytes[std::mem::replace(&mut start, end)..end]).collect();
            prop_assert_eq!(decoded(&pieces).1, text);
        }

        #[test]
        fn any_bytes_are_taken(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..6)) {
            let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
            let mut input = CustomInput::default();
            let mut text = Vec::new();
            for piece in pieces {
                input.push(piece, &mut text);
            }
            input.finish(&mut text);
        }
    }
}
