//! Rust text without its comments and literals, by a lexer of the few forms that matter.

/// A file in three views of equal length and lines.
pub(crate) struct Source {
    /// Path from the project's root.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// Whether all of it is test code.
    pub(crate) is_test: bool,
    code: String,
    product: String,
}

impl Source {
    /// Reads a file. Files of `tests/` folders and such are test code by their place.
    pub(crate) fn new(path: String, text: String) -> Self {
        let code = code(&text);
        let product = without_tests(&code);
        let in_tests = path
            .split('/')
            .any(|part| part == "tests" || part == "benches");
        let is_test = in_tests || path.starts_with("fuzz/") || path.ends_with("/tests.rs");
        Self {
            path,
            text,
            is_test,
            code,
            product,
        }
    }

    /// Without comments and literals.
    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    /// Nor what stands under `#[cfg(test)]`; nothing when the whole file is test code.
    pub(crate) fn product(&self) -> &str {
        if self.is_test { "" } else { &self.product }
    }

    /// Files declared as `#[cfg(test)] mod name;`, by path without its ending.
    pub(crate) fn test_modules(&self) -> Vec<String> {
        let mut modules = Vec::new();
        let lines: Vec<&str> = self.text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            if !line.starts_with("#[cfg(test)]") {
                continue;
            }
            let mut file = None;
            for line in lines.iter().skip(at + 1).take(4) {
                if let Some(path) = line.strip_prefix("#[path = \"") {
                    file = path
                        .split(".rs\"")
                        .next()
                        .map(|name| (name.to_owned(), true));
                }
                let declared = line.trim_start_matches("pub(crate) ").strip_prefix("mod ");
                if let Some(name) = declared.and_then(|rest| rest.strip_suffix(';')) {
                    let (name, beside) = file.unwrap_or((name.to_owned(), false));
                    modules.push(format!("{}/{name}", self.folder(beside)));
                    break;
                }
            }
        }
        modules
    }

    /// Where the files of this module's children are: in its folder, or beside it when a `path`
    /// attribute names them.
    fn folder(&self, beside: bool) -> String {
        let (folder, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        if beside || ["mod.rs", "lib.rs", "main.rs"].contains(&file) {
            return folder.to_owned();
        }
        format!("{folder}/{}", file.trim_end_matches(".rs"))
    }
}

/// A function of a file.
pub(crate) struct Function {
    pub(crate) name: String,
    /// Where it begins.
    pub(crate) line: usize,
    /// From its `fn` to its closing brace.
    pub(crate) lines: usize,
}

/// Every function with a body.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let bytes = code.as_bytes();
    let ends: Vec<usize> = code.match_indices('\n').map(|(at, _)| at).collect();
    let line_of = |at: usize| 1 + ends.partition_point(|end| *end < at);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = at.checked_sub(1).map(|at| bytes[at]);
        if before.is_some_and(is_word_byte) {
            continue;
        }
        let name: String = code[at + 3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let Some(open) = body(bytes, at).filter(|_| !name.is_empty()) else {
            continue;
        };
        let end = closing(bytes, open);
        let lines = line_of(end) - line_of(at) + 1;
        found.push(Function {
            name,
            line: line_of(at),
            lines,
        });
    }
    found
}

/// The opening brace of the item at a place; none when it ends with a semicolon first.
fn body(code: &[u8], from: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, byte) in code.iter().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(at),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn closing(code: &[u8], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    code.len().saturating_sub(1)
}

/// The identifiers and keywords of a text with their lines.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().flat_map(|(at, line)| {
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        words
            .filter(|word| !word.is_empty())
            .map(move |word| (at + 1, word))
    })
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Blanks out the items under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let start = from + found;
        let end = match body(code.as_bytes(), start + "#[cfg(test)]".len()) {
            Some(open) => closing(code.as_bytes(), open),
            None => code[start..]
                .find(';')
                .map_or(code.len() - 1, |at| start + at),
        };
        for byte in &mut bytes[start..=end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        from = end;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Blanks out comments and the insides of literals.
fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        for c in &chars[at..end.max(at + 1)] {
            out.push(match c {
                '\n' => '\n',
                _ if end > at => ' ',
                c if c.is_ascii() => *c,
                _ => ' ',
            });
        }
        at = end.max(at + 1);
    }
    out
}

