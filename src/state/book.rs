//! The ledger together with the store that it goes to: when it is written, and what a failure means.
//!
//! Time is an argument.
//!
//! Contract: docs/contract/access.md#13

use std::time::{Duration, Instant, SystemTime};

use super::day::Day;
use super::fault::StoreFault;
use super::query::{Groups, UsageQuery};
use super::report::{self, UsageReport};
use super::store::{KeyRecord, Store, StoreBatch, StoredWindow};
use super::usage::{Ledger, UsageDelta, UsageFigures};

/// Interval between two writes.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// No window is as old as this, in days.
const WINDOW_DAYS_MAX: u32 = 40;

/// Interval between two attempts while the store fails.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Interval between two log lines while the store fails.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The ledger and its store.
#[derive(Debug)]
pub(crate) struct Book {
    store: Option<Store>,
    ledger: Ledger,
    retention_days: u32,
    /// The day on which old rows were deleted last.
    cleaned: Option<Day>,
    next_write: Instant,
    outage: Option<Outage>,
    /// Failures since the start.
    errors: u64,
}

/// The store fails.
#[derive(Debug)]
struct Outage {
    next_log: Instant,
}

/// What a turn has done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// There is no store.
    Nothing,
    /// What was in memory is in the store.
    Done,
    /// The same, after failures.
    Again,
    /// It is still in memory.
    Failed {
        /// Why.
        fault: StoreFault,
        /// Whether this is to be logged: at first, then once a minute.
        is_news: bool,
    },
}

impl Book {
    /// The book with this store, or with none.
    pub(crate) fn new(store: Option<Store>, retention_days: u32, now: Instant) -> Self {
        Self {
            store,
            ledger: Ledger::default(),
            retention_days,
            cleaned: None,
            next_write: now + WRITE_INTERVAL,
            outage: None,
            errors: 0,
        }
    }

    /// Adds what a core has counted.
    pub(crate) fn add(&mut self, delta: UsageDelta) {
        self.ledger.add(delta);
    }

    /// When the next turn is due.
    pub(crate) fn due(&self) -> Instant {
        self.next_write
    }

    /// Follows `state.retention_days`.
    pub(crate) fn keep_for(&mut self, days: u32) {
        if self.retention_days != days {
            self.retention_days = days;
            self.cleaned = None;
        }
    }

    /// Writes what is in memory and the batch. Once a day, what is too old is deleted. It is called
    /// when it is due ([`Self::due`]), and at the end of the process.
    pub(crate) fn write(&mut self, now: Instant, today: Day, batch: &StoreBatch) -> WriteOutcome {
        self.next_write = now + WRITE_INTERVAL;
        let first_kept = today.minus(self.retention_days.saturating_sub(1));
        let is_clean = self.cleaned == Some(today);
        let Some(store) = &mut self.store else {
            if !is_clean {
                self.ledger.forget_before(first_kept);
                self.cleaned = Some(today);
            }
            return WriteOutcome::Nothing;
        };
        let written = store.write(&self.ledger, batch);
        if written.is_ok() {
            self.ledger.clear();
        }
        let written = written.and_then(|()| match is_clean {
            true => Ok(()),
            false => store.forget_before(first_kept).and_then(|()| {
                store.forget_windows_before(today.minus(WINDOW_DAYS_MAX).start_ms())
            }),
        });
        match written {
            Ok(()) => {
                self.cleaned = Some(today);
                match self.outage.take() {
                    Some(_) => WriteOutcome::Again,
                    None => WriteOutcome::Done,
                }
            }
            Err(fault) => {
                let is_news = self.note_failure(now);
                WriteOutcome::Failed { fault, is_news }
            }
        }
    }

    /// Counts a failure; whether it is to be logged.
    pub(crate) fn note_failure(&mut self, now: Instant) -> bool {
        self.errors += 1;
        self.next_write = now + RETRY_INTERVAL;
        match &mut self.outage {
            Some(outage) if now < outage.next_log => false,
            outage => {
                *outage = Some(Outage {
                    next_log: now + LOG_INTERVAL,
                });
                true
            }
        }
    }

    /// A report, with the rows that are not written yet.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn report(
        &self,
        query: &UsageQuery,
        now: SystemTime,
    ) -> Result<UsageReport, StoreFault> {
        let (mut groups, mut total) = match &self.store {
            Some(store) => store.usage(query)?,
            None => (Groups::new(), UsageFigures::default()),
        };
        report::add_rows(query, &self.ledger, &mut groups, &mut total);
        Ok(report::render(query, &groups, &total, now))
    }

    /// The key of this name in the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn key(&self, name: &str) -> Result<Option<KeyRecord>, StoreFault> {
        self.store
            .as_ref()
            .map_or(Ok(None), |store| store.key(name))
    }

    /// The windows of quotas of this name in the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn windows(&self, name: &str) -> Result<Vec<StoredWindow>, StoreFault> {
        let store = self.store.as_ref();
        store.map_or(Ok(Vec::new()), |store| store.windows_of(name))
    }

    /// Writes a key, or deletes the one of this name; `None` = there is no store.
    pub(crate) fn change_key(
        &self,
        name: &str,
        key: Option<&KeyRecord>,
    ) -> Option<Result<(), StoreFault>> {
        let store = self.store.as_ref()?;
        Some(match key {
            Some(key) => store.put_key(key),
            None => store.delete_key(name),
        })
    }

    /// Whether there is a store.
    pub(crate) fn has_store(&self) -> bool {
        self.store.is_some()
    }

    /// Whether the store works, as far as is known.
    pub(crate) fn is_up(&self) -> bool {
        self.store.is_some() && self.outage.is_none()
    }

    /// Rows that wait for the store, and failures since the start.
    pub(crate) fn counts(&self) -> (usize, u64) {
        (self.ledger.len(), self.errors)
    }
}
