//! Formulas of a profile's `metrics.extraction.calculations`: read once at start, evaluated for
//! each answer.
//!
//! Numbers, texts in quotes, `true`, `false`, `nil`, names of fields, `+ - * / %`, comparisons,
//! `! && ||` (`not and or`), `condition ? this : that`, `this ?? that`, and the functions `len`,
//! `min`, `max`, `abs`, `round`, `floor`, `ceil`, `int`, `float`.
//!
//! A name whose field an answer does not have is nothing: arithmetic with nothing is nothing, a
//! comparison with it does not hold, as a condition it does not hold, and its `len` is 0. A
//! division by zero is nothing too.
//!
//! Contract: docs/contract/operations.md#6

/// Longest formula in bytes.
const FORMULA_BYTES_MAX: usize = 1024;

/// Deepest nesting of operations.
const DEPTH_MAX: usize = 32;

/// What a formula works on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Nothing,
    Bool(bool),
    Number(f64),
    Text(&'a [u8]),
}

/// Says what a name stands for, or why it stands for nothing.
pub(super) type Resolve<'r, N> = &'r mut dyn FnMut(&str) -> Result<N, String>;

/// A formula, its names replaced by what `resolve` said they stand for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Formula<N> {
    Number(f64),
    Text(Box<str>),
    Bool(bool),
    Nothing,
    Name(N),
    Not(Box<Self>),
    Negative(Box<Self>),
    Pair(Pair, Box<(Self, Self)>),
    Choice(Box<(Self, Self, Self)>),
    Call(Function, Vec<Self>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pair {
    Or,
    And,
    Else,
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
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Len,
    Min,
    Max,
    Abs,
    Round,
    Floor,
    Ceil,
    /// `int`: towards zero.
    Int,
    /// `float`: the number itself.
    Float,
}

/// Operators by how tightly they bind, the loosest first.
const LEVELS: [&[(&str, Pair)]; 6] = [
    &[("??", Pair::Else)],
    &[("||", Pair::Or), ("or", Pair::Or)],
    &[("&&", Pair::And), ("and", Pair::And)],
    &[
        ("==", Pair::Equal),
        ("!=", Pair::Unequal),
        ("<=", Pair::LessEqual),
        (">=", Pair::GreaterEqual),
        ("<", Pair::Less),
        (">", Pair::Greater),
    ],
    &[("+", Pair::Plus), ("-", Pair::Minus)],
    &[
        ("*", Pair::Times),
        ("/", Pair::Divide),
        ("%", Pair::Remainder),
    ],
];

impl<N> Formula<N> {
    /// Reads a formula.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(super) fn parse(text: &str, resolve: Resolve<'_, N>) -> Result<Self, String> {
        if text.len() > FORMULA_BYTES_MAX {
            return Err(format!("longer than {FORMULA_BYTES_MAX} bytes"));
        }
        let mut reader = Reader {
            rest: text,
            depth: 0,
            resolve,
        };
        let formula = reader.choice()?;
        match reader.peek() {
            "" => Ok(formula),
            token => Err(format!("{token:?} is not expected there")),
        }
    }

    /// Computes it; `lookup` gives the values of names.
    pub(super) fn eval<'a>(&'a self, lookup: &dyn Fn(&N) -> Value<'a>) -> Value<'a> {
        match self {
            Self::Number(number) => Value::Number(*number),
            Self::Text(text) => Value::Text(text.as_bytes()),
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Nothing => Value::Nothing,
            Self::Name(name) => lookup(name),
            Self::Not(inner) => Value::Bool(!holds(inner.eval(lookup))),
            Self::Negative(inner) => match inner.eval(lookup) {
                Value::Number(number) => Value::Number(-number),
                _ => Value::Nothing,
            },
            Self::Pair(pair, sides) => {
                let left = sides.0.eval(lookup);
                match pair {
                    Pair::And => Value::Bool(holds(left) && holds(sides.1.eval(lookup))),
                    Pair::Or => Value::Bool(holds(left) || holds(sides.1.eval(lookup))),
                    Pair::Else if left != Value::Nothing => left,
                    Pair::Else => sides.1.eval(lookup),
                    _ => combine(*pair, left, sides.1.eval(lookup)),
                }
            }
            Self::Choice(parts) => {
                if holds(parts.0.eval(lookup)) {
                    parts.1.eval(lookup)
                } else {
                    parts.2.eval(lookup)
                }
            }
            Self::Call(Function::Len, arguments) => {
                let first = arguments.first().map(|argument| argument.eval(lookup));
                Value::Number(match first {
                    Some(Value::Text(text)) => text.len() as f64,
                    _ => 0.0,
                })
            }
            Self::Call(function, arguments) => {
                let mut numbers =
                    arguments
                        .iter()
                        .filter_map(|argument| match argument.eval(lookup) {
                            Value::Number(number) => Some(number),
                            _ => None,
                        });
                numbers.next().map_or(Value::Nothing, |first| {
                    Value::Number(match function {
                        Function::Min => numbers.fold(first, f64::min),
                        Function::Max => numbers.fold(first, f64::max),
                        Function::Abs => first.abs(),
                        Function::Round => first.round(),
                        Function::Floor => first.floor(),
                        Function::Ceil => first.ceil(),
                        Function::Int => first.trunc(),
                        Function::Float | Function::Len => first,
                    })
                })
            }
        }
    }
}

