//! The names of request fields that a translation leaves without effect
//! (docs/contract/dialects.md#4).

use std::borrow::Cow;
use std::collections::BTreeSet;

/// The most names that are shown.
const SHOWN_MAX: usize = 20;

/// The longest name that is shown, in bytes; clients choose the names of unknown fields.
const NAME_BYTES_MAX: usize = 64;

/// The fields that the contract names; statistics count all others together.
pub(crate) const DROPPED_FIELDS: [&str; 30] = [
    "context",
    "format",
    "input.computer_call",
    "input.computer_call_output",
    "input.mcp_approval_request",
    "input.mcp_approval_response",
    "input.mcp_call",
    "max_tool_calls",
    "options.mirostat",
    "options.mirostat_eta",
    "options.mirostat_tau",
    "options.penalize_newline",
    "options.repeat_last_n",
    "options.repeat_penalty",
    "options.tfs_z",
    "options.typical_p",
    "template",
    "text.verbosity",
    "tools.apply_patch",
    "tools.code_interpreter",
    "tools.computer_use_preview",
    "tools.file_search",
    "tools.image_generation",
    "tools.mcp",
    "tools.shell",
    "tools.tool_search",
    "tools.web_search",
    "tools.web_search_20250305",
    "top_logprobs",
    "truncation",
];

/// The name under which statistics count a field.
pub(crate) fn counted_as(name: &str) -> &'static str {
    let mut known = DROPPED_FIELDS.iter();
    known
        .find(|field| **field == name)
        .copied()
        .unwrap_or("other")
}

/// Names of fields, sorted, each once. The first are kept, as far as they are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    names: BTreeSet<Cow<'static, str>>,
    /// There are more.
    is_cut: bool,
}

impl Dropped {
    /// Adds a name. What does not fit into a header is replaced.
    pub(crate) fn add(&mut self, name: impl Into<Cow<'static, str>>) {
        let name = name.into();
        let fits = |c: char| c.is_ascii_graphic() && c != ',';
        let name = if name.len() <= NAME_BYTES_MAX && name.chars().all(fits) {
            name
        } else {
            let shown = name.chars().take(NAME_BYTES_MAX);
            shown.map(|c| if fits(c) { c } else { '?' }).collect()
        };
        self.names.insert(name);
        if self.names.len() > SHOWN_MAX {
            self.names.pop_last();
            self.is_cut = true;
        }
    }

    /// The names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(AsRef::as_ref)
    }

    /// The value of `X-Olla-Dropped`; `None` if nothing was dropped.
    pub(crate) fn header(&self) -> Option<String> {
        let mut names: Vec<&str> = self.names().collect();
        if self.is_cut {
            names.push("...");
        }
        (!names.is_empty()).then(|| names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_header_shows() {
        let header = |names: &[&'static str]| {
            let mut dropped = Dropped::default();
            names.iter().for_each(|name| dropped.add(*name));
            dropped.header()
        };
        assert_eq!(header(&[]), None);
        assert_eq!(header(&["b", "a", "b"]).as_deref(), Some("a, b"));
        assert_eq!(header(&["a,b é\n"]).as_deref(), Some("a?b???"));
        let mut many = Dropped::default();
        (0..50).rev().for_each(|n| many.add(format!("n{n:02}")));
        let shown = many.header().unwrap();
        assert!(
            shown.starts_with("n00, n01, ") && shown.ends_with("n19, ..."),
            "{shown}"
        );
        let mut long = Dropped::default();
        long.add("x".repeat(1000));
        assert_eq!(long.header().unwrap().len(), NAME_BYTES_MAX);
    }
}
