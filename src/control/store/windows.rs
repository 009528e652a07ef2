//! Which windows of quotas, and which last uses of keys, have changed since they were written last.
//!
//! Contract: docs/contract/access.md#7.3

use std::sync::Arc;

use crate::access::{AccessKeeper, Counters, Span, Use};
use crate::config::KeySource;
use crate::state::{SPANS, StoreBatch, StoreFault, StoredWindow};

/// The spans, in the order of [`SPANS`].
const ALL: [Span; 2] = [Span::Day, Span::Month];

/// Where the name of a policy begins in the store, which keeps the windows of keys and policies in
/// one table. No key has such a name.
const POLICY: &str = "policy:";

/// Milliseconds of a minute.
const MINUTE_MS: u64 = 60_000;

/// What was written last. Which windows were, their counters say.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// The uses before this time are written, in milliseconds since 1970; a whole minute.
    used_until_ms: u64,
}

/// What is to be written, and what is known once it is.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) batch: StoreBatch,
    counters: Vec<Arc<Counters>>,
    used_until_ms: u64,
}

impl Windows {
    /// What has changed. Last uses are written once a minute, and at the end.
    pub(super) fn changed(&self, access: &AccessKeeper, now_ms: u64, is_end: bool) -> Changed {
        let mut changed = Changed {
            batch: StoreBatch::default(),
            counters: Vec::new(),
            used_until_ms: self.used_until_ms,
        };
        // The table before the book, which has the names that leave the table before they are gone.
        let newest = access.newest();
        let (keys, book) = (newest.keys.all(), access.book());
        for key in keys.iter().filter(|key| key.counters.take_change()) {
            changed.add("", &key.name, &key.counters, now_ms);
        }
        book.each(|is_policy, name, counters| {
            if counters.take_change() {
                let prefix = if is_policy { POLICY } else { "" };
                changed.add(prefix, name, counters, now_ms);
            }
        });
        let tokens = book.tokens();
        tokens.each_changed(|name, counters| changed.add("", name, counters, now_ms));
        let minute_ms = now_ms / MINUTE_MS * MINUTE_MS;
        if minute_ms > self.used_until_ms || is_end {
            changed.used_until_ms = minute_ms;
            for key in keys {
                if key.source == KeySource::Store
                    && let Some(at_ms) = key.counters.last_used_ms()
                    && at_ms >= self.used_until_ms
                {
                    changed.batch.last_used.push((key.name.to_string(), at_ms));
                }
            }
        }
        changed
    }

    /// Notes whether it was written.
    pub(super) fn wrote(&mut self, changed: &Changed, is_written: bool) {
        if is_written {
            self.used_until_ms = changed.used_until_ms;
        } else {
            changed
                .counters
                .iter()
                .for_each(|counters| counters.note_change());
        }
    }
}

impl Changed {
    fn add(&mut self, prefix: &str, name: &str, counters: &Arc<Counters>, now_ms: u64) {
        for (span, shown) in ALL.into_iter().zip(SPANS) {
            let window = counters.used_in(span, now_ms);
            self.batch.windows.push(StoredWindow {
                name: format!("{prefix}{name}"),
                span: shown,
                start_ms: span.start_ms(window.number),
                used: window.used,
            });
        }
        self.counters.push(Arc::clone(counters));
    }
}

/// Goes on from the windows of the store, as far as they are still current.
pub(super) fn restore(access: &AccessKeeper, windows: &[StoredWindow], now_ms: u64) {
    for window in windows {
        let Some((span, used)) = current(window, now_ms) else {
            continue;
        };
        let counters: Arc<Counters> = match window.name.strip_prefix(POLICY) {
            Some(policy) => access.book().of_policy(&Arc::from(policy)),
            None => access.counters_of(&Arc::from(window.name.as_str()), now_ms),
        };
        counters.restore(span, used);
    }
}

/// Goes on from the windows that the store has of new names of tokens: it has those of names that
/// had counters before, and lost them to others. Until then such a name counts from nothing, for
/// some milliseconds; what it uses meanwhile is added.
///
/// # Errors
/// When the store cannot be read. What was not read waits for the next time.
pub(super) fn restore_new(
    access: &AccessKeeper,
    now_ms: u64,
    read: impl Fn(&str) -> Result<Vec<StoredWindow>, StoreFault>,
) -> Result<(), StoreFault> {
    let tokens = access.book().tokens();
    loop {
        let mut unread = tokens.take_unread();
        if unread.is_empty() {
            return Ok(());
        }
        while let Some((name, counters)) = unread.pop() {
            let windows = match read(&name) {
                Ok(windows) => windows,
                Err(fault) => {
                    unread.push((name, counters));
                    tokens.put_unread(unread);
                    return Err(fault);
                }
            };
            for window in windows {
                if let Some((span, used)) = current(&window, now_ms) {
                    counters.restore(span, used);
                }
            }
            counters.set_awaits_store(false);
        }
    }
}

