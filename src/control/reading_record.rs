//! What is known of the readings of endpoints; `readings` makes them.

use std::cell::Cell;

use super::signal::Signal;
use crate::providers::ListedModel;
use crate::schedule::ModelKey;

/// The readings of all endpoints.
#[derive(Debug, Default)]
pub(super) struct Readings {
    /// Raised when one is asked for, and by a reload, which may change the intervals.
    pub(super) arrived: Signal,
    pub(super) in_progress: Cell<usize>,
    /// The endpoint that the next look begins with, so that all have their turn.
    pub(super) next: Cell<usize>,
}

/// The readings of one endpoint. Times are milliseconds of the process's clock.
#[derive(Debug, Default)]
pub(super) struct MemberReadings {
    pub(super) memory: ReadingTurn,
    /// When a model leaves the memory, as the last reading said.
    pub(super) expires_ms: Cell<Option<u64>>,
    pub(super) page: ReadingTurn,
    pub(super) given_up_until_ms: Cell<Option<u64>>,
    /// The page was given up since it was last read.
    pub(super) is_warned: Cell<bool>,
    pub(super) slots: ReadingTurn,
    /// Whether it was down before its last listing.
    pub(super) came_back: Cell<bool>,
    /// Stands for the names of its models at the last listing.
    names: Cell<Option<u64>>,
}

/// When one document of an endpoint is read.
#[derive(Debug, Default)]
pub(super) struct ReadingTurn {
    /// It is to be read at once.
    is_wanted: Cell<bool>,
    is_in_progress: Cell<bool>,
    began_ms: Cell<Option<u64>>,
}

impl ReadingTurn {
    /// Asks for it.
    pub(super) fn want(&self) {
        self.is_wanted.set(true);
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.get()
    }

    pub(super) fn is_in_progress(&self) -> bool {
        self.is_in_progress.get()
    }

    /// When the last one began.
    pub(super) fn began_ms(&self) -> Option<u64> {
        self.began_ms.get()
    }

    /// Begins one. Who asks for it from now on gets another.
    pub(super) fn begin(&self, now_ms: u64) {
        self.is_wanted.set(false);
        self.is_in_progress.set(true);
        self.began_ms.set(Some(now_ms));
    }

    pub(super) fn end(&self) {
        self.is_in_progress.set(false);
    }
}

impl MemberReadings {
    /// The endpoint is configured in another way: a page that was given up may be another.
    pub(super) fn forget(&self) {
        self.given_up_until_ms.set(None);
        self.is_warned.set(false);
        self.expires_ms.set(None);
    }

    /// Notes the models of a listing. Returns whether they have other names than before, and the
    /// endpoint was down in between.
    pub(super) fn is_another(&self, models: &[ListedModel]) -> bool {
        let keys = models.iter().map(|model| ModelKey::of(&model.name).get());
        let names = keys.fold(models.len() as u64, u64::wrapping_add);
        let before = self.names.replace(Some(names));
        self.came_back.take() && before.is_some_and(|before| before != names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_endpoint_that_was_down_can_be_another() {
        let models = |names: &[&str]| -> Vec<_> {
            names.iter().map(|name| ListedModel::named(name)).collect()
        };
        let record = MemberReadings::default();
        record.came_back.set(true);
        assert!(
            !record.is_another(&models(&["a", "b"])),
            "the first listing"
        );
        assert!(!record.is_another(&models(&["a"])), "it was not down");
        record.came_back.set(true);
        assert!(!record.is_another(&models(&["a"])));
        record.came_back.set(true);
        assert!(record.is_another(&models(&["b"])));
        assert!(!record.is_another(&models(&["a"])), "it was told once");
    }

    #[test]
    fn what_is_asked_for_during_a_reading_is_read_after_it() {
        let reading = ReadingTurn::default();
        reading.want();
        reading.begin(5);
        assert!(!reading.is_wanted() && reading.is_in_progress());
        reading.want();
        reading.end();
        assert!(reading.is_wanted() && !reading.is_in_progress());
        assert_eq!(reading.began_ms(), Some(5));
    }
}
