//! The log file: `olla.log` in a folder, rotated by size. A thread of its own compresses and
//! removes old files, so that no line waits for it.
//!
//! Rotation is written by hand because the contract asks for files named by an instant, limited by
//! number and age together, compressed in the background, and retried after an error. `file-rotate`
//! limits either number or age and compresses while lines wait; `logroller` knows no age.
//!
//! Contract: docs/contract/operations.md#8

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use time::OffsetDateTime;

use crate::config::LoggingPlan;

const NAME: &str = "olla.log";
/// Rotated files are `olla-<instant>.log`, then `olla-<instant>.log.gz`. The form of the instant
/// makes their names sort by time.
const ROTATED_PREFIX: &str = "olla-";
const ROTATED_SUFFIX: &str = ".log";
const GZIP_SUFFIX: &str = ".gz";

/// The pause after a failure until the file is tried again, in milliseconds.
const RETRY_MS: u64 = 10_000;

/// Names that are tried for one rotated file. More than one is needed only for several rotations
/// within a millisecond.
const ROTATIONS_PER_MS_MAX: u32 = 100;

/// The configuration of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilePlan {
    dir: PathBuf,
    rotate_bytes: u64,
    old: OldFiles,
}

/// How many rotated files are kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OldFiles {
    /// 0 = no limit.
    count_max: u32,
    /// `None` = no limit.
    age_max: Option<Duration>,
}

impl FilePlan {
    pub(super) fn of(plan: &LoggingPlan) -> Self {
        Self {
            dir: plan.dir.clone(),
            rotate_bytes: plan.rotate_bytes.max(1),
            old: OldFiles {
                count_max: plan.max_backups,
                age_max: plan.max_age,
            },
        }
    }
}

/// The open file and the state of its rotation.
pub(super) struct LogFile {
    plan: FilePlan,
    path: PathBuf,
    open: Option<(File, u64)>,
    /// The time before which it is not tried again.
    retry_at_ms: u64,
    cleaner: Option<JoinHandle<()>>,
}

