//! The tables that derive facts from names and reported texts, built in or the user's own.
//!
//! Contract: docs/contract/catalogue.md#5.4 to docs/contract/catalogue.md#5.6,
//! docs/contract/catalogue.md#5.9

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use rustc_hash::FxHashMap;
use serde::Deserialize;

use crate::config::toml_of_yaml;
use crate::providers::ModelKind;

/// Name of the user's file.
const FILE_NAME: &str = "models.toml";

/// The name of Olla's own file, in YAML.
const OLLA_FILE_NAME: &str = "models.yaml";

/// The largest file that is read; the built-in one has 5 KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The largest compiled form of one pattern of the user.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Most different capabilities, so that a set of them is one number.
const MAX_CAPABILITIES: usize = 128;

static BUILTIN_TABLES: LazyLock<Tables> = LazyLock::new(|| {
    toml::from_str(include_str!("../models.toml"))
        .unwrap_or_else(|error| unreachable!("models.toml does not parse: {error}"))
});

static BUILTIN: LazyLock<ModelRules> =
    LazyLock::new(|| ModelRules::compile(Tables::default(), &mut Vec::new()));

/// A set of capabilities; [`ModelRules::words`] names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities(u128);

impl Capabilities {
    /// The union.
    #[must_use]
    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the sets have a common element.
    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The tables in force.
#[derive(Debug, Clone)]
pub struct ModelRules {
    family_set: RegexSet,
    families: Vec<FamilyPattern>,
    family_aliases: BTreeMap<String, String>,
    /// Longest first.
    architectures: Vec<(String, String)>,
    /// Longest first.
    publishers: Vec<(String, String)>,
    /// Keys in upper case.
    quantizations: FxHashMap<String, String>,
    preserve: Vec<String>,
    generic: Vec<String>,
    /// Sorted; the place of a word is its bit in [`Capabilities`].
    vocabulary: Vec<String>,
    by_kind: [Capabilities; 3],
    by_name: Vec<(Regex, Capabilities)>,
    /// The capabilities of context lengths from the first number up to below the second.
    by_context: Vec<(u64, u64, Capabilities)>,
}

#[derive(Debug, Clone)]
struct FamilyPattern {
    regex: Regex,
    family_group: usize,
    variant_group: usize,
}

/// The file, with only those tables that it holds.
#[derive(Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(default)]
struct Tables {
    model_extraction: Extraction,
    quantization: Quantization,
    capabilities: CapabilityTables,
    special_rules: SpecialRules,
}

#[derive(Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(default)]
struct Extraction {
    family_patterns: Option<Vec<WrittenFamily>>,
    family_aliases: Option<BTreeMap<String, String>>,
    architecture_mappings: Option<BTreeMap<String, String>>,
    publisher_mappings: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Debug, Clone, PartialEq)]
struct WrittenFamily {
    pattern: String,
    #[serde(default)]
    family_group: usize,
    #[serde(default)]
    variant_group: usize,
}

#[derive(Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(default)]
struct Quantization {
    mappings: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(default)]
struct CapabilityTables {
    type_capabilities: Option<BTreeMap<String, Vec<String>>>,
    name_patterns: Option<Vec<WrittenPattern>>,
    context_thresholds: Option<BTreeMap<String, u64>>,
}

#[derive(Deserialize, Debug, Clone, PartialEq)]
struct WrittenPattern {
    pattern: String,
    capabilities: Vec<String>,
}

#[derive(Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(default)]
struct SpecialRules {
    preserve_family: Option<Vec<String>>,
    generic_names: Option<Vec<String>>,
}

