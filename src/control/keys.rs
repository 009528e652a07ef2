//! Follows the keys file, and says which keys were loaded.
//!
//! The thread looks at the file every [`LOOK`], and takes a version over when two looks have seen the
//! same: so a version is in force within 2 s of its last write, and few of them are half-written. It
//! has a second to read it, which is enough for 100,000 keys. A
//! version with errors is not used; the keys before it stay in force.
//!
//! Contract: docs/contract/access.md#4.1

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::access::{KeySources, by_name};
use crate::config::{
    Env, FileStamp, Finding, KeyAccessPlan, KeyPlan, KeySource, KeysFilePlan, file_stamp,
};
use crate::log::{Level, Logger, Value, events};
use crate::shared::{Common, ControlSender, ToControl};

/// The interval of the looks.
const LOOK: Duration = Duration::from_millis(250);

/// The thread that follows the keys file. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct KeysThread {
    wake: Sender<()>,
    _thread: JoinHandle<()>,
}

impl KeysThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(
        common: Arc<Common>,
        control: ControlSender,
        logger: Logger,
    ) -> std::io::Result<Self> {
        let (wake, woken) = bounded(1);
        let builder = std::thread::Builder::new().name("keys".to_owned());
        let thread = builder.spawn(move || {
            let follower = Follower {
                common,
                control,
                logger,
                plan: Weak::new(),
                seen: None,
                taken: None,
            };
            follower.run(&woken);
        })?;
        Ok(Self {
            wake,
            _thread: thread,
        })
    }

    /// The configuration was read again, and the keys file with it.
    pub(crate) fn reloaded(&self) {
        // A full channel has a message of the same meaning.
        let _ = self.wake.try_send(());
    }
}

/// A version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    path: PathBuf,
    stamp: FileStamp,
}

impl Version {
    fn of(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            stamp: file_stamp(path),
        }
    }
}

struct Follower {
    common: Arc<Common>,
    control: ControlSender,
    logger: Logger,
    /// The configuration that names the file; it may be gone.
    plan: Weak<KeyAccessPlan>,
    /// The version that the last look has seen.
    seen: Option<Version>,
    /// The version that was taken over, or refused.
    taken: Option<Version>,
}