fn holds(value: Value<'_>) -> bool {
    match value {
        Value::Nothing => false,
        Value::Bool(bool) => bool,
        Value::Number(number) => number != 0.0,
        Value::Text(text) => !text.is_empty(),
    }
}

fn combine<'a>(pair: Pair, left: Value<'a>, right: Value<'a>) -> Value<'a> {
    match pair {
        Pair::Equal => return Value::Bool(left == right),
        Pair::Unequal => return Value::Bool(left != right),
        _ => {}
    }
    let comparison = matches!(
        pair,
        Pair::Less | Pair::LessEqual | Pair::Greater | Pair::GreaterEqual
    );
    let (Value::Number(left), Value::Number(right)) = (left, right) else {
        return if comparison {
            Value::Bool(false)
        } else {
            Value::Nothing
        };
    };
    let number = match pair {
        Pair::Less => return Value::Bool(left < right),
        Pair::LessEqual => return Value::Bool(left <= right),
        Pair::Greater => return Value::Bool(left > right),
        Pair::GreaterEqual => return Value::Bool(left >= right),
        Pair::Plus => left + right,
        Pair::Minus => left - right,
        Pair::Times => left * right,
        Pair::Divide => left / right,
        _ => left % right,
    };
    if number.is_finite() {
        Value::Number(number)
    } else {
        Value::Nothing
    }
}

struct Reader<'a, N> {
    rest: &'a str,
    depth: usize,
    resolve: Resolve<'a, N>,
}

impl<'a, N> Reader<'a, N> {
    /// The next token, without taking it; empty at the end.
    fn peek(&self) -> &'a str {
        let rest = self.rest.trim_start();
        let Some(first) = rest.chars().next() else {
            return "";
        };
        let len = match first {
            '0'..='9' => number_len(rest),
            'a'..='z' | 'A'..='Z' | '_' => rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.')
                .unwrap_or(rest.len()),
            // Without its closing quote it is refused where it is read.
            '"' | '\'' => rest
                .get(1..)
                .and_then(|inner| inner.find(first))
                .map_or(rest.len(), |end| end + 2),
            _ => match rest.get(..2) {
                Some(two) if ["??", "||", "&&", "==", "!=", "<=", ">="].contains(&two) => 2,
                _ => first.len_utf8(),
            },
        };
        rest.get(..len).unwrap_or(rest)
    }

    fn take(&mut self) -> &'a str {
        let token = self.peek();
        self.rest = self
            .rest
            .trim_start()
            .get(token.len()..)
            .unwrap_or_default();
        token
    }

    fn expect(&mut self, wanted: &str) -> Result<(), String> {
        match self.take() {
            token if token == wanted => Ok(()),
            "" => Err(format!("ends where {wanted:?} is expected")),
            token => Err(format!("has {token:?} where {wanted:?} is expected")),
        }
    }

    fn choice(&mut self) -> Result<Formula<N>, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX}"));
        }
        let condition = self.pairs(0)?;
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

    fn pairs(&mut self, level: usize) -> Result<Formula<N>, String> {
        let Some(operators) = LEVELS.get(level) else {
            return self.single();
        };
        let mut left = self.pairs(level + 1)?;
        let mut links = 0;
        loop {
            let token = self.peek();
            let Some((_, pair)) = operators.iter().find(|(written, _)| *written == token) else {
                return Ok(left);
            };
            self.take();
            // A chain nests to the left, and is walked as deep as it is long.
            links += 1;
            if links > DEPTH_MAX {
                return Err(format!("chains more than {DEPTH_MAX} operations"));
            }
            let right = self.pairs(level + 1)?;
            left = Formula::Pair(*pair, Box::new((left, right)));
        }
    }

    fn single(&mut self) -> Result<Formula<N>, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX}"));
        }
        let token = self.take();
        let formula = match token {
            "" => return Err("ends too early".to_owned()),
            "(" => {
                let inner = self.choice()?;
                self.expect(")")?;
                inner
            }
            "!" | "not" => Formula::Not(Box::new(self.single()?)),
            "-" => Formula::Negative(Box::new(self.single()?)),
            "true" => Formula::Bool(true),
            "false" => Formula::Bool(false),
            "nil" | "null" => Formula::Nothing,
            _ => self.word(token)?,
        };
        self.depth -= 1;
        Ok(formula)
    }

    fn word(&mut self, token: &str) -> Result<Formula<N>, String> {
        let first = token.chars().next().unwrap_or_default();
        if first.is_ascii_digit() {
            let number: f64 = token
                .parse()
                .map_err(|_| format!("{token:?} is no number"))?;
            return Ok(Formula::Number(number));
        }
        if first == '"' || first == '\'' {
            return token
                .get(1..)
                .and_then(|rest| rest.strip_suffix(first))
                .map(|text| Formula::Text(text.into()))
                .ok_or_else(|| "has a text without end".to_owned());
        }
        if !first.is_ascii_alphabetic() && first != '_' {
            return Err(format!("{token:?} is not expected there"));
        }
        if self.peek() == "(" {
            return self.call(token);
        }
        (self.resolve)(token).map(Formula::Name)
    }

    fn call(&mut self, name: &str) -> Result<Formula<N>, String> {
        let (function, most) = match name {
            "len" => (Function::Len, 1),
            "min" => (Function::Min, DEPTH_MAX),
            "max" => (Function::Max, DEPTH_MAX),
            "abs" => (Function::Abs, 1),
            "round" => (Function::Round, 1),
            "floor" => (Function::Floor, 1),
            "ceil" => (Function::Ceil, 1),
            "int" => (Function::Int, 1),
            "float" => (Function::Float, 1),
            _ => return Err(format!("there is no function {name:?}")),
        };
        self.take();
        let mut arguments = vec![self.choice()?];
        while self.peek() == "," {
            self.take();
            arguments.push(self.choice()?);
        }
        self.expect(")")?;
        if arguments.len() > most {
            return Err(format!("{name:?} has too many arguments"));
        }
        Ok(Formula::Call(function, arguments))
    }
}

