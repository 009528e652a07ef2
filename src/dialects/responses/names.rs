//! The names of tools at an endpoint, which knows neither namespaces nor long names, and the way
//! back (docs/contract/dialects.md#7).
//!
//! A request may have as many tools as fit into it, and a namespace with a long name any number of
//! members: what is done for a tool takes the time and the memory of its own text.

use std::collections::HashMap;
use std::sync::Arc;

/// The longest name that all servers take, in characters.
const NAME_CHARS_MAX: usize = 64;

/// What stays of a longer one, before a hash of the whole.
const KEPT_CHARS: usize = 55;

/// The name under which an endpoint gets a tool.
pub(super) fn sent_name(namespace: Option<&str>, name: &str) -> String {
    NamePrefix::of(namespace).sent(name)
}

/// What the names of a namespace's tools begin with; its own length is read once.
#[derive(Debug)]
pub(super) struct NamePrefix {
    /// The first characters; not all of them if there are more than a name may have.
    kept: String,
    chars: usize,
    hash: u32,
}

impl NamePrefix {
    /// That of a namespace, or of the tools outside of one.
    pub(super) fn of(namespace: Option<&str>) -> Self {
        let whole = match namespace {
            Some(namespace) if !namespace.is_empty() => format!("{namespace}__"),
            _ => String::new(),
        };
        Self {
            kept: whole.chars().take(NAME_CHARS_MAX).collect(),
            chars: whole.chars().count(),
            hash: hash(HASH_START, whole.as_bytes()),
        }
    }

    /// The name under which an endpoint gets a tool.
    pub(super) fn sent(&self, name: &str) -> String {
        if self.chars + name.chars().count() <= NAME_CHARS_MAX {
            return format!("{}{name}", self.kept);
        }
        let kept = self.kept.chars().chain(name.chars()).take(KEPT_CHARS);
        let hash = hash(self.hash, name.as_bytes());
        format!("{}_{hash:08x}", kept.collect::<String>())
    }
}

/// The hash of no bytes.
const HASH_START: u32 = 0x811c_9dc5;

/// FNV-1a of further bytes: the same in every process, so that the same tools are always the same
/// text.
fn hash(before: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(before, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// What a client does with calls of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToolKind {
    /// It gets arguments in JSON.
    Function,
    /// It gets text.
    Custom,
    /// It runs a command.
    LocalShell,
}

/// A tool of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientTool {
    /// The endpoint's name of it.
    pub(super) sent: String,
    pub(super) kind: ToolKind,
    /// The client's name of it.
    pub(super) name: String,
    pub(super) namespace: Option<Arc<str>>,
}

/// The tools of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ToolNames {
    list: Vec<ClientTool>,
    /// The place of each, by the endpoint's name of it.
    places: HashMap<String, usize>,
    /// The place of each member of a namespace, by its own name; `None` if several have it.
    members: HashMap<String, Option<usize>>,
}

impl ToolNames {
    /// Adds a tool; false if another one has its name already.
    pub(super) fn add(&mut self, tool: ClientTool) -> bool {
        if self.places.contains_key(&tool.sent) {
            return false;
        }
        let at = self.list.len();
        self.places.insert(tool.sent.clone(), at);
        if tool.namespace.is_some() {
            let member = self.members.entry(tool.name.clone());
            member.and_modify(|at| *at = None).or_insert(Some(at));
        }
        self.list.push(tool);
        true
    }

    /// The place of the tool that endpoints know by this name.
    pub(super) fn position(&self, sent: &str) -> Option<usize> {
        self.places.get(sent).copied()
    }

    /// The tool at a place.
    pub(super) fn get(&self, at: usize) -> Option<&ClientTool> {
        self.list.get(at)
    }

    /// The tool that an endpoint means by this name: the one that it got under it, or the only
    /// member of a namespace that is called so.
    pub(super) fn called(&self, name: &str) -> Option<&ClientTool> {
        let member = || self.members.get(name).copied().flatten();
        let at = self.position(name).or_else(member)?;
        self.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_and_stay_distinct() {
        let long = "n".repeat(65);
        let other = format!("{}m", "n".repeat(64));
        for (namespace, name, sent) in [
            (None, "f", "f".to_owned()),
            (Some(""), "f", "f".to_owned()),
            (Some("ns"), "f", "ns__f".to_owned()),
            (None, &long[..64], long[..64].to_owned()),
        ] {
            assert_eq!(sent_name(namespace, name), sent);
        }
        for name in [long.as_str(), other.as_str(), &"é".repeat(70)] {
            let sent = sent_name(None, name);
            assert_eq!(sent.chars().count(), 64);
            let (kept, hash) = sent.rsplit_once('_').unwrap();
            assert!(name.starts_with(kept) && hash.len() == 8);
        }
        assert_ne!(sent_name(None, &long), sent_name(None, &other));
        assert_eq!(
            sent_name(Some("ns"), &long),
            sent_name(None, &format!("ns__{long}"))
        );
        for namespace in ["n".repeat(54), "n".repeat(63), "é".repeat(100)] {
            assert_eq!(
                sent_name(Some(&namespace), "f"),
                sent_name(None, &format!("{namespace}__f"))
            );
        }
    }

    #[test]
    fn the_first_tool_keeps_the_name() {
        let tool = |kind| ClientTool {
            sent: "f".to_owned(),
            kind,
            name: "f".to_owned(),
            namespace: None,
        };
        let mut names = ToolNames::default();
        assert!(names.add(tool(ToolKind::Function)));
        assert!(!names.add(tool(ToolKind::Custom)));
        assert_eq!(names.position("f"), Some(0));
        assert_eq!(names.get(0), Some(&tool(ToolKind::Function)));
        assert_eq!(names.get(1), None);
    }

    #[test]
    fn which_tool_is_called() {
        let mut names = ToolNames::default();
        for (namespace, name) in [
            (None, "plain"),
            (Some("a"), "one"),
            (Some("a"), "two"),
            (Some("b"), "two"),
            (Some("b"), "plain"),
        ] {
            assert!(names.add(ClientTool {
                sent: sent_name(namespace, name),
                kind: ToolKind::Function,
                name: name.to_owned(),
                namespace: namespace.map(Arc::from),
            }));
        }
        for (called, found) in [
            ("plain", Some((None, "plain"))),
            ("a__one", Some((Some("a"), "one"))),
            ("one", Some((Some("a"), "one"))),
            ("two", None),
            ("b__two", Some((Some("b"), "two"))),
            ("other", None),
        ] {
            let tool = names.called(called);
            let tool = tool.map(|tool| (tool.namespace.as_deref(), tool.name.as_str()));
            assert_eq!(tool, found, "{called}");
        }
    }
}
