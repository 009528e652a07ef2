//! Reads a YAML configuration of Olla into the tree of [`super::tree`].
//!
//! Syntax is YAML 1.2 as libyaml reads it: indentation does not count inside `[…]` and `{…}`.
//! Plain scalars are resolved as Olla's reader does: by the core schema of YAML 1.2 (section
//! 10.3), and by what remains of YAML 1.1 in Go's package: `_` between digits, octal numbers that
//! begin with `0`, and `yes`, `no`, `on` and `off` where a key takes a boolean. Anchors, aliases
//! and merge keys are supported, because existing configurations use them.

use std::collections::HashSet;

use granit_parser::{Event, Parser, ScalarStyle, StrInput, Tag};

use super::tree::{ConfigNode, ConfigTable, ConfigValue, SyntaxError};

/// Maximum nesting depth: no configuration needs more, and the walk is recursive.
const DEPTH_MAX: usize = 32;

/// Maximum size of a file after its aliases are expanded: bytes of text, and [`NODE_COST`] for each
/// value.
const EXPANDED_BYTES_MAX: usize = 8 << 20;

/// The cost of a value besides its text.
const NODE_COST: usize = 64;

/// Reads the one document of a YAML text.
///
/// # Errors
/// The first place that is not YAML, or cannot be part of a configuration.
pub(super) fn from_yaml(text: &str) -> Result<ConfigTable, Vec<SyntaxError>> {
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        anchors: Vec::new(),
        // Values outside aliases are bounded by the size of the file.
        budget: text.len().saturating_mul(NODE_COST) + EXPANDED_BYTES_MAX,
    };
    builder.document().map_err(|error| vec![error])
}

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    /// Anchored values and their cost, by the parser's number of the anchor.
    anchors: Vec<Anchored>,
    /// The remaining budget for values.
    budget: usize,
}

struct Anchored {
    id: usize,
    node: ConfigNode,
    cost: usize,
}

type Step<T> = Result<T, SyntaxError>;

impl<'t> Builder<'t> {
    fn document(&mut self) -> Step<ConfigTable> {
        let mut root = ConfigTable::default();
        let mut documents = 0;
        loop {
            let (event, line) = self.next()?;
            match event {
                Event::DocumentStart(..) if documents == 1 => {
                    let message = "expected one document, got a second one (---)";
                    return Err(refuse(line, message));
                }
                Event::DocumentStart(..) => documents = 1,
                Event::StreamEnd => return Ok(root),
                Event::StreamStart | Event::DocumentEnd => {}
                event => {
                    root = match self.node(event, line, 0)?.value {
                        ConfigValue::Table(table) => table,
                        ConfigValue::Null => ConfigTable::default(),
                        other => {
                            let what = other.described();
                            return Err(refuse(
                                line,
                                &format!("expected keys and values, got {what}"),
                            ));
                        }
                    };
                }
            }
        }
    }

