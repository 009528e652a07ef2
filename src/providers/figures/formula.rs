//! Formulas of a profile's `metrics.extraction.calculations`, parsed once at start and evaluated
//! for each response.
//!
//! A formula consists of numbers, strings in quotes, `true`, `false`, `nil` (or `null`), names of
//! fields, `+ - * /`, comparisons, `! && ||`, `condition ? this : that`, parentheses and `len`.
//!
//! A field that a response does not have is absent: arithmetic with it is absent, a comparison of
//! order with it is false, it is false as a condition, and its `len` is 0. A division by zero is
//! absent too.
//!
//! Contract: docs/contract/operations.md#6

use super::paths::FoundScalar;
use FoundScalar::{Bool, Number, Text};

/// Longest formula in bytes.
const FORMULA_BYTES_MAX: usize = 1024;

/// Deepest nesting of operations.
const DEPTH_MAX: usize = 32;

/// A value of a formula; `None` is absent.
pub(super) type FormulaValue<'a> = Option<FoundScalar<'a>>;

/// Finds what a name refers to, or reports why it refers to nothing.
pub(super) type Resolve<'r, N> = &'r mut dyn FnMut(&str) -> Result<N, String>;

/// A parsed formula. Each name is replaced by what `resolve` found for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Formula<N> {
    Number(f64),
    Text(Box<str>),
    Bool(bool),
    Absent,
    Name(N),
    Not(Box<Self>),
    Negative(Box<Self>),
    Len(Box<Self>),
    Binary(Operator, Box<(Self, Self)>),
    Choice(Box<(Self, Self, Self)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Plus,
    Minus,
    Times,
    Divide,
}

/// The operators by precedence, the lowest first.
const PRECEDENCE: [&[(&str, Operator)]; 5] = [
    &[("||", Operator::Or)],
    &[("&&", Operator::And)],
    &[
        ("==", Operator::Equal),
        ("!=", Operator::Unequal),
        ("<=", Operator::LessEqual),
        (">=", Operator::GreaterEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ],
    &[("+", Operator::Plus), ("-", Operator::Minus)],
    &[("*", Operator::Times), ("/", Operator::Divide)],
];

impl<N> Formula<N> {
    /// Parses a formula.
    ///
    /// # Errors
    /// A message for the operator that says what is wrong with it.
    pub(super) fn parse(text: &str, resolve: Resolve<'_, N>) -> Result<Self, String> {
        if text.len() > FORMULA_BYTES_MAX {
            return Err(format!("longer than {FORMULA_BYTES_MAX} bytes"));
        }
        let mut parser = FormulaParser {
            rest: text,
            depth: 0,
            resolve,
        };
        let formula = parser.choice()?;
        match parser.peek() {
            "" => Ok(formula),
            token => Err(format!("unexpected {token:?}")),
        }
    }

    /// Evaluates the formula; `lookup` returns the values of names.
    pub(super) fn eval<'a>(&'a self, lookup: &dyn Fn(&N) -> FormulaValue<'a>) -> FormulaValue<'a> {
        match self {
            Self::Number(number) => Some(Number(*number)),
            Self::Text(text) => Some(Text(text.as_bytes())),
            Self::Bool(bool) => Some(Bool(*bool)),
            Self::Absent => None,
            Self::Name(name) => lookup(name),
            Self::Not(inner) => Some(Bool(!is_true(inner.eval(lookup)))),
            Self::Negative(inner) => match inner.eval(lookup)? {
                Number(number) => Some(Number(-number)),
                _ => None,
            },
            Self::Len(inner) => Some(Number(match inner.eval(lookup) {
                Some(Text(text)) => text.len() as f64,
                _ => 0.0,
            })),
            Self::Binary(operator, sides) => {
                let left = sides.0.eval(lookup);
                let right = || sides.1.eval(lookup);
                match operator {
                    Operator::And => Some(Bool(is_true(left) && is_true(right()))),
                    Operator::Or => Some(Bool(is_true(left) || is_true(right()))),
                    Operator::Equal => Some(Bool(left == right())),
                    Operator::Unequal => Some(Bool(left != right())),
                    Operator::Less => Some(Bool(compare(left, right(), f64::lt))),
                    Operator::LessEqual => Some(Bool(compare(left, right(), f64::le))),
                    Operator::Greater => Some(Bool(compare(left, right(), f64::gt))),
                    Operator::GreaterEqual => Some(Bool(compare(left, right(), f64::ge))),
                    Operator::Plus => compute(left?, right()?, |left, right| left + right),
                    Operator::Minus => compute(left?, right()?, |left, right| left - right),
                    Operator::Times => compute(left?, right()?, |left, right| left * right),
                    Operator::Divide => compute(left?, right()?, |left, right| left / right),
                }
            }
            Self::Choice(parts) => {
                if is_true(parts.0.eval(lookup)) {
                    parts.1.eval(lookup)
                } else {
                    parts.2.eval(lookup)
                }
            }
        }
    }
}

/// Whether a value counts as true in a condition.
fn is_true(value: FormulaValue<'_>) -> bool {
    value.is_some_and(|value| match value {
        Bool(bool) => bool,
        Number(number) => number != 0.0,
        Text(text) => !text.is_empty(),
    })
}

/// Only numbers have an order.
fn compare(left: FormulaValue<'_>, right: FormulaValue<'_>, holds: fn(&f64, &f64) -> bool) -> bool {
    match (left, right) {
        (Some(Number(left)), Some(Number(right))) => holds(&left, &right),
        _ => false,
    }
}

fn compute<'a>(
    left: FoundScalar<'_>,
    right: FoundScalar<'_>,
    operation: fn(f64, f64) -> f64,
) -> FormulaValue<'a> {
    let (Number(left), Number(right)) = (left, right) else {
        return None;
    };
    let number = operation(left, right);
    number.is_finite().then_some(Number(number))
}

