//! One tree for both file formats: values and their lines.
//!
//! The tree is about syntax only; keys, their types and defaults are elsewhere.
//!
//! Contract: docs/contract/operations.md#10

use memchr::memchr;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and its line, counted from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ConfigNode {
    pub(super) line: usize,
    pub(super) value: ConfigValue,
}

impl ConfigNode {
    pub(super) fn is_null(&self) -> bool {
        self.value == ConfigValue::Null
    }
}

/// The kinds of value that both formats share.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ConfigValue {
    /// YAML only: a key without a value. Counts as absent.
    Null,
    Bool(bool),
    Int(i128),
    /// YAML only: `yes`, `off` and their like, a boolean where a key takes one, else the text.
    Switch {
        text: String,
        on: bool,
    },
    /// As written.
    Float(String),
    /// As written; no key has this type.
    Datetime(String),
    Text(String),
    List(Vec<ConfigNode>),
    Table(ConfigTable),
}

/// Keys and values, each key once.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ConfigTable(pub(super) Vec<(String, ConfigNode)>);

impl ConfigTable {
    /// The value of a key, unless it is null.
    pub(super) fn get(&self, key: &str) -> Option<&ConfigNode> {
        let found = self
            .0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, node)| node);
        found.filter(|node| !node.is_null())
    }
}

impl ConfigValue {
    /// The value as it was written, for a message; for lists and tables only the kind.
    pub(super) fn written(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(text) | Self::Datetime(text) => text.clone(),
            Self::Text(text) | Self::Switch { text, .. } => super::values::quoted(text),
            Self::List(items) if items.is_empty() => "an empty list".to_owned(),
            Self::List(_) | Self::Table(_) => self.kind().to_owned(),
        }
    }

    /// The text of a string.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Switch { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The value and its kind, where another kind is expected: `the string "5"`.
    pub(super) fn described(&self) -> String {
        let kind = match self {
            Self::Bool(_) => "the boolean",
            Self::Int(_) => "the integer",
            Self::Float(_) => "the number",
            Self::Datetime(_) => "the date",
            Self::Text(_) | Self::Switch { .. } => "the string",
            Self::Null | Self::List(_) | Self::Table(_) => return self.written(),
        };
        format!("{kind} {}", self.written())
    }

    /// The kind of the value, for a message that must not show the value.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Datetime(_) => "a date",
            Self::Text(_) | Self::Switch { .. } => "a string",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// A syntax error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Reads TOML.
///
/// # Errors
/// All syntax errors, in the order of the lines, at most one per line.
pub(super) fn from_toml(text: &str) -> Result<ConfigTable, Vec<SyntaxError>> {
    from_toml_part(text, 0)
}

/// Reads TOML that has so many lines before it in its file.
///
/// # Errors
/// As [`from_toml`].
pub(super) fn from_toml_part(
    text: &str,
    lines_before: usize,
) -> Result<ConfigTable, Vec<SyntaxError>> {
    let lines = Lines::of(text, lines_before);
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(toml_table(root.into_inner(), &lines));
    }
    let mut errors: Vec<SyntaxError> = errors
        .iter()
        .map(|error| SyntaxError {
            line: error.span().map_or(0, |span| lines.of_offset(span.start)),
            message: error.message().to_owned(),
        })
        .collect();
    errors.sort_by_key(|error| error.line);
    errors.dedup_by_key(|error| error.line);
    Err(errors)
}

