//! The generator: requests that two parsers could see end in different places.
//!
//! Each case hides a further request where one of two disagreeing parsers would look for it. The
//! nonces of hidden requests are not marked, unless a strict reader, too, takes the hidden bytes
//! for a request of its own.

use super::draft::{Draft, chunked};
use super::tables::{
    BYTES, CODINGS, DATA_ENDS, FIELDS, HOSTS, LAST_ENDS, LENGTHS, LINES, NAMES, SIZES,
};
use super::{Chance, Mark, mark_of, plain_body, well_formed};
use crate::target::Target;

/// One connection's worth of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What is wrong with it.
    pub kind: &'static str,
    /// What is sent.
    pub bytes: Vec<u8>,
    /// What may reach a backend.
    pub marks: Vec<Mark>,
}

/// The parts that a case is made of.
struct Parts<'p> {
    chance: Chance,
    target: &'p Target,
    nonce: String,
    body: Vec<u8>,
    /// A request that no client sends.
    hidden: Vec<u8>,
}

/// What is made of the parts: the request, and whether it is to be refused although its framing is
/// sound.
struct Spoilt {
    draft: Draft,
    refused: bool,
    /// The body, when a gateway may accept the request although the strict reader does not.
    lenient: Option<Vec<u8>>,
}

type Kind = (&'static str, fn(&mut Parts<'_>) -> Spoilt);

const KINDS: [Kind; 16] = [
    ("length and chunks", length_and_chunks),
    ("length and a coding", length_and_coding),
    ("two lengths", two_lengths),
    ("a length twice", same_length_twice),
    ("no length", bad_length),
    ("no coding", bad_coding),
    ("a coding's name", coding_name),
    ("a length's name", length_name),
    ("a chunk's size", chunk_size),
    ("a chunk's end", chunk_end),
    ("the last chunk", last_chunk),
    ("request line", request_line),
    ("host", host),
    ("a field", field),
    ("line ends", line_ends),
    ("bytes by chance", bytes_by_chance),
];

/// Case `number` of a seed; the same two make the same bytes.
pub fn case(seed: u64, number: usize, target: &Target) -> Case {
    let mut chance = Chance::new(seed.wrapping_mul(0x0100_0000_01b3) ^ number as u64);
    let nonce = format!("case-{seed}-{number}");
    let Target { host, path, .. } = target;
    let hidden_body = plain_body(&format!("hidden-{seed}-{number}"));
    let hidden = match chance.below(3) {
        0 => format!(
            "GET /olla/proxy/v1/x?nonce=hidden-{seed}-{number} HTTP/1.1\r\nHost: {host}\r\n\r\n"
        ),
        _ => format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{hidden_body}",
            hidden_body.len()
        ),
    };
    let mut parts = Parts {
        chance,
        target,
        body: plain_body(&nonce).into_bytes(),
        nonce,
        hidden: hidden.into_bytes(),
    };
    let (kind, spoil) = KINDS[number % KINDS.len()];
    let Spoilt {
        mut draft,
        refused,
        lenient,
    } = spoil(&mut parts);
    if parts.chance.one_in(3) {
        let place = parts.chance.below(draft.fields.len() + 1);
        draft.fields.insert(place, b"X-Filler: filler".to_vec());
    }
    let mut bytes = draft.render();
    if parts.chance.one_in(2) {
        bytes.extend_from_slice(&parts.hidden);
    }
    let mut marks = if refused {
        Vec::new()
    } else {
        well_formed(&bytes)
    };
    marks.extend(lenient.map(|body| mark_of(path, &body)));
    if parts.chance.one_in(4) {
        // After a sound request on the same connection.
        let first = parts.sound(&format!("{}-first", parts.nonce)).render();
        marks.extend(well_formed(&first));
        bytes.splice(..0, first);
    }
    Case { kind, bytes, marks }
}

impl Parts<'_> {
    /// A request without framing.
    fn bare(&self) -> Draft {
        let Target { host, path, .. } = self.target;
        let line = format!("POST {path} HTTP/1.1");
        let host = format!("Host: {host}");
        Draft::new(&line, &[&host, "Content-Type: application/json"])
    }

    /// A sound request with a length.
    fn sound(&self, nonce: &str) -> Draft {
        let mut draft = self.bare();
        draft.body = plain_body(nonce).into_bytes();
        draft.add(format!("Content-Length: {}", draft.body.len()));
        draft
    }

    /// A sound request in chunks.
    fn sound_chunked(&mut self) -> Draft {
        let mut draft = self.bare();
        draft.add(*b"Transfer-Encoding: chunked");
        draft.body = chunked(&self.body, 1 + self.chance.below(60));
        draft
    }

    fn fill(&self, template: &[u8], name: &str) -> Vec<u8> {
        let length = self.body.len().to_string();
        let wrong = (self.body.len() + self.hidden.len()).to_string();
        let mut out = replace(template, b"NAME", name.as_bytes());
        if name.is_empty() {
            out = replace(&out, b"N", length.as_bytes());
            out = replace(&out, b"M", wrong.as_bytes());
        }
        out
    }

    fn body_and_hidden(&self) -> Vec<u8> {
        [&self.body[..], &self.hidden].concat()
    }
}

