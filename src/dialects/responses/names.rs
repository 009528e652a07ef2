//! The names of tools at an endpoint, which knows neither namespaces nor long names, and the way
//! back (docs/contract/dialects.md#7).

/// The longest name that all servers take, in characters.
const NAME_CHARS_MAX: usize = 64;

/// What stays of a longer one, before a hash of the whole.
const KEPT_CHARS: usize = 55;

/// The name under which an endpoint gets a tool.
pub(super) fn sent_name(namespace: Option<&str>, name: &str) -> String {
    let whole = match namespace {
        Some(namespace) if !namespace.is_empty() => format!("{namespace}__{name}"),
        _ => name.to_owned(),
    };
    if whole.chars().count() <= NAME_CHARS_MAX {
        return whole;
    }
    let kept: String = whole.chars().take(KEPT_CHARS).collect();
    format!("{kept}_{:08x}", hash(whole.as_bytes()))
}

/// FNV-1a: the same in every process, so that the same tools are always the same text.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
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
    pub(super) namespace: Option<String>,
}

/// The tools of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ToolNames(Vec<ClientTool>);

impl ToolNames {
    /// Adds a tool; false if another one has its name already.
    pub(super) fn add(&mut self, tool: ClientTool) -> bool {
        let is_new = self.position(&tool.sent).is_none();
        if is_new {
            self.0.push(tool);
        }
        is_new
    }

    /// The place of the tool that endpoints know by this name.
    pub(super) fn position(&self, sent: &str) -> Option<usize> {
        self.0.iter().position(|tool| tool.sent == sent)
    }

    /// The tool at a place.
    pub(super) fn get(&self, at: usize) -> Option<&ClientTool> {
        self.0.get(at)
    }

    /// The tool that an endpoint means by this name: the one that it got under it, or the only
    /// member of a namespace that is called so.
    pub(super) fn called(&self, name: &str) -> Option<&ClientTool> {
        let exact = self.position(name).and_then(|at| self.get(at));
        exact.or_else(|| {
            let is_named = |tool: &&ClientTool| tool.namespace.is_some() && tool.name == name;
            let mut members = self.0.iter().filter(is_named);
            members.next().filter(|_| members.next().is_none())
        })
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
                namespace: namespace.map(str::to_owned),
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
