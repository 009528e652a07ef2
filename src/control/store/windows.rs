//! Which windows of quotas, and which last uses of keys, have changed since they were written last.
//!
//! Contract: docs/contract/access.md#7.3

use std::collections::HashMap;
use std::sync::Arc;

use crate::access::{AccessKeeper, Counters, Span, Use};
use crate::config::KeySource;
use crate::state::{SPANS, StoreBatch, StoredWindow};

/// The spans, in the order of [`SPANS`].
const ALL: [Span; 2] = [Span::Day, Span::Month];

/// Where the name of a policy begins in the store, which keeps the windows of keys and policies in
/// one table. No key has such a name.
const POLICY: &str = "policy:";

/// Milliseconds of a minute.
const MINUTE_MS: u64 = 60_000;

/// What was written last.
#[derive(Debug, Default)]
pub(super) struct Windows {
    keys: HashMap<Arc<str>, [Use; 2]>,
    policies: HashMap<Arc<str>, [Use; 2]>,
    /// The uses before this time are written, in milliseconds since 1970; a whole minute.
    used_until_ms: u64,
}

/// What is to be written, and what is known once it is.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) batch: StoreBatch,
    windows: Vec<(bool, Arc<str>, [Use; 2])>,
    used_until_ms: u64,
}

impl Windows {
    /// What has changed. Last uses are written once a minute, and at the end.
    pub(super) fn changed(&self, access: &AccessKeeper, now_ms: u64, is_end: bool) -> Changed {
        let mut changed = Changed {
            batch: StoreBatch::default(),
            windows: Vec::new(),
            used_until_ms: self.used_until_ms,
        };
        access.book().each(|is_policy, name, counters| {
            let now = ALL.map(|span| counters.used_in(span, now_ms));
            let written = if is_policy {
                &self.policies
            } else {
                &self.keys
            };
            let is_known = match written.get(name) {
                Some(written) => *written == now,
                None => now.iter().all(|window| window.used == 0),
            };
            if !is_known {
                changed.add(is_policy, name, now);
            }
        });
        let minute_ms = now_ms / MINUTE_MS * MINUTE_MS;
        if minute_ms > self.used_until_ms || is_end {
            changed.used_until_ms = minute_ms;
            let newest = access.newest();
            for key in newest.keys.all() {
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

    /// Notes what was written.
    pub(super) fn wrote(&mut self, changed: Changed) {
        self.used_until_ms = changed.used_until_ms;
        for (is_policy, name, windows) in changed.windows {
            let written = if is_policy {
                &mut self.policies
            } else {
                &mut self.keys
            };
            written.insert(name, windows);
        }
    }
}

impl Changed {
    fn add(&mut self, is_policy: bool, name: &Arc<str>, windows: [Use; 2]) {
        let prefix = if is_policy { POLICY } else { "" };
        for ((span, shown), window) in ALL.iter().zip(SPANS).zip(windows) {
            self.batch.windows.push(StoredWindow {
                name: format!("{prefix}{name}"),
                span: shown,
                start_ms: span.start_ms(window.number),
                used: window.used,
            });
        }
        self.windows.push((is_policy, Arc::clone(name), windows));
    }
}

/// Goes on from the windows of the store, as far as they are still current.
pub(super) fn restore(access: &AccessKeeper, windows: &[StoredWindow], now_ms: u64) {
    for window in windows {
        let spans = ALL.into_iter().zip(SPANS);
        let Some((span, _)) = spans.into_iter().find(|(_, shown)| *shown == window.span) else {
            continue;
        };
        let number = span.number(window.start_ms);
        if number < span.number(now_ms) || window.used == 0 {
            continue;
        }
        let counters: Arc<Counters> = match window.name.strip_prefix(POLICY) {
            Some(policy) => access.book().of_policy(&Arc::from(policy)),
            None => access
                .book()
                .of_name(&Arc::from(window.name.as_str()), now_ms),
        };
        let used = window.used;
        counters.restore(span, Use { number, used });
    }
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
        windows.wrote(changed);
        assert!(
            windows
                .changed(&access, NOW_MS, false)
                .batch
                .windows
                .is_empty()
        );
        // The next day begins empty, and that is written too.
        let tomorrow = NOW_MS + 86_400_000;
        assert_eq!(
            windows
                .changed(&access, tomorrow, false)
                .batch
                .windows
                .len(),
            4
        );

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
}