/// Reads a part of a TOML file as [`from_toml_part`] does, but many times faster, if it has nothing but
/// entries of one array of tables with plain fields: strings without escapes, whole numbers and
/// booleans, each on a line of its own. `None` = it has something else.
pub(super) fn plain_entries(array: &str, text: &str, lines_before: usize) -> Option<ConfigTable> {
    let mut entries: Vec<ConfigNode> = Vec::new();
    let blanks = [' ', '\t'];
    for (line, text) in (lines_before + 1..).zip(text.split('\n')) {
        let text = text.trim_matches(blanks);
        let header = text
            .strip_prefix("[[")
            .and_then(|text| text.strip_suffix("]]"));
        if text.is_empty() || (text.starts_with('#') && text.bytes().all(is_plain_byte)) {
            continue;
        }
        if header == Some(array) {
            // Most keys have a name, a hash and a policy.
            let value = ConfigValue::Table(ConfigTable(Vec::with_capacity(4)));
            entries.push(ConfigNode { line, value });
            continue;
        }
        let ConfigValue::Table(table) = &mut entries.last_mut()?.value else {
            return None;
        };
        let equals = memchr(b'=', text.as_bytes())?;
        let (key, value) = (text.get(..equals)?, text.get(equals + 1..)?);
        let (key, value) = (
            key.trim_end_matches(blanks),
            value.trim_start_matches(blanks),
        );
        let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if key.is_empty() || !key.bytes().all(is_bare) {
            return None;
        }
        // The parser gives the fields in this order.
        let Err(at) = table.0.binary_search_by(|(other, _)| (**other).cmp(key)) else {
            return None;
        };
        let value = plain_value(value)?;
        table
            .0
            .insert(at, (key.to_owned(), ConfigNode { line, value }));
    }
    let Some(first) = entries.first() else {
        return Some(ConfigTable::default());
    };
    let line = first.line;
    let value = ConfigValue::List(entries);
    Some(ConfigTable(vec![(
        array.to_owned(),
        ConfigNode { line, value },
    )]))
}

fn is_plain_byte(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f
}

fn plain_value(text: &str) -> Option<ConfigValue> {
    let quoted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    if let Some(text) = quoted {
        let is_plain = |byte: u8| is_plain_byte(byte) && byte != b'"' && byte != b'\\';
        return text
            .bytes()
            .all(is_plain)
            .then(|| ConfigValue::Text(text.to_owned()));
    }
    match text {
        "true" => Some(ConfigValue::Bool(true)),
        "false" => Some(ConfigValue::Bool(false)),
        _ => {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            let is_canonical = text == "0" || !text.starts_with('0');
            let number = text.parse().ok().filter(|_| is_number && is_canonical);
            number.map(|number: u32| ConfigValue::Int(number.into()))
        }
    }
}

fn toml_table(table: DeTable<'_>, lines: &Lines) -> ConfigTable {
    let entry = |(key, value): (Spanned<std::borrow::Cow<'_, str>>, Spanned<DeValue<'_>>)| {
        let line = lines.of_offset(key.span().start);
        let value = toml_value(value.into_inner(), lines);
        (key.into_inner().into_owned(), ConfigNode { line, value })
    };
    ConfigTable(table.into_iter().map(entry).collect())
}

fn toml_value(value: DeValue<'_>, lines: &Lines) -> ConfigValue {
    match value {
        DeValue::String(text) => ConfigValue::Text(text.into_owned()),
        DeValue::Integer(int) => {
            let parsed = i128::from_str_radix(int.as_str(), int.radix());
            parsed.map_or_else(
                |_| ConfigValue::Float(int.as_str().to_owned()),
                ConfigValue::Int,
            )
        }
        DeValue::Float(float) => ConfigValue::Float(float.as_str().to_owned()),
        DeValue::Boolean(value) => ConfigValue::Bool(value),
        DeValue::Datetime(value) => ConfigValue::Datetime(value.to_string()),
        DeValue::Array(items) => {
            let node = |item: Spanned<DeValue<'_>>| ConfigNode {
                line: lines.of_offset(item.span().start),
                value: toml_value(item.into_inner(), lines),
            };
            ConfigValue::List(items.into_iter().map(node).collect())
        }
        DeValue::Table(table) => ConfigValue::Table(toml_table(table, lines)),
    }
}

/// The offsets at which the lines of a text end, and the number of lines before it.
struct Lines {
    ends: Vec<usize>,
    before: usize,
}

impl Lines {
    fn of(text: &str, before: usize) -> Self {
        let bytes = text.bytes().enumerate();
        Self {
            ends: bytes
                .filter(|(_, b)| *b == b'\n')
                .map(|(at, _)| at)
                .collect(),
            before,
        }
    }