    fn next(&mut self) -> Step<(Event<'t>, usize)> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => Err(refuse(error.marker().line(), &error.info())),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn spend(&mut self, cost: usize, line: usize) -> Step<()> {
        match self.budget.checked_sub(cost) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(refuse(line, "aliases expand to too many values")),
        }
    }

    fn node(&mut self, event: Event<'t>, line: usize, depth: usize) -> Step<ConfigNode> {
        if depth > DEPTH_MAX {
            let message = format!("expected at most {DEPTH_MAX} levels of nesting");
            return Err(refuse(line, &message));
        }
        let before = self.budget;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(NODE_COST + text.len(), line)?;
                let is_plain = style == ScalarStyle::Plain;
                let value = match tag.as_deref().and_then(Tag::core_suffix) {
                    Some("str") => ConfigValue::Text(text.into_owned()),
                    Some(_) => plain(&text),
                    None if is_plain => plain(&text),
                    None => ConfigValue::Text(text.into_owned()),
                };
                (anchor, value)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.spend(NODE_COST, line)?;
                (anchor, self.sequence(depth)?)
            }
            Event::MappingStart(_, anchor, _) => {
                self.spend(NODE_COST, line)?;
                (anchor, self.mapping(depth)?)
            }
            Event::Alias(id) => return self.alias(id, line),
            _ => return Err(refuse(line, "expected a value, got the end of the file")),
        };
        let node = ConfigNode { line, value };
        if anchor > 0 {
            let cost = before - self.budget;
            self.spend(cost, line)?;
            self.anchors.push(Anchored {
                id: anchor,
                node: node.clone(),
                cost,
            });
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, line: usize) -> Step<ConfigNode> {
        let Some(at) = self.anchors.iter().rposition(|anchored| anchored.id == id) else {
            return Err(refuse(
                line,
                "an alias must not occur inside its own anchor",
            ));
        };
        self.spend(self.anchors[at].cost, line)?;
        let value = self.anchors[at].node.value.clone();
        Ok(ConfigNode { line, value })
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
        let mut names = HashSet::new();
        let mut merged = Vec::new();
        loop {
            let (key, style, line) = match self.next()? {
                (Event::MappingEnd, _) => break,
                (Event::Scalar(key, style, ..), line) => (key.into_owned(), style, line),
                (_, line) => return Err(refuse(line, "expected a plain key")),
            };
            let (event, value_line) = self.next()?;
            let mut node = self.node(event, value_line, depth + 1)?;
            if key == "<<" && style == ScalarStyle::Plain {
                merged.push(node);
                continue;
            }
            if !names.insert(key.clone()) {
                return Err(refuse(line, &format!("the key \"{key}\" is given twice")));
            }
            node.line = line;
            table.0.push((key, node));
        }
        for node in merged {
            merge(&mut table, &mut names, node)?;
        }
        Ok(ConfigValue::Table(table))
    }
}

/// Merges the value of `<<`, a mapping or a list of mappings. Existing keys stay.
fn merge(table: &mut ConfigTable, names: &mut HashSet<String>, node: ConfigNode) -> Step<()> {
    match node.value {
        ConfigValue::Table(other) => {
            for (key, value) in other.0 {
                if names.insert(key.clone()) {
                    table.0.push((key, value));
                }
            }
            Ok(())
        }
        ConfigValue::List(items) => items
            .into_iter()
            .try_for_each(|item| merge(table, names, item)),
        other => {
            let message = format!(
                "expected a mapping to merge (<<), got {}",
                other.described()
            );
            Err(refuse(node.line, &message))
        }
    }
}

/// A scalar without quotes.
fn plain(text: &str) -> ConfigValue {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return ConfigValue::Null,
        "true" | "True" | "TRUE" => return ConfigValue::Bool(true),
        "false" | "False" | "FALSE" => return ConfigValue::Bool(false),
        ".inf" | ".Inf" | ".INF" | "-.inf" | "+.inf" | ".nan" | ".NaN" | ".NAN" => {
            return ConfigValue::Float(text.to_owned());
        }
        _ => {}
    }
    let lower = text.to_ascii_lowercase();
    // Only `y`, `Y`, `yes`, `Yes` and `YES` are booleans; other mixtures of letter case are strings.
    let one_case = text == lower || text.get(1..) == lower.get(1..) || text == text.to_uppercase();
    if one_case && let Some(on) = switch(&lower) {
        let text = text.to_owned();
        return ConfigValue::Switch { text, on };
    }
    number(text).unwrap_or_else(|| ConfigValue::Text(text.to_owned()))
}

