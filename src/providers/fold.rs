//! Names in lower case, as the keys of tables in which letter case does not count.
//!
//! Contract: docs/contract/balancing.md#4.1

/// The longest name, in bytes, that is lowercased without an allocation; longer than any in use.
const FOLD_BYTES: usize = 192;

/// The tag that Ollama and its clients add to a name without a tag.
pub(crate) const LATEST: &str = ":latest";

/// A form in which a name is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameForm {
    /// As it is, in any letter case.
    Own,
    /// With [`LATEST`]: only servers that complete names so know it in this form
    /// ([`Profile::completes_tags`](super::Profile::completes_tags)).
    Completed,
}

/// Looks a name up in lower case: as it is; if that finds nothing and the name has no tag, as Ollama
/// completes it.
pub(crate) fn find_by_name<R>(
    name: &str,
    mut look: impl FnMut(&str, NameForm) -> Option<R>,
) -> Option<R> {
    let found = with_folded(name, "", |key| look(key, NameForm::Own));
    if found.is_some() || name.contains(':') {
        return found;
    }
    with_folded(name, LATEST, |key| look(key, NameForm::Completed))
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
