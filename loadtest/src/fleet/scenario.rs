//! The file that describes a simulated fleet and its users: `loadtest/scenarios/*.json`.

use std::path::Path;

use serde::Deserialize;

/// A fleet, its users, and how long they come.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is for; not used.
    #[serde(default)]
    pub about: String,
    /// How long requests are sent.
    pub seconds: f64,
    /// Deviation of the logarithm of output lengths and prefill speeds, both log-normal; with it the
    /// requests name no limit, so that a gateway cannot know the length.
    #[serde(default)]
    pub noise: f64,
    /// Engines, in groups of equal ones.
    pub engines: Vec<EngineSpec>,
    /// Users, in groups of equal ones.
    pub load: Vec<LoadSpec>,
}

/// Which server an engine looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// vLLM.
    Vllm,
    /// Ollama.
    Ollama,
    /// llama.cpp; with several models its router.
    Llamacpp,
}

impl Kind {
    /// Its name in scenarios, which is also the type of an endpoint in the gateway's configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Ollama => "ollama",
            Self::Llamacpp => "llamacpp",
        }
    }
}

/// What an engine reports wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lie {
    /// The numbers of `usage`, a hundred times too high.
    UsageHigh,
    /// The numbers of `usage`, a hundred times too low.
    UsageLow,
    /// A billion slots.
    Slots,
}

/// A group of equal engines.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineSpec {
    /// How many there are.
    #[serde(default = "one")]
    pub count: usize,
    /// Which server they look like.
    pub kind: Kind,
    /// The models they have.
    pub models: Vec<String>,
    /// Requests that they work on at a time.
    pub slots: usize,
    /// Prompt tokens a second.
    pub prefill_tps: f64,
    /// Time for an output token, in milliseconds.
    pub decode_ms: f64,
    /// More of it for each other request that holds a slot, in milliseconds.
    #[serde(default)]
    pub decode_ms_each: f64,
    /// Capacity of the prefix cache.
    pub cache_tokens: u64,
    /// Models in memory at a time; all of them when it is not set.
    pub loaded_max: Option<usize>,
    /// Time to load a model, in milliseconds.
    #[serde(default)]
    pub load_ms: f64,
    /// Respond with 503 instead of waiting for a model.
    #[serde(default)]
    pub refuse_while_loading: bool,
    /// Context length that is reported, in tokens.
    #[serde(default = "context_length")]
    pub context_length: u64,
    /// Send the head of a stream on arrival, as vLLM does, and not with the first token.
    #[serde(default)]
    pub early_head: bool,
    /// From when prefill is slower, in seconds from the start of the load.
    #[serde(default)]
    pub slow_from_s: f64,
    /// Until when prefill is slower.
    #[serde(default)]
    pub slow_until_s: f64,
    /// How much slower it is.
    #[serde(default = "one_time")]
    pub slow_factor: f64,
    /// What they report wrongly.
    #[serde(default)]
    pub lies: Vec<Lie>,
    /// Deviation of the logarithm of prefill speed; that of the scenario when it is not set.
    pub noise: Option<f64>,
}

/// A group of equal users.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadSpec {
    /// Its name in reports.
    pub name: String,
    /// The client that they are of.
    pub key: Option<String>,
    /// The models they use, one for each conversation.
    pub models: Vec<String>,
    /// The nth model is used in proportion to n to the power of minus this; 0 uses all alike.
    #[serde(default)]
    pub zipf: f64,
    /// Conversations that begin each second, at random times.
    #[serde(default)]
    pub arrivals: f64,
    /// Users who begin a conversation when their last one is over; excludes `arrivals`.
    #[serde(default)]
    pub users: usize,
    /// Requests of a conversation.
    pub rounds: usize,
    /// Mean pause before the next request of a conversation, in milliseconds.
    #[serde(default)]
    pub think_ms: f64,
    /// Number of different system prompts.
    pub groups: usize,
    /// Length of a system prompt.
    pub system_tokens: usize,
    /// Length of what a user says.
    pub user_tokens: usize,
    /// Length of a response.
    pub output_tokens: usize,
}

fn one() -> usize {
    1
}

fn one_time() -> f64 {
    1.0
}

fn context_length() -> u64 {
    131_072
}

impl EngineSpec {
    /// Models in memory at a time.
    pub fn resident_max(&self) -> usize {
        self.loaded_max.unwrap_or(self.models.len())
    }

    /// True when it misreports this.
    pub fn has_lie(&self, lie: Lie) -> bool {
        self.lies.contains(&lie)
    }
}

impl Scenario {
    /// Reads a file and checks it.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text).map_err(|problem| format!("{}: {problem}", path.display()))
    }

    /// The same from the text of a file.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let scenario: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        positive("seconds", self.seconds)?;
        not_negative("noise", self.noise)?;
        if self.engines.is_empty() || self.load.is_empty() {
            return Err("expected at least one entry each in engines and load".to_owned());
        }
        for (place, engine) in self.engines.iter().enumerate() {
            engine.check(place)?;
        }
        for (place, load) in self.load.iter().enumerate() {
            load.check(place)?;
            let has = |model: &String| self.engines.iter().any(|one| one.models.contains(model));
            if let Some(model) = load.models.iter().find(|model| !has(model)) {
                return Err(format!(
                    "load[{place}].models: expected models of engines, got \"{model}\""
                ));
            }
            if self.load[..place]
                .iter()
                .any(|other| other.name == load.name)
            {
                return Err(format!(
                    "load[{place}].name: expected a name of its own, got \"{}\"",
                    load.name
                ));
            }
        }
        Ok(())
    }
}

