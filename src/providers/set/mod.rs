//! All profiles in force, the built-in ones and the user's own, and the owners of prefixes.
//!
//! Contract: docs/contract/catalogue.md#1.1, docs/contract/catalogue.md#1.5,
//! docs/contract/catalogue.md#1.6

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::{fs, io};

use rustc_hash::FxHashMap;

use super::file;
use super::filter::admits;
use super::profile::Profile;
use crate::config::{NameFilter, TypeName, toml_of_yaml};

/// The profile of servers of unknown kind.
pub(crate) const OPENAI_COMPATIBLE: &str = "openai-compatible";

/// Largest profile file; the built-in ones have 2 KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Maximum number of directory entries read in all folders of profiles, so that a wrong folder does
/// not delay the start.
const MAX_DIR_ENTRIES: usize = 10_000;

/// Maximum depth of subfolders that are read; ends loops of links.
const MAX_DEPTH: usize = 16;

/// The built-in profiles.
const BUILTIN: [&str; 18] = [
    include_str!("../builtin/docker-model-runner.toml"),
    include_str!("../builtin/koboldcpp.toml"),
    include_str!("../builtin/lemonade.toml"),
    include_str!("../builtin/litellm.toml"),
    include_str!("../builtin/llama-swap.toml"),
    include_str!("../builtin/llamacpp.toml"),
    include_str!("../builtin/lm-studio.toml"),
    include_str!("../builtin/lmdeploy.toml"),
    include_str!("../builtin/localai.toml"),
    include_str!("../builtin/mlx-lm.toml"),
    include_str!("../builtin/ollama.toml"),
    include_str!("../builtin/omlx.toml"),
    include_str!("../builtin/openai-compatible.toml"),
    include_str!("../builtin/sglang.toml"),
    include_str!("../builtin/tabbyapi.toml"),
    include_str!("../builtin/tgi.toml"),
    include_str!("../builtin/vllm.toml"),
    include_str!("../builtin/vllm-mlx.toml"),
];

static BUILTIN_PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    // A test holds that all of them parse.
    let parsed = BUILTIN.iter().filter_map(|text| file::parse(text).ok());
    parsed.map(|(profile, _)| profile).collect()
});

/// The provider profiles in force, sorted by name.
#[derive(Debug, Clone, Default)]
pub struct Profiles {
    /// Profiles, each with only the prefixes that it keeps.
    all: Vec<Arc<Profile>>,
    /// Profiles, each with all prefixes that it claims, in the order of `all`.
    claims: Vec<Arc<Profile>>,
    by_prefix: FxHashMap<String, usize>,
}

impl Profiles {
    /// The profiles that come with the gateway.
    pub fn builtin() -> Self {
        Self::load(&[]).0
    }

