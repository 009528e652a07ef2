//! The declarations of the keys of `[translators]`, and which folders the inspector may write to.
//!
//! contract: operations 11, translation 2, 13

use std::path::{Component, Path, PathBuf};

use super::bounds::MIB;
use super::endpoint::is_token;
use super::plan::{AnthropicPlan, InspectorPlan, TranslatorsPlan};
use super::section::Section;

/// `[translators]`.
pub(super) fn translators(s: &mut Section<'_, '_>, cwd: &Path) -> TranslatorsPlan {
    let mut s = s.section("anthropic");
    let default = 10 * MIB;
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
            "Do not translate for backends that speak it themselves.",
        )
        .env("OLLA_TRANSLATORS_ANTHROPIC_PASSTHROUGH_ENABLED")
        .bool(true);
    let size = s
        .key(
            "max_message_size",
            "Bytes of a request's body, at most 100 MiB; 0 = the default.",
        )
        .env("OLLA_TRANSLATORS_ANTHROPIC_MAX_MESSAGE_SIZE")
        .size(default, Some(100 * MIB));
    let max_message_size = if size == 0 { default } else { size };
    let inspector = inspector(&mut s.section("inspector"), cwd);
    let anthropic = AnthropicPlan {
        enabled,
        passthrough_enabled,
        max_message_size,
        inspector,
    };
    TranslatorsPlan { anthropic }
}

fn inspector(s: &mut Section<'_, '_>, cwd: &Path) -> InspectorPlan {
    let enabled = s
        .key(
            "enabled",
            "Write requests and answers to files, to debug; never in production.",
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
            "Folder of the files, outside the system's; \"\" = ./inspector-logs.",
        )
        .judged_if(enabled)
        .text("logs/inspector/anthropic");
    let header = s
        .key(
            "session_header",
            "Header that names the file; \"\" = X-Session-ID.",
        )
        .judged_if(enabled)
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
        s.refuse(
            "output_dir",
            "a folder that is not / and not in one of the system's folders",
        );
    }
    plan
}

/// Whether a path is the root or lies in a folder of the system, `..` and links resolved
/// (contract: translation 2).
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
    // The folder need not exist yet: its nearest parent that does tells where links lead.
    let real = plain.ancestors().find_map(|parent| {
        let real = parent.canonicalize().ok()?;
        Some(real.join(plain.strip_prefix(parent).ok()?))
    });
    let within = |path: &Path| {
        path == Path::new("/") || FOLDERS.iter().any(|folder| path.starts_with(folder))
    };
    within(&plain) || real.is_some_and(|real| within(&real))
}