impl EngineSpec {
    fn check(&self, place: usize) -> Result<(), String> {
        let key = |name: &str| format!("engines[{place}].{name}");
        for (name, count) in [
            ("count", self.count),
            ("models", self.models.len()),
            ("slots", self.slots),
            ("loaded_max", self.resident_max()),
        ] {
            positive(&key(name), count as f64)?;
        }
        positive(&key("prefill_tps"), self.prefill_tps)?;
        positive(&key("slow_factor"), self.slow_factor)?;
        for (name, number) in [
            ("decode_ms", self.decode_ms),
            ("decode_ms_each", self.decode_ms_each),
            ("load_ms", self.load_ms),
            ("noise", self.noise.unwrap_or(0.0)),
        ] {
            not_negative(&key(name), number)?;
        }
        // They are written into JSON as they are.
        let is_plain = |name: &&String| {
            let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
            !name.is_empty() && name.bytes().all(plain)
        };
        match self.models.iter().find(|name| !is_plain(name)) {
            Some(name) => Err(format!(
                "{}: expected letters, digits and signs besides \" and \\, got {name:?}",
                key("models")
            )),
            None => Ok(()),
        }
    }
}

impl LoadSpec {
    fn check(&self, place: usize) -> Result<(), String> {
        let key = |name: &str| format!("load[{place}].{name}");
        for (name, count) in [
            ("models", self.models.len()),
            ("rounds", self.rounds),
            ("groups", self.groups),
            ("output_tokens", self.output_tokens),
        ] {
            positive(&key(name), count as f64)?;
        }
        for (name, number) in [
            ("zipf", self.zipf),
            ("arrivals", self.arrivals),
            ("think_ms", self.think_ms),
        ] {
            not_negative(&key(name), number)?;
        }
        if (self.users > 0) == (self.arrivals > 0.0) {
            return Err(format!(
                "load[{place}]: expected either users or arrivals above 0"
            ));
        }
        Ok(())
    }
}

fn positive(key: &str, number: f64) -> Result<(), String> {
    if number > 0.0 && number.is_finite() {
        return Ok(());
    }
    Err(format!("{key}: expected a number above 0, got {number}"))
}

fn not_negative(key: &str, number: f64) -> Result<(), String> {
    if number >= 0.0 && number.is_finite() {
        return Ok(());
    }
    Err(format!(
        "{key}: expected a number of at least 0, got {number}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGINE: &str = r#"{"kind":"vllm","models":["m"],"slots":2,"prefill_tps":1000,
        "decode_ms":5,"cache_tokens":3200}"#;
    const LOAD: &str = r#"{"name":"chat","models":["m"],"arrivals":2,"rounds":3,"groups":4,
        "system_tokens":100,"user_tokens":10,"output_tokens":20}"#;

    fn text(engine: &str, load: &str) -> String {
        format!(r#"{{"seconds":10,"engines":[{engine}],"load":[{load}]}}"#)
    }

    #[test]
    fn every_scenario_of_the_folder_is_one() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(Scenario::read(&path).map(|_| ()), Ok(()));
            count += 1;
        }
        assert!(count >= 9, "{count} scenarios");
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let scenario = Scenario::parse(&text(ENGINE, LOAD)).unwrap();
        let engine = &scenario.engines[0];
        assert_eq!((engine.count, engine.resident_max()), (1, 1));
        assert_eq!((engine.slow_factor, scenario.noise), (1.0, 0.0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let engine = |from: &str, to: &str| text(&ENGINE.replace(from, to), LOAD);
        let load = |from: &str, to: &str| text(ENGINE, &LOAD.replace(from, to));
        let table = [
            (
                engine("\"slots\":2", "\"slots\":0"),
                "engines[0].slots: expected a number above 0",
            ),
            (engine("[\"m\"]", "[]"), "engines[0].models: expected"),
            (
                engine("1000", "-1"),
                "engines[0].prefill_tps: expected a number above 0, got -1",
            ),
            (engine("\"slots\"", "\"slot\""), "unknown field `slot`"),
            (
                load("\"arrivals\":2", "\"arrivals\":0"),
                "load[0]: expected either users or",
            ),
            (
                load("\"arrivals\":2", "\"arrivals\":2,\"users\":1"),
                "load[0]: expected either",
            ),
            (
                load("\"rounds\":3", "\"rounds\":0"),
                "load[0].rounds: expected",
            ),
            (
                text(ENGINE, LOAD).replace("10,\"engines", "0,\"engines"),
                "seconds: expected",
            ),
            (
                engine("[\"m\"]", "[\"m\", \"a b\"]"),
                "engines[0].models: expected letters",
            ),
            (
                load("[\"m\"]", "[\"m\", \"x\"]"),
                "load[0].models: expected models of engines, got \"x\"",
            ),
            (
                text(ENGINE, &format!("{LOAD},{LOAD}")),
                "load[1].name: expected a name of its own, got \"chat\"",
            ),
            ("{".to_owned(), "EOF"),
        ];
        for (text, want) in table {
            let problem = Scenario::parse(&text).unwrap_err();
            assert!(problem.starts_with(want), "{problem}, not {want}");
        }
    }
}
