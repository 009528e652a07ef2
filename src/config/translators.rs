//! `[translators]`: its plan, the declarations of its keys, and the folders that the inspector may use.
//!
//! Contract: docs/contract/operations.md#11, docs/contract/translation.md#2,
//! docs/contract/translation.md#13, docs/contract/dialects.md#14

use std::path::{Component, Path, PathBuf};

use super::bounds::{MIB, U32_MAX};
use super::dialect::DialectName;
use super::endpoint::is_token;
use super::section::Section;

/// What holds for each translator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TranslatorRules {
    /// If false, its routes are ordinary paths.
    pub enabled: bool,
    /// If false, requests are always translated, also for endpoints that speak the dialect.
    pub passthrough_enabled: bool,
    /// Whether other endpoints wait while one that speaks the dialect can be picked.
    pub prefer_native: bool,
}

/// `[translators]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranslatorsPlan {
    /// `[translators.anthropic]`.
    pub anthropic: AnthropicPlan,
    /// `[translators.responses]`.
    pub responses: TranslatorRules,
    /// `[translators.ollama]`.
    pub ollama: OllamaPlan,
}

impl TranslatorsPlan {
    /// The rules for requests of a dialect.
    pub fn rules(&self, dialect: DialectName) -> TranslatorRules {
        match dialect {
            DialectName::OpenAiChat => TranslatorRules {
                enabled: true,
                passthrough_enabled: true,
                prefer_native: false,
            },
            DialectName::OpenAiResponses => self.responses,
            DialectName::AnthropicMessages => self.anthropic.rules,
            DialectName::OllamaNative => self.ollama.rules,
        }
    }
}

/// `[translators.ollama]` (docs/contract/dialects.md#14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OllamaPlan {
    /// What it has in common with the others.
    pub rules: TranslatorRules,
    /// The version that `/api/version` reports.
    pub version: String,
}

/// `[translators.anthropic]` (docs/contract/translation.md#2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnthropicPlan {
    /// What it has in common with the others.
    pub rules: TranslatorRules,
    /// Maximum size of a request body, 1 byte to 100 MiB; `None` = that of all requests.
    pub max_message_size: Option<u64>,
    /// `[translators.anthropic.inspector]`.
    pub inspector: InspectorPlan,
}

/// `[translators.anthropic.inspector]`: a debugging aid (docs/contract/translation.md#13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectorPlan {
    /// If true, every start logs a warning.
    pub enabled: bool,
    /// The folder as it is written; if enabled, outside the folders of the system.
    pub output_dir: PathBuf,
    /// Header with the name of the session's file; if enabled, a token.
    pub session_header: String,
}

/// Olla's default of `max_message_size` (docs/contract/operations.md#10).
const OLLAS_MESSAGE_SIZE: u64 = 10 * MIB;

/// `[translators]`.
pub(super) fn translators(s: &mut Section<'_, '_>, cwd: &Path) -> TranslatorsPlan {
    TranslatorsPlan {
        anthropic: anthropic(&mut s.section("anthropic"), cwd),
        responses: rules(&mut s.section("responses"), &RESPONSES),
        ollama: ollama(&mut s.section("ollama")),
    }
}

/// How the common keys of a translator are declared.
struct RulesDecl {
    enabled: &'static str,
    enabled_env: &'static str,
    passthrough: &'static str,
    passthrough_env: &'static str,
    prefer: &'static str,
    prefer_env: &'static str,
    prefers: bool,
}

const ANTHROPIC: RulesDecl = RulesDecl {
    enabled: "Serve the Anthropic Messages API below /olla/anthropic/.",
    enabled_env: "OLLA_TRANSLATORS_ANTHROPIC_ENABLED",
    passthrough: "Skip translation for endpoints that support the Messages API.",
    passthrough_env: "OLLA_TRANSLATORS_ANTHROPIC_PASSTHROUGH_ENABLED",
    prefer: "Use other endpoints only when none that supports it can be picked.",
    prefer_env: "OLLA_TRANSLATORS_ANTHROPIC_PREFER_NATIVE",
    prefers: true,
};

const RESPONSES: RulesDecl = RulesDecl {
    enabled: "Serve OpenAI's Responses API for every endpoint.",
    enabled_env: "OLLA_TRANSLATORS_RESPONSES_ENABLED",
    passthrough: "Skip translation for endpoints that support the Responses API.",
    passthrough_env: "OLLA_TRANSLATORS_RESPONSES_PASSTHROUGH_ENABLED",
    prefer: "Use other endpoints only when none that supports it can be picked.",
    prefer_env: "OLLA_TRANSLATORS_RESPONSES_PREFER_NATIVE",
    prefers: false,
};

const OLLAMA: RulesDecl = RulesDecl {
    enabled: "Serve Ollama's API for every model, below every prefix and at /api.",
    enabled_env: "OLLA_TRANSLATORS_OLLAMA_ENABLED",
    passthrough: "Skip translation for Ollama endpoints.",
    passthrough_env: "OLLA_TRANSLATORS_OLLAMA_PASSTHROUGH_ENABLED",
    prefer: "Use other endpoints only when no Ollama endpoint can be picked.",
    prefer_env: "OLLA_TRANSLATORS_OLLAMA_PREFER_NATIVE",
    prefers: true,
};

fn rules(s: &mut Section<'_, '_>, decl: &RulesDecl) -> TranslatorRules {
    TranslatorRules {
        enabled: s
            .key("enabled", decl.enabled)
            .env(decl.enabled_env)
            .bool(true),
        passthrough_enabled: s
            .key("passthrough_enabled", decl.passthrough)
            .env(decl.passthrough_env)
            .bool(true),
        prefer_native: s
            .key("prefer_native", decl.prefer)
            .env(decl.prefer_env)
            .bool(decl.prefers),
    }
}

/// `[translators.anthropic]`.
fn anthropic(s: &mut Section<'_, '_>, cwd: &Path) -> AnthropicPlan {
    let rules = rules(s, &ANTHROPIC);
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
    former(s);
    AnthropicPlan {
        rules,
        max_message_size: (max_message_size > 0).then_some(max_message_size),
        inspector: inspector(&mut s.section("inspector"), cwd),
    }
}

/// `[translators.ollama]`.
fn ollama(s: &mut Section<'_, '_>) -> OllamaPlan {
    let rules = rules(s, &OLLAMA);
    let version = s
        .key(
            "version",
            "Version of Ollama that /api/version reports; clients refuse old ones.",
        )
        .env("OLLA_TRANSLATORS_OLLAMA_VERSION")
        .text_such("0.14.0", "digits and dots", is_version);
    OllamaPlan { rules, version }
}

/// Whether a text is numbers with dots between them.
fn is_version(text: &str) -> bool {
    let mut numbers = text.split('.');
    numbers.all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
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