impl Spoilt {
    fn of(draft: Draft) -> Self {
        Self {
            draft,
            refused: false,
            lenient: None,
        }
    }
}

/// A chunked body that ends where the length goes on, or the other way about.
fn length_and_chunks(parts: &mut Parts<'_>) -> Spoilt {
    let mut draft = parts.bare();
    let chunks = chunked(&parts.body, 1 + parts.chance.below(60));
    draft.body = [&chunks[..], &parts.hidden].concat();
    let length = match parts.chance.below(4) {
        0 => chunks.len(),
        1 => draft.body.len(),
        2 => 0,
        _ => parts.chance.below(draft.body.len()),
    };
    let coding: &[u8] = match parts.chance.below(3) {
        0 => b"Transfer-Encoding: chunked",
        1 => b"transfer-encoding:chunked",
        _ => b"Transfer-Encoding: CHUNKED\t",
    };
    draft.add(coding);
    let place = parts.chance.below(draft.fields.len() + 1);
    let length = format!("Content-Length: {length}").into_bytes();
    draft.fields.insert(place, length);
    Spoilt::of(draft)
}

/// A length beside a coding that one parser may not know.
fn length_and_coding(parts: &mut Parts<'_>) -> Spoilt {
    let mut draft = parts.bare();
    let chunks = chunked(&parts.body, 1 + parts.chance.below(60));
    draft.body = [&chunks[..], &parts.hidden].concat();
    draft.add(format!("Content-Length: {}", draft.body.len()));
    let coding = parts.chance.pick(CODINGS);
    draft.add([b"Transfer-Encoding: ", coding].concat());
    // One that is no coding at all leaves a request with a length, which is sound only if the
    // strict reader says so.
    Spoilt::of(draft)
}

fn two_lengths(parts: &mut Parts<'_>) -> Spoilt {
    let mut draft = parts.bare();
    draft.body = parts.body_and_hidden();
    let lengths = [parts.body.len(), draft.body.len(), 0, 1];
    let first = parts.chance.below(lengths.len());
    let second = (first + 1 + parts.chance.below(lengths.len() - 1)) % lengths.len();
    draft.add(format!("Content-Length: {}", lengths[first]));
    draft.add(format!("content-length: {}", lengths[second]));
    Spoilt::of(draft)
}

/// RFC 9110 section 8.6 lets a recipient take this for one.
fn same_length_twice(parts: &mut Parts<'_>) -> Spoilt {
    let mut draft = parts.bare();
    draft.body = parts.body_and_hidden();
    let length = parts.body.len();
    if parts.chance.one_in(2) {
        draft.add(format!("Content-Length: {length}, {length}"));
    } else {
        draft.add(format!("Content-Length: {length}"));
        draft.add(format!("Content-Length: {length}"));
    }
    // What follows is then a request of its own.
    let mut spoilt = Spoilt::of(draft);
    spoilt.draft.body.truncate(length);
    spoilt.lenient = Some(parts.body.clone());
    spoilt.draft.add(*b"Connection: close");
    spoilt
}

fn bad_length(parts: &mut Parts<'_>) -> Spoilt {
    let mut draft = parts.bare();
    draft.body = parts.body_and_hidden();
    let template = parts.chance.pick(LENGTHS);
    let value = parts.fill(template, "");
    draft.add([b"Content-Length: ", &value[..]].concat());
    Spoilt::of(draft)
}

fn bad_coding(parts: &mut Parts<'_>) -> Spoilt {
    let mut draft = parts.sound_chunked();
    draft.drop_field("Transfer-Encoding");
    let coding = parts.chance.pick(CODINGS);
    draft.add([b"Transfer-Encoding: ", coding].concat());
    if parts.chance.one_in(3) {
        draft.add(*b"Transfer-Encoding: chunked");
    }
    draft.body.extend_from_slice(&parts.hidden);
    Spoilt::of(draft)
}

fn coding_name(parts: &mut Parts<'_>) -> Spoilt {
    let mut draft = parts.bare();
    let chunks = chunked(&parts.body, 1 + parts.chance.below(60));
    draft.body = [&chunks[..], &parts.hidden].concat();
    let name = parts.chance.pick(NAMES);
    draft.add([parts.fill(name, "Transfer-Encoding"), b"chunked".to_vec()].concat());
    draft.add(format!("Content-Length: {}", draft.body.len()));
    Spoilt::of(draft)
}

fn length_name(parts: &mut Parts<'_>) -> Spoilt {
    let mut draft = parts.bare();
    draft.body = parts.body_and_hidden();
    let name = parts.chance.pick(NAMES);
    let length = draft.body.len().to_string().into_bytes();
    draft.add([parts.fill(name, "Content-Length"), length].concat());
    draft.add(format!("Content-Length: {}", parts.body.len()));
    Spoilt::of(draft)
}

fn chunk_size(parts: &mut Parts<'_>) -> Spoilt {
    let mut draft = parts.sound_chunked();
    let size = format!("{:x}", parts.body.len());
    let line = replace(parts.chance.pick(SIZES), b"N", size.as_bytes());
    draft.body = [&line[..], &parts.body, b"\r\n0\r\n\r\n", &parts.hidden].concat();
    Spoilt::of(draft)
}

