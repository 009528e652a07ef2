//! Conversion of a YAML configuration of Olla to TOML.
//!
//! Keys and values keep their order and their meaning; comments of the YAML are lost. A key without
//! effect becomes a comment with a remark. The findings are those of reading the YAML file.
//!
//! Contract: docs/contract/README.md#9, docs/contract/operations.md#10

use std::path::Path;

use super::finding::Finding;
use super::inputs::ConfigInputs;
use super::key::INERT_IN_YAML;
use super::kinds::BOOLEAN;
use super::load::{FileFormat, plan_from_str, reference};
use super::nearest::hint;
use super::reader::{KeyDoc, join};
use super::tree::{ConfigNode, ConfigTable, ConfigValue, SyntaxError};
use super::unknown::nearest_key;
use super::values::quoted;
use super::yaml;

/// An imported configuration.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The configuration as TOML.
    pub toml: String,
    /// Errors, warnings and notes about the YAML file.
    pub findings: Vec<Finding>,
}

/// Converts YAML to TOML. Credentials of the YAML file are part of the result.
///
/// # Errors
/// The findings, if the text is not YAML.
pub fn import(
    text: &str,
    path: &Path,
    inputs: &ConfigInputs<'_>,
) -> Result<Imported, Vec<Finding>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let loaded = plan_from_str(text, FileFormat::Yaml, Some(path), inputs);
    let mut findings = loaded.findings;
    // A key without effect is a comment of the result, which says so.
    let is_inert = |note: &Finding| {
        let mut docs = reference().iter();
        docs.any(|doc| (doc.inert || doc.inert_in_yaml) && doc.path == note.key)
    };
    let notes = loaded.notes.into_iter();
    findings.extend(notes.filter(|note| !is_inert(note)));
    let table: Result<ConfigTable, Vec<SyntaxError>> = yaml::from_yaml(text);
    let Ok(table) = table else {
        return Err(findings);
    };
    let mut writer = TomlWriter {
        out: String::new(),
        reference: reference(),
    };
    let name = path.file_name().unwrap_or(path.as_os_str());
    let title = format!("# Imported from {}.\n", name.to_string_lossy());
    writer.out.push_str(&printable(&title));
    writer.table(&table, "", "");
    Ok(Imported {
        toml: writer.out,
        findings,
    })
}

/// Any YAML mapping as TOML, each value in one line; null values are left out.
///
/// # Errors
/// The first error in the text.
pub(crate) fn toml_of_yaml(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let table = yaml::from_yaml(text).map_err(|errors| {
        let first = errors.first();
        first.map_or_else(
            || "it is not YAML".to_owned(),
            |error| format!("line {}: {}", error.line, error.message),
        )
    })?;
    let given = table.0.iter().filter(|(_, node)| !node.is_null());
    let lines = given.map(|(name, node)| {
        let key = join("", name);
        format!("{key} = {}\n", inline(&node.value))
    });
    Ok(lines.collect())
}

/// The meaning of a path in the reference.
enum Place<'r> {
    /// A key.
    Key(&'r KeyDoc),
    /// A table of keys.
    Section,
    /// A list of tables of keys.
    Items,
    /// The reference does not have the path.
    Unknown,
}

struct TomlWriter<'r> {
    out: String,
    reference: &'r [KeyDoc],
}

