//! A catalogue built on the one before is the one that is built from nothing.

use crate::catalogue::formats::Format;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const NAMES: [&str; 10] = [
    "llama3:8b",
    "Llama3:8B",
    "qwen3",
    "Qwen/Qwen3-8B",
    "nomic-embed-text",
    "llava:7b",
    "phi4",
    "mistral:7b",
    "code-x",
    "llama3:8b-d1",
];
const DIGESTS: [&str; 4] = ["", "d1", "d2", "sha256:0123456789"];

/// What happens between two builds.
#[derive(Debug, Clone)]
enum Step {
    /// An endpoint lists these names and digests.
    Lists(usize, Vec<(usize, usize)>),
    /// An endpoint goes down, or comes up.
    Turns(usize),
    /// An endpoint is taken for another kind.
    Becomes(usize, &'static str),
    /// An endpoint goes out of the configuration.
    Leaves(usize),
    /// Other aliases are configured.
    Aliases(usize),
    /// Names are understood by other tables, or by the same read anew.
    ModelRules(bool),
    /// The unifier is switched.
    Unifier,
}

fn step() -> impl Strategy<Value = Step> {
    let models = vec((0..NAMES.len(), 0..DIGESTS.len()), 0..7);
    prop_oneof![
        4 => (0..4_usize, models).prop_map(|(at, models)| Step::Lists(at, models)),
        3 => (0..4_usize).prop_map(Step::Turns),
        1 => (0..4_usize, prop_oneof![Just("vllm"), Just("ollama")])
            .prop_map(|(at, kind)| Step::Becomes(at, kind)),
        1 => (0..4_usize).prop_map(Step::Leaves),
        1 => (0..NAMES.len()).prop_map(Step::Aliases),
        1 => any::<bool>().prop_map(Step::ModelRules),
        1 => Just(Step::Unifier),
    ]
}

/// A fleet that things happen to.
struct World {
    backends: Vec<Backend>,
    aliases: Vec<AliasPlan>,
    rules: Arc<ModelRules>,
    enable_unifier: bool,
}

impl World {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Lists(at, models) => {
                let models: Vec<_> = models
                    .iter()
                    .map(|(name, digest)| (NAMES[*name], DIGESTS[*digest]))
                    .collect();
                if let Some(backend) = self.backends.get_mut(*at) {
                    backend.models = up("", "ollama", &tags(&models)).models;
                }
            }
            Step::Turns(at) => {
                if let Some(backend) = self.backends.get_mut(*at) {
                    backend.routable = !backend.routable;
                }
            }
            Step::Becomes(at, kind) => {
                if let Some(backend) = self.backends.get_mut(*at) {
                    backend.profile = up("", kind, &data(&[])).profile;
                }
            }
            Step::Leaves(at) => {
                if *at < self.backends.len() {
                    self.backends.remove(*at);
                }
            }
            Step::Aliases(target) => self.aliases = vec![alias("fast", &[NAMES[*target]])],
            Step::ModelRules(own) => self.rules = Arc::new(rules(*own)),
            Step::Unifier => self.enable_unifier = !self.enable_unifier,
        }
    }

    fn build(&self, previous: Option<&Catalogue>) -> Catalogue {
        Setup {
            aliases: &self.aliases,
            enable_unifier: self.enable_unifier,
            rules: &self.rules,
            previous,
            ..Setup::of(&self.backends)
        }
        .build()
    }
}

/// The built-in tables, or some by which other names tell other things.
fn rules(own: bool) -> ModelRules {
    static OWN: LazyLock<ModelRules> = LazyLock::new(own_rules);
    if own {
        OWN.clone()
    } else {
        ModelRules::builtin().clone()
    }
}

fn own_rules() -> ModelRules {
    let folder = std::env::temp_dir().join(format!("olla-incremental-{}", std::process::id()));
    let place = folder.join("models.toml");
    let text = "model_extraction.family_aliases = { llama = 'camel' }\n\
                capabilities.name_patterns = [{ pattern = 'qwen', capabilities = ['vision'] }]\n";
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(&place, text).unwrap();
    let (rules, warnings) = ModelRules::load(&[place]);
    assert_eq!(warnings, [""; 0]);
    rules
}

/// Everything that can be asked of it.
fn shown(catalogue: &Catalogue) -> Vec<String> {
    let text = |body: Bytes| String::from_utf8(body.to_vec()).unwrap();
    let mut all = vec![text(catalogue.models("").unwrap())];
    for format in Format::ALL {
        let format = format.as_str();
        for query in [
            format!("format={format}"),
            format!("format={format}&include_unavailable=true"),
        ] {
            all.push(text(catalogue.models(&query).unwrap()));
        }
    }
    for (kind, form) in [
        ("ollama", ListingForm::Native),
        ("vllm", ListingForm::OpenAi),
    ] {
        let profile = Profiles::builtin().get(kind).cloned();
        all.push(text(catalogue.scoped(&Scoped { profile, form })));
    }
    for name in NAMES.iter().copied().chain(["fast", "llama3:8b-d2"]) {
        all.push(format!("{:?}", catalogue.model(name, &times(NOW))));
    }
    all.push(format!("{:?}", catalogue.named_models()));
    all.push(format!(
        "{:?} {:?}",
        catalogue.served_ids(),
        catalogue.vision()
    ));
    all
}

proptest! {
    #[test]
    fn a_catalogue_does_not_depend_on_the_one_before(steps in vec(step(), 1..12)) {
        let kinds = [("a", "ollama"), ("b", "vllm"), ("c", "ollama"), ("d", "vllm")];
        let mut world = World {
            backends: kinds.map(|(name, kind)| Backend {
                models: up("", "ollama", &tags(&[("llama3:8b", "d1")])).models,
                ..up(name, kind, "{}")
            }).into(),
            aliases: Vec::new(),
            rules: Arc::clone(&RULES),
            enable_unifier: true,
        };
        let mut before = world.build(None);
        for step in &steps {
            world.take(step);
            let after = world.build(Some(&before));
            prop_assert_eq!(shown(&after), shown(&world.build(None)), "{:?}", step);
            if let Step::Turns(_) = step {
                prop_assert!(after.has_models_of(&before), "health alone merges nothing anew");
            }
            before = after;
        }
    }
}