/// The booleans of YAML 1.1 that are strings in YAML 1.2.
fn switch(lower: &str) -> Option<bool> {
    match lower {
        "y" | "yes" | "on" => Some(true),
        "n" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// An integer in any base, or a decimal number; `_` may stand between digits.
fn number(text: &str) -> Option<ConfigValue> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return None;
    }
    let digits = text.replace('_', "");
    let (negative, unsigned) = match digits.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let of = |digits: &str, base| {
        let only_digits = digits.bytes().all(|b| b.is_ascii_alphanumeric());
        only_digits
            .then(|| i128::from_str_radix(digits, base).ok())
            .flatten()
    };
    let int = match unsigned.split_at_checked(2) {
        Some(("0x" | "0X", rest)) => of(rest, 16),
        Some(("0o" | "0O", rest)) => of(rest, 8),
        Some(("0b" | "0B", rest)) => of(rest, 2),
        _ if unsigned.len() > 1 && unsigned.starts_with('0') => of(&unsigned[1..], 8),
        _ => of(unsigned, 10),
    };
    if let Some(int) = int {
        return Some(ConfigValue::Int(if negative { -int } else { int }));
    }
    let numeric = unsigned
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    (numeric && digits.parse::<f64>().is_ok()).then(|| ConfigValue::Float(text.to_owned()))
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

    fn shown(value: &ConfigValue) -> String {
        match value {
            ConfigValue::List(items) => {
                let items: Vec<_> = items.iter().map(|item| shown(&item.value)).collect();
                format!("[{}]", items.join(" "))
            }
            ConfigValue::Table(table) => {
                let mut entries: Vec<_> = table
                    .0
                    .iter()
                    .map(|(k, n)| format!("{k}={}", shown(&n.value)))
                    .collect();
                entries.sort();
                format!("{{{}}}", entries.join(" "))
            }
            ConfigValue::Switch { text, on } => format!("{text}:{on}"),
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
            shown(&ConfigValue::Table(yaml.clone())),
            shown(&ConfigValue::Table(toml))
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
    fn scalars_are_those_of_ollas_reader() {
        let table = [
            ("~", "nothing"),
            ("null", "nothing"),
            ("True", "true"),
            ("yes", "yes:true"),
            ("On", "On:true"),
            ("OFF", "OFF:false"),
            ("n", "n:false"),
            ("yEs", "\"yEs\""),
            ("'yes'", "\"yes\""),
            ("!!str yes", "\"yes\""),
            ("!!str 5", "\"5\""),
            ("! 5", "5"),
            ("1_048_576", "1048576"),
            ("+7", "7"),
            ("0b101", "5"),
            ("0777", "511"),
            ("-0x10", "-16"),
            ("08", "08"),
            ("1_000.5", "1_000.5"),
            ("_1", "\"_1\""),
            ("-", "[nothing]"),
            ("2023-06-01", "\"2023-06-01\""),
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
            assert_eq!(shown(&root.0[0].1.value), want, "{text}");
        }
    }

    #[test]
    fn anchors_and_merge_keys_work() {
        let text = "base: &b\n  a: 1\n  c: 2\nx:\n  <<: *b\n  c: 3\ny: *b\n";
        let root = ConfigValue::Table(from_yaml(text).unwrap());
        assert_eq!(shown(&root), "{base={a=1 c=2} x={a=1 c=3} y={a=1 c=2}}");
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

    #[test]
    fn indentation_does_not_count_inside_brackets() {
        let list = "[a b]";
        for text in [
            "k:\n  l: [\n    a,\n    b\n  ]\n  x: 1\n",
            "k:\n  l: [\n  a,\n  b,\n  ]\n  x: 1\n",
            "k:\n  l: [ # remark\n a,\nb\n]\n  x: 1\n",
        ] {
            let root = ConfigValue::Table(from_yaml(text).unwrap());
            assert_eq!(shown(&root), "{k={l=[\"a\" \"b\"] x=1}}", "{text} {list}");
        }
        let text = "k:\n  m: {\n  a: 1,\n  b: 2\n}\n";
        let root = ConfigValue::Table(from_yaml(text).unwrap());
        assert_eq!(shown(&root), "{k={m={a=1 b=2}}}");
    }

    #[test]
    fn merges_follow_their_order_and_quoted_marks_are_keys() {
        let text =
            "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  z: 3\n  <<: [*a, *b]\nd: {'<<': 1}\n";
        let root = from_yaml(text).unwrap();
        assert_eq!(shown(&root.get("c").unwrap().value), "{x=1 y=1 z=3}");
        assert_eq!(shown(&root.get("d").unwrap().value), "{<<=1}");
        assert!(from_yaml("a:\n  <<: 5\n").is_err());
    }

    #[test]
    fn a_long_text_is_not_multiplied_without_bound() {
        let mut text = format!("a: &a {}\nb:\n", "x".repeat(1 << 20));
        text += &"  - *a\n".repeat(1000);
        let errors = from_yaml(&text).unwrap_err();
        assert!(errors[0].message.contains("aliases"), "{errors:?}");
        let within = format!("a: &a x\nb:\n{}", "  - *a\n".repeat(10_000));
        assert!(from_yaml(&within).is_ok());
        assert!(from_yaml("a: &a [*a]\n").is_err());
    }
}
