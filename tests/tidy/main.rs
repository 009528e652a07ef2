//! Rules of the source text that no compiler knows: who may import what, how long things may be,
//! what may not be left behind.
//!
//! The text is read as tokens would be: comments and literals do not count as code, and neither
//! does what stands under `#[cfg(test)]`. An exception is a row of [`ALLOWED`] with its reason.

mod source;
mod structure;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use source::{Source, functions, words};
use structure::{Module, modules};

const FILE_LINES_MAX: usize = 600;
const TEST_FILE_LINES_MAX: usize = 900;
const FUNCTION_LINES_MAX: usize = 70;

/// An exception: the rule, the file or folder it does not hold for, and why.
const ALLOWED: [(Rule, &str, &str); 3] = [
    (
        Rule::Domain,
        "engine/src/tls/crypto.rs",
        "rustls calls the cryptography below it a provider",
    ),
    (
        Rule::Unsafe,
        "engine/src/rt/",
        "the only place that talks to the kernel",
    ),
    (
        Rule::Unsafe,
        "engine/src/buf.rs",
        "hands memory to the kernel's ring",
    ),
];

/// What the runtime is made of; only `engine::rt` may name it.
const RUNTIME: [&str; 3] = ["monoio", "io_uring", "libc"];

/// What the engine has never heard of, in the words that its names are made of. `token` is none of
/// them: a bucket has tokens, and RFC 9110 calls a header's name one.
const DOMAIN: [&str; 12] = [
    "model",
    "models",
    "provider",
    "providers",
    "json",
    "toml",
    "yaml",
    "llm",
    "ollama",
    "openai",
    "anthropic",
    "prompt",
];

/// Packages that would bring that knowledge into the engine.
const DOMAIN_PACKAGES: [&str; 8] = [
    "serde",
    "serde_json",
    "simd-json",
    "toml",
    "tracing",
    "log",
    "clap",
    "url",
];

/// What the parts that take bytes and the time must not use.
const IMPURE: [&str; 7] = [
    "crate::rt",
    "crate::core",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "Instant::now",
    "SystemTime::now",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Runtime,
    Domain,
    Layers,
    FileLength,
    FunctionLength,
    LeftBehind,
    Unwrap,
    ModuleDoc,
    Unsafe,
    HomePath,
    Citation,
}

/// A place where a rule is broken.
#[derive(Debug)]
struct Fault {
    rule: Rule,
    path: String,
    line: usize,
    what: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files of the project, by path from its root with `/`.
fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(read_sources)
}

fn read_sources() -> Vec<Source> {
    let mut files = Vec::new();
    for folder in [
        "src", "engine", "loadtest", "testkit", "benches", "tests", "fuzz",
    ] {
        walk(&root().join(folder), &mut files);
    }
    files.push(root().join("build.rs"));
    files.retain(|path| path.extension().is_some_and(|ending| ending == "rs"));
    let mut sources: Vec<Source> = files.iter().map(|path| read(path)).collect();
    let tests: BTreeSet<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        let below = |module: &String| source.path.starts_with(&format!("{module}/"));
        let is_test = tests
            .iter()
            .any(|module| source.path == format!("{module}.rs") || below(module));
        source.is_test |= is_test;
    }
    assert!(sources.len() > 30, "the sources are elsewhere");
    sources
}

fn read(path: &Path) -> Source {
    let text = std::fs::read_to_string(path).unwrap();
    let path = path
        .strip_prefix(root())
        .unwrap()
        .to_str()
        .unwrap()
        .replace('\\', "/");
    Source::new(path, text)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "corpus" {
            walk(&path, files);
        } else if path.is_file() {
            files.push(path);
        }
    }
}

/// Runs a rule over files; fails with every fault that is not allowed.
fn enforce(rule: Rule, sources: &[Source], check: impl Fn(&Source) -> Vec<(usize, String)>) {
    let fault = |source: &Source, (line, what)| Fault {
        rule,
        path: source.path.clone(),
        line,
        what,
    };
    let is_allowed = |fault: &Fault| {
        ALLOWED
            .iter()
            .any(|(rule, path, _)| *rule == fault.rule && fault.path.starts_with(path))
    };
    let faults: Vec<String> = sources
        .iter()
        .flat_map(|source| check(source).into_iter().map(|found| fault(source, found)))
        .filter(|fault| !is_allowed(fault))
        .map(|fault| format!("{}:{}: {}", fault.path, fault.line, fault.what))
        .collect();
    assert!(
        faults.is_empty(),
        "{rule:?}: {} faults\n{}",
        faults.len(),
        faults.join("\n")
    );
}

