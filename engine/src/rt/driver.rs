//! Which driver moves the bytes: io_uring with its cheap flags, plain io_uring, or epoll.

use std::fmt;
use std::future::Future;
use std::io;

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

/// Operations that may wait for submission at one time. The queue is flushed when full.
const RING_ENTRIES: u32 = 4096;

/// The driver that the operator configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// io_uring where it is allowed, else epoll.
    #[default]
    Auto,
    /// io_uring, or an error.
    IoUring,
    /// epoll.
    Epoll,
}

/// The driver in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// io_uring with `COOP_TASKRUN` and `SINGLE_ISSUER`: a quarter less work than without.
    IoUring,
    /// io_uring of a kernel before 6.0, which does not know the flags.
    IoUringPlain,
    /// epoll, and why it is not io_uring.
    Epoll {
        /// The kernel's reason, if io_uring was wanted.
        because: Option<String>,
    },
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IoUring => f.write_str("io_uring"),
            Self::IoUringPlain => f.write_str("io_uring without task-run flags (old kernel)"),
            Self::Epoll { because: None } => f.write_str("epoll"),
            Self::Epoll {
                because: Some(reason),
            } => {
                write!(f, "epoll (io_uring is not available: {reason})")
            }
        }
    }
}

/// Runs a future on this thread to its end, on the best driver that the kernel allows. `make` gets
/// the driver that was chosen and makes the future.
///
/// # Errors
/// If io_uring is required and the kernel refuses it, or if epoll cannot be set up either. The
/// error names the likely cause.
pub fn run<F: Future>(wanted: Wanted, make: impl FnOnce(Driver) -> F) -> io::Result<F::Output> {
    let because = match wanted {
        Wanted::Epoll => None,
        Wanted::Auto | Wanted::IoUring => match ring() {
            Ok((mut runtime, driver)) => return Ok(runtime.block_on(make(driver))),
            Err(error) if wanted == Wanted::IoUring => return Err(explain(&error)),
            Err(error) => Some(reason(&error)),
        },
    };
    let mut runtime = RuntimeBuilder::<LegacyDriver>::new()
        .enable_timer()
        .build()?;
    Ok(runtime.block_on(make(Driver::Epoll { because })))
}

type Ring = monoio::Runtime<monoio::time::TimeDriver<IoUringDriver>>;

fn ring() -> io::Result<(Ring, Driver)> {
    // A small ring shows why io_uring is refused, if it is. The required operations exist since
    // Linux 5.7.
    drop(io_uring::IoUring::new(2)?);
    if !monoio::utils::detect_uring() {
        let message = "the kernel lacks operations that are needed, or \
                       MONOIO_FORCE_LEGACY_DRIVER is set";
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    let builder = |flags: bool| {
        let mut ring = io_uring::IoUring::builder();
        if flags {
            // Never DEFER_TASKRUN: while there are tasks to run the runtime submits without
            // asking for completions, and none would come.
            ring.setup_coop_taskrun().setup_single_issuer();
        }
        RuntimeBuilder::<IoUringDriver>::new()
            .uring_builder(ring)
            .with_entries(RING_ENTRIES)
            .enable_timer()
            .build()
    };
    builder(true)
        .map(|ring| (ring, Driver::IoUring))
        .or_else(|_| builder(false).map(|ring| (ring, Driver::IoUringPlain)))
}

fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "forbidden by seccomp or by the sysctl kernel.io_uring_disabled".to_owned()
        }
        Some(libc::ENOSYS) => "the kernel does not support it".to_owned(),
        Some(libc::ENOMEM) => "not enough lockable memory, see ulimit -l".to_owned(),
        _ => error.to_string(),
    }
}

fn explain(error: &io::Error) -> io::Error {
    let reason = reason(error);
    io::Error::new(error.kind(), format!("io_uring is not available: {reason}"))
}