fn chunk_end(parts: &mut Parts<'_>) -> Spoilt {
    let mut draft = parts.sound_chunked();
    let size = format!("{:x}\r\n", parts.body.len());
    let end = parts.chance.pick(DATA_ENDS);
    draft.body = [
        size.as_bytes(),
        &parts.body,
        end,
        b"0\r\n\r\n",
        &parts.hidden,
    ]
    .concat();
    Spoilt::of(draft)
}

fn last_chunk(parts: &mut Parts<'_>) -> Spoilt {
    let mut draft = parts.sound_chunked();
    draft.body.truncate(draft.body.len() - 2);
    let end = parts.chance.pick(LAST_ENDS);
    draft.body.extend_from_slice(end);
    let mut spoilt = Spoilt::of(draft);
    if end.starts_with(b"Content-Length")
        || end.starts_with(b"Transfer")
        || end.starts_with(b"Host")
    {
        // Trailers are dropped whatever they are called (docs/contract/surface.md#7).
        spoilt.lenient = Some(parts.body.clone());
    }
    spoilt
}

fn request_line(parts: &mut Parts<'_>) -> Spoilt {
    let mut draft = parts.sound(&parts.nonce);
    let path = parts.target.path.as_bytes();
    let template = parts.chance.pick(LINES);
    draft.line = replace(template, b"PATH", path);
    let mut spoilt = Spoilt::of(draft);
    spoilt.refused = template.contains(&b'%');
    spoilt
}

fn host(parts: &mut Parts<'_>) -> Spoilt {
    let mut draft = parts.sound(&parts.nonce);
    draft.drop_field("Host");
    let authority = parts.target.host.as_bytes();
    let host = replace(parts.chance.pick(HOSTS), b"AUTHORITY", authority);
    if !host.is_empty() {
        draft.add(host);
    }
    let mut spoilt = Spoilt::of(draft);
    spoilt.refused = true;
    spoilt
}

fn field(parts: &mut Parts<'_>) -> Spoilt {
    let mut draft = parts.sound(&parts.nonce);
    let place = parts.chance.below(draft.fields.len() + 1);
    draft
        .fields
        .insert(place, parts.chance.pick(FIELDS).to_vec());
    Spoilt::of(draft)
}

fn line_ends(parts: &mut Parts<'_>) -> Spoilt {
    let mut draft = if parts.chance.one_in(2) {
        parts.sound(&parts.nonce)
    } else {
        parts.sound_chunked()
    };
    draft.line_end = parts.chance.pick(&[
        b"\n".as_slice(),
        b"\r",
        b"\r\r\n",
        b"\n\r",
        b"\r\n\r\n",
        b"",
    ]);
    Spoilt::of(draft)
}

/// One to four bytes of the head replaced, removed, doubled or swapped.
fn bytes_by_chance(parts: &mut Parts<'_>) -> Spoilt {
    let sound = if parts.chance.one_in(2) {
        parts.sound(&parts.nonce)
    } else {
        parts.sound_chunked()
    };
    let mut head = sound.render();
    head.truncate(sound.head_bytes());
    for _ in 0..=parts.chance.below(4) {
        let place = parts.chance.below(head.len() - 1);
        match parts.chance.below(4) {
            0 => head[place] = parts.chance.pick(BYTES),
            1 => head.insert(place, parts.chance.pick(BYTES)),
            2 => head.swap(place, place + 1),
            _ => drop(head.remove(place)),
        }
    }
    let draft = Draft {
        line: head,
        fields: Vec::new(),
        line_end: b"",
        body: sound.body,
    };
    Spoilt::of(draft)
}

fn replace(text: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, what) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(with);
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn target() -> Target {
        "http://127.0.0.1:9/olla/proxy/v1/chat/completions"
            .parse()
            .unwrap()
    }

    #[test]
    fn a_seed_makes_its_cases_again_and_thousands_of_different_ones() {
        let cases: Vec<_> = (0..3000).map(|number| case(7, number, &target())).collect();
        assert_eq!(cases[17], case(7, 17, &target()));
        assert_ne!(cases[17], case(8, 17, &target()));
        // The nonce alone does not make a case different.
        let shapes: BTreeSet<Vec<u8>> = cases
            .iter()
            .map(|case| {
                let digits = |byte: &u8| !byte.is_ascii_digit();
                case.bytes.iter().copied().filter(digits).collect()
            })
            .collect();
        assert!(shapes.len() > 1000, "{}", shapes.len());
    }

    #[test]
    fn nothing_hidden_behind_two_kinds_of_framing_is_marked() {
        for number in 0..2000 {
            let case = case(3, number, &target());
            let first = |mark: &Mark| mark.nonce.ends_with("-first");
            match case.kind {
                "length and chunks" | "two lengths" | "host" => {
                    assert!(case.marks.iter().all(first), "{:?}", case);
                }
                "a length twice" => assert!(!case.marks.is_empty()),
                _ => {}
            }
        }
    }
}