fn is_bench(path: &str) -> bool {
    path.starts_with("benches/") || path.starts_with("engine/benches/")
}

#[test]
fn only_the_runtime_module_names_the_runtime() {
    enforce(Rule::Runtime, sources(), |source| {
        let exempt = ["engine/src/rt/", "loadtest/", "fuzz/", "engine/tests/"];
        if exempt.iter().any(|path| source.path.starts_with(path)) || is_bench(&source.path) {
            return Vec::new();
        }
        // Tests of the engine's inside may open plain sockets; those of the gateway may not.
        let code = if source.path.starts_with("engine/") {
            source.product()
        } else {
            source.code()
        };
        let named = words(code).filter(|(_, word)| RUNTIME.contains(word));
        named
            .map(|(line, word)| (line, format!("names {word}")))
            .collect()
    });
}

#[test]
fn the_engine_has_never_heard_of_models() {
    enforce(Rule::Domain, sources(), |source| {
        if !source.path.starts_with("engine/src/") {
            return Vec::new();
        }
        let knows = |name: &&str| {
            name.split('_')
                .flat_map(camel_parts)
                .any(|part| DOMAIN.contains(&part.as_str()))
        };
        let named = words(source.product()).filter(|(_, word)| knows(word));
        named
            .map(|(line, word)| (line, format!("{word} is not the engine's business")))
            .collect()
    });
    let manifest = std::fs::read_to_string(root().join("engine/Cargo.toml")).unwrap();
    let product = manifest.split("[dev-dependencies]").next().unwrap();
    for line in product.lines() {
        let package = line.split([' ', '=', '.']).next().unwrap_or_default();
        assert!(
            !DOMAIN_PACKAGES.contains(&package),
            "engine/Cargo.toml: {package}"
        );
    }
}

/// `ModelName` is `model` and `name`.
fn camel_parts(word: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for c in word.chars() {
        if c.is_uppercase() && parts.last().is_some_and(|part| !part.is_empty()) {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            part.extend(c.to_lowercase());
        }
    }
    parts
}

#[test]
fn the_codec_touches_neither_sockets_nor_clocks() {
    enforce(Rule::Layers, sources(), |source| {
        let sans_io = [
            "engine/src/h1/",
            "engine/src/exchange/",
            "engine/src/exchange.rs",
        ];
        if !sans_io.iter().any(|path| source.path.starts_with(path)) {
            return Vec::new();
        }
        let mut faults = Vec::new();
        for (at, line) in source.product().lines().enumerate() {
            for path in IMPURE {
                if line.contains(path) {
                    faults.push((at + 1, format!("a pure part uses {path}")));
                }
            }
        }
        faults
    });
}

#[test]
fn files_stay_readable() {
    enforce(Rule::FileLength, sources(), |source| {
        let max = if source.is_test {
            TEST_FILE_LINES_MAX
        } else {
            FILE_LINES_MAX
        };
        let lines = source.text.lines().count();
        if lines > max {
            vec![(lines, format!("{lines} lines, at most {max}"))]
        } else {
            Vec::new()
        }
    });
}

#[test]
fn functions_stay_readable() {
    enforce(Rule::FunctionLength, sources(), |source| {
        if source.is_test {
            return Vec::new();
        }
        let long = functions(source.product())
            .into_iter()
            .filter(|function| function.lines > FUNCTION_LINES_MAX);
        long.map(|f| (f.line, format!("fn {} has {} lines", f.name, f.lines)))
            .collect()
    });
}