struct FormulaParser<'a, N> {
    rest: &'a str,
    depth: usize,
    resolve: Resolve<'a, N>,
}

impl<'a, N> FormulaParser<'a, N> {
    /// The next token, which stays unread, and what follows it. Both are empty at the end.
    fn split(&self) -> (&'a str, &'a str) {
        let rest = self.rest.trim_start();
        let Some(first) = rest.chars().next() else {
            return ("", "");
        };
        let until = |ends: fn(char) -> bool| rest.find(ends).unwrap_or(rest.len());
        let len = match first {
            '0'..='9' => until(|c| !c.is_ascii_digit() && c != '.'),
            'a'..='z' | 'A'..='Z' | '_' => {
                until(|c| !c.is_ascii_alphanumeric() && c != '_' && c != '.')
            }
            // A string without its closing quote is refused where it is parsed.
            '"' | '\'' => rest
                .match_indices(first)
                .nth(1)
                .map_or(rest.len(), |(end, _)| end + 1),
            _ => match rest.get(..2) {
                Some("||" | "&&" | "==" | "!=" | "<=" | ">=") => 2,
                _ => first.len_utf8(),
            },
        };
        rest.split_at(len)
    }

    fn peek(&self) -> &'a str {
        self.split().0
    }

    fn take(&mut self) -> &'a str {
        let (token, rest) = self.split();
        self.rest = rest;
        token
    }

    fn expect(&mut self, wanted: &str) -> Result<(), String> {
        match self.take() {
            token if token == wanted => Ok(()),
            "" => Err(format!("expected {wanted:?}, got the end of the formula")),
            token => Err(format!("expected {wanted:?}, got {token:?}")),
        }
    }

    fn choice(&mut self) -> Result<Formula<N>, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX}"));
        }
        let condition = self.binary(0)?;
        let formula = if self.peek() == "?" {
            self.take();
            let then = self.choice()?;
            self.expect(":")?;
            let otherwise = self.choice()?;
            Formula::Choice(Box::new((condition, then, otherwise)))
        } else {
            condition
        };
        self.depth -= 1;
        Ok(formula)
    }

    fn binary(&mut self, level: usize) -> Result<Formula<N>, String> {
        let Some(operators) = PRECEDENCE.get(level) else {
            return self.single();
        };
        let mut left = self.binary(level + 1)?;
        let mut links = 0;
        loop {
            let token = self.peek();
            let Some((_, operator)) = operators.iter().find(|(written, _)| *written == token)
            else {
                return Ok(left);
            };
            self.take();
            // A chain nests to the left, and its evaluation recurses as deep as it is long.
            links += 1;
            if links > DEPTH_MAX {
                return Err(format!("chains more than {DEPTH_MAX} operations"));
            }
            let right = self.binary(level + 1)?;
            left = Formula::Binary(*operator, Box::new((left, right)));
        }
    }

    fn single(&mut self) -> Result<Formula<N>, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX}"));
        }
        let token = self.take();
        let formula = match token {
            "" => return Err("expected a value, got the end of the formula".to_owned()),
            "(" => self.parenthesised()?,
            "!" => Formula::Not(Box::new(self.single()?)),
            "-" => Formula::Negative(Box::new(self.single()?)),
            "true" => Formula::Bool(true),
            "false" => Formula::Bool(false),
            "nil" | "null" => Formula::Absent,
            _ => self.word(token)?,
        };
        self.depth -= 1;
        Ok(formula)
    }

    /// What stands between an opening parenthesis, which was read, and its closing one.
    fn parenthesised(&mut self) -> Result<Formula<N>, String> {
        let inner = self.choice()?;
        self.expect(")")?;
        Ok(inner)
    }

    fn word(&mut self, token: &str) -> Result<Formula<N>, String> {
        if token.starts_with(|c: char| c.is_ascii_digit()) {
            let number = token.parse();
            let number = number.map_err(|_| format!("expected a number, got {token:?}"))?;
            return Ok(Formula::Number(number));
        }
        for quote in ['"', '\''] {
            if let Some(rest) = token.strip_prefix(quote) {
                let text = rest.strip_suffix(quote);
                let text = text.ok_or_else(|| format!("a string without its closing {quote}"))?;
                return Ok(Formula::Text(text.into()));
            }
        }
        if !token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return Err(format!("unexpected {token:?}"));
        }
        if self.peek() != "(" {
            return (self.resolve)(token).map(Formula::Name);
        }
        if token != "len" {
            return Err(format!(
                "unknown function {token:?}; the only one is \"len\""
            ));
        }
        self.take();
        Ok(Formula::Len(Box::new(self.parenthesised()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup<'a>(name: &&'static str) -> FormulaValue<'a> {
        match *name {
            "a" => Some(Number(6.0)),
            "b" => Some(Number(4.0)),
            "zero" => Some(Number(0.0)),
            "t" => Some(Text(b"stop")),
            "done" => Some(Bool(true)),
            _ => None,
        }
    }

    fn resolve(name: &str) -> Result<&'static str, String> {
        ["a", "b", "zero", "t", "done", "gone"]
            .into_iter()
            .find(|known| *known == name)
            .ok_or_else(|| format!("there is no {name:?}"))
    }

    #[test]
    fn formulas_are_evaluated() {
        let number = |number| Some(Number(number));
        let bool = |bool| Some(Bool(bool));
        let table = [
            ("1", number(1.0)),
            ("a / 1000000", number(6e-6)),
            ("a + b * 2", number(14.0)),
            ("(a + b) * 2", number(20.0)),
            ("a - b - 1", number(1.0)),
            ("-a + 1.5", number(-4.5)),
            ("a > b", bool(true)),
            ("a >= 6 && b <= 4", bool(true)),
            ("a < b || !done", bool(false)),
            ("!done", bool(false)),
            ("t == 'stop'", bool(true)),
            ("t != \"stop\"", bool(false)),
            ("t != null && t != \"\"", bool(true)),
            ("gone != null && gone > 0", bool(false)),
            ("len(t) > 0", bool(true)),
            ("len(gone) > 0", bool(false)),
            ("gone > 0 ? gone : a", number(6.0)),
            (
                "gone > 0 ? gone : (b > 0 ? (a * 1000.0) / b : 0)",
                number(1500.0),
            ),
            ("done ? 1 : zero ? 2 : 3", number(1.0)),
            ("gone + a", None),
            ("gone", None),
            ("nil", None),
            ("a / zero", None),
            ("t + 1", None),
            ("-t", None),
            ("t < 1", bool(false)),
        ];
        for (text, expected) in table {
            let formula = Formula::parse(text, &mut resolve).unwrap();
            assert_eq!(formula.eval(&lookup), expected, "{text}");
        }
    }

    #[test]
    fn bad_formulas_are_refused() {
        let table = [
            ("", "expected a value, got the end of the formula"),
            ("a /", "expected a value, got the end of the formula"),
            ("a b", "unexpected \"b\""),
            ("(a", "expected \")\", got the end of the formula"),
            ("a ? b", "expected \":\", got the end of the formula"),
            ("nosuch + 1", "there is no \"nosuch\""),
            (
                "sin(a)",
                "unknown function \"sin\"; the only one is \"len\"",
            ),
            ("len(a, b)", "expected \")\", got \",\""),
            ("len()", "unexpected \")\""),
            ("'open", "a string without its closing '"),
            ("1.2.3", "expected a number, got \"1.2.3\""),
            ("a $ b", "unexpected \"$\""),
            ("'", "a string without its closing '"),
            ("ä", "unexpected \"ä\""),
        ];
        for (text, expected) in table {
            let error = Formula::parse(text, &mut resolve).unwrap_err();
            assert_eq!(error, expected, "{text}");
        }
        let deep = "(".repeat(900);
        let chain = "1+".repeat(400) + "1";
        let long = " ".repeat(FORMULA_BYTES_MAX + 1);
        let nots = "!".repeat(900);
        for text in [deep, chain, long, nots] {
            assert!(Formula::parse(&text, &mut resolve).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ab1 .+*/%()?:!<>=&|,'\"ä-]{0,60}") {
            if let Ok(formula) = Formula::parse(&text, &mut resolve) {
                formula.eval(&lookup);
            }
        }
    }
}