impl ModelRules {
    /// The built-in tables.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// The possible places of the user's file: the folder of the configuration, the working
    /// directory, its `config/`, and the folder of `OLLA_CONFIG_DIR`. Our own format in any of them
    /// goes before Olla's (docs/contract/catalogue.md#5.9).
    pub fn places(beside: Option<&Path>, cwd: &Path, config_dir: Option<&Path>) -> Vec<PathBuf> {
        let mut dirs: Vec<_> = beside.map(Path::to_path_buf).into_iter().collect();
        dirs.extend([cwd.to_path_buf(), cwd.join("config")]);
        dirs.extend(config_dir.map(|dir| cwd.join(dir)));
        let named = |name: &'static str| dirs.iter().map(move |dir| dir.join(name));
        named(FILE_NAME).chain(named(OLLA_FILE_NAME)).collect()
    }

    /// The built-in tables, replaced by those of the first usable of these files. The texts
    /// are warnings: which file or pattern was skipped, and why. A file need not exist.
    pub fn load(places: &[PathBuf]) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        for place in places.iter().filter(|place| place.exists()) {
            match read(place) {
                Ok(tables) => {
                    let mut faults = Vec::new();
                    let rules = Self::compile(tables, &mut faults);
                    let place = place.display();
                    warnings.extend(faults.iter().map(|fault| format!("{place}: {fault}")));
                    return (rules, warnings);
                }
                Err(reason) => warnings.push(format!("{} skipped: {reason}", place.display())),
            }
        }
        (Self::builtin().clone(), warnings)
    }

    /// The words of a set, sorted.
    pub fn words(&self, set: Capabilities) -> impl Iterator<Item = &str> + Clone {
        let words = self.vocabulary.iter().enumerate();
        words
            .filter(move |(bit, _)| set.0 >> bit & 1 == 1)
            .map(|(_, word)| word.as_str())
    }

    /// The set of one word, in any letter case; empty if no table has it.
    pub(super) fn capability(&self, word: &str) -> Capabilities {
        let mut vocabulary = self.vocabulary.iter();
        let bit = vocabulary.position(|known| known.eq_ignore_ascii_case(word));
        Capabilities(bit.map_or(0, |bit| 1 << bit))
    }

    pub(super) fn of_kind(&self, kind: ModelKind) -> Capabilities {
        let [llm, vlm, embeddings] = self.by_kind;
        match kind {
            ModelKind::Llm => llm,
            ModelKind::Vlm => vlm,
            ModelKind::Embeddings => embeddings,
        }
    }

    pub(super) fn of_name(&self, name: &str) -> Capabilities {
        let matching = self
            .by_name
            .iter()
            .filter(|(regex, _)| regex.is_match(name));
        matching.fold(Capabilities::default(), |all, (_, set)| all.or(*set))
    }

    pub(super) fn of_context(&self, tokens: u64) -> Capabilities {
        let reached = self.by_context.iter();
        reached
            .filter(|(from, below, _)| (*from..*below).contains(&tokens))
            .fold(Capabilities::default(), |all, (_, _, set)| all.or(*set))
    }

    /// Family and variant derived from a name, `""` if there is none
    /// (docs/contract/catalogue.md#5.4).
    pub(super) fn family<'n>(&'n self, lower: &'n str) -> (&'n str, &'n str) {
        let name = lower.trim();
        if self.generic.iter().any(|generic| generic == name) {
            return ("", "");
        }
        let (family, variant) = self
            .preserved(name)
            .or_else(|| self.by_pattern(name))
            .or_else(|| self.by_architecture(name))
            .unwrap_or(("", ""));
        let alias = self.family_aliases.get(family);
        (alias.map_or(family, String::as_str), variant)
    }

    fn preserved(&self, name: &str) -> Option<(&str, &str)> {
        let last = name.rsplit('/').next()?;
        let found = self.preserve.iter().find(|word| {
            last.strip_prefix(word.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_', ':', '.']))
        })?;
        Some((found, ""))
    }

    fn by_pattern<'n>(&self, name: &'n str) -> Option<(&'n str, &'n str)> {
        // One pass over the name for all patterns; most names match none or one.
        for at in &self.family_set.matches(name) {
            let Some(pattern) = self.families.get(at) else {
                continue;
            };
            let Some(captures) = pattern.regex.captures(name) else {
                continue;
            };
            let group = |group: usize| {
                let found = (group > 0).then(|| captures.get(group)).flatten();
                found.map_or("", |found| found.as_str())
            };
            let family = group(pattern.family_group);
            if !family.is_empty() {
                return Some((family, group(pattern.variant_group)));
            }
        }
        None
    }

    fn by_architecture(&self, name: &str) -> Option<(&str, &str)> {
        let first = name.split(['-', '_', ':', '/']).next()?;
        longest_prefix(&self.architectures, first).map(|family| (family, ""))
    }

    /// The publisher of models with a name that begins like this, without the rule for
    /// `<publisher>/` (docs/contract/catalogue.md#5.5).
    pub(super) fn publisher(&self, lower: &str) -> Option<&str> {
        longest_prefix(&self.publishers, lower)
    }

    /// The short form of a quantisation that a table gives.
    pub(super) fn quantization(&self, upper: &str) -> Option<&str> {
        self.quantizations.get(upper).map(String::as_str)
    }

    /// Compiles the given tables; the built-in ones replace those that are missing.
    fn compile(given: Tables, faults: &mut Vec<String>) -> Self {
        let builtin = BUILTIN_TABLES.clone();
        let (extraction, own) = (builtin.model_extraction, given.model_extraction);
        let (families, family_set) = families(
            either(own.family_patterns, extraction.family_patterns),
            faults,
        );
        let (capabilities, own_capabilities) = (builtin.capabilities, given.capabilities);
        let mut vocabulary = Vocabulary::default();
        let kinds = own_capabilities.type_capabilities;
        let kinds = either(kinds, capabilities.type_capabilities);
        let patterns = own_capabilities.name_patterns;
        let patterns = either(patterns, capabilities.name_patterns);
        let thresholds = own_capabilities.context_thresholds;
        let thresholds = either(thresholds, capabilities.context_thresholds);
        vocabulary.extend(kinds.values().flatten());
        vocabulary.extend(patterns.iter().flat_map(|pattern| &pattern.capabilities));
        let dashed = |word: &String| word.replace('_', "-");
        vocabulary.extend(&thresholds.keys().map(dashed).collect::<Vec<_>>());
        vocabulary.settle(faults);
        let kind = |kind: ModelKind| vocabulary.set(kinds.get(kind.as_str()).into_iter().flatten());
        let by_name = patterns.iter().filter_map(|written| {
            let regex = compiled(&written.pattern, true, faults)?;
            Some((regex, vocabulary.set(&written.capabilities)))
        });
        let by_name = by_name.collect();
        let long = thresholds.get("long_context").copied().unwrap_or(u64::MAX);
        let by_context = thresholds.iter().map(|(word, from)| {
            let below = if word == "extended_context" {
                long
            } else {
                u64::MAX
            };
            (*from, below, vocabulary.set([&dashed(word)]))
        });
        let mappings = either(given.quantization.mappings, builtin.quantization.mappings);
        let upper = |(key, value): (String, String)| (key.to_uppercase(), value);
        let (special, own_special) = (builtin.special_rules, given.special_rules);
        Self {
            family_set,
            families,
            family_aliases: either(own.family_aliases, extraction.family_aliases),
            architectures: longest_first(either(
                own.architecture_mappings,
                extraction.architecture_mappings,
            )),
            publishers: longest_first(either(
                own.publisher_mappings,
                extraction.publisher_mappings,
            )),
            quantizations: mappings.into_iter().map(upper).collect(),
            preserve: lower(either(own_special.preserve_family, special.preserve_family)),
            generic: lower(either(own_special.generic_names, special.generic_names)),
            by_kind: [
                kind(ModelKind::Llm),
                kind(ModelKind::Vlm),
                kind(ModelKind::Embeddings),
            ],
            by_name,
            by_context: by_context.collect(),
            vocabulary: vocabulary.words,
        }
    }
}

