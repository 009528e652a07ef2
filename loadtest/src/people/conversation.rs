//! Conversations: what is said when, from a seed. No sockets and no clock.

use crate::chance::Chance;
use crate::fleet::length_sentence;
use crate::fleet::scenario::LoadSpec;
use crate::prose::Prose;

/// Bytes of a token.
const TOKEN_BYTES: usize = crate::fleet::cache::TOKEN_BYTES;

/// Where the requests go.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    /// The value of the field `Host`.
    pub(super) host: String,
    /// The request target.
    pub(super) path: String,
    /// Send keys as bearer keys instead of addresses.
    pub(super) bearer: bool,
    /// Deviation of the logarithm of output lengths.
    pub(super) noise: f64,
}

/// One conversation with a model.
#[derive(Debug)]
pub(super) struct Conversation {
    /// The place of its load.
    pub(super) load: usize,
    chance: Chance,
    model: String,
    /// The messages so far, as they stand in a body.
    messages: String,
    rounds_left: usize,
}

impl Conversation {
    /// Begins the conversation of this number: the same one in each run with the seed, whatever the
    /// order in which conversations begin.
    pub(super) fn begin(
        load: usize,
        spec: &LoadSpec,
        seed: u64,
        number: u64,
        prose: &Prose,
    ) -> Self {
        let mut chance = Chance::new(seed << 40 ^ (load as u64) << 32 ^ number);
        let group = chance.below(spec.groups);
        let weights = (1..=spec.models.len()).map(|place| (place as f64).powf(-spec.zipf));
        let model = spec.models[chance.weighted(weights)].clone();
        let mut conversation = Self {
            load,
            chance,
            model,
            messages: String::new(),
            rounds_left: spec.rounds,
        };
        if spec.system_tokens > 0 {
            // A group has the same prompt in every run.
            let mut own = Chance::new((load as u64) << 32 ^ group as u64);
            let start = format!("You are assistant {group} of {}. ", spec.name);
            conversation.say("system", &start, spec.system_tokens, |text, length| {
                prose.fill(text, length, &mut own);
            });
        }
        conversation
    }

    /// The next request, head and body. `key` is the number of its client, from 1.
    pub(super) fn next_request(
        &mut self,
        spec: &LoadSpec,
        key: Option<usize>,
        destination: &Destination,
        prose: &Prose,
    ) -> Vec<u8> {
        self.rounds_left = self.rounds_left.saturating_sub(1);
        let factor = self.chance.log_normal(destination.noise);
        let tokens = ((spec.output_tokens as f64 * factor) as usize).max(1);
        let mark = self.chance.below(1_000_000_000);
        let start = format!("{}{mark} ", length_sentence(tokens));
        let mut own = self.chance.clone();
        self.say("user", &start, spec.user_tokens, |text, length| {
            prose.fill(text, length, &mut own);
        });
        let limit = if destination.noise > 0.0 {
            String::new()
        } else {
            format!("\"max_tokens\":{tokens},")
        };
        let body = format!(
            "{{\"model\":\"{}\",\"stream\":true,\"stream_options\":{{\"include_usage\":true}},\
             {limit}\"messages\":[{}]}}",
            self.model, self.messages
        );
        let client = match key {
            None => String::new(),
            Some(number) if destination.bearer => {
                format!("Authorization: Bearer fleet-key-{number}\r\n")
            }
            Some(number) => format!("X-Forwarded-For: 10.9.0.{number}\r\n"),
        };
        format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{client}\
             Content-Length: {}\r\n\r\n{body}",
            destination.path,
            destination.host,
            body.len()
        )
        .into_bytes()
    }

    /// Takes the response; returns the pause before the next request in nanoseconds, `None` after
    /// the last.
    pub(super) fn take_response(&mut self, spec: &LoadSpec, response: &str) -> Option<u64> {
        self.add("assistant", response);
        let pause_ms = self.chance.exponential(spec.think_ms);
        (self.rounds_left > 0).then_some((pause_ms * 1e6) as u64)
    }

    /// Adds a message that counts `tokens` with its role and two line ends, or as long as its start.
    fn say(
        &mut self,
        role: &str,
        start: &str,
        tokens: usize,
        fill: impl FnOnce(&mut String, usize),
    ) {
        let mut text = start.to_owned();
        fill(
            &mut text,
            (tokens * TOKEN_BYTES).saturating_sub(role.len() + 2),
        );
        self.add(role, &text);
    }

    fn add(&mut self, role: &str, text: &str) {
        if !self.messages.is_empty() {
            self.messages.push(',');
        }
        // Text of an engine or of the prose needs no escapes; that of other servers may.
        let text = serde_json::Value::from(text);
        let message = format!("{{\"role\":\"{role}\",\"content\":{text}}}");
        self.messages.push_str(&message);
    }
}