/// Length of a number: digits, a fraction, an exponent.
fn number_len(text: &str) -> usize {
    let mut before = ' ';
    text.find(|c: char| {
        let part = c.is_ascii_digit()
            || c == '.'
            || c == '_'
            || matches!(c, 'e' | 'E')
            || (matches!(c, '+' | '-') && matches!(before, 'e' | 'E'));
        before = c;
        !part
    })
    .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup<'a>(name: &&'static str) -> Value<'a> {
        match *name {
            "a" => Value::Number(6.0),
            "b" => Value::Number(4.0),
            "zero" => Value::Number(0.0),
            "t" => Value::Text(b"stop"),
            "done" => Value::Bool(true),
            _ => Value::Nothing,
        }
    }

    fn resolve(name: &str) -> Result<&'static str, String> {
        ["a", "b", "zero", "t", "done", "gone"]
            .into_iter()
            .find(|known| *known == name)
            .ok_or_else(|| format!("there is no {name:?}"))
    }

    #[test]
    fn formulas_are_computed() {
        let number = Value::Number;
        let table = [
            ("1", number(1.0)),
            ("a / 1000000", number(6e-6)),
            ("a + b * 2", number(14.0)),
            ("(a + b) * 2", number(20.0)),
            ("a - b - 1", number(1.0)),
            ("a % b", number(2.0)),
            ("-a + 1.5e1", number(9.0)),
            ("a > b", Value::Bool(true)),
            ("a >= 6 && b <= 4", Value::Bool(true)),
            ("a < b or not done", Value::Bool(false)),
            ("!done", Value::Bool(false)),
            ("t == 'stop'", Value::Bool(true)),
            ("t != \"stop\"", Value::Bool(false)),
            ("len(t) > 0", Value::Bool(true)),
            ("len(gone) > 0", Value::Bool(false)),
            ("gone > 0 ? gone : a", number(6.0)),
            (
                "gone > 0 ? gone : (b > 0 ? (a * 1000.0) / b : 0)",
                number(1500.0),
            ),
            ("done ? 1 : zero ? 2 : 3", number(1.0)),
            ("gone ?? b", number(4.0)),
            ("gone + a", Value::Nothing),
            ("gone", Value::Nothing),
            ("nil ?? 2", number(2.0)),
            ("a / zero", Value::Nothing),
            ("a % zero", Value::Nothing),
            ("t + 1", Value::Nothing),
            ("t < 1", Value::Bool(false)),
            ("max(a, b, gone)", number(6.0)),
            ("min(a,b)", number(4.0)),
            ("round(2.5)", number(3.0)),
            ("floor(2.5) + ceil(2.5) + int(2.9) + float(1)", number(8.0)),
            ("abs(-3)", number(3.0)),
            ("max(gone)", Value::Nothing),
        ];
        for (text, expected) in table {
            let formula = Formula::parse(text, &mut resolve).unwrap();
            assert_eq!(formula.eval(&lookup), expected, "{text}");
        }
    }

    #[test]
    fn bad_formulas_are_refused() {
        let table = [
            ("", "ends too early"),
            ("a /", "ends too early"),
            ("a b", "\"b\" is not expected there"),
            ("(a", "ends where \")\" is expected"),
            ("a ? b", "ends where \":\" is expected"),
            ("nosuch + 1", "there is no \"nosuch\""),
            ("sin(a)", "there is no function \"sin\""),
            ("len(a, b)", "\"len\" has too many arguments"),
            ("len()", "\")\" is not expected there"),
            ("'open", "has a text without end"),
            ("1.2.3", "\"1.2.3\" is no number"),
            ("a $ b", "\"$\" is not expected there"),
            ("'", "has a text without end"),
            ("ä", "\"ä\" is not expected there"),
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
        fn nothing_panics(text in "[ab1 .+*/%()?:!<>=&|,'\"-]{0,60}") {
            if let Ok(formula) = Formula::parse(&text, &mut resolve) {
                formula.eval(&lookup);
            }
        }
    }
}