/// All words of the tables.
#[derive(Default)]
struct Vocabulary {
    words: Vec<String>,
}

impl Vocabulary {
    fn extend<'w>(&mut self, words: impl IntoIterator<Item = &'w String>) {
        self.words.extend(words.into_iter().cloned());
    }

    fn settle(&mut self, faults: &mut Vec<String>) {
        self.words.retain(|word| !word.is_empty());
        self.words.sort();
        self.words.dedup();
        if self.words.len() > MAX_CAPABILITIES {
            faults.push(format!(
                "only the first {MAX_CAPABILITIES} of {} capabilities count",
                self.words.len()
            ));
            self.words.truncate(MAX_CAPABILITIES);
        }
    }

    fn set<'w>(&self, words: impl IntoIterator<Item = &'w String>) -> Capabilities {
        let bits = words
            .into_iter()
            .filter_map(|word| self.words.binary_search(word).ok())
            .map(|bit| 1 << bit);
        Capabilities(bits.fold(0, |all, bit: u128| all | bit))
    }
}

fn families(
    written: Vec<WrittenFamily>,
    faults: &mut Vec<String>,
) -> (Vec<FamilyPattern>, RegexSet) {
    let compiled = written.into_iter().filter_map(|written| {
        Some(FamilyPattern {
            regex: compiled(&written.pattern, false, faults)?,
            family_group: written.family_group,
            variant_group: written.variant_group,
        })
    });
    let families: Vec<_> = compiled.collect();
    let patterns = families.iter().map(|family| family.regex.as_str());
    let set = RegexSetBuilder::new(patterns)
        .size_limit(MAX_PATTERN_BYTES * 16)
        .build();
    match set {
        Ok(set) => (families, set),
        Err(error) => {
            faults.push(format!("family_patterns skipped: {error}"));
            (Vec::new(), RegexSet::empty())
        }
    }
}