impl Follower {
    fn run(mut self, woken: &Receiver<()>) {
        loop {
            // The sources are not held while the thread waits: a change would copy them.
            let plan = self.common.access.sources().plan;
            if let Some(file) = &plan.keys_file {
                if !std::ptr::eq(self.plan.as_ptr(), Arc::as_ptr(&plan)) {
                    self.begin(file);
                    self.plan = Arc::downgrade(&plan);
                }
                self.look(&file.path);
                drop(plan);
                match woken.recv_timeout(LOOK) {
                    Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            } else {
                drop(plan);
                self.plan = Weak::new();
                self.common.access.keys_file_ok.store(true, Relaxed);
                if woken.recv().is_err() {
                    return;
                }
            }
        }
    }

    /// Goes on from the version of the file that was read with its configuration.
    fn begin(&mut self, file: &KeysFilePlan) {
        self.seen = None;
        self.taken = Some(Version {
            path: file.path.clone(),
            stamp: file.stamp,
        });
        self.common.access.keys_file_ok.store(true, Relaxed);
    }

    fn look(&mut self, path: &Path) {
        let version = Version::of(path);
        let is_new = self.taken.as_ref() != Some(&version);
        let is_settled = self.seen.as_ref() == Some(&version);
        if is_new && is_settled {
            self.take();
            self.taken = Some(version.clone());
        }
        self.seen = Some(version);
    }

    /// Reads the file and puts its keys in force, if they have changed.
    fn take(&self) {
        let access = &self.common.access;
        let KeySources { plan, file, .. } = access.sources();
        let Some(read) = plan.read_keys_file(&Env::process(), &file) else {
            return;
        };
        let is_ok = read.is_ok();
        access.keys_file_ok.store(is_ok, Relaxed);
        match read {
            Err(findings) => self.log_refused(&findings),
            Ok((keys, warnings)) => {
                for warning in warnings {
                    let sentence = warning.sentence();
                    let fields = [("error", Value::Str(&sentence))];
                    self.logger
                        .emit(Level::Warn, events::KEYS_FILE_ODD, &fields);
                }
                let keys = by_name(keys);
                if keys == *file {
                    return;
                }
                let keys = Arc::new(keys);
                let is_current = access.change(|current| {
                    // A reload has read the file too, and maybe another one.
                    let is_same = Arc::ptr_eq(&current.plan, &plan);
                    if is_same {
                        current.file = Arc::clone(&keys);
                    }
                    is_same
                });
                if is_current {
                    self.control.send(ToControl::KeysChanged);
                    log_loaded(&self.logger, KeySource::File, &file, &keys);
                }
            }
        }
    }

    fn log_refused(&self, findings: &[Finding]) {
        let first = findings.first().map(Finding::sentence).unwrap_or_default();
        let fields = [
            ("error", Value::Str(&first)),
            ("errors", Value::Num(findings.len() as u64)),
        ];
        self.logger
            .emit(Level::Error, events::KEYS_FILE_REFUSED, &fields);
    }
}

/// Logs what a reload, or the start, has changed of the keys of each source.
pub(crate) fn log_changed(logger: &Logger, before: Option<&KeySources>, after: &KeySources) {
    let of = |sources: &KeySources, source: KeySource| -> Arc<Vec<Arc<KeyPlan>>> {
        if source == KeySource::File {
            return Arc::clone(&sources.file);
        }
        let own = sources.plan.keys.iter().filter(|key| key.source == source);
        Arc::new(by_name(own.cloned().collect()))
    };
    for source in [KeySource::Config, KeySource::Env, KeySource::File] {
        let old = before.map(|before| of(before, source)).unwrap_or_default();
        log_loaded(logger, source, &old, &of(after, source));
    }
}

/// Logs what has changed of the keys of a source, if anything has. Both lists are by name.
fn log_loaded(logger: &Logger, source: KeySource, before: &[Arc<KeyPlan>], after: &[Arc<KeyPlan>]) {
    let Changes {
        added,
        removed,
        changed,
    } = changes(before, after);
    if added + removed + changed == 0 {
        return;
    }
    let fields = [
        ("source", Value::Str(source.as_str())),
        ("keys", Value::Num(after.len() as u64)),
        ("added", Value::Num(added)),
        ("removed", Value::Num(removed)),
        ("changed", Value::Num(changed)),
    ];
    logger.emit(Level::Info, events::KEYS_LOADED, &fields);
}

/// What differs between two lists of keys.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    added: u64,
    removed: u64,
    changed: u64,
}

/// What differs between two lists that are by name.
fn changes(before: &[Arc<KeyPlan>], after: &[Arc<KeyPlan>]) -> Changes {
    let mut changes = Changes::default();
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.name.cmp(&new.name),
        };
        // The lesser name is missing in the other list.
        let old = order.is_le().then(|| old.next()).flatten();
        let new = order.is_ge().then(|| new.next()).flatten();
        match (old, new) {
            (Some(old), Some(new)) => changes.changed += u64::from(old != new),
            (Some(_), None) => changes.removed += 1,
            _ => changes.added += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KeyDigest, KeyFields};

    #[test]
    fn keys_are_compared_by_name() {
        let key = |name: &str, byte: u8| {
            Arc::new(KeyPlan {
                fields: KeyFields::new(name.into(), "default".into()),
                digest: KeyDigest::from_bytes([byte; 32]),
                source: KeySource::File,
            })
        };
        let before = [key("a", 1), key("b", 2), key("c", 3)];
        let after = [key("b", 9), key("c", 3), key("d", 4), key("e", 5)];
        let want = Changes {
            added: 2,
            removed: 1,
            changed: 1,
        };
        assert_eq!(changes(&before, &after), want);
    }
}