    fn of_offset(&self, offset: usize) -> usize {
        self.before + self.ends.partition_point(|newline| *newline < offset) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_values_know_their_lines() {
        let text = "a = 1\n\n[b]\nc = [\n  \"x\",\n  \"y\",\n]\nd.e = 0x10\n[[f]]\ng = 1.50\n";
        let root = from_toml(text).unwrap();
        let table = |node: &ConfigNode| match &node.value {
            ConfigValue::Table(table) => table.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            root.get("a"),
            Some(&ConfigNode {
                line: 1,
                value: ConfigValue::Int(1)
            })
        );
        let b = root.get("b").unwrap();
        assert_eq!(b.line, 3);
        let c = table(b).get("c").unwrap().clone();
        assert_eq!(c.line, 4);
        let ConfigValue::List(items) = c.value else {
            panic!()
        };
        assert_eq!(
            items[1],
            ConfigNode {
                line: 6,
                value: ConfigValue::Text("y".into())
            }
        );
        let e = table(table(b).get("d").unwrap()).get("e").unwrap().clone();
        assert_eq!(
            e,
            ConfigNode {
                line: 8,
                value: ConfigValue::Int(16)
            }
        );
        let ConfigValue::List(f) = &root.get("f").unwrap().value else {
            panic!()
        };
        assert_eq!(f[0].line, 9);
        assert_eq!(
            table(&f[0]).get("g").unwrap().value,
            ConfigValue::Float("1.50".into())
        );
    }

    #[test]
    fn toml_syntax_errors_know_their_lines() {
        let table = [
            ("a = \n", 1),
            ("a = 1\nb =\n", 2),
            ("a = 1\na = 2\n", 2),
            ("\n\n[x\n", 3),
        ];
        for (text, line) in table {
            let errors = from_toml(text).unwrap_err();
            assert_eq!(errors[0].line, line, "{text:?}: {errors:?}");
            assert!(!errors[0].message.is_empty());
        }
        let errors = from_toml("a =\nok = 1\nb = tru\n").unwrap_err();
        assert_eq!(
            errors.iter().map(|e| e.line).collect::<Vec<_>>(),
            [1, 3],
            "{errors:?}"
        );
    }

    #[test]
    fn plain_entries_are_read_as_the_parser_reads_them() {
        let lines = [
            "[[keys]]",
            "[[keys]]",
            " [[keys]] ",
            "[[ keys ]]",
            "[keys]",
            "[[other]]",
            "",
            "name = \"a\"",
            "name=\"b c\"",
            "\tnote = \"\u{fc}\u{1f600} # no comment\" ",
            "# a \"comment\"",
            "note = \"\"",
            "note = \"\"\"",
            "note = \"a\\tb\"",
            "note = \"a\u{7f}\"",
            "note = 'a'",
            "enabled = true",
            "enabled = false",
            "concurrent = 7",
            "concurrent = 0",
            "weight = 07",
            "weight = +1",
            "weight = 4294967295",
            "weight = 99999999999",
            "weight = 1_0",
            "x = ",
            "= 1",
            "a.b = 1",
            "models = [\"a\"]",
            "expires = 2026-01-01T00:00:00Z",
            "name = \"a\" # c",
            "\"name\" = \"q\"",
            "#\u{1}",
            "n\u{e4}me = 1",
            "note = \"\"\"\"\"\"",
            "key",
            "a = b = c",
        ];
        let mut random = 7_u64;
        let mut next = |below: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(random >> 33).unwrap() % below
        };
        let mut plain = 0;
        for _ in 0..20_000 {
            let simple = next(2) == 0;
            let mut text = String::new();
            for _ in 0..next(8) {
                text.push_str(lines[next(if simple { 12 } else { lines.len() })]);
                text.push_str(if next(40) == 0 { "\r\n" } else { "\n" });
            }
            if let Some(read) = plain_entries("keys", &text, 5) {
                plain += usize::from(!read.0.is_empty());
                assert_eq!(Ok(read), from_toml_part(&text, 5), "{text:?}");
            }
        }
        assert!(plain > 1_000, "{plain}");
        let usual = "# Keys\n\n[[keys]]\nname = \"a\"\nhash = \"sha256:00\"\ntokens_per_day = 5\n";
        assert!(plain_entries("keys", usual, 0).is_some());
    }
}