/// The number of each load's client, from 1; loads with the same key have the same.
pub(super) fn key_numbers(loads: &[LoadSpec]) -> Vec<Option<usize>> {
    let mut known: Vec<&str> = Vec::new();
    let numbers = loads.iter().map(|load| number_of(load, &mut known));
    numbers.collect()
}

fn number_of<'a>(load: &'a LoadSpec, known: &mut Vec<&'a str>) -> Option<usize> {
    let key = load.key.as_deref()?;
    if !known.contains(&key) {
        known.push(key);
    }
    known
        .iter()
        .position(|one| *one == key)
        .map(|place| place + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::RequestReader;
    use serde_json::Value;

    fn load(key: Option<&str>) -> LoadSpec {
        LoadSpec {
            name: "chat".to_owned(),
            key: key.map(str::to_owned),
            models: vec!["a".to_owned(), "b".to_owned()],
            zipf: 1.0,
            arrivals: 1.0,
            users: 0,
            rounds: 2,
            think_ms: 100.0,
            groups: 3,
            system_tokens: 320,
            user_tokens: 64,
            output_tokens: 10,
        }
    }

    fn destination(noise: f64, bearer: bool) -> Destination {
        Destination {
            host: "127.0.0.1:1".to_owned(),
            path: "/v1/chat/completions".to_owned(),
            bearer,
            noise,
        }
    }

    fn body(request: &[u8]) -> Value {
        let mut reader = RequestReader::default();
        for piece in request.chunks(100) {
            for byte in piece {
                reader.space()[0] = *byte;
                reader.advance(1);
            }
        }
        serde_json::from_slice(reader.poll().unwrap().unwrap().body).unwrap()
    }

    fn content(body: &Value, place: usize) -> &str {
        body["messages"][place]["content"].as_str().unwrap()
    }

    #[test]
    fn a_conversation_sends_all_that_was_said() {
        let (spec, prose) = (load(None), Prose::default());
        let mut conversation = Conversation::begin(0, &spec, 1, 5, &prose);
        let first = body(&conversation.next_request(&spec, None, &destination(0.0, false), &prose));
        assert_eq!(first["max_tokens"], 10);
        assert_eq!(first["stream_options"]["include_usage"], true);
        // Four bytes a token, with the role and two line ends.
        assert_eq!(content(&first, 0).len(), 320 * 4 - "system".len() - 2);
        assert_eq!(content(&first, 1).len(), 64 * 4 - "user".len() - 2);
        assert!(content(&first, 1).starts_with("Answer in 10 tokens. "));
        assert!(conversation.take_response(&spec, "of \"course\"").is_some());
        let second =
            body(&conversation.next_request(&spec, None, &destination(0.0, false), &prose));
        assert_eq!(second["messages"][0], first["messages"][0]);
        assert_eq!(content(&second, 2), "of \"course\"");
        assert_ne!(second["messages"][3], first["messages"][1]);
        assert_eq!(conversation.take_response(&spec, "yes"), None);
    }

    #[test]
    fn conversations_depend_on_seed_and_number_and_share_the_prompts_of_groups() {
        let (spec, prose) = (load(None), Prose::default());
        let request = |seed, number| {
            let mut conversation = Conversation::begin(0, &spec, seed, number, &prose);
            body(&conversation.next_request(&spec, None, &destination(0.7, false), &prose))
        };
        assert_eq!(request(1, 5), request(1, 5));
        assert_ne!(request(1, 5), request(1, 6));
        assert_ne!(request(1, 5), request(2, 5));
        assert_eq!(request(1, 5)["max_tokens"], Value::Null);
        let prompts: std::collections::BTreeSet<_> = (0..50)
            .flat_map(|number| [request(1, number), request(2, number)])
            .map(|body| content(&body, 0).to_owned())
            .collect();
        assert_eq!(prompts.len(), spec.groups);
    }

    #[test]
    fn a_key_is_an_address_or_a_bearer_key() {
        let loads = [
            load(None),
            load(Some("x")),
            load(Some("y")),
            load(Some("x")),
        ];
        assert_eq!(key_numbers(&loads), [None, Some(1), Some(2), Some(1)]);
        let prose = Prose::default();
        for (bearer, want) in [
            (false, "X-Forwarded-For: 10.9.0.2\r\n"),
            (true, "Authorization: Bearer fleet-key-2\r\n"),
        ] {
            let mut conversation = Conversation::begin(2, &loads[2], 1, 1, &prose);
            let request =
                conversation.next_request(&loads[2], Some(2), &destination(0.0, bearer), &prose);
            let text = String::from_utf8(request).unwrap();
            assert!(text.contains(want), "{text}");
        }
    }
}
