//! Olla's own YAML file into the tree of [`super::tree`].
//!
//! Scalars are resolved by the core schema of YAML 1.2 (section 10.3). Anchors, aliases and merge
//! keys work, since configurations in the field use them.

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::tree::{ConfigNode, ConfigTable, ConfigValue, SyntaxError};

/// Nesting beyond this is refused: no configuration needs it, and the walk is recursive.
const DEPTH_MAX: usize = 32;

/// Values that aliases may multiply to; keeps a small file from filling the memory.
const NODES_MAX: usize = 100_000;

/// Reads the one document of a YAML text.
///
/// # Errors
/// The first place that is not YAML, or not something a configuration can be.
pub(super) fn from_yaml(text: &str) -> Result<ConfigTable, Vec<SyntaxError>> {
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        anchors: Vec::new(),
        nodes: 0,
    };
    match builder.document() {
        Ok(table) => Ok(table),
        Err(error) => Err(vec![error]),
    }
}

struct Builder<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    /// Anchored values by the parser's number for them, with their count of nodes.
    anchors: Vec<(usize, ConfigNode, usize)>,
    nodes: usize,
}

type Step<T> = Result<T, SyntaxError>;

impl<'t> Builder<'t> {
    fn document(&mut self) -> Step<ConfigTable> {
        let mut root = ConfigTable::default();
        let mut documents = 0;
        loop {
            let (event, line) = self.next()?;
            match event {
                Event::DocumentStart(_) if documents == 1 => {
                    return Err(refuse(line, "a second document; a configuration is one"));
                }
                Event::DocumentStart(_) => documents = 1,
                Event::StreamEnd => return Ok(root),
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                event => {
                    root = match self.node(event, line, 0)?.value {
                        ConfigValue::Table(table) => table,
                        ConfigValue::Null => ConfigTable::default(),
                        other => {
                            let what = other.written();
                            return Err(refuse(line, &format!("{what}; keys and values")));
                        }
                    };
                }
            }
        }
    }

