//! The documents agree with the program: `docs/configuration.md` has every key as it is declared,
//! `docs/metrics.md` every series as the real binary shows it, every TOML example is a valid
//! configuration, and every link has a target.
//!
//! This test writes the two tables, between their marks, with
//! `OLLA_WRITE_REFERENCE=1 cargo test --test documents`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use olla::bench::config::{
    ConfigInputs, Env, FileFormat, KeyDoc, Loaded, NameFilter, Severity, plan_from_str, reference,
};
use olla::bench::providers::Profiles;
use testkit::metrics::Page;

const BEGIN: &str = "<!-- begin: written by tests/documents.rs -->\n";
const END: &str = "<!-- end -->\n";

const ENDPOINTS: &str = "discovery.static.endpoints[]";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents at the root and in `docs`, without the contract.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    markdown(&root(), &mut paths);
    markdown(&root().join("docs"), &mut paths);
    markdown(&root().join("docs/decisions"), &mut paths);
    assert!(paths.len() > 5, "the documents are elsewhere");
    with_text(paths)
}

/// All documents that may have links.
fn linked_documents() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    markdown(&root().join("docs/contract"), &mut paths);
    assert!(paths.len() > 5, "the contract is elsewhere");
    let mut documents = documents();
    documents.extend(with_text(paths));
    documents
}

/// Adds the Markdown files of one folder, in the order of their names.
fn markdown(folder: &Path, paths: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    found.sort();
    paths.extend(found);
}

fn with_text(paths: Vec<PathBuf>) -> Vec<(PathBuf, String)> {
    let read = |path: PathBuf| {
        let text = read(&path);
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// Compares the text between the marks of a document, or writes it if the variable is set.
#[track_caller]
fn holds(document: &str, want: &str) {
    let path = root().join(document);
    let text = read(&path);
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (is, after) = rest.split_once(END).unwrap();
    if std::env::var_os("OLLA_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{want}{END}{after}")).unwrap();
        return;
    }
    let differs = is.lines().zip(want.lines()).find(|(is, want)| is != want);
    if let Some((is, want)) = differs {
        panic!("{document}: is\n  {is}\nshould be\n  {want}\n(see the head of this test)");
    }
    assert_eq!(
        is.lines().count(),
        want.lines().count(),
        "{document}: see the head of this test"
    );
}

#[test]
fn the_configuration_is_documented() {
    let mut out = String::new();
    let mut sections: Vec<&str> = Vec::new();
    for doc in reference().iter().filter(|doc| !doc.path.is_empty()) {
        if !sections.contains(&section_of(doc)) {
            sections.push(section_of(doc));
        }
    }
    for section in sections {
        let _ = writeln!(out, "\n### `{section}`\n");
        out.push_str("| Key | Type | Default | Variable | Meaning |\n|---|---|---|---|---|\n");
        for doc in reference().iter().filter(|doc| section_of(doc) == section) {
            let name = doc.path.strip_prefix(section).unwrap_or_default();
            let name = match name.trim_start_matches('.') {
                "" => "*any name*".to_owned(),
                name => format!("`{name}`"),
            };
            row(&mut out, doc, &name);
        }
    }
    out.push_str("\n### Variables without a key\n\n");
    out.push_str("| Variable | Type | Default | Meaning |\n|---|---|---|---|\n");
    for doc in reference().iter().filter(|doc| doc.path.is_empty()) {
        let cells = [
            code(doc.env.unwrap_or_default()),
            kind(doc),
            code(&doc.default),
            meaning(doc),
        ];
        let _ = writeln!(out, "{}", line(&cells));
    }
    out.push('\n');
    holds("docs/configuration.md", &out);
}

/// The table of a key. All tables of an endpoint are shown in one.
fn section_of(doc: &KeyDoc) -> &str {
    if doc.path.starts_with(ENDPOINTS) {
        return ENDPOINTS;
    }
    if !doc.path.contains('.') {
        return &doc.path;
    }
    doc.path.rsplit_once('.').map_or("", |(section, _)| section)
}

fn row(out: &mut String, doc: &KeyDoc, name: &str) {
    let cells = [
        name.to_owned(),
        kind(doc),
        code(&doc.default),
        code(doc.env.unwrap_or_default()),
        meaning(doc),
    ];
    let _ = writeln!(out, "{}", line(&cells));
}

fn line(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |", cells.join(" | "))
}

fn code(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("`{text}`")
    }
}

