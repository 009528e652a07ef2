//! What identifies a conversation: its system prompt and its first user message, which every later
//! request of it repeats.
//!
//! Contract: docs/contract/scheduling.md#7

use super::messages::Walk;
use super::prompt::{BodySpan, PromptParts};

/// The most bytes of either that count. They are read while the request waits for its endpoint.
const PART_BYTES_MAX: usize = 64 << 10;

/// The beginning of a conversation, as raw JSON. A part that is missing is empty, but not both are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opening<'b> {
    /// `system` or `instructions`, or else the content of a system message before the first user
    /// message.
    pub(crate) system: &'b [u8],
    /// The content of the first user message. Without one, the first other message, or the whole
    /// `input` or `prompt` if that is no list of messages.
    pub(crate) user: &'b [u8],
}

/// Where its parts begin in a list of messages.
#[derive(Debug, Default)]
struct Starts {
    system: Option<usize>,
    user: Option<usize>,
    /// The first message that is neither.
    other: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    System,
    User,
    Other,
}

impl<'b> Opening<'b> {
    /// Finds it in a body; `None` in one that is no whole object, or has neither part.
    pub(crate) fn of(body: &'b [u8], parts: &PromptParts) -> Option<Self> {
        if !parts.is_whole {
            return None;
        }
        let start = |span: BodySpan| (!span.is_empty()).then(|| span.range().start);
        let mut starts = Starts::default();
        match start(parts.messages).or_else(|| start(parts.input)) {
            Some(list) => starts.read(body, list),
            None => starts.user = start(parts.prompt),
        }
        let system = start(parts.system)
            .or_else(|| start(parts.instructions))
            .or(starts.system);
        let user = starts.user.or(starts.other);
        let opening = Self {
            system: system.map_or(b"", |at| part(body, at)),
            user: user.map_or(b"", |at| part(body, at)),
        };
        (!opening.system.is_empty() || !opening.user.is_empty()).then_some(opening)
    }
}

impl Starts {
    /// Reads a list of messages up to the first of a user.
    fn read(&mut self, body: &[u8], list: usize) {
        if body.get(list) != Some(&b'[') {
            self.user = Some(list);
            return;
        }
        // It ends early where it has found what it looks for.
        let _ = Walk::at(body, list).elements(|walk| self.message(body, walk));
    }

    /// Reads one message; `None`: nothing after it matters.
    fn message(&mut self, body: &[u8], walk: &mut Walk<'_>) -> Option<()> {
        let start = walk.value_start()?;
        if body.get(start) != Some(&b'{') {
            self.other = self.other.or(Some(start));
            return walk.skip_value();
        }
        let (mut role, mut content) = (Role::Other, None);
        let read = walk.members(|walk, key| {
            if let Some(text) = walk.text_of(b"role", &key) {
                let is = |role| walk.is(role, &text);
                role = match () {
                    () if is(b"user") => Role::User,
                    () if is(b"system") || is(b"developer") => Role::System,
                    () => Role::Other,
                };
                // Its content may be megabytes long.
                return (role != Role::User || content.is_none()).then_some(());
            }
            if walk.is(b"content", &key) {
                content = walk.value_start();
                if role == Role::User {
                    return None;
                }
            }
            walk.skip_value()
        });
        let content = content.unwrap_or(start);
        match role {
            Role::User => {
                self.user = Some(content);
                return None;
            }
            Role::System => self.system = self.system.or(Some(content)),
            Role::Other => self.other = self.other.or(Some(start)),
        }
        read
    }
}

