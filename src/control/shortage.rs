//! The warnings that connections cannot be opened for want of a resource of this machine, each at
//! most once a minute.
//!
//! Contract: docs/contract/balancing.md#9.3

use std::cell::Cell;
use std::time::{Duration, Instant};

use olla_engine::rt::{Exhausted, sys};

use crate::log::{Level, Logger, Value};
use crate::operations::stats::resource_name;

/// The least time between two warnings.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Connections of one kind that were not opened, and when that was last logged.
#[derive(Debug)]
pub(super) struct Shortage {
    message: &'static str,
    last_warning: Cell<Option<Instant>>,
    failures_since: Cell<u64>,
}

impl Shortage {
    /// Nothing is short yet; warnings have this message.
    pub(super) fn of(message: &'static str) -> Self {
        Self {
            message,
            last_warning: Cell::default(),
            failures_since: Cell::default(),
        }
    }

    /// A connection was not opened.
    pub(super) fn on_failure(&self, resource: Exhausted, logger: &Logger) {
        let Some(failures) = self.due(Instant::now()) else {
            return;
        };
        let mut fields = vec![
            ("reason", Value::Str(resource_name(resource))),
            ("failures", Value::Num(failures)),
        ];
        if resource == Exhausted::ProcessFiles
            && let Ok(limit) = sys::open_files_limit()
        {
            fields.push(("open_files_limit", Value::Num(limit)));
        }
        fields.push(("remedy", Value::Str(remedy(resource))));
        logger.emit(Level::Warn, self.message, &fields);
    }

    /// The failures since the last warning, this one included, if another warning is due.
    fn due(&self, now: Instant) -> Option<u64> {
        self.failures_since.set(self.failures_since.get() + 1);
        let last = self.last_warning.get();
        if last.is_some_and(|last| now.saturating_duration_since(last) < WARNING_INTERVAL) {
            return None;
        }
        self.last_warning.set(Some(now));
        Some(self.failures_since.take())
    }
}

fn remedy(resource: Exhausted) -> &'static str {
    match resource {
        Exhausted::ProcessFiles => {
            "raise the limit of open files: LimitNOFILE= in systemd, --ulimit nofile= in Docker, \
             ulimit -n in a shell"
        }
        Exhausted::SystemFiles => {
            "raise fs.file-max with sysctl, or close files of other processes"
        }
        Exhausted::Memory => "the kernel is out of memory for sockets; free memory on this machine",
        Exhausted::Ports => {
            "widen net.ipv4.ip_local_port_range with sysctl, or raise \
             proxy.idle_connection_timeout so that connections are used again"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_a_minute_apart_and_count_the_failures_between() {
        let shortage = Shortage::of("");
        let start = Instant::now();
        let at = |seconds| shortage.due(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(1));
        assert_eq!(at(1), None);
        assert_eq!(at(59), None);
        assert_eq!(at(60), Some(3));
        assert_eq!(at(119), None);
        assert_eq!(at(500), Some(2));
    }
}
