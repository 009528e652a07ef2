//! The kinds of values, each read by one method of [`KeyDecl`].
//!
//! Each method takes the default first and ends the declaration. The meaning of an absent value or
//! 0 belongs to the kind, so that the plan never holds a 0 with a special meaning.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::bounds::U32_MAX;
use super::key::{KeyDecl, Kind, Raw};
use super::nearest::nearest;
use super::reader::Word;
use super::tree::ConfigValue;
use super::values;

/// The kind of a boolean, in words.
pub(super) const BOOLEAN: &str = "true or false";

const DURATION: &str = "a duration such as \"30s\" or \"1h30m\"";

const SIZE: &str = "a size in bytes such as 10485760 or \"10MB\"";

impl KeyDecl<'_, '_> {
    /// `true` or `false`.
    pub(super) fn bool(self, default: bool) -> bool {
        self.shown(default)
            .takes(is_boolean)
            .resolve(BOOLEAN.into(), default, boolean)
    }

    /// `true` or `false`; `None` if absent.
    pub(super) fn bool_optional(self) -> Option<bool> {
        self.takes(is_boolean)
            .resolve(BOOLEAN.into(), None, |raw| boolean(raw).map(Some))
    }

    /// An integer within bounds.
    pub(super) fn int<T>(self, default: T, min: i128, max: i128) -> T
    where
        T: TryFrom<i128> + Copy + Display + std::fmt::Debug,
    {
        let kind = if max >= U32_MAX {
            format!("an integer of at least {min}")
        } else {
            format!("an integer from {min} to {max}")
        };
        let takes = |value: &ConfigValue| matches!(value, ConfigValue::Int(_));
        self.shown(default)
            .takes(takes)
            .resolve(kind.into(), default, |raw| {
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

    /// A number from 0 to 1.
    pub(super) fn fraction(self, default: f64) -> f64 {
        let takes =
            |value: &ConfigValue| matches!(value, ConfigValue::Int(_) | ConfigValue::Float(_));
        self.shown(default)
            .takes(takes)
            .resolve("a number from 0 to 1".into(), default, |raw| {
                let number: f64 = match raw {
                    Raw::Env(text) => text.parse().ok()?,
                    Raw::File(node) => match &node.value {
                        ConfigValue::Int(number) => u8::try_from(*number).ok()?.into(),
                        ConfigValue::Float(text) => text.parse().ok()?,
                        _ => return None,
                    },
                };
                Some(number).filter(|number| (0.0..=1.0).contains(number))
            })
    }

    /// A number of bytes up to a bound: an integer, or a string with a unit.
    pub(super) fn size(self, default: u64, max: Option<u64>) -> u64 {
        let most = max.map_or_else(String::new, |max| format!(", at most {max}"));
        let takes =
            |value: &ConfigValue| matches!(value, ConfigValue::Int(_)) || value.text().is_some();
        self.shown(default)
            .takes(takes)
            .resolve(format!("{SIZE}{most}").into(), default, |raw| {
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

    /// A duration, 0 included.
    pub(super) fn duration(self, default: Duration) -> Duration {
        self.duration_of(DURATION.into(), default, |_| true)
    }

    /// A duration above 0.
    pub(super) fn duration_above_zero(self, default: Duration) -> Duration {
        let kind = format!("{DURATION}, above 0");
        self.duration_of(kind, default, |duration| !duration.is_zero())
    }

    fn duration_of(
        self,
        kind: String,
        default: Duration,
        fits: impl Fn(Duration) -> bool,
    ) -> Duration {
        let shown = values::quoted(&values::show_duration(default));
        self.shown(shown)
            .takes(is_text)
            .resolve(kind.into(), default, |raw| {
                values::duration(raw.text()?).filter(|duration| fits(*duration))
            })
    }

    /// A duration; 0 selects another one.
    pub(super) fn duration_or(self, default: Duration, zero: Duration) -> Duration {
        let duration = self.duration(default);
        if duration.is_zero() { zero } else { duration }
    }

    /// A duration; 0 is `None`.
    pub(super) fn duration_or_none(self, default: Duration) -> Option<Duration> {
        Some(self.duration(default)).filter(|duration| !duration.is_zero())
    }

    /// A duration of at least one second; 0 is `None`.
    pub(super) fn seconds_or_none(self, default: Duration) -> Option<Duration> {
        self.interval_or_none(default, Duration::from_secs(1))
    }

    /// A duration of at least `least`; 0 is `None`.
    pub(super) fn interval_or_none(self, default: Duration, least: Duration) -> Option<Duration> {
        let shown = values::show_duration(least);
        let kind = format!("{DURATION}, 0 or at least {shown}");
        let fits = |duration: Duration| duration.is_zero() || duration >= least;
        Some(self.duration_of(kind, default, fits)).filter(|duration| !duration.is_zero())
    }

    /// Any string.
    pub(super) fn text(self, default: &str) -> String {
        self.text_such(default, "a string", |_| true)
    }

    /// A string; `None` if absent or empty.
    pub(super) fn text_optional(self) -> Option<String> {
        let text = self.given_text();
        text.filter(|text| !text.is_empty())
    }

    /// A string, which may be empty; `None` if absent.
    pub(super) fn given_text(self) -> Option<String> {
        self.takes(is_text).resolve("a string".into(), None, |raw| {
            Some(Some(raw.text()?.to_owned()))
        })
    }

    /// The path of a file or folder; `None` if absent or empty.
    pub(super) fn path(self) -> Option<PathBuf> {
        self.text_optional().map(PathBuf::from)
    }

    /// A string that a function accepts; `kind` describes it.
    pub(super) fn text_such(
        self,
        default: &str,
        kind: &str,
        fits: impl Fn(&str) -> bool,
    ) -> String {
        let shown = values::quoted(default);
        self.shown(shown)
            .takes(is_text)
            .resolve(kind.into(), default.to_owned(), |raw| {
                raw.text().filter(|text| fits(text)).map(str::to_owned)
            })
    }

    /// A word of an enum.
    pub(super) fn word<W: Word>(self, default: W) -> W {
        self.word_by(default, |text| text.to_owned())
    }

    /// A word of an enum, normalized by a function first.
    pub(super) fn word_by<W: Word>(self, default: W, usual: impl Fn(&str) -> String) -> W {
        let shown = values::quoted(default.word());
        self.shown(shown)
            .takes(is_text)
            .suggest(nearest_word::<W>)
            .resolve(words::<W>(), default, |raw| {
                let text = usual(raw.text()?);
                W::ALL.iter().copied().find(|word| word.word() == text)
            })
    }

    /// A list of words of an enum.
    pub(super) fn words<W: Word>(self, default: &[W]) -> Vec<W> {
        let shown = list(default.iter().map(|word| word.word()));
        self.shown(shown).suggest(nearest_word::<W>).resolve_list(
            words::<W>(),
            default.to_vec(),
            |text| W::ALL.iter().copied().find(|word| word.word() == text),
        )
    }

    /// The same without a default: empty if it is absent.
    pub(super) fn words_optional<W: Word>(self) -> Vec<W> {
        self.suggest(nearest_word::<W>)
            .resolve_list(words::<W>(), Vec::new(), |text| {
                W::ALL.iter().copied().find(|word| word.word() == text)
            })
    }

    /// A list of strings that a function accepts and may convert.
    pub(super) fn texts<T: std::fmt::Debug>(
        self,
        default: &[&str],
        kind: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let shown = list(default.iter().copied());
        let default = default.iter().filter_map(|text| parse(text)).collect();
        self.shown(shown).resolve_list(kind.into(), default, parse)
    }

    /// A list of networks, each with its prefix length.
    pub(super) fn networks(self, default: &[&str]) -> Vec<IpNet> {
        let kind = "a network with its prefix length such as \"10.0.0.0/8\"";
        self.texts(default, kind, |text| text.parse().ok())
    }

    /// A table of Olla's that is accepted without looking inside.
    pub(super) fn any_table(self) {
        self.resolve_map("anything", |_| Some(()));
    }

    pub(super) fn shown(mut self, default: impl Display) -> Self {
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

fn is_boolean(value: &ConfigValue) -> bool {
    matches!(value, ConfigValue::Bool(_))
}

fn is_text(value: &ConfigValue) -> bool {
    value.text().is_some()
}

fn nearest_word<W: Word>(given: &str) -> Option<&'static str> {
    nearest(given, W::ALL.iter().map(|word| word.word()))
}

/// The values of an enum: `"a", "b" or "c"` in messages, `one of a, b, c` in the reference.
fn words<W: Word>() -> Kind {
    let words: Vec<_> = W::ALL.iter().map(|word| word.word()).collect();
    Kind {
        expected: alternatives(&words),
        shown: format!("one of {}", words.join(", ")),
    }
}

/// `"a", "b" or "c"`.
pub(super) fn alternatives(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| values::quoted(word)).collect();
    match quoted.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let items: Vec<_> = items.map(values::quoted).collect();
    format!("[{}]", items.join(", "))
}