impl LogFile {
    /// The file of a plan; it is not open yet.
    pub(super) fn new(plan: FilePlan) -> Self {
        let path = plan.dir.join(NAME);
        Self {
            plan,
            path,
            open: None,
            retry_at_ms: 0,
            cleaner: None,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Applies another plan if it is for the same file. False: it is for another file.
    pub(super) fn retune(&mut self, plan: &FilePlan) -> bool {
        let same = self.plan.dir == plan.dir && self.open.is_some();
        if same {
            self.plan.clone_from(plan);
        }
        same
    }

    /// Opens the file, creates its folder, and cleans up the old files of earlier runs.
    ///
    /// # Errors
    /// The system's error; [`Self::append`] tries again after [`RETRY_MS`].
    pub(super) fn open(&mut self, now_ms: u64) -> io::Result<()> {
        let opened = fs::create_dir_all(&self.plan.dir).and_then(|()| self.open_file());
        match opened {
            Ok(file) => self.open = Some(file),
            Err(error) => {
                self.retry_at_ms = now_ms.saturating_add(RETRY_MS);
                return Err(error);
            }
        }
        self.clean();
        Ok(())
    }

    fn open_file(&self) -> io::Result<(File, u64)> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    /// Appends whole lines, after a rotation if they would make the file too large.
    ///
    /// # Errors
    /// The first failure of a series. Until the file works again, lines are not written to it.
    pub(super) fn append(&mut self, lines: &[u8], now_ms: u64) -> io::Result<()> {
        if self.open.is_none() {
            if now_ms < self.retry_at_ms {
                return Ok(());
            }
            self.open(now_ms)?;
        }
        let added = lines.len() as u64;
        let full = |size: u64| size > 0 && size.saturating_add(added) > self.plan.rotate_bytes;
        let mut rotated = Ok(());
        if now_ms >= self.retry_at_ms && self.open.as_ref().is_some_and(|(_, size)| full(*size)) {
            rotated = self.rotate(now_ms);
        }
        let Some((file, size)) = &mut self.open else {
            return rotated;
        };
        *size += added;
        let written = file.write_all(lines);
        if written.is_err() {
            self.open = None;
            self.retry_at_ms = now_ms.saturating_add(RETRY_MS);
        }
        written.and(rotated)
    }

    /// A file that cannot be renamed is still written to: lines matter more than the limit.
    fn rotate(&mut self, now_ms: u64) -> io::Result<()> {
        self.open = None;
        let instant = instant(now_ms);
        let mut candidates = (0..ROTATIONS_PER_MS_MAX).map(|n| {
            let more = if n == 0 {
                String::new()
            } else {
                format!("-{n}")
            };
            let name = format!("{ROTATED_PREFIX}{instant}{more}{ROTATED_SUFFIX}");
            self.plan.dir.join(name)
        });
        let is_free = |path: &PathBuf| {
            let mut zipped = path.clone().into_os_string();
            zipped.push(GZIP_SUFFIX);
            !path.exists() && !Path::new(&zipped).exists()
        };
        let renamed = match candidates.find(is_free) {
            Some(path) => fs::rename(&self.path, path),
            None => Err(io::Error::other("too many rotations within a millisecond")),
        };
        self.open(now_ms)?;
        if renamed.is_err() {
            self.retry_at_ms = now_ms.saturating_add(RETRY_MS);
        }
        renamed
    }

    /// Compresses and removes old files, unless the last cleaning still runs.
    fn clean(&mut self) {
        if self
            .cleaner
            .as_ref()
            .is_some_and(|cleaner| !cleaner.is_finished())
        {
            return;
        }
        let (dir, old) = (self.plan.dir.clone(), self.plan.old);
        let thread = std::thread::Builder::new().name("olla-log-files".to_owned());
        self.cleaner = thread.spawn(move || clean(&dir, old)).ok();
    }

    /// Waits for the cleaning.
    #[cfg(test)]
    pub(super) fn settle(&mut self) {
        if let Some(cleaner) = self.cleaner.take() {
            cleaner.join().unwrap();
        }
    }
}

/// `2026-04-15T10-30-00.123`: an instant in UTC that can be a file's name everywhere.
fn instant(unix_ms: u64) -> String {
    let seconds = (unix_ms / 1000).cast_signed();
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}-{:02}-{:02}.{:03}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        unix_ms % 1000,
    )
}

/// A step that fails is tried again at the next rotation.
fn clean(dir: &Path, old: OldFiles) {
    for path in rotated(dir) {
        if path.extension().is_some_and(|ending| ending == "log") {
            let _ = gzip(&path);
        }
    }
    let mut files = rotated(dir);
    files.sort();
    let excess = match old.count_max {
        0 => 0,
        count => files.len().saturating_sub(count as usize),
    };
    let now = SystemTime::now();
    for (at, path) in files.iter().enumerate() {
        let modified = fs::metadata(path).and_then(|meta| meta.modified());
        let age = modified
            .ok()
            .and_then(|modified| now.duration_since(modified).ok());
        let too_old = old.age_max.zip(age).is_some_and(|(max, age)| age > max);
        if at < excess || too_old {
            let _ = fs::remove_file(path);
        }
    }
}

/// The rotated files of a folder, gzipped or not.
fn rotated(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let is_rotated = |path: &PathBuf| {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return false;
        };
        let plain = name.strip_suffix(GZIP_SUFFIX).unwrap_or(name);
        plain.ends_with(ROTATED_SUFFIX)
            && plain
                .strip_prefix(ROTATED_PREFIX)
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(is_rotated)
        .collect()
}

/// Replaces a file by its gzipped form; a half-written one never has the final name. The
/// modification time stays, because the age of files is measured by it.
fn gzip(path: &Path) -> io::Result<()> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let (part, done) = (with(".part"), with(GZIP_SUFFIX));
    let mut source = File::open(path)?;
    let modified = source.metadata()?.modified()?;
    let mut zipped = GzEncoder::new(File::create(&part)?, Compression::default());
    let written = io::copy(&mut source, &mut zipped).and_then(|_| zipped.finish());
    let moved = written
        .and_then(|file| file.set_modified(modified))
        .and_then(|()| fs::rename(&part, done));
    if moved.is_err() {
        let _ = fs::remove_file(&part);
        return moved;
    }
    fs::remove_file(path)
}