/// Types as one word, if the head of the document explains the word.
fn kind(doc: &KeyDoc) -> String {
    let words = [
        ("a duration such as \"30s\" or \"1h30m\"", "duration"),
        ("a size in bytes such as 10485760 or \"10MB\"", "size"),
    ];
    let short = |kind: String, (long, word): (&str, &str)| kind.replace(long, word);
    words.into_iter().fold(doc.kind.clone(), short)
}

fn meaning(doc: &KeyDoc) -> String {
    let mut text = doc.doc.to_owned();
    if doc.restart {
        text.push_str(" *Restart required.*");
    }
    if doc.inert {
        text.push_str(" *Accepted for compatibility, no effect.*");
    }
    if doc.inert_in_yaml {
        text.push_str(" *No effect in a YAML file.*");
    }
    // An asterisk of a pattern must not begin emphasis.
    text.replace("; * ", "; `*` ")
        .replace("origin *", "origin `*`")
}

#[test]
fn the_metrics_are_documented() {
    let mut out = String::from("\n| Series | Type | Labels | Meaning |\n|---|---|---|---|\n");
    for (name, family) in &Page::get().families {
        assert!(
            !family.samples.is_empty(),
            "{name} has no sample after traffic"
        );
        let labels: Vec<String> = family
            .labels
            .keys()
            .filter(|label| *label != "le")
            .map(|label| code(label))
            .collect();
        let cells = [
            code(name),
            family.kind.clone(),
            labels.join(", "),
            family.help.clone(),
        ];
        let _ = writeln!(out, "{}", line(&cells));
    }
    out.push('\n');
    holds("docs/metrics.md", &out);
}

/// The fenced examples of a document in this language, each with its line.
fn fenced(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut pieces = Vec::new();
    let mut open: Option<(bool, usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(name)) => open = Some((name == language, at + 1, String::new())),
            (None, None) => {}
            (Some(_), Some(_)) => {
                if let Some((true, line, text)) = open.take() {
                    pieces.push((line, text));
                }
                open = None;
            }
            (Some((_, _, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    pieces
}

#[test]
fn toml_in_documents_is_accepted() {
    let mut count = 0;
    for (path, text) in documents() {
        for (line, piece) in fenced(&text, "toml") {
            let loaded = load(&piece, FileFormat::Toml);
            let place = format!("{}:{line}", path.display());
            accepted(&loaded, &place);
            count += 1;
        }
    }
    assert!(count > 5, "the examples are elsewhere");
}

#[test]
fn packaged_configurations_are_accepted() {
    for file in ["packaging/olla.toml", "packaging/container.toml"] {
        let path = root().join(file);
        if path.exists() {
            accepted(&load(&read(&path), FileFormat::Toml), file);
        }
    }
}

/// Files and variables of the examples exist on the reader's machine only.
#[track_caller]
fn accepted(loaded: &Loaded, place: &str) {
    let faults: Vec<String> = loaded
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error || finding.unknown_key)
        .map(ToString::to_string)
        .filter(|text| !text.contains("cannot read") && !text.contains("is not set"))
        .collect();
    assert_eq!(faults, [""; 0], "{place}");
}

fn load(text: &str, format: FileFormat) -> Loaded {
    let env = Env::default();
    let types = Profiles::builtin().type_names();
    let admits = |filter: &NameFilter, name: &str| olla::bench::providers::admits(filter, name);
    let inputs = ConfigInputs {
        env: &env,
        cwd: Path::new("."),
        types: &types,
        admits: &admits,
    };
    plan_from_str(text, format, Some(Path::new("example")), &inputs)
}

#[test]
fn links_have_targets() {
    let mut faults = Vec::new();
    for (path, text) in linked_documents() {
        for (at, _) in text.match_indices("](") {
            let target = &text[at + 2..];
            let target = &target[..target.find(')').unwrap()];
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = if file.is_empty() {
                path.clone()
            } else {
                path.parent().unwrap().join(file)
            };
            let found = to.exists() && (anchor.is_empty() || anchors(&read(&to)).contains(anchor));
            if !found {
                faults.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert_eq!(faults, [""; 0]);
}

/// The anchors of a document: those of the headings, and explicit ones.
fn anchors(text: &str) -> BTreeSet<String> {
    const SET: &str = "<a id=\"";
    let by_hand = text.match_indices(SET).filter_map(|(at, _)| {
        let (id, _) = text[at + SET.len()..].split_once('"')?;
        Some(id.to_owned())
    });
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let by_heading = headings.map(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    });
    by_hand.chain(by_heading).collect()
}