    fn next(&mut self) -> Step<(Event<'t>, usize)> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => Err(refuse(error.marker().line(), error.info())),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn node(&mut self, event: Event<'t>, line: usize, depth: usize) -> Step<ConfigNode> {
        self.nodes += 1;
        let before = self.nodes;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Err(refuse(
                line,
                "nested or repeated beyond what a configuration needs",
            ));
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                (
                    anchor,
                    if plain {
                        scalar(&text)
                    } else {
                        ConfigValue::Text(text.into_owned())
                    },
                )
            }
            Event::SequenceStart(anchor, _) => (anchor, self.sequence(depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.mapping(depth)?),
            Event::Alias(anchor) => return self.alias(anchor, line),
            _ => return Err(refuse(line, "ends where a value should be")),
        };
        let node = ConfigNode { line, value };
        if anchor > 0 {
            self.anchors
                .push((anchor, node.clone(), self.nodes - before + 1));
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Step<ConfigNode> {
        let found = self.anchors.iter().rev().find(|(id, _, _)| *id == anchor);
        let Some((_, node, count)) = found else {
            return Err(refuse(
                line,
                "an alias that stands for nothing, or for itself",
            ));
        };
        self.nodes += count;
        if self.nodes > NODES_MAX {
            return Err(refuse(line, "repeated beyond what a configuration needs"));
        }
        Ok(ConfigNode {
            line,
            value: node.value.clone(),
        })
    }

    fn sequence(&mut self, depth: usize) -> Step<ConfigValue> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(ConfigValue::List(items)),
                (event, line) => items.push(self.node(event, line, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Step<ConfigValue> {
        let mut table = ConfigTable::default();
        let mut merged = Vec::new();
        loop {
            let (key, line) = match self.next()? {
                (Event::MappingEnd, _) => break,
                (Event::Scalar(key, ..), line) => (key.into_owned(), line),
                (_, line) => return Err(refuse(line, "a key that is no plain text")),
            };
            let (event, value_line) = self.next()?;
            let mut node = self.node(event, value_line, depth + 1)?;
            if key == "<<" {
                merged.push(node);
                continue;
            }
            if table.0.iter().any(|(name, _)| *name == key) {
                return Err(refuse(line, &format!("the key {key} is given twice")));
            }
            node.line = line;
            table.0.push((key, node));
        }
        for node in merged {
            merge(&mut table, node)?;
        }
        Ok(ConfigValue::Table(table))
    }
}

/// What `<<` brings: a mapping or a list of them; keys that are there already stay.
fn merge(table: &mut ConfigTable, node: ConfigNode) -> Step<()> {
    match node.value {
        ConfigValue::Table(other) => {
            for (key, value) in other.0 {
                if table.0.iter().all(|(name, _)| *name != key) {
                    table.0.push((key, value));
                }
            }
            Ok(())
        }
        ConfigValue::List(items) => items.into_iter().try_for_each(|item| merge(table, item)),
        _ => Err(refuse(node.line, "a merge key takes a mapping")),
    }
}

/// YAML 1.2 section 10.3.2, the core schema.
fn scalar(text: &str) -> ConfigValue {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return ConfigValue::Null,
        "true" | "True" | "TRUE" => return ConfigValue::Bool(true),
        "false" | "False" | "FALSE" => return ConfigValue::Bool(false),
        ".inf" | ".Inf" | ".INF" | "-.inf" | "+.inf" | ".nan" | ".NaN" | ".NAN" => {
            return ConfigValue::Float(text.to_owned());
        }
        _ => {}
    }
    let based = match text.split_at_checked(2) {
        Some(("0x", digits)) => i128::from_str_radix(digits, 16).ok(),
        Some(("0o", digits)) => i128::from_str_radix(digits, 8).ok(),
        _ => text.parse().ok(),
    };
    if let Some(int) = based {
        return ConfigValue::Int(int);
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    if numeric && text.parse::<f64>().is_ok() {
        return ConfigValue::Float(text.to_owned());
    }
    ConfigValue::Text(text.to_owned())
}

fn refuse(line: usize, message: &str) -> SyntaxError {
    SyntaxError {
        line,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::from_toml;
    use super::*;

    fn plain(value: &ConfigValue) -> String {
        match value {
            ConfigValue::List(items) => {
                let items: Vec<_> = items.iter().map(|item| plain(&item.value)).collect();
                format!("[{}]", items.join(" "))
            }
            ConfigValue::Table(table) => {
                let mut entries: Vec<_> = table
                    .0
                    .iter()
                    .map(|(k, n)| format!("{k}={}", plain(&n.value)))
                    .collect();
                entries.sort();
                format!("{{{}}}", entries.join(" "))
            }
            other => other.written(),
        }
    }

    #[test]
    fn yaml_and_toml_give_the_same_tree() {
        let yaml = "server:\n  port: 40114\n  read_timeout: 30s\n  on: true\n\
                    list: [a, \"5\", 5]\nitems:\n  - name: x\n  - name: 'y'\n";
        let toml = "list = [\"a\", \"5\", 5]\n[server]\nport = 40114\nread_timeout = \"30s\"\n\
                    on = true\n[[items]]\nname = \"x\"\n[[items]]\nname = \"y\"\n";
        let yaml = from_yaml(yaml).unwrap();
        let toml = from_toml(toml).unwrap();
        assert_eq!(
            plain(&ConfigValue::Table(yaml.clone())),
            plain(&ConfigValue::Table(toml))
        );
        let ConfigValue::Table(server) = &yaml.get("server").unwrap().value else {
            panic!()
        };
        assert_eq!(server.get("read_timeout").unwrap().line, 3);
        let ConfigValue::List(items) = &yaml.get("items").unwrap().value else {
            panic!()
        };
        assert_eq!(items[1].line, 8);
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let table = [
            ("~", "nothing"),
            ("null", "nothing"),
            ("True", "true"),
            ("yes", "\"yes\""),
            ("12", "12"),
            ("-1", "-1"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("1.50", "1.50"),
            ("1e3", "1e3"),
            ("1.2.3", "\"1.2.3\""),
            ("5m", "\"5m\""),
            ("'12'", "\"12\""),
            ("10.0.0.0/8", "\"10.0.0.0/8\""),
            ("-", "[nothing]"),
        ];
        for (text, want) in table {
            let root = from_yaml(&format!("k:\n  {text}\n")).unwrap();
            assert_eq!(plain(&root.0[0].1.value), want, "{text}");
        }
    }

    #[test]
    fn anchors_and_merge_keys_work() {
        let text = "base: &b\n  a: 1\n  c: 2\nx:\n  <<: *b\n  c: 3\ny: *b\n";
        let root = ConfigValue::Table(from_yaml(text).unwrap());
        assert_eq!(plain(&root), "{base={a=1 c=2} x={a=1 c=3} y={a=1 c=2}}");
    }

    #[test]
    fn empty_and_null_keys_are_absent() {
        for text in ["", "# nothing\n", "---\n", "~\n"] {
            assert_eq!(from_yaml(text), Ok(ConfigTable::default()), "{text:?}");
        }
        assert_eq!(from_yaml("auth:\n").unwrap().get("auth"), None);
    }

    #[test]
    fn bad_yaml_is_refused_with_its_line() {
        let table = [
            ("a: 1\na: 2\n", 2),
            ("a: [1\n", 0),
            ("a: 1\n b: 2\n", 2),
            ("- a\n", 1),
            ("a: *nothing\n", 1),
            ("? [x]\n: 1\n", 1),
            ("a: 1\n---\nb: 2\n", 2),
        ];
        for (text, line) in table {
            let errors = from_yaml(text).unwrap_err();
            assert!(line == 0 || errors[0].line == line, "{text:?}: {errors:?}");
        }
        let deep = format!("a: {}{}", "[".repeat(40), "]".repeat(40));
        assert!(from_yaml(&deep).is_err());
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..9 {
            let last = format!("*a{}", i - 1);
            bomb += &format!("a{i}: &a{i} [{}]\n", vec![last; 10].join(","));
        }
        assert!(from_yaml(&bomb).is_err());
    }
}