fn compiled(pattern: &str, ignore_case: bool, faults: &mut Vec<String>) -> Option<Regex> {
    let regex = RegexBuilder::new(pattern)
        .case_insensitive(ignore_case)
        .size_limit(MAX_PATTERN_BYTES)
        .build();
    regex
        .inspect_err(|error| {
            let reason = error.to_string();
            let reason: Vec<_> = reason.lines().map(str::trim).collect();
            faults.push(format!("pattern {pattern:?} skipped: {}", reason.join(" ")));
        })
        .ok()
}

fn longest_first(table: BTreeMap<String, String>) -> Vec<(String, String)> {
    let table = table.into_iter();
    let mut pairs: Vec<_> = table
        .map(|(key, value)| (key.to_lowercase(), value))
        .collect();
    pairs.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
    pairs
}

fn longest_prefix<'t>(longest_first: &'t [(String, String)], text: &str) -> Option<&'t str> {
    let mut pairs = longest_first.iter();
    let found = pairs.find(|(key, _)| text.starts_with(key.as_str()));
    found.map(|(_, value)| value.as_str())
}

/// A table of the user's file, or else the built-in one. A table that neither has is empty.
fn either<T: Default>(own: Option<T>, builtin: Option<T>) -> T {
    own.or(builtin).unwrap_or_default()
}

fn lower(words: Vec<String>) -> Vec<String> {
    words.into_iter().map(|word| word.to_lowercase()).collect()
}

fn read(place: &Path) -> Result<Tables, String> {
    let about = fs::metadata(place).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is not a file".to_owned());
    }
    if about.len() > MAX_FILE_BYTES {
        return Err(format!("it is larger than {MAX_FILE_BYTES} bytes"));
    }
    let bytes = fs::read(place).map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let text = match place.extension().is_some_and(|ending| ending == "yaml") {
        true => toml_of_yaml(&text)?,
        false => text,
    };
    let tables: Tables = toml::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| {
        let lines: Vec<_> = error.message().lines().map(str::trim).collect();
        lines.join(" ")
    })?;
    if tables == Tables::default() {
        return Err("it contains none of the tables for model names".to_owned());
    }
    Ok(tables)
}

#[cfg(test)]
mod tests;