#[test]
fn nothing_is_left_behind() {
    enforce(Rule::LeftBehind, sources(), |source| {
        let macros = ["todo", "unimplemented", "dbg"];
        let mut faults = Vec::new();
        for (at, line) in source.code().lines().enumerate() {
            let spaceless: String = line.split_whitespace().collect();
            for name in macros {
                let named = words(line).any(|(_, word)| word == name);
                if named && spaceless.contains(&format!("{name}!")) {
                    faults.push((at + 1, format!("{name}!")));
                }
            }
            if spaceless.contains("#[ignore") {
                faults.push((at + 1, "a test that is not run".to_owned()));
            }
        }
        faults
    });
}

#[test]
fn the_product_does_not_unwrap() {
    enforce(Rule::Unwrap, sources(), |source| {
        let product = ["src/", "engine/src/"]
            .iter()
            .any(|path| source.path.starts_with(path));
        if !product || source.is_test {
            return Vec::new();
        }
        let mut faults = Vec::new();
        // A parser may have a method of this name; whoever writes one does not mean the other.
        let own_expect = source.product().contains("fn expect(");
        for (at, line) in source.product().lines().enumerate() {
            if line.contains(".unwrap()") || (line.contains(".expect(") && !own_expect) {
                faults.push((at + 1, "can end the process".to_owned()));
            }
        }
        faults
    });
}

#[test]
fn every_module_says_what_it_is() {
    enforce(Rule::ModuleDoc, sources(), |source| {
        let documented = source
            .text
            .lines()
            .next()
            .is_some_and(|line| line.starts_with("//! "));
        if documented || source.is_test {
            return Vec::new();
        }
        vec![(1, "does not begin with `//! `".to_owned())]
    });
}

#[test]
fn unsafe_code_has_its_places() {
    enforce(Rule::Unsafe, sources(), |source| {
        let named = words(source.code()).filter(|(_, word)| *word == "unsafe");
        named.map(|(line, _)| (line, "unsafe".to_owned())).collect()
    });
}

#[test]
fn cited_rules_of_the_contract_exist() {
    let folder = root().join("docs/contract");
    enforce(Rule::Citation, sources(), |source| {
        let mut faults = Vec::new();
        for (at, line) in source.text.lines().enumerate() {
            for citation in line.split("docs/contract/").skip(1) {
                let Some((file, rest)) = citation.split_once(".md") else {
                    continue;
                };
                // A pattern of citations, as in this test, is none.
                if !file.chars().all(|c| c.is_ascii_alphabetic()) {
                    continue;
                }
                let text = std::fs::read_to_string(folder.join(format!("{file}.md")));
                let anchor: String = rest
                    .strip_prefix('#')
                    .unwrap_or_default()
                    .chars()
                    .take_while(|c| c.is_ascii_digit() || *c == '.')
                    .collect();
                let anchor = anchor.trim_end_matches('.');
                let exists = text.is_ok_and(|text| {
                    anchor.is_empty() || text.contains(&format!("<a id=\"{anchor}\"></a>"))
                });
                if !exists {
                    faults.push((at + 1, format!("docs/contract/{file}.md#{anchor}")));
                }
            }
        }
        faults
    });
}

/// The parts of the gateway, from the ground up. A part imports those of the rows before its own;
/// parts of one row do not know each other.
const GATEWAY_ROWS: [&[&str]; 10] = [
    &["clock", "field_names", "glob", "json", "roots"],
    &["config", "format"],
    &[
        "access",
        "cli",
        "encoding",
        "endpoint_set",
        "inspect",
        "log",
        "providers",
    ],
    &["catalogue", "schedule"],
    &["fleet"],
    &["dialects"],
    &["operations", "routing", "state"],
    &["shared"],
    &["control", "demo", "gateway"],
    &["serve"],
];

/// The parts of the engine, likewise.
const ENGINE_ROWS: [&[&str]; 7] = [
    &[
        "decoding",
        "fault",
        "limit",
        "limits",
        "part",
        "request_turn",
        "snapshot",
    ],
    &["budget", "buf", "waiting_buffers"],
    &["exchange", "fair", "h1", "tls"],
    &["incoming", "rt"],
    &["handler", "upstream"],
    &["offload"],
    &["client", "core"],
];

/// The folders of the crates' sources.
const CRATES: [&str; 4] = ["src/", "engine/src/", "loadtest/src/", "testkit/src/"];

