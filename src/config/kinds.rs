//! The kinds of value that a key can have, each by one method of [`KeyDecl`].
//!
//! Each method takes the default first and ends the declaration. "Absent or 0 means" is part of a
//! kind, so that the plan never holds a 0 that means something else.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::bounds::NO_MAX;
use super::key::{KeyDecl, Raw};
use super::reader::Word;
use super::tree::ConfigValue;
use super::values;

/// The kind of a boolean, in words.
pub(super) const BOOLEAN: &str = "true or false";

const DURATION: &str =
    "a duration such as \"30s\" or \"1h30m\" (units ns us ms s m h), not negative";

impl KeyDecl<'_, '_> {
    /// `true` or `false`.
    pub(super) fn bool(self, default: bool) -> bool {
        self.shown(default)
            .resolve(BOOLEAN.to_owned(), default, boolean)
    }

    /// `true`, `false` or nothing.
    pub(super) fn bool_optional(self) -> Option<bool> {
        self.resolve(BOOLEAN.to_owned(), None, |raw| boolean(raw).map(Some))
    }

    /// A whole number within bounds.
    pub(super) fn int<T>(self, default: T, min: i128, max: i128) -> T
    where
        T: TryFrom<i128> + Copy + Display + std::fmt::Debug,
    {
        let kind = if max == NO_MAX {
            format!("a whole number, {min} or more")
        } else {
            format!("a whole number from {min} to {max}")
        };
        self.shown(default).resolve(kind, default, |raw| {
            let number = match raw {
                Raw::Env(text) => text.parse().ok()?,
                Raw::File(node) => match node.value {
                    ConfigValue::Int(number) => number,
                    _ => return None,
                },
            };
            T::try_from(number)
                .ok()
                .filter(|_| (min..=max).contains(&number))
        })
    }

    /// A count of bytes up to a bound: a whole number, or a text with a unit.
    pub(super) fn size(self, default: u64, max: Option<u64>) -> u64 {
        let mut kind = "bytes: a whole number, or a text such as \"10MB\"; 0 or more".to_owned();
        if let Some(max) = max {
            kind += &format!(", at most {max}");
        }
        self.shown(default).resolve(kind, default, |raw| {
            let size = match raw {
                Raw::File(node) => match node.value {
                    ConfigValue::Int(number) => u64::try_from(number)
                        .ok()
                        .filter(|n| i64::try_from(*n).is_ok())?,
                    ref other => values::size(other.text()?)?,
                },
                Raw::Env(text) => values::size(text)?,
            };
            Some(size).filter(|size| max.is_none_or(|max| *size <= max))
        })
    }

    /// A duration, 0 allowed and meant.
    pub(super) fn duration(self, default: Duration) -> Duration {
        let shown = values::quoted(&values::show_duration(default));
        self.shown(shown)
            .resolve(DURATION.to_owned(), default, |raw| {
                values::duration(raw.text()?)
            })
    }

    /// A duration of at least so much.
    pub(super) fn duration_from(self, default: Duration, min: Duration) -> Duration {
        let shown = values::quoted(&values::show_duration(default));
        let kind = format!("{DURATION}, at least {}", values::show_duration(min));
        self.shown(shown).resolve(kind, default, |raw| {
            values::duration(raw.text()?).filter(|duration| *duration >= min)
        })
    }

    /// A duration where 0 means another.
    pub(super) fn duration_or(self, default: Duration, zero: Duration) -> Duration {
        let duration = self.duration(default);
        if duration.is_zero() { zero } else { duration }
    }

    /// A duration where 0 means none.
    pub(super) fn duration_or_none(self, default: Duration) -> Option<Duration> {
        Some(self.duration(default)).filter(|duration| !duration.is_zero())
    }

    /// Any text.
    pub(super) fn text(self, default: &str) -> String {
        let shown = values::quoted(default);
        self.shown(shown)
            .resolve("a text".to_owned(), default.to_owned(), |raw| {
                raw.text().map(str::to_owned)
            })
    }

    /// A text, or nothing; an empty one counts as nothing.
    pub(super) fn text_optional(self) -> Option<String> {
        let text = self.given_text();
        text.filter(|text| !text.is_empty())
    }

    /// A text, or nothing; an empty one counts as given.
    pub(super) fn given_text(self) -> Option<String> {
        self.resolve("a text".to_owned(), None, |raw| {
            Some(Some(raw.text()?.to_owned()))
        })
    }

    /// The path of a file or folder, or nothing.
    pub(super) fn path(self) -> Option<PathBuf> {
        self.text_optional().map(PathBuf::from)
    }

    /// A text that a function accepts; `kind` says which it does.
    pub(super) fn text_such(
        self,
        default: &str,
        kind: &str,
        fits: impl Fn(&str) -> bool,
    ) -> String {
        let shown = values::quoted(default);
        self.shown(shown)
            .resolve(kind.to_owned(), default.to_owned(), |raw| {
                raw.text().filter(|text| fits(text)).map(str::to_owned)
            })
    }

    /// A word of an enum.
    pub(super) fn word<W: Word>(self, default: W) -> W {
        self.word_by(default, |text| text.to_owned())
    }

    /// A word of an enum after a function has brought it to the usual form.
    pub(super) fn word_by<W: Word>(self, default: W, usual: impl Fn(&str) -> String) -> W {
        let shown = values::quoted(default.word());
        self.shown(shown)
            .resolve(format!("one of {}", words::<W>()), default, |raw| {
                let text = usual(raw.text()?);
                W::ALL.iter().copied().find(|word| word.word() == text)
            })
    }

    /// A list of words of an enum.
    pub(super) fn words<W: Word>(self, default: &[W]) -> Vec<W> {
        let shown = list(default.iter().map(|word| word.word()));
        let kind = format!("one of {}", words::<W>());
        self.shown(shown)
            .resolve_list(&kind, default.to_vec(), |text| {
                W::ALL.iter().copied().find(|word| word.word() == text)
            })
    }

    /// A list of texts that a function accepts and may bring to another form.
    pub(super) fn texts<T: std::fmt::Debug>(
        self,
        default: &[&str],
        kind: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let shown = list(default.iter().copied());
        let default = default.iter().filter_map(|text| parse(text)).collect();
        self.shown(shown).resolve_list(kind, default, parse)
    }

    /// A list of networks, each with its prefix length.
    pub(super) fn networks(self, default: &[&str]) -> Vec<IpNet> {
        let kind = "a network with its prefix length, such as \"10.0.0.0/8\"";
        self.texts(default, kind, |text| text.parse().ok())
    }

    fn shown(mut self, default: impl Display) -> Self {
        self.doc.default = default.to_string();
        self
    }
}

fn boolean(raw: Raw<'_>) -> Option<bool> {
    match raw {
        Raw::Env(text) => values::boolean(text),
        Raw::File(node) => match node.value {
            ConfigValue::Bool(on) | ConfigValue::Switch { on, .. } => Some(on),
            _ => None,
        },
    }
}

fn words<W: Word>() -> String {
    let words: Vec<_> = W::ALL.iter().map(|word| word.word()).collect();
    words.join(", ")
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let items: Vec<_> = items.map(values::quoted).collect();
    format!("[{}]", items.join(", "))
}