impl<'r> TomlWriter<'r> {
    fn place(&self, pattern: &str) -> Place<'r> {
        let inside = |suffix: &str| {
            let prefix = format!("{pattern}{suffix}");
            self.reference
                .iter()
                .any(|doc| doc.path.starts_with(&prefix))
        };
        match self.reference.iter().find(|doc| doc.path == pattern) {
            Some(doc) => Place::Key(doc),
            None if inside("[].") => Place::Items,
            None if inside(".") => Place::Section,
            None => Place::Unknown,
        }
    }

    /// Keys come before tables, because in TOML a table ends where the next one begins.
    fn table(&mut self, table: &ConfigTable, path: &str, pattern: &str) {
        let mut body = String::new();
        for (name, node) in &table.0 {
            self.line(&mut body, name, node, pattern);
        }
        if !body.is_empty() {
            if !path.is_empty() {
                self.header(&format!("[{path}]"));
            }
            self.out.push_str(&body);
        }
        for (name, node) in &table.0 {
            let (path, pattern) = (join(path, name), join(pattern, name));
            match (self.place(&pattern), &node.value) {
                (Place::Section, ConfigValue::Table(inner)) => self.table(inner, &path, &pattern),
                (Place::Key(doc), ConfigValue::Table(_)) if doc.inert => {}
                (Place::Key(_), ConfigValue::Table(entries)) => {
                    self.header(&format!("[{path}]"));
                    for (name, node) in &entries.0 {
                        let key = join("", name);
                        let line = format!("{key} = {}\n", inline(&node.value));
                        self.out.push_str(&line);
                    }
                }
                (Place::Items, ConfigValue::List(items)) => self.items(items, &path, &pattern),
                _ => {}
            }
        }
    }

    fn items(&mut self, items: &[ConfigNode], path: &str, pattern: &str) {
        let pattern = format!("{pattern}[]");
        for item in items {
            self.header(&format!("[[{path}]]"));
            let ConfigValue::Table(table) = &item.value else {
                let line = format!("# not a table: {}\n", inline(&item.value));
                self.out.push_str(&line);
                continue;
            };
            let mut body = String::new();
            for (name, node) in &table.0 {
                match (self.place(&join(&pattern, name)), &node.value) {
                    (Place::Section | Place::Key(_), ConfigValue::Table(inner)) => {
                        let fields = self.fields(&mut body, inner, &join(&pattern, name));
                        body.push_str(&format!("{} = {fields}\n", join("", name)));
                    }
                    _ => self.line(&mut body, name, node, &pattern),
                }
            }
            self.out.push_str(&body);
        }
    }

    /// A table inside an item, in one line. Keys without effect become comments before it.
    fn fields(&self, remarks: &mut String, table: &ConfigTable, pattern: &str) -> String {
        let free = matches!(self.place(pattern), Place::Key(_));
        let mut fields = Vec::new();
        for (name, node) in &table.0 {
            let known = matches!(self.place(&join(pattern, name)), Place::Key(_));
            if node.value == ConfigValue::Null {
                continue;
            }
            if free || known {
                let value = self.value(&node.value, &join(pattern, name));
                fields.push(format!("{} = {value}", join("", name)));
            } else {
                self.line(remarks, name, node, pattern);
            }
        }
        if fields.is_empty() {
            "{}".to_owned()
        } else {
            format!("{{ {} }}", fields.join(", "))
        }
    }

    /// The value of a key: `yes` is a boolean only where the key takes one.
    fn value(&self, value: &ConfigValue, pattern: &str) -> String {
        match (value, self.place(pattern)) {
            (ConfigValue::Switch { on, .. }, Place::Key(doc)) if doc.kind == BOOLEAN => {
                on.to_string()
            }
            _ => inline(value),
        }
    }

    /// The line of a key; `None` for a table, which has a header.
    fn line(&self, body: &mut String, name: &str, node: &ConfigNode, pattern: &str) {
        if node.value == ConfigValue::Null {
            return;
        }
        let pattern = join(pattern, name);
        let written = format!("{} = {}", join("", name), self.value(&node.value, &pattern));
        let line = match (self.place(&pattern), &node.value) {
            (Place::Key(doc), _) if doc.inert => {
                format!(
                    "# accepted for compatibility, no effect: {}\n# {written}",
                    doc.doc
                )
            }
            (Place::Key(doc), _) if doc.inert_in_yaml => {
                format!("# {INERT_IN_YAML}; it would have one here\n# {written}")
            }
            (Place::Key(_) | Place::Section, ConfigValue::Table(_))
            | (Place::Items, ConfigValue::List(_)) => {
                return;
            }
            (Place::Items, ConfigValue::Table(_)) => written,
            (Place::Key(_) | Place::Section | Place::Items, _) => written,
            (Place::Unknown, _) => {
                let known = self.reference.iter().map(|doc| doc.path.as_str());
                let hint = hint(nearest_key(&pattern, known));
                format!("# unknown key, ignored{hint}\n# {written}")
            }
        };
        body.push_str(&line);
        body.push('\n');
    }

    fn header(&mut self, header: &str) {
        self.out.push('\n');
        self.out.push_str(header);
        self.out.push('\n');
    }
}