/// The value that begins here, or as much of it as counts.
fn part(body: &[u8], start: usize) -> &[u8] {
    let end = body.len().min(start.saturating_add(PART_BYTES_MAX));
    let counted = body.get(..end).unwrap_or(body);
    let whole = Walk::at(counted, start).value();
    body.get(whole.unwrap_or(start..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Inspector, Wanted};
    use super::*;

    fn opening(body: &str) -> Option<(String, String)> {
        let wanted = Wanted {
            prompt: true,
            ..Wanted::default()
        };
        let findings = Inspector::new(wanted).finish(body.as_bytes());
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        Opening::of(body.as_bytes(), &findings.prompt)
            .map(|opening| (text(opening.system), text(opening.user)))
    }

    #[test]
    fn system_prompts_and_first_user_messages() {
        let table = [
            (
                r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}]}"#,
                r#""s""#,
                r#""u""#,
            ),
            (
                r#"{"messages":[{"role":"user","content":[{"text":"u"}]},{"role":"user","content":"v"}]}"#,
                "",
                r#"[{"text":"u"}]"#,
            ),
            (
                r#"{"messages":[{"content":"u","x":1,"role":"us\u0065r","y":2}]}"#,
                "",
                r#""u""#,
            ),
            (
                r#"{"messages":[{"role":"developer","content":"d"},{"role":"system","content":"s"},{"role":"user"}]}"#,
                r#""d""#,
                r#"{"role":"user"}"#,
            ),
            (
                r#"{"messages":[{"role":"user","content":"u"},{"role":"system","content":"s"}]}"#,
                "",
                r#""u""#,
            ),
            (
                r#"{"system":"s","messages":[{"role":"user","content":"u"}]}"#,
                r#""s""#,
                r#""u""#,
            ),
            (
                r#"{"system":[{"text":"s"}],"messages":[{"role":"system","content":"t"}]}"#,
                r#"[{"text":"s"}]"#,
                "",
            ),
            (
                r#"{"messages":[1,{"role":"assistant","content":"a"},{"role":"user","content":"u"}]}"#,
                "",
                r#""u""#,
            ),
            (
                r#"{"messages":[{"role":"assistant","content":"a"},{"a":1}]}"#,
                "",
                r#"{"role":"assistant","content":"a"}"#,
            ),
            (r#"{"messages":"text"}"#, "", r#""text""#),
            (r#"{"instructions":"i","input":"u"}"#, r#""i""#, r#""u""#),
            (
                r#"{"input":[{"type":"message","role":"user","content":"u"}],"instructions":null}"#,
                "",
                r#""u""#,
            ),
            (r#"{"system":"s","prompt":"p\"q"}"#, r#""s""#, r#""p\"q""#),
            (
                r#"{"prompt":["p","q"],"messages":null}"#,
                "",
                r#"["p","q"]"#,
            ),
            (r#"{"messages":[ ],"prompt":"p"}"#, "", r#""p""#),
            (
                r#"{"messages":[1],"messages":[{"role":"user","content":2}]}"#,
                "",
                "2",
            ),
        ];
        for (body, system, user) in table {
            let expected = (system.to_owned(), user.to_owned());
            assert_eq!(opening(body), Some(expected), "{body}");
        }
    }

    #[test]
    fn bodies_without_one() {
        for body in [
            "",
            "{}",
            r#"{"messages":[],"prompt":null}"#,
            r#"{"messages":[1],"messages":null}"#,
            r#"{"x":{"messages":[1]}}"#,
            r#"{"messages":[{"role":"user","content":"u"}]"#,
            r#"{"messages":[{"role":"user","content":"u"}],"#,
        ] {
            assert_eq!(opening(body), None, "{body}");
        }
    }

    #[test]
    fn so_many_bytes_of_a_part_count() {
        let body = |system: &str, user: &str| {
            format!(
                r#"{{"messages":[{{"role":"system","content":"{system}"}},{{"role":"user","content":["{user}"]}}]}}"#
            )
        };
        // The quotes and the bracket count.
        let (system, user) = (
            "s".repeat(PART_BYTES_MAX - 2),
            "u".repeat(PART_BYTES_MAX - 4),
        );
        let whole = opening(&body(&system, &user)).unwrap();
        assert_eq!(whole, (format!(r#""{system}""#), format!(r#"["{user}"]"#)));
        let longer = opening(&body(&(system + "s"), &(user + "u"))).unwrap();
        assert_eq!(longer.0.len(), PART_BYTES_MAX);
        assert_eq!(longer.1.len(), PART_BYTES_MAX);
        assert!(longer.1.starts_with(r#"["uu"#) && longer.1.ends_with(r#"u""#));
        let much_longer = body(&"s".repeat(1 << 20), &"u".repeat(1 << 20));
        let much_longer = opening(&much_longer).unwrap();
        assert_eq!(much_longer.0, longer.0);
        assert!(much_longer.1.ends_with('u'));
    }

    proptest! {
        /// What a client appends in the course of a conversation does not change its beginning.
        #[test]
        fn later_messages_change_nothing(
            system in proptest::option::of("[^\"\\\\\\p{Cc}]{0,20}"),
            user in "[^\"\\\\\\p{Cc}]{0,20}",
            later in prop::collection::vec(("assistant|user|system|tool", "[a-z ]{0,20}"), 0..6),
            gap in "[ \n]{0,3}",
        ) {
            let message = |(role, content): (&str, &str)| {
                format!("{{\"role\":{gap}\"{role}\",\"content\":\"{content}\"}}")
            };
            let first = system.iter().map(|text| message(("system", text)));
            let mut messages: Vec<String> = first.chain([message(("user", &user))]).collect();
            let body = |messages: &[String]| format!("{{\"messages\":[{}]}}", messages.join(","));
            let before = opening(&body(&messages));
            messages.extend(later.iter().map(|(role, text)| message((role, text))));
            prop_assert_eq!(&opening(&body(&messages)), &before);
            let quoted = |text: &str| format!("\"{text}\"");
            let expected = (system.as_deref().map(quoted).unwrap_or_default(), quoted(&user));
            prop_assert_eq!(before, Some(expected));
        }
    }
}
