//! The declarations of the keys of `[translators]`, and the folders that the inspector may use.
//!
//! Contract: docs/contract/operations.md#11, docs/contract/translation.md#2,
//! docs/contract/translation.md#13

use std::path::{Component, Path, PathBuf};

use super::bounds::{MIB, U32_MAX};
use super::endpoint::is_token;
use super::plan::{AnthropicPlan, InspectorPlan, TranslatorsPlan};
use super::section::Section;

/// Olla's default of `max_message_size` (docs/contract/operations.md#10).
const OLLAS_MESSAGE_SIZE: u64 = 10 * MIB;

/// `[translators]`.
pub(super) fn translators(s: &mut Section<'_, '_>, cwd: &Path) -> TranslatorsPlan {
    let mut s = s.section("anthropic");
    let enabled = s
        .key(
            "enabled",
            "Serve the Anthropic Messages API below /olla/anthropic/.",
        )
        .env("OLLA_TRANSLATORS_ANTHROPIC_ENABLED")
        .bool(true);
    let passthrough_enabled = s
        .key(
            "passthrough_enabled",
            "Skip translation for endpoints that support the Messages API.",
        )
        .env("OLLA_TRANSLATORS_ANTHROPIC_PASSTHROUGH_ENABLED")
        .bool(true);
    let max_message_size = s
        .key(
            "max_message_size",
            "Maximum size of a body, at most 100 MiB; 0 selects that of all requests.",
        )
        .env("OLLA_TRANSLATORS_ANTHROPIC_MAX_MESSAGE_SIZE")
        .size(0, Some(100 * MIB));
    if max_message_size == OLLAS_MESSAGE_SIZE {
        let ours = "server.request_limits.max_body_size";
        s.note_old_default("max_message_size", ours);
    }
    former(&mut s);
    let inspector = inspector(&mut s.section("inspector"), cwd);
    let anthropic = AnthropicPlan {
        enabled,
        passthrough_enabled,
        max_message_size: (max_message_size > 0).then_some(max_message_size),
        inspector,
    };
    TranslatorsPlan { anthropic }
}

/// Keys of Olla's examples that neither gateway reads.
fn former(s: &mut Section<'_, '_>) {
    let doc = "The client's anthropic-version header is used.";
    s.key("version", doc).inert().text("2023-06-01");
    let doc = "System messages are always put first.";
    s.key("system_message_handling", doc)
        .inert()
        .text("prepend");
    let doc = "A request without max_tokens is refused, as the Messages API does.";
    s.key("default_max_tokens", doc)
        .inert()
        .int(4096, 0, U32_MAX);
}

fn inspector(s: &mut Section<'_, '_>, cwd: &Path) -> InspectorPlan {
    let enabled = s
        .key(
            "enabled",
            "Write requests and responses to files for debugging; not for production.",
        )
        .bool(false);
    if enabled {
        s.warn(
            "enabled",
            "writes whole conversations to files; not for production",
        );
    }
    let dir = s
        .key(
            "output_dir",
            "Folder of the files, not a system folder; \"\" selects ./inspector-logs.",
        )
        .checked_if(enabled)
        .text("logs/inspector/anthropic");
    let header = s
        .key(
            "session_header",
            "Header that names the file; \"\" selects X-Session-ID.",
        )
        .checked_if(enabled)
        .text_such("X-Session-ID", "a header name", |text| {
            text.is_empty() || is_token(text)
        });
    let or = |text: String, other: &str| {
        if text.is_empty() {
            other.to_owned()
        } else {
            text
        }
    };
    let plan = InspectorPlan {
        enabled,
        output_dir: or(dir, "./inspector-logs").into(),
        session_header: or(header, "X-Session-ID"),
    };
    if enabled && is_system_folder(&cwd.join(&plan.output_dir)) {
        s.expected("output_dir", "a folder that is not a system folder");
    }
    plan
}

/// Whether a path is the root or lies in a folder of the system, `..` and links resolved
/// (docs/contract/translation.md#2).
fn is_system_folder(path: &Path) -> bool {
    const FOLDERS: [&str; 10] = [
        "/etc", "/var", "/usr", "/bin", "/sbin", "/boot", "/sys", "/proc", "/dev", "/root",
    ];
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    // The folder need not exist yet: links are resolved in its nearest existing parent.
    let real = plain.ancestors().find_map(|parent| {
        let real = parent.canonicalize().ok()?;
        Some(real.join(plain.strip_prefix(parent).ok()?))
    });
    let within = |path: &Path| {
        path == Path::new("/") || FOLDERS.iter().any(|folder| path.starts_with(folder))
    };
    within(&plain) || real.is_some_and(|real| within(&real))
}