/// A value as TOML in one line.
fn inline(value: &ConfigValue) -> String {
    match value {
        ConfigValue::Null => "\"\"".to_owned(),
        ConfigValue::Bool(value) => value.to_string(),
        ConfigValue::Int(value) => value.to_string(),
        ConfigValue::Float(text) | ConfigValue::Datetime(text) => {
            if text.parse::<f64>().is_ok_and(f64::is_finite) && text.contains('.') {
                text.clone()
            } else {
                quoted(text)
            }
        }
        ConfigValue::Text(text) | ConfigValue::Switch { text, .. } => quoted(text),
        ConfigValue::List(items) => {
            let items: Vec<_> = items.iter().map(|item| inline(&item.value)).collect();
            format!("[{}]", items.join(", "))
        }
        ConfigValue::Table(table) => {
            let entry = |(name, node): &(String, ConfigNode)| {
                format!("{} = {}", join("", name), inline(&node.value))
            };
            let given = table.0.iter().filter(|(_, node)| !node.is_null());
            let entries: Vec<_> = given.map(entry).collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

/// A comment without line breaks inside.
pub(super) fn printable(line: &str) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.chars().map(plain).chain(['\n']).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Env, NameFilter, TypeName};
    use super::*;

    const YAML: &str = "\
server:
  host: 0.0.0.0
  port: 8080
  nonsense: 1
proxy:
  max_retries: 3
  response_timeout: 10m
  engine: sherpa
  sticky_sessions:
    enabled: true
    key_sources: [session_header, ip]
discovery:
  type: static
  refresh_interval: 30s
  static:
    endpoints:
      - url: http://a:1
        name: a
        type: ollama
        priority: 100
        check_interval: 5s
        auth:
          type: bearer
          token: ${TOKEN}
          extra: 1
        headers:
          X-Team: \"a \\\"b\\\"\"
        model_filter:
          exclude: ['*embed*']
      - url: http://b:2
        name: b
        model_url:
model_aliases:
  gpt 4: [llama, 'qwen:7b']
";

    #[test]
    fn a_file_moves_over_with_its_meaning() {
        let env = Env::of([("TOKEN", "t")]);
        let types = [TypeName {
            written: "ollama".into(),
            canonical: "ollama".into(),
        }];
        let admits = |_: &NameFilter, _: &str| true;
        let inputs = ConfigInputs {
            env: &env,
            cwd: Path::new("."),
            types: &types,
            admits: &admits,
        };
        let imported = import(YAML, Path::new("x/olla.yaml"), &inputs).unwrap();
        let toml = &imported.toml;
        let from_yaml = plan_from_str(YAML, FileFormat::Yaml, None, &inputs)
            .plan
            .unwrap();
        let from_toml = plan_from_str(toml, FileFormat::Toml, None, &inputs);
        assert_eq!(from_toml.findings, [], "{toml}");
        assert_eq!(from_toml.plan.unwrap(), from_yaml, "{toml}");
        for line in [
            "# Imported from olla.yaml.",
            "# max_retries = 3",
            "# has no effect in a YAML file, as in Olla; it would have one here",
            "# response_timeout = \"10m\"",
            "# refresh_interval = \"30s\"",
            "# nonsense = 1",
            "# extra = 1",
            "auth = { type = \"bearer\", token = \"${TOKEN}\" }",
            "[[discovery.static.endpoints]]",
            "\"gpt 4\" = [\"llama\", \"qwen:7b\"]",
        ] {
            assert!(toml.lines().any(|l| l == line), "{line}\n{toml}");
        }
        assert!(imported.findings.iter().all(|finding| finding.unknown_key));
        assert_eq!(imported.findings.len(), 2, "{:?}", imported.findings);
    }

    #[test]
    fn what_is_no_yaml_is_refused() {
        let env = Env::default();
        let admits = |_: &NameFilter, _: &str| true;
        let inputs = ConfigInputs {
            env: &env,
            cwd: Path::new("."),
            types: &[],
            admits: &admits,
        };
        let text = "model_registry:\n  routing_strategy:\n    options:\n      \
                    discovery_refresh_on_miss: false\n";
        let imported = import(text, Path::new("o.yaml"), &inputs).unwrap();
        let [note] = &imported.findings[..] else {
            panic!("{:?}", imported.findings);
        };
        assert_eq!(
            note.to_string(),
            "o.yaml:4: note: model_registry.routing_strategy.options.discovery_refresh_on_miss: \
             Olla's default; without this line it is true"
        );
        let text = text.replace("false", "true");
        let imported = import(&text, Path::new("o.yaml"), &inputs).unwrap();
        assert!(imported.findings.is_empty());
        let findings = import("a: [1\nb: 2", Path::new("o.yaml"), &inputs).unwrap_err();
        assert!(
            findings[0].to_string().starts_with("o.yaml:"),
            "{findings:?}"
        );
    }
}
