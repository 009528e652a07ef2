//! Pictures: base64 in Ollama's API, a URL in OpenAI's.
//!
//! Contract: docs/contract/dialects.md#10

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::dialects::chat::messages::{Prose, UserPart};
use crate::json::{JsonText, TextPiece};

/// Characters of base64 that hold the bytes by which a type is told; a multiple of four.
const HEAD_CHARS: usize = 16;

/// Whether a string is a picture: base64, or a URL.
pub(super) fn is_picture(image: JsonText<'_>) -> bool {
    is_url(image) || is_base64(image)
}

/// The part of a message for a picture.
pub(super) fn part(image: JsonText<'_>) -> UserPart<'_> {
    let mut url = Prose::EMPTY;
    if !is_url(image) {
        url.plain("data:");
        url.plain(media_type(image));
        url.plain(";base64,");
    }
    url.json(image);
    UserPart::Image { url, detail: None }
}

fn is_url(image: JsonText<'_>) -> bool {
    let head = head(image, "https://".len());
    let begins = |scheme: &str| {
        let start = head.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    begins("data:") || begins("http://") || begins("https://")
}

/// The first characters of a string.
fn head(image: JsonText<'_>, chars: usize) -> String {
    let mut head = String::new();
    for piece in image.pieces() {
        match piece {
            TextPiece::Run(run) => {
                // Characters have at most four bytes.
                let some = run.get(..chars * 4).unwrap_or(run);
                head.push_str(&String::from_utf8_lossy(some));
            }
            TextPiece::Char(c) => head.push(c),
            TextPiece::Lone => head.push(char::REPLACEMENT_CHARACTER),
        }
        if head.len() >= chars * 4 {
            break;
        }
    }
    head.chars().take(chars).collect()
}

/// Whether a string is base64, line ends aside, with or without its padding.
fn is_base64(image: JsonText<'_>) -> bool {
    let (mut digits, mut padding) = (0_usize, 0_usize);
    let mut is_digit = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' if padding == 0 => {
            digits += 1;
            true
        }
        b'=' => {
            padding += 1;
            true
        }
        b'\r' | b'\n' => true,
        _ => false,
    };
    let all = image.pieces().all(|piece| match piece {
        TextPiece::Run(run) => run.iter().all(|byte| is_digit(*byte)),
        TextPiece::Char(c) => u8::try_from(c).is_ok_and(&mut is_digit),
        TextPiece::Lone => false,
    });
    let fits = match padding {
        0 => digits % 4 != 1,
        _ => padding <= 2 && (digits + padding).is_multiple_of(4),
    };
    all && digits > 0 && fits
}

/// The type of a picture by its first bytes; that of most if they say nothing.
fn media_type(image: JsonText<'_>) -> &'static str {
    let head = head(image, HEAD_CHARS);
    let digits = head.trim_end_matches('=');
    let len = digits.len() / 4 * 4;
    let bytes = STANDARD_NO_PAD.decode(digits.get(..len).unwrap_or(""));
    match bytes.unwrap_or_default().as_slice() {
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [b'G', b'I', b'F', b'8', ..] => "image/gif",
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => "image/webp",
        _ => "image/png",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn with<T>(image: &str, look: impl FnOnce(JsonText<'_>) -> T) -> T {
        let written = serde_json::to_string(image).unwrap();
        let value = json::parse(written.as_bytes()).unwrap();
        look(value.string().unwrap())
    }

    #[test]
    fn types_are_told_by_their_first_bytes() {
        use base64::engine::general_purpose::STANDARD;
        for (bytes, kind) in [
            (&b"\x89PNG\r\n\x1a\nrest of it"[..], "image/png"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF and more", "image/jpeg"),
            (b"GIF89a and more of it", "image/gif"),
            (b"RIFF\x01\x02\x03\x04WEBPVP8 and more", "image/webp"),
            (b"RIFF\x01\x02\x03\x04WAVE and more", "image/png"),
            (b"?", "image/png"),
        ] {
            let image = STANDARD.encode(bytes);
            assert!(with(&image, is_picture), "{image}");
            assert_eq!(with(&image, media_type), kind, "{image}");
        }
    }

    #[test]
    fn what_a_picture_is() {
        for (image, is_one) in [
            ("aGk=", true),
            ("aGk", true),
            ("a/k+", true),
            ("aGVs\nbG8h\r\n", true),
            ("data:image/png;base64,xx", true),
            ("HTTPS://h/x.png", true),
            ("http://h", true),
            ("", false),
            ("====", false),
            ("aGk=a", false),
            ("aGk==", false),
            ("a", false),
            ("a-b_", false),
            ("x y z", false),
            ("é", false),
            ("file:///etc/passwd", false),
        ] {
            assert_eq!(with(image, is_picture), is_one, "{image:?}");
        }
    }
}