    /// The names of those profiles.
    pub(crate) fn builtin_names() -> impl Iterator<Item = &'static str> {
        BUILTIN_PROFILES.iter().map(|profile| profile.name.as_str())
    }

    /// The built-in profiles and those of the folders, each read with its subfolders in the order
    /// of the paths. A profile replaces an earlier one of its name. The texts are warnings: what
    /// was skipped or ignored, and why. A folder that does not exist is empty.
    pub fn load(dirs: &[PathBuf]) -> (Self, Vec<String>) {
        Self::load_with(dirs, &mut |_: &Path, _: &str| {})
    }

    /// The same. Calls `on_kept` with each YAML file that does not replace the built-in profile of
    /// its name, and the name: such files come with Olla and its images.
    pub fn load_with(
        dirs: &[PathBuf],
        on_kept: &mut dyn FnMut(&Path, &str),
    ) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let mut by_name: BTreeMap<String, Profile> = BTreeMap::new();
        for profile in BUILTIN_PROFILES.iter() {
            by_name.insert(profile.name.clone(), profile.clone());
        }
        for dir in dirs {
            for path in files(dir, &mut warnings) {
                match parsed(&path) {
                    Ok((profile, _)) if is_yaml(&path) && is_builtin(&profile.name) => {
                        on_kept(&path, &profile.name);
                    }
                    Ok((profile, ignored)) => {
                        let path = path.display();
                        warnings
                            .extend(ignored.iter().map(|what| format!("profile {path}: {what}")));
                        by_name.insert(profile.name.clone(), profile);
                    }
                    Err(reason) => {
                        warnings.push(format!("profile {} skipped: {reason}", path.display()));
                    }
                }
            }
        }
        let claims = by_name.into_values().map(Arc::new).collect();
        let profiles = Self::with_claims(claims, &mut warnings);
        (profiles, warnings)
    }

    /// The profiles that a filter admits. A prefix of an excluded profile goes to the next profile
    /// that claims it.
    #[must_use]
    pub fn filtered(&self, filter: &NameFilter) -> Self {
        let admitted = |profile: &&Arc<Profile>| admits(filter, &profile.name);
        let claims = self.claims.iter().filter(admitted).cloned().collect();
        // Conflicts were reported when the profiles were loaded.
        Self::with_claims(claims, &mut Vec::new())
    }

    /// Every profile, sorted by name.
    pub fn all(&self) -> &[Arc<Profile>] {
        &self.all
    }

    /// The profile of a canonical type.
    pub fn get(&self, canonical: &str) -> Option<&Arc<Profile>> {
        let found = self
            .all
            .binary_search_by(|profile| profile.name.as_str().cmp(canonical));
        found.ok().and_then(|at| self.all.get(at))
    }

    /// The profile that owns a prefix: the text between `/olla/` and the next slash.
    pub fn by_prefix(&self, prefix: &str) -> Option<&Arc<Profile>> {
        self.by_prefix.get(prefix).and_then(|at| self.all.get(*at))
    }

    /// The profile of an endpoint of type `auto` while its kind is unknown
    /// (docs/contract/catalogue.md#3.6). It exists even if the profile filter excludes it; then it
    /// has no prefix.
    pub fn fallback(&self) -> Arc<Profile> {
        if let Some(profile) = self.get(OPENAI_COMPATIBLE) {
            return Arc::clone(profile);
        }
        let found = BUILTIN_PROFILES
            .iter()
            .find(|profile| profile.name == OPENAI_COMPATIBLE);
        Arc::new(Profile {
            prefixes: Vec::new(),
            ..found.cloned().unwrap_or_else(Profile::default)
        })
    }

    /// Every accepted value of an endpoint's `type` but `auto`: the names of the profiles, then
    /// their other spellings. A name goes before another profile's prefix.
    pub fn type_names(&self) -> Vec<TypeName> {
        let name = |written: &str, profile: &Profile| TypeName {
            written: written.to_owned(),
            canonical: profile.name.clone(),
        };
        let mut names: Vec<_> = self.all.iter().map(|p| name(&p.name, p)).collect();
        for profile in &self.all {
            for written in profile.prefixes.iter().chain(&profile.type_aliases) {
                if !names.iter().any(|known| known.written == *written) {
                    names.push(name(written, profile));
                }
            }
        }
        names
    }

    /// Assigns each prefix to the claiming profile with the name that sorts first.
    fn with_claims(claims: Vec<Arc<Profile>>, warnings: &mut Vec<String>) -> Self {
        let mut by_prefix: FxHashMap<String, usize> = FxHashMap::default();
        let mut all = Vec::with_capacity(claims.len());
        for (at, profile) in claims.iter().enumerate() {
            let mut kept = Vec::new();
            for prefix in &profile.prefixes {
                let owner = *by_prefix.entry(prefix.clone()).or_insert(at);
                if owner == at {
                    kept.push(prefix.clone());
                } else if let Some(owner) = claims.get(owner) {
                    warnings.push(format!(
                        "profiles {:?} and {:?} both claim the prefix {prefix:?}; {:?} keeps it",
                        owner.name, profile.name, owner.name
                    ));
                }
            }
            all.push(if kept.len() == profile.prefixes.len() {
                Arc::clone(profile)
            } else {
                Arc::new(Profile {
                    prefixes: kept,
                    ..Profile::clone(profile)
                })
            });
        }
        Self {
            all,
            claims,
            by_prefix,
        }
    }
}

/// The profile files of a folder and the folders in it, in the order of their paths.
fn files(dir: &Path, warnings: &mut Vec<String>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries = 0;
    let mut open = vec![(dir.to_path_buf(), 0)];
    while let Some((dir, depth)) = open.pop() {
        let listed = match fs::read_dir(&dir) {
            Ok(listed) => listed,
            Err(error) if depth == 0 && error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                warnings.push(format!("profiles of {} skipped: {error}", dir.display()));
                continue;
            }
        };
        for entry in listed.flatten() {
            entries += 1;
            if entries > MAX_DIR_ENTRIES {
                warnings.push(format!(
                    "profiles of {}: only the first {MAX_DIR_ENTRIES} entries were read",
                    dir.display()
                ));
                found.sort();
                return found;
            }
            let path = entry.path();
            if path.is_dir() {
                if depth < MAX_DEPTH {
                    open.push((path, depth + 1));
                }
            } else if is_yaml(&path) || has_ending(&path, &["toml"]) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| endings.contains(&ending))
}

/// Whether a file has the format of Olla's own profiles.
fn is_yaml(path: &Path) -> bool {
    has_ending(path, &["yaml", "yml"])
}

fn is_builtin(name: &str) -> bool {
    BUILTIN_PROFILES.iter().any(|profile| profile.name == name)
}

/// Reads a profile file. The second value lists what was ignored.
fn parsed(path: &Path) -> Result<(Profile, Vec<String>), String> {
    let text = read(path)?;
    if is_yaml(path) {
        return file::parse(&toml_of_yaml(&text)?);
    }
    file::parse(&text)
}

fn read(path: &Path) -> Result<String, String> {
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is not a file".to_owned());
    }
    if about.len() > MAX_FILE_BYTES {
        return Err(format!("it is larger than {MAX_FILE_BYTES} bytes"));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests;