/// Where the comment or literal that begins here ends; the place itself when none does.
fn literal_end(chars: &[char], at: usize) -> usize {
    if !['/', 'r', 'b', '"', '\''].contains(&chars[at]) {
        return at;
    }
    let starts = |text: &str| {
        text.chars()
            .enumerate()
            .all(|(n, c)| chars.get(at + n) == Some(&c))
    };
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    if starts("//") {
        return find(chars, at, |rest| rest[0] == '\n');
    }
    if starts("/*") {
        return block_comment(chars, at);
    }
    if !in_word && (starts("r\"") || starts("r#") || starts("br\"") || starts("br#")) {
        return raw_string(chars, at);
    }
    if chars[at] == '"' {
        return quoted(chars, at, '"');
    }
    // A lifetime has no second quote where a character literal has one.
    let is_char = chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'');
    if chars[at] == '\'' && is_char {
        return quoted(chars, at, '\'');
    }
    at
}

fn find(chars: &[char], from: usize, is_end: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len())
        .find(|at| is_end(&chars[*at..]))
        .unwrap_or(chars.len())
}

fn block_comment(chars: &[char], from: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = from;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn quoted(chars: &[char], from: usize, quote: char) -> usize {
    let mut at = from + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `r"…"`, `r#"…"#`, …; `r#name` is no string.
fn raw_string(chars: &[char], from: usize) -> usize {
    let open = find(chars, from, |rest| rest[0] != 'r' && rest[0] != 'b');
    let hashes = chars[open..].iter().take_while(|c| **c == '#').count();
    if chars.get(open + hashes) != Some(&'"') {
        return from;
    }
    let is_end = |rest: &[char]| {
        rest[0] == '"' && rest.len() > hashes && rest[1..=hashes].iter().all(|c| *c == '#')
    };
    let end = find(chars, open + hashes + 1, is_end);
    (end + 1 + hashes).min(chars.len())
}

#[test]
fn comments_and_literals_are_no_code() {
    let table = [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (
            r#"f("x\"y", 'z', '\'', b"q")"#,
            r"f(      ,    ,     , b   )",
        ),
        ("r#\"a\"b\"# c r\"d\" r#fn", "         c      r#fn"),
        ("&'a str, 'b'", "&'a str,    "),
        ("x('{')", "x(   )"),
    ];
    for (text, want) in table {
        let got = code(text);
        assert_eq!(got.trim_end(), want.trim_end(), "{text}");
        assert_eq!(got.lines().count(), text.lines().count());
    }
}

#[test]
fn test_code_is_told_apart() {
    let text =
        "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { { } }\n}\n#[cfg(test)]\nmod c;\nfn d();\n";
    let source = Source::new("src/x/mod.rs".to_owned(), text.to_owned());
    let names: Vec<_> = functions(source.product())
        .into_iter()
        .map(|f| f.name)
        .collect();
    assert_eq!(names, ["a"]);
    assert_eq!(source.test_modules(), ["src/x/c"]);
    assert_eq!(source.product().lines().count(), text.lines().count());

    let text = "#[cfg(test)]\n#[path = \"y_tests.rs\"]\nmod tests;\n";
    let beside = Source::new("src/x/y.rs".to_owned(), text.to_owned());
    assert_eq!(beside.test_modules(), ["src/x/y_tests"]);
    let text = "#[cfg(test)]\nmod tests;\n";
    let below = Source::new("src/x/y.rs".to_owned(), text.to_owned());
    assert_eq!(below.test_modules(), ["src/x/y/tests"]);
    assert!(Source::new("engine/tests/a.rs".to_owned(), String::new()).is_test);
}

#[test]
fn functions_are_measured() {
    let text = "impl X {\n    fn a<T: Fn(u8) -> [u8; 3]>(t: T)\n    where T: Y,\n    {\n        if x { }\n    }\n}\nfn b() {}\n";
    let found = functions(&code(text));
    let shown: Vec<_> = found
        .iter()
        .map(|f| (f.name.as_str(), f.line, f.lines))
        .collect();
    assert_eq!(shown, [("a", 2, 5), ("b", 8, 1)]);
}
