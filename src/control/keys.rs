//! Follows the keys file, and says which keys were loaded.
//!
//! The thread looks at the file every [`LOOK`], and takes a version over when two looks have seen the
//! same: so a version is in force within 2 s of its last write, and few of them are half-written. A
//! version with errors is not used; the keys before it stay in force.
//!
//! Contract: docs/contract/access.md#4.1

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::access::KeySources;
use crate::config::{Env, Finding, KeyPlan, KeySource};
use crate::log::{Level, Logger, Value, events};
use crate::shared::{Common, ControlSender, ToControl};

/// The interval of the looks.
const LOOK: Duration = Duration::from_millis(400);

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

/// What tells a version of a file from another; `None` = the file is not there.
type Stamp = Option<(SystemTime, u64, u64)>;

/// A version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    path: PathBuf,
    stamp: Stamp,
}

impl Version {
    fn of(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let file = std::fs::metadata(path).ok();
        let stamp = file.and_then(|file| Some((file.modified().ok()?, file.len(), file.ino())));
        Self {
            path: path.to_path_buf(),
            stamp,
        }
    }
}

struct Follower {
    common: Arc<Common>,
    control: ControlSender,
    logger: Logger,
    /// The version that the last look has seen.
    seen: Option<Version>,
    /// The version that was taken over, or refused.
    taken: Option<Version>,
}

impl Follower {
    fn run(mut self, woken: &Receiver<()>) {
        loop {
            let sources = self.common.access.sources();
            let file = sources.plan.keys_file.as_ref();
            if let Some(file) = file {
                self.look(&file.path, &sources);
                match woken.recv_timeout(LOOK) {
                    Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            } else {
                (self.seen, self.taken) = (None, None);
                self.common
                    .access
                    .keys_file_ok
                    .store(true, Ordering::Relaxed);
                if woken.recv().is_err() {
                    return;
                }
            }
        }
    }

    fn look(&mut self, path: &Path, sources: &KeySources) {
        let version = Version::of(path);
        let is_new = self.taken.as_ref() != Some(&version);
        let is_settled = self.seen.as_ref() == Some(&version);
        if is_new && is_settled {
            self.take(sources);
            self.taken = Some(version.clone());
        }
        self.seen = Some(version);
    }

    /// Reads the file and puts its keys in force, if they have changed.
    fn take(&self, sources: &KeySources) {
        let Some(read) = sources.plan.read_keys_file(&Env::process()) else {
            return;
        };
        let is_ok = read.is_ok();
        self.common
            .access
            .keys_file_ok
            .store(is_ok, Ordering::Relaxed);
        match read {
            Err(findings) => self.log_refused(&findings),
            Ok((keys, warnings)) => {
                for warning in warnings {
                    let sentence = warning.sentence();
                    let fields = [("error", Value::Str(&sentence))];
                    self.logger
                        .emit(Level::Warn, events::KEYS_FILE_ODD, &fields);
                }
                if keys == *sources.file {
                    return;
                }
                let keys = Arc::new(keys);
                let is_current = self.common.access.change(|current| {
                    // A reload has read the file too, and maybe another one.
                    let is_same = Arc::ptr_eq(&current.plan, &sources.plan);
                    if is_same {
                        current.file = Arc::clone(&keys);
                    }
                    is_same
                });
                if is_current {
                    self.control.send(ToControl::KeysChanged);
                    log_loaded(&self.logger, KeySource::File, &sources.file, &keys);
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
    let of = |sources: &KeySources, source: KeySource| -> Arc<Vec<KeyPlan>> {
        if source == KeySource::File {
            return Arc::clone(&sources.file);
        }
        let own = sources.plan.keys.iter().filter(|key| key.source == source);
        Arc::new(own.cloned().collect())
    };
    for source in [KeySource::Config, KeySource::Env, KeySource::File] {
        let old = before.map(|before| of(before, source)).unwrap_or_default();
        log_loaded(logger, source, &old, &of(after, source));
    }
}

/// Logs what has changed of the keys of a source, if anything has.
fn log_loaded(logger: &Logger, source: KeySource, before: &[KeyPlan], after: &[KeyPlan]) {
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
#[derive(Debug, PartialEq, Eq)]
struct Changes {
    added: u64,
    removed: u64,
    changed: u64,
}

fn changes(before: &[KeyPlan], after: &[KeyPlan]) -> Changes {
    let mut old: HashMap<&str, &KeyPlan> =
        before.iter().map(|key| (&*key.fields.name, key)).collect();
    let (mut added, mut changed) = (0, 0);
    for key in after {
        match old.remove(&*key.fields.name) {
            None => added += 1,
            Some(same) if same != key => changed += 1,
            Some(_) => {}
        }
    }
    Changes {
        added,
        removed: old.len() as u64,
        changed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KeyDigest, KeyFields};

    #[test]
    fn keys_are_compared_by_name() {
        let key = |name: &str, byte: u8| KeyPlan {
            fields: KeyFields {
                name: name.into(),
                policy: "default".into(),
                enabled: true,
                expires_ms: None,
                note: "".into(),
                overrides: None,
            },
            digest: KeyDigest::from_bytes([byte; 32]),
            source: KeySource::File,
        };
        let before = [key("a", 1), key("b", 2), key("c", 3)];
        let after = [key("c", 3), key("b", 9), key("d", 4), key("e", 5)];
        let want = Changes {
            added: 2,
            removed: 1,
            changed: 1,
        };
        assert_eq!(changes(&before, &after), want);
    }
}