/// A window of the store with its span, if it is still current and something was used in it.
fn current(window: &StoredWindow, now_ms: u64) -> Option<(Span, Use)> {
    let mut spans = ALL.into_iter().zip(SPANS);
    let (span, _) = spans.find(|(_, shown)| *shown == window.span)?;
    let (number, used) = (span.number(window.start_ms), window.used);
    (number >= span.number(now_ms) && used > 0).then_some((span, Use { number, used }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigInputs, Env, FileFormat, plan_from_str};

    /// 2026-11-30T12:00:30Z.
    const NOW_MS: u64 = 1_796_040_030_000;

    fn keeper() -> AccessKeeper {
        let env = Env::default();
        let inputs = ConfigInputs {
            env: &env,
            cwd: std::path::Path::new("."),
            types: &[],
            admits: &|_, _| true,
        };
        let loaded = plan_from_str("", FileFormat::Toml, None, &inputs);
        AccessKeeper::new(&loaded.plan.unwrap().access)
    }

    #[test]
    fn windows_go_on_after_a_restart() {
        let access = keeper();
        let (alice, team) = (Arc::from("alice"), Arc::from("alice"));
        let set = |counters: &Counters, used| {
            for span in ALL {
                let number = span.number(NOW_MS);
                counters.restore(span, Use { number, used });
            }
            counters.note_change();
        };
        let _unused = access.book().of_key(&Arc::from("bob"));
        set(&access.book().of_key(&alice), 5);
        set(&access.book().of_policy(&team), 7);
        let mut windows = Windows::default();
        let changed = windows.changed(&access, NOW_MS, false);
        let written = changed.batch.windows.clone();
        let shown: Vec<_> = written
            .iter()
            .map(|window| (window.name.as_str(), window.span, window.used))
            .collect();
        let want = [
            ("alice", "day", 5),
            ("alice", "month", 5),
            ("policy:alice", "day", 7),
            ("policy:alice", "month", 7),
        ];
        assert_eq!(shown, want);
        windows.wrote(&changed, true);
        let rows = |windows: &mut Windows| {
            let changed = windows.changed(&access, NOW_MS, false);
            windows.wrote(&changed, false);
            changed.batch.windows.len()
        };
        assert_eq!(rows(&mut windows), 0);
        // What could not be written is written the next time.
        access.book().of_key(&alice).note_change();
        assert_eq!([rows(&mut windows), rows(&mut windows)], [2, 2]);
        let tomorrow = NOW_MS + 86_400_000;

        let again = keeper();
        restore(&again, &written, NOW_MS);
        let used = |counters: Arc<Counters>, span| counters.used_in(span, NOW_MS).used;
        assert_eq!(used(again.book().of_key(&alice), Span::Day), 5);
        assert_eq!(used(again.book().of_policy(&team), Span::Month), 7);
        // A token's name has its counters among those of tokens.
        let token = Arc::from("jwt:alice");
        let first = keeper();
        set(&first.book().of_token(&token, NOW_MS), 9);
        let written_of_token = Windows::default().changed(&first, NOW_MS, false);
        restore(&again, &written_of_token.batch.windows, NOW_MS);
        assert_eq!(used(again.book().of_token(&token, NOW_MS), Span::Day), 9);
        // Tomorrow is December: neither window is current.
        let later = keeper();
        restore(&later, &written, tomorrow);
        assert_eq!(
            later
                .book()
                .of_key(&alice)
                .used_in(Span::Month, tomorrow)
                .used,
            0
        );
    }

    #[test]
    fn a_token_that_comes_back_goes_on_with_its_windows() {
        let access = keeper();
        let book = access.book();
        let (wake, _woken) = crossbeam_channel::bounded(1);
        book.tokens().attach_store(wake);
        let name = Arc::from("jwt:alice");
        let counters = book.of_token(&name, NOW_MS);
        // It is used before its windows are read, and not written over them.
        let (day, now) = (Span::Day, Span::Day.number(NOW_MS));
        counters.restore(
            day,
            Use {
                number: now,
                used: 3,
            },
        );
        counters.note_change();
        let windows = Windows::default();
        let rows = || windows.changed(&access, NOW_MS, false).batch.windows;
        assert_eq!(rows(), []);
        let fault = |_: &str| Err(StoreFault::from(std::io::Error::other("no disk")));
        assert!(restore_new(&access, NOW_MS, fault).is_err());
        assert_eq!(rows(), [], "it waits for the next time");
        let stored = |start_ms, used| StoredWindow {
            name: "jwt:alice".to_owned(),
            span: "day",
            start_ms,
            used,
        };
        let read = |name: &str| {
            assert_eq!(name, "jwt:alice");
            Ok(vec![stored(day.start_ms(now), 40)])
        };
        assert!(restore_new(&access, NOW_MS, read).is_ok());
        assert_eq!(counters.used_in(day, NOW_MS).used, 43);
        assert_eq!(rows()[0], stored(day.start_ms(now), 43));
        // It is read once.
        assert!(restore_new(&access, NOW_MS, fault).is_ok());
    }
}
