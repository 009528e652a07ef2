//! Separates candidates that speak a request's dialect from the others.
//!
//! Contract: docs/contract/dialects.md#3, docs/contract/translation.md#5

use super::{Demand, Refusal, Translator};
use crate::config::TranslatorRules;
use crate::dialects::Choosing;
use crate::endpoint_set::EndpointSet;

/// How a request reaches an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Unchanged, to the endpoint's own path.
    Passthrough,
    /// In OpenAI's older API.
    Translation,
}

impl Mode {
    /// The name in the log and in `X-Olla-Mode`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Translation => "translation",
        }
    }
}

/// Candidates, and in which order they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Split {
    /// Endpoints that speak the dialect and can serve this request with it.
    pub(super) native: EndpointSet,
    /// All other candidates.
    pub(super) others: EndpointSet,
    /// The others wait until no native one is left.
    pub(super) native_first: bool,
}

impl Split {
    /// Splits candidates.
    ///
    /// # Errors
    /// None of them may get the request.
    pub(super) fn new(
        choosing: &Choosing<'_>,
        translator: &dyn Translator,
        rules: TranslatorRules,
        demand: &Demand,
    ) -> Result<Self, Refusal> {
        let dialect = translator.facts().dialect;
        let speaks = |index: &usize| {
            choosing.endpoints.get(*index).is_some_and(|endpoint| {
                let support = translator.native(endpoint);
                let mut limitations = support.limitations.iter();
                endpoint.plan.speaks(dialect).unwrap_or(support.enabled)
                    && !endpoint.live.refuses(dialect, choosing.now_ms)
                    && !limitations.any(|name| translator.is_excluded_by(name))
            })
        };
        let native: EndpointSet = if rules.passthrough_enabled {
            choosing.candidates.iter().filter(speaks).collect()
        } else {
            EndpointSet::EMPTY
        };
        let split = Self {
            native,
            others: choosing.candidates.minus(&native),
            native_first: rules.prefer_native,
        };
        split.meeting(demand)
    }

    /// The candidates that meet a demand.
    fn meeting(self, demand: &Demand) -> Result<Self, Refusal> {
        let only = |native| Self {
            native,
            others: EndpointSet::EMPTY,
            native_first: true,
        };
        match demand {
            Demand::Any => Ok(self),
            Demand::NativeFirst if self.native.is_empty() => Ok(self),
            Demand::NativeFirst => Ok(only(self.native)),
            Demand::NativeOnly(refusal) if self.native.is_empty() => Err((**refusal).clone()),
            Demand::NativeOnly(_) => Ok(only(self.native)),
            Demand::Endpoint(index, _) if self.native.contains(*index) => {
                Ok(only([*index].into_iter().collect()))
            }
            Demand::Endpoint(_, refusal) | Demand::Nothing(refusal) => Err((**refusal).clone()),
            Demand::Translation => Ok(Self {
                native: EndpointSet::EMPTY,
                others: self.native.or(&self.others),
                ..self
            }),
        }
    }

    /// The candidates to try next.
    pub(super) fn next(&self, tried: &EndpointSet) -> EndpointSet {
        if !self.native_first {
            return self.native.or(&self.others);
        }
        let native = self.native.minus(tried);
        if native.is_empty() {
            self.others
        } else {
            native
        }
    }

    /// The mode of the first attempt; if it depends on the endpoint, that of native ones.
    pub(super) fn first_mode(&self) -> Mode {
        if self.native.is_empty() {
            Mode::Translation
        } else {
            Mode::Passthrough
        }
    }

    /// The mode of an attempt at an endpoint.
    pub(super) fn mode_of(&self, index: usize) -> Mode {
        if self.native.contains(index) {
            Mode::Passthrough
        } else {
            Mode::Translation
        }
    }

    /// An endpoint turned out not to be native for this request.
    pub(super) fn translate_for(&mut self, index: usize) {
        self.native.remove(index);
        self.others.insert(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(indices: &[usize]) -> EndpointSet {
        indices.iter().copied().collect()
    }

    #[test]
    fn the_others_wait_for_the_native_ones_if_these_are_preferred() {
        let mut split = Split {
            native: set(&[1, 2]),
            others: set(&[0, 3]),
            native_first: true,
        };
        let table: [(&[usize], &[usize]); 4] = [
            (&[], &[1, 2]),
            (&[1], &[2]),
            (&[1, 2], &[0, 3]),
            (&[1, 2, 0], &[0, 3]),
        ];
        for (tried, next) in table {
            assert_eq!(split.next(&set(tried)), set(next), "{tried:?}");
        }
        split.native_first = false;
        for (tried, _) in table {
            assert_eq!(split.next(&set(tried)), set(&[0, 1, 2, 3]), "{tried:?}");
        }
        assert_eq!(split.first_mode(), Mode::Passthrough);
        split.translate_for(1);
        let modes = [0, 1, 2, 3].map(|index| split.mode_of(index) == Mode::Passthrough);
        assert_eq!(modes, [false, false, true, false]);
    }

    #[test]
    fn what_a_request_demands() {
        let mixed = Split {
            native: set(&[1, 2]),
            others: set(&[0]),
            native_first: false,
        };
        let foreign = Split {
            native: set(&[]),
            others: set(&[0, 1]),
            native_first: false,
        };
        let no = || Box::new(Refusal::invalid("no"));
        let shown = |split: Result<Split, Refusal>| match split {
            Ok(split) => {
                let list =
                    |set: EndpointSet| set.iter().map(|at| at.to_string()).collect::<String>();
                format!("{}|{}", list(split.native), list(split.others))
            }
            Err(refusal) => refusal.message,
        };
        for (demand, of_mixed, of_foreign) in [
            (Demand::Any, "12|0", "|01"),
            (Demand::NativeFirst, "12|", "|01"),
            (Demand::NativeOnly(no()), "12|", "no"),
            (Demand::Endpoint(2, no()), "2|", "no"),
            (Demand::Endpoint(0, no()), "no", "no"),
            (Demand::Translation, "|012", "|01"),
            (Demand::Nothing(no()), "no", "no"),
        ] {
            assert_eq!(shown(mixed.meeting(&demand)), of_mixed, "{demand:?}");
            assert_eq!(shown(foreign.meeting(&demand)), of_foreign, "{demand:?}");
        }
    }
}
