//! Names in lower case, as the keys of tables in which letter case does not count.
//!
//! Contract: docs/contract/balancing.md#4.1

use crate::endpoint_set::EndpointSet;

/// The longest name, in bytes, that is lowercased without an allocation; longer than any in use.
const FOLD_BYTES: usize = 192;

/// The tag that Ollama and its clients add to a name without a tag.
pub(crate) const LATEST: &str = ":latest";

/// Looks a name up among the endpoints of a scope: in any letter case; if that finds nothing and the
/// name has no tag, with `:latest` among those of them that complete names so.
pub(crate) fn find_by_name<R>(
    name: &str,
    scope: &EndpointSet,
    completing: impl FnOnce() -> EndpointSet,
    mut look: impl FnMut(&str, &EndpointSet) -> Option<R>,
) -> Option<R> {
    let found = with_folded(name, "", |key| look(key, scope));
    if found.is_some() || name.contains(':') {
        return found;
    }
    let completing = completing().and(scope);
    if completing.is_empty() {
        return None;
    }
    with_folded(name, LATEST, |key| look(key, &completing))
}

/// Calls a function with a name in lower case and a suffix after it.
pub(crate) fn with_folded<R>(name: &str, suffix: &str, look: impl FnOnce(&str) -> R) -> R {
    let mut stack = [0; FOLD_BYTES];
    if name.is_ascii()
        && let Some(key) = stack.get_mut(..name.len() + suffix.len())
        && let Some((front, back)) = key.split_at_mut_checked(name.len())
    {
        front.copy_from_slice(name.as_bytes());
        front.make_ascii_lowercase();
        back.copy_from_slice(suffix.as_bytes());
        if let Ok(key) = std::str::from_utf8(key) {
            return look(key);
        }
    }
    let mut key = name.to_lowercase();
    key.push_str(suffix);
    look(&key)
}