#[test]
fn imports_lead_downwards() {
    let mut faults = Vec::new();
    for (folder, rows) in [
        ("src/", &GATEWAY_ROWS[..]),
        ("engine/src/", &ENGINE_ROWS[..]),
    ] {
        let modules = modules(folder, sources());
        let names = modules.iter().map(Module::name).collect();
        let part = |name: &str| name.split("::").next().unwrap_or_default().to_owned();
        let row = |part: &str| rows.iter().position(|row| row.contains(&part));
        for module in &modules {
            let from = part(module.name());
            if from.is_empty() || from == "main" {
                continue;
            }
            if row(&from).is_none() {
                faults.push(format!("{}: {from} has no row", module.file));
            }
            for edge in module.edges(&names) {
                let to = part(&edge.to);
                if to != from && row(&to) >= row(&from) {
                    faults.push(format!(
                        "{}:{}: {from} imports {to}",
                        module.file, edge.line
                    ));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn imports_form_no_circle() {
    for folder in CRATES {
        let circles = structure::circles(&modules(folder, sources()));
        assert!(circles.is_empty(), "{folder}: {circles:?}");
    }
}

/// A type that other files can see has a name of its own within its crate.
#[test]
fn a_type_name_has_one_meaning() {
    let mut faults = Vec::new();
    for folder in CRATES {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for module in modules(folder, sources()) {
            for item in &module.types {
                let place = format!("{}:{}", module.file, item.line);
                places.entry(item.name.clone()).or_default().push(place);
            }
        }
        let doubles = places.into_iter().filter(|(_, places)| places.len() > 1);
        faults.extend(doubles.map(|(name, places)| format!("{name}: {}", places.join(", "))));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What a file offers to others is used by the product: neither by tests alone nor by nothing.
#[test]
fn a_public_item_has_a_product_user() {
    // What the test kit offers is for tests.
    let product = CRATES.iter().filter(|folder| **folder != "testkit/src/");
    let modules: Vec<Module> = product
        .flat_map(|folder| modules(folder, sources()))
        .collect();
    let mut words: BTreeMap<&str, usize> = BTreeMap::new();
    let mut defined: BTreeMap<&str, usize> = BTreeMap::new();
    for module in &modules {
        for (word, count) in &module.words {
            *words.entry(word).or_default() += count;
        }
        for item in &module.items {
            *defined.entry(&item.name).or_default() += 1;
        }
    }
    let mut faults = Vec::new();
    for module in &modules {
        let unused = module
            .items
            .iter()
            .filter(|item| words.get(item.name.as_str()) <= defined.get(item.name.as_str()));
        faults.extend(unused.map(|item| format!("{}:{}: {}", module.file, item.line, item.name)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_file_names_a_home_folder() {
    // Put together here, so that this file does not hold them.
    let folders = [["/ho", "me/"], ["/Us", "ers/"], ["/ro", "ot/"]].map(|parts| parts.concat());
    let mut files = Vec::new();
    let folders_of_text = [
        "src", "engine", "loadtest", "testkit", "benches", "tests", "fuzz", "scripts", "docs",
        "deploy", ".ci",
    ];
    for folder in folders_of_text {
        walk(&root().join(folder), &mut files);
    }
    let at_root = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files.extend(at_root.filter(|path| path.is_file()));
    let text = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).ok()?;
        let path = path.strip_prefix(root()).unwrap().to_str()?.to_owned();
        Some(Source::new(path, text))
    };
    let sources: Vec<Source> = files.into_iter().filter_map(text).collect();
    enforce(Rule::HomePath, &sources, |source| {
        let lines = source.text.lines().enumerate();
        let named = lines.filter(|(_, line)| folders.iter().any(|folder| line.contains(folder)));
        named
            .map(|(at, line)| (at + 1, line.trim().to_owned()))
            .collect()
    });
}

#[test]
fn every_exception_names_a_place_and_a_reason() {
    for (rule, path, reason) in ALLOWED {
        assert!(
            root().join(path).exists(),
            "{path} is allowed {rule:?} and not there"
        );
        assert!(!reason.is_empty());
    }
}
